"""What the operator asked for: every way to say it, which one wins, and what is refused with which words."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from restore_agent.cli import config as settings
from restore_agent.cli.config import Values, connection, dest, limits, target
from restore_agent.cli.options import CONNECTION, LIMITS, METRICS_OPTIONS, OPTIONS, OUTPUT_OPTIONS, TARGET
from restore_agent.cli.parsers import base_url, duration, identifier, positive_duration, size
from restore_agent.core.errors import UsageError
from restore_agent.core.redaction import Secret
from restore_agent.core.settings import Connection, RunLimits, Target

KEY = "e2c5a0f4-69a1-4d6e-9c6d-8d1f5f5a7b11"


@pytest.fixture(autouse=True)
def no_configuration_of_this_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep /etc/restore-agent/config.toml of the machine out of the tests."""
    monkeypatch.setattr(settings, "DEFAULT_CONFIG", tmp_path / "etc" / "config.toml")


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], str]:
    """Writes a configuration file and gives its path."""

    def write(text: str) -> str:
        path = tmp_path / "agent.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@contextmanager
def without_privileges() -> Iterator[None]:
    """As a user to whom the file permissions apply; root is somebody else for the while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def refusal(call: Callable[[], object]) -> str:
    """The message of the UsageError that `call` must raise; its exit code is 2."""
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.exit_code == 2
    return caught.value.message


# ---------------------------------------------------------------- the table of the contract

# option: (environment variable, default), as the contract's table of `run` has them
CONTRACT = {
    "url": ("RESTORE_AGENT_URL", None),
    "public_key": ("RESTORE_AGENT_PUBLIC_KEY", None),
    "private_key_file": ("RESTORE_AGENT_PRIVATE_KEY_FILE", None),
    "group_id": ("RESTORE_AGENT_GROUP_ID", None),
    "cluster_id": ("RESTORE_AGENT_CLUSTER_ID", None),
    "host_id": (None, None),
    "batch_id": ("RESTORE_AGENT_BATCH_ID", None),
    "job_id": (None, None),
    "select": (None, None),
    "expect_jobs": (None, None),
    "dest": ("RESTORE_AGENT_DEST", None),
    "wait_timeout": (None, 6 * 3600.0),
    "hash_timeout": (None, 15 * 60.0),
    "poll_interval": (None, 5.0),
    "stall_timeout": (None, 60.0),
    "retries": (None, 5),
    "parallel": (None, 4),
    "limit_rate": (None, None),
    "allow_unproven": (None, False),
    "ca_file": ("RESTORE_AGENT_CA_FILE", None),
    "client_cert": ("RESTORE_AGENT_CLIENT_CERT", None),
    "client_key": ("RESTORE_AGENT_CLIENT_KEY", None),
    "output": ("RESTORE_AGENT_OUTPUT", "text"),
    "progress": (None, "auto"),
}
ADDED = {"metrics_file": ("RESTORE_AGENT_METRICS_FILE", None)}
"""What the places where the agent is used asked for beyond the contract's table."""
REPEATABLE = ("job_id", "select")


def test_the_options_are_those_of_the_contract() -> None:
    assert set(OPTIONS) == set(CONTRACT) | set(ADDED)
    assert {name for name, option in OPTIONS.items() if option.many} == set(REPEATABLE)
    assert OPTIONS["group_id"].aliases == ("project_id",)
    assert OPTIONS["output"].short == "-o"


def test_every_option_belongs_to_exactly_one_group() -> None:
    grouped = [*CONNECTION, *TARGET, *LIMITS, *METRICS_OPTIONS, *OUTPUT_OPTIONS]
    assert sorted(grouped) == sorted(OPTIONS)


@pytest.mark.parametrize("name", [*CONTRACT, *ADDED])
def test_an_option_has_the_variable_and_the_default_of_the_contract(name: str) -> None:
    variable, default = (CONTRACT | ADDED)[name]
    assert OPTIONS[name].env == variable
    assert Values({}, {}).get(name) == (() if name in REPEATABLE else default)


