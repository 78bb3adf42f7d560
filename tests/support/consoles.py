"""Consoles, events, and pseudo terminals for the tests of the output."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from restore_agent.core.errors import HashMismatch
from restore_agent.core.events import (
    ArchiveFinished,
    ArchiveProgress,
    Downloaded,
    Event,
    JobSeen,
    Notice,
    RetryScheduled,
    RunStarted,
    Trouble,
)
from restore_agent.core.receipt import ArchiveRecord, Receipt, Verdict
from restore_agent.core.redaction import Redactor
from restore_agent.ui.text.console import TextConsole
from support.agents import (
    QUICK,
    Json,
    connection_args,
)
from support.program import PROGRAM

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
RECEIPT_FIELDS = {item.name for item in fields(Receipt)}
ARCHIVE_FIELDS = {item.name for item in fields(ArchiveRecord)}


def progress(state: str, **more: Any) -> ArchiveProgress:
    known: dict[str, Any] = {
        "job_id": "j" * 24,
        "file_name": "electron_0.tar.gz",
        "state": state,
        "bytes": 512 << 10,
        "total_bytes": 1 << 20,
        "bytes_per_second": 1 << 18,
        "expires_at": None,
        "downloads_spent": 1,
        "delivery_status": "READY",
        "expires_in": 3000.0,
    }
    return ArchiveProgress(**{**known, **more})


def receipt(*archives: ArchiveRecord, code: int = 0, changed: bool = True) -> Receipt:
    return Receipt(
        group_id="g",
        cluster_id="c",
        host_id=None,
        batch_id="b",
        ops_manager="https://om:443",
        started_at="2026-01-01T00:00:00.000Z",
        finished_at="2026-01-01T00:00:01.000Z",
        outcome="failed" if code else "verified",
        exit_code=code,
        changed=changed,
        archives=archives,
    )


def long_record(verdict: Verdict | None, **more: Any) -> ArchiveRecord:
    values: dict[str, Any] = {
        "job_id": "5" * 24,
        "file_name": f"electron_replica_set_with_a_long_name-1492528465-{'5' * 24}.tar.gz",
        "path": "/backup/restore/archive.tar.gz",
        "bytes": 1023 << 30,
        "sha1": "a" * 40,
        "bytes_per_second": 1023 << 20,
        "verdict": verdict,
    }
    return ArchiveRecord(**{**values, **more})


MISMATCH = HashMismatch("SHA1 on disk is a, published is b", archive="a.tar.gz", left="kept as x", spent=True)
SETTLED = ArchiveRecord("job", file_name="a.tar.gz", verdict=Verdict.MISMATCH, exit_code=11)

SENTENCES: list[tuple[Event, str]] = [
    (RunStarted("https://om:443", "/backup"), "Ops Manager https://om:443, destination /backup"),
    (RunStarted(None, "/backup"), "Ops Manager unknown, destination /backup"),
    (
        JobSeen("job", None, "IN_PROGRESS", None, "wait", "not-ready", None),
        "job job: job IN_PROGRESS, delivery -: wait (not-ready)",
    ),
    (
        RetryScheduled("job", "a.tar.gz", 1, "transfer-cut", "the connection broke", 1024, True, 2.0),
        "a.tar.gz: the connection broke (1.0 KiB on disk, a download may be spent, next attempt in 2s)",
    ),
    (
        RetryScheduled("job", "a.tar.gz", 1, "delivery-unreachable", "no route", 0, False, 61.0),
        "a.tar.gz: no route (0 B on disk, no download was spent, next attempt in 1m01s)",
    ),
    (Downloaded("job", "a.tar.gz", 2048, "0" * 40, 2.0, 2048), "a.tar.gz: 2.0 KiB in 2.0 s (1.0 KiB/s)"),
    (
        Downloaded("job", "a.tar.gz", 4096, "0" * 40, 2.0, 2048),
        "a.tar.gz: 4.0 KiB, of which 2.0 KiB now in 2.0 s (1.0 KiB/s)",
    ),
    (Downloaded("job", "a.tar.gz", 2048, "0" * 40, 0.0, 2048), "a.tar.gz: 2.0 KiB in 0.0 s, "),
    (
        Trouble("ops-manager-unreachable", "no route to om", "2026-01-01T00:00:00Z", "2026-01-01T06:00:00Z", 5.0),
        "warning: no route to om; next attempt in 5s; retrying until 06:00:00 UTC",
    ),
    (
        Trouble("ops-manager-unreachable", "Ops Manager answers again", "2026-01-01T00:00:00Z", None, over=True),
        "Ops Manager answers again",
    ),
    (ArchiveFinished("job", ArchiveRecord("job", verdict=Verdict.VERIFIED)), "job job: verified"),
    (Notice("warning", "the disk is nearly full"), "warning: the disk is nearly full"),
    (Notice("info", "all is well"), "all is well"),
]


def text_console(**more: Any) -> tuple[TextConsole, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return TextConsole(out, err, Redactor(), more.get("progress", "none"), more.get("command", "run")), out, err


def screen_of(written: str, columns: int) -> list[str]:
    """What stands on a terminal after all that was written to it: text, returns, cursor up, erase below."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]", written):
        if part == "\x1b[A":
            row = max(0, row - 1)
        elif part == "\x1b[J":
            lines[row:] = [lines[row][:column]]
        elif part == "\r":
            column = 0
        elif part == "\n" or (len(part) == 1 and column == columns):
            row, column = row + 1, column if part == "\n" else 0
            lines += [""] * (row + 1 - len(lines))
        if len(part) == 1 and part not in "\r\n":
            lines[row] = lines[row].ljust(column)[:column] + part + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in "\n".join(lines).rstrip().split("\n")]


