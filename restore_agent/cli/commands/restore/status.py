"""The command `status`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from ....core.errors import AgentError, NoRestoreHere, RecordUnreadable
from ....core.names import RECEIPT
from ....core.receipt import Receipt, parse_receipt
from ....core.untrusted import printable
from ....dest.directory import Directory
from ....dest.lock import STATE_DIRECTORY
from ....dest.status import read_status
from ....ui.terminal import WIDTH, terminal_size, write_lines
from ....ui.text.status import status_rows
from ...config import dest
from ...help import Command
from ...options import common, options
from ...session import Session, execute

_EXAMPLES = """
restore-agent status --dest /backup/restore
restore-agent status /backup/restore --watch
restore-agent status /backup/restore -o json | jq .state
"""

_WATCH_EVERY = 2.0
"""Seconds between two readings with --watch; a run writes its status as often."""

_CLEAR = "\x1b[H\x1b[J"


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("directory", required=False, type=click.Path(file_okay=False), metavar="[DIR]")
@options("dest", "output")
@click.option("--watch", is_flag=True, help="Show the status every 2 s until the run ends. [default: off]")
@common
def status(directory: str | None, watch: bool, **flags: Any) -> int:
    """Show what a run in DEST is doing or did.

    DIR is another way to set --dest. The exit code is 0 whatever the exit code of the run.
    """
    given = {"dest": directory} if directory is not None and not flags["dest"] else {}
    return execute("status", {**flags, **given}, lambda session: _status(session, watch=watch))


def _status(session: Session, *, watch: bool) -> int:
    path = dest(session.values)
    as_json = session.values.get("output") == "json"
    redraw = watch and not as_json and sys.stdout.isatty()
    while True:
        document, receipt = _read(path)
        text = session.redactor.clean(json.dumps(document)) if as_json else _text(document, receipt)
        write_lines(f"{_CLEAR}{text}" if redraw else text, sys.stdout)
        if not watch or document["state"] in ("finished", "interrupted"):
            return 0
        time.sleep(_WATCH_EVERY)


def _text(document: dict[str, Any], receipt: Receipt | None) -> str:
    width = max(WIDTH, terminal_size(sys.stdout)[0]) if sys.stdout.isatty() else WIDTH
    return "\n".join(status_rows(document, receipt, width, time.time()))


def _read(path: Path) -> tuple[dict[str, Any], Receipt | None]:
    """Return the status and, if it is readable, the receipt. Raises NoRestoreHere, RecordUnreadable, or DestError."""
    shown = printable(str(path), 200)
    if not os.path.lexists(path):
        raise NoRestoreHere(f"{shown} does not exist: no run was ever there")
    with Directory.open(path, create=False) as directory:
        state = directory.subdirectory(STATE_DIRECTORY, create=False)
        if state is None:
            raise NoRestoreHere(f"no run was ever in {shown}")
        with state:
            document = read_status(state)
        receipt = _receipt(directory)
    if document is None:
        raise RecordUnreadable(f"the run in {shown} has not written a status yet", hint="Try again in a few seconds.")
    return document, receipt


def _receipt(directory: Directory) -> Receipt | None:
    try:
        raw = directory.read(RECEIPT)
        return parse_receipt(raw) if raw is not None else None
    except AgentError:
        return None  # the status alone is shown; `verify` reports an unreadable receipt
