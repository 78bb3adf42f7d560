"""What every end of a run must hold, and the files that it left."""

from __future__ import annotations

import re
from pathlib import Path

from restore_agent.simulator import Simulator
from support.agents import Result, sha1_of

ERROR_FIELDS = {"id", "exit_code", "message", "file_name", "on_disk", "download_spent", "hint"}
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def ended_with(ended: Result, code: int, reason: str | None = None) -> Result:
    """What holds for every end: exit code, last line and errors agree, and each error says all that it should."""
    assert ended.code == code, (ended.out, ended.err)
    assert ended.result["exit_code"] == code
    problems = [line["problem"] for line in ended.events("archive") if line["problem"]] + ended.events("error")
    for problem in problems:
        assert problem.keys() >= ERROR_FIELDS
        assert problem["message"]
        assert problem["hint"]
    for line in ended.events("archive"):
        if line["problem"]:
            assert line["problem"]["file_name"]
            assert line["problem"]["on_disk"]
            assert line["problem"]["download_spent"] is not None
    if reason is not None:
        assert reason in {problem["id"] for problem in problems} | {r["reason"] for r in ended.result["archives"]}
    return ended


def name_of(sim: Simulator, index: int = 0) -> str:
    return sim.job(index).archive_name


def names_in(place: Path) -> set[str]:
    return {entry.name for entry in place.iterdir()}


def published(sim: Simulator, dest: Path, index: int = 0) -> bool:
    """Whether the archive at its final name is the served one."""
    path = dest / name_of(sim, index)
    return path.exists() and sha1_of(path) == sim.job(index).archive().sha1
