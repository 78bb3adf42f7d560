"""`request`: choose a snapshot, then ask Ops Manager for its restore, with a single POST whatever the answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from ...core.clock import ServerClock
from ...core.errors import AnswerUnusable, CreationUnconfirmed, NotFound
from ...core.events import Notice
from ...core.jobs import Job
from ...core.settings import LATEST, Connection, RestoreOrder, Services, Target
from ...core.untrusted import printable
from ...network.documents import Snapshot
from ...network.opsmanager import OpsManager
from .asking import Asker
from .snapshots import latest, require_restorable

_SILENT_AFTER = 1.5  # seconds without an answer to the POST after which it is reported


@dataclass(frozen=True)
class Requested:
    """A restore that was requested; with a dry run, or before the answer, it has no jobs."""

    ops_manager: str | None = None
    snapshot: Snapshot | None = None
    jobs: tuple[Job, ...] = ()

    @property
    def batch_id(self) -> str | None:
        """The batch of all jobs; None for a replica set."""
        batches = {job.batch_id for job in self.jobs}
        return batches.pop() if len(batches) == 1 else None


class RestoreRequest:
    """One request for a restore. `state` is what is known so far, also after an error."""

    def __init__(self, connection: Connection, target: Target, order: RestoreOrder, services: Services) -> None:
        self._connection, self._target, self._order, self._services = connection, target, order, services
        self.state = Requested()

    async def make(self) -> Requested:
        """Choose the snapshot and, unless it is a dry run, send the request.

        Raises NoSnapshot, SnapshotNotRestorable, CreationUnconfirmed, or another AgentError of the API.
        """
        clock = ServerClock(self._services.clock)
        async with OpsManager(self._connection, clock, self._services.redactor) as api:
            self.state = replace(self.state, ops_manager=api.origin)
            self.state = replace(self.state, snapshot=await self._snapshot(api))
            if not self._order.dry_run:
                self.state = replace(self.state, jobs=tuple(await self._post(api)))
        return self.state

    async def _snapshot(self, api: OpsManager) -> Snapshot:
        asker, order, target = Asker(self._services), self._order, self._target
        if order.snapshot == LATEST:
            found = await asker.ask(lambda: api.snapshots(target))
            return latest(found, order.before.on(api.clock.now()) if order.before else None)
        snapshot = await asker.ask(lambda: _named(api, target, order.snapshot))
        require_restorable(snapshot, allow_inconsistent=order.allow_inconsistent)
        return snapshot

    async def _post(self, api: OpsManager) -> list[Job]:
        snapshot, order = self.state.snapshot, self._order
        assert snapshot is not None  # noqa: S101  # chosen before
        sending = asyncio.ensure_future(
            api.create_restore(
                self._target,
                snapshot.id,
                max_downloads=order.max_downloads,
                expiration_hours=order.expiration_hours,
            )
        )
        try:
            jobs = await self._awaited(sending)
        except asyncio.CancelledError:
            self._notice(
                "warning", "stopped before the answer: a restore may have been created", CreationUnconfirmed.hint
            )
            raise
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        if not jobs:
            raise CreationUnconfirmed("Ops Manager's answer names no restore job; a restore may have been created")
        return jobs

    async def _awaited(self, sending: asyncio.Future[list[Job]]) -> list[Job]:
        """Return the answer to the POST; report that it takes long."""
        await asyncio.wait({sending}, timeout=_SILENT_AFTER)
        if not sending.done():
            self._notice(
                "info", "Ops Manager has not answered yet", "The request is sent only once; waiting for its answer."
            )
        return await sending

    def _notice(self, level: str, *sentences: str) -> None:
        self._services.reporter.report(Notice(level, ". ".join(sentences)))


async def _named(api: OpsManager, target: Target, snapshot_id: str) -> Snapshot:
    """Return the snapshot of this ID. Raises AnswerUnusable if the answer is about another one."""
    try:
        found = await api.snapshot(target, snapshot_id)
    except NotFound as error:
        raise NotFound(error.message, hint="Check --snapshot, --group-id, and --cluster-id or --host-id.") from None
    if found.id != snapshot_id:
        text = f"the API's answer for snapshot {printable(snapshot_id, 60)} is about {printable(found.id, 60)}"
        raise AnswerUnusable(text)
    return found
