"""`explain`, `man` and `completion`: what an operator reads, and what the shell types for them."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from .errors import UsageError
from .options import Examples, common, options
from .session import Session, execute

_WIDTH = 80


# ---------------------------------------------------------------- explain


_EXPLAIN_EXAMPLES = """
restore-agent explain 23
restore-agent explain hash-mismatch
restore-agent explain -o json
"""


def _complete_code(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from .advice import codes
    from .errors import EXIT_CODES

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
    from .advice import code_of, codes, explained
    from .console import say

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


# ---------------------------------------------------------------- man


_MAN_EXAMPLES = """
restore-agent man | man -l -
restore-agent man run | man -l -
restore-agent man --install /usr/local/share/man
"""


def _complete_command(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    group = ctx.find_root().command
    assert isinstance(group, click.Group)  # noqa: S101  # the root is the group that holds this command
    return [CompletionItem(name) for name in group.list_commands(ctx) if name.startswith(incomplete)]


@click.command(cls=Examples, epilog=_MAN_EXAMPLES)
@click.argument("command", required=False, shell_complete=_complete_command)
@click.option(
    "--install", metavar="DIR", type=click.Path(), help="Write all pages into DIR/man1 instead, and print their paths."
)
@common(config=False)
def man(command: str | None, install: str | None, **flags: Any) -> int:
    """Print the manual page of the program or of one COMMAND, as man(1) reads it; or install them all."""
    group = click.get_current_context().find_root().command
    return execute("man", flags, lambda _: _man(group, command, install), config=False)


def _man(group: click.Command, command: str | None, install: str | None) -> int:
    from .console import say
    from .manual import page, page_names
    from .shipped import write_file

    assert isinstance(group, click.Group)  # noqa: S101  # the root is the group that holds this command
    if install is not None:
        for name in page_names(group):
            path = Path(install, "man1", f"{name}.1")
            write_file(path, page(group, name).encode())
            say(str(path), sys.stdout)
        return 0
    try:
        say(page(group, f"restore-agent-{command}" if command else "restore-agent").rstrip("\n"), sys.stdout)
    except KeyError:
        raise UsageError(f"there is no command {command!r}", hint="See `restore-agent --help`.") from None
    return 0


# ---------------------------------------------------------------- completion


_COMPLETION_EXAMPLES = """
restore-agent completion bash > /etc/bash_completion.d/restore-agent
restore-agent completion zsh > /usr/local/share/zsh/site-functions/_restore-agent
restore-agent completion fish > /etc/fish/completions/restore-agent.fish
"""


@click.command(cls=Examples, epilog=_COMPLETION_EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common(config=False)
def completion(shell: str, **flags: Any) -> int:
    """Print the completion script for a SHELL: bash, zsh or fish."""
    group = click.get_current_context().find_root().command
    return execute("completion", flags, lambda _: _completion(group, shell), config=False)


def _completion(group: click.Command, shell: str) -> int:
    from .console import say

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # click knows the three that the argument admits
    script = kind(group, {}, "restore-agent", "_RESTORE_AGENT_COMPLETE")
    say(ShellComplete.source(script).strip("\n"), sys.stdout)  # not the heir's, which starts a bash to ask its version
    return 0
