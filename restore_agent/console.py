"""How events look: bars and lines for people, JSON Lines for programs. Results on stdout, the rest on stderr.

Every string passes through `printable` and the redactor on its way out, so that neither a server's control
characters nor a secret reach a terminal or a log.
"""

from __future__ import annotations

import json
import os
import textwrap
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from .errors import EXIT_CODES
from .events import (
    ArchiveProgress,
    ArchiveSettled,
    AttemptEnded,
    Downloaded,
    DownloadStarted,
    Event,
    Failed,
    Finished,
    JobSeen,
    Notice,
    Progress,
    RunStarted,
)
from .receipt import ArchiveRecord, Receipt, Verdict, rfc3339
from .redaction import Redactor, printable

if TYPE_CHECKING:
    from tqdm import tqdm

_WIDTH = 80
_NARROW = 72  # columns: below, a bar beside name, bytes, rate and time left has no room
_INDENT = " " * 10  # under the archive names of the closing table
_PLAIN_EVERY = 30.0  # seconds between two plain progress lines
_JSON_EVERY = 5.0  # seconds between two progress events on stdout
_ERROR, _WARNING, _INFO = 3, 4, 6  # priorities of sd-daemon(3)
_COLOURS = {"verified": "32", "skipped": "2", "unproven": "33", "mismatch": "31", "failed": "31"}


# ---------------------------------------------------------------- words


def size_text(size: float | None) -> str:
    """Bytes for people, powers of 1024: `1.5 GiB`."""
    if size is None:
        return "?"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def time_text(seconds: float) -> str:
    """Seconds for people: `45s`, `12m05s`, `3h10m`, `2d04h`."""
    whole = max(0, int(seconds))
    for unit, below, length in (("d", "h", 86400), ("h", "m", 3600), ("m", "s", 60)):
        if whole >= length:
            rest = (whole % length) // {"h": 3600, "m": 60, "s": 1}[below]
            return f"{whole // length}{unit}{rest:02d}{below}"
    return f"{whole}s"


def shortened(text: str, width: int) -> str:
    """`text` in `width` columns, its middle left out: the ends of archive names tell them apart."""
    if len(text) <= width:
        return text
    head = (width - 1) * 2 // 3
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def folded(text: str, width: int) -> list[str]:
    """`text` in lines of `width` columns, the later ones under the first word after the time. A longer word, such as
    a path, stays whole so that it can be copied, unless the terminal is so narrow that every name is longer.
    """
    indent, narrow = " " * 9, width < _NARROW
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=narrow)


def room_on(stream: TextIO) -> tuple[int, int]:
    """Columns and lines to fill on a terminal, 80 by 24 where it does not say; three columns stay free, or the `^C`
    that the terminal echoes would wrap and push the bars out of place.
    """
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, lines = 0, 0
    return max(20, (columns or _WIDTH) - 3), lines or 24


def say(text: str, file: TextIO) -> None:
    """Print a line. A reader that went away, or a full disk behind stdout, must not end a run or its exit code."""
    try:
        print(text, file=file, flush=True)
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


# ---------------------------------------------------------------- JSON


class JsonConsole:
    """JSON Lines on stdout, each with `event` and `time`; the last is the result."""

    def __init__(self, out: TextIO, redactor: Redactor) -> None:
        self._out = out
        self._redactor = redactor
        self._due = 0.0

    def report(self, event: Event) -> None:
        """Print one line; progress is thinned to one in five seconds."""
        if isinstance(event, Progress):
            if time.monotonic() < self._due:
                return
            self._due = time.monotonic() + _JSON_EVERY
        line = {"event": event.name, "time": rfc3339(time.time()), **_fields(event)}
        say(json.dumps(_cleaned(line, self._redactor)), self._out)

    def close(self) -> None:
        """Nothing is held."""


def _fields(event: Event) -> dict[str, Any]:
    match event:
        case Finished():
            plan = {} if event.plan is None else {"plan": [dict(row) for row in event.plan]}
            return {**event.receipt.to_json(), **plan}
        case ArchiveSettled():
            return {**asdict(event.record), "problem": dict(event.problem) if event.problem else None}
        case Failed():
            return dict(event.problem)
        case _:
            return {name: value for name, value in asdict(event).items() if name != "job_id" or value is not None}


def _cleaned(value: Any, redactor: Redactor) -> Any:
    """The value with every string redacted and made printable."""
    if isinstance(value, str):
        return printable(redactor.clean(value), 4000)  # hidden before it is cut, or half a secret would stay
    if isinstance(value, Mapping):
        return {name: _cleaned(item, redactor) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(item, redactor) for item in value]
    return value


# ---------------------------------------------------------------- text


