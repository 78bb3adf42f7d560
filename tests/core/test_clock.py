"""When to try again: the clock is handed in, so a day of waiting takes no time here."""

import asyncio
import heapq
import inspect
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restore_agent.core import clock as pacing
from restore_agent.core.clock import Backoff, Deadline, ServerClock, SystemClock, retry_after
from restore_agent.restore.transfer.rate import Meter, RateLimit

NOON = datetime(2017, 4, 21, 12, 0, 0, tzinfo=UTC).timestamp()
NOON_HEADER = "Fri, 21 Apr 2017 12:00:00 GMT"


class VirtualClock:
    """A clock that jumps to the next sleeper's turn once every task sleeps."""

    def __init__(self, wall: float = NOON) -> None:
        self.now = 1000.0
        self.offset = wall - self.now
        self.sleeps: list[float] = []
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.offset

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, len(self.sleeps), turn))
        await turn

    def run(self, *work: Coroutine[Any, Any, Any]) -> None:
        """Run all of `work` side by side until it is done."""

        async def drive() -> None:
            tasks = [asyncio.ensure_future(one) for one in work]
            while not all(task.done() for task in tasks):
                for _ in range(10):
                    await asyncio.sleep(0)
                if self._sleepers:
                    due, _, turn = heapq.heappop(self._sleepers)
                    self.now = max(self.now, due)
                    turn.set_result(None)
            for task in tasks:
                task.result()

        asyncio.run(drive())


# ---------------------------------------------------------------- backoff


def test_waits_double_up_to_eight_times_the_first() -> None:
    backoff = Backoff(5.0, spread=lambda: 1.0)
    assert [backoff.next() for _ in range(6)] == [5.0, 10.0, 20.0, 40.0, 40.0, 40.0]


def test_after_a_reset_waits_begin_with_the_first_interval() -> None:
    backoff = Backoff(5.0, spread=lambda: 1.0)
    for _ in range(4):
        backoff.next()
    backoff.reset()
    assert backoff.next() == 5.0


def test_every_wait_has_its_own_random_jitter() -> None:
    draws = iter([0.8, 1.0, 0.9])
    backoff = Backoff(10.0, spread=lambda: next(draws))
    assert [backoff.next() for _ in range(3)] == [8.0, 20.0, 36.0]


def test_hosts_that_start_together_do_not_poll_together() -> None:
    hosts = [Backoff(5.0) for _ in range(20)]
    first = {host.next() for host in hosts}
    assert len(first) > 10
    assert all(4.0 <= wait <= 6.0 for wait in first)


def test_no_wait_is_longer_than_eight_times_the_first_interval() -> None:
    backoff = Backoff(5.0, spread=lambda: 1.2)
    assert max(backoff.next() for _ in range(8)) == 40.0


@pytest.mark.parametrize(("asked", "waited"), [(None, 5.0), (0.0, 5.0), (3.0, 5.0), (30.0, 30.0), (3600.0, 3600.0)])
def test_a_wait_is_never_shorter_than_what_the_server_asked_for(asked: float | None, waited: float) -> None:
    assert Backoff(5.0, spread=lambda: 1.0).next(asked) == waited


def test_a_wait_that_the_server_asked_for_does_not_lengthen_later_waits() -> None:
    backoff = Backoff(5.0, spread=lambda: 1.0)
    assert [backoff.next(3600.0), backoff.next()] == [3600.0, 10.0]


