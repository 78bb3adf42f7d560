"""The command `jobs`."""

from __future__ import annotations

from typing import Any

import click

from ....core.clock import ServerClock, SystemClock
from ....core.jobs import Job
from ....core.settings import Services
from ....network.opsmanager import OpsManager
from ....restore.request.asking import Asker
from ....restore.request.jobs import listed, newest_first
from ....ui.text.lists import job_rows
from ...config import cluster
from ...help import Command
from ...options import CONNECTION, common, options
from ...session import Session, execute, run_loop
from ..results import Results

_EXAMPLES = """
restore-agent jobs --config restore.toml
restore-agent jobs --config restore.toml -o json | jq 'select(.delivery_status == "READY")'
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@options(*CONNECTION, "group_id", "cluster_id", "host_id", "output")
@common
def jobs(**flags: Any) -> int:
    """List the restore jobs of a cluster, newest first, whatever their batch.

    It never requests a delivery URL. It shows whether a request for a restore has created jobs.
    """
    return execute("jobs", flags, _jobs)


def _jobs(session: Session) -> int:
    reach, target = cluster(session.values)
    results, services = Results(session, target), Services(session.console, SystemClock(), session.redactor)
    clock = ServerClock(services.clock)

    async def ask() -> list[Job]:
        async with OpsManager(reach, clock, session.redactor) as api:
            results.ops_manager = api.origin
            return await Asker(services).ask(lambda: api.recent_jobs(target))

    found = [listed(job) for job in newest_first(run_loop(ask))]
    results.show(found, lambda width: job_rows(found, width, clock.now()))
    return results.finish()
