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
from ....core.errors import UsageError
from ....core.events import Notice
from ....core.redaction import Secret
from ....core.settings import Connection, RunLimits, RunSettings, Services, Target
from ....restore.run import Run
from ....simulator import Simulator
from ...config import unpack
from ...help import Command
from ...options import OUTPUT_OPTIONS, common, options, own_option
from ...parsers import size
from ...session import Session, execute, run_agent
from .simulator import SHARD_COUNT, archive_size_option, complete_fault, parsed_value, shards_option

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
    """Practice a restore against a simulated Ops Manager.

    It runs the real agent over real sockets, with the faults that are chosen, and exits as `run` does.
    """
    return execute("rehearse", flags, lambda session: _rehearse(session, dest, shards, archive_size, faults))


def _rehearse(session: Session, where: str | None, shards: str, archive_size: str, faults: tuple[str, ...]) -> int:
    parallel = session.values.get("parallel")
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"  # the practice run does not leave this host
    with _simulator(shards, archive_size, faults, tls=True) as simulated:
        path = Path(os.path.abspath(where)) if where else Path(tempfile.mkdtemp(prefix="restore-agent-rehearsal-"))
        if not where:
            text = f"practice files are written to {path}; this directory can be removed afterwards"
            session.console.report(Notice("info", text))
        settings = replace(_settings(simulated.hello, path, parallel), unpack=unpack(session.values))
        return run_agent(Run(settings, _services(session)), session)


def _settings(hello: Mapping[str, Any], path: Path, parallel: int) -> RunSettings:
    """Return the settings of a run against the simulator that printed `hello`."""
    connection = Connection(hello["url"], hello["public_key"], Secret(hello["private_key"]), Path(hello["ca_file"]))
    jobs = () if hello["batch_id"] else tuple(hello["job_ids"])
    target = Target(hello["group_id"], hello["cluster_id"], None, hello["batch_id"], jobs)
    limits = RunLimits(wait_timeout=30, hash_timeout=10, poll_interval=0.5, stall_timeout=5, parallel=parallel)
    return RunSettings(connection, target, limits, path)


def _services(session: Session) -> Services:
    return Services(session.console, SystemClock(), session.redactor)


def _simulator(shards: str, archive_size: str, faults: tuple[str, ...], **more: Any) -> Any:
    try:
        count, each = parsed_value("--shards", shards, SHARD_COUNT), parsed_value("--archive-size", archive_size, size)
        return Simulator(shards=count, archive_size=each, faults=list(faults), **more)
    except ValueError as error:
        raise UsageError(str(error), hint="See `restore-agent simulator --list-faults`.") from None
