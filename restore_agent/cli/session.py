"""Execution of commands: the only place that catches an error, prints it, and returns an exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ..core.clock import rfc3339
from ..core.errors import AgentError, DestHeld, OutputUnwritable, ResourcesExhausted, Stopped, UsageError
from ..core.events import Display, RunFailed, RunFinished
from ..core.receipt import Receipt
from ..core.redaction import Redactor
from ..core.untrusted import printable
from ..dest.status import holder
from ..ui.background import BackgroundStream, background, in_order
from ..ui.console import Output, console_for
from ..ui.terminal import write_lines
from .config import Values, output_form, unknown_variables
from .signals import SIGNALS, handled

_DRAIN_TIME = 1.0  # seconds; a stopped run ends within three

_RECORDED = ("run", "verify", "rehearse", "simulator")
"""Commands whose results are in DEST; the product of every other one is its output."""


@dataclass
class Session:
    """Context of one command. `summary` makes the result if an error ends the command, `more` its further fields."""

    command: str
    values: Values
    console: Display
    redactor: Redactor
    summary: Callable[[AgentError], Receipt]
    more: Callable[[], Mapping[str, Any] | None] = lambda: None


def execute(command: str, flags: dict[str, Any], work: Callable[[Session], int], *, config: bool = True) -> int:
    """Run the work of a command and return the exit code. Without `config`, no configuration file is read."""
    redactor = Redactor()
    redactor.learn(os.environ.get("RESTORE_AGENT_PRIVATE_KEY"))
    debug = bool(flags.pop("debug", False))
    session: Session | None = None
    try:
        if config:
            _warn_of_unknown_variables(redactor)
        values = Values(flags, os.environ, config=config)
        shown = console(values.get("output"), values.get("progress"), redactor, command)
        session = Session(command, values, shown, redactor, empty_receipt)
        return work(session)
    except Exception as caught:
        error = _as_agent_error(caught, command, _dest(session))
        if debug:
            write_lines(redactor.clean("".join(traceback.format_exception(caught))), _error_stream())
        if session is None:
            form = output_form(flags, os.environ, config=config)
            return end_with(console(form, "none", redactor, command), error, empty_receipt)
        if isinstance(error, OutputUnwritable) and values.get("output") == "json":
            write_lines(f"error: {error.message} [{error.id}]", _error_stream())  # stdout, for JSON, is what failed
        return end_with(session.console, error, session.summary, session.more())
    finally:
        if session:
            session.console.close()


def console(output: str, progress: str, redactor: Redactor, command: str) -> Display:
    """Return the console for the output and progress options. `finish_output` must follow."""
    _streams[:] = in_order(background(sys.stdout), background(sys.stderr))
    return console_for(output, Output(_streams[0], _streams[1], redactor, progress, command))


_streams: list[TextIO] = []


def _error_stream() -> TextIO:
    """Return stderr, or what the console writes to it with, so that a reader that has stopped holds nothing back."""
    return _streams[1] if _streams else sys.stderr


def finish_output(command: str | None, code: int) -> int:
    """Wait a moment for the output of the console; return the exit code.

    It is that of an unwritable output for a command whose product is its output, and otherwise `code`.
    """
    code_now = code
    for stream in dict.fromkeys(_streams):
        if isinstance(stream, BackgroundStream):
            stream.drain(_DRAIN_TIME)
            if stream.failure and stream.descriptor == 1 and command not in _RECORDED:
                if isinstance(stream.failure, BrokenPipeError):
                    continue  # `| head` has what it wants
                write_lines(
                    f"error: cannot write the output: {stream.failure.strerror} [output-unwritable]", sys.stderr
                )
                code_now = OutputUnwritable.exit_code
    _streams.clear()
    return code_now


def _warn_of_unknown_variables(redactor: Redactor) -> None:
    for warning in unknown_variables(os.environ):
        write_lines(f"warning: {redactor.clean(warning)}", sys.stderr)


def _as_agent_error(caught: Exception, command: str, dest: Path | None) -> AgentError:
    """Return an error that can be printed; the hint of a usage error names the command that was called."""
    if isinstance(caught, MemoryError) or (isinstance(caught, RuntimeError) and "new thread" in str(caught)):
        return ResourcesExhausted(f"the host gives no more memory or threads: {caught or 'out of memory'}")
    if not isinstance(caught, AgentError):
        frames = traceback.extract_tb(caught.__traceback__)
        place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        return AgentError(f"{type(caught).__name__}{place}: {printable(str(caught), 200)}")
    if isinstance(caught, DestHeld) and dest is not None and (pid := holder(dest)):
        return caught.with_context(message=f"{caught.message} (pid {pid})")
    if isinstance(caught, UsageError) and caught.hint == UsageError.hint:
        return UsageError(caught.message, archive=caught.archive, hint=f"See `restore-agent {command} --help`.")
    return caught


def _dest(session: Session | None) -> Path | None:
    found = session.values.source("dest") if session else None
    return Path(str(found.text)) if found else None


def end_with(
    console: Display,
    error: AgentError,
    summary: Callable[[AgentError], Receipt],
    more: Mapping[str, Any] | None = None,
) -> int:
    """Print an error and the result that ends every command; return the exit code."""
    console.report(RunFailed(error.fields()))
    console.report(RunFinished(summary(error), more=more))
    return error.exit_code


def empty_receipt(error: AgentError) -> Receipt:
    """Return the result of a command that ended before any job was known."""
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


def run_loop(work: Callable[[], Coroutine[Any, Any, Any]], stop: Callable[[Stopped], None] | None = None) -> Any:
    """Run a coroutine; a signal ends it by calling `stop`, or by cancelling it. Raises Stopped."""

    async def guarded() -> Any:
        loop = asyncio.get_running_loop()
        stopped: list[Stopped] = []
        task: asyncio.Task[Any] | None = None

        def on_signal(number: signal.Signals) -> None:
            loop.remove_signal_handler(number)  # a second one ends the process immediately
            stopped.append(Stopped(f"stopped by {number.name}; files on disk are kept", exit_code=SIGNALS[number]))
            if stop:
                stop(stopped[0])
            elif task:
                task.cancel()

        for number in handled():  # before there is any work that a signal could interrupt
            loop.add_signal_handler(number, on_signal, number)
        task = loop.create_task(work())
        try:
            return await task
        except asyncio.CancelledError:
            raise stopped[0] if stopped else Stopped("cancelled", exit_code=143) from None

    return asyncio.run(guarded())


def run_agent(agent: Any, session: Session) -> int:
    """Run an agent to its end, show the result, and return the exit code."""
    session.summary = agent.summary
    receipt: Receipt = run_loop(agent.run, agent.stop)
    session.console.report(RunFinished(receipt))
    return receipt.exit_code
