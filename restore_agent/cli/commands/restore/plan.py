"""The command `plan`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ....core.clock import SystemClock
from ....core.events import Notice, RunFinished
from ....core.settings import Services
from ....core.untrusted import printable
from ....restore.plan import Plan, Planned, ToUnpack
from ....ui.wording import size_text
from ...config import run_settings
from ...help import Command
from ...options import RUN_OPTIONS, common, options
from ...session import Session, execute, run_loop

_EXAMPLES = """
restore-agent plan --config restore.toml --batch-id BATCH
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@options(*RUN_OPTIONS)  # those of `run`, so that the same options serve both
@common
def plan(**flags: Any) -> int:
    """Do a dry run: show what `run` would do, and report problems.

    It checks access, jobs, expiry, space, and permissions. It writes nothing and never requests a delivery URL. It
    takes the options of `run` and ends with the exit code that `run` would meet, or 0 if there is no problem.
    """
    return execute("plan", flags, _plan)


def _plan(session: Session) -> int:
    settings = run_settings(session.values)
    planning = Plan(settings, Services(session.console, SystemClock(), session.redactor))
    session.summary = planning.summary
    receipt, rows = run_loop(planning.make)
    session.console.report(Notice("info", _space(settings.dest, rows)))
    if settings.unpack and planning.to_unpack:
        session.console.report(Notice("info", _unpack_space(settings.unpack.directory, planning.to_unpack)))
    session.console.report(RunFinished(receipt, tuple(row.fields() for row in rows)))
    return int(receipt.exit_code)


def _space(dest: Path, rows: Sequence[Planned]) -> str:
    """Return how much `run` would download at most, and the free space of DEST."""
    existing = next(path for path in (dest, *dest.parents) if path.is_dir())
    free = size_text(shutil.disk_usage(existing).free)
    downloads = [row for row in rows if row.step == "download"]
    bounds = [row.largest_bytes - row.resumes_at for row in downloads if row.largest_bytes]
    known = f"at most {size_text(sum(bounds))}" if bounds and len(bounds) == len(downloads) else "size unknown"
    return f"to download: {len(downloads)} archives{', ' + known if downloads else ''}; free in DEST: {free}"


def _unpack_space(directory: Path, wanted: ToUnpack) -> str:
    """Return how much `run` would unpack at most, and the free space of the directory of --unpack."""
    known = "size unknown" if wanted.largest_bytes is None else f"at most {size_text(wanted.largest_bytes)}"
    free = f"; free there: {size_text(wanted.free_bytes)}" if wanted.free_bytes is not None else ""
    where = printable(str(directory), 200)
    return f"to unpack into {where}: {wanted.archives} archives{', ' + known if wanted.archives else ''}{free}"
