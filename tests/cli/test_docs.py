"""README, documents, help, and code agree on every command, option, variable, exit code, and field."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import click
import pytest
from support.agents import RunAgent

from restore_agent import __version__
from restore_agent.cli.main import cli
from restore_agent.cli.options import OPTIONS, Option
from restore_agent.core.errors import AgentError
from restore_agent.core.events import Event
from restore_agent.core.exit_codes import EXIT_CODES
from restore_agent.core.receipt import ArchiveRecord, Receipt, Verdict
from restore_agent.dest.status import StatusFile

ROOT = Path(__file__).parents[2]
ROOT_CONTEXT = click.Context(cli)
SHARE = ROOT / "restore_agent" / "share"
DOCUMENTS = {path.stem: path.read_text() for path in sorted((SHARE / "doc").glob("*.md"))}
README = (ROOT / "README.md").read_text()
OPERATORS = "\n".join([README, *DOCUMENTS.values()])
COMMANDS = {
    name: command for name in cli.list_commands(ROOT_CONTEXT) if (command := cli.get_command(ROOT_CONTEXT, name))
}


def section(title: str, text: str = README) -> str:
    """Return one section of the README or of another text."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"there is no section {title!r}"
    return found[1]


LINKED = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / ".github" / "CONTRIBUTING.md",
    *sorted((ROOT / "restore_agent").rglob("*.md")),
]


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a document, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


class Recorder:
    """A state directory that keeps the document that is written into it."""

    def __init__(self, written: dict[str, object]) -> None:
        self._written = written

    def write_atomically(self, name: str, data: bytes, *, durable: bool) -> None:
        self._written.update(json.loads(data))


