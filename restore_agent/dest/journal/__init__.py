"""The journal of DEST: what must survive a crash, one typed fact per line."""

from .facts import Entry, Identity
from .journal import DAMAGED, JOURNAL, Journal

__all__ = ["DAMAGED", "JOURNAL", "Entry", "Identity", "Journal"]
