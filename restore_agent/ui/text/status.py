"""The status of a run as text, from status.json and receipt.json."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ...core.exit_codes import EXIT_CODES
from ...core.receipt import ArchiveRecord, Receipt
from ...core.untrusted import printable
from ..wording import percent, shortened, size_text, time_text, total_text, unpacked_text
from .sentences import clock_text

_INDENT = " " * 12

_ACTIVE = ("downloading", "hashing", "unpacking")


def status_rows(document: Mapping[str, Any], receipt: Receipt | None, width: int, now: float) -> list[str]:
    """Return the lines of a status: the run, its trouble, the total, each archive, and the next step.

    `width` is in columns; `now` in seconds since the epoch.
    """
    running = document["state"] not in ("finished", "interrupted")
    rows = [_head(document, now), *_trouble(document, width)]
    archives = document["archives"]
    if len(archives) > 1:
        rows.append(total_text(archives, running=running))
    records = {record.job_id: record for record in receipt.archives} if receipt else {}
    for row in archives:
        rows += _archive(row, records.get(row["job_id"]), width, now, running=running)
    return rows + _next(document, width)


def _head(document: Mapping[str, Any], now: float) -> str:
    code = f", exit code {document['exit_code']}" if document.get("exit_code") is not None else ""
    age = _seconds_until(document["updated_at"], now)
    updated = f"{time_text(-age)} ago" if age is not None else document["updated_at"]
    return f"{document['state']}{code}, pid {document['pid']}, updated {printable(str(updated), 40)}"


def _trouble(document: Mapping[str, Any], width: int) -> list[str]:
    trouble = document.get("trouble")
    if not isinstance(trouble, Mapping):
        return []
    until = f"; retrying until {clock_text(str(trouble['until']))}" if trouble.get("until") else ""
    text = f"trouble: {printable(str(trouble.get('message')), 500).rstrip('.')}{until}"
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def _archive(
    row: Mapping[str, Any], record: ArchiveRecord | None, width: int, now: float, *, running: bool
) -> list[str]:
    name = printable(str(row["file_name"] or f"job {row['job_id']}"))
    state = row["state"] if running or row["state"] not in (*_ACTIVE, "waiting") else "stopped"
    facts = [_bytes(row)]
    if running and row["state"] in _ACTIVE:
        facts += _pace(row)
    if running and row["state"] in ("waiting", "downloading") and row.get("expires_at"):
        left = _seconds_until(row["expires_at"], now)
        facts.append("" if left is None else f"expires in {time_text(left)}" if left > 0 else "expired")
    if record and record.verdict == row["state"] and record.reason:
        facts.append(f"{record.reason} (exit code {record.exit_code})")
    return [f"{state:<11} {shortened(name, width - 12)}", *_in_lines([fact for fact in facts if fact], width)]


def _in_lines(facts: list[str], width: int) -> list[str]:
    """Return facts, with commas between them, in lines that do not break one."""
    lines: list[str] = []
    for fact in facts:
        if lines and len(lines[-1]) + len(fact) + 3 <= width:  # a comma and a space before it, perhaps a comma after it
            lines[-1] += f", {fact}"
        else:
            lines[-1:] = [f"{lines[-1]},"] if lines else []
            lines.append(_INDENT + fact)
    return lines


def _bytes(row: Mapping[str, Any]) -> str:
    done, total = row["bytes"], row["total_bytes"]
    if row["state"] not in (*_ACTIVE, "waiting") or not (done or total):
        return size_text(done) if done else ""
    if not total:
        return f"{size_text(done)}, size unknown"
    return f"{percent(done, total)} ({size_text(done)} of {size_text(total)})"


def _pace(row: Mapping[str, Any]) -> list[str]:
    if row["state"] == "hashing":
        return ["waiting for the published hash"] if row["bytes"] == row["total_bytes"] else []
    if row["state"] == "unpacking":
        return _unpacked(row)
    rate = row["bytes_per_second"]
    if not rate:
        return _unpacked(row)
    left = f"{time_text((row['total_bytes'] - row['bytes']) / rate)} left" if row["total_bytes"] else ""
    return [f"{size_text(rate)}/s", left, *_unpacked(row)]


def _unpacked(row: Mapping[str, Any]) -> list[str]:
    unpacked, total = row.get("unpacked_bytes"), row["total_bytes"]
    if unpacked is None or not row["bytes"]:
        return []
    return [unpacked_text(unpacked, row["bytes"] if row["state"] == "unpacking" else total)]


def _next(document: Mapping[str, Any], width: int) -> list[str]:
    code = document.get("exit_code")
    if code is None and document["state"] == "interrupted":
        return ["Next: run again; it resumes."]
    if not code or code not in EXIT_CODES:
        return []
    row = EXIT_CODES[code]
    texts = (f"Exit code {code}: {row.meaning}.", f"Next: {row.next_step}; see `restore-agent explain {code}`.")
    return [line for text in texts for line in textwrap.wrap(text.replace("`", ""), width, break_on_hyphens=False)]


def _seconds_until(moment: Any, now: float) -> float | None:
    try:
        parsed = datetime.fromisoformat(str(moment))
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() - now
