"""The command `completion`."""

from __future__ import annotations

import sys
from typing import Any

import click
from click.shell_completion import ShellComplete, get_completion_class

from ....ui.terminal import say
from ...options import Examples, common
from ...session import execute

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

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # click knows the three that the argument admits
    script = kind(group, {}, "restore-agent", "_RESTORE_AGENT_COMPLETE")
    say(ShellComplete.source(script).strip("\n"), sys.stdout)  # not the heir's, which starts a bash to ask its version
    return 0
