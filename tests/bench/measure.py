"""Commands as processes of their own: what they took in time, CPU and memory, all of their processes together."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Pipeline = Sequence[Sequence[str]]
"""Commands that run at once, each reading what the one before it writes."""
LONGEST = 300.0
"""Seconds after which a command is killed and the bench fails."""


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, seconds of CPU (user and system), peak memory in bytes.

    Until a new process has become its program, the kernel counts the memory of the process that started it as its own.
    Peaks below that of the bench cannot be seen; the bench itself is kept small for that reason.
    """

    seconds: float
    cpu: float
    memory: int

    def __add__(self, later: Cost) -> Cost:
        return Cost(self.seconds + later.seconds, self.cpu + later.cpu, max(self.memory, later.memory))


def run(steps: Sequence[Pipeline], log: Path) -> Cost:
    """Run pipelines one after the other. RuntimeError, with the log's end, when a process fails."""
    total = Cost(0.0, 0.0, 0)
    for pipeline in steps:
        total += side_by_side([pipeline], log)
    return total


def side_by_side(pipelines: Sequence[Pipeline], log: Path) -> Cost:
    """Run pipelines at once; memory is the sum of their processes' peaks."""
    began = time.monotonic()
    with log.open("ab") as errors:
        running = [process for pipeline in pipelines for process in _started(pipeline, errors)]
        watchdog = threading.Timer(LONGEST, _kill, [running])
        watchdog.daemon = True
        watchdog.start()
        try:
            ended = [_waited(process) for process in running]
        finally:
            watchdog.cancel()
            _kill(running)
    seconds = time.monotonic() - began
    if any(code for code, _, _ in ended):
        codes = ", ".join(f"{process.args[0]}: {code}" for process, (code, _, _) in zip(running, ended, strict=True))
        raise RuntimeError(f"{codes}\n{log.read_text(errors='replace')[-2000:]}")
    return Cost(seconds, sum(cpu for _, cpu, _ in ended), sum(memory for _, _, memory in ended))


def _started(pipeline: Pipeline, errors: object) -> list[subprocess.Popen[bytes]]:
    """The processes of a pipeline; what the last one writes to standard output goes to the log."""
    running: list[subprocess.Popen[bytes]] = []
    for number, command in enumerate(pipeline):
        last = number == len(pipeline) - 1
        source = running[-1].stdout if running else subprocess.DEVNULL
        target = errors if last else subprocess.PIPE
        running.append(subprocess.Popen(command, stdin=source, stdout=target, stderr=errors))  # type: ignore[call-overload]  # files and constants
        if running[:-1] and running[-2].stdout:
            running[-2].stdout.close()  # the reader alone holds it now
    return running


def _waited(process: subprocess.Popen[bytes]) -> tuple[int, float, int]:
    """Exit code, CPU seconds and peak memory of a process and its children."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def _kill(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in running:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the middle two."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