@pytest.mark.parametrize("name", CONTRACT)
def test_an_option_is_typed_with_dashes_and_explains_itself(name: str) -> None:
    assert OPTIONS[name].flag == "--" + name.replace("_", "-")
    assert OPTIONS[name].help.endswith(".")


def test_there_is_no_option_for_the_key_itself() -> None:
    assert "private_key" not in OPTIONS


def test_the_defaults_of_the_pace_are_those_of_the_options() -> None:
    assert limits(Values({}, {})) == RunLimits()


# ---------------------------------------------------------------- precedence

# option: what flag, environment and file say; what each of them parses to stands beside it
SAID: dict[str, list[tuple[Any, Any]]] = {
    "url": [("https://flag", "https://flag"), ("https://env/", "https://env"), ("https://file", "https://file")],
    "public_key": [("flagkey", "flagkey"), ("envkey", "envkey"), ("filekey", "filekey")],
    "private_key_file": [("/flag", Path("/flag")), ("/env", Path("/env")), ("/file", Path("/file"))],
    "group_id": [("a1", "a1"), ("a2", "a2"), ("a3", "a3")],
    "cluster_id": [("b1", "b1"), ("b2", "b2"), ("b3", "b3")],
    "host_id": [("c1", "c1"), ("c2", "c2"), ("c3", "c3")],
    "batch_id": [("d1", "d1"), ("d2", "d2"), ("d3", "d3")],
    "job_id": [(("e1", "e11"), ("e1", "e11")), ("e2", ("e2",)), (["e3", "e33"], ("e3", "e33"))],
    "select": [(("shard*",), ("shard*",)), ("x", ("x",)), ("config*", ("config*",))],
    "expect_jobs": [("3", 3), ("4", 4), (5, 5)],
    "dest": [("/f", Path("/f")), ("/e", Path("/e")), ("/c", Path("/c"))],
    "wait_timeout": [("1h", 3600.0), ("2h", 7200.0), (90, 90.0)],
    "hash_timeout": [("1m", 60.0), ("2m", 120.0), ("3m", 180.0)],
    "poll_interval": [("1s", 1.0), ("2s", 2.0), (0.5, 0.5)],
    "stall_timeout": [("10", 10.0), ("20", 20.0), ("30s", 30.0)],
    "retries": [("0", 0), ("1", 1), (2, 2)],
    "parallel": [("1", 1), ("2", 2), (3, 3)],
    "limit_rate": [("1M", 1 << 20), ("2M", 2 << 20), (65536, 65536)],
    "allow_unproven": [(True, True), ("true", True), (False, False)],
    "ca_file": [("flag.pem", Path("flag.pem")), ("env.pem", Path("env.pem")), ("file.pem", Path("file.pem"))],
    "client_cert": [("flag.pem", Path("flag.pem")), ("env.pem", Path("env.pem")), ("file.pem", Path("file.pem"))],
    "client_key": [("flag.pem", Path("flag.pem")), ("env.pem", Path("env.pem")), ("file.pem", Path("file.pem"))],
    "metrics_file": [("/a", Path("/a")), ("/b", Path("/b")), ("/c", Path("/c"))],
    "output": [("json", "json"), ("text", "text"), ("json", "json")],
    "progress": [("bar", "bar"), ("plain", "plain"), ("none", "none")],
}


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else repr(value)


@pytest.fixture
def certificates_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("flag.pem", "env.pem", "file.pem"):
        (tmp_path / name).write_text("PEM")


def test_precedence_is_tried_with_every_option() -> None:
    assert set(SAID) == set(OPTIONS)


@pytest.mark.usefixtures("certificates_here")
@pytest.mark.parametrize("name", SAID)
def test_a_flag_beats_the_environment_which_beats_the_file(name: str, config: Callable[[str], str]) -> None:
    (flag, as_flag), (in_env, as_env), (in_file, as_file) = SAID[name]
    path = config(f"{name} = {toml(in_file)}\n")
    variable = OPTIONS[name].env
    environ = {variable: in_env} if variable else {}

    assert Values({"config": path, name: flag}, environ).get(name) == as_flag
    assert Values({"config": path}, environ).get(name) == (as_env if variable else as_file)
    assert Values({"config": path}, {}).get(name) == as_file
    assert Values({name: flag}, environ).get(name) == as_flag
    assert Values({}, environ).get(name) == (as_env if variable else Values({}, {}).get(name))


