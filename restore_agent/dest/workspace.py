"""Opening of DEST, and the records that a run leaves there."""

from __future__ import annotations

import json

from ..core.errors import ForeignFile
from ..core.names import OWN_NAMES, RECEIPT, SUMS
from ..core.receipt import Receipt, Verdict
from .directory import Directory
from .journal import Journal


def require_own_names(directory: Directory) -> None:
    """Raise InTheWay when something that is no regular file stands where the agent will write its own."""
    for name in OWN_NAMES:
        directory.find_file(name)


def require_own_sums(directory: Directory, earlier: Receipt | None, journal: Journal) -> None:
    """Raise ForeignFile when there is a SHA1SUMS although this agent never proved anything here."""
    proven = any(entry.proven for entry in journal.entries().values())
    if earlier is None and not proven and directory.find(SUMS):
        raise ForeignFile(f"a {SUMS} stands in DEST that this agent did not write", archive=SUMS, spent=False)


def write_receipt(directory: Directory, receipt: Receipt) -> None:
    """Replace receipt.json. Raises DestError."""
    directory.write_atomically(RECEIPT, json.dumps(receipt.to_json(), indent=2).encode() + b"\n")


def write_sums(directory: Directory, receipt: Receipt) -> None:
    """Bring SHA1SUMS up to date with a receipt; nothing is written while nothing is proven. Raises DestError."""
    proven = {r.file_name: r.sha1 for r in receipt.archives if r.file_name and r.verdict is Verdict.VERIFIED}
    there = [name for name in sorted(proven) if directory.find(name)]  # an earlier run's may have been moved on
    text = "".join(f"{proven[name]}  {name}\n" for name in there)
    data = text.encode()
    before = directory.read(SUMS)
    if before != data and (data or before is not None):
        directory.write_atomically(SUMS, data)
