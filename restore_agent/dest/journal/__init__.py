"""The journal of DEST: what must survive a crash, one typed fact per line."""

from .facts import Entry, Identity
from .journal import Journal

__all__ = ["Entry", "Identity", "Journal"]
