"""Whether another attempt may begin, and when: backoff, Retry-After, expiry, and the poll in between."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from restore_agent.core.clock import ServerClock
from restore_agent.core.errors import ConnectFailed, TransferCut
from restore_agent.core.jobs import DeliveryUrl, Job
from restore_agent.core.settings import RunLimits
from restore_agent.restore.job.retries import Retries
from restore_agent.restore.poller import PATIENCE

READY = Job("j1", delivery_status="READY", delivery_url=DeliveryUrl("https://om/a.tar", "a.tar"))


class ManualClock:
    """Time that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Polls:
    """Poll results as a poller keeps them; `poll` is one poll."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.asked = 0
        self._begun = 0
        self._listed: dict[str, int] = {}

    def begin(self) -> int:
        """Begin a poll."""
        self._begun += 1
        return self._begun

    def end(self, number: int, *jobs: Job) -> None:
        """End the poll of this number with these jobs."""
        for job in jobs:
            self.jobs[job.id] = job
            self._listed[job.id] = number

    def poll(self, *jobs: Job) -> None:
        """Begin and end a poll."""
        self.end(self.begin(), *jobs)

    def poll_now(self) -> None:
        """Note that a poll was asked for."""
        self.asked += 1

    def poll_number(self) -> int:
        """Return a number that any later poll is above."""
        return self._begun

    def newer_than(self, number: int, job_id: str) -> bool:
        """Return whether the latest poll that listed a job began after `number` was taken."""
        return self._listed[job_id] > number


class Host:
    """The services that `Retries` uses, and a job that is READY."""

    def __init__(self, **limits: Any) -> None:
        self.clock = ManualClock()
        self.polls = Polls()
        self.polls.poll(READY)
        server_clock = ServerClock(self.clock)
        context: Any = SimpleNamespace(
            limits=RunLimits(**limits), poller=self.polls, clock=self.clock, server_clock=server_clock
        )
        self.retries = Retries("j1", context)

    def fail(self, failure: TransferCut | ConnectFailed | None = None) -> float | None:
        """Make one attempt that fails; return the seconds until the next one."""
        self.retries.begin()
        return self.retries.failed(failure or TransferCut("interrupted", spent=True))

    def fail_and_wait(self) -> float:
        """Make one attempt that fails, wait, and poll, so that the next one can begin."""
        wait = self.fail()
        assert wait is not None
        self.clock.now += wait
        assert not self.retries.allowed()
        self.polls.poll(READY)
        assert self.retries.allowed()
        return wait


# ---------------------------------------------------------------- the first attempt


def test_the_first_attempt_begins_once_the_delivery_is_ready() -> None:
    assert Host().retries.allowed()


@pytest.mark.parametrize(
    "job",
    [
        Job("j1", delivery_status="IN_PROGRESS"),
        Job("j1", delivery_status="READY"),
        Job("j1", delivery_status="EXPIRED", delivery_url=READY.delivery_url),
        Job("j1", status="BROKEN", delivery_status="READY", delivery_url=READY.delivery_url),
        Job("j1", automated=True, delivery_status="READY", delivery_url=READY.delivery_url),
    ],
    ids=str,
)
def test_no_attempt_begins_while_the_delivery_is_not_ready(job: Job) -> None:
    host = Host()
    host.polls.poll(job)
    assert not host.retries.allowed()


# ---------------------------------------------------------------- after a failure


def test_after_a_failure_the_next_attempt_needs_its_pause_and_a_poll_that_began_after_it() -> None:
    host = Host()
    wait = host.fail()
    assert wait is not None
    assert 0.8 <= wait <= 1.2
    assert host.polls.asked == 1, "Ops Manager may give the reason immediately"
    assert not host.retries.allowed()
    host.polls.poll(READY)
    host.clock.now += wait - 0.01
    assert not host.retries.allowed(), "the pause is not over"
    host.clock.now += 0.02
    in_progress = host.polls.begin()
    assert not host.retries.allowed()
    assert host.polls.asked == 2
    host.polls.end(in_progress, READY)
    assert not host.retries.allowed(), "that poll began before it was asked for"
    host.polls.poll(READY)
    assert host.retries.allowed()
    assert host.polls.asked == 2


def test_after_a_failure_a_poll_without_the_job_is_not_enough() -> None:
    host = Host()
    host.clock.now += host.fail() or 0.0
    assert not host.retries.allowed()
    host.polls.poll()
    assert not host.retries.allowed()


def test_after_a_failure_the_delivery_must_still_be_ready() -> None:
    host = Host()
    host.clock.now += host.fail() or 0.0
    assert not host.retries.allowed()
    host.polls.poll(Job("j1", delivery_status="MAX_DOWNLOADS_EXCEEDED", delivery_url=READY.delivery_url))
    assert not host.retries.allowed()


def test_the_pause_doubles_up_to_eight_times_the_first_one() -> None:
    host = Host(retries=10)
    waits = [host.fail_and_wait() for _ in range(8)]
    assert all(0.8 * least <= wait <= 1.2 * least for wait, least in zip(waits[:3], (1, 2, 4), strict=True))
    assert all(6.4 <= wait <= 8.0 for wait in waits[3:])


def test_a_short_poll_interval_makes_short_pauses() -> None:
    wait = Host(poll_interval=0.01).fail()
    assert wait is not None
    assert wait <= 0.012


# ---------------------------------------------------------------- Retry-After


def expiring_in(host: Host, seconds: float | None) -> None:
    expires = None if seconds is None else host.clock.now + seconds
    host.polls.poll(Job("j1", delivery_status="READY", delivery_url=READY.delivery_url, expires=expires))


@pytest.mark.parametrize(
    ("expires_in", "retry_after", "wait"),
    [
        (None, 300.0, 300.0),
        (3600.0, 300.0, 300.0),
        (400.0, 300.0, 200.0),  # half of the time that is left: early enough for another attempt
        (600.0, 300.0, 300.0),
    ],
)
def test_a_retry_after_is_honoured_but_leaves_time_before_the_delivery_expires(
    expires_in: float | None, retry_after: float, wait: float
) -> None:
    host = Host()
    expiring_in(host, expires_in)
    assert host.fail(TransferCut("429", spent=False, retry_after=retry_after)) == wait


@pytest.mark.parametrize("expires_in", [0.0, -100.0, 1.0])
def test_a_delivery_about_to_expire_is_retried_after_the_backoff_alone(expires_in: float) -> None:
    host = Host()
    expiring_in(host, expires_in)
    wait = host.fail(TransferCut("429", retry_after=300.0))
    assert wait is not None
    assert 0.8 <= wait <= 1.2


@pytest.mark.parametrize("retry_after", [None, 0.0, 0.5])
def test_a_retry_after_below_the_backoff_changes_nothing(retry_after: float | None) -> None:
    wait = Host().fail(TransferCut("503", retry_after=retry_after))
    assert wait is not None
    assert 0.8 <= wait <= 1.2


# ---------------------------------------------------------------- the end of attempts


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_there_is_one_attempt_more_than_retries(retries: int) -> None:
    host = Host(retries=retries)
    for _ in range(retries):
        host.fail_and_wait()
        assert not host.retries.exhausted
    assert host.fail() is None
    host.polls.poll(READY)
    assert not host.retries.allowed()


def test_an_attempt_that_was_not_needed_does_not_count() -> None:
    host = Host(retries=1)
    host.retries.begin()
    host.retries.take_back()
    assert host.retries.made == 0
    host.fail_and_wait()
    assert host.fail() is None


def test_after_the_last_attempt_one_more_poll_may_give_the_reason() -> None:
    host = Host(retries=0)
    in_progress = host.polls.begin()
    assert host.fail() is None
    assert host.polls.asked == 1
    assert not host.retries.exhausted
    host.polls.end(in_progress, READY)
    assert not host.retries.exhausted, "that poll began before the failure"
    host.polls.poll()
    assert not host.retries.exhausted, "that poll did not list the job"
    host.polls.poll(READY)
    assert host.retries.exhausted


def test_after_the_last_attempt_an_ops_manager_that_does_not_answer_is_not_awaited_forever() -> None:
    host = Host(retries=0)
    host.fail()
    host.clock.now += PATIENCE - 1
    assert not host.retries.exhausted
    host.clock.now += 2
    assert host.retries.exhausted


def test_attempts_that_are_left_are_not_exhausted() -> None:
    host = Host(retries=1)
    assert not host.retries.exhausted
    host.fail()
    host.clock.now += PATIENCE + 1
    assert not host.retries.exhausted


@pytest.mark.parametrize(("retries", "text"), [(0, "after 1 attempt"), (2, "after 3 attempts")])
def test_the_final_failure_is_the_last_one_with_the_number_of_attempts(retries: int, text: str) -> None:
    host = Host(retries=retries)
    for _ in range(retries):
        host.fail_and_wait()
    failure = ConnectFailed("connection refused", spent=False)
    assert host.fail(failure) is None
    final = host.retries.final_failure()
    assert type(final) is ConnectFailed
    assert final.message == f"connection refused; given up {text}"
    assert failure.message == "connection refused"
    assert host.retries.last is failure
