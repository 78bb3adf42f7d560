"""What an operator reads and what the shell types for them: explain, manual pages, completion in real shells."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from man_pages import page_names
from support.agents import RunAgent

import restore_agent
from restore_agent.cli.main import cli
from restore_agent.cli.options import OPTIONS, RUN_OPTIONS
from restore_agent.core.errors import AgentError
from restore_agent.core.exit_codes import EXIT_CODES, all_reasons, codes, explained

SHIPPED = Path(restore_agent.__file__).parent / "share" / "man" / "man1"
PAGES = page_names(cli)


# ---------------------------------------------------------------- explain


def test_every_exit_code_is_explained_with_files_on_disk_download_and_next_step() -> None:
    assert codes() == sorted(EXIT_CODES)
    for code in codes():
        told = explained(code)
        assert told["meaning"] == EXIT_CODES[code].meaning
        assert told["on_disk"].endswith(".")
        assert told["download"].endswith(".")
        assert told["steps"]


def subclasses(kind: type[AgentError]) -> list[type[AgentError]]:
    return [kind, *(one for subclass in kind.__subclasses__() for one in subclasses(subclass))]


def reasons_in_the_code() -> set[str]:
    """Every kebab-case text in the package that stands where a reason or an ID of an error is given."""
    found: set[str] = {kind.id for kind in subclasses(AgentError)}
    root = Path(restore_agent.__file__).parent
    for path in (root / "core" / "jobs.py", root / "restore" / "plan.py", root / "restore" / "verify.py"):
        text = path.read_text()
        found |= set(re.findall(r'Decision\(Step\.\w+, "([a-z-]+)"', text))
        found |= set(re.findall(r'reason="([a-z-]+)"', text))
        found |= set(re.findall(r'return "(?:[a-z]+", ")?([a-z]+-[a-z-]+)"', text))
    return found


def test_every_reason_that_the_agent_can_give_is_explained_and_no_other(run_agent: RunAgent) -> None:
    assert set(all_reasons()) == reasons_in_the_code()
    for reason in all_reasons().values():
        ended = run_agent(["explain", reason.id, "-o", "json"])
        (answer,) = ended.lines
        assert (ended.code, answer["reason"]) == (0, reason.id)
        assert answer.get("exit_code") == reason.exit_code
        assert run_agent(["explain", reason.id]).out.startswith(f"{reason.id}: ")
        assert reason.id in run_agent(["explain"]).out.replace("\n     ", " ")


def test_every_reason_is_offered_for_completion() -> None:
    assert set(all_reasons()) <= completions("explain", "")


def test_a_misspelled_reason_is_refused_with_the_closest_reason(run_agent: RunAgent) -> None:
    assert "did you mean job-broken?" in run_agent(["explain", "job-brken"]).err


@pytest.mark.parametrize("code", codes())
def test_an_explanation_fits_80_columns_and_has_every_part(run_agent: RunAgent, code: int) -> None:
    ended = run_agent(["explain", code])
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"Exit code {code}: ")
    for part in ("\n  on disk: ", "\n  download spent: ", "\n  in short: "):
        assert part in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


def test_without_a_code_all_are_listed(run_agent: RunAgent) -> None:
    ended = run_agent(["explain"])
    assert [int(code) for code in re.findall(r"^ *(\d+)  ", ended.out, re.MULTILINE)] == codes()
    assert max(map(len, ended.out.splitlines())) <= 80


def test_as_json_each_code_is_a_line(run_agent: RunAgent) -> None:
    lines = run_agent(["explain", "-o", "json"]).lines
    assert [line["exit_code"] for line in lines] == codes()
    assert all(set(line) == set(lines[0]) for line in lines)


@pytest.mark.parametrize("word", ["99", "no-such-reason", "-1", "1234567890", "²"])
def test_a_number_that_is_not_an_exit_code_is_a_usage_error(run_agent: RunAgent, word: str) -> None:
    ended = run_agent(["explain", "--", word])
    assert ended.code == 2
    assert "neither an exit code nor the id of a reason" in ended.err


def test_explain_works_although_the_configuration_is_invalid(run_agent: RunAgent, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("= nonsense")
    assert run_agent(["explain", "2"], {"RESTORE_AGENT_CONFIG": str(tmp_path / "broken.toml")}).code == 0


def test_commands_that_explain_names_exist() -> None:
    named = {
        word
        for code in codes()
        for step in explained(code)["steps"]
        for word in re.findall(r"^restore-agent (\S+)", step)
    }
    assert named <= set(cli.list_commands(click.Context(cli)))


# ---------------------------------------------------------------- manual pages


def test_there_is_a_page_for_the_program_and_for_each_command() -> None:
    assert sorted(path.name for path in SHIPPED.iterdir()) == sorted(f"{name}.1" for name in PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_the_shipped_page_is_the_one_generated_from_the_help(run_agent: RunAgent, name: str) -> None:
    made = run_agent(["man", *([] if name == "restore-agent" else [name.removeprefix("restore-agent-")])]).out
    assert (SHIPPED / f"{name}.1").read_text() == made, "run scripts/man"


def shown(name: str) -> str:
    """A page as man(1) shows it, in one line of words."""
    command = ["man", "--local-file", str(SHIPPED / f"{name}.1")]
    env = {**os.environ, "MANWIDTH": "1000", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": "0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return " ".join(re.sub(".\x08", "", done.stdout).split())  # overstrikes are how a terminal of old shows bold


@pytest.mark.skipif(not shutil.which("man"), reason="man is not installed")
def test_man_shows_every_option_with_its_help_and_the_examples_unchanged() -> None:
    text = shown("restore-agent-run")
    for name in ("url", "private_key_file", "wait_timeout", "metrics_file"):
        assert f"{OPTIONS[name].flag} {OPTIONS[name].metavar} {OPTIONS[name].help}" in text
    assert "restore-agent run --config restore.toml --batch-id BATCH --select 'electron_0-*' -o json" in text
    assert "-h, --help Show this message and exit." in text


@pytest.mark.skipif(not shutil.which("man"), reason="man is not installed")
def test_man_shows_every_exit_code() -> None:
    text = shown("restore-agent")
    for code, row in EXIT_CODES.items():
        assert f"{code} {row.meaning}. Next: {row.next_step}.".replace("`", "") in text


@pytest.mark.parametrize("name", ["restore-agent", "restore-agent-run", "restore-agent-status"])
def test_a_page_has_exit_status_environment_and_files(name: str) -> None:
    text = (SHIPPED / f"{name}.1").read_text()
    for section in ("EXIT STATUS", "ENVIRONMENT", "FILES"):
        assert f".SH {section}\n" in text
    assert "RESTORE_AGENT_DEST" in text


@pytest.mark.skipif(not shutil.which("man"), reason="man is not installed")
@pytest.mark.parametrize("columns", ["60", "80"])
def test_man_breaks_no_name(columns: str) -> None:
    env = {**os.environ, "MANWIDTH": columns, "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": "0"}
    command = ["man", "--local-file", str(SHIPPED / "restore-agent-run.1")]
    text = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    for option in map(OPTIONS.__getitem__, RUN_OPTIONS):
        if option.name not in ("output", "progress"):
            assert f"${option.env}" in re.sub(".\x08", "", text)


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_mandoc_reports_no_problem_in_the_pages() -> None:
    pages = sorted(SHIPPED.iterdir())
    done = subprocess.run(["mandoc", "-Tlint", *pages], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_pages_are_installed_where_man_looks(run_agent: RunAgent, tmp_path: Path) -> None:
    ended = run_agent(["man", "--install", tmp_path / "man"])
    assert ended.code == 0
    assert sorted(ended.out.split()) == sorted(str(tmp_path / "man" / "man1" / f"{name}.1") for name in PAGES)
    for name in PAGES:
        path = tmp_path / "man" / "man1" / f"{name}.1"
        assert path.read_text() == (SHIPPED / f"{name}.1").read_text()
        assert path.stat().st_mode & 0o777 == 0o644


def test_a_page_of_an_unknown_command_is_a_usage_error(run_agent: RunAgent) -> None:
    ended = run_agent(["man", "rum"])
    assert ended.code == 2
    assert "'rum'" in ended.err


# ---------------------------------------------------------------- completion


@pytest.fixture
def place(run_agent: RunAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the scripts, something to complete, and `restore-agent` in the PATH."""
    program = tmp_path / "bin" / "restore-agent"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m restore_agent "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for shell in ("bash", "zsh", "fish"):
        (tmp_path / f"completion.{shell}").write_text(run_agent(["completion", shell]).out)
    (tmp_path / "restore.toml").touch()
    (tmp_path / "restores").mkdir()
    return tmp_path