class TextConsole:
    """Log lines and progress on stderr, the closing table on stdout."""

    def __init__(
        self, out: TextIO, err: TextIO, redactor: Redactor, progress: str, command: str, journal: bool = False
    ) -> None:
        self._out, self._err, self._redactor, self._command, self._journal = out, err, redactor, command, journal
        kind = progress if progress != "auto" else "bar" if err.isatty() else "plain"
        self._progress: _Bars | _PlainLines | None = None
        if kind in ("bar", "plain"):
            self._progress = _Bars(err) if kind == "bar" else _PlainLines(self._log)
        self._folds = kind == "bar" or err.isatty()
        self._coloured = "NO_COLOR" not in os.environ and out.isatty()
        self._hints: dict[int, str] = {}  # by exit code: what the error that ended the run says is next

    def report(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Progress):
            if self._progress:
                self._progress.show(event.archives)
        elif isinstance(event, Finished):
            self.close()
            self._finish(event)
        else:
            if isinstance(event, Failed):
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
            lines = [part for line in lines for part in folded(line, room_on(self._err)[0])]
        if self._journal and told:  # one entry with its priority; the journal knows the time
            lines = [f"<{priority}>" + "; ".join(self._clean(line.strip()) for line in told)]
        if isinstance(self._progress, _Bars):
            self._progress.write(lines)
        elif lines:
            say("\n".join(lines), self._err)

    def _finish(self, event: Finished) -> None:
        rows = _plan_rows(event.plan) if event.plan is not None else self._archive_rows(event.receipt)
        say("\n".join([*rows, *self._closing(event)]), self._out)

    def _closing(self, event: Finished) -> list[str]:
        receipt, code = event.receipt, event.receipt.exit_code
        if event.plan is not None and code == 0:
            return ["Nothing stands in the way."]
        if code == 0:
            return [_success(receipt, self._command)]
        meaning, advice = (text.replace("`", "") for text in EXIT_CODES[code])
        judged = [record for record in receipt.archives if record.verdict is not Verdict.SKIPPED]
        verified = sum(record.verdict is Verdict.VERIFIED for record in judged)
        count = [f"{verified} of {len(judged)} archives verified."] if event.plan is None and len(judged) > 1 else []
        told = (f"Exit code {code}: {meaning}.", f"Next: {self._clean(self._hints.get(code, f'{advice}.'))}")
        return [*count, *(line for text in told for line in textwrap.wrap(text, _WIDTH))]

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
        return [_INDENT + part for part in textwrap.wrap(told, _WIDTH - len(_INDENT), break_on_hyphens=False)]


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
        case ArchiveSettled(problem=problem) if problem:
            return problem_lines(problem)
        case Failed():
            return problem_lines(event.problem)
        case _:
            told = _sentence(event)
            return [told] if told else []


def _priority(event: Event) -> int:
    match event:
        case Failed():
            return _ERROR
        case ArchiveSettled(problem=problem) if problem:
            return _ERROR
        case AttemptEnded():
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
        case AttemptEnded():
            spent = "a download may be spent" if event.spent else "no download was spent"
            after = f"{size_text(event.received)} on disk, {spent}, next attempt in {time_text(event.wait)}"
            return f"{event.archive}: {event.message} ({after})"
        case Downloaded():
            speed = f" ({size_text(event.bytes / event.seconds)}/s)" if event.seconds > 0 else ""
            took = f"{size_text(event.bytes)} in {event.seconds:.1f} s{speed}"
            return f"{event.archive}: {took}, waiting for the published hash"
        case ArchiveSettled():
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


class _PlainLines:
    """A line every 30 seconds, for pipes and logs."""

    def __init__(self, log: Callable[[list[str]], None]) -> None:
        self._log = log
        self._due = time.monotonic() + _PLAIN_EVERY

    def show(self, archives: tuple[ArchiveProgress, ...]) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _PLAIN_EVERY
        for row in archives:
            if row.state in ("downloading", "hashing"):
                of = f" of {size_text(row.total_bytes)}" if row.total_bytes else ""
                rate = size_text(row.bytes_per_second)
                self._log([f"{row.file_name}: {row.state}, {size_text(row.bytes)}{of}, {rate}/s"])
        if waiting := waiting_text(archives):
            self._log([waiting])

    def close(self) -> None:
        pass


def waiting_text(archives: tuple[ArchiveProgress, ...]) -> str | None:
    """One line for the jobs that wait: how many, their statuses, the tightest expiry."""
    waiting = [row for row in archives if row.state == "waiting"]
    if not waiting:
        return None
    statuses: dict[str, int] = {}
    for row in waiting:
        statuses[row.delivery_status or "not started"] = statuses.get(row.delivery_status or "not started", 0) + 1
    said = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    expiries = [row.expires_in for row in waiting if row.expires_in is not None]
    tightest = f"; first expires in {time_text(min(expiries))}" if expiries and min(expiries) > 0 else ""
    return f"waiting for {len(waiting)} {'job' if len(waiting) == 1 else 'jobs'}: {said}{tightest}"


