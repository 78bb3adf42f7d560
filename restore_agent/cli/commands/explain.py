"""The command `explain`."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Any

import click
from click.shell_completion import CompletionItem

from ...core.errors import UsageError
from ...core.exit_codes import EXIT_CODES, code_of, codes, explained
from ...ui.terminal import write_lines
from ..help import Command
from ..options import common, options
from ..session import Session, execute

_WIDTH = 80

_EXAMPLES = """
restore-agent explain 23
restore-agent explain hash-mismatch
restore-agent explain -o json
"""


def _complete_code(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [
        CompletionItem(str(code), help=EXIT_CODES[code].meaning) for code in codes() if str(code).startswith(incomplete)
    ]


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("code", required=False, shell_complete=_complete_code)
@options("output")
@common(config=False)
def explain(code: str | None, **flags: Any) -> int:
    """Explain an exit code: meaning, files on disk, downloads spent, and next steps.

    CODE is an exit code, or the id of an error as messages and receipts contain it. Without CODE, all exit codes are
    listed.
    """
    return execute("explain", flags, lambda session: _explain(session, code), config=False)


def _explain(session: Session, word: str | None) -> int:
    code = code_of(word) if word is not None else None
    if word is not None and code is None:
        hint = "`restore-agent explain` lists all codes."
        raise UsageError(f"{word[:40]!r} is neither an exit code nor the id of a reason", hint=hint)
    answers = [explained(one) for one in ([code] if code is not None else codes())]
    if session.values.get("output") == "json":
        lines = [json.dumps(answer) for answer in answers]
    elif word is None:
        lines = [line for answer in answers for line in _row(answer)]
    else:
        lines = _paragraphs(answers[0])
    write_lines("\n".join(lines), sys.stdout)
    return 0


def _row(answer: dict[str, Any]) -> list[str]:
    text = f"{answer['meaning']}. Next: {answer['hint']}.".replace("`", "")
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{answer['exit_code']:>3}  ", subsequent_indent=" " * 5)


def _paragraphs(answer: dict[str, Any]) -> list[str]:
    meaning, hint = (answer[name].replace("`", "") for name in ("meaning", "hint"))
    rows = textwrap.wrap(f"Exit code {answer['exit_code']}: {meaning}.", _WIDTH)
    if answer["reasons"]:
        rows += _paragraph("reasons", ", ".join(answer["reasons"]))
    rows += [*_paragraph("on disk", answer["on_disk"]), *_paragraph("download spent", answer["download"])]
    rows.append(f"  in short: {hint}")
    for step in answer["steps"]:
        is_command = step.startswith(("restore-agent ", "cd ", "df "))
        rows += [f"      {step}"] if is_command else textwrap.wrap(step, _WIDTH, **_indent("    - ", 6))
    return rows


def _paragraph(title: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, **_indent(f"  {title}: ", 4))


def _indent(first: str, rest: int) -> dict[str, Any]:
    return {"initial_indent": first, "subsequent_indent": " " * rest, "break_on_hyphens": False}
