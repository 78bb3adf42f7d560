"""The command `alerts`."""

from __future__ import annotations

import sys
from typing import Any

import click

from ....ui.terminal import say
from ...options import Examples, common
from ...resources import shipped_text
from ...session import execute

_ALERTS_EXAMPLES = """
restore-agent alerts > /etc/prometheus/rules/restore-agent.yml
restore-agent alerts | promtool check rules /dev/stdin
"""


@click.command(cls=Examples, epilog=_ALERTS_EXAMPLES)
@common(config=False)
def alerts(**flags: Any) -> int:
    """Print Prometheus alert rules for the metrics that `run --metrics-file` writes."""
    return execute("alerts", flags, lambda _: _alerts(), config=False)


def _alerts() -> int:

    say(shipped_text("prometheus", "alerts.yml").rstrip("\n"), sys.stdout)
    return 0
