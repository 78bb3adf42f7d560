"""Settings of one call: every source, their precedence, and what is refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.settings import KEY, refusal, without_privileges

from restore_agent.cli import config as settings
from restore_agent.cli.config import Values, connection, dest, limits, target
from restore_agent.cli.options import (
    CONNECTION,
    LIMITS,
    METRICS_OPTIONS,
    OPTIONS,
    OUTPUT_OPTIONS,
    REQUEST,
    TARGET,
    UNPACK,
)
from restore_agent.core.errors import UsageError
from restore_agent.core.redaction import Secret
from restore_agent.core.settings import Before, Connection, RunLimits, Target

# ---------------------------------------------------------------- the table of the contract

# option: default, as the contract's table of `run` has them
CONTRACT = {
    "url": None,
    "public_key": None,
    "private_key_file": None,
    "group_id": None,
    "cluster_id": None,
    "host_id": None,
    "batch_id": None,
    "job_id": None,
    "select": None,
    "expect_jobs": None,
    "dest": None,
    "unpack": None,
    "owner": None,
    "discard_archive": False,
    "wait_timeout": 6 * 3600.0,
    "hash_timeout": 15 * 60.0,
    "poll_interval": 5.0,
    "stall_timeout": 60.0,
    "retries": 5,
    "parallel": 4,
    "limit_rate": None,
    "allow_unproven": False,
    "ca_file": None,
    "client_cert": None,
    "client_key": None,
    "output": "text",
    "progress": "auto",
}
ADDED = {
    "metrics_file": None,
    "snapshot": None,
    "before": None,
    "allow_inconsistent": False,
    "max_downloads": 3,
    "expires_in": 12,
    "dry_run": False,
    "html": None,
}
"""Options beyond the contract's table."""
REPEATABLE = ("job_id", "select")


def test_the_options_are_those_of_the_contract() -> None:
    assert set(OPTIONS) == set(CONTRACT) | set(ADDED)
    assert {name for name, option in OPTIONS.items() if option.many} == set(REPEATABLE)
    assert OPTIONS["group_id"].aliases == ("project_id",)
    assert OPTIONS["output"].short == "-o"


def test_every_option_belongs_to_exactly_one_group() -> None:
    grouped = [*CONNECTION, *TARGET, *UNPACK, *LIMITS, *METRICS_OPTIONS, *REQUEST, "html", *OUTPUT_OPTIONS]
    assert sorted(grouped) == sorted(OPTIONS)


@pytest.mark.parametrize("name", [*CONTRACT, *ADDED])
def test_an_option_has_the_variable_and_the_default_of_the_contract(name: str) -> None:
    assert OPTIONS[name].env == f"RESTORE_AGENT_{name.upper()}"
    assert Values({}, {}).get(name) == (() if name in REPEATABLE else (CONTRACT | ADDED)[name])


@pytest.mark.parametrize("name", CONTRACT)
def test_an_option_is_typed_with_dashes_and_explains_itself(name: str) -> None:
    assert OPTIONS[name].flag == "--" + name.replace("_", "-")
    assert OPTIONS[name].help.endswith(".")


def test_there_is_no_option_for_the_key_itself() -> None:
    assert "private_key" not in OPTIONS


def test_the_defaults_of_the_run_limits_are_those_of_the_options() -> None:
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
    "unpack": [("/f", Path("/f")), ("/e", Path("/e")), ("/c", Path("/c"))],
    "owner": [("1:2", (1, 2)), ("3:4", (3, 4)), ("5:6", (5, 6))],
    "discard_archive": [(True, True), ("true", True), (False, False)],
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
    "snapshot": [("s1", "s1"), ("latest", "latest"), ("s3", "s3")],
    "before": [("1h", Before(ago=3600.0)), ("1970-01-01T00:00:09Z", Before(moment=9.0)), (90, Before(ago=90.0))],
    "allow_inconsistent": [(True, True), ("true", True), (False, False)],
    "max_downloads": [("1", 1), ("2", 2), (3, 3)],
    "expires_in": [("1h", 1), ("1d", 24), (7200, 2)],
    "dry_run": [(True, True), ("true", True), (False, False)],
    "html": [("/a", Path("/a")), ("/b", Path("/b")), ("/c", Path("/c"))],
    "output": [("json", "json"), ("text", "text"), ("json", "json")],
    "progress": [("bar", "bar"), ("plain", "plain"), ("none", "none")],
}


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else repr(value)


def test_precedence_holds_for_every_option() -> None:
    assert set(SAID) == set(OPTIONS)


