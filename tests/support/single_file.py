"""The single file, built once for all tests of a run, however many processes run them."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def built(factory: pytest.TempPathFactory) -> Path:
    """The directory with restore-agent.pyz and restore-agent.cdx.json."""
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "single-file"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "restore-agent.cdx.json").exists():
            build(shared)
    return shared


def build(out: Path, **env: str) -> None:
    """Run scripts/build-zipapp into a directory."""
    command = [ROOT / "scripts" / "build-zipapp", "--out", out]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