# ---------------------------------------------------------------- Retry-After


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("1", 1.0),
        ("120", 120.0),
        (" 30 ", 30.0),
        ("3600", 3600.0),
        ("3601", 3600.0),
        ("9" * 5000, 3600.0),
        ("Fri, 21 Apr 2017 12:00:30 GMT", 30.0),
        ("Fri, 21 Apr 2017 12:00:30 -0000", 30.0),
        ("Fri, 21 Apr 2017 14:00:30 +0200", 30.0),
        ("Fri, 21 Apr 2017 11:59:00 GMT", 0.0),
        ("Sat, 22 Apr 2017 12:00:00 GMT", 3600.0),
        ("", None),
        ("-5", None),
        ("+5", None),
        ("1.5", None),
        ("soon", None),
        ("١٢", None),
        ("Fri, 99 Apr 2017 12:00:00 GMT", None),
        ("Fri, 21 Apr 2017", None),
    ],
)
def test_retry_after_is_whole_seconds_or_a_date_and_at_most_an_hour(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOON) == seconds


@hypothesis_settings(deadline=None, max_examples=100)
@given(
    st.text()
    | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,9} ([A-Z]{1,4}|[+-][0-9]{1,9})")
)
def test_any_retry_after_gives_a_wait_between_zero_and_an_hour(header: str) -> None:
    seconds = retry_after(header, NOON)
    assert seconds is None or 0.0 <= seconds <= 3600.0


# ---------------------------------------------------------------- the server's clock


def test_without_a_date_the_clock_of_this_host_is_used() -> None:
    clock = VirtualClock(wall=NOON)
    assert ServerClock(clock).now() == NOON


def test_the_date_of_an_answer_has_precedence_over_the_clock_of_this_host() -> None:
    clock = VirtualClock(wall=NOON - 86400)
    server = ServerClock(clock)
    server.observe(NOON_HEADER)
    clock.now += 90
    assert server.now() == NOON + 90


def test_a_change_of_the_clock_of_this_host_has_no_effect() -> None:
    clock = VirtualClock()
    server = ServerClock(clock)
    server.observe(NOON_HEADER)
    clock.offset += 7200
    assert server.now() == NOON


def test_a_later_date_replaces_an_earlier_one() -> None:
    clock = VirtualClock()
    server = ServerClock(clock)
    server.observe(NOON_HEADER)
    server.observe("Fri, 21 Apr 2017 12:05:00 GMT")
    assert server.now() == NOON + 300


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "{dateInUnixFormat}",
        "1492776000",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Fri, 21 Apr 2017 12:00:00 +99999999",
        "yesterday",
    ],
)
def test_an_invalid_or_absurd_date_is_ignored(header: str | None) -> None:
    clock = VirtualClock(wall=NOON - 5)
    server = ServerClock(clock)
    server.observe(header)
    assert server.now() == NOON - 5
    server.observe(NOON_HEADER)
    server.observe(header)
    assert server.now() == NOON


# ---------------------------------------------------------------- deadlines


def test_the_remaining_time_of_a_deadline_ends_at_zero() -> None:
    clock = VirtualClock()
    deadline = Deadline(clock, 60.0)
    seen = []
    for step in (0.0, 59.0, 1.0, 100.0):
        clock.now += step
        seen.append((deadline.remaining(), deadline.passed()))
    assert seen == [(60.0, False), (1.0, False), (0.0, True), (0.0, True)]


def test_a_deadline_of_zero_has_passed_immediately() -> None:
    assert Deadline(VirtualClock(), 0.0).passed()


def test_a_deadline_does_not_depend_on_the_wall_clock() -> None:
    clock = VirtualClock()
    deadline = Deadline(clock, 60.0)
    clock.offset += 86400
    assert deadline.remaining() == 60.0


# ---------------------------------------------------------------- rate


def test_without_a_limit_no_transfer_waits() -> None:
    clock = VirtualClock()
    limit = RateLimit(clock, None)
    clock.run(limit.spend(1 << 40))
    assert clock.sleeps == []
    assert limit.chunk_size(2 << 20) == 2 << 20


def test_a_transfer_takes_the_time_that_its_rate_requires() -> None:
    clock = VirtualClock()
    limit = RateLimit(clock, 1000.0)

    async def transfer() -> None:
        for _ in range(100):
            await limit.spend(50)

    began = clock.now
    clock.run(transfer())
    assert clock.now - began == pytest.approx(5.0)


