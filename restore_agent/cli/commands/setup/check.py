"""The command `check`."""

from __future__ import annotations

from typing import Any

import click

from ....core.clock import SystemClock
from ....core.events import CheckDone
from ....core.settings import Services
from ....restore.request.check import Check
from ....ui.text.lists import check_rows
from ...config import connection, place
from ...help import Command
from ...options import CONNECTION, common, options
from ...session import Session, execute, run_loop
from ..results import Results

_EXAMPLES = """
restore-agent check --config restore.toml
restore-agent check --url https://opsmanager.example.net:8443 --public-key KEY \\
    --private-key-file KEYFILE
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@options(*CONNECTION, "group_id", "cluster_id", "host_id", "output")
@common
def check(**flags: Any) -> int:
    """Check whether the address, TLS, key, project, and cluster of Ops Manager are good.

    Each check is one line; the exit code is that of the first one that fails. Project and cluster are checked if they
    are given; with a project alone, the IDs of its clusters are shown. It also shows the trust store, the proxy, the
    version of the server, and the difference of its clock.
    """
    return execute("check", flags, _check)


def _check(session: Session) -> int:
    reach, target = connection(session.values), place(session.values)
    results, services = Results(session, target), Services(session.console, SystemClock(), session.redactor)

    def show(done: CheckDone) -> None:
        results.ops_manager = checking.ops_manager
        results.show([done], lambda width: check_rows(done, width))

    checking = Check(reach, target, services, show)
    run_loop(checking.run)
    return results.finish()
