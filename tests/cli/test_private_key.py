"""The private key: its sources, their precedence, and what is refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.settings import KEY, refusal

from restore_agent.cli.config import Values
from restore_agent.core.redaction import Secret
from restore_agent.core.settings import Connection

# ---------------------------------------------------------------- the private key


def key_file(path: Path, text: str | bytes = KEY, mode: int = 0o600) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


def test_the_private_key_is_read_from_the_first_source_that_has_it(
    tmp_path: Path, config: Callable[[str], str]
) -> None:
    (tmp_path / "credentials").mkdir()
    key_file(tmp_path / "credentials" / "private-key", "from-credentials")
    path = config(f"private_key_file = {key_file(tmp_path / 'file', 'from-file')!r}\n")
    flags = {"private_key_file": key_file(tmp_path / "flag", "from-flag"), "config": path}
    environ = {
        "RESTORE_AGENT_PRIVATE_KEY_FILE": key_file(tmp_path / "env-file", "from-env-file"),
        "RESTORE_AGENT_PRIVATE_KEY": "from-env",
        "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"),
    }
    seen = []
    for gone in ("private_key_file", "RESTORE_AGENT_PRIVATE_KEY_FILE", "RESTORE_AGENT_PRIVATE_KEY", "config", None):
        seen.append(Values(flags, environ).private_key().reveal())
        flags.pop(gone, None)
        environ.pop(gone, None)
    assert seen == ["from-flag", "from-env-file", "from-env", "from-file", "from-credentials"]


def test_an_empty_variable_of_the_key_is_one_that_is_not_set(tmp_path: Path) -> None:
    environ = {
        "RESTORE_AGENT_PRIVATE_KEY_FILE": "",
        "RESTORE_AGENT_PRIVATE_KEY": "",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    key_file(tmp_path / "private-key")
    assert Values({}, environ).private_key() == Secret(KEY)


def test_without_a_key_the_error_names_its_sources() -> None:
    said = refusal(lambda: Values({}, {"CREDENTIALS_DIRECTORY": ""}).private_key())
    assert "--private-key-file" in said
    assert "RESTORE_AGENT_PRIVATE_KEY" in said


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_file_that_only_its_owner_can_read_is_accepted(mode: int, tmp_path: Path) -> None:
    path = key_file(tmp_path / "key", mode=mode)
    assert Values({"private_key_file": path}, {}).private_key() == Secret(KEY)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o440, 0o666, 0o777])
@pytest.mark.parametrize("source", ["flag", "environment", "file"])
def test_a_key_file_that_others_can_read_is_refused(
    mode: int, source: str, tmp_path: Path, config: Callable[[str], str]
) -> None:
    path = key_file(tmp_path / "key", mode=mode)
    values = {
        "flag": lambda: Values({"private_key_file": path}, {}),
        "environment": lambda: Values({}, {"RESTORE_AGENT_PRIVATE_KEY_FILE": path}),
        "file": lambda: Values({"config": config(f"private_key_file = {path!r}")}, {}),
    }[source]()
    said = refusal(values.private_key)
    assert f"chmod 600 {path}" in said
    assert KEY not in said


def test_the_mode_of_a_linked_key_file_is_that_of_the_file_itself(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "key")
    values = Values({"private_key_file": str(tmp_path / "link")}, {})
    key_file(tmp_path / "key", mode=0o600)
    assert values.private_key() == Secret(KEY)
    key_file(tmp_path / "key", mode=0o640)
    assert "can be read" in refusal(values.private_key)


def test_a_credential_of_systemd_may_show_a_group_bit(tmp_path: Path) -> None:
    key_file(tmp_path / "private-key", mode=0o440)
    assert Values({}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).private_key() == Secret(KEY)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_a_newline_at_the_end_of_a_key_is_not_part_of_it(ending: str, tmp_path: Path) -> None:
    from_file = Values({"private_key_file": key_file(tmp_path / "key", KEY + ending)}, {})
    assert from_file.private_key().reveal() == KEY
    assert Values({}, {"RESTORE_AGENT_PRIVATE_KEY": KEY + ending}).private_key().reveal() == KEY


def test_a_space_at_the_end_of_a_key_is_part_of_it() -> None:
    assert Values({}, {"RESTORE_AGENT_PRIVATE_KEY": "pass phrase \n"}).private_key().reveal() == "pass phrase "


@pytest.mark.parametrize("text", ["", "\n", " \n", "\r\n\r\n", "\t"])
def test_an_empty_key_is_refused(text: str, tmp_path: Path) -> None:
    path = key_file(tmp_path / "key", text)
    assert f"{path} is empty" in refusal(Values({"private_key_file": path}, {}).private_key)
    if text:
        environ = {"RESTORE_AGENT_PRIVATE_KEY": text}
        assert "RESTORE_AGENT_PRIVATE_KEY is empty" in refusal(Values({}, environ).private_key)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"one-line\nanother-line\n", "more than one line"),
        (b"with-a-\x00-inside", "control characters"),
        (b"\xef\xbb\xbfwith-a-byte-order-mark", "control characters"),
        (b"\xff\xfe-is-no-text", "UTF-8"),
        (b"x" * (65 * 1024), "larger"),
    ],
)
def test_a_file_that_is_not_a_key_is_refused_without_being_shown(raw: bytes, words: str, tmp_path: Path) -> None:
    said = refusal(Values({"private_key_file": key_file(tmp_path / "key", raw)}, {}).private_key)
    assert words in said
    assert not any(part in said for part in ("one-line", "another", "inside", "byte-order", "is-no-text", "xxx"))


@pytest.mark.parametrize("kind", ["nothing", "directory", "fifo"])
def test_a_key_file_must_be_a_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    if kind == "directory":
        path.mkdir(mode=0o700)
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    said = refusal(Values({"private_key_file": str(path)}, {}).private_key)
    assert str(path) in said
    assert "--private-key-file" in said


@pytest.mark.parametrize("place", ["/dev/fd", "/proc/self/fd"])
def test_a_key_may_be_read_from_a_process_substitution_of_the_shell(place: str) -> None:
    """bash and ksh call it /dev/fd/63, zsh /proc/self/fd/12."""
    end, start = os.pipe()
    os.write(start, b"a-private-key\n")
    os.close(start)
    try:
        assert Values({"private_key_file": f"{place}/{end}"}, {}).private_key().reveal() == "a-private-key"
    finally:
        os.close(end)


def test_a_missing_credential_of_systemd_is_refused_with_its_path(tmp_path: Path) -> None:
    said = refusal(Values({}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).private_key)
    assert str(tmp_path / "private-key") in said


def test_a_connection_does_not_show_its_key() -> None:
    made = Connection("https://om", "public", Secret(KEY))
    assert KEY not in repr(made)
    assert KEY not in str(made)
    assert made.private_key.reveal() == KEY
