"""Requests to Ops Manager outside of a run: repeated for a minute while their errors may pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ...core.clock import Backoff, Deadline
from ...core.errors import AgentError, AnswerUnusable, TransientApiError, Unreachable
from ...core.settings import Services
from ..poller import PATIENCE
from ..progress import TroubleReport

_FIRST_PAUSE = 0.5  # seconds; doubles up to eight times it

_CHECK_EVERY = 0.1  # seconds between two checks of a request in progress

_UNUSABLE_ANSWERS = 5  # a page that is not an API answer does not become one within the minute

T = TypeVar("T")


class Asker:
    """Sends GET requests one after the other. `trouble` is the last error while a request is being repeated."""

    def __init__(self, services: Services) -> None:
        self._clock = services.clock
        self._report = TroubleReport(self, services.reporter, services.clock)
        self._asked_at: float | None = None
        self._due: float | None = None
        self.trouble: AgentError | None = None

    def silence(self, seconds: float) -> Unreachable | None:
        """Return the error of a request that has had no answer for so long, else None."""
        waited = 0.0 if self._asked_at is None else self._clock.monotonic() - self._asked_at
        if self._asked_at is None or waited < seconds:
            return None
        return Unreachable(f"Ops Manager has not answered for {waited:.0f} s")

    def next_poll_in(self) -> float | None:
        """Return the seconds until the request is repeated, or None while it is in progress."""
        return None if self._due is None else max(0.0, self._due - self._clock.monotonic())

    async def ask(self, request: Callable[[], Awaitable[T]], deadline: Deadline | None = None) -> T:
        """Return the answer to a GET. Raises a permanent error at once, the last transient one after a minute."""
        deadline, backoff, unusable = deadline or Deadline(self._clock, PATIENCE), Backoff(_FIRST_PAUSE), 0
        while True:
            try:
                answer = await self._answer(request, deadline)
            except TransientApiError as error:
                unusable = unusable + 1 if isinstance(error, AnswerUnusable) else 0
                left = deadline.remaining()
                if left <= (error.retry_after or 0.0) or unusable >= _UNUSABLE_ANSWERS:
                    raise
                await self._pause(error, min(left, backoff.next(error.retry_after)), deadline)
            else:
                self.trouble = None
                self._report.update(deadline)
                return answer

    async def _answer(self, request: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        """Return the answer to one request; report its silence, and end it at the deadline."""
        self._asked_at, self._due = self._clock.monotonic(), None
        asking = asyncio.ensure_future(request())
        try:
            while not asking.done():
                await asyncio.wait({asking}, timeout=_CHECK_EVERY)
                self._report.update(deadline)
                if deadline.passed() and not asking.done():
                    raise self.trouble or self.silence(0.0) or Unreachable("Ops Manager has not answered in a minute")
            return asking.result()
        finally:
            self._asked_at = None
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _pause(self, error: AgentError, pause: float, deadline: Deadline) -> None:
        self.trouble, self._due = error, self._clock.monotonic() + pause
        self._report.update(deadline)
        await self._clock.sleep(pause)
