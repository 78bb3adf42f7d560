"""README, help and code say the same: every command, option, variable, exit code and field, both ways round."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import click
import pytest

from restore_agent import __version__
from restore_agent.cli.main import cli
from restore_agent.cli.options import OPTIONS
from restore_agent.core.events import Event
from restore_agent.core.exit_codes import EXIT_CODES
from restore_agent.core.receipt import ArchiveRecord, Receipt, Verdict

ROOT = Path(__file__).parents[2]
ROOT_CONTEXT = click.Context(cli)
README = (ROOT / "README.md").read_text()
COMMANDS = {
    name: command for name in cli.list_commands(ROOT_CONTEXT) if (command := cli.get_command(ROOT_CONTEXT, name))
}


def section(title: str) -> str:
    """The text of one README section."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE)
    assert found, f"README has no section {title!r}"
    return found[1]


def flags_of(command: click.Command) -> set[str]:
    return {flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")} - {"--help"}


def documented_first_column(text: str) -> set[str]:
    """What stands in backquotes in the first column of the tables of a section."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def all_events() -> set[str]:
    return {kind.name for kind in Event.__subclasses__()}


def test_every_command_is_in_the_readme_and_every_documented_command_exists() -> None:
    documented = {name.removeprefix("restore-agent ") for name in documented_first_column(section("Commands"))}
    assert documented == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_of_a_command_is_in_the_readme(name: str) -> None:
    undocumented = {flag for flag in flags_of(COMMANDS[name]) if f"`{flag}`" not in README}
    assert undocumented == set()


def test_every_documented_option_exists() -> None:
    documented = {
        name for name in documented_first_column(section("Options and configuration")) if name.startswith("--")
    }
    assert documented == flags_of(COMMANDS["run"])


def test_every_option_named_anywhere_in_the_readme_exists() -> None:
    known = {flag for command in COMMANDS.values() for flag in flags_of(command)} | {"--help", "--version"}
    foreign = {
        "--strict",
        "--rounds",
        "--seed",
        "--seconds",
        "--power-loss",
        "--disk-faults",
    }  # mypy's and those of our scripts
    foreign |= {"--check", "--limit", "--ask-vault-pass", "--name"}  # Ansible's
    foreign |= {"--digest", "--cacert", "--strip-components", "--serve"}  # curl's, tar's, scripts/demo-ansible's
    foreign |= {"--no-block"}  # systemctl's
    foreign |= {"--quick", "--target", "--flat", "--memory", "--size", "--checksum"}  # of scripts/bench, and aria2's
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) - foreign <= known


def test_every_option_says_what_it_means_and_its_default_in_the_help() -> None:
    for option in OPTIONS.values():
        assert option.help.endswith("."), option.name
        if option.default is not None and option.metavar:
            assert f"`{option.default}`" in section("Options and configuration"), option.name


def test_the_environment_variables_are_the_documented_ones() -> None:
    used = {option.env for option in OPTIONS.values() if option.env}
    extra = {"RESTORE_AGENT_PRIVATE_KEY", "RESTORE_AGENT_CONFIG"}
    assert set(re.findall(r"RESTORE_AGENT_[A-Z_]+", README)) == used | extra


def test_the_exit_codes_are_the_documented_ones() -> None:
    cells = [line.split("|")[1] for line in section("Exit codes: the runbook").splitlines() if line.startswith("|")]
    assert {int(code) for cell in cells for code in re.findall(r"\d+", cell)} == set(EXIT_CODES)


def test_every_field_of_the_receipt_is_documented() -> None:
    text = section("JSON")
    for kind in (Receipt, ArchiveRecord):
        for item in fields(kind):
            assert f"`{item.name}`" in text, item.name
    for verdict in Verdict:
        assert f"`{verdict}`" in text


def test_every_documented_name_in_the_json_section_is_one_that_is_written() -> None:
    status = {"state", "pid", "started_at", "updated_at", "total_bytes", "expires_at"}
    states = {"waiting", "downloading", "verifying", "finished", "interrupted"}
    known = {item.name for kind in (Receipt, ArchiveRecord) for item in fields(kind)} | all_events() | status | states
    known |= set(Verdict) | {"event", "time", "plan", "hash-mismatch", "receipt.json", "-o json"}
    known |= {"restore-agent/receipt/1", "restore-agent/status/1", ".restore-agent/status.json"}
    assert set(re.findall(r"`([^`]+)`", section("JSON"))) <= known


def test_every_event_is_documented() -> None:
    assert {name for name in all_events() if f"`{name}`" not in section("JSON")} == set()


def test_every_dependency_has_its_reason() -> None:
    declared = re.search(r"\ndependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert declared
    names = set(re.findall(r'"([a-z0-9-]+)', declared[1]))
    rows = {line.split("|")[1].strip() for line in section("Dependencies").splitlines() if line.startswith("|")}
    assert rows - {"package", "---"} == names | {"prometheus-client"}


def test_every_optional_dependency_is_optional() -> None:
    assert '\nmetrics = ["prometheus-client' in (ROOT / "pyproject.toml").read_text()


def test_every_alert_is_documented() -> None:
    rules = (ROOT / "restore_agent" / "share" / "prometheus" / "alerts.yml").read_text()
    documented = {name for name in documented_first_column(section("Monitoring")) if name.startswith("Restore")}
    assert documented == set(re.findall(r"- alert: (\w+)", rules))


def test_the_changelog_knows_this_version_or_is_ahead_of_it() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog or f"## [{__version__}]" in changelog
