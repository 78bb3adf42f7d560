"""Plays of the role over the hosts of a lab, and how they end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lab import BIN, Lab

PLAYBOOK = "restore_agent.mongodb.restore"
HERE = {
    "restore_agent_install": "none",
    "restore_agent_command": [sys.executable, "-m", "restore_agent"],
}
"""The agent of this environment: quicker to start than a single file, whose modules are compiled at each start."""

QUICK: dict[str, Any] = {"restore_agent_settings": {"poll_interval": "0.2s"}}

FROM_SNAPSHOT = {
    "restore_agent_snapshot": "latest",
    "restore_agent_batch_id": "",
    "restore_agent_expect_jobs": 0,
}
"""Variables of a play that begins with a snapshot: nothing is known of its batch."""


LONGEST = 300.0
"""Seconds that one play may take. Three hosts: about 40 s of CPU time, and 20 to 76 s on two cores at a load of 5 to 13
(2026-11-26)."""

_RECAP = re.compile(r"^(\w+) +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Play:
    """How a playbook ended. `changed`, `unreachable` and `failed` are the recap's counts by host."""

    code: int
    out: str

    def _count(self, place: int) -> dict[str, int]:
        return {found[1]: int(found[place]) for found in _RECAP.finditer(self.out)}

    @property
    def changed(self) -> dict[str, int]:
        return self._count(3)

    @property
    def unreachable(self) -> dict[str, int]:
        return self._count(4)

    @property
    def failed(self) -> dict[str, int]:
        return self._count(5)


def start_play(lab: Lab, *arguments: str, version: str = "newest") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BIN[version] / "ansible-playbook", PLAYBOOK, *arguments],
        cwd=lab.directory,
        env={**os.environ, "ANSIBLE_CONFIG": str(lab.directory / "ansible.cfg")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def ended(process: subprocess.Popen[str], seconds: float = LONGEST) -> Play:
    """Wait for the end of a play. Fails with its output so far if that takes too long."""
    with process:
        try:
            out, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"no end after {seconds:.0f} s:\n{process.communicate()[0]}") from None
    return Play(process.returncode, out)


def followed(process: subprocess.Popen[str], pattern: str, act: Callable[[], object]) -> Play:
    """Wait for the end of a play, and act once its output matches."""
    limit = threading.Timer(LONGEST, process.kill)
    limit.start()
    out, acted = "", False
    with process:
        for line in process.stdout or ():
            out += line
            if not acted and re.search(pattern, out):
                act()
                acted = True
    limit.cancel()
    return Play(process.returncode, out)


def play(lab: Lab, *arguments: str, version: str = "newest") -> Play:
    return ended(start_play(lab, *arguments, version=version))


def variables(**values: Any) -> Sequence[str]:
    return ("-e", json.dumps(values))


def patiently(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of `condition`; a playbook takes its seconds until it gets to the point."""
    end = time.monotonic() + 90
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come about"
        time.sleep(0.05)
    return value