@pytest.mark.usefixtures("certificates_here")
@pytest.mark.parametrize("name", SAID)
def test_a_flag_beats_the_environment_which_beats_the_file(name: str, config: Callable[[str], str]) -> None:
    if name == "owner" and os.geteuid() != 0:
        pytest.skip("only root may set an owner")
    (flag, as_flag), (in_env, as_env), (in_file, as_file) = SAID[name]
    path = config(f"{name} = {toml(in_file)}\n")
    if isinstance(as_file, Path):
        as_file = Path(path).parent / as_file
    environ = {OPTIONS[name].env: in_env}

    assert Values({"config": path, name: flag}, environ).get(name) == as_flag
    assert Values({"config": path}, environ).get(name) == as_env
    assert Values({"config": path}, {}).get(name) == as_file
    assert Values({name: flag}, environ).get(name) == as_flag
    assert Values({}, environ).get(name) == as_env


@pytest.mark.parametrize("nothing", [None, (), False])
def test_an_option_that_was_not_typed_hides_nothing(nothing: object, config: Callable[[str], str]) -> None:
    path = config("allow_unproven = true\nselect = ['a']\nretries = 9\n")
    values = Values({"config": path, "allow_unproven": nothing, "select": nothing, "retries": nothing}, {})
    assert (values.get("allow_unproven"), values.get("select"), values.get("retries")) == (True, ("a",), 9)


def test_an_empty_variable_is_one_that_is_not_set(config: Callable[[str], str]) -> None:
    path = config("url = 'https://file'\n")
    assert Values({"config": path}, {"RESTORE_AGENT_URL": ""}).get("url") == "https://file"


def test_an_empty_flag_is_an_error_and_does_not_fall_back() -> None:
    said = refusal(lambda: Values({"url": ""}, {"RESTORE_AGENT_URL": "https://env"}).get("url"))
    assert "--url" in said


def test_the_file_accepts_project_id_for_group_id(config: Callable[[str], str]) -> None:
    assert Values({"config": config("project_id = '5c1'\n")}, {}).get("group_id") == "5c1"


def test_the_file_accepts_a_number_as_an_id(config: Callable[[str], str]) -> None:
    assert Values({"config": config("batch_id = 590\n")}, {}).get("batch_id") == "590"


# ---------------------------------------------------------------- which configuration file


def test_the_flag_for_the_file_has_precedence_over_the_variable(tmp_path: Path) -> None:
    for name in ("flag", "env"):
        (tmp_path / name).write_text(f"public_key = '{name}'")
    environ = {"RESTORE_AGENT_CONFIG": str(tmp_path / "env")}
    assert Values({"config": str(tmp_path / "flag")}, environ).get("public_key") == "flag"
    assert Values({}, environ).get("public_key") == "env"


def test_the_default_file_is_read_if_it_exists_and_no_other_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Callable[[str], str]
) -> None:
    (tmp_path / "default.toml").write_text("public_key = 'default'")
    monkeypatch.setattr(settings, "DEFAULT_CONFIG", tmp_path / "default.toml")
    assert Values({}, {}).get("public_key") == "default"
    assert Values({"config": config("retries = 1")}, {}).get("public_key") is None


def test_no_default_file_is_no_error() -> None:
    assert not settings.DEFAULT_CONFIG.exists()
    assert Values({}, {}).get("public_key") is None


def test_a_default_file_in_an_inaccessible_directory_is_not_a_defect(
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


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
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
def test_a_file_with_invalid_content_is_refused(text: str, words: str, config: Callable[[str], str]) -> None:
    said = refusal(lambda: Values({"config": config(text)}, {}))
    assert words in said
    assert "secret-of-the-file" not in said
    assert "\x1b" not in said


def test_an_unknown_key_is_refused_with_a_list_of_the_known_keys(config: Callable[[str], str]) -> None:
    said = refusal(lambda: Values({"config": config("retrys = 5")}, {}))
    assert all(name in said for name in (*OPTIONS, "project_id"))


@pytest.mark.parametrize(
    ("raw", "words"), [(b"url = '\xff'", "UTF-8"), (b"# " + b"x" * (1 << 20), "larger"), (None, "cannot be read")]
)
def test_a_file_that_is_not_a_configuration_is_refused(raw: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    if raw is None:
        path.mkdir()
    else:
        path.write_bytes(raw)
    assert words in refusal(lambda: Values({"config": str(path)}, {}))


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if not option.many])
def test_a_list_in_place_of_a_single_value_is_refused(name: str, config: Callable[[str], str]) -> None:
    values = Values({"config": config(f"{name} = ['a', 'b']")}, {})
    assert "one value" in refusal(lambda: values.get(name))


