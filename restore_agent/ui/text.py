"""Text for people on stdout and stderr."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Mapping
from typing import Any, TextIO

from ..core.events import (
    ArchiveFinished,
    Downloaded,
    DownloadStarted,
    Event,
    JobSeen,
    Notice,
    Progress,
    RetryScheduled,
    RunFailed,
    RunFinished,
    RunStarted,
)
from ..core.exit_codes import EXIT_CODES
from ..core.receipt import ArchiveRecord, Receipt, Verdict
from ..core.redaction import Redactor
from ..core.untrusted import printable
from .bars import Bars, PlainLines
from .terminal import WIDTH, terminal_size, write_lines
from .wording import folded, shortened, size_text, time_text

_INDENT = " " * 10  # under the archive names of the closing table

_ERROR, _WARNING, _INFO = 3, 4, 6  # priorities of sd-daemon(3)

_COLOURS = {"verified": "32", "skipped": "2", "unproven": "33", "mismatch": "31", "failed": "31"}


class TextConsole:
    """Log lines and progress on stderr, the closing table on stdout."""

    def __init__(
        self, out: TextIO, err: TextIO, redactor: Redactor, progress: str, command: str, journal: bool = False
    ) -> None:
        self._out, self._err, self._redactor, self._command, self._journal = out, err, redactor, command, journal
        kind = progress if progress != "auto" else "bar" if err.isatty() else "plain"
        self._progress: Bars | PlainLines | None = None
        if kind in ("bar", "plain"):
            self._progress = Bars(err) if kind == "bar" else PlainLines(self._log)
        self._folds = kind == "bar" or err.isatty()
        self._coloured = "NO_COLOR" not in os.environ and out.isatty()
        self._hints: dict[int, str] = {}  # by exit code: what the error that ended the run says is next

    def report(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Progress):
            if self._progress:
                self._progress.show(event.archives)
        elif isinstance(event, RunFinished):
            self.close()
            self._finish(event)
        else:
            if isinstance(event, RunFailed):
                self.close()  # what follows are the last words
                self._hints[event.problem["exit_code"]] = event.problem["hint"]
            self._log(_lines(event), _priority(event))

    def close(self) -> None:
        """Take the bars away."""
        if self._progress:
            self._progress.close()
        self._progress = None

    def _clean(self, text: str) -> str:
        return printable(self._redactor.clean(text), 2000)

    def _log(self, told: list[str], priority: int = _INFO) -> None:
        """Log lines; a line break inside of one, which only a server can have put there, does not make two of it."""
        stamp = time.strftime("%H:%M:%S")
        lines = [f"{stamp} {self._clean(line)}" for line in told]
        if self._folds:
            lines = [part for line in lines for part in folded(line, terminal_size(self._err)[0])]
        if self._journal and told:  # one entry with its priority; the journal knows the time
            lines = [f"<{priority}>" + "; ".join(self._clean(line.strip()) for line in told)]
        if isinstance(self._progress, Bars):
            self._progress.write(lines)
        elif lines:
            write_lines("\n".join(lines), self._err)

    def _finish(self, event: RunFinished) -> None:
        rows = _plan_rows(event.plan) if event.plan is not None else self._archive_rows(event.receipt)
        write_lines("\n".join([*rows, *self._closing(event)]), self._out)

    def _closing(self, event: RunFinished) -> list[str]:
        receipt, code = event.receipt, event.receipt.exit_code
        if event.plan is not None and code == 0:
            return ["Nothing stands in the way."]
        if code == 0:
            return [_success(receipt, self._command)]
        meaning, advice = (text.replace("`", "") for text in (EXIT_CODES[code].meaning, EXIT_CODES[code].next_step))
        judged = [record for record in receipt.archives if record.verdict is not Verdict.SKIPPED]
        verified = sum(record.verdict is Verdict.VERIFIED for record in judged)
        count = [f"{verified} of {len(judged)} archives verified."] if event.plan is None and len(judged) > 1 else []
        told = (f"Exit code {code}: {meaning}.", f"Next: {self._clean(self._hints.get(code, f'{advice}.'))}")
        return [*count, *(line for text in told for line in textwrap.wrap(text, WIDTH))]

    def _archive_rows(self, receipt: Receipt) -> list[str]:
        """The closing table: the directory once, when it is the same for all, then the archives."""
        places = {os.path.dirname(record.path) for record in receipt.archives if record.path}
        rows = [f"{_INDENT}In {self._clean(place)}:" for place in places if len(places) == 1]
        for record in receipt.archives:
            rows += self._archive_row(record, len(places) == 1)
        return rows

    def _archive_row(self, record: ArchiveRecord, one_place: bool) -> list[str]:
        verdict = str(record.verdict or "unsettled")
        label = f"{verdict:<9}"
        if self._coloured and verdict in _COLOURS:
            label = f"\x1b[{_COLOURS[verdict]}m{label}\x1b[0m"
        name = self._clean(_name(record))
        size = size_text(record.bytes) if record.bytes is not None else "-"
        rows = [f"{label} {shortened(name, 57):<57} {size:>10}"]
        if record.sha1:
            rate = f", {size_text(record.bytes_per_second)}/s" if record.bytes_per_second else ""
            rows.append(f"{_INDENT}sha1 {record.sha1}{rate}")
        rows += self._whereabouts(record, name, one_place)
        if record.reason:
            rows.append(f"{_INDENT}{record.reason} (exit code {record.exit_code})")
        return rows

    def _whereabouts(self, record: ArchiveRecord, name: str, one_place: bool) -> list[str]:
        """What the first row does not say: the whole name where it is cut, and the one that the file is kept under."""
        if record.path and not one_place:
            return [_INDENT + self._clean(record.path)]
        kept = self._clean(os.path.basename(record.path)) if record.path else name
        told = f"kept as {kept}" if kept != name else name if len(name) > 57 else ""
        return [_INDENT + part for part in textwrap.wrap(told, WIDTH - len(_INDENT), break_on_hyphens=False)]


def _success(receipt: Receipt, command: str) -> str:
    unproven = sum(record.verdict is Verdict.UNPROVEN for record in receipt.archives)
    verified = sum(record.verdict is Verdict.VERIFIED for record in receipt.archives)
    text = f"{verified} {'archive' if verified == 1 else 'archives'} verified."
    if unproven:
        text += f" {unproven} unproven, as --allow-unproven admits."
    return text if receipt.changed or command == "verify" else text + " Nothing had to be done."


def _plan_rows(plan: tuple[Mapping[str, Any], ...]) -> list[str]:
    rows = [f"{'STEP':<9}{'ARCHIVE':<46}{'DELIVERY':<14}{'EXPIRES IN':>10}"]
    for row in plan:
        name = printable(str(row["archive"] or f"job {row['job_id']}"))
        left = "-" if row["expires_in"] is None else time_text(row["expires_in"]) if row["expires_in"] > 0 else "past"
        status = shortened(printable(str(row["delivery_status"] or "-")), 13)
        rows.append(f"{row['step']:<9}{shortened(name, 45):<46}{status:<14}{left:>10}")
        bound = f"; at most {size_text(row['largest_bytes'])}" if row["largest_bytes"] else ""
        code = f" (exit code {row['exit_code']})" if row["exit_code"] else ""
        rows.append(f"         {row['reason']}{code}{bound}")
    return rows


def _lines(event: Event) -> list[str]:
    """One event as log lines: several for an error, none for what is not worth one."""
    match event:
        case ArchiveFinished(problem=problem) if problem:
            return problem_lines(problem)
        case RunFailed():
            return problem_lines(event.problem)
        case _:
            told = _sentence(event)
            return [told] if told else []


def _priority(event: Event) -> int:
    match event:
        case RunFailed():
            return _ERROR
        case ArchiveFinished(problem=problem) if problem:
            return _ERROR
        case RetryScheduled():
            return _WARNING
        case Notice(level=level) if level != "info":
            return _WARNING
        case _:
            return _INFO


def _sentence(event: Event) -> str | None:
    match event:
        case RunStarted():
            return f"Ops Manager {event.ops_manager or 'not asked'}, archives go to {event.dest}"
        case JobSeen() if event.step != "download":  # the download itself is told
            name = event.archive or f"job {event.job_id}"
            said = f"job {event.status or '-'}, delivery {event.delivery_status or '-'}"
            return f"{name}: {said}: {event.step} ({event.reason})"
        case DownloadStarted():
            begin = f"resuming at {size_text(event.offset)}" if event.offset else "downloading"
            return f"{event.archive}: {begin} from {event.url.split('/…/')[0]}, attempt {event.attempt}"
        case RetryScheduled():
            spent = "a download may be spent" if event.spent else "no download was spent"
            after = f"{size_text(event.received)} on disk, {spent}, next attempt in {time_text(event.wait)}"
            return f"{event.archive}: {event.message} ({after})"
        case Downloaded():
            speed = f" ({size_text(event.bytes / event.seconds)}/s)" if event.seconds > 0 else ""
            took = f"{size_text(event.bytes)} in {event.seconds:.1f} s{speed}"
            return f"{event.archive}: {took}, waiting for the published hash"
        case ArchiveFinished():
            return f"{_name(event.record)}: {event.record.verdict}"
        case Notice():
            return event.message if event.level == "info" else f"warning: {event.message}"
        case _:
            return None


def _name(record: ArchiveRecord) -> str:
    return record.file_name or f"job {record.job_id}"


def problem_lines(problem: Mapping[str, Any]) -> list[str]:
    """An error in lines: what happened, what is on disk, whether a download was spent, what to do next."""
    lines = [f"error: {problem['archive'] + ': ' if problem['archive'] else ''}{problem['message']} [{problem['id']}]"]
    if problem["on_disk"]:
        lines.append(f"  on disk: {problem['on_disk']}")
    if problem["download_spent"] is not None:
        lines.append(f"  download spent: {'yes' if problem['download_spent'] else 'no'}")
    lines.append(f"  next: {problem['hint']}")
    return lines


def status_rows(document: Mapping[str, Any]) -> list[str]:
    """The status file for people, in 80 columns."""
    code = f", exit code {document['exit_code']}" if document.get("exit_code") is not None else ""
    rows = [f"{document['state']}{code}, pid {document['pid']}, updated {document['updated_at']}"]
    for row in document["archives"]:
        name = shortened(printable(str(row["file_name"] or f"job {row['job_id']}")), 32)
        of = f" of {size_text(row['total_bytes'])}" if row["total_bytes"] else ""
        speed = f" {size_text(row['bytes_per_second'])}/s" if row["bytes_per_second"] else ""
        rows.append(f"{row['state']:<11} {name:<32} {size_text(row['bytes'])}{of}{speed}")
    return rows
