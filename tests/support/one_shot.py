"""Runs that download from URLs that may be good for one download only."""

from __future__ import annotations

import subprocess
from pathlib import Path

from restore_agent.simulator import Simulator
from support.agents import QUICK, Json, StartAgent, connection_args, journal_in, sha1_of

FRAMINGS = ["length", "chunked", "close"]
ENDINGS = ["cut", "reset", "clean-cut", "stall"]
BRISK = ("--stall-timeout=0.3s",)


def is_published(sim: Simulator, dest: Path, index: int = 0) -> bool:
    """Whether the archive stands at its final name, as served last."""
    path = dest / sim.job(index).file_name
    return path.exists() and sha1_of(path) == sim.job(index).sha1


def never_published_wrongly(sim: Simulator, dest: Path) -> bool:
    """Whether nothing, or the right bytes, stand at the final name."""
    path = dest / sim.job(0).file_name
    return not path.exists() or sha1_of(path) == sim.job(0).archive().sha1


def attempts_in(dest: Path) -> list[Json]:
    return [line for line in journal_in(dest) if line.get("fact") == "attempt"]


def started_run(start_agent: StartAgent, sim: Simulator, dest: Path, *options: str) -> subprocess.Popen[str]:
    """A run in a process of its own."""
    return start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "-o", "json", *options])
