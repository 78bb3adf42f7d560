"""The command `run`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ....core.clock import SystemClock
from ....core.errors import UsageError
from ....core.events import Display, DisplayGroup, Notice
from ....core.settings import Services
from ....restore.run import Run
from ....ui.systemd import status_line
from ...config import run_settings
from ...help import Command
from ...options import RUN_OPTIONS, common, options
from ...session import Session, execute, run_agent

_EXAMPLES = """
restore-agent run --url https://opsmanager.example.net:8443 --public-key KEY \\
    --private-key-file /etc/restore-agent/key --group-id GROUP --cluster-id CLUSTER \\
    --batch-id BATCH --dest /backup/restore
restore-agent run --config restore.toml --batch-id BATCH --select 'electron_0-*' -o json
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@options(*RUN_OPTIONS)
@common
def run(**flags: Any) -> int:
    """Wait for restore jobs, download each archive, verify it, and write the receipt.

    Required: --url, --public-key, a private key, --group-id, --cluster-id (or --host-id), --batch-id (or --job-id),
    and --dest. Options can also be set by environment variables or in the configuration file. Running the command
    again is safe after any end: it keeps the files on disk and resumes.
    """
    return execute("run", flags, _run)


def _run(session: Session) -> int:
    session.console = _displays(session)
    services = Services(session.console, SystemClock(), session.redactor)
    return run_agent(Run(run_settings(session.values), services), session)


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
        from ....ui.prometheus import MetricsFile  # prometheus_client is an optional library
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        hint = "Run `pip install prometheus-client` with the Python of restore-agent, or leave out --metrics-file."
        raise UsageError("--metrics-file needs prometheus-client, which is not installed", hint=hint) from None
    batch_id = session.values.get("batch_id")
    return MetricsFile(path, batch_id, lambda text: console.report(Notice("warning", text)), session.redactor)