def test_transfers_share_one_rate_fairly() -> None:
    clock = VirtualClock()
    limit = RateLimit(clock, 1000.0)
    ended: list[float] = []

    async def transfer() -> None:
        for _ in range(10):
            await limit.spend(100)
        ended.append(clock.now)

    began = clock.now
    clock.run(*(transfer() for _ in range(4)))
    assert ended[-1] - began == pytest.approx(4.0)
    assert ended[-1] - ended[0] <= 0.4


def test_time_without_data_does_not_allow_a_later_burst() -> None:
    clock = VirtualClock()
    limit = RateLimit(clock, 1000.0)

    async def transfer() -> None:
        await limit.spend(1000)
        clock.now += 3600
        await limit.spend(1000)

    clock.run(transfer())
    assert clock.sleeps == pytest.approx([1.0, 0.95]), "but for the twentieth of a second that one may be late"


@pytest.mark.parametrize("late", [0.001, 0.01, 0.03])
def test_a_rate_is_met_although_every_chunk_is_late(late: float) -> None:
    clock = VirtualClock()
    limit = RateLimit(clock, 1000.0)
    began = clock.now

    async def transfer() -> None:
        for _ in range(100):
            await limit.spend(limit.chunk_size(1 << 20))
            clock.now += late  # reading takes its time, and so does waking up

    clock.run(transfer())
    rate = 100 * limit.chunk_size(1 << 20) / (clock.now - began)
    assert rate == pytest.approx(1000.0, rel=0.05)


@pytest.mark.parametrize(
    ("rate", "chunk_size"), [(None, 2 << 20), (1.0, 1), (19.0, 1), (100.0, 5), (1 << 20, 52428), (1 << 40, 2 << 20)]
)
def test_a_slow_rate_uses_small_chunks(rate: float | None, chunk_size: int) -> None:
    assert RateLimit(VirtualClock(), rate).chunk_size(2 << 20) == chunk_size


# ---------------------------------------------------------------- meter


def test_a_meter_that_was_not_started_shows_no_rate() -> None:
    assert Meter(VirtualClock()).rate() == 0


def test_a_meter_shows_the_rate_of_the_last_seconds() -> None:
    clock = VirtualClock()
    meter = Meter(clock)
    meter.start(1000, None)
    rates = []
    for step in [100] * 10 + [400] * 10 + [0] * 10:
        clock.now += 1
        meter.bytes += step
        rates.append(meter.rate())
    assert rates[0] == rates[9] == 100
    assert 100 < rates[11] < 400
    assert rates[19] == 400
    assert rates[29] == 0


def test_a_meter_does_not_count_bytes_from_before_its_start() -> None:
    clock = VirtualClock()
    meter = Meter(clock)
    meter.start(1 << 40, 1 << 41)
    assert meter.rate() == 0
    clock.now += 1
    meter.bytes += 500
    assert (meter.rate(), meter.total) == (500, 1 << 41)


def test_a_meter_that_starts_over_shows_no_negative_rate() -> None:
    clock = VirtualClock()
    meter = Meter(clock)
    meter.start(1000, None)
    clock.now += 1
    meter.bytes = 0
    assert meter.rate() == 0


# ---------------------------------------------------------------- the host's own clock


def test_the_clock_of_the_host_moves_on_while_it_sleeps() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    asyncio.run(clock.sleep(0.01))
    assert clock.monotonic() - before >= 0.009
    assert abs(clock.wall() - datetime.now(UTC).timestamp()) < 5


def test_only_the_system_clock_reads_the_time() -> None:
    source = inspect.getsource(pacing)
    outside = source.replace(inspect.getsource(SystemClock), "")
    assert not any(call in outside for call in ("time.time(", "time.monotonic(", "asyncio.sleep(", "datetime.now("))
