"""The peak memory of a run, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from restore_agent.simulator import Simulator

from .agents import QUICK, connection_args

MOST_MEMORY = 120 << 20
"""Bytes of memory that the contract allows (5.8), whatever the sizes."""


# not `wait4`: what it tells counts the memory of the process that forked, which is this test's
_PEAK = """
import atexit, re, runpy, sys
status, place = "/proc/self/status", sys.argv.pop(1)
atexit.register(lambda: open(place, "w").write(re.search(r"VmHWM:\\s+(\\d+)", open(status).read())[1]))
runpy.run_module("restore_agent", run_name="__main__")
"""


def measured(sim: Simulator, dest: Path, *options: str) -> tuple[int, int, float, str]:
    """A run as a process of its own: exit code, peak memory in bytes, seconds, what it said."""
    peak = dest.with_name("peak")
    args = [sys.executable, "-c", _PEAK, str(peak), "run", *connection_args(sim), *QUICK, f"--dest={dest}", *options]
    began = time.monotonic()
    ended = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return ended.returncode, int(peak.read_text()) << 10, time.monotonic() - began, ended.stdout
