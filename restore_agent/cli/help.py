"""Help of commands: options under headings, and lines that break only at spaces."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

import click

GROUPS = {
    "connection": "Connection",
    "target": "What to restore",
    "request": "Request for a restore",
    "dest": "Destination",
    "limits": "Limits",
    "output": "Output",
}
"""Groups of options and their headings, in the order of the help."""

_STACKED = 72
"""Columns below which the text of an option is written under its name instead of next to it."""


class HelpFormatter(click.HelpFormatter):
    """Help text whose lines break only at spaces, so that option names, URLs, and choices can be copied."""

    def write_text(self, text: str) -> None:
        """Write paragraphs, wrapped."""
        indent = " " * self.current_indent
        paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
        self.write("\n\n".join(_wrapped(part, self.width, indent) for part in paragraphs if part) + "\n")

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write terms with their texts: in two columns, or below each other if the terminal is narrow."""
        entries, indent = list(rows), " " * self.current_indent
        first = min(max((len(term) for term, _ in entries), default=0), col_max) + col_spacing
        stacked = self.width < _STACKED
        text_indent = " " * (self.current_indent + (4 if stacked else first))
        for term, text in entries:
            own_line = stacked or len(term) > first - col_spacing
            lines = _wrapped(text, self.width, text_indent)
            if own_line:
                self.write(f"{indent}{term.rstrip()}\n{lines}\n" if text else f"{indent}{term}\n")
            else:
                self.write(f"{indent}{term:<{first}}{lines[len(text_indent) :]}\n")


def _wrapped(text: str, width: int, indent: str) -> str:
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return "\n".join(lines)


class HelpContext(click.Context):
    """Context that formats help with `HelpFormatter`."""

    formatter_class = HelpFormatter


class GroupedOption(click.Option):
    """Option with the heading under which the help lists it."""

    def __init__(self, *args: Any, heading: str, **more: Any) -> None:
        super().__init__(*args, **more)
        self.heading = heading


class Command(click.Command):
    """Command whose help lists its options under headings and ends with examples."""

    context_class = HelpContext

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings, in the order of `GROUPS`; the others last."""
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in GROUPS.values()}
        others: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and record[1]:
                heading = getattr(parameter, "heading", None)
                (sections[heading] if heading else others).append(record)
        grouped = {heading: records for heading, records in sections.items() if records}
        grouped["Other options" if grouped else "Options"] = others
        for heading, records in grouped.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples unchanged, so that they can be copied."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"  {line}\n")
