"""Whether another attempt may begin, and when."""

from __future__ import annotations

from ...core.clock import Backoff, Deadline
from ...core.errors import AttemptFailed
from ...core.jobs import Step, decide
from ..poller import PATIENCE
from .context import RunContext

_ANY_POLL = -1


class Retries:
    """The attempts of one restore job in this run.

    After a failed attempt the job is polled again, so that a delivery URL that was renewed is the one that is used, and
    so that Ops Manager can give the reason. `last` is the failure of the last attempt.
    """

    def __init__(self, job_id: str, context: RunContext) -> None:
        self._job_id = job_id
        self._context = context
        self._backoff = Backoff(min(1.0, context.limits.poll_interval))
        self._not_before = 0.0
        self._poll_wanted: int | None = _ANY_POLL  # None: to be asked for when the backoff is over
        self._last_poll: Deadline | None = None  # after the last attempt: until when its reason is waited for
        self.made = 0
        self.last: AttemptFailed | None = None
        self.failed_at = 0.0  # when `last` was noted, in seconds since the epoch

    def allowed(self) -> bool:
        """Return whether an attempt may begin now: READY by a poll that began after the last failure and its pause."""
        if self._last_poll or decide(self._context.poller.jobs[self._job_id]).step is not Step.DOWNLOAD:
            return False
        if self._context.clock.monotonic() < self._not_before:
            return False
        if self._poll_wanted is None:
            self._poll_wanted = self._context.poller.poll_number()
            self._context.poller.poll_now()
        return self._context.poller.newer_than(self._poll_wanted, self._job_id)

    def begin(self) -> None:
        """Count an attempt."""
        self.made += 1

    def take_back(self) -> None:
        """Do not count the last attempt after all: it was not needed."""
        self.made -= 1

    def failed(self, failure: AttemptFailed) -> float | None:
        """Note a failure; return the seconds until the next attempt, or None if there is none."""
        self.last, self.failed_at = failure, self._context.clock.wall()
        self._context.poller.poll_now()
        if self.made > self._context.limits.retries:
            self._poll_wanted = self._context.poller.poll_number()
            self._last_poll = Deadline(self._context.clock, PATIENCE)
            return None
        wait = self._pause(failure)
        self._not_before = self._context.clock.monotonic() + wait
        self._poll_wanted = None
        return wait

    def _pause(self, failure: AttemptFailed) -> float:
        """The backoff or the server's Retry-After, but early enough for another attempt before the delivery expires."""
        wait = self._backoff.next()
        if failure.retry_after is None or failure.retry_after <= wait:
            return wait
        expires = self._context.poller.jobs[self._job_id].expires
        if expires is None:
            return failure.retry_after
        half = max(0.0, expires - self._context.server_clock.now()) / 2
        return max(wait, min(failure.retry_after, half))

    @property
    def exhausted(self) -> bool:
        """Whether all attempts are made and Ops Manager, polled again or silent, gives no other reason."""
        if self._last_poll is None or self._poll_wanted is None:
            return False
        return self._context.poller.newer_than(self._poll_wanted, self._job_id) or self._last_poll.passed()

    def final_failure(self) -> AttemptFailed:
        """Return the last failure with the number of attempts in its message."""
        assert self.last is not None  # noqa: S101  # there is no end of attempts without one
        made = "1 attempt" if self.made == 1 else f"{self.made} attempts"
        return self.last.with_context(message=f"{self.last.message}; given up after {made}")
