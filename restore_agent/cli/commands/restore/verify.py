"""The command `verify`."""

from __future__ import annotations

from typing import Any

import click

from ....core.clock import SystemClock
from ....core.events import RunFinished
from ....core.receipt import Receipt, RestoreId
from ....core.settings import Services
from ....restore.verify import Verification, VerifySettings
from ...config import connection, dest
from ...help import Command
from ...options import CONNECTION, OUTPUT_OPTIONS, TARGET, common, options
from ...session import Session, execute, run_loop

_TARGET = tuple(name for name in TARGET if name != "expect_jobs")

_EXAMPLES = """
restore-agent verify --dest /backup/restore                      # offline, with the receipt
restore-agent verify --config restore.toml --dest /backup/restore   # with hashes published since
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@options(*CONNECTION, *_TARGET, "poll_interval", *OUTPUT_OPTIONS)
@common
def verify(**flags: Any) -> int:
    """Verify archives in DEST again, and promote those whose hash was published since.

    The archives are hashed again and compared with the receipt and, if --url is configured, with the hashes that Ops
    Manager has published since. It asks Ops Manager once and never requests a delivery URL.
    """
    return execute("verify", flags, _verify)


def _verify(session: Session) -> int:
    values = session.values
    by_job = values.either("batch_id", "job_id") == "job_id"
    asked = RestoreId(
        values.get("group_id"),
        values.get("cluster_id"),
        values.get("host_id"),
        values.get("batch_id"),
        tuple(values.get("job_id")) if by_job else (),
    )
    reach = connection(values) if values.get("url") else None
    interval, select = values.get("poll_interval"), tuple(values.get("select"))
    settings = VerifySettings(reach, asked, dest(values), interval, select)
    check = Verification(settings, Services(session.console, SystemClock(), session.redactor))
    receipt: Receipt = run_loop(check.run)
    session.console.report(RunFinished(receipt))
    return receipt.exit_code