class _Bars:
    """Rows at the foot of a terminal: one for the jobs that wait, then one per archive under way.

    A row belongs to no archive: each shows whoever is at its place now, so that only the last ones ever go and no
    blank one stays between the others.
    """

    _SHOWN = 12  # bars at most, so that a batch of hundreds does not scroll the terminal away

    def __init__(self, err: TextIO) -> None:
        from tqdm import tqdm  # a tenth of all that a short run loads, and only who looks on needs it

        self._tqdm = tqdm
        self._err = err
        self._rows: list[tqdm[Any]] = []
        self._shown_any = False

    def show(self, archives: tuple[ArchiveProgress, ...]) -> None:
        self._shown_any = True
        columns, lines = room_on(self._err)
        moving = [row for row in archives if row.state in ("downloading", "hashing")]
        moving.sort(key=lambda row: row.state)  # what still comes in is looked at more than what awaits its hash
        most = max(1, min(self._SHOWN, lines // 2))
        shown = [(_bar_format(row, columns), row.bytes, row.total_bytes) for row in moving[:most]]
        if waiting := waiting_text(archives):
            shown.insert(0, (_text_format(waiting, columns), 0, None))
        if len(moving) > most:
            shown.append((_text_format(f"and {len(moving) - most} more under way", columns), 0, None))
        self._draw(shown, columns)

    def _draw(self, shown: list[tuple[str, int, int | None]], columns: int) -> None:
        """Show rows of tqdm's format, bytes and total bytes."""
        self._drop(len(shown))
        for layout, done, total in shown[len(self._rows) :]:
            fixed: dict[str, Any] = {"file": self._err, "leave": False}
            self._rows.append(self._tqdm(total=total, initial=done, bar_format=layout, ncols=columns, **fixed))
        for bar, (layout, done, total) in zip(self._rows, shown, strict=True):
            bar.ncols, bar.total, bar.n, bar.bar_format = columns, total, done, layout
            bar.refresh()

    def _drop(self, left: int) -> None:
        while len(self._rows) > left:
            self._rows.pop().close()

    def write(self, lines: list[str]) -> None:
        """Log lines above the bars."""
        for line in lines:
            with suppress(OSError, ValueError):
                self._tqdm.write(line, file=self._err)

    def close(self) -> None:
        if not self._shown_any:
            return
        self._drop(0)
        with suppress(OSError, ValueError):
            self._err.write("\r\x1b[J")  # the cursor stands where the last bar ended, maybe behind an echoed ^C
            self._err.flush()


def _bar_format(row: ArchiveProgress, columns: int) -> str:
    """The row of one archive for tqdm to fill in; without the bar itself where the terminal is narrow."""
    wide = columns >= _NARROW
    width = 28 if wide else max(8, columns - 25)
    called = row.file_name or row.job_id
    name = _text_format(called if wide else called.removesuffix(".tar.gz"), width).ljust(width)
    done, speed = size_text(row.bytes), f"{size_text(row.bytes_per_second)}/s"
    if row.state == "hashing" and row.bytes == (row.total_bytes or row.bytes):
        told = f"{done:>10}  {'waiting for the published hash' if wide else 'awaits hash'}"
    elif not row.total_bytes:
        size = "size unknown" if row.bytes else "no byte yet"
        told = f"{done:>10} {speed:>12}{'  ' + size if wide else ''}"
    else:
        left = (row.total_bytes - row.bytes) / row.bytes_per_second if row.bytes_per_second else None
        eta = "--" if left is None else time_text(left)
        bar = f"|{{bar}}| {done:>9} {speed:>12} {eta:>7}" if wide else f" {speed:>12} {eta:>6}"
        told = f"{{percentage:3.0f}}%{bar}"
    return f"{name} {told}"


def _text_format(text: str, columns: int) -> str:
    """`text` in so many columns, with nothing in it that tqdm would fill in."""
    return shortened(printable(text), columns).replace("{", "{{").replace("}", "}}")


def console_for(output: str, progress: str, out: TextIO, err: TextIO, redactor: Redactor, command: str) -> Console:
    """The console that the operator asked for."""
    if output == "json":
        return JsonConsole(out, redactor)
    return TextConsole(out, err, redactor, progress, command, _is_the_journal(err))


def _is_the_journal(stream: TextIO) -> bool:
    """Whether what is written here ends in systemd's journal: JOURNAL_STREAM names it by device and inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


Console = JsonConsole | TextConsole


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
