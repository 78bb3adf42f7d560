"""The command `rehearse`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ....core.clock import SystemClock
from ....core.errors import AgentError, UsageError
from ....core.events import Notice, RunFinished
from ....core.names import RECEIPT
from ....core.receipt import Receipt
from ....core.redaction import Secret
from ....core.settings import (
    LATEST,
    Before,
    Connection,
    RestoreOrder,
    RunLimits,
    RunSettings,
    Services,
    Target,
    UnpackSettings,
)
from ....restore.request.ordering import Requested, RestoreRequest
from ....restore.run import Run
from ....simulator import Simulator
from ....ui.report import BatchReport, as_text, judge, receipt_file
from ...config import unpack
from ...help import Command
from ...options import OUTPUT_OPTIONS, common, options, own_option
from ...parsers import size
from ...session import Session, execute, run_loop
from ..restore.report import html_page, write_report
from .simulator import SHARD_COUNT, archive_size_option, complete_fault, parsed_value, shards_option

_LIMITS = RunLimits(wait_timeout=30, hash_timeout=10, poll_interval=0.5, stall_timeout=5)

_EXAMPLES = """
restore-agent rehearse
restore-agent rehearse --shards 3 --archive-size 256M --fault 'cut=60%' --fault max-downloads=3
restore-agent simulator --list-faults
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@own_option(
    "--dest",
    group="dest",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Directory for the archives. [default: a new directory in the temporary directory]",
)
@shards_option
@archive_size_option
@click.option(
    "--fault",
    "faults",
    metavar="NAME[=VALUE]",
    multiple=True,
    shell_complete=complete_fault,
    help="Inject a fault into the simulated server; repeatable. [default: none]",
)
@options("unpack", "parallel", *OUTPUT_OPTIONS)
@common
def rehearse(dest: str | None, shards: str, archive_size: str, faults: tuple[str, ...], **flags: Any) -> int:
    """Practice a whole restore against a simulated Ops Manager: snapshot, request, run, unpack, report.

    It runs the real agent over real sockets, with the faults that you choose, and exits as `run` does. Without --dest,
    it also unpacks the archives, into the new directory. The report is DEST/report.html or, without Jinja2,
    DEST/report.txt.
    """
    return execute("rehearse", flags, lambda session: _rehearse(session, dest, shards, archive_size, faults))


def _rehearse(session: Session, where: str | None, shards: str, archive_size: str, faults: tuple[str, ...]) -> int:
    parallel, unpacking = session.values.get("parallel"), unpack(session.values)
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"  # the practice run does not leave this host
    with _simulator(shards, archive_size, faults, tls=True) as simulated:
        path = Path(os.path.abspath(where)) if where else Path(tempfile.mkdtemp(prefix="restore-agent-rehearsal-"))
        if not where:
            text = f"practice files are written to {path}; this directory can be removed afterwards"
            session.console.report(Notice("info", text))
        unpacking = unpacking or (None if where else UnpackSettings(path / "data"))
        reach = _connection(simulated.hello)
        target = _requested(session, reach, simulated)
        settings = RunSettings(reach, target, replace(_LIMITS, parallel=parallel), path, unpacking)
        return _run(session, Run(settings, _services(session)), path)


def _connection(hello: Mapping[str, Any]) -> Connection:
    """Return how to reach the simulator that printed `hello`."""
    return Connection(hello["url"], hello["public_key"], Secret(hello["private_key"]), Path(hello["ca_file"]))


def _requested(session: Session, reach: Connection, simulated: Simulator) -> Target:
    """Request the restore of the latest snapshot, and return its jobs."""
    place = Target(simulated.hello["group_id"], simulated.hello["cluster_id"])
    model = simulated.manager
    # a snapshot whose archives are the same each time, so that a practice run can be continued
    before = None if model.faults.snapshots is not None else Before(moment=model.snapshots.first.time)
    order = RestoreOrder(LATEST, before, max_downloads=model.faults.max_downloads)
    done: Requested = run_loop(RestoreRequest(reach, place, order, _services(session)).make)
    with simulated.lock:
        for job in simulated.jobs:
            job.archive()  # made now: during the run, the server would not answer meanwhile
    snapshot = done.snapshot.id if done.snapshot else None
    of = f", batch {done.batch_id}" if done.batch_id else ""
    text = f"requested the restore of snapshot {snapshot}: {len(done.jobs)} restore jobs{of}"
    session.console.report(Notice("info", text))
    job_ids = () if done.batch_id else tuple(job.id for job in done.jobs)
    return replace(place, batch_id=done.batch_id, job_ids=job_ids)


def _run(session: Session, agent: Run, path: Path) -> int:
    """Run the agent to its end, write the report, and show where receipt and report are."""
    session.summary = agent.summary
    receipt: Receipt = run_loop(agent.run, agent.stop)
    files = {"receipt": str(path / RECEIPT), "report": _reported(session, path)}
    session.console.report(RunFinished(receipt, more=files))
    return receipt.exit_code


def _reported(session: Session, path: Path) -> str | None:
    """Write the report of a finished run, as text without Jinja2; return its path, or None and say why."""
    try:
        found = judge([receipt_file(str(path / RECEIPT), (path / RECEIPT).read_bytes())])
        page, text = _page(found, path)
        write_report(text, page, session)
    except (AgentError, OSError) as error:
        reason = error.message if isinstance(error, AgentError) else error.strerror
        session.console.report(Notice("warning", f"no report was written: {reason}"))
        return None
    return str(page)


def _page(found: BatchReport, path: Path) -> tuple[Path, str]:
    """Return the file and the text of a report: HTML or, without Jinja2, text."""
    try:
        return path / "report.html", html_page(found)
    except UsageError:
        return path / "report.txt", as_text(found)


def _services(session: Session) -> Services:
    return Services(session.console, SystemClock(), session.redactor)


def _simulator(shards: str, archive_size: str, faults: tuple[str, ...], **more: Any) -> Simulator:
    try:
        count, each = parsed_value("--shards", shards, SHARD_COUNT), parsed_value("--archive-size", archive_size, size)
        return Simulator(shards=count, archive_size=each, faults=list(faults), **more)
    except ValueError as error:
        raise UsageError(str(error), hint="See `restore-agent simulator --list-faults`.") from None
