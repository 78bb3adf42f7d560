"""The command `snapshots`."""

from __future__ import annotations

from typing import Any

import click

from ....core.clock import ServerClock, SystemClock
from ....core.settings import Services
from ....network.documents import Snapshot
from ....network.opsmanager import OpsManager
from ....restore.request.asking import Asker
from ....restore.request.snapshots import listed, newest_first
from ....ui.text.lists import snapshot_rows
from ...config import cluster
from ...help import Command
from ...options import CONNECTION, common, options
from ...session import Session, execute, run_loop
from ..results import Results

_EXAMPLES = """
restore-agent snapshots --config restore.toml
restore-agent snapshots --config restore.toml -o json | jq 'select(.restorable)'
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@options(*CONNECTION, "group_id", "cluster_id", "host_id", "output")
@common
def snapshots(**flags: Any) -> int:
    """List the snapshots of a cluster, newest first, and which of them can be restored.

    A snapshot can be restored if it is complete, is not possibly inconsistent, and misses no shard. Its size is that
    of the uncompressed files.
    """
    return execute("snapshots", flags, _snapshots)


def _snapshots(session: Session) -> int:
    reach, target = cluster(session.values)
    results, services = Results(session, target), Services(session.console, SystemClock(), session.redactor)
    clock = ServerClock(services.clock)

    async def ask() -> list[Snapshot]:
        async with OpsManager(reach, clock, session.redactor) as api:
            results.ops_manager = api.origin
            return await Asker(services).ask(lambda: api.snapshots(target))

    found = [listed(snapshot) for snapshot in newest_first(run_loop(ask))]
    results.show(found, lambda width: snapshot_rows(found, width, clock.now()))
    return results.finish()
