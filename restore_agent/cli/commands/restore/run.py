"""The command `run`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ....core.clock import SystemClock
from ....core.errors import UsageError
from ....core.events import Display, DisplayGroup, Notice
from ....core.settings import RunSettings, Services
from ....restore.run import Run
from ....ui.systemd import status_line
from ...config import connection, dest, limits, target
from ...options import CONNECTION, LIMITS, METRICS_OPTIONS, OUTPUT_OPTIONS, TARGET, Examples, common, options
from ...session import Session, execute, run_agent

_RUN_EXAMPLES = """
restore-agent run --url https://opsmanager.example.net:8443 --public-key KEY \\
    --private-key-file /etc/restore-agent/key --group-id GROUP --cluster-id CLUSTER \\
    --batch-id BATCH --dest /backup/restore
restore-agent run --config restore.toml --batch-id BATCH --select '*shard0*' -o json
"""


@click.command(cls=Examples, epilog=_RUN_EXAMPLES)
@options(*CONNECTION, *TARGET, *LIMITS, *METRICS_OPTIONS, *OUTPUT_OPTIONS)
@common
def run(**flags: Any) -> int:
    """Wait for the jobs, download, verify, write the receipt."""
    return execute("run", flags, _run)


def _run(session: Session) -> int:
    values = session.values
    session.console = _displays(session)
    settings = RunSettings(connection(values), target(values), limits(values), dest(values))
    services = Services(session.console, SystemClock(), session.redactor)
    return run_agent(Run(settings, services), session)


def _displays(session: Session) -> Display:
    """Return the console together with the other receivers of events: the service manager, the metrics file."""
    console = session.console
    others: list[Display] = []
    if (line := status_line(os.environ, session.redactor)) is not None:
        others.append(line)
    if (path := session.values.get("metrics_file")) is not None:
        others.append(_metrics(session, path, console))
    return DisplayGroup(*others, console)


def _metrics(session: Session, path: Path, console: Display) -> Display:
    """Return the writer of the metrics file. Raises UsageError if prometheus-client is not installed."""
    try:
        from ....ui.prometheus import MetricsFile  # an optional library
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        hint = "Install it (pip install 'restore-agent[metrics]'), use restore-agent.pyz, or leave --metrics-file out."
        raise UsageError("--metrics-file needs prometheus-client, which is not installed", hint=hint) from None
    batch_id = session.values.get("batch_id")
    return MetricsFile(path, batch_id, lambda text: console.report(Notice("warning", text)), session.redactor)