# ---------------------------------------------------------------- what belongs together

REACHED = {"url": "https://om", "public_key": "public"}
WITH_KEY = {"RESTORE_AGENT_PRIVATE_KEY": KEY}
AIMED = {"group_id": "g", "cluster_id": "c", "batch_id": "b"}


def test_a_connection_has_the_values_of_its_options() -> None:
    made = connection(Values(REACHED, WITH_KEY))
    assert made == Connection("https://om", "public", Secret(KEY))


@pytest.mark.usefixtures("certificates_here")
def test_a_connection_has_the_paths_of_its_certificates() -> None:
    said = {"ca_file": "flag.pem", "client_cert": "env.pem", "client_key": "file.pem"}
    made = connection(Values({**REACHED, **said}, WITH_KEY))
    assert (made.ca_file, made.client_cert, made.client_key) == (Path("flag.pem"), Path("env.pem"), Path("file.pem"))


@pytest.mark.usefixtures("certificates_here")
def test_a_client_key_without_its_certificate_is_refused() -> None:
    said = refusal(lambda: connection(Values({**REACHED, "client_key": "file.pem"}, WITH_KEY)))
    assert said == "--client-key needs --client-cert"


@pytest.mark.parametrize("name", ["ca_file", "client_cert", "client_key"])
@pytest.mark.parametrize("path", ["missing.pem", "/", "x" * 300 + ".pem"], ids=["missing", "directory", "endless"])
def test_a_certificate_that_cannot_be_read_is_a_usage_error(name: str, path: str) -> None:
    assert "not a readable file" in refusal(lambda: Values({name: path}, {}).get(name))


def test_a_certificate_in_an_inaccessible_directory_is_a_usage_error(tmp_path: Path) -> None:
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
def test_a_missing_option_of_a_connection_is_named_with_every_source(missing: str) -> None:
    said = refusal(lambda: connection(Values({k: v for k, v in REACHED.items() if k != missing}, WITH_KEY)))
    assert OPTIONS[missing].flag in said
    assert str(OPTIONS[missing].env) in said
    assert f"{missing} in the configuration file" in said


def test_a_target_can_be_a_batch_of_a_cluster() -> None:
    assert target(Values(AIMED, {})) == Target("g", cluster_id="c", batch_id="b")


def test_a_target_can_be_several_jobs_of_a_config_server() -> None:
    said = {"group_id": "g", "host_id": "h", "job_id": ("j2", "j1", "j2"), "select": ("a*", "b*"), "expect_jobs": "2"}
    made = target(Values(said, {}))
    assert made == Target("g", host_id="h", job_ids=("j2", "j1"), select=("a*", "b*"), expect_jobs=2)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("group_id", "--group-id is missing"),
        ("cluster_id", "--cluster-id (or --host-id) is missing"),
        ("batch_id", "--batch-id (or --job-id) is missing"),
    ],
)
def test_a_missing_option_of_a_target_is_named(missing: str, words: str) -> None:
    assert words in refusal(lambda: target(Values({k: v for k, v in AIMED.items() if k != missing}, {})))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"host_id": "h"}, "--cluster-id and --host-id exclude each other"),
        ({"job_id": ("j",)}, "--batch-id and --job-id exclude each other"),
    ],
)
def test_batch_and_jobs_from_one_source_exclude_each_other(
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


def test_an_empty_list_of_jobs_is_not_a_target(config: Callable[[str], str]) -> None:
    path = config("group_id = 'g'\ncluster_id = 'c'\njob_id = []\n")
    assert "--job-id" in refusal(lambda: target(Values({"config": path}, {})))


def test_an_empty_list_of_jobs_does_not_conflict_with_a_batch(config: Callable[[str], str]) -> None:
    path = config("group_id = 'g'\ncluster_id = 'c'\nbatch_id = 'b'\njob_id = []\n")
    assert target(Values({"config": path}, {})) == Target("g", cluster_id="c", batch_id="b")


def test_run_limits_have_the_values_of_their_options() -> None:
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
    assert "control character" in said
    assert said.isprintable()


@pytest.mark.parametrize("name", ["private_key_file", "ca_file"])
def test_a_path_with_a_nul_byte_is_a_usage_error(name: str, config: Callable[[str], str]) -> None:
    values = Values({"config": config(f'{name} = "/a\\u0000b"')}, {})
    assert refusal(values.private_key if name == "private_key_file" else lambda: values.get(name))


def test_a_missing_dest_is_named() -> None:
    assert "--dest or RESTORE_AGENT_DEST" in refusal(lambda: dest(Values({}, {})))
