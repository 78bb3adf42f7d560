"""The command `plan`."""

from __future__ import annotations

from typing import Any

import click

from ....core.clock import SystemClock
from ....core.events import RunFinished
from ....core.settings import RunSettings, Services
from ....restore.plan import Plan
from ...config import connection, dest, limits, target
from ...options import CONNECTION, LIMITS, METRICS_OPTIONS, OUTPUT_OPTIONS, TARGET, Examples, common, options
from ...session import Session, execute, run_loop

_PLAN_EXAMPLES = """
restore-agent plan --config restore.toml --batch-id BATCH
"""


@click.command(cls=Examples, epilog=_PLAN_EXAMPLES)
@options(
    *CONNECTION, *TARGET, *LIMITS, *METRICS_OPTIONS, *OUTPUT_OPTIONS
)  # those of `run`, so that one call serves both
@common
def plan(**flags: Any) -> int:
    """Show what `run` would do and whether it could; writes nothing, touches no delivery URL."""
    return execute("plan", flags, _plan)


def _plan(session: Session) -> int:

    values = session.values
    settings = RunSettings(connection(values), target(values), limits(values), dest(values))
    planning = Plan(settings, Services(session.console, SystemClock(), session.redactor))
    session.summary = planning.summary
    receipt, rows = run_loop(planning.make)
    session.console.report(RunFinished(receipt, tuple(row.fields() for row in rows)))
    return int(receipt.exit_code)
