"""Limits of the host: found before a download is spent, by `plan` as by `run`."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest
from support.agents import QUICK, Result, StartAgent, StartSimulator, connection_args, deliveries, finished

from restore_agent.cli.session import Session, execute
from restore_agent.simulator import Simulator


def limited(start_agent: StartAgent, sim: Simulator, command: str, dest: Path, limit: int, value: int) -> Result:
    """The end of a command whose process has a resource limit."""
    pace = QUICK if command == "run" else ()
    args = [command, *connection_args(sim), *pace, f"--dest={dest}", "--output=json"]
    return finished(start_agent(args, preexec_fn=lambda: resource.setrlimit(limit, (value, value))))


@pytest.mark.parametrize("command", ["plan", "run"])
def test_41_when_files_are_limited_below_an_archive(
    simulator: StartSimulator, start_agent: StartAgent, dest: Path, command: str
) -> None:
    sim = simulator()
    ended = limited(start_agent, sim, command, dest, resource.RLIMIT_FSIZE, 32 << 10)
    assert ended.code == 41
    assert "files are limited to 32768 bytes" in ended.events("error")[0]["message"]
    assert deliveries(sim) == []


def test_41_when_there_are_too_few_descriptors_for_a_download(
    simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator()
    ended = limited(start_agent, sim, "run", dest, resource.RLIMIT_NOFILE, 10)
    assert ended.code == 41
    assert "Too many open files" in ended.events("error")[0]["message"]
    assert deliveries(sim) == []


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")], ids=["memory", "thread"])
def test_41_when_the_host_has_no_memory_or_thread_left(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def work(_: Session) -> int:
        raise error

    assert execute("run", {"output": "text"}, work) == 41
    assert "the host gives no more memory or threads" in capsys.readouterr().err


@pytest.mark.parametrize("relative", [False, True])
def test_a_current_directory_that_was_removed_matters_only_for_a_relative_path(
    simulator: StartSimulator, start_agent: StartAgent, tmp_path: Path, relative: bool
) -> None:
    sim, gone = simulator(), tmp_path / "gone"
    gone.mkdir()
    args = ["run", *connection_args(sim), *QUICK, f"--dest={'restore' if relative else tmp_path / 'restore'}"]
    root = Path(sys.modules["restore_agent"].__file__ or "").parents[1]
    ended = finished(start_agent([*args, "--output=json"], {"PYTHONPATH": str(root)}, cwd=gone, preexec_fn=gone.rmdir))
    assert ended.code == (2 if relative else 0), ended.err
    assert len(deliveries(sim)) == (0 if relative else 1)
    if relative:
        assert "the current directory does not exist" in ended.events("error")[0]["message"]
