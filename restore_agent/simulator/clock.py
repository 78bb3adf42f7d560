"""The server's clock: its own time, wrong on purpose if wanted, and unmoved by jumps of the local one."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import formatdate


class Clock:
    """Seconds since the epoch as the server sees them: wall time at start, monotonic from there, plus `offset`.

    `offset` may be set and `advance` called while the server runs; READY, EXPIRED and late hashes follow it.
    """

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset
        self._base = time.time() - time.monotonic()

    def now(self) -> float:
        """The server's time in seconds since the epoch."""
        return self._base + time.monotonic() + self.offset

    def advance(self, seconds: float) -> None:
        """Let that much time pass at once."""
        self.offset += seconds

    def http_date(self) -> str:
        """The time as a `Date` header has it (RFC 9110, 5.6.7)."""
        return formatdate(self.now(), usegmt=True)


def iso(moment: float) -> str:
    """A time as the API prints it: `2017-04-21T03:49:57Z`."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
