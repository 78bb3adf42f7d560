"""The command `config`, and settings as a new user makes them: missing options, slips, paths, unknown variables."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents import RunAgent
from support.settings import KEY, refusal

from restore_agent.cli.config import Values
from restore_agent.cli.options import OPTIONS

Config = Callable[[str], str]


def test_the_example_has_every_option_and_is_a_valid_file(run_agent: RunAgent, config: Config) -> None:
    ended = run_agent(["config"])
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= 102
    active = "\n".join(line[2:] for line in lines if line.startswith("# ") and " = " in line)
    assert set(tomllib.loads(active)) == set(OPTIONS)
    assert Values({"config": config(active)}, {}).get("parallel") == 4
    assert Values({"config": config(ended.out)}, {}).source("url") is None, "every option is commented out"


def test_show_names_the_source_of_each_setting_and_hides_the_key(run_agent: RunAgent, config: Config) -> None:
    path = config("retries = 7\nurl = 'https://om.example.net/api/public/v1.0'\n")
    env = {"RESTORE_AGENT_CONFIG": path, "RESTORE_AGENT_PRIVATE_KEY": KEY, "RESTORE_AGENT_SELECT": "a*, b*"}
    ended = run_agent(["config", "--show", "--parallel=3"], env)
    assert ended.code == 0
    assert KEY not in ended.out + ended.err
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in ended.out.splitlines()}
    assert rows["configuration"] == f"file: {path}"
    assert rows["url"] == "https://om.example.net (url in the configuration file)"
    assert rows["retries"] == "7 (retries in the configuration file)"
    assert rows["parallel"] == "3 (--parallel)"
    assert rows["select"] == "a*, b* (RESTORE_AGENT_SELECT)"
    assert rows["private_key"] == "(hidden) (RESTORE_AGENT_PRIVATE_KEY)"
    assert rows["wait_timeout"] == "6h (default)"


def test_show_in_json_is_a_line_for_each_setting(run_agent: RunAgent) -> None:
    lines = run_agent(["config", "--show", "-o", "json"]).lines
    assert [line["name"] for line in lines] == [name.replace("key_file", "key") for name in OPTIONS]
    assert {line["event"] for line in lines} == {"setting"}


def test_show_names_a_value_that_is_invalid(run_agent: RunAgent) -> None:
    ended = run_agent(["config", "--show"], {"RESTORE_AGENT_PARALLEL": "many"})
    assert (ended.code, ended.out) == (2, "")
    assert "RESTORE_AGENT_PARALLEL 'many'" in ended.err


@pytest.mark.parametrize("command", ["run", "plan"])
def test_all_missing_options_are_named_together_with_the_help_of_the_command(run_agent: RunAgent, command: str) -> None:
    ended = run_agent([command])
    assert ended.code == 2
    for flag in ("--url", "--public-key", "--private-key-file", "--group-id", "--cluster-id", "--batch-id", "--dest"):
        assert flag in ended.err
    assert f"`restore-agent {command} --help`" in ended.err
    assert ended.out == "", "stdout has results only"


@pytest.mark.parametrize(
    "args",
    [["status", "--dest="], ["completion", "tcsh"], ["simulator", "--fault=x"], ["no-such-command"], ["explain", "x"]],
)
def test_a_usage_error_leaves_stdout_empty(run_agent: RunAgent, args: list[str]) -> None:
    ended = run_agent(args)
    assert (ended.code, ended.out) == (2, "")
    assert "error: " in ended.err


def test_a_misspelled_key_of_the_file_is_refused_with_the_closest_key(config: Config) -> None:
    assert "did you mean parallel?" in refusal(lambda: Values({"config": config("paralel = 2")}, {}))
    assert "did you mean poll_interval?" in refusal(lambda: Values({"config": config("poll-interval = 2")}, {}))


def test_paths_in_the_file_are_relative_to_it(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    path = config("dest = 'restore'\nprivate_key_file = '../key'\nmetrics_file = '/var/run.prom'\n")
    values = Values({"config": path}, {})
    assert values.get("dest") == tmp_path / "restore"
    assert values.get("private_key_file") == tmp_path / ".." / "key"
    found = values.source("metrics_file")
    assert found
    assert found.text == "/var/run.prom"


def test_a_tilde_in_the_file_is_the_home_directory(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/operator")
    assert Values({"config": config("dest = '~/restore'")}, {}).get("dest") == Path("/home/operator/restore")


@pytest.mark.parametrize("option", ["dest", "unpack", "private_key_file", "ca_file"])
def test_a_tilde_that_the_shell_did_not_expand_is_the_home_directory(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell does not expand it in quotes, in `--dest=~/restore`, or in a file of variables."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").touch()
    for values in (Values({option: "~/there"}, {}), Values({}, {f"RESTORE_AGENT_{option.upper()}": "~/there"})):
        found = values.source(option)
        assert found
        assert found.text == f"{tmp_path}/there"
    assert "no such home directory" in refusal(lambda: Values({option: "~no-such-user/there"}, {}))
    assert values.get(option) == tmp_path / "there"


def test_a_configuration_file_may_be_named_with_a_tilde(
    run_agent: RunAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "agent.toml").write_text("dest = '/restore'\n")
    assert Values({}, {"RESTORE_AGENT_CONFIG": "~/agent.toml"}).get("dest") == Path("/restore")
    ended = run_agent(["run", "-o", "json"], {"RESTORE_AGENT_CONFIG": "~no-such-user/agent.toml"})
    assert ended.code == 2
    assert "no such home directory" in ended.lines[0]["message"]


def test_a_home_directory_that_does_not_exist_is_refused(config: Config) -> None:
    path = config("dest = '~no-such-user/restore'")
    assert "no such home directory" in refusal(lambda: Values({"config": path}, {}))


def test_a_list_in_a_variable_is_separated_by_commas() -> None:
    assert Values({}, {"RESTORE_AGENT_JOB_ID": "a1,b2 , c3,"}).get("job_id") == ("a1", "b2", "c3")


def test_the_alias_of_an_option_has_a_variable_too() -> None:
    assert Values({}, {"RESTORE_AGENT_PROJECT_ID": "5c1"}).get("group_id") == "5c1"


@pytest.mark.parametrize("output", ["text", "json"])
def test_an_unknown_variable_causes_a_warning_on_stderr(run_agent: RunAgent, tmp_path: Path, output: str) -> None:
    ended = run_agent(["status", tmp_path, "-o", output], {"RESTORE_AGENT_PARALEL": "3"})
    assert "RESTORE_AGENT_PARALEL is unknown and ignored; did you mean RESTORE_AGENT_PARALLEL?" in ended.err
    for line in ended.out.splitlines():
        json.loads(line)


def test_the_address_of_the_web_interface_is_refused_with_the_base_url(run_agent: RunAgent) -> None:
    page = "https://om.example.net:8443/v2/5fc4f5a8b2e4a1000155b6aa#/clusters"
    said = refusal(lambda: Values({"url": page}, {}).get("url"))
    assert "use https://om.example.net:8443, and 5fc4f5a8b2e4a1000155b6aa as --group-id" in said


def test_a_short_flag_shows_the_version(run_agent: RunAgent) -> None:
    assert run_agent(["-V"]).out == run_agent(["--version"]).out
