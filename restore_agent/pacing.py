"""When to try again, and what time it is: clocks, backoff, Retry-After, rate.

Nothing here sleeps or looks at a clock by itself: the clock is handed in, so that tests own time.
Deadlines are kept on the monotonic clock; wall-clock time is only shown, and held against the server's.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

BACKOFF_CEILING = 8  # times the first interval, by the contract's --poll-interval
_ABSURD_RETRY_AFTER = 3600.0  # seconds; a server that asks for more is asked again after an hour
_ABSURD_CLOCK = (datetime(2000, 1, 1, tzinfo=UTC).timestamp(), datetime(2200, 1, 1, tzinfo=UTC).timestamp())


class Clock(Protocol):
    """Where time comes from. All values are in seconds."""

    def monotonic(self) -> float:
        """Never jumps; for deadlines and rates."""

    def wall(self) -> float:
        """Seconds since the epoch as this host believes; for showing."""

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
        if (seen := _http_date(date_header)) is not None and _ABSURD_CLOCK[0] < seen < _ABSURD_CLOCK[1]:
            self._ahead_of_monotonic = seen - self._clock.monotonic()

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
        return min(float(text[:9]), _ABSURD_RETRY_AFTER)
    moment = _http_date(text)
    return None if moment is None else min(max(moment - now, 0.0), _ABSURD_RETRY_AFTER)


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


class RateLimit:
    """A budget of bytes per second that all transfers share, first come, first served.

    `rate` is in bytes per second; None means no limit. Each taker books its bytes on one time line and waits
    until they are due, which is exact in the long run and fair between takers of equal bites. One that comes late,
    since reading and waking up take their time, may catch up by a twentieth of a second; without that, 300 MiB/s
    became 216.
    """

    _BITES_PER_SECOND = 20

    def __init__(self, clock: Clock, rate: float | None) -> None:
        self._clock = clock
        self._rate = rate
        self._booked_until: float | None = None

    @property
    def off(self) -> bool:
        """Whether there is no limit."""
        return self._rate is None

    def bite(self, most: int) -> int:
        """How many bytes to ask for at once, so that a slow limit is not met in bursts."""
        return most if self._rate is None else max(1, min(most, int(self._rate / self._BITES_PER_SECOND)))

    async def spend(self, size: int) -> None:
        """Book `size` bytes that were received and wait until they were due."""
        if self._rate is None:
            return
        now = self._clock.monotonic()
        begun = now if self._booked_until is None else max(self._booked_until, now - 1 / self._BITES_PER_SECOND)
        due = self._booked_until = begun + size / self._rate
        await self._clock.sleep(max(0.0, due - now))


@dataclass
class Meter:
    """How far an archive is; read by whoever shows progress."""

    clock: Clock
    bytes: int = 0
    total: int | None = None
    _samples: list[tuple[float, int]] = field(default_factory=list)

    def start(self, at: int, total: int | None) -> None:
        """Begin to count from `at` bytes."""
        self.bytes, self.total = at, total
        self._samples = [(self.clock.monotonic(), at)]

    def rate(self) -> int:
        """Bytes per second over the last five seconds or so."""
        now = self.clock.monotonic()
        self._samples.append((now, self.bytes))
        while len(self._samples) > 2 and self._samples[1][0] < now - 5.0:
            del self._samples[0]
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return max(0, int((last - first) / (ended - began))) if ended > began else 0