def flags_of(command: click.Command) -> set[str]:
    return {flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")} - {"--help"}


def aliases_of(option: Option) -> list[str]:
    return ["--" + alias.replace("_", "-") for alias in option.aliases]


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
    table = {flag for option in OPTIONS.values() for flag in (option.flag, *aliases_of(option))}
    assert documented == table | {"--config", "--debug"}
    assert table <= {flag for command in COMMANDS.values() for flag in flags_of(command)}


def test_every_option_named_anywhere_in_the_documents_exists() -> None:
    known = {flag for command in COMMANDS.values() for flag in flags_of(command)} | {"--help", "--version"}
    foreign = {
        "--rounds",
        "--seed",
        "--seconds",
        "--power-loss",
        "--disk-faults",
    }  # mypy's and those of our scripts
    foreign |= {"--check", "--limit", "--ask-vault-pass", "--name"}  # Ansible's
    foreign |= {"--digest", "--cacert", "--strip-components", "--serve"}  # curl's, tar's, scripts/demo-ansible's
    foreign |= {"--dbpath", "--bind", "--fork", "--logpath", "--quiet", "--eval"}  # mongod's and mongosh's
    foreign |= {"--no-block", "--now"}  # systemctl's
    foreign |= {"--quick", "--target", "--flat", "--memory", "--size", "--checksum"}  # of scripts/bench, and aria2's
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", OPERATORS)) - foreign <= known


def test_the_help_of_every_option_has_its_meaning_and_its_default() -> None:
    for option in OPTIONS.values():
        assert option.help.endswith("."), option.name
        if option.default is not None and option.metavar:
            assert f"`{option.default}`" in section("Options and configuration"), option.name


def test_the_environment_variables_are_the_documented_ones() -> None:
    used = {option.env for option in OPTIONS.values() if option.env}
    extra = {"RESTORE_AGENT_PRIVATE_KEY", "RESTORE_AGENT_CONFIG"}
    assert set(re.findall(r"RESTORE_AGENT_[A-Z_]+", OPERATORS)) == used | extra


def test_the_exit_codes_are_the_documented_ones() -> None:
    cells = [line.split("|")[1] for line in section("Exit codes: the runbook").splitlines() if line.startswith("|")]
    assert {int(code) for cell in cells for code in re.findall(r"\d+", cell)} == set(EXIT_CODES)


def test_every_field_of_the_receipt_is_documented_and_no_other() -> None:
    documented = documented_first_column(section("Receipt", DOCUMENTS["json"]))
    assert documented == {item.name for kind in (Receipt, ArchiveRecord) for item in fields(kind)}
    for verdict in Verdict:
        assert f"`{verdict}`" in section("Receipt", DOCUMENTS["json"])


def test_every_field_of_the_status_file_is_documented_and_no_other() -> None:
    written: dict[str, object] = {}
    StatusFile(Recorder(written), 1, "", None).write("waiting", 0.0, [])  # type: ignore[arg-type]
    assert documented_first_column(section("Status file", DOCUMENTS["json"])) == set(written)


def test_every_event_is_documented_with_its_fields() -> None:
    """`archive`, `error`, and `result` have the fields of a record, of a problem, and of the receipt."""
    cells = [line.split("|") for line in section("Events", DOCUMENTS["json"]).splitlines() if line.startswith("| `")]
    documented = {cell[1].strip(" `"): set(re.findall(r"`(\w+)`", cell[3])) for cell in cells}
    expected = {kind.name: {item.name for item in fields(kind)} for kind in Event.__subclasses__()}
    expected |= {"archive": {"problem", "error"}, "error": set(AgentError("").fields()), "result": {"plan"}}
    expected["check"] = expected["check"] - {"check"} | {"name"}
    expected["notice"] |= {"info", "warning"}
    commands = {"rehearse", "report", "request"}  # rows of what the result of a command has in addition
    assert {name: found for name, found in documented.items() if name not in commands} == expected


def test_every_dependency_has_its_reason() -> None:
    declared = re.search(r"\ndependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert declared
    names = set(re.findall(r'"([a-z0-9-]+)', declared[1]))
    rows = {
        line.split("|")[1].strip()
        for line in section("Dependencies", DOCUMENTS["reliability"]).splitlines()
        if line.startswith("|")
    }
    assert rows - {"package", "---"} == names | {"prometheus-client", "jinja2", "isal"}


def test_every_optional_dependency_is_optional() -> None:
    assert '\nmetrics = ["prometheus-client' in (ROOT / "pyproject.toml").read_text()


def test_every_alert_is_documented() -> None:
    rules = (SHARE / "prometheus" / "alerts.yml").read_text()
    documented = {
        name
        for name in documented_first_column(section("Monitoring", DOCUMENTS["operating"]))
        if name.startswith("Restore")
    }
    assert documented == set(re.findall(r"- alert: (\w+)", rules))


def test_the_changelog_contains_this_version_or_a_later_one() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog or f"## [{__version__}]" in changelog


# ---------------------------------------------------------------- the documents themselves


@pytest.mark.parametrize("path", LINKED, ids=[str(path.relative_to(ROOT)) for path in LINKED])
def test_every_relative_link_resolves(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_the_readme_is_short_and_links_every_document() -> None:
    assert len(README.splitlines()) <= 250
    for name in DOCUMENTS:
        assert f"(restore_agent/share/doc/{name}.md)" in README
    assert "(.github/CONTRIBUTING.md)" in README


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_a_document_is_shipped_and_shown(run_agent: RunAgent, name: str) -> None:
    ended = run_agent(["man", name])
    assert (ended.code, ended.out) == (0, DOCUMENTS[name])


def test_the_wheel_contains_the_documents() -> None:
    """The whole package is one hatchling target, and nothing in it is left out."""
    build = (ROOT / "pyproject.toml").read_text()
    assert 'packages = ["restore_agent"]' in build
    assert "exclude" not in build.partition("[tool.hatch.build.targets.wheel]")[2].partition("[tool.mypy]")[0]


def test_the_scripts_that_the_documents_name_exist_and_each_is_explained() -> None:
    contributing = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"scripts/([a-z-]+)(?![\w./-])", OPERATORS + contributing))
    scripts = {path.name for path in (ROOT / "scripts").iterdir() if "." not in path.name and path.is_file()}
    assert named <= scripts
    assert scripts <= set(re.findall(r"^\| `scripts/([a-z-]+)", contributing, re.MULTILINE))


def test_every_path_that_the_contributing_guide_names_exists() -> None:
    contributing = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.[a-z]+)?)`", contributing)
    assert named
    missing = [one for one in named if not any((base / one).exists() for base in (ROOT, ROOT / "restore_agent"))]
    assert missing == []
