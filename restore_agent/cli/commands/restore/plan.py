"""The command `plan`."""

from __future__ import annotations

from typing import Any

import click

from ....core.clock import SystemClock
from ....core.events import RunFinished
from ....core.settings import Services
from ....restore.plan import Plan
from ...config import run_settings
from ...help import Command
from ...options import RUN_OPTIONS, common, options
from ...session import Session, execute, run_loop

_EXAMPLES = """
restore-agent plan --config restore.toml --batch-id BATCH
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@options(*RUN_OPTIONS)  # those of `run`, so that the same options serve both
@common
def plan(**flags: Any) -> int:
    """Do a dry run: show what `run` would do, and report problems.

    It checks access, jobs, expiry, space, and permissions. It writes nothing and never requests a delivery URL. It
    takes the options of `run` and ends with the exit code that `run` would meet, or 0 if there is no problem.
    """
    return execute("plan", flags, _plan)


def _plan(session: Session) -> int:
    planning = Plan(run_settings(session.values), Services(session.console, SystemClock(), session.redactor))
    session.summary = planning.summary
    receipt, rows = run_loop(planning.make)
    session.console.report(RunFinished(receipt, tuple(row.fields() for row in rows)))
    return int(receipt.exit_code)
