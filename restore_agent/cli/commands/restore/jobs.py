"""The command `jobs`."""

from __future__ import annotations

from typing import Any

import click

from ....restore.request.jobs import listed, newest_first
from ....ui.text.lists import job_rows
from ...help import Command
from ...options import CONNECTION, common, options
from ...session import Session, execute
from ..listing import show_list

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
    return show_list(
        session,
        lambda api, target: api.recent_jobs(target),
        lambda found: [listed(job) for job in newest_first(found)],
        job_rows,
    )
