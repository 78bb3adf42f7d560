"""The command `completion`."""

from __future__ import annotations

import sys
from typing import Any

import click
from click.shell_completion import ShellComplete, get_completion_class

from ....ui.terminal import write_lines
from ...help import Command
from ...options import common
from ...session import execute

_EXAMPLES = """
restore-agent completion bash > /etc/bash_completion.d/restore-agent
restore-agent completion zsh > /usr/local/share/zsh/site-functions/_restore-agent
restore-agent completion fish > /etc/fish/completions/restore-agent.fish
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common(config=False)
def completion(shell: str, **flags: Any) -> int:
    """Print the completion script for bash, zsh, or fish."""
    group = click.get_current_context().find_root().command
    return execute("completion", flags, lambda _: _completion(group, shell), config=False)


def _completion(group: click.Command, shell: str) -> int:
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # click has a class for each of the three shells
    script = kind(group, {}, "restore-agent", "_RESTORE_AGENT_COMPLETE")
    write_lines(
        ShellComplete.source(script).strip("\n"), sys.stdout
    )  # not the subclass's method, which starts bash to get its version
    return 0
