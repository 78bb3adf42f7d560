"""When a batch is complete, when waiting ends, and what is wrong with the batch as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..core.clock import Deadline
from ..core.errors import AgentError, FewerJobs, NotFound, NothingDelivered, NothingSelected, NotReady
from ..core.events import Notice, RunFailed
from ..core.jobs import Job, Step, decide
from ..core.receipt import Verdict
from ..core.settings import Target
from .job.context import RunContext
from .job.job import JobRestore
from .job.state import Phase
from .poller import PATIENCE
from .selection import JobSelection

_POLLS_TO_SELECT = 3

_SILENCE = 15.0  # seconds without an answer to a poll that count as an error once the time of the phase is over


class Completion:
    """The rules of the end. `error` is what is wrong with the batch besides its archives.

    `wait` is the deadline of --wait-timeout. --hash-timeout starts when no download is active and none can follow.
    """

    def __init__(
        self, context: RunContext, target: Target, selection: JobSelection, restores: Mapping[str, JobRestore]
    ) -> None:
        self._context, self._target, self._selection, self._restores = context, target, selection, restores
        self._poller = context.poller
        self.wait = Deadline(context.clock, context.limits.wait_timeout)
        self._hash_deadline: Deadline | None = None
        self._final_poll: int | None = None
        self._left_out: set[str] = set()
        self.error: AgentError | None = None

    def phase_deadline(self) -> Deadline:
        """Return the deadline of what is waited for now: hashes, or READY."""
        return self._hash_deadline or self.wait

    async def keep_hash_time(self) -> None:
        """Start, reset, or end --hash-timeout. When it is over, one more poll must succeed before it counts."""
        context, restores = self._context, self._restores.values()
        awaited = len(self._poller.jobs) < (self._target.expect_jobs or 0) and not self.wait.passed()
        if awaited or not restores or any(restore.state.may_still_download for restore in restores):
            self._hash_deadline = self._final_poll = None
            context.hash_time_over.clear()
        elif self._hash_deadline is None:
            self._hash_deadline = Deadline(context.clock, context.limits.hash_timeout)
        elif self._hash_deadline.passed() and self._final_poll is None:
            self._final_poll = self._poller.poll_number()
            self._poller.poll_now()
        elif (
            self._final_poll is not None
            and self._poller.newer_than(self._final_poll)
            and not context.hash_time_over.is_set()
        ):
            context.hash_time_over.set()
            await self._poller.notify()

    def judge(self, restore: JobRestore) -> bool:
        """Finish a waiting job that Ops Manager gave up, or that is not READY in time; return False to drop it."""
        job = restore.state.job
        decision = decide(job)
        if self.wait.passed() and self._may_only_be_selected(restore):
            return False
        if decision.step in (Step.FAIL, Step.SKIP):
            restore.refuse(decision)
        elif restore.retries.exhausted:
            restore.fail(restore.retries.final_failure())
        elif self.wait.passed() and not self._poller.trouble:
            self._fail_not_ready(restore)
        return True

    def _fail_not_ready(self, restore: JobRestore) -> None:
        job = restore.state.job
        decision = decide(job)
        if self._poller.gone(job.id):
            restore.fail(NotFound("Ops Manager does not list the restore job any more"))
        elif decision.step is Step.WAIT:
            statuses = f"job {job.status or 'unknown'}, delivery {job.delivery_status or 'none'}"
            odd = f"; its document is odd: {job.oddities[0]}" if job.oddities else ""
            restore.fail(NotReady(f"not READY within --wait-timeout ({statuses}, {decision.reason}){odd}"))

    def _may_only_be_selected(self, restore: JobRestore) -> bool:
        """Whether --select may mean a job by a name that never became known, while it certainly means others."""
        job = restore.state.job
        if self._selection.selected(job) is not None:
            return False
        if not any(self._selection.selected(other.state.job) for other in self._restores.values()):
            return False
        if job.id not in self._left_out:  # each poll admits it again, in case its name becomes known
            self._left_out.add(job.id)
            text = f"job {job.id} is skipped: it has no delivery URL yet, so --select cannot match its archive name"
            self._context.reporter.report(Notice("warning", text, job.id))
        return True

    def is_complete(self) -> bool:
        """Return whether every selected job is finished, and there are as many as expected. Sets `error`."""
        if not self._poller.successful_polls or not all(one.state.is_finished for one in self._restores.values()):
            return False
        listed, expected = len(self._poller.jobs), self._target.expect_jobs or 0
        if not listed or (listed < expected and not self.wait.passed()):
            return False
        if listed >= expected and not self._restores and self._poller.successful_polls < _POLLS_TO_SELECT:
            return False  # the batch may still be growing
        self.error = self._batch_error(listed, expected)
        if self.error:
            self._context.reporter.report(RunFailed(self.error.fields()))
        return True

    def _batch_error(self, listed: int, expected: int) -> AgentError | None:
        records = [restore.state.record for restore in self._restores.values()]
        if listed < expected:
            return FewerJobs(f"the batch lists {listed} jobs, --expect-jobs asks for {expected}")
        if not records:
            return nothing_selected(self._selection, self._poller.jobs.values())
        if all(record and record.verdict is Verdict.SKIPPED for record in records):
            return NothingDelivered(
                "every selected job is an automated restore, which MongoDB Agents perform; there is nothing to download"
            )
        return next(iter(self._poller.unknown), None)

    def raise_trouble(self) -> None:
        """Raise the error of an API that is lost; never during a download, or if the API is not needed any more."""
        if any(restore.state.phase is Phase.DOWNLOADING for restore in self._restores.values()):
            return
        if self._only_unpacking_is_left():
            return
        if self._poller.fatal:
            raise self._poller.fatal
        trouble = self._poller.trouble or self._poller.silence(_SILENCE)
        if trouble and self.phase_deadline().passed() and not self._patient():
            raise trouble

    def _only_unpacking_is_left(self) -> bool:
        """Whether nothing depends on Ops Manager any more."""
        listed = len(self._poller.jobs) >= (self._target.expect_jobs or 1)
        left = {restore.state.phase for restore in self._restores.values()} - {Phase.FINISHED}
        return bool(listed and self._restores and left <= {Phase.UNPACKING})

    def _patient(self) -> bool:
        """Whether a job between two attempts is worth a minute, although the time to wait for READY is over."""
        waiting = [one for one in self._restores.values() if one.state.phase is Phase.WAITING]
        retrying = any(restore.retries.made for restore in waiting)
        return retrying and self._poller.troubled_for() < PATIENCE


def nothing_selected(selection: JobSelection, jobs: Iterable[Job]) -> NothingSelected:
    """Return the error of a --select that matches no job, with the names that exist."""
    names = sorted(selection.name(job) or job.id for job in jobs)
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return NothingSelected(f"none of the {len(names)} jobs matches --select; there are {shown}")
