"""Poller that keeps the latest state of every restore job and wakes waiting tasks after each poll.

One list call per poll serves the whole batch, however many jobs it has and however many of them wait for something: a
READY, a fresh state after a failed attempt, a hash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from ..core.clock import Backoff, Clock, Deadline
from ..core.errors import AgentError, AnswerUnusable, NotFound, NothingListed, TransientApiError, Unreachable
from ..core.jobs import Job
from ..core.settings import Target
from ..network.opsmanager import OpsManager

_EMPTY_POLLS = 3

_UNUSABLE_ANSWERS = 5  # in a row; a page that is not an API answer does not become one by waiting for hours

PATIENCE = 60.0
"""Seconds for which transient errors of the API are retried where no option says so."""


class JobPoller:
    """Polls in a task of its own (`run`); other tasks read `jobs` and await `wait_for_poll`.

    `successful_polls` counts polls that brought an answer. `trouble` is the error of the last poll if it may pass,
    `fatal` the one that ended polling. `unknown` holds an error for each job ID that Ops Manager never knew.
    `remembered` are jobs that count as listed although Ops Manager does not know them any more.
    """

    def __init__(
        self,
        api: OpsManager,
        target: Target,
        clock: Clock,
        interval: float,
        remembered: Mapping[str, Job] | None = None,
    ) -> None:
        self._api = api
        self._target = target
        self._remembered = remembered or {}
        self._timing = _PollTiming(clock, interval)
        self._polled = asyncio.Condition()
        self._jobs: dict[str, Job] = {}
        self._listed: dict[str, tuple[int, int]] = {}  # the poll, and the successful poll, that last listed a job
        self._failures = _Failures()
        self.successful_polls = 0
        self.read_begun = 0
        self.unknown: tuple[NotFound, ...] = ()
        self.fatal: AgentError | None = None

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The latest state of every job that was ever listed, by ID."""
        return self._jobs

    @property
    def trouble(self) -> AgentError | None:
        """The error of the last poll, if another poll may succeed."""
        return self._failures.last

    def troubled_for(self) -> float:
        """Return the seconds since polls began to fail; 0 while they succeed."""
        since = self._failures.since
        return 0.0 if since is None else self._timing.clock.monotonic() - since

    def silence(self, seconds: float) -> Unreachable | None:
        """Return the error of a poll that has had no answer for so long, else None."""
        waited = self._timing.asked_for()
        if waited is None or waited < seconds:
            return None
        return Unreachable(f"Ops Manager has not answered for {waited:.0f} s")

    def next_poll_in(self) -> float | None:
        """Return the seconds until the next poll, or None while one is in progress."""
        return self._timing.next_in()

    def poll_number(self) -> int:
        """Return a number for `newer_than`: any poll that begins from now on is newer."""
        return self._timing.begun

    def newer_than(self, number: int, job_id: str | None = None) -> bool:
        """Return whether the latest poll result, or the latest that listed a job, began after `number` was taken."""
        return (self.read_begun if job_id is None else self._listed[job_id][0]) > number

    def gone(self, job_id: str) -> bool:
        """Return whether a job that was listed is missing from the last three poll results."""
        return self.successful_polls - self._listed[job_id][1] >= _EMPTY_POLLS

    def poll_now(self) -> None:
        """Ask for the next poll now, and start the backoff again. Never sooner than a Retry-After allows."""
        self._timing.urgent.set()

    async def notify(self) -> None:
        """Wake the tasks in `wait_for_poll` without a poll."""
        async with self._polled:
            self._polled.notify_all()

    async def wait_for_poll(self) -> None:
        """Return after the next poll, successful or not."""
        async with self._polled:
            await self._polled.wait()

    async def run(self) -> None:
        """Poll until a permanent error occurs, and store it in `fatal`."""
        while self.fatal is None:
            await self._poll(self._timing.begin())
            self._timing.end()
            await self.notify()
            if self.fatal is None:
                await self._timing.pause(getattr(self.trouble, "retry_after", None))

    async def _poll(self, number: int) -> None:
        try:
            jobs = await self._api.jobs(self._target)
        except TransientApiError as error:
            self.fatal = self._failures.add(error, self._timing.clock.monotonic())
        except NotFound as error:  # of a batch that was listed before: that may pass, too
            if self._jobs:
                self.fatal = self._failures.add(error, self._timing.clock.monotonic())
            else:
                self.fatal = error
        except AgentError as error:
            self.fatal = error
        else:
            self._take(jobs, number)

    def _take(self, jobs: list[Job], number: int) -> None:
        self._failures = _Failures()
        self.successful_polls += 1
        self.read_begun = number
        removed = {job_id: job for job_id, job in self._remembered.items() if job_id in self._api.unknown}
        latest = {job_id: self._jobs.get(job_id, job) for job_id, job in removed.items()}
        latest |= {job.id: job for job in jobs}
        if any(self._jobs.get(job_id) != job for job_id, job in latest.items()):
            self._timing.reset()
        self._jobs.update(latest)
        self._listed.update(dict.fromkeys(latest, (number, self.successful_polls)))
        self.unknown = tuple(error for job_id, error in self._api.unknown.items() if job_id not in self._jobs)
        if self.unknown and not self._jobs:
            self.fatal = self.unknown[0]
        elif not self._jobs and self.successful_polls >= _EMPTY_POLLS:
            text = f"batch {self._target.batch_id} listed no restore job in {_EMPTY_POLLS} polls"
            self.fatal = NothingListed(text)


