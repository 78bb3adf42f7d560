"""The command `alerts`."""

from __future__ import annotations

import sys
from typing import Any

import click

from ....ui.terminal import write_lines
from ...help import Command
from ...options import common
from ...resources import shipped_text
from ...session import execute

_EXAMPLES = """
restore-agent alerts > /etc/prometheus/rules/restore-agent.yml
restore-agent alerts | promtool check rules /dev/stdin
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@common(config=False)
def alerts(**flags: Any) -> int:
    """Print Prometheus alert rules for the metrics that `run --metrics-file` writes."""
    return execute("alerts", flags, lambda _: _alerts(), config=False)


def _alerts() -> int:
    write_lines(shipped_text("prometheus", "alerts.yml").rstrip("\n"), sys.stdout)
    return 0
