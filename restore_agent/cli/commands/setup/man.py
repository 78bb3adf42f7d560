"""The command `man`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ....core.errors import UsageError
from ....ui.terminal import write_lines
from ...help import Command
from ...options import common
from ...resources import share, shipped_text, write_file
from ...session import execute

_EXAMPLES = """
restore-agent man | man -l -
restore-agent man run | man -l -
restore-agent man runbook | less
restore-agent man --install /usr/local/share/man
"""


def _names(directory: str, suffix: str) -> list[str]:
    place = share().joinpath(directory)
    if not place.is_dir():
        return []
    return sorted(entry.name.removesuffix(suffix) for entry in place.iterdir() if entry.name.endswith(suffix))


def _pages() -> list[str]:
    return _names("man/man1", ".1")


def topics() -> list[str]:
    """Return the names that `man` takes: the commands and the documents of `share/doc/`."""
    commands = [name.removeprefix("restore-agent-") for name in _pages() if name != "restore-agent"]
    return commands + _names("doc", ".md")


def _complete_topic(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in topics() if name.startswith(incomplete)]


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("topic", required=False, shell_complete=_complete_topic)
@click.option(
    "--install", metavar="DIR", type=click.Path(), help="Write all pages to DIR/man1 instead, and print their paths."
)
@common(config=False)
def man(topic: str | None, install: str | None, **flags: Any) -> int:
    """Print or install the manual pages, or print a document.

    TOPIC is a command or a document (runbook, ansible, operating, json, reliability, performance). Pages are in the
    format of man(1), documents in Markdown. Without TOPIC, the page of the program is printed.
    """
    return execute("man", flags, lambda _: _man(topic, install), config=False)


def _man(topic: str | None, install: str | None) -> int:
    if install is not None:
        for name in _pages():
            path = Path(install, "man1", f"{name}.1")
            write_file(path, shipped_text("man", "man1", f"{name}.1").encode())
            write_lines(str(path), sys.stdout)
        return 0
    write_lines(_text(topic).rstrip("\n"), sys.stdout)
    return 0


def _text(topic: str | None) -> str:
    page = f"restore-agent-{topic}" if topic else "restore-agent"
    if page in _pages():
        return shipped_text("man", "man1", f"{page}.1")
    if topic in _names("doc", ".md"):
        return shipped_text("doc", f"{topic}.md")
    raise UsageError(f"there is no command or document {topic!r}", hint=f"Topics are: {', '.join(topics())}.")
