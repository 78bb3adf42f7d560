"""Options as click wants them, made from the table in `settings`; and commands whose help ends with examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from .settings import DEFAULT_CONFIG, OPTIONS, Option

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def options(*names: str) -> Decorator:
    """Options of the table, as click wants them; values stay text until settings parse them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            function = _option(name)(function)
        return function

    return decorate


def _option(name: str) -> Decorator:
    option = OPTIONS[name]
    flags = [option.flag, *("--" + alias.replace("_", "-") for alias in option.aliases)]
    notes = [f"${option.env}"] if option.env else []
    if option.default is not None and option.metavar:
        notes.append(f"default {option.default}")
    text = option.help + (f" [{'; '.join(notes)}]" if notes else "")
    if not option.metavar:
        return click.option(*flags, name, is_flag=True, help=text)
    short = [option.short] if option.short else []
    given: dict[str, Any] = {"metavar": option.metavar, "multiple": option.many, "shell_complete": _completes(option)}
    return click.option(*short, *flags, name, help=text, **given)


def _completes(option: Option) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """What the shell offers for a value, by its kind: paths, one of a few words, or nothing."""
    kinds = {"FILE": "file", "DIR": "dir"}

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if option.metavar in kinds:
            return [CompletionItem(incomplete, type=kinds[option.metavar])]
        words = option.metavar.split("|") if "|" in option.metavar else []
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]

    return complete


def common(function: Callable[..., Any] | None = None, *, config: bool = True) -> Callable[..., Any]:
    """`--debug` and, unless told otherwise, `--config`: for every command."""

    def decorate(decorated: Callable[..., Any]) -> Callable[..., Any]:
        debug = "Show a traceback (secrets hidden) when something fails."
        decorated = click.option("--debug", is_flag=True, help=debug)(decorated)
        text = "TOML file with the same names, underscores for dashes. [$RESTORE_AGENT_CONFIG; default {}]"
        if config:
            path = click.Path()  # for the shell; whether it can be read, settings tell
            decorated = click.option("--config", metavar="FILE", type=path, help=text.format(DEFAULT_CONFIG))(decorated)
        return decorated

    return decorate(function) if function else decorate


class Examples(click.Command):
    """A command whose help ends with examples, kept line by line."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they stand."""
        if self.epilog:
            with formatter.section("Examples"):
                formatter.write_paragraph()
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"  {line}\n")
