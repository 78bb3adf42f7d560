"""Output of whole runs in a pipe: text and JSON Lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.agents import (
    QUICK,
    Restore,
    Result,
    RunAgent,
    StartAgent,
    StartSimulator,
    connection_args,
    finished,
    receipt_in,
)
from support.consoles import (
    ANSI,
    ARCHIVE_FIELDS,
    CONTROL,
    MOMENT,
    RECEIPT_FIELDS,
)

# Whole runs in a pipe


def test_in_a_pipe_text_has_no_control_characters_and_results_alone_are_on_stdout(
    simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("cut=50%@0", "max-downloads=2", "hostile-text", shards=1)
    ended = finished(start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}"]))
    assert ended.code == 0, ended.err
    for text in (ended.out, ended.err):
        assert not CONTROL.search(text)
        assert not ANSI.search(text)
    table = ended.out.splitlines()
    assert [line.split()[0] for line in table if not line.startswith(" ")] == ["verified", "verified", "2", "Next:"]
    assert table[0].strip() == f"In {dest}:"
    assert {line.split()[1] for line in table if line.startswith("verified")} == {job.file_name for job in sim.jobs}
    assert "attempt 1" in ended.err
    assert "attempt 1" not in ended.out


def test_a_status_with_line_breaks_cannot_forge_a_log_line(simulator: StartSimulator, restore: Restore) -> None:
    ended = restore(simulator("hostile-text", "never-ready"), "--output=text", "--wait-timeout=0.1s")
    assert ended.code == 20
    assert not [line for line in ended.err.splitlines() if re.match(r'(\d\d:\d\d:\d\d )?\{"event"', line)]


def test_json_in_a_pipe_leaves_stderr_empty(simulator: StartSimulator, start_agent: StartAgent, dest: Path) -> None:
    sim = simulator(shards=1)
    ended = finished(start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "-o", "json"]))
    assert ended.code == 0
    assert ended.err == ""
    assert ended.lines[-1]["event"] == "result"


def check_json(ended: Result) -> None:
    """What holds for JSON output whatever the end."""
    for line in ended.lines:
        assert {"event", "time"} <= set(line)
        assert MOMENT.fullmatch(line["time"])
    assert [line["event"] for line in ended.lines].count("result") == 1
    assert set(ended.result) - {"event", "time", "plan"} == RECEIPT_FIELDS
    assert all(set(record) == ARCHIVE_FIELDS for record in ended.result["archives"])
    assert ended.result["exit_code"] == ended.code
    assert (ended.result["outcome"] == "failed") == (ended.code not in (0, 10))


ENDS: list[tuple[list[str], list[str], int]] = [
    ([], [], 0),
    (["hash=never"], ["--hash-timeout=0.1s"], 10),
    (["hash=wrong"], [], 11),
    (["damaged-gzip", "hash=never"], ["--hash-timeout=0.1s"], 11),
    (["never-ready"], ["--wait-timeout=0.1s"], 20),
    (["broken"], [], 21),
    (["expired"], [], 22),
    (["cut=50%"], [], 23),
    ([], ["--select=nothing"], 24),
    ([], ["--group-id=unknown"], 24),
    (["refuse=500x9", "max-downloads=9"], ["--retries=0"], 25),
    (["forbidden"], [], 30),
    (["api-redirect"], [], 32),
    (["api-503=always"], ["--wait-timeout=0.2s"], 32),
    ([], ["--dest=/dev/null/restore"], 42),
    ([], ["--dest=/dev/null"], 42),
    ([], ["--retries=many"], 2),
    ([], ["--url=om.example.net"], 2),
    ([], ["--host-id=abc"], 2),
]


@pytest.mark.parametrize(("faults", "options", "code"), ENDS)
def test_every_outcome_is_json_lines_that_end_with_a_result(
    simulator: StartSimulator, restore: Restore, faults: list[str], options: list[str], code: int
) -> None:
    ended = restore(simulator(*faults), *options)
    assert ended.code == code, ended.out
    check_json(ended)
    assert ended.err == ""


def test_the_result_has_the_content_of_the_receipt(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    ended = restore(simulator(shards=1))
    told = {name: value for name, value in ended.result.items() if name not in ("event", "time")}
    assert told == receipt_in(dest)


@pytest.mark.parametrize(
    "args",
    [
        ["run", "-o", "json"],
        ["run", "--output=json", "--no-such-option"],
        ["run", "--no-such-option", "-o", "json"],
        ["run", "-ojson", "--no-such-option"],
        ["plan", "-o", "json", "--dest"],
        ["verify", "-o", "json"],
        ["status", "-o", "json"],
        ["rehearse", "-o", "json", "--fault", "no-such-fault"],
        ["run", "-o", "json", "--config", "/no/such/file"],
    ],
)
def test_a_usage_error_is_json_if_json_was_requested(run_agent: RunAgent, args: list[str]) -> None:
    ended = run_agent(args)
    assert ended.code == 2
    assert ended.events("error")[0]["id"] == "usage"
    check_json(ended)


def test_json_set_by_the_environment_applies_to_mistakes_too(run_agent: RunAgent) -> None:
    ended = run_agent(["run", "--no-such-option"], {"RESTORE_AGENT_OUTPUT": "json"})
    assert ended.code == 2
    check_json(ended)


def test_json_set_by_the_file_applies_to_errors_too(run_agent: RunAgent, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('output = "json"\n')
    ended = run_agent(["run", f"--config={config}"])
    assert ended.code == 2
    check_json(ended)


@pytest.mark.parametrize("mistake", ["retrys = 3", "retries = {a = 1}", "parallel = 0", 'private_key = "x"'])
@pytest.mark.parametrize("how", ["--config={}", "variable"])
def test_json_set_by_a_file_with_a_mistake_applies_too(
    run_agent: RunAgent, tmp_path: Path, mistake: str, how: str
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'output = "json"\n{mistake}\n')
    args, env = ([how.format(config)], {}) if "{}" in how else ([], {"RESTORE_AGENT_CONFIG": str(config)})
    ended = run_agent(["run", *args], env)
    assert ended.code == 2
    check_json(ended)
    check_json(run_agent(["run", "--no-such-option", *args], env))


def test_text_set_by_a_flag_applies_although_the_file_says_json(run_agent: RunAgent, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('output = "json"\nretrys = 3\n')
    assert "error: " in run_agent(["run", f"--config={config}", "-o", "text"]).err


def test_an_output_that_is_neither_is_reported_in_text(run_agent: RunAgent) -> None:
    ended = run_agent(["run", "-o", "yaml"])
    assert ended.code == 2
    assert "must be one of text, json" in ended.err


def test_a_closed_pipe_changes_no_exit_code(simulator: StartSimulator, start_agent: StartAgent, dest: Path) -> None:
    """As in `restore-agent plan -o json | head -1`."""
    sim = simulator("api-delay=0.3", shards=1)
    process = start_agent(["plan", *connection_args(sim), f"--dest={dest}", "-o", "json"])
    assert process.stdout
    assert process.stderr
    assert '"started"' in process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait(20)) == ("", 0)
