"""Results of commands whose output is their product: lines of text, or JSON Lines that end with the result."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ...core.clock import rfc3339
from ...core.errors import AgentError
from ...core.events import Event, RunFinished
from ...core.receipt import Receipt, receipt_of
from ...core.settings import Target
from ...ui.json_lines import JsonConsole
from ...ui.terminal import output_width, write_lines
from ..session import Session


class Results:
    """Results of one command about a project. `ops_manager` is set once it is known."""

    def __init__(self, session: Session, target: Target | None = None) -> None:
        self._session, self._target, self._started = session, target or Target(""), _now()
        self.ops_manager: str | None = None
        session.summary = self.summary

    @property
    def as_json(self) -> bool:
        """Whether the results are JSON Lines."""
        return isinstance(self._session.console, JsonConsole)

    def summary(self, error: AgentError | None = None) -> Receipt:
        """Return the fields of a receipt for the result; a command that verifies nothing ends as `unproven`."""
        restore = replace(self._target.restore(), group_id=self._target.group_id or None)
        times = (self._started, _now())
        receipt = receipt_of(restore, (), ops_manager=self.ops_manager, times=times, changed=False, run_error=error)
        return receipt if error else replace(receipt, outcome="unproven")

    def show(self, events: Iterable[Event], lines: Callable[[int], list[str]]) -> None:
        """Print events as JSON, or the lines that `lines` returns for a width. Raises OutputUnwritable."""
        console = self._session.console
        if isinstance(console, JsonConsole):
            for event in events:
                console.report(event)
        else:
            text = "\n".join(lines(output_width(sys.stdout)))
            write_lines(self._session.redactor.clean(text), sys.stdout)

    def finish(self, more: Mapping[str, Any] | None = None, *, changed: bool = False, exit_code: int = 0) -> int:
        """Print the result and return its exit code."""
        receipt = replace(self.summary(), changed=changed, exit_code=exit_code)
        self._session.console.report(RunFinished(receipt, more=more))
        return exit_code


def _now() -> str:
    return rfc3339(time.time())
