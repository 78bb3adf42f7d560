"""Command-line entry point: program name, commands, and exit codes."""

from __future__ import annotations

import gc
import io
import os
import re
import sys
from importlib import import_module
from typing import Any, NamedTuple

import click

from .. import __version__
from ..core.errors import AgentError, OutputUnwritable, Stopped, UsageError
from .help import HelpContext
from .signals import hold_signals, raise_signals

_PROGRAM = "restore-agent"


class _Command(NamedTuple):
    """One command: its module below `commands/` and its line in the list of commands."""

    module: str
    summary: str

    def load(self, name: str) -> click.Command:
        """Import the module and return the command."""
        with hold_signals():
            module = import_module(f".commands.{self.module}", __package__)
        gc.freeze()  # the collector does not visit modules any more: 15% of a short run (share/doc/performance.md)
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command


_GROUPS: dict[str, dict[str, _Command]] = {
    "Restore": {
        "snapshots": _Command("restore.snapshots", "List the snapshots of a cluster, and which can be restored."),
        "request": _Command("restore.request", "Request the restore of one snapshot from Ops Manager."),
        "jobs": _Command("restore.jobs", "List the restore jobs of a cluster."),
        "plan": _Command("restore.plan", "Do a dry run: show what `run` would do, and report problems."),
        "run": _Command("restore.run", "Wait for the jobs, download, verify, write the receipt."),
        "status": _Command("restore.status", "Show what a run in DEST is doing or did."),
        "verify": _Command("restore.verify", "Verify archives in DEST again, with hashes published since."),
        "report": _Command("restore.report", "Report on a batch from its receipts, as text or as one HTML page."),
    },
    "Practice": {
        "rehearse": _Command("practice.rehearse", "Practice a restore against a simulated Ops Manager."),
        "simulator": _Command("practice.simulator", "Serve a simulated Ops Manager until SIGTERM or SIGINT."),
    },
    "Setup": {
        "check": _Command("setup.check", "Check the address, TLS, key, project, and cluster of Ops Manager."),
        "config": _Command("setup.config", "Print an example configuration, or the effective settings."),
        "completion": _Command("setup.completion", "Print the completion script for bash, zsh, or fish."),
        "man": _Command("setup.man", "Print or install the manual pages, or print a document."),
        "systemd": _Command("setup.systemd", "Print or install the systemd unit."),
        "alerts": _Command("setup.alerts", "Print Prometheus alert rules for the metrics."),
        "ansible-collections": _Command("setup.ansible_collections", "Print the path for ANSIBLE_COLLECTIONS_PATH."),
    },
    "Help": {
        "explain": _Command("explain", "Explain an exit code or a reason, with next steps."),
    },
}
"""The commands, by the heading under which `--help` lists them."""

_COMMANDS = {name: command for group in _GROUPS.values() for name, command in group.items()}


class Commands(click.Group):
    """A group whose commands are imported when they are called, so that `--help` and `--version` are fast."""

    context_class = HelpContext

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command. Return None if there is none of that name."""
        if cmd_name not in self.commands:
            wanted = [cmd_name] if cmd_name in _COMMANDS else list(_COMMANDS)  # all, for click's "did you mean"
            self.commands.update({name: _COMMANDS[name].load(name) for name in wanted})
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings without importing one."""
        width = max(map(len, _COMMANDS))
        for heading, commands in _GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), command.summary) for name, command in commands.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name=_PROGRAM)
def cli() -> None:
    """Download and verify MongoDB Ops Manager backups: wait for restore jobs, download each archive once, verify it.

    Exit code 0 means that every selected archive is verified. For every other code, `restore-agent explain CODE`
    shows what happened and what to do next.
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point: parse, run, exit with the contract's code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 must not end a run
    try:
        with raise_signals():
            code = _called(arguments)
    except Stopped as stopped:  # before or after the command handled signals itself
        code = _ended(stopped, arguments)
    sys.exit(_finished(code if isinstance(code, int) else 0, arguments))


def _finished(code: int, arguments: list[str]) -> int:
    """Return the exit code after all output is written, as far as its reader takes it."""
    if "restore_agent.cli.session" not in sys.modules:
        return code  # `--help` and `--version` have no session
    from .session import finish_output

    return finish_output(next((word for word in arguments if word in _COMMANDS), None), code)


def _called(arguments: list[str]) -> Any:
    """Return the result of the command that was called; report a wrong call."""
    try:
        return cli.main(args=arguments, prog_name=_PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.Abort:
        return 130
    except SystemExit:
        return 0  # how click ends after a closed pipe: `--help | head` has what it wants
    except OSError as error:  # of the text of `--help` or `--version`; those of a command are handled there
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the stream still holds must not fail again at the end
        return _ended(OutputUnwritable(f"cannot write the output: {error.strerror}"), arguments)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"See `{context.command_path} --help`." if context else f"See `{_PROGRAM} --help`."
        return _ended(UsageError(error.format_message(), hint=hint), arguments)


def _open_closed_streams() -> None:
    """Open /dev/null for each closed standard stream, so that no file in DEST gets its number and printing works."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _ended(error: AgentError, arguments: list[str]) -> int:
    """Report an error outside of a command, in the output form of the call, as far as it can be read."""
    # imported here because `--help` and `--version` need none of it, and it takes longer than they do
    from ..core.redaction import Redactor
    from .config import output_form
    from .session import console, empty_receipt, end_with

    line = "\0".join(arguments)
    patterns = {"output": r"(?:-o\0?|--output[=\0])(text|json)", "config": r"--config[=\0]([^\0]+)"}
    found = {name: re.search(rf"(?:^|\0){pattern}(?:\0|$)", line) for name, pattern in patterns.items()}
    flags = {name: match[1] for name, match in found.items() if match}
    shown = console(output_form(flags, os.environ), "none", Redactor(), "usage")
    return end_with(shown, error, empty_receipt)
