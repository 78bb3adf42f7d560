"""The command `report`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ....core.errors import Unwritable, UsageError
from ....core.names import RECEIPT
from ....core.untrusted import printable
from ....ui.files import write_page
from ....ui.report import BatchReport, ReceiptFile, ReceiptsUnusable, as_text, judge, receipt_file
from ....ui.report.html import as_html
from ....ui.report.wording import moment
from ...help import Command
from ...options import common, options
from ...session import Session, execute
from ..results import Results

_EXAMPLES = """
restore-agent report --dest /backup/restore
restore-agent report receipts/*.json --expect-jobs 4 --html report.html
"""

_LARGEST = 64 << 20
"""Bytes of a receipt at most; a thousand archives have about 1 MiB."""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("receipts", nargs=-1, type=click.Path(), metavar="[RECEIPT]...")
@options("expect_jobs", "dest", "html", "output")
@common
def report(receipts: tuple[str, ...], **flags: Any) -> int:
    """Report on a batch from the receipts of one or many hosts.

    Each RECEIPT is the receipt.json of one host, or the directory that holds it; the default is that of --dest. The
    report is text on stdout, or with --html one page. The exit code is 0 if every job that is not skipped is verified
    on exactly one host and, if that was requested, unpacked.
    """
    return execute("report", flags, lambda session: _report(session, receipts))


def _report(session: Session, given: Sequence[str]) -> int:
    html, expected = session.values.get("html"), session.values.get("expect_jobs")
    results = Results(session)
    found = judge([_read(path) for path in _paths(session, given)], expected)
    if html is not None:
        write_report(html_page(found), html, session)
    results.show((), lambda width: _lines(found, html, width))
    return results.finish(_fields(found, html), exit_code=found.exit_code)


def _paths(session: Session, given: Sequence[str]) -> list[str]:
    """Return the paths of the receipts. Raises UsageError if there is none."""
    if given:
        return [os.path.join(path, RECEIPT) if os.path.isdir(path) else path for path in given]
    if session.values.source("dest") is None:
        raise UsageError("no receipt is given: name receipt.json files, or set --dest")
    return [str(session.values.get("dest") / RECEIPT)]


def _read(path: str) -> ReceiptFile:
    """Return the receipt in a file or pipe. Raises ReceiptsUnusable."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ReceiptsUnusable(f"{printable(path, 200)} cannot be read: {reason}") from None
    if len(raw) > _LARGEST:
        raise ReceiptsUnusable(f"{printable(path, 200)} is not a receipt of restore-agent: it is too large")
    return receipt_file(os.path.realpath(path), raw)


def html_page(found: BatchReport) -> str:
    """Return the report as one HTML page. Raises UsageError if Jinja2 is not installed."""
    return as_html(found, created=moment(time.time()))


def write_report(text: str, path: Path, session: Session) -> None:
    """Write a report without secrets to a file. Raises Unwritable."""
    try:
        write_page(path, session.redactor.clean(text).encode("utf-8", "backslashreplace"))
    except OSError as error:
        hint = "Check the directory of the report: it must exist, be writable, and have free space."
        raise Unwritable(f"{printable(str(path), 200)} cannot be written: {error.strerror}", hint=hint) from None


def _lines(found: BatchReport, html: Path | None, width: int) -> list[str]:
    if html is None:
        return as_text(found, width).rstrip("\n").split("\n")
    return [found.sentence, f"Report: {printable(str(html), 1000)}"]


def _fields(found: BatchReport, html: Path | None) -> dict[str, Any]:
    """Return the fields of the result that only this command has."""
    return {
        "outcome": "failed" if found.exit_code else "verified",
        "batch_id": found.batch.batch_id,
        "group_id": found.batch.group_id,
        "cluster_id": found.batch.cluster_id,
        "ops_manager": found.batch.ops_manager,
        "sentence": found.sentence,
        "problems": [problem.title for problem in found.problems],
        "report": None if html is None else str(html),
    }
