"""JSON Lines on stdout."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TextIO

from ..core.clock import rfc3339
from ..core.events import ArchiveFinished, CheckDone, Event, Progress, RunFailed, RunFinished
from ..core.redaction import Redactor
from ..core.untrusted import printable
from .terminal import write_lines

_LONGEST = 64 << 10  # characters of one text; a value of restoreInfo.txt may have as many
_JSON_EVERY = 5.0  # seconds between two progress events on stdout


class JsonConsole:
    """JSON Lines on stdout, each with `event` and `time`; the last is the result."""

    def __init__(self, out: TextIO, redactor: Redactor) -> None:
        self._out = out
        self._redactor = redactor
        self._due = 0.0

    def report(self, event: Event) -> None:
        """Print one line, and for a failed archive also an `error`; progress is printed every five seconds."""
        if isinstance(event, Progress):
            if time.monotonic() < self._due:
                return
            self._due = time.monotonic() + _JSON_EVERY
        if isinstance(event, ArchiveFinished) and event.problem:
            self._print("error", {"job_id": event.job_id, **event.problem})
        self._print(event.name, _fields(event))

    def _print(self, name: str, fields: Mapping[str, Any]) -> None:
        line = {"event": name, "time": rfc3339(time.time()), **fields}
        write_lines(json.dumps(_cleaned(line, self._redactor)), self._out)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def _fields(event: Event) -> dict[str, Any]:
    match event:
        case RunFinished():
            plan = {} if event.plan is None else {"plan": [dict(row) for row in event.plan]}
            return {**event.receipt.to_json(), **plan, **(event.more or {})}
        case CheckDone():
            return {"name": event.check, "ok": event.ok, "detail": event.detail}
        case ArchiveFinished():
            return {**asdict(event.record), "problem": dict(event.problem) if event.problem else None}
        case RunFailed():
            return dict(event.problem)
        case _:
            return {name: value for name, value in asdict(event).items() if name != "job_id" or value is not None}


def _cleaned(value: Any, redactor: Redactor) -> Any:
    """Return the value with every string redacted and printable, and numbers with at most three decimals."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, str):
        return printable(
            redactor.clean(value), _LONGEST
        )  # redacted before it is shortened, or half a secret would remain
    if isinstance(value, Mapping):
        return {name: _cleaned(item, redactor) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(item, redactor) for item in value]
    return value