class _Failures:
    """Failed polls in a row."""

    def __init__(self) -> None:
        self.last: AgentError | None = None
        self.since: float | None = None
        self._unusable = 0

    def add(self, error: AgentError, now: float) -> AgentError | None:
        """Note a failure; return the error if it counts as permanent now."""
        self.last = error
        self.since = now if self.since is None else self.since
        self._unusable = self._unusable + 1 if isinstance(error, AnswerUnusable) else 0
        return error if self._unusable >= _UNUSABLE_ANSWERS else None


class _PollTiming:
    """When polls begin: backoff with jitter, at once when a task asks, never sooner than a Retry-After."""

    def __init__(self, clock: Clock, interval: float) -> None:
        self.clock = clock
        self._backoff = Backoff(interval)
        self._least_pause = interval / 50  # so that many concurrent requests do not flood the API
        self._asked_at: float | None = None
        self._due: float | None = None
        self.urgent = asyncio.Event()
        self.begun = 0

    def begin(self) -> int:
        """Note that a poll begins; return its number."""
        self.urgent.clear()
        self.begun += 1
        self._asked_at, self._due = self.clock.monotonic(), None
        return self.begun

    def end(self) -> None:
        """Note that the poll has ended."""
        self._asked_at = None

    def asked_for(self) -> float | None:
        """Return the seconds since a poll in progress began, or None if there is none."""
        return None if self._asked_at is None else self.clock.monotonic() - self._asked_at

    def next_in(self) -> float | None:
        """Return the seconds until the next poll, or None if it is not known."""
        return None if self._due is None else max(0.0, self._due - self.clock.monotonic())

    def reset(self) -> None:
        """Start the backoff again."""
        self._backoff.reset()

    async def pause(self, at_least: float | None) -> None:
        """Wait until the next poll is due."""
        pause = self._backoff.next(at_least)
        least = min(pause, at_least or self._least_pause)
        self._due = self.clock.monotonic() + pause
        await self.clock.sleep(least)
        if pause > least and not self.urgent.is_set():
            timer = asyncio.ensure_future(self.clock.sleep(pause - least))
            waker = asyncio.ensure_future(self.urgent.wait())
            try:
                await asyncio.wait({timer, waker}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                waker.cancel()
        if self.urgent.is_set():
            self._backoff.reset()


async def first_poll(
    poller: JobPoller,
    clock: Clock,
    *,
    empty_will_do: bool = False,
    while_polling: Callable[[Deadline], None] = lambda _: None,
) -> JobPoller:
    """Poll until the jobs were listed once. Raises what ended polling, or the transient error after a minute.

    `while_polling` is called many times a second with the deadline, so that trouble can be reported.
    """
    deadline = Deadline(clock, PATIENCE)
    polling = asyncio.ensure_future(poller.run())
    try:
        while not poller.jobs and not (empty_will_do and poller.successful_polls):
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(polling), 0.02)
            while_polling(deadline)
            if poller.fatal:
                raise poller.fatal
            if polling.done():
                polling.result()
            if deadline.passed():
                raise poller.trouble or poller.silence(0.0) or NothingListed("no restore job was listed in a minute")
        return poller
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
