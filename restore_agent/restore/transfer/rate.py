"""Rate limit and rate measurement of transfers."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...core.clock import Clock


class RateLimit:
    """A budget of bytes per second that all transfers share, first come, first served.

    `rate` is in bytes per second; None means no limit. Each transfer reserves time for its bytes, one
    after another, and waits until they are due: over time the rate is exact, and transfers with chunks of equal size
    get equal shares. A transfer that is late, because reading and waking up take time, may catch up by a twentieth of
    a second; without that, 300 MiB/s became 216.
    """

    _CHUNKS_PER_SECOND = 20

    def __init__(self, clock: Clock, rate: float | None) -> None:
        self._clock = clock
        self._rate = rate
        self._reserved_until: float | None = None

    @property
    def off(self) -> bool:
        """Whether there is no limit."""
        return self._rate is None

    def chunk_size(self, most: int) -> int:
        """Return how many bytes to request at once, at most `most`, so that a low limit does not cause bursts."""
        return most if self._rate is None else max(1, min(most, int(self._rate / self._CHUNKS_PER_SECOND)))

    async def spend(self, size: int) -> None:
        """Reserve time for `size` received bytes, and wait until they are due."""
        if self._rate is None:
            return
        now = self._clock.monotonic()
        begun = now if self._reserved_until is None else max(self._reserved_until, now - 1 / self._CHUNKS_PER_SECOND)
        due = self._reserved_until = begun + size / self._rate
        await self._clock.sleep(max(0.0, due - now))


@dataclass
class Meter:
    """Progress of one archive, read by the displays."""

    clock: Clock
    bytes: int = 0
    total: int | None = None
    unpacked: int | None = None
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