@pytest.mark.parametrize("nothing", [None, (), False])
def test_an_option_that_was_not_typed_hides_nothing(nothing: object, config: Callable[[str], str]) -> None:
    path = config("allow_unproven = true\nselect = ['a']\nretries = 9\n")
    values = Values({"config": path, "allow_unproven": nothing, "select": nothing, "retries": nothing}, {})
    assert (values.get("allow_unproven"), values.get("select"), values.get("retries")) == (True, ("a",), 9)


def test_an_empty_variable_is_one_that_is_not_set(config: Callable[[str], str]) -> None:
    path = config("url = 'https://file'\n")
    assert Values({"config": path}, {"RESTORE_AGENT_URL": ""}).get("url") == "https://file"


def test_a_flag_that_is_given_empty_is_an_error_and_not_a_fall_back() -> None:
    said = refusal(lambda: Values({"url": ""}, {"RESTORE_AGENT_URL": "https://env"}).get("url"))
    assert "--url" in said


def test_the_file_may_say_project_id_for_group_id(config: Callable[[str], str]) -> None:
    assert Values({"config": config("project_id = '5c1'\n")}, {}).get("group_id") == "5c1"


def test_a_number_in_the_file_will_do_for_an_id(config: Callable[[str], str]) -> None:
    assert Values({"config": config("batch_id = 590\n")}, {}).get("batch_id") == "590"


# ---------------------------------------------------------------- which configuration file


def test_the_flag_names_the_file_before_the_variable_does(tmp_path: Path) -> None:
    for name in ("flag", "env"):
        (tmp_path / name).write_text(f"public_key = '{name}'")
    environ = {"RESTORE_AGENT_CONFIG": str(tmp_path / "env")}
    assert Values({"config": str(tmp_path / "flag")}, environ).get("public_key") == "flag"
    assert Values({}, environ).get("public_key") == "env"


def test_the_default_file_is_read_when_it_is_there_and_nobody_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Callable[[str], str]
) -> None:
    (tmp_path / "default.toml").write_text("public_key = 'default'")
    monkeypatch.setattr(settings, "DEFAULT_CONFIG", tmp_path / "default.toml")
    assert Values({}, {}).get("public_key") == "default"
    assert Values({"config": config("retries = 1")}, {}).get("public_key") is None


def test_no_default_file_is_no_error() -> None:
    assert not settings.DEFAULT_CONFIG.exists()
    assert Values({}, {}).get("public_key") is None


def test_a_default_file_in_a_directory_closed_to_this_user_is_not_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "config.toml").write_text("public_key = 'x'")
    monkeypatch.setattr(settings, "DEFAULT_CONFIG", closed / "config.toml")
    closed.chmod(0o000)
    try:
        with without_privileges():
            try:
                seen = Values({}, {}).get("public_key")
            except UsageError:
                seen = None
    finally:
        closed.chmod(0o700)
    assert seen is None


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    assert missing in refusal(lambda: Values({"config": missing}, {}))
    assert missing in refusal(lambda: Values({}, {"RESTORE_AGENT_CONFIG": missing}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("retry = 5", "unknown key 'retry'"),
        ("poll-interval = '5s'", "unknown key 'poll-interval'"),
        ("config = '/other'", "unknown key 'config'"),
        ("[restore]\nretries = 5", "unknown key 'restore'"),
        ("[retries]\nn = 5", "retries must be a plain value"),
        ("private_key = 'secret-of-the-file'", "use private_key_file"),
        ("url = https://no-quotes", "not TOML"),
        ("retries = 5\nretries = 6", "not TOML"),
        ("private_key = secret-of-the-file", "not TOML"),
        ('"\\u001b[31m" = 1', "unknown key"),
    ],
)
def test_a_file_that_says_something_else_is_refused(text: str, words: str, config: Callable[[str], str]) -> None:
    said = refusal(lambda: Values({"config": config(text)}, {}))
    assert words in said
    assert "secret-of-the-file" not in said
    assert "\x1b" not in said


