"""Clock of the server: adjustable, and independent of changes of the local clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import formatdate


class Clock:
    """Seconds since the epoch by the server: wall time at its start, monotonic from then on, plus `offset`.

    `offset` may be set and `advance` called while the server runs; statuses and late hashes follow it.
    """

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset
        self._base = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the server's time in seconds since the epoch."""
        return self._base + time.monotonic() + self.offset

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self.offset += seconds

    def http_date(self) -> str:
        """Return the time as in a `Date` header (RFC 9110, 5.6.7)."""
        return formatdate(self.now(), usegmt=True)


def iso(moment: float) -> str:
    """Return a time as the API prints it: `2017-04-21T03:49:57Z`."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
