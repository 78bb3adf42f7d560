"""The command `ansible-collections`."""

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
from ...resources import extract, share
from ...session import execute

_COLLECTIONS = "ansible_collections"


_EXAMPLES = """
export ANSIBLE_COLLECTIONS_PATH="$(restore-agent ansible-collections)"
restore-agent.pyz ansible-collections --extract ~/.ansible/restore-agent
"""


@click.command("ansible-collections", cls=Command, epilog=_EXAMPLES)
@click.option(
    "--extract",
    metavar="DIR",
    type=click.Path(),
    help="Copy the collection into DIR first, and print DIR. [default: no copy]",
)
@common(config=False)
def ansible_collections(extract: str | None, **flags: Any) -> int:
    """Print the directory of the Ansible collection, for ANSIBLE_COLLECTIONS_PATH.

    From the zipapp restore-agent.pyz, the collection must be extracted first, with --extract.
    """
    return execute("ansible-collections", flags, lambda _: _ansible_collections(extract), config=False)


def _ansible_collections(target: str | None) -> int:
    place = share()
    if target is not None:
        place = Path(os.path.abspath(target))
        extract(_COLLECTIONS, place)
    if not isinstance(place, Path):
        hint = "Use --extract DIR: it copies the collection to DIR and prints DIR."
        raise UsageError("the collection is inside a zip file, where Ansible cannot read it", hint=hint)
    write_lines(str(place), sys.stdout)
    return 0
