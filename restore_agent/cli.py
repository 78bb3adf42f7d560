"""The door: the program's name, its commands, and the way from their result to an exit code.

A command's module is imported once that command is called, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import click

from . import __version__
from .errors import AgentError, Stopped, UsageError
from .signals import raised

_PROGRAM = "restore-agent"


# ---------------------------------------------------------------- the commands


def _load_commands() -> dict[str, click.Command]:
    from .commands import plan, run, status, verify

    return {"run": run, "plan": plan, "verify": verify, "status": status}


def _load_drill() -> dict[str, click.Command]:
    from .drill import rehearse, simulator

    return {"rehearse": rehearse, "simulator": simulator}


def _load_handbook() -> dict[str, click.Command]:
    from .handbook import completion, explain, man

    return {"explain": explain, "man": man, "completion": completion}


def _load_install() -> dict[str, click.Command]:
    from .install import alerts, ansible_collections, systemd

    return {"systemd": systemd, "alerts": alerts, "ansible-collections": ansible_collections}


_COMMANDS: dict[str, tuple[Callable[[], dict[str, click.Command]], str]] = {
    "run": (_load_commands, "Wait for the jobs, download, verify, write the receipt."),
    "plan": (_load_commands, "Show what `run` would do and whether it could."),
    "verify": (_load_commands, "Prove archives in DEST again, with late hashes."),
    "status": (_load_commands, "Show what a run in DEST is doing or did."),
    "rehearse": (_load_drill, "A drill: the real agent against a simulated Ops Manager."),
    "simulator": (_load_drill, "Serve a simulated Ops Manager until SIGTERM or SIGINT."),
    "explain": (_load_handbook, "Tell what an exit code means and what to do."),
    "man": (_load_handbook, "Print or install the manual pages."),
    "completion": (_load_handbook, "Print the completion script for bash, zsh or fish."),
    "systemd": (_load_install, "Print or install the systemd unit."),
    "alerts": (_load_install, "Print Prometheus alert rules for the metrics."),
    "ansible-collections": (_load_install, "Print the path for ANSIBLE_COLLECTIONS_PATH."),
}
"""Each command: who brings it, and its line in the list of commands."""


class Commands(click.Group):
    """A group whose commands are loaded when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order in which an operator meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command, or None when there is none of that name."""
        if cmd_name not in self.commands:
            wanted = [_COMMANDS[cmd_name]] if cmd_name in _COMMANDS else _COMMANDS.values()  # all, for "did you mean"
            for load, _ in wanted:
                self.commands.update(load())
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without loading one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=_PROGRAM)
def cli() -> None:
    """Bring MongoDB Ops Manager backups home: wait for restore jobs, download once, prove every archive.

    Exit code 0 means that every selected archive is verified. Each other code says what to do next, and
    `restore-agent explain CODE` says more.
    """


# ---------------------------------------------------------------- the way in and out


def main(arguments: list[str] | None = None) -> None:
    """Entry point: parse, run, exit with the contract's code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no dots must not end a run
    try:
        with raised():
            code = _called(arguments)
    except Stopped as stopped:  # before a command could see to it
        code = _ended(stopped, arguments)
    sys.exit(code if isinstance(code, int) else 0)


def _called(arguments: list[str]) -> Any:
    """What the command that was called ends with; a mistake in the call is told."""
    try:
        return cli.main(args=arguments, prog_name=_PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.Abort:
        return 130
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"See `{context.command_path} --help`." if context else None
        return _ended(UsageError(error.format_message(), hint=hint), arguments)


def _open_closed_streams() -> None:
    """Give each closed standard descriptor /dev/null: files in DEST must not get its number, nor a print fail."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _ended(error: AgentError, arguments: list[str]) -> int:
    """Report an end before any command's own, in the form that was asked for, as far as that can be read."""
    from .redaction import Redactor
    from .session import console, empty_receipt, end_with, output_wanted

    found = re.search(r"(?:^|\0)(?:-o\0?|--output[=\0])(text|json)(?:\0|$)", "\0".join(arguments))
    shown = console(output_wanted(found[1] if found else None), "none", Redactor(), "usage")
    return end_with(shown, error, empty_receipt)
