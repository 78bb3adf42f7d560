"""`run`, `plan`, `verify` and `status`.

Heavy modules are imported inside the commands that need them, so that help answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from .errors import RecordUnreadable, UsageError
from .options import Examples, common, options
from .session import Session, execute, run_agent, run_loop
from .settings import CONNECTION, PACE, SHOWN, TARGET, TOLD, connection, dest, pace, target

if TYPE_CHECKING:
    from .events import Display
    from .metrics import MetricsFile
    from .receipt import Receipt

_RUN_EXAMPLES = """
restore-agent run --url https://opsmanager.example.net:8443 --public-key KEY \\
    --private-key-file /etc/restore-agent/key --group-id GROUP --cluster-id CLUSTER \\
    --batch-id BATCH --dest /backup/restore
restore-agent run --config restore.toml --batch-id BATCH --select '*shard0*' -o json
"""


@click.command(cls=Examples, epilog=_RUN_EXAMPLES)
@options(*CONNECTION, *TARGET, *PACE, *TOLD, *SHOWN)
@common
def run(**flags: Any) -> int:
    """Wait for the jobs, download, verify, write the receipt."""
    return execute("run", flags, _run)


def _run(session: Session) -> int:
    from .agent import Agent
    from .pacing import SystemClock

    values = session.values
    session.console = _told_elsewhere(session)
    agent = Agent(
        connection(values), target(values), pace(values), dest(values), session.console, SystemClock(), session.redactor
    )
    return run_agent(agent, session)


def _told_elsewhere(session: Session) -> Display:
    """The console, and before it those who are told the same: the service manager, the metrics file."""
    from .events import Notice, Several
    from .notify import status_line

    console = session.console
    others: list[Display] = []
    if (line := status_line(os.environ, session.redactor)) is not None:
        others.append(line)
    if (path := session.values.get("metrics_file")) is not None:
        batch_id = session.values.get("batch_id")
        others.append(
            _metrics()(path, batch_id, lambda text: console.report(Notice("warning", text)), session.redactor)
        )
    return Several(*others, console)


def _metrics() -> type[MetricsFile]:
    try:
        from .metrics import MetricsFile
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        hint = "Install it (pip install 'restore-agent[metrics]'), use restore-agent.pyz, or leave --metrics-file out."
        raise UsageError("--metrics-file needs prometheus-client, which is not installed", hint=hint) from None
    return MetricsFile


# ---------------------------------------------------------------- plan


_PLAN_EXAMPLES = """
restore-agent plan --config restore.toml --batch-id BATCH
"""


@click.command(cls=Examples, epilog=_PLAN_EXAMPLES)
@options(*CONNECTION, *TARGET, *PACE, *TOLD, *SHOWN)  # those of `run`, so that one call serves both
@common
def plan(**flags: Any) -> int:
    """Show what `run` would do and whether it could; writes nothing, touches no delivery URL."""
    return execute("plan", flags, _plan)


def _plan(session: Session) -> int:
    from .events import Finished
    from .pacing import SystemClock
    from .plan import Plan

    values = session.values
    planning = Plan(
        connection(values), target(values), pace(values), dest(values), session.console, SystemClock(), session.redactor
    )
    session.summary = lambda error: planning.summary(error.exit_code)
    receipt, rows = run_loop(planning.make)
    session.console.report(Finished(receipt, tuple(row.fields() for row in rows)))
    return int(receipt.exit_code)


# ---------------------------------------------------------------- verify


_PROVEN = tuple(name for name in TARGET if name != "expect_jobs")
_VERIFY_EXAMPLES = """
restore-agent verify --dest /backup/restore                      # offline, by the receipt
restore-agent verify --config restore.toml --dest /backup/restore   # with hashes published since
"""


@click.command(cls=Examples, epilog=_VERIFY_EXAMPLES)
@options(*CONNECTION, *_PROVEN, "poll_interval", *SHOWN)
@common
def verify(**flags: Any) -> int:
    """Prove archives in DEST again, and promote those whose hash was published late."""
    return execute("verify", flags, _verify)


def _verify(session: Session) -> int:
    from .events import Finished
    from .pacing import SystemClock
    from .verify import Verification

    values = session.values
    given = {name: values.get(name) for name in ("group_id", "cluster_id", "host_id", "batch_id")}
    reach = connection(values) if values.get("url") else None
    interval = values.get("poll_interval")
    check = Verification(
        reach,
        given,
        dest(values),
        interval,
        session.console,
        SystemClock(),
        session.redactor,
        values.get("job_id") if values.either("batch_id", "job_id") == "job_id" else (),
        values.get("select"),
    )
    receipt: Receipt = run_loop(check.run)
    session.console.report(Finished(receipt))
    return receipt.exit_code


# ---------------------------------------------------------------- status


_STATUS_EXAMPLES = """
restore-agent status --dest /backup/restore
watch -n 5 restore-agent status --dest /backup/restore
"""


@click.command(cls=Examples, epilog=_STATUS_EXAMPLES)
@options("dest", "output")
@common
def status(**flags: Any) -> int:
    """Show what a run in DEST is doing or did."""
    return execute("status", flags, _status)


def _status(session: Session) -> int:
    import json

    from .console import say, status_rows
    from .files import Directory
    from .journal import STATE_DIRECTORY, read_status

    path = dest(session.values)
    with Directory.open(path, create=False) as where:
        state = where.subdirectory(STATE_DIRECTORY, create=False)
        if state is None:
            raise RecordUnreadable(f"no run was ever in {path}", hint="Check --dest.")
        with state:
            document = read_status(state)
    if document is None:
        raise RecordUnreadable(f"the run in {path} has left no status yet", hint="Try again in a few seconds.")
    if session.values.get("output") == "json":
        say(session.redactor.clean(json.dumps(document)), sys.stdout)
    else:
        say("\n".join(status_rows(document)), sys.stdout)
    return 0