def test_an_unknown_key_is_answered_with_the_known_ones(config: Callable[[str], str]) -> None:
    said = refusal(lambda: Values({"config": config("retrys = 5")}, {}))
    assert all(name in said for name in (*OPTIONS, "project_id"))


@pytest.mark.parametrize(
    ("raw", "words"), [(b"url = '\xff'", "UTF-8"), (b"# " + b"x" * (1 << 20), "larger"), (None, "cannot be read")]
)
def test_a_file_that_is_no_configuration_is_refused(raw: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    if raw is None:
        path.mkdir()
    else:
        path.write_bytes(raw)
    assert words in refusal(lambda: Values({"config": str(path)}, {}))


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if not option.many])
def test_a_list_where_one_value_belongs_is_refused(name: str, config: Callable[[str], str]) -> None:
    values = Values({"config": config(f"{name} = ['a', 'b']")}, {})
    assert "one value" in refusal(lambda: values.get(name))


# ---------------------------------------------------------------- durations, sizes, numbers, words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("0.5s", 0.5),
        ("15m", 900.0),
        ("6h", 21600.0),
        ("1d", 86400.0),
        ("1.5h", 5400.0),
        (" 90 s ", 90.0),
        ("0", 0.0),
        ("365d", 365 * 86400.0),
    ],
)
def test_a_duration_reads_as_it_is_written(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "s", "-1", "+5", "1e3", "5 minutes", "1h30m", "6H", "1w", ".5", "5.", "1,5s", "inf", "nan", "366d", "9" * 400],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|year"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("65536", 65536),
        ("64K", 65536),
        ("64k", 65536),
        ("100M", 100 << 20),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
        ("1KiB", 1024),
        ("1 MB", 1 << 20),
        ("1", 1),
        ("9223372036854774784", 9223372036854774784),
    ],
)
def test_a_size_reads_as_it_is_written(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "K", "-1", "0", "0.1", "1X", "1e6", "1.5.5M", "64 K M", "8388608T", "inf", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|between"):
        size(text)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "T"])
def test_a_size_beyond_all_bounds_is_a_mistake_of_the_call(text: str) -> None:
    values = Values({"limit_rate": text}, {})
    assert "8 EiB" in refusal(lambda: values.get("limit_rate"))


@pytest.mark.parametrize("name", ["poll_interval", "stall_timeout"])
def test_an_interval_of_nothing_is_refused(name: str) -> None:
    assert "longer than nothing" in refusal(lambda: Values({name: "0s"}, {}).get(name))
    assert positive_duration("0.001") == 0.001


