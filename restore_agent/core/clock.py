"""Time: clocks, deadlines, backoff, and RFC 3339 texts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol


def rfc3339(epoch: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_seconds(epoch: float) -> str:
    """Return seconds since the epoch as RFC 3339 in UTC, to the second, as Ops Manager writes times."""
    return datetime.fromtimestamp(int(epoch), UTC).isoformat().replace("+00:00", "Z")


BACKOFF_CEILING = 8  # times the first interval, by the contract's --poll-interval

_MAX_RETRY_AFTER = 3600.0  # seconds; a server that asks for more is asked again after an hour

_PLAUSIBLE_TIMES = (datetime(2000, 1, 1, tzinfo=UTC).timestamp(), datetime(2200, 1, 1, tzinfo=UTC).timestamp())


class Clock(Protocol):
    """Where time comes from. All values are in seconds."""

    def monotonic(self) -> float:
        """Never jumps; for deadlines and rates."""

    def wall(self) -> float:
        """Seconds since the epoch by the clock of this host; for display only."""

    async def sleep(self, seconds: float) -> None:
        """Let other tasks run for so long."""


class SystemClock:
    """The host's own clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ServerClock:
    """What time it is for Ops Manager: its last `Date`, moved on by our monotonic clock.

    A delivery's `expires` is the server's time, so a wrong clock on this host must not count. Without a
    usable `Date` the host's clock stands in.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_of_monotonic: float | None = None

    def observe(self, date_header: str | None) -> None:
        """Take the `Date` header of an answer; what does not parse or is absurd is left aside."""
        if (seen := _http_date(date_header)) is not None and _PLAUSIBLE_TIMES[0] < seen < _PLAUSIBLE_TIMES[1]:
            self._ahead_of_monotonic = seen - self._clock.monotonic()

    @property
    def observed(self) -> bool:
        """Whether an answer had a usable `Date`."""
        return self._ahead_of_monotonic is not None

    def now(self) -> float:
        """Seconds since the epoch on the server."""
        if self._ahead_of_monotonic is None:
            return self._clock.wall()
        return self._clock.monotonic() + self._ahead_of_monotonic


def _http_date(header: str | None) -> float | None:
    if not header:
        return None
    try:
        parsed = parsedate_to_datetime(header)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: whole seconds or a date), at most an hour."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _MAX_RETRY_AFTER)
    moment = _http_date(text)
    return None if moment is None else min(max(moment - now, 0.0), _MAX_RETRY_AFTER)


class Backoff:
    """Waits that double from `first` seconds to eight times it, each spread by ±20 % so that hosts differ."""

    def __init__(self, first: float, spread: Callable[[], float] = lambda: random.uniform(0.8, 1.2)) -> None:
        self._first = first
        self._next = first
        self._spread = spread

    def reset(self) -> None:
        """Something happened: start again from the first interval."""
        self._next = self._first

    def next(self, at_least: float | None = None) -> float:
        """Seconds to wait now; never less than the server's Retry-After, when that is given as `at_least`."""
        wait = min(self._next * self._spread(), self._first * BACKOFF_CEILING)
        self._next = min(self._next * 2, self._first * BACKOFF_CEILING)
        return max(wait, at_least or 0.0)


class Deadline:
    """A moment on the monotonic clock, `seconds` after it is made."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._end = clock.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._end - self._clock.monotonic())

    def passed(self) -> bool:
        """Whether no time is left."""
        return self.remaining() <= 0.0
