"""Console for text: log and progress on stderr, results on stdout."""

from __future__ import annotations

import os
import textwrap
import time
from typing import TextIO

from ...core.errors import NotUnpacked
from ...core.events import ArchiveFinished, Event, Progress, RunFailed, RunFinished
from ...core.exit_codes import EXIT_CODES
from ...core.receipt import Verdict
from ...core.redaction import Redactor
from ...core.untrusted import printable
from ..bars import Bars, PlainLines
from ..terminal import WIDTH, output_width, terminal_size, write_lines
from ..wording import folded
from .sentences import INFO, lines_of, priority_of
from .tables import archive_rows, plan_rows, success_lines

_RUN_COMMANDS = ("run", "plan", "verify", "rehearse")
"""Commands that end with a table of archives. The results of the others are their own output."""

_USAGE = 2


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
        self._colored = "NO_COLOR" not in os.environ and out.isatty()
        self._hints: dict[int, set[str]] = {}
        """Next steps by exit code, from the errors of the run and of its archives."""

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
                self.close()  # no progress is shown below the error
                self._hints[event.problem["exit_code"]] = {event.problem["hint"]}
            elif isinstance(event, ArchiveFinished) and event.problem:
                self._hints.setdefault(event.problem["exit_code"], set()).add(event.problem["hint"])
            self._log(lines_of(event, self._command), priority_of(event))

    def close(self) -> None:
        """Remove the progress."""
        if self._progress:
            self._progress.close()
        self._progress = None

    def _clean(self, text: str) -> str:
        return printable(self._redactor.clean(text), 2000)

    def _log(self, texts: list[str], priority: int = INFO) -> None:
        """Log lines. A line break inside of a text, which only a server can send, does not start a new line."""
        stamp = time.strftime("%H:%M:%S")
        lines = [f"{stamp} {self._clean(line)}" for line in texts]
        if self._folds:
            lines = [part for line in lines for part in folded(line, terminal_size(self._err)[0])]
        if self._journal and texts:  # one entry with its priority, without the time, which the journal adds
            lines = [f"<{priority}>" + "; ".join(self._clean(line.strip()) for line in texts)]
        if isinstance(self._progress, Bars):
            self._progress.write(lines)
        elif lines:
            write_lines("\n".join(lines), self._err)

    def _finish(self, event: RunFinished) -> None:
        """Print the results. A usage error has none, and a command with its own output prints no table."""
        code = event.receipt.exit_code
        if code == _USAGE or self._command not in _RUN_COMMANDS:
            return
        width = output_width(self._out)
        if event.plan is not None:
            rows = plan_rows(event.plan, width)
        else:
            rows = archive_rows(event.receipt, self._clean, width, colored=self._colored)
        files = [f"  {name:<8} {self._clean(path)}" for name, path in (event.more or {}).items() if path]
        write_lines("\n".join([*rows, *self._closing(event), *files]), self._out)

    def _closing(self, event: RunFinished) -> list[str]:
        receipt, code = event.receipt, event.receipt.exit_code
        if event.plan is not None and code == 0:
            return ["Nothing stands in the way."]
        if code == 0:
            return success_lines(receipt, self._command)
        meaning, next_step = EXIT_CODES[code].meaning.replace("`", ""), EXIT_CODES[code].next_step.replace("`", "")
        hints = self._hints.get(code, set())
        hint = self._clean(next(iter(hints))) if len(hints) == 1 else f"{next_step}."
        judged = [record for record in receipt.archives if record.verdict is not Verdict.SKIPPED]
        verified = sum(record.verdict is Verdict.VERIFIED for record in judged)
        not_unpacked = sum(record.exit_code == NotUnpacked.exit_code for record in judged)
        unpacking = f", {not_unpacked} not unpacked" if not_unpacked else ""
        text = f"{verified} of {len(judged)} archives verified{unpacking}."
        count = [text] if event.plan is None and len(judged) > 1 else []
        texts = (f"Exit code {code}: {meaning}.", f"Next: {hint}")
        return [*count, *(line for text in texts for line in textwrap.wrap(text, WIDTH, break_on_hyphens=False))]
