"""Output formats, and the selection of the console by the options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from ..core.events import Display
from ..core.redaction import Redactor
from .json_lines import JsonConsole
from .terminal import is_systemd_journal
from .text.console import TextConsole


@dataclass(frozen=True)
class Output:
    """Everything that a console may need: `out` gets results, `err` the log; `progress` is the value of --progress."""

    out: TextIO
    err: TextIO
    redactor: Redactor
    progress: str
    command: str


def _text(to: Output) -> Display:
    return TextConsole(to.out, to.err, to.redactor, to.progress, to.command, is_systemd_journal(to.err))


def _json(to: Output) -> Display:
    return JsonConsole(to.out, to.redactor)


FORMATS: dict[str, Callable[[Output], Display]] = {"text": _text, "json": _json}
"""The values of --output."""


def console_for(output: str, to: Output) -> Display:
    """Return the console for an output format."""
    return FORMATS[output](to)