def shown_on(err: io.StringIO) -> list[str]:
    """The screen behind a console; a stream that is no terminal starts a new line with each line feed."""
    return screen_of(err.getvalue().replace("\n", "\r\n"), columns=80)


class Terminal:
    """A pseudo terminal with a process on it; `shown` is all that was written."""

    def __init__(self, args: list[str], env: Mapping[str, str], columns: int = 80, lines: int = 24) -> None:
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        mode = termios.tcgetattr(side)
        mode[3] |= termios.NOFLSH  # else a ^C drops what was written and not yet read here, and the screen is wrong
        termios.tcsetattr(side, termios.TCSANOW, mode)
        command = [*PROGRAM, *args]
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command],  # only its own terminal turns a ^C into a signal
            stdin=side,
            stdout=side,
            stderr=side,
            env={**os.environ, "TERM": "xterm", **env},
        )
        os.close(side)
        self.shown = ""

    def press(self, keys: bytes, once: str) -> None:
        """Press keys as soon as `once` is shown."""
        while once not in self.shown and select.select([self._main], [], [], 20)[0]:
            self.shown += os.read(self._main, 65536).decode(errors="replace")
        os.write(self._main, keys)

    def finish(self) -> int:
        """Read until the process has gone; its exit code."""
        raw = bytearray()
        try:
            while select.select([self._main], [], [], 20)[0] and (block := os.read(self._main, 65536)):
                raw += block
        except OSError:  # EIO is how the last writer's end shows
            pass
        os.close(self._main)
        self.shown += raw.decode(errors="replace")
        return self.process.wait(5)

    @property
    def screens(self) -> list[str]:
        """Everything that stood on one line at some time, without escapes."""
        return [ANSI.sub("", text) for text in re.split(r"[\r\n]+|\x1b\[A", self.shown)]


def on_terminal(sim: Any, dest: Path, env: Json | None = None, *options: str) -> Terminal:
    args = ["run", *connection_args(sim), *QUICK, f"--dest={dest}", *options]
    terminal = Terminal(args, env or {})
    assert terminal.finish() == 0, terminal.shown
    return terminal
