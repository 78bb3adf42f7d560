"""The command `explain`."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Any

import click
from click.shell_completion import CompletionItem

from ...core.errors import UsageError
from ...core.exit_codes import EXIT_CODES, Reason, all_reasons, code_of, codes, explained
from ...ui.terminal import write_lines
from ..config_file import did_you_mean
from ..help import Command
from ..options import common, options
from ..session import Session, execute

_WIDTH = 80

_EXAMPLES = """
restore-agent explain 23
restore-agent explain hash-mismatch
restore-agent explain job-broken
restore-agent explain -o json
"""


def _complete_code(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    known = {str(code): EXIT_CODES[code].meaning for code in codes()}
    known |= {reason.id: reason.text for reason in all_reasons().values()}
    return [CompletionItem(word, help=text) for word, text in known.items() if word.startswith(incomplete)]


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("code", required=False, shell_complete=_complete_code, metavar="[CODE]")
@options("output")
@common(config=False)
def explain(code: str | None, **flags: Any) -> int:
    """Explain an exit code or a reason: meaning, files on disk, downloads spent, and next steps.

    CODE is an exit code, or a reason as messages, receipts, and plans contain it. Without CODE, all exit codes are
    listed.
    """
    return execute("explain", flags, lambda session: _explain(session, code), config=False)


def _explain(session: Session, word: str | None) -> int:
    reason = all_reasons().get(word or "")
    wanted = codes() if word is None else [code_of(word)] if reason is None else [reason.exit_code]
    if word is not None and reason is None and wanted == [None]:
        similar = did_you_mean(word, all_reasons())
        hint = "`restore-agent explain` lists all exit codes and reasons."
        raise UsageError(f"{word[:40]!r} is neither an exit code nor the id of a reason{similar}", hint=hint)
    answers: list[dict[str, Any]] = [explained(code) for code in wanted if code is not None] or [{}]
    if reason is not None:
        answers = [{"reason": reason.id, "reason_text": reason.text, **answers[0]}]
    if session.values.get("output") == "json":
        lines = [json.dumps(answer) for answer in answers]
    elif word is None:
        lines = [*(line for answer in answers for line in _row(answer)), *_reason_list()]
    else:
        lines = [*(_about(reason) if reason else []), *(_paragraphs(answers[0]) if "exit_code" in answers[0] else [])]
    write_lines("\n".join(lines), sys.stdout)
    return 0


def _about(reason: Reason) -> list[str]:
    hint = f" Next: {reason.hint}" if reason.hint else ""
    return textwrap.wrap(f"{reason.id}: {reason.text}{hint}".replace("`", ""), _WIDTH, **_indent("", 4))


def _reason_list() -> list[str]:
    names = ", ".join(sorted(all_reasons()))
    return ["", *textwrap.wrap(f"Reasons: {names}.", _WIDTH, **_indent("", 5))]


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