CASES = [
    ("restore-agent re", {"rehearse", "report", "request"}),
    ("restore-agent run --progress ", {"auto", "bar", "plain", "none"}),
    ("restore-agent rehearse --fault max-", {"max-downloads"}),
    ("restore-agent explain 2", {"2", "20", "21", "22", "23", "24", "25"}),
    ("restore-agent explain job-", {"job-broken", "job-killed"}),
    ("restore-agent completion z", {"zsh"}),
]


def offered(shell: str, place: Path, line: str) -> set[str]:
    """What a real shell offers to complete the line with."""
    words, word = line.split(" ")[:-1], line.rpartition(" ")[2]
    script = place / f"completion.{shell}"
    if shell == "bash":
        setting = f"COMP_WORDS=({' '.join(words)} '{word}'); COMP_CWORD={len(words)}"
        commands = (
            f"source {script}; {setting}; _restore_agent_completion restore-agent; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        command = ["bash", "--norc", "-c", commands]
    elif shell == "zsh":
        caught = "compadd() { local name=$@[-1]; print -l -- ${(P)name}; }; "
        caught += "_describe() { local name=$3; print -l -- ${${(P)name}%%:*}; }"
        setting = f"words=({' '.join(words)} '{word}'); CURRENT={len(words) + 1}"
        commands = f"compdef() {{ :; }}; {caught}; source {script}; {setting}; _restore_agent_completion"
        command = ["zsh", "-f", "-c", commands]
    else:
        command = ["fish", "--no-config", "-c", f"source {script}; complete --do-complete '{line}'"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    return {row.split("\t")[0] for row in done.stdout.splitlines() if row}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_real_shell_completes_commands_options_and_values(shell: str, place: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    for line, expected in CASES:
        assert offered(shell, place, line) == expected, line


def completions(*args: str) -> set[str]:
    """What is offered after these words, the last of which is not finished: `kind:value`, or a plain value."""
    *words, word = args
    found = ShellComplete(cli, {}, "restore-agent", "_RESTORE_AGENT_COMPLETE").get_completions(words, word)
    return {item.value if item.type == "plain" else f"{item.type}:{item.value}" for item in found}


@pytest.mark.parametrize(
    ("option", "kind"),
    [("--dest", "dir"), ("--config", "file"), ("--private-key-file", "file"), ("--metrics-file", "file")],
)
def test_files_and_directories_are_left_to_the_shell(option: str, kind: str) -> None:
    assert completions("run", option, "rest") == {f"{kind}:rest"}


def test_known_values_are_offered_and_unknown_ones_are_not() -> None:
    assert completions("plan", "--output", "") == {"text", "json"}
    assert completions("run", "--batch-id", "") == set()
    assert completions("simulator", "--fault", "max-d") == {"max-downloads"}
    assert completions("explain", "4") == {"40", "41", "42"}
    assert completions("man", "sta") == {"status"}
    assert completions("rehearse", "--dest", "x") == {"dir:x"}


def test_an_unknown_shell_is_a_usage_error(run_agent: RunAgent) -> None:
    ended = run_agent(["completion", "tcsh"])
    assert ended.code == 2
    assert "'tcsh'" in ended.err


# ---------------------------------------------------------------- what comes with the package


def test_the_path_for_ansible_is_the_shared_directory(run_agent: RunAgent) -> None:
    ended = run_agent(["ansible-collections"])
    assert (ended.code, Path(ended.out.strip())) == (0, Path(restore_agent.__file__).parent / "share")
    assert (Path(ended.out.strip()) / "ansible_collections" / "restore_agent" / "mongodb" / "galaxy.yml").is_file()


def test_a_directory_that_cannot_be_written_is_a_usage_error(run_agent: RunAgent) -> None:
    assert run_agent(["ansible-collections", "--extract", "/proc/no-such"]).code == 2


def test_the_collection_can_be_copied_to_a_directory_of_ansible(run_agent: RunAgent, tmp_path: Path) -> None:
    ended = run_agent(["ansible-collections", "--extract", tmp_path / "here"])
    assert (ended.code, ended.out.strip()) == (0, str(tmp_path / "here"))
    assert (tmp_path / "here" / "ansible_collections" / "restore_agent" / "mongodb" / "galaxy.yml").is_file()
    assert not list(tmp_path.rglob("__pycache__"))
