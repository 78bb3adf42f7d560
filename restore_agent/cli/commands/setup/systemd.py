"""The command `systemd`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from ....core.errors import UsageError
from ....ui.terminal import write_lines
from ...help import Command
from ...options import common
from ...resources import shipped_text, write_file
from ...session import execute

_UNIT = "restore-agent@.service"

_HINT = "Install the agent below /opt or /usr/local, or set its command line with --program."

_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108  # hidden by ProtectHome and PrivateTmp


_EXAMPLES = """
restore-agent systemd
restore-agent systemd --install /etc/systemd/system
restore-agent systemd --install /etc/systemd/system \\
    --program '/usr/bin/python3 /opt/restore-agent.pyz'
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.option(
    "--install", metavar="DIR", type=click.Path(), help="Write the unit to DIR and print its path. [default: print it]"
)
@click.option("--program", metavar="COMMAND", help="Command line of the agent. [default: the one of this call]")
@common(config=False)
def systemd(install: str | None, program: str | None, **flags: Any) -> int:
    """Print the systemd unit restore-agent@.service, or install it.

    Each instance is one restore: restore-agent@NAME reads NAME.toml and NAME.key in /etc/restore-agent/.
    """
    return execute("systemd", flags, lambda _: _systemd(install, program), config=False)


def _systemd(install: str | None, program: str | None) -> int:
    words = _started_as(Path(os.path.abspath(sys.argv[0])))
    hidden = None if program else _hidden_file(words)
    if hidden and install is not None:
        raise UsageError(f"the unit cannot access {hidden}: it hides home and temporary directories", hint=_HINT)
    if hidden:
        write_lines(f"warning: the unit cannot access {hidden}: it hides home and temporary directories", sys.stderr)
        write_lines(f"  next: {_HINT}", sys.stderr)
    unit = shipped_text("systemd", _UNIT).replace("@PROGRAM@", program or " ".join(map(_quoted, words)))
    if install is None:
        write_lines(unit.rstrip("\n"), sys.stdout)
        return 0
    path = Path(install, _UNIT)
    write_file(path, unit.encode())
    write_lines(str(path), sys.stdout)
    return 0


def _hidden_file(words: list[str]) -> str | None:
    """Return a file of the command line, or the interpreter, that the unit could not access."""
    for word in words if words[0] == sys.executable else (*words, sys.executable):
        path = os.path.realpath(word)
        if os.path.isabs(word) and path.startswith(tuple(f"{directory}/" for directory in _HIDDEN)):
            return path
    return None


def _started_as(script: Path) -> list[str]:
    if getattr(sys, "frozen", False):  # the executable: its first argument may be a name that was found in PATH
        return [sys.executable]
    if script.name == "__main__.py":
        return [sys.executable, "-m", "restore_agent"]
    if script.is_file() and os.access(script, os.X_OK) and script.suffix != ".pyz":
        return [str(script)]
    return [sys.executable, str(script)]  # a zip file needs its interpreter


def _quoted(word: str) -> str:
    """Return a word of a command line, quoted for systemd.service(5)."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(sign in escaped for sign in " \t'\"\\;") else escaped
