"""The real command line as a process of its own: started, interrupted, waited for, and never left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .draw import Interruption
from .extras import Console

LONGEST_RUN = 60.0
"""Seconds after which a run counts as hanging. The slowest behaviours drawn are over in a fifth of it."""
_STEP = 0.003


@dataclass(frozen=True)
class Ended:
    """How a process ended. `code` is negative for a signal that killed it; None for one that had to be.

    `mute`: no reader could take its output. `stopped_after`: seconds from the signal to the end, None without one.
    """

    code: int | None
    out: bytes
    err: bytes
    interrupted: bool = False
    mute: bool = False
    stopped_after: float | None = None


class AgentProcess:
    """One agent in its own process group, its output in files beside DEST, or on something that takes none."""

    def __init__(
        self,
        arguments: Sequence[str],
        home: Path,
        stem: str,
        *,
        program: Sequence[str] = ("-m", "restore_agent"),
        file_limit: int | None = None,
        environment: Mapping[str, str] | None = None,
        console: Console = "files",
    ) -> None:
        self._signalled_at: float | None = None
        self._console, self._open = console, list[int]()
        self._out, self._err = home / f"{stem}.out", home / f"{stem}.err"
        keep = {"PATH": os.environ["PATH"]}  # not coverage's: other tests see these lines, and rounds want to be quick
        env = {**keep, "HOME": str(home), "TMPDIR": str(home), "SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
        env |= {
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONFAULTHANDLER": "1",  # stacks of a run that hangs, see `wait`
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "LANG": "C.UTF-8",
        }
        with self._out.open("wb") as out_file, self._err.open("wb") as err_file:
            out: IO[bytes] | int = out_file
            err: IO[bytes] | int = err_file
            if console != "files":
                out = err = self._take_no_output()
            self._process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**env, **(environment or {})},
                cwd=home / "cwd",
                start_new_session=True,
            )
        if isinstance(out, int):
            os.close(out)
        self.pid = self._process.pid
        if file_limit is not None:  # what stands in for a full disk where none can be mounted
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))

    def _take_no_output(self) -> int:
        """A descriptor that blocks its writer: a full pipe, or a terminal after Ctrl-S."""
        if self._console == "full pipe":
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            with suppress(BlockingIOError):
                while True:
                    os.write(writer, bytes(1 << 16))
            with suppress(BlockingIOError):
                while True:
                    os.write(writer, b"\0")
            os.set_blocking(writer, True)
        else:
            reader, writer = os.openpty()
            termios.tcflow(writer, termios.TCOOFF)
        self._open.append(reader)
        return writer

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def interrupt(self, step: Interruption, happened: Callable[[Interruption], bool]) -> bool:
        """Wait for the moment of an interruption and send its signal; False when the agent had ended before."""
        end = time.monotonic() + LONGEST_RUN
        while not happened(step) and self.running() and time.monotonic() < end:
            time.sleep(_STEP)
        until = time.monotonic() + step.delay
        while self.running() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.01))
        if not self.running():
            return False
        self._signalled_at = time.monotonic()
        self._process.send_signal(step.signal)
        return True

    def wait(self, *, interrupted: bool = False) -> Ended:
        """Wait for the end. A process that hangs is killed, its code is None, and its stacks are in `err`."""
        try:
            code: int | None = self._process.wait(LONGEST_RUN)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)
            self._process.kill()
            self._process.wait()
            code = None
        took = None if self._signalled_at is None else time.monotonic() - self._signalled_at
        while self._open:
            os.close(self._open.pop())
        mute = self._console != "files"
        return Ended(code, self._out.read_bytes(), self._err.read_bytes(), interrupted, mute, took)

    def leaves_children(self) -> bool:
        """Whether anything of its process group still runs; that is ended, too."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
            return True
        return False
