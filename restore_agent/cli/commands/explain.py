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
from ...ui.terminal import say
from ..options import Examples, common, options
from ..session import Session, execute

_WIDTH = 80


_EXPLAIN_EXAMPLES = """
restore-agent explain 23
restore-agent explain hash-mismatch
restore-agent explain -o json
"""


def _complete_code(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:

    return [CompletionItem(str(code), help=EXIT_CODES[code][0]) for code in codes() if str(code).startswith(incomplete)]


@click.command(cls=Examples, epilog=_EXPLAIN_EXAMPLES)
@click.argument("code", required=False, shell_complete=_complete_code)
@options("output")
@common(config=False)
def explain(code: str | None, **flags: Any) -> int:
    """Tell what an exit code means, what is on disk, whether a download is spent, and what to do next.

    CODE is an exit code, or the id of a reason as errors and receipts name it. Without one all codes are listed.
    """
    return execute("explain", flags, lambda session: _explain(session, code), config=False)


def _explain(session: Session, word: str | None) -> int:

    code = code_of(word) if word is not None else None
    if word is not None and code is None:
        hint = "`restore-agent explain` lists all codes."
        raise UsageError(f"{word[:40]!r} is neither an exit code nor the id of a reason", hint=hint)
    wanted = [explained(one) for one in ([code] if code is not None else codes())]
    if session.values.get("output") == "json":
        lines = [json.dumps(one) for one in wanted]
    elif word is None:
        lines = [line for one in wanted for line in _row(one)]
    else:
        lines = _answer(wanted[0])
    say("\n".join(lines), sys.stdout)
    return 0


def _row(told: dict[str, Any]) -> list[str]:
    text = f"{told['meaning']}. Next: {told['advice']}.".replace("`", "")
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{told['exit_code']:>3}  ", subsequent_indent=" " * 5)


def _answer(told: dict[str, Any]) -> list[str]:
    meaning, advice = (told[name].replace("`", "") for name in ("meaning", "advice"))
    rows = textwrap.wrap(f"Exit code {told['exit_code']}: {meaning}.", _WIDTH)
    if told["reasons"]:
        rows += _paragraph("reasons", ", ".join(told["reasons"]))
    rows += [*_paragraph("on disk", told["on_disk"]), *_paragraph("download spent", told["download"])]
    rows.append(f"  in short: {advice}")
    for step in told["next"]:
        is_command = step.startswith(("restore-agent ", "cd ", "df "))
        rows += [f"      {step}"] if is_command else textwrap.wrap(step, _WIDTH, **_indent("    - ", 6))
    return rows


def _paragraph(title: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, **_indent(f"  {title}: ", 4))


def _indent(first: str, rest: int) -> dict[str, Any]:
    return {"initial_indent": first, "subsequent_indent": " " * rest, "break_on_hyphens": False}
