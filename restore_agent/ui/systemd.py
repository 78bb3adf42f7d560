"""Status line of systemd: one line in `systemctl status` with the progress of a run.

The protocol is sd_notify(3): datagrams of NAME=value lines to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from ..core.events import ArchiveProgress, Event, Progress, RunFailed, RunFinished, RunStarted
from ..core.exit_codes import EXIT_CODES
from ..core.redaction import Redactor
from ..core.untrusted import printable
from .wording import UNFINISHED, size_text, waiting_text

_EVERY = 2.0  # seconds between two lines while bytes flow


class StatusLine:
    """Reporter that sends the progress to the service manager. Errors of the socket are ignored."""

    def __init__(self, address: str, redactor: Redactor, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Open a socket. `address` is a path, or `@name` for an abstract name."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._redactor, self._monotonic = redactor, monotonic
        self._due = 0.0
        self._problem: str | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)  # a service manager that does not read must not delay a restore

    def report(self, event: Event) -> None:
        """Send a line if an event changes the progress."""
        match event:
            case RunStarted():
                self._send("READY=1", f"STATUS=archives go to {event.dest}")  # READY is for units of Type=notify
            case Progress() if self._monotonic() >= self._due:
                self._due = self._monotonic() + _EVERY
                self._send(f"STATUS={progress_line(event.archives)}")
            case RunFailed():
                self._problem = str(event.problem["message"])
            case RunFinished():
                meaning = EXIT_CODES[event.receipt.exit_code].meaning.replace("`", "")
                self._send("STOPPING=1", f"STATUS=exit code {event.receipt.exit_code}: {self._problem or meaning}")

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()

    def _send(self, *lines: str) -> None:
        message = "\n".join(printable(self._redactor.clean(line), 500) for line in lines)
        with suppress(OSError):
            self._socket.sendto(message.encode(errors="replace"), self._address)


def status_line(environ: Mapping[str, str], redactor: Redactor) -> StatusLine | None:
    """Return the status line if NOTIFY_SOCKET is set, else None."""
    address = environ.get("NOTIFY_SOCKET", "")
    return StatusLine(address, redactor) if address[:1] in ("/", "@") and len(address) > 1 else None


def progress_line(archives: tuple[ArchiveProgress, ...]) -> str:
    """Return the progress of all archives in one line."""
    active = [row for row in archives if row.state in ("downloading", "hashing", "unpacking")]
    finished = sum(row.state not in UNFINISHED for row in archives)
    said = [f"{finished} of {len(archives)} archives finished"]
    if active:
        rate = size_text(sum(row.bytes_per_second for row in active))
        said.append(f"{len(active)} in progress with {size_text(sum(row.bytes for row in active))}, {rate}/s")
    if waiting := waiting_text(archives):
        said.append(waiting)
    return "; ".join(said)
