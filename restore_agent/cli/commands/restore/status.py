"""The command `status`."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from ....core.errors import RecordUnreadable
from ....dest.directory import Directory
from ....dest.lock import STATE_DIRECTORY
from ....dest.status import read_status
from ....ui.terminal import write_lines
from ....ui.text import status_rows
from ...config import dest
from ...help import Command
from ...options import common, options
from ...session import Session, execute

_EXAMPLES = """
restore-agent status --dest /backup/restore
watch -n 5 restore-agent status --dest /backup/restore
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@options("dest", "output")
@common
def status(**flags: Any) -> int:
    """Show what a run in DEST is doing or did."""
    return execute("status", flags, _status)


def _status(session: Session) -> int:
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
        write_lines(session.redactor.clean(json.dumps(document)), sys.stdout)
    else:
        write_lines("\n".join(status_rows(document)), sys.stdout)
    return 0
