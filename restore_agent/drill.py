"""`rehearse` and `simulator`: the real agent, or any client, against the bundled simulated Ops Manager."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from .errors import UsageError
from .options import Examples, common, options
from .redaction import Secret, printable
from .session import Session, execute, run_agent
from .settings import SHOWN
from .values import size, whole


def _complete_fault(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from .simulator import describe

    return [CompletionItem(row.name, help=row.help) for row in describe() if row.name.startswith(incomplete)]


_how_many = click.option(
    "--shards", metavar="N", default="2", show_default=True, help="Shards beside the config server; 0: a replica set."
)
_how_large = click.option(
    "--archive-size", metavar="SIZE", default="16M", show_default=True, help="Size of each archive."
)

_REHEARSE_EXAMPLES = """
restore-agent rehearse
restore-agent rehearse --shards 3 --archive-size 256M --fault 'cut=60%' --fault max-downloads=3
restore-agent simulator --list-faults
"""


@click.command(cls=Examples, epilog=_REHEARSE_EXAMPLES)
@click.option(
    "--dest",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Directory for the archives. [default: a new one under the temporary directory]",
)
@_how_many
@_how_large
@click.option(
    "--fault",
    "faults",
    metavar="NAME[=VALUE]",
    multiple=True,
    shell_complete=_complete_fault,
    help="A fault of the simulated server; repeatable.",
)
@options("parallel", *SHOWN)
@common
def rehearse(dest: str | None, shards: str, archive_size: str, faults: tuple[str, ...], **flags: Any) -> int:
    """A drill: the real agent against the bundled simulated Ops Manager, with chosen faults."""
    return execute("rehearse", flags, lambda session: _rehearse(session, dest, shards, archive_size, faults))


def _rehearse(session: Session, where: str | None, shards: str, archive_size: str, faults: tuple[str, ...]) -> int:
    import tempfile

    from .agent import Agent
    from .pacing import SystemClock
    from .settings import Connection, Pace, Target

    path = Path(os.path.abspath(where)) if where else Path(tempfile.mkdtemp(prefix="restore-agent-rehearsal-"))
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"  # the drill stays on this host
    with _simulator(shards, archive_size, faults, tls=True) as simulated:
        hello = simulated.hello
        reach = Connection(hello["url"], hello["public_key"], Secret(hello["private_key"]), Path(hello["ca_file"]))
        jobs = () if hello["batch_id"] else tuple(hello["job_ids"])
        goal = Target(hello["group_id"], hello["cluster_id"], None, hello["batch_id"], jobs)
        parallel = session.values.get("parallel")
        speed = Pace(wait_timeout=30, hash_timeout=10, poll_interval=0.5, stall_timeout=5, parallel=parallel)
        return run_agent(Agent(reach, goal, speed, path, session.console, SystemClock(), session.redactor), session)


def _simulator(shards: str, archive_size: str, faults: tuple[str, ...], **more: Any) -> Any:
    from .simulator import Simulator

    try:
        count, each = _value("--shards", shards, _SHARDS), _value("--archive-size", archive_size, size)
        return Simulator(shards=count, archive_size=each, faults=list(faults), **more)
    except ValueError as error:
        raise UsageError(str(error), hint="See `restore-agent simulator --list-faults`.") from None


_SHARDS, _PORT = whole(0, 1000), whole(0, 65535)


def _value(option: str, text: str, parse: Callable[[str], int]) -> int:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option} {printable(text, 40)!r}: {error}") from None


_SIMULATOR_EXAMPLES = """
restore-agent simulator --tls --shards 2 --archive-size 64M
restore-agent simulator --fault 'cut=50%' --fault max-downloads=2 --fault hash=late:5
"""


@click.command(cls=Examples, epilog=_SIMULATOR_EXAMPLES)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", metavar="N", default="0", show_default=True, help="Port to listen on; 0: any.")
@click.option("--tls", is_flag=True, help="Serve TLS, with a CA made on the spot.")
@_how_many
@_how_large
@click.option(
    "--fault",
    "faults",
    metavar="NAME[=VALUE]",
    multiple=True,
    shell_complete=_complete_fault,
    help="A fault; repeatable.",
)
@click.option("--list-faults", is_flag=True, help="List every fault and end.")
@common(config=False)
def simulator(**given: Any) -> int:
    """Serve a simulated Ops Manager until SIGTERM or SIGINT; prints one JSON line when it serves."""
    return execute("simulator", {"debug": given.pop("debug")}, lambda _: _serve(given), config=False)


def _serve(given: Mapping[str, Any]) -> int:
    from .console import say
    from .simulator import describe, serve

    if given["list_faults"]:
        for row in describe():
            value = f"[={row.value[1:]}" if row.value.startswith("[") else f"={row.value}" if row.value else ""
            say(f"{row.name}{value}\n    {row.help}" + (f" (default {row.default})" if row.default else ""), sys.stdout)
        return 0
    try:
        port, shards = _value("--port", given["port"], _PORT), _value("--shards", given["shards"], _SHARDS)
        archive_size = _value("--archive-size", given["archive_size"], size)
        return serve(given["host"], port, given["tls"], shards, archive_size, list(given["faults"]))
    except (ValueError, OSError) as error:
        raise UsageError(str(error), hint="See `restore-agent simulator --help`.") from None
