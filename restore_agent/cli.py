"""The commands, and the one place where an error ends a run: printed once, turned into an exit code.

Heavy modules are imported inside the commands that need them, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .errors import AgentError, RecordUnreadable, Stopped, UsageError
from .redaction import Redactor, Secret, printable
from .settings import (
    CONNECTION,
    DEFAULT_CONFIG,
    OPTIONS,
    PACE,
    SHOWN,
    TARGET,
    Values,
    connection,
    dest,
    pace,
    target,
)
from .values import size, whole

if TYPE_CHECKING:
    from .console import Console
    from .receipt import Receipt

_PROGRAM = "restore-agent"
_SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


# ---------------------------------------------------------------- options


def _options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options of the table, as click wants them; values stay text until settings parse them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            function = _option(name)(function)
        return function

    return decorate


def _option(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    option = OPTIONS[name]
    flags = [option.flag, *("--" + alias.replace("_", "-") for alias in option.aliases)]
    notes = [f"${option.env}"] if option.env else []
    if option.default is not None and option.metavar:
        notes.append(f"default {option.default}")
    text = option.help + (f" [{'; '.join(notes)}]" if notes else "")
    if not option.metavar:
        return click.option(*flags, name, is_flag=True, help=text)
    short = [option.short] if option.short else []
    return click.option(*short, *flags, name, metavar=option.metavar, multiple=option.many, help=text)


def _common(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option("--debug", is_flag=True, help="Show a traceback (secrets hidden) when something fails.")(
        function
    )
    config = "TOML file with the same names, underscores for dashes. [$RESTORE_AGENT_CONFIG; default {}]"
    return click.option("--config", metavar="FILE", help=config.format(DEFAULT_CONFIG))(function)


class _Examples(click.Command):
    """A command whose help ends with examples, kept line by line."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they stand."""
        if self.epilog:
            with formatter.section("Examples"):
                formatter.write_paragraph()
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"  {line}\n")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=_PROGRAM)
def cli() -> None:
    """Bring MongoDB Ops Manager backups home: wait for restore jobs, download once, prove every archive.

    Exit code 0 means that every selected archive is verified. Each other code says what to do next; the README
    has the table.
    """


# ---------------------------------------------------------------- running a command


@dataclass
class _Session:
    """What every command has. `summary` tells what is known when an error ends it, for the last line of JSON."""

    command: str
    values: Values
    console: Console
    redactor: Redactor
    summary: Callable[[AgentError], Receipt]


def _execute(command: str, flags: dict[str, Any], work: Callable[[_Session], int]) -> int:
    """Run a command's work; the single catch of the program."""
    redactor = Redactor()
    redactor.learn(os.environ.get("RESTORE_AGENT_PRIVATE_KEY"))
    debug = bool(flags.pop("debug", False))
    session: _Session | None = None
    before = _stop_on_signals()
    try:
        values = Values(flags, os.environ)
        console = _console(values.get("output"), values.get("progress"), redactor, command)
        session = _Session(command, values, console, redactor, _empty_receipt)
        return work(session)
    except Exception as caught:
        error = caught if isinstance(caught, AgentError) else _defect(caught)
        if debug:
            from .console import say

            say(redactor.clean("".join(traceback.format_exception(caught))), sys.stderr)
        if session is None:
            return _end_with(
                _console(_output_wanted(flags.get("output")), "none", redactor, command), error, _empty_receipt
            )
        return _end_with(session.console, error, session.summary)
    finally:
        if session:
            session.console.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_on_signals() -> dict[signal.Signals, Any]:
    """Let SIGINT and SIGTERM raise Stopped until a loop takes them over; the handlers there were before."""

    def stop(number: int, _: object) -> None:
        raise Stopped(f"stopped by {signal.Signals(number).name}", exit_code=_SIGNALS[signal.Signals(number)])

    if threading.current_thread() is not threading.main_thread():
        return {}  # only the main thread may; whoever runs us elsewhere keeps its own
    return {number: signal.signal(number, stop) for number in _SIGNALS}


def _console(output: str, progress: str, redactor: Redactor, command: str) -> Console:
    from .console import console_for

    return console_for(output, progress, sys.stdout, sys.stderr, redactor, command)


