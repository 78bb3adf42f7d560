"""The command `request`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ....core.clock import SystemClock, rfc3339_seconds
from ....core.errors import OutputUnwritable
from ....core.events import Notice
from ....core.settings import RestoreOrder, Services
from ....restore.request.jobs import listed
from ....restore.request.ordering import Requested, RestoreRequest
from ....ui.text.lists import requested_rows
from ...config import cluster, order
from ...help import Command
from ...options import CONNECTION, REQUEST, common, options
from ...session import Session, execute, run_loop
from ..next_command import run_command
from ..results import Results

_EXAMPLES = """
restore-agent request --config restore.toml --snapshot latest
restore-agent request --config restore.toml --snapshot latest --before 6h --dry-run
restore-agent request --config restore.toml --snapshot SNAPSHOT --max-downloads 5 --expires-in 1d
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@options(*CONNECTION, "group_id", "cluster_id", "host_id", *REQUEST, "output")
@common
def request(**flags: Any) -> int:
    """Request the restore of one snapshot from Ops Manager, and print the `run` command that follows.

    Required: the options of the connection, --group-id, --cluster-id (or --host-id), and --snapshot. The key must be
    allowed to create restores. The request is sent only once. If its answer is lost, the exit code is 32, and a
    restore may have been created: check with `restore-agent jobs`.
    """
    return execute("request", flags, _request)


def _request(session: Session) -> int:
    reach, target = cluster(session.values, "snapshot")
    wanted = order(session.values)
    results, services = Results(session, target), Services(session.console, SystemClock(), session.redactor)
    asking = RestoreRequest(reach, target, wanted, services)
    session.more = lambda: _fields(asking.state)
    try:
        done: Requested = run_loop(asking.make)
    finally:
        results.ops_manager = asking.state.ops_manager
    try:
        results.show((), lambda width: _lines(session, wanted, done, width))
    except OutputUnwritable:
        if done.jobs:  # the only record of what was created
            created = done.batch_id or ", ".join(job.id for job in done.jobs)
            session.console.report(Notice("warning", f"the restore was requested: {created}"))
        raise
    return results.finish(_fields(done), changed=bool(done.jobs))


def _fields(state: Requested) -> Mapping[str, Any]:
    """Return the fields of the result that only this command has."""
    snapshot = state.snapshot
    jobs = [{"job_id": job.id, "cluster_id": job.cluster_id, "status": job.status} for job in state.jobs]
    created = rfc3339_seconds(snapshot.created) if snapshot and snapshot.created else None
    return {
        "snapshot_id": snapshot.id if snapshot else None,
        "snapshot_timestamp": created,
        "batch_id": state.batch_id,
        "jobs": jobs,
    }


def _lines(session: Session, wanted: RestoreOrder, done: Requested, width: int) -> list[str]:
    """Return what was asked for and, unless it was a dry run, the jobs and the command that follows."""
    fields = _fields(done)
    of = f" of {fields['snapshot_timestamp']}" if fields["snapshot_timestamp"] else ""
    downloads = "1 download" if wanted.max_downloads == 1 else f"{wanted.max_downloads} downloads"
    terms = f"{downloads} of each archive, within {wanted.expiration_hours} h"
    if wanted.dry_run:
        return [f"Would request snapshot {fields['snapshot_id']}{of}:", f"{terms}. Nothing was requested."]
    batch = f", batch {done.batch_id}" if done.batch_id else ""
    count = "1 restore job" if len(done.jobs) == 1 else f"{len(done.jobs)} restore jobs"
    return [
        f"Requested snapshot {fields['snapshot_id']}{of}:",
        f"{terms}.",
        f"{count}{batch}:",
        "",
        *requested_rows([listed(job) for job in done.jobs], width),
        "",
        "Next, with a --dest of your choice:",
        run_command(session.values, done.batch_id, [job.id for job in done.jobs]),
    ]
