"""systemd's status line: one line for `systemctl status` that says where a run stands.

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
from .wording import size_text, waiting_text

_EVERY = 2.0  # seconds between two lines while bytes flow


class StatusLine:
    """A reporter that tells the service manager. Nobody listening, or a socket that went away, ends no run."""

    def __init__(self, address: str, redactor: Redactor, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`address` is a path, or `@name` for an abstract name."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._redactor, self._monotonic = redactor, monotonic
        self._due = 0.0
        self._problem: str | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)  # a manager that does not read must not hold up a restore

    def report(self, event: Event) -> None:
        """Send a line for what changes where the run stands."""
        match event:
            case RunStarted():
                self._send("READY=1", f"STATUS=archives go to {event.dest}")  # READY is for units of Type=notify
            case Progress() if self._monotonic() >= self._due:
                self._due = self._monotonic() + _EVERY
                self._send(f"STATUS={standing(event.archives)}")
            case RunFailed():
                self._problem = str(event.problem["message"])
            case RunFinished():
                meaning = EXIT_CODES[event.receipt.exit_code][0].replace("`", "")
                self._send("STOPPING=1", f"STATUS=exit code {event.receipt.exit_code}: {self._problem or meaning}")

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()

    def _send(self, *lines: str) -> None:
        message = "\n".join(printable(self._redactor.clean(line), 500) for line in lines)
        with suppress(OSError):
            self._socket.sendto(message.encode(errors="replace"), self._address)


def status_line(environ: Mapping[str, str], redactor: Redactor) -> StatusLine | None:
    """The status line, if a service manager asked for one by NOTIFY_SOCKET."""
    address = environ.get("NOTIFY_SOCKET", "")
    return StatusLine(address, redactor) if address[:1] in ("/", "@") and len(address) > 1 else None


def standing(archives: tuple[ArchiveProgress, ...]) -> str:
    """Where every archive stands, in one line."""
    moving = [row for row in archives if row.state in ("downloading", "hashing")]
    settled = sum(row.state not in ("waiting", "downloading", "hashing") for row in archives)
    said = [f"{settled} of {len(archives)} archives settled"]
    if moving:
        rate = size_text(sum(row.bytes_per_second for row in moving))
        said.append(f"{len(moving)} under way with {size_text(sum(row.bytes for row in moving))}, {rate}/s")
    if waiting := waiting_text(archives):
        said.append(waiting)
    return "; ".join(said)
