"""Rows of the fault table: each field of a fault class is one row, with its default, syntax, and help."""

from __future__ import annotations

from dataclasses import field
from typing import Any, NamedTuple

from .syntax import FLAG, Syntax


class FaultRow(NamedTuple):
    """One fault as `--list-faults` shows it: name, form of its value, default, help, and whether it accepts `@JOB`."""

    name: str
    value: str
    default: str
    help: str
    per_job: bool


def fault(default: object, syntax: Syntax, text: str, *, many: bool = False, server: bool = False) -> Any:
    """Return the dataclass field of a fault. `many`: repeatable. `server`: applies to the server, so not to one job."""
    return field(default=default, metadata={"syntax": syntax, "help": text, "many": many, "server": server})


def flag(text: str, *, server: bool = False) -> Any:
    """Return the dataclass field of a fault without a value."""
    return fault(False, FLAG, text, server=server)
