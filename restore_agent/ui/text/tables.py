"""Tables that end a command: archives with their verdicts, and the rows of a plan."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from ...core.receipt import ArchiveRecord, Receipt, Verdict
from ...core.untrusted import printable
from ..terminal import WIDTH
from ..wording import shortened, size_text, time_text
from .sentences import name_of

_INDENT = " " * 10  # below the archive names

_COLORS = {"verified": "32", "skipped": "2", "unproven": "33", "mismatch": "31", "failed": "31"}


def archive_rows(receipt: Receipt, clean: Callable[[str], str], width: int, *, colored: bool) -> list[str]:
    """Return the table of archives; the directory stands above them if it is the same for all."""
    directories = {os.path.dirname(record.path) for record in receipt.archives if record.path}
    width = _fitting([clean(name_of(record)) for record in receipt.archives], 23, width)
    rows = [f"{_INDENT}In {clean(directory)}:" for directory in directories if len(directories) == 1]
    for record in receipt.archives:
        rows += _archive_row(record, clean, width, colored=colored, one_directory=len(directories) == 1)
    return rows


def _fitting(names: list[str], others: int, width: int) -> int:
    """Return the width of a table: at most `width`, and no more than the longest name and the `others` need, but 80."""
    return min(width, max([WIDTH, *(len(name) + others for name in names)]))


def _archive_row(
    record: ArchiveRecord, clean: Callable[[str], str], width: int, *, colored: bool, one_directory: bool
) -> list[str]:
    verdict = str(record.verdict or "unfinished")
    label = f"{verdict:<9}"
    if colored and verdict in _COLORS:
        label = f"\x1b[{_COLORS[verdict]}m{label}\x1b[0m"
    name, name_width = clean(name_of(record)), width - 23
    size = size_text(record.bytes) if record.bytes is not None else "-"
    rows = [f"{label} {shortened(name, name_width):<{name_width}} {size:>10}"]
    if record.sha1:
        rate = f", {size_text(record.bytes_per_second)}/s" if record.bytes_per_second else ""
        rows.append(f"{_INDENT}sha1 {record.sha1}{rate}")
    rows += _location(record, clean, width, one_directory)
    if record.reason:
        rows.append(f"{_INDENT}{record.reason} (exit code {record.exit_code})")
    return rows


def _location(record: ArchiveRecord, clean: Callable[[str], str], width: int, one_directory: bool) -> list[str]:
    """Return the facts that the first row lacks: a name that it shortened, a different name on disk, the data path."""
    name, indent = clean(name_of(record)), len(_INDENT)
    data = _data_path(record, clean)
    if record.path and not one_directory:
        return [_INDENT + clean(record.path), *data]
    kept = clean(os.path.basename(record.path)) if record.path else name
    text = f"kept as {kept}" if kept != name else name if len(name) > width - 23 else ""
    return [*(_INDENT + part for part in textwrap.wrap(text, width - indent, break_on_hyphens=False)), *data]


def _data_path(record: ArchiveRecord, clean: Callable[[str], str]) -> list[str]:
    """Return the data path with its files and size, and whether the archive was removed after it."""
    if not record.data_path:
        return []
    facts = []
    if record.data_files is not None and record.data_bytes is not None:
        count = "1 file" if record.data_files == 1 else f"{record.data_files} files"
        facts.append(f"{count}, {size_text(record.data_bytes)}")
    if not record.archive_kept:
        facts.append("archive removed")
    return [f"{_INDENT}data path {clean(record.data_path)}", *([f"{_INDENT}{', '.join(facts)}"] if facts else [])]


def success_lines(receipt: Receipt, command: str) -> list[str]:
    """Return the last lines after exit code 0: the number of archives, and the next step."""
    unproven = sum(record.verdict is Verdict.UNPROVEN for record in receipt.archives)
    verified = sum(record.verdict is Verdict.VERIFIED for record in receipt.archives)
    text = f"{verified} {'archive' if verified == 1 else 'archives'} verified."
    if unproven:
        text += f" {unproven} unproven, accepted because of --allow-unproven."
    if not receipt.changed and command != "verify":
        return [f"{text} Nothing had to be done."]
    return [text, *_next_step(receipt, command)]


def _next_step(receipt: Receipt, command: str) -> list[str]:
    if command == "rehearse" or not receipt.archives:
        return []
    unpacked = any(record.data_path for record in receipt.archives)
    step = "start mongod on each data path" if unpacked else "run with --unpack DIR (no download)"
    return [f"Next: {step}; see `restore-agent man runbook`."]


def plan_rows(plan: tuple[Mapping[str, Any], ...], width: int) -> list[str]:
    """Return the table of a plan: what `run` would do about each job, and why."""
    names = [printable(str(row["file_name"] or f"job {row['job_id']}")) for row in plan]
    name_width = _fitting(names, 35, width) - 34
    rows = [f"{'STEP':<9}{'ARCHIVE':<{name_width}}{'DELIVERY':<14}{'EXPIRES IN':>10}"]
    for row, name in zip(plan, names, strict=True):
        left = "-" if row["expires_in"] is None else time_text(row["expires_in"]) if row["expires_in"] > 0 else "past"
        status = shortened(printable(str(row["delivery_status"] or "-")), 13)
        rows.append(f"{row['step']:<9}{shortened(name, name_width - 1):<{name_width}}{status:<14}{left:>10}")
        code = f" (exit code {row['exit_code']})" if row["exit_code"] else ""
        rows.append(f"         {row['reason']}{code}{_transfer(row)}")
        if row.get("data_path"):
            step = "unpack into" if row["to_unpack"] and not row["exit_code"] else "data path"
            rows.append(f"         {step} {printable(str(row['data_path']))}")
    return rows


def _transfer(row: Mapping[str, Any]) -> str:
    """Return how much would be downloaded: an upper bound, from where a resume starts."""
    start = row.get("resumes_at") or 0
    resume = f"; resumes at {size_text(start)}" if start else ""
    bound = row["largest_bytes"]
    if not bound:
        return resume
    rest = f"at most {size_text(max(0, bound - start))} {'more' if start else 'to download'}"
    return f"{resume}; {rest}"