@pytest.mark.parametrize("name", ["wait_timeout", "hash_timeout"])
def test_not_waiting_at_all_is_allowed(name: str) -> None:
    assert Values({name: "0"}, {}).get(name) == 0.0


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("retries", "-1", "from 0 to 1000"),
        ("retries", "1001", "from 0 to 1000"),
        ("retries", "2.5", "whole number"),
        ("retries", "many", "whole number"),
        ("parallel", "0", "from 1 to 64"),
        ("parallel", "65", "from 1 to 64"),
        ("expect_jobs", "0", "from 1"),
        ("expect_jobs", "9" * 30, "from 1"),
        ("output", "JSON", "text, json"),
        ("output", "yaml", "text, json"),
        ("progress", "bars", "auto, bar, plain, none"),
        ("wait_timeout", "soon", "write it like 90s"),
        ("limit_rate", "fast", "write it like 65536"),
        ("allow_unproven", "yes", "true or false"),
        ("public_key", "a\nb", "control characters"),
        ("group_id", "a/b", "not an id"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_source(name: str, text: str, words: str) -> None:
    said = refusal(lambda: Values({name: text}, {}).get(name))
    assert said.startswith(f"{OPTIONS[name].flag} ")
    assert words in said


def test_a_mistake_is_blamed_on_the_place_where_it_was_made(config: Callable[[str], str]) -> None:
    path = config("retries = -1\nurl = 'nowhere'\n")
    environ = {"RESTORE_AGENT_OUTPUT": "xml"}
    values = Values({"config": path}, environ)
    assert refusal(lambda: values.get("retries")).startswith("retries in the configuration file '-1'")
    assert refusal(lambda: values.get("url")).startswith("url in the configuration file")
    assert refusal(lambda: values.get("output")).startswith("RESTORE_AGENT_OUTPUT 'xml'")


def test_a_mistake_is_shown_on_one_line_however_long_and_wild_it_is() -> None:
    said = refusal(lambda: Values({"output": "x\x1b[2J\n" + "y" * 10_000}, {}).get("output"))
    assert said.isprintable()
    assert len(said) < 250


# ---------------------------------------------------------------- ids and URLs


@pytest.mark.parametrize("text", ["5c9e3a1b8a0c2d0001a1b2c3", "a", "rs0", "host:27017", "a.b-c_d", "x" * 128])
def test_an_id_is_taken_as_it_stands(text: str) -> None:
    assert identifier(text) == text


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a b", "a?b", "a#b", "a%2fb", "a\n", "é", "x" * 129, "{ID}"])
def test_what_would_change_the_path_of_a_request_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        identifier(text)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://om.example.net", "https://om.example.net"),
        ("https://om.example.net/", "https://om.example.net"),
        ("https://om.example.net:8443//", "https://om.example.net:8443"),
        ("http://om:8080/api/public/v1.0", "http://om:8080"),
        ("http://om:8080/api/public/v1.0/", "http://om:8080"),
        ("https://om/prefix/api/public/v1.0/", "https://om/prefix"),
        ("https://om/prefix/", "https://om/prefix"),
        ("HTTPS://om", "https://om"),
        ("  https://om\n", "https://om"),
        ("https://[2001:db8::1]:8443/", "https://[2001:db8::1]:8443"),
        ("https://cloud.mongodb.com/api/public/v1.0", "https://cloud.mongodb.com"),
    ],
)
def test_a_base_url_loses_its_api_path_and_trailing_slashes(text: str, base: str) -> None:
    assert base_url(text) == base


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must begin with https://"),
        ("om.example.net", "must begin with https://"),
        ("om.example.net:8443", "must begin with https://"),
        ("//om.example.net", "must begin with https://"),
        ("ftp://om", "must begin with https://"),
        ("file:///etc/passwd", "must begin with https://"),
        ("https://", "must begin with https://"),
        ("https:///path", "must begin with https://"),
        ("https://:8443", "must begin with https://"),
        ("https://om:port", "not a URL"),
        ("https://om:99999", "not a URL"),
        ("https://[::1", "not a URL"),
        ("https://om?pretty=true", "without query"),
        ("https://om#top", "without query"),
        ("https://om/a b", "white space"),
        ("https://o\tm", "white space"),
        ("https://o\nm", "white space"),
        ("https://user@om", "credentials"),
        ("https://user:word@om", "credentials"),
        ("https://:word@om", "credentials"),
        ("https://@om", "credentials"),
    ],
)
def test_a_url_that_is_no_base_url_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        base_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://user:hunter2-hunter2@om",
        "https://user:hunter2-hunter2@om:port",
        "https://user:hunter2-hunter2/and-more@om",
        "https://user:hunter2-hunter2@om\u2100",
        "https://user:hunter2-hunter2@[om",
    ],
    ids=["plain", "wrong port", "with a slash in it", "wrong host", "wrong address"],
)
def test_credentials_in_a_url_are_refused_without_being_shown(text: str) -> None:
    said = refusal(lambda: Values({"url": text}, {}).get("url"))
    assert "--url" in said
    assert "hunter2" not in said


# ---------------------------------------------------------------- the private key


def key_file(path: Path, text: str | bytes = KEY, mode: int = 0o600) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


def test_the_private_key_comes_from_the_first_place_that_has_it(tmp_path: Path, config: Callable[[str], str]) -> None:
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


