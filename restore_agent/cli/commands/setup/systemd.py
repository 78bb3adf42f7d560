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

_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108  # what ProtectHome and PrivateTmp hide


_EXAMPLES = """
restore-agent systemd
restore-agent systemd --install /etc/systemd/system
restore-agent systemd --install /etc/systemd/system \\
    --program '/usr/bin/python3 /opt/restore-agent.pyz'
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.option("--install", metavar="DIR", type=click.Path(), help="Write the unit into DIR and print its path.")
@click.option(
    "--program", metavar="COMMAND", help="The command line that starts the agent. [default: as this one was started]"
)
@common(config=False)
def systemd(install: str | None, program: str | None, **flags: Any) -> int:
    """Print the systemd unit restore-agent@.service, or install it.

    An instance is one restore: restore-agent@NAME goes by NAME.toml and NAME.key in /etc/restore-agent/.
    """
    return execute("systemd", flags, lambda _: _systemd(install, program), config=False)


def _systemd(install: str | None, program: str | None) -> int:
    unit = shipped_text("systemd", _UNIT).replace("@PROGRAM@", program or _this_program())
    if install is None:
        write_lines(unit.rstrip("\n"), sys.stdout)
        return 0
    path = Path(install, _UNIT)
    write_file(path, unit.encode())
    write_lines(str(path), sys.stdout)
    return 0


def _this_program() -> str:
    """The command line that started this process, for ExecStart=. Raises UsageError when the unit could not see it."""
    words = _started_as(Path(os.path.abspath(sys.argv[0])))
    for word in words if words[0] == sys.executable else (*words, sys.executable):
        if os.path.isabs(word) and os.path.realpath(word).startswith(tuple(f"{place}/" for place in _HIDDEN)):
            raise UsageError(
                f"the unit cannot see {os.path.realpath(word)}: home and temporary directories are hidden from it",
                hint="Install the agent below /opt or /usr/local, or name its command line with --program.",
            )
    return " ".join(_quoted(word) for word in words)


def _started_as(script: Path) -> list[str]:
    if script.name == "__main__.py":
        return [sys.executable, "-m", "restore_agent"]
    if script.is_file() and os.access(script, os.X_OK) and script.suffix != ".pyz":
        return [str(script)]
    return [sys.executable, str(script)]  # a zip file needs its interpreter


def _quoted(word: str) -> str:
    """A word of a command line as systemd.service(5) reads it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(sign in escaped for sign in " \t'\"\\;") else escaped
