"""Selection of the console by the options."""

from __future__ import annotations

from typing import TextIO

from ..core.redaction import Redactor
from .json_lines import JsonConsole
from .terminal import is_systemd_journal
from .text.console import TextConsole


def console_for(output: str, progress: str, out: TextIO, err: TextIO, redactor: Redactor, command: str) -> Console:
    """Return the console for the output and progress options."""
    if output == "json":
        return JsonConsole(out, redactor)
    return TextConsole(out, err, redactor, progress, command, is_systemd_journal(err))


Console = JsonConsole | TextConsole