def test_without_a_key_the_ways_to_give_it_are_named() -> None:
    said = refusal(lambda: Values({}, {"CREDENTIALS_DIRECTORY": ""}).private_key())
    assert "--private-key-file" in said
    assert "RESTORE_AGENT_PRIVATE_KEY" in said


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_file_that_only_its_owner_can_read_is_taken(mode: int, tmp_path: Path) -> None:
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


def test_the_mode_that_counts_is_that_of_the_file_behind_a_link(tmp_path: Path) -> None:
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
def test_a_file_that_is_no_key_is_refused_without_being_shown(raw: bytes, words: str, tmp_path: Path) -> None:
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


def test_a_key_that_systemd_did_not_put_there_is_missed_by_name(tmp_path: Path) -> None:
    said = refusal(Values({}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).private_key)
    assert str(tmp_path / "private-key") in said


def test_a_connection_does_not_show_its_key() -> None:
    made = Connection("https://om", "public", Secret(KEY))
    assert KEY not in repr(made)
    assert KEY not in str(made)
    assert made.private_key.reveal() == KEY


# ---------------------------------------------------------------- what belongs together

REACHED = {"url": "https://om", "public_key": "public"}
WITH_KEY = {"RESTORE_AGENT_PRIVATE_KEY": KEY}
AIMED = {"group_id": "g", "cluster_id": "c", "batch_id": "b"}


def test_a_connection_holds_what_was_said() -> None:
    made = connection(Values(REACHED, WITH_KEY))
    assert made == Connection("https://om", "public", Secret(KEY))


@pytest.mark.usefixtures("certificates_here")
def test_a_connection_takes_its_certificates_along() -> None:
    said = {"ca_file": "flag.pem", "client_cert": "env.pem", "client_key": "file.pem"}
    made = connection(Values({**REACHED, **said}, WITH_KEY))
    assert (made.ca_file, made.client_cert, made.client_key) == (Path("flag.pem"), Path("env.pem"), Path("file.pem"))


@pytest.mark.usefixtures("certificates_here")
def test_a_client_key_without_its_certificate_is_refused() -> None:
    said = refusal(lambda: connection(Values({**REACHED, "client_key": "file.pem"}, WITH_KEY)))
    assert said == "--client-key needs --client-cert"


@pytest.mark.parametrize("name", ["ca_file", "client_cert", "client_key"])
@pytest.mark.parametrize("path", ["missing.pem", "/", "x" * 300 + ".pem"], ids=["missing", "directory", "endless"])
def test_a_certificate_that_cannot_be_read_is_a_mistake_of_the_call(name: str, path: str) -> None:
    assert "not a readable file" in refusal(lambda: Values({name: path}, {}).get(name))


def test_a_certificate_in_a_directory_closed_to_this_user_is_a_mistake_of_the_call(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "ca.pem").write_text("PEM")
    closed.chmod(0o000)
    try:
        values = Values({"ca_file": str(closed / "ca.pem")}, {})
        with without_privileges():
            said = refusal(lambda: values.get("ca_file"))
    finally:
        closed.chmod(0o700)
    assert "not a readable file" in said


@pytest.mark.parametrize("missing", ["url", "public_key"])
def test_what_a_connection_misses_is_named_with_every_way_to_give_it(missing: str) -> None:
    said = refusal(lambda: connection(Values({k: v for k, v in REACHED.items() if k != missing}, WITH_KEY)))
    assert OPTIONS[missing].flag in said
    assert str(OPTIONS[missing].env) in said
    assert f"{missing} in the configuration file" in said


def test_a_target_is_a_batch_of_a_cluster() -> None:
    assert target(Values(AIMED, {})) == Target("g", cluster_id="c", batch_id="b")