def _defect(caught: Exception) -> AgentError:
    frames = traceback.extract_tb(caught.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return AgentError(f"{type(caught).__name__}{place}: {printable(str(caught), 200)}")


def _output_wanted(given: Any) -> str:
    wanted = given or os.environ.get("RESTORE_AGENT_OUTPUT") or "text"
    return wanted if wanted in ("text", "json") else "text"


def _end_with(console: Console, error: AgentError, summary: Callable[[AgentError], Receipt]) -> int:
    """Print an error and the result that ends every run; the exit code."""
    from .events import Failed, Finished

    console.report(Failed(error.fields()))
    console.report(Finished(summary(error)))
    return error.exit_code


def _empty_receipt(error: AgentError) -> Receipt:
    from .receipt import Receipt, rfc3339

    now = rfc3339(time.time())
    return Receipt(
        group_id=None,
        cluster_id=None,
        host_id=None,
        batch_id=None,
        ops_manager=None,
        started_at=now,
        finished_at=now,
        outcome="failed",
        exit_code=error.exit_code,
        changed=False,
    )


def _run_loop(work: Callable[[], Coroutine[Any, Any, Any]], stop: Callable[[Stopped], None] | None = None) -> Any:
    """Run a coroutine with SIGINT and SIGTERM ending it cleanly: by `stop`, or by cancelling it. Raises Stopped."""
    import asyncio

    async def guarded() -> Any:
        loop = asyncio.get_running_loop()
        stopped: list[Stopped] = []
        task: asyncio.Task[Any] | None = None

        def on_signal(number: signal.Signals) -> None:
            loop.remove_signal_handler(number)  # a second one ends the process at once
            stopped.append(Stopped(f"stopped by {number.name}; what is on disk is kept", exit_code=_SIGNALS[number]))
            if stop:
                stop(stopped[0])
            elif task:
                task.cancel()

        for number in _SIGNALS:  # before there is any work that a signal could cut in half
            loop.add_signal_handler(number, on_signal, number)
        task = loop.create_task(work())
        try:
            return await task
        except asyncio.CancelledError:
            raise stopped[0] if stopped else Stopped("cancelled", exit_code=143) from None

    return asyncio.run(guarded())


# ---------------------------------------------------------------- run


_RUN_EXAMPLES = """
restore-agent run --url https://opsmanager.example.net:8443 --public-key KEY \\
    --private-key-file /etc/restore-agent/key --group-id GROUP --cluster-id CLUSTER \\
    --batch-id BATCH --dest /backup/restore
restore-agent run --config restore.toml --batch-id BATCH --select '*shard0*' -o json
"""


@cli.command(cls=_Examples, epilog=_RUN_EXAMPLES)
@_options(*CONNECTION, *TARGET, *PACE, *SHOWN)
@_common
def run(**flags: Any) -> int:
    """Wait for the jobs, download, verify, write the receipt."""
    return _execute("run", flags, _run)


def _run(session: _Session) -> int:
    from .agent import Agent
    from .pacing import SystemClock

    values = session.values
    agent = Agent(
        connection(values), target(values), pace(values), dest(values), session.console, SystemClock(), session.redactor
    )
    return _run_agent(agent, session)


def _run_agent(agent: Any, session: _Session) -> int:
    from .events import Finished

    session.summary = agent.summary
    receipt: Receipt = _run_loop(agent.run, agent.stop)
    session.console.report(Finished(receipt))
    return receipt.exit_code


# ---------------------------------------------------------------- plan


_PLAN_EXAMPLES = """
restore-agent plan --config restore.toml --batch-id BATCH
"""


@cli.command(cls=_Examples, epilog=_PLAN_EXAMPLES)
@_options(*CONNECTION, *TARGET, *PACE, *SHOWN)
@_common
def plan(**flags: Any) -> int:
    """Show what `run` would do and whether it could; writes nothing, touches no delivery URL."""
    return _execute("plan", flags, _plan)


def _plan(session: _Session) -> int:
    from .events import Finished
    from .pacing import SystemClock
    from .plan import Plan

    values = session.values
    planning = Plan(
        connection(values), target(values), pace(values), dest(values), session.console, SystemClock(), session.redactor
    )
    session.summary = lambda error: planning.summary(error.exit_code)
    receipt, rows = _run_loop(planning.make)
    session.console.report(Finished(receipt, tuple(row.fields() for row in rows)))
    return int(receipt.exit_code)


# ---------------------------------------------------------------- verify


_PROVEN = tuple(name for name in TARGET if name != "expect_jobs")
_VERIFY_EXAMPLES = """
restore-agent verify --dest /backup/restore                      # offline, by the receipt
restore-agent verify --config restore.toml --dest /backup/restore   # with hashes published since
"""


@cli.command(cls=_Examples, epilog=_VERIFY_EXAMPLES)
@_options(*CONNECTION, *_PROVEN, "poll_interval", *SHOWN)
@_common
def verify(**flags: Any) -> int:
    """Prove archives in DEST again, and promote those whose hash was published late."""
    return _execute("verify", flags, _verify)


def _verify(session: _Session) -> int:
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
    receipt: Receipt = _run_loop(check.run)
    session.console.report(Finished(receipt))
    return receipt.exit_code


# ---------------------------------------------------------------- status


_STATUS_EXAMPLES = """
restore-agent status --dest /backup/restore
watch -n 5 restore-agent status --dest /backup/restore
"""


@cli.command(cls=_Examples, epilog=_STATUS_EXAMPLES)
@_options("dest", "output")
@_common
def status(**flags: Any) -> int:
    """Show what a run in DEST is doing or did."""
    return _execute("status", flags, _status)


def _status(session: _Session) -> int:
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


# ---------------------------------------------------------------- rehearse, simulator


_REHEARSE_EXAMPLES = """
restore-agent rehearse
restore-agent rehearse --shards 3 --archive-size 256M --fault 'cut=60%' --fault max-downloads=3
restore-agent simulator --list-faults
"""


@cli.command(cls=_Examples, epilog=_REHEARSE_EXAMPLES)
@click.option(
    "--dest", metavar="DIR", help="Directory for the archives. [default: a new one under the temporary directory]"
)
@click.option(
    "--shards", metavar="N", default="2", show_default=True, help="Shards beside the config server; 0: a replica set."
)
@click.option("--archive-size", metavar="SIZE", default="16M", show_default=True, help="Size of each archive.")
@click.option(
    "--fault", "faults", metavar="NAME[=VALUE]", multiple=True, help="A fault of the simulated server; repeatable."
)
@_options("parallel", *SHOWN)
@_common
def rehearse(dest: str | None, shards: str, archive_size: str, faults: tuple[str, ...], **flags: Any) -> int:
    """A drill: the real agent against the bundled simulated Ops Manager, with chosen faults."""
    return _execute("rehearse", flags, lambda session: _rehearse(session, dest, shards, archive_size, faults))


def _rehearse(session: _Session, where: str | None, shards: str, archive_size: str, faults: tuple[str, ...]) -> int:
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
        return _run_agent(Agent(reach, goal, speed, path, session.console, SystemClock(), session.redactor), session)


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


@cli.command(cls=_Examples, epilog=_SIMULATOR_EXAMPLES)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", metavar="N", default="0", show_default=True, help="Port to listen on; 0: any.")
@click.option("--tls", is_flag=True, help="Serve TLS, with a CA made on the spot.")
@click.option(
    "--shards", metavar="N", default="2", show_default=True, help="Shards beside the config server; 0: a replica set."
)
@click.option("--archive-size", metavar="SIZE", default="16M", show_default=True, help="Size of each archive.")
@click.option("--fault", "faults", metavar="NAME[=VALUE]", multiple=True, help="A fault; repeatable.")
@click.option("--list-faults", is_flag=True, help="List every fault and end.")
@click.option("--debug", is_flag=True, help="Show a traceback (secrets hidden) when something fails.")
def simulator(**given: Any) -> int:
    """Serve a simulated Ops Manager until SIGTERM or SIGINT; prints one JSON line when it serves."""
    return _execute("simulator", {"debug": given.pop("debug")}, lambda _: _serve(given))


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


# ---------------------------------------------------------------- the door


def main(arguments: list[str] | None = None) -> None:
    """Entry point: parse, run, exit with the contract's code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no dots must not end a run
    try:
        code = cli.main(args=arguments, prog_name=_PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = 2
    except click.Abort:
        code = 130
    except click.ClickException as error:
        code = _usage(error, arguments)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: click.ClickException, arguments: list[str]) -> int:
    """Report a mistake on the command line in the form that was asked for, as far as that can be read."""
    found = re.search(r"(?:^|\0)(?:-o\0?|--output[=\0])(text|json)(?:\0|$)", "\0".join(arguments))
    context = getattr(error, "ctx", None)
    hint = f"See `{context.command_path} --help`." if context else None
    console = _console(_output_wanted(found[1] if found else None), "none", Redactor(), "usage")
    return _end_with(console, UsageError(error.format_message(), hint=hint), _empty_receipt)
