"""The command `snapshots`."""

from __future__ import annotations

from typing import Any

import click

from ....restore.request.snapshots import listed, newest_first
from ....ui.text.lists import snapshot_rows
from ...help import Command
from ...options import CONNECTION, common, options
from ...session import Session, execute
from ..listing import show_list

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
    return show_list(
        session,
        lambda api, target: api.snapshots(target),
        lambda found: [listed(snapshot) for snapshot in newest_first(found)],
        snapshot_rows,
    )