def test_a_target_is_some_jobs_of_a_config_server() -> None:
    said = {"group_id": "g", "host_id": "h", "job_id": ("j2", "j1", "j2"), "select": ("a*", "b*"), "expect_jobs": "2"}
    made = target(Values(said, {}))
    assert made == Target("g", host_id="h", job_ids=("j2", "j1"), select=("a*", "b*"), expect_jobs=2)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("group_id", "--group-id is missing"),
        ("cluster_id", "--cluster-id is missing"),
        ("batch_id", "neither --batch-id nor --job-id"),
    ],
)
def test_what_a_target_misses_is_named(missing: str, words: str) -> None:
    assert words in refusal(lambda: target(Values({k: v for k, v in AIMED.items() if k != missing}, {})))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"host_id": "h"}, "--cluster-id and --host-id contradict each other"),
        ({"job_id": ("j",)}, "--batch-id and --job-id contradict each other"),
    ],
)
def test_two_ways_to_say_it_from_one_source_contradict_each_other(
    more: dict[str, Any], words: str, config: Callable[[str], str]
) -> None:
    assert words in refusal(lambda: target(Values({**AIMED, **more}, {})))
    said = {name: list(value) if isinstance(value, tuple) else value for name, value in {**AIMED, **more}.items()}
    text = "".join(f"{name} = {toml(value)}\n" for name, value in said.items())
    assert words in refusal(lambda: target(Values({"config": config(text)}, {})))


def test_a_job_on_the_command_line_beats_the_batch_of_the_environment() -> None:
    environ = {"RESTORE_AGENT_BATCH_ID": "b", "RESTORE_AGENT_CLUSTER_ID": "c"}
    made = target(Values({"group_id": "g", "job_id": ("j",), "host_id": "h"}, environ))
    assert made == Target("g", host_id="h", job_ids=("j",))


def test_the_batch_of_the_environment_beats_the_jobs_of_the_file(config: Callable[[str], str]) -> None:
    path = config("job_id = ['j']\nhost_id = 'h'\n")
    environ = {"RESTORE_AGENT_BATCH_ID": "b", "RESTORE_AGENT_CLUSTER_ID": "c"}
    assert target(Values({"group_id": "g", "config": path}, environ)) == Target("g", cluster_id="c", batch_id="b")


def test_an_empty_list_of_jobs_is_no_target(config: Callable[[str], str]) -> None:
    path = config("group_id = 'g'\ncluster_id = 'c'\njob_id = []\n")
    assert "--job-id" in refusal(lambda: target(Values({"config": path}, {})))


def test_an_empty_list_of_jobs_does_not_stand_beside_a_batch(config: Callable[[str], str]) -> None:
    path = config("group_id = 'g'\ncluster_id = 'c'\nbatch_id = 'b'\njob_id = []\n")
    assert target(Values({"config": path}, {})) == Target("g", cluster_id="c", batch_id="b")


def test_a_pace_holds_what_was_said() -> None:
    said = {
        "wait_timeout": "1h",
        "hash_timeout": "0",
        "poll_interval": "0.1s",
        "stall_timeout": "5",
        "retries": "0",
        "parallel": "64",
        "limit_rate": "1M",
        "allow_unproven": True,
    }
    assert limits(Values(said, {})) == RunLimits(3600.0, 0.0, 0.1, 5.0, 0, 64, 1 << 20, True)


def test_dest_is_absolute_and_free_of_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert dest(Values({"dest": "a/../b"}, {})) == tmp_path / "b"
    assert dest(Values({}, {"RESTORE_AGENT_DEST": "/x/y/"})) == Path("/x/y")


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_dest_is_refused_and_not_the_current_directory(text: str) -> None:
    said = refusal(lambda: dest(Values({"dest": text}, {})))
    assert said.startswith("--dest ")
    assert "is empty" in said


def test_a_dest_with_a_nul_byte_is_refused(config: Callable[[str], str]) -> None:
    said = refusal(lambda: dest(Values({"config": config('dest = "/a\\u0000b"')}, {})))
    assert said.startswith("dest in the configuration file")
    assert "NUL" in said
    assert said.isprintable()


@pytest.mark.parametrize("name", ["private_key_file", "ca_file"])
def test_a_path_with_a_nul_byte_is_a_mistake_of_the_call(name: str, config: Callable[[str], str]) -> None:
    values = Values({"config": config(f'{name} = "/a\\u0000b"')}, {})
    assert refusal(values.private_key if name == "private_key_file" else lambda: values.get(name))


def test_a_missing_dest_is_named() -> None:
    assert "--dest or RESTORE_AGENT_DEST" in refusal(lambda: dest(Values({}, {})))
