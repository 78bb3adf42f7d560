"""The one that polls: keeps the latest reading of every restore job and tells who waits when there is a new one.

One list call per poll serves the whole batch, however many jobs it has and however many of them wait for
something: a READY, a fresh word after a cut, a hash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from ..core.clock import Backoff, Clock, Deadline
from ..core.errors import AgentError, AnswerUnusable, NothingListed, TransientApiError, Unreachable
from ..core.jobs import Job
from ..core.settings import Target
from ..network.opsmanager import OpsManager

_EMPTY_POLLS = 3  # by the contract's 5.1

_UNUSABLE_ANSWERS = 5  # in a row; a page that is no API answer does not become one by waiting six hours


PATIENCE = 60.0

"""Seconds for which passing faults of the API are retried, by the contract's 5.7."""


class JobPoller:
    """Polls in a task of its own (`run`); everybody else reads `jobs` and awaits `news`.

    `readings` counts polls that brought an answer. `trouble` is the fault of the last poll if it failed in passing,
    `fatal` the error that ended polling.
    """

    def __init__(self, api: OpsManager, target: Target, clock: Clock, interval: float) -> None:
        self._api = api
        self._target = target
        self._clock = clock
        self._backoff = Backoff(interval)
        self._least_pause = interval / 50  # so that many who hurry do not become a storm
        self._urgent = asyncio.Event()
        self._news = asyncio.Condition()
        self._jobs: dict[str, Job] = {}
        self._listed: dict[str, tuple[int, int]] = {}  # by which poll, and which reading, a job was last listed
        self._empty = 0
        self._unusable = 0
        self._begun = 0
        self.successful_polls = 0
        self.read_begun = 0
        self.trouble: TransientApiError | None = None
        self._troubled_since: float | None = None
        self._asked_at: float | None = None  # when the poll that is under way began
        self.fatal: AgentError | None = None

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The latest reading of every job that was ever listed, by id."""
        return self._jobs

    def troubled_for(self) -> float:
        """Seconds since the API began to fail in passing; 0 while it answers."""
        return 0.0 if self._troubled_since is None else self._clock.monotonic() - self._troubled_since

    def silence(self, seconds: float) -> Unreachable | None:
        """The error that a poll stands for which has been without any answer for so long, else None."""
        if self._asked_at is None or (waited := self._clock.monotonic() - self._asked_at) < seconds:
            return None
        return Unreachable(f"Ops Manager has not answered for {waited:.0f} s")

    def poll_number(self) -> int:
        """A mark for `newer_than`: any poll that begins from now on is newer."""
        return self._begun

    def newer_than(self, mark: int, job_id: str | None = None) -> bool:
        """Whether the latest reading, or the latest that listed a job, began after the mark was taken."""
        return (self.read_begun if job_id is None else self._listed[job_id][0]) > mark

    def gone(self, job_id: str) -> bool:
        """Whether a job that was listed is missing from the last three readings."""
        return self.successful_polls - self._listed[job_id][1] >= _EMPTY_POLLS

    def poll_now(self) -> None:
        """Ask for the next poll now, and start the backoff over. Never sooner than a Retry-After allows."""
        self._urgent.set()

    async def notify(self) -> None:
        """Wake everybody in `news`, as if there were some."""
        async with self._news:
            self._news.notify_all()

    async def wait_for_poll(self) -> None:
        """Return after the next poll, good or bad."""
        async with self._news:
            await self._news.wait()

    async def run(self) -> None:
        """Poll until an error that asking again cannot mend; that one is kept in `fatal`."""
        while self.fatal is None:
            self._urgent.clear()
            self._begun += 1
            self._asked_at = self._clock.monotonic()
            await self._poll(self._begun)
            self._asked_at = None
            await self.notify()
            if self.fatal is None:
                await self._pause(self.trouble.retry_after if self.trouble else None)

    async def _poll(self, number: int) -> None:
        try:
            jobs = await self._api.jobs(self._target)
        except TransientApiError as error:
            self.trouble = error
            self._troubled_since = self._clock.monotonic() if self._troubled_since is None else self._troubled_since
            self._unusable = self._unusable + 1 if isinstance(error, AnswerUnusable) else 0
            if self._unusable >= _UNUSABLE_ANSWERS:
                self.fatal = error
        except AgentError as error:
            self.fatal = error
        else:
            self._take(jobs, number)

    def _take(self, jobs: list[Job], number: int) -> None:
        self.trouble, self._troubled_since, self._unusable = None, None, 0
        self.successful_polls += 1
        self.read_begun = number
        latest = {job.id: job for job in jobs}
        if any(self._jobs.get(job_id) != job for job_id, job in latest.items()):
            self._backoff.reset()
        self._jobs.update(latest)
        self._listed.update(dict.fromkeys(latest, (number, self.successful_polls)))
        self._empty = 0 if self._jobs else self._empty + 1
        if self._empty >= _EMPTY_POLLS:
            self.fatal = NothingListed(f"batch {self._target.batch_id} listed no restore job in {_EMPTY_POLLS} polls")

    async def _pause(self, at_least: float | None) -> None:
        pause = self._backoff.next(at_least)
        least = min(pause, at_least or self._least_pause)
        await self._clock.sleep(least)
        if pause > least and not self._urgent.is_set():
            timer = asyncio.ensure_future(self._clock.sleep(pause - least))
            waker = asyncio.ensure_future(self._urgent.wait())
            try:
                await asyncio.wait({timer, waker}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                waker.cancel()
        if self._urgent.is_set():
            self._backoff.reset()


async def first_reading(
    api: OpsManager, target: Target, clock: Clock, interval: float, *, empty_will_do: bool = False
) -> JobPoller:
    """A watch that has read the jobs once. Raises what ended polling, or the passing fault after a minute."""
    watch = JobPoller(api, target, clock, min(interval, PATIENCE / 8))
    deadline = Deadline(clock, PATIENCE)
    polling = asyncio.ensure_future(watch.run())
    try:
        while not watch.jobs and not (empty_will_do and watch.successful_polls):
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(polling), 0.02)
            if watch.fatal:
                raise watch.fatal
            if polling.done():
                polling.result()
            if deadline.passed():
                raise (
                    watch.trouble
                    or watch.silence(0.0)
                    or NothingListed(f"batch {target.batch_id} listed no restore job in a minute")
                )
        return watch
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
