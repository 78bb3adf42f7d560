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
from ...options import CONNECTION, OUTPUT_OPTIONS, TARGET, Examples, common, options
from ...session import Session, execute, run_loop

_PROVEN = tuple(name for name in TARGET if name != "expect_jobs")

_VERIFY_EXAMPLES = """
restore-agent verify --dest /backup/restore                      # offline, by the receipt
restore-agent verify --config restore.toml --dest /backup/restore   # with hashes published since
"""


@click.command(cls=Examples, epilog=_VERIFY_EXAMPLES)
@options(*CONNECTION, *_PROVEN, "poll_interval", *OUTPUT_OPTIONS)
@common
def verify(**flags: Any) -> int:
    """Prove archives in DEST again, and promote those whose hash was published late."""
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
