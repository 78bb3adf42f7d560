"""The command `simulator`, and the options that `rehearse` shares with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ....core.errors import UsageError
from ....core.untrusted import printable
from ....simulator import FaultRow, describe, serve
from ....ui.terminal import write_lines
from ...help import Command
from ...options import common
from ...parsers import size, whole
from ...session import execute


def complete_fault(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(row.name, help=row.help) for row in describe() if row.name.startswith(incomplete)]


shards_option = click.option(
    "--shards",
    metavar="N",
    default="2",
    show_default=True,
    help="Shards, in addition to the config server; 0: a replica set.",
)

archive_size_option = click.option(
    "--archive-size", metavar="SIZE", default="16M", show_default=True, help="Size of each archive."
)


SHARD_COUNT, PORT_NUMBER = whole(0, 1000), whole(0, 65535)


def parsed_value(option: str, text: str, parse: Callable[[str], int]) -> int:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option} {printable(text, 40)!r}: {error}") from None


_SIMULATOR_EXAMPLES = """
restore-agent simulator --tls --shards 2 --archive-size 64M
restore-agent simulator --fault 'cut=50%@0' --fault max-downloads=2 --fault hash=late:5
restore-agent simulator --tls --write-config simulator.toml
restore-agent simulator --shards 0 --archive /var/lib/mongodb
"""


@click.command(cls=Command, epilog=_SIMULATOR_EXAMPLES)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", metavar="N", default="0", show_default=True, help="Port to listen on; 0: any.")
@click.option("--tls", is_flag=True, help="Serve TLS, with a certificate authority created for this run.")
@shards_option
@archive_size_option
@click.option(
    "--fault",
    "faults",
    metavar="NAME[=VALUE]",
    multiple=True,
    shell_complete=complete_fault,
    help="Fault to inject, for one job only with @N (from 0; the last job is the config server's); repeatable.",
)
@click.option(
    "--archive",
    "archives",
    metavar="PATH",
    multiple=True,
    type=click.Path(),
    help="File to send, or directory to pack and send, instead of a simulated archive; repeatable, job by job.",
)
@click.option(
    "--write-config",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write a configuration file for `run --config FILE`, and the private key to FILE.key.",
)
@click.option("--list-faults", is_flag=True, help="List all faults and exit.")
@common(config=False)
def simulator(**given: Any) -> int:
    """Serve a simulated Ops Manager until SIGTERM or SIGINT.

    When it is ready, it prints one JSON line with its address, IDs, and API key. With --write-config, other commands
    reach it with --config FILE.
    """
    return execute("simulator", {"debug": given.pop("debug")}, lambda _: _serve(given), config=False)


_PER_JOB = """NAME[=VALUE]@N
    limits a fault that is marked @N to job N of a batch, counted from 0; the last job is that of the config server"""


def _shown(row: FaultRow) -> str:
    value = f"[={row.value[1:]}" if row.value.startswith("[") else f"={row.value}" if row.value else ""
    notes = [f"default {row.default}"] * bool(row.default) + ["@N"] * row.per_job
    return f"{row.name}{value}\n    {row.help}" + (f" ({'; '.join(notes)})" if notes else "")


def _serve(given: Mapping[str, Any]) -> int:
    if given["list_faults"]:
        write_lines(_PER_JOB, sys.stdout)
        for row in describe():
            write_lines(_shown(row), sys.stdout)
        return 0
    try:
        port, shards = (
            parsed_value("--port", given["port"], PORT_NUMBER),
            parsed_value("--shards", given["shards"], SHARD_COUNT),
        )
        archive_size = parsed_value("--archive-size", given["archive_size"], size)
        config = Path(given["write_config"]) if given["write_config"] else None
        served: dict[str, Any] = {"archives": given["archives"], "config": config}
        return serve(given["host"], port, given["tls"], shards, archive_size, list(given["faults"]), **served)
    except (ValueError, OSError) as error:
        raise UsageError(str(error), hint="See `restore-agent simulator --help`.") from None
