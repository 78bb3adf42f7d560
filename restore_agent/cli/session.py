"""What every command runs in, and the one place where an error ends it: printed once, turned into an exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.clock import rfc3339
from ..core.errors import AgentError, Stopped
from ..core.events import Display, RunFailed, RunFinished
from ..core.receipt import Receipt
from ..core.redaction import Redactor
from ..core.untrusted import printable
from ..ui.console import Console, console_for
from ..ui.terminal import say
from .config import Values
from .signals import SIGNALS


@dataclass
class Session:
    """What every command has. `summary` tells what is known when an error ends it, for the last line of JSON."""

    command: str
    values: Values
    console: Display
    redactor: Redactor
    summary: Callable[[AgentError], Receipt]


def execute(command: str, flags: dict[str, Any], work: Callable[[Session], int], *, config: bool = True) -> int:
    """Run a command's work; the single catch of the program. Without `config` no configuration file is looked at."""
    redactor = Redactor()
    redactor.learn(os.environ.get("RESTORE_AGENT_PRIVATE_KEY"))
    debug = bool(flags.pop("debug", False))
    session: Session | None = None
    try:
        values = Values(flags, os.environ, config=config)
        shown = console(values.get("output"), values.get("progress"), redactor, command)
        session = Session(command, values, shown, redactor, empty_receipt)
        return work(session)
    except Exception as caught:
        error = caught if isinstance(caught, AgentError) else _defect(caught)
        if debug:
            say(redactor.clean("".join(traceback.format_exception(caught))), sys.stderr)
        if session is None:
            return end_with(
                console(output_wanted(flags.get("output")), "none", redactor, command), error, empty_receipt
            )
        return end_with(session.console, error, session.summary)
    finally:
        if session:
            session.console.close()


def console(output: str, progress: str, redactor: Redactor, command: str) -> Console:
    """The console that the operator asked for."""

    return console_for(output, progress, sys.stdout, sys.stderr, redactor, command)


def _defect(caught: Exception) -> AgentError:
    frames = traceback.extract_tb(caught.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return AgentError(f"{type(caught).__name__}{place}: {printable(str(caught), 200)}")


def output_wanted(given: Any) -> str:
    """The output form, from what could be read of the call; `text` when nothing could."""
    wanted = given or os.environ.get("RESTORE_AGENT_OUTPUT") or "text"
    return wanted if wanted in ("text", "json") else "text"


def end_with(console: Display, error: AgentError, summary: Callable[[AgentError], Receipt]) -> int:
    """Print an error and the result that ends every run; the exit code."""

    console.report(RunFailed(error.fields()))
    console.report(RunFinished(summary(error)))
    return error.exit_code


def empty_receipt(error: AgentError) -> Receipt:
    """The result of a command that ended before it knew any job."""

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
    """Run a coroutine with SIGINT and SIGTERM ending it cleanly: by `stop`, or by cancelling it. Raises Stopped."""

    async def guarded() -> Any:
        loop = asyncio.get_running_loop()
        stopped: list[Stopped] = []
        task: asyncio.Task[Any] | None = None

        def on_signal(number: signal.Signals) -> None:
            loop.remove_signal_handler(number)  # a second one ends the process at once
            stopped.append(Stopped(f"stopped by {number.name}; what is on disk is kept", exit_code=SIGNALS[number]))
            if stop:
                stop(stopped[0])
            elif task:
                task.cancel()

        for number in SIGNALS:  # before there is any work that a signal could cut in half
            loop.add_signal_handler(number, on_signal, number)
        task = loop.create_task(work())
        try:
            return await task
        except asyncio.CancelledError:
            raise stopped[0] if stopped else Stopped("cancelled", exit_code=143) from None

    return asyncio.run(guarded())


def run_agent(agent: Any, session: Session) -> int:
    """Run an agent to its end and show the result; the exit code."""

    session.summary = agent.summary
    receipt: Receipt = run_loop(agent.run, agent.stop)
    session.console.report(RunFinished(receipt))
    return receipt.exit_code
