"""Options as click wants them, made from the table in `settings`; and commands whose help ends with examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from .settings import DEFAULT_CONFIG, OPTIONS


def options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options of the table, as click wants them; values stay text until settings parse them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            function = _option(name)(function)
        return function

    return decorate


def _option(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    option = OPTIONS[name]
    flags = [option.flag, *("--" + alias.replace("_", "-") for alias in option.aliases)]
    notes = [f"${option.env}"] if option.env else []
    if option.default is not None and option.metavar:
        notes.append(f"default {option.default}")
    text = option.help + (f" [{'; '.join(notes)}]" if notes else "")
    if not option.metavar:
        return click.option(*flags, name, is_flag=True, help=text)
    short = [option.short] if option.short else []
    return click.option(*short, *flags, name, metavar=option.metavar, multiple=option.many, help=text)


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option("--debug", is_flag=True, help="Show a traceback (secrets hidden) when something fails.")(
        function
    )
    config = "TOML file with the same names, underscores for dashes. [$RESTORE_AGENT_CONFIG; default {}]"
    return click.option("--config", metavar="FILE", help=config.format(DEFAULT_CONFIG))(function)


class Examples(click.Command):
    """A command whose help ends with examples, kept line by line."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they stand."""
        if self.epilog:
            with formatter.section("Examples"):
                formatter.write_paragraph()
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"  {line}\n")
