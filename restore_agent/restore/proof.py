"""The rule that decides what a file in DEST is to a restore job: the only place where a hash is compared.

`run`, `plan`, and `verify` all call `standing_of`; they differ only in what they do with the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from ..core.errors import Finding
from ..core.names import MISMATCH, PART, UNPROVEN
from ..dest.archive import Digest
from ..dest.journal import Entry
from ..dest.lock import boot_id

_NEARLY_ANNOUNCED = 4096  # bytes that an announced length may be too large before the structure is read at all


class Kind(Enum):
    """A file that a restore job can have in DEST; the value is the suffix of its name."""

    FINAL = ""
    UNPROVEN = UNPROVEN
    PART = PART
    MISMATCH = MISMATCH


class Standing(Enum):
    """What a file is to its restore job."""

    VERIFIED = "verified"
    """Its SHA1 is published, or was verified before."""
    AWAITS_HASH = "awaits-hash"
    """Complete, as far as it is known; a published hash will decide."""
    INCOMPLETE = "incomplete"
    """It ends early; an attempt may continue it or start again."""
    RESUMED_DIFFERS = "resumed-differs"
    """It was resumed and does not match: it is downloaded again from the start before it counts as a mismatch."""
    MISMATCH = "mismatch"
    """It differs from the published hash, or is damaged and no hash is published."""
    ALTERED = "altered"
    """It was verified, or complete without a published hash, and was changed since."""
    FOREIGN = "foreign"
    """The journal does not know these bytes: they are of another job or another program."""


@dataclass(frozen=True)
class Evidence:
    """What is known of one file.

    `published` are the hashes that Ops Manager publishes for the archive now. `finding` is None until the structure
    was read. `hash_time_over` says that no further hash is waited for. `boot` is the boot of the host that reads it.
    """

    kind: Kind
    digest: Digest
    published: Sequence[str]
    entry: Entry
    finding: Finding | None = None
    hash_time_over: bool = False
    boot: str | None = field(default_factory=boot_id)

    @property
    def is_durable(self) -> bool:
        """Whether no byte can have been lost with the power."""
        known = (self.entry.whole, self.entry.set_aside)
        return self.digest.sha1 in known or trusted_bytes(self.entry, self.digest.size, self.boot) == self.digest.size


def standing_of(found: Evidence) -> Standing:
    """Return what a file is to its restore job."""
    sha1, entry = found.digest.sha1, found.entry
    if sha1 in found.published:
        return Standing.VERIFIED
    if found.kind is Kind.FINAL:
        if sha1 == entry.proven:
            return Standing.VERIFIED
        # without the fact that it was promoted, another program may have taken the name before that
        return Standing.ALTERED if entry.proven and entry.promoted else Standing.FOREIGN
    if not entry.is_ours:
        return Standing.FOREIGN
    if found.kind is Kind.UNPROVEN and sha1 not in (entry.set_aside, entry.whole):
        return Standing.ALTERED if entry.set_aside else Standing.FOREIGN
    if found.kind is Kind.MISMATCH:
        return Standing.MISMATCH
    if not _seems_complete(found):
        return Standing.INCOMPLETE
    return _of_complete(found)


def trusted_bytes(entry: Entry, size: int, boot: str | None) -> int:
    """Return how many of the `size` bytes of a part file count.

    All that this boot of the host wrote, else those that were synced: after a power loss a file can be as long as it
    was, with zeros where its last bytes were.
    """
    if entry.whole is not None or (entry.boot is not None and entry.boot == boot):
        return size
    return min(size, entry.synced)


def needs_structure(entry: Entry, size: int, boot: str | None) -> bool:
    """Return whether only its structure can show that a part file of `size` bytes is complete.

    It is read if no length was announced, or one that is a little too large, and after a power loss. The structure of
    every interrupted transfer would cost an inflate of all its bytes, and could only say that it ends early.
    """
    if not size or entry.whole is not None:
        return False
    if entry.total == size:
        return trusted_bytes(entry, size, boot) < size
    return entry.total is None or size < entry.total <= size + _NEARLY_ANNOUNCED


def _seems_complete(found: Evidence) -> bool:
    """Whether the transfer ended well, all announced bytes are there, or the structure is complete."""
    entry, sha1 = found.entry, found.digest.sha1
    if sha1 in (entry.whole, entry.set_aside) or found.finding is Finding.WHOLE:
        return True
    return found.is_durable and entry.total is not None and found.digest.size == entry.total


def _of_complete(found: Evidence) -> Standing:
    entry = found.entry
    if found.finding is Finding.TRUNCATED and (found.hash_time_over or not entry.delimited):
        return Standing.INCOMPLETE
    # a hash from before the attempt may be that of an earlier download: it verifies, but a difference proves nothing
    before = () if found.hash_time_over else (entry.hash_before or "").split()
    counts = [sha1 for sha1 in found.published if sha1 not in before]
    if counts or (found.finding is Finding.DAMAGED and found.hash_time_over):
        if found.finding is Finding.TRUNCATED or not found.is_durable:
            return Standing.INCOMPLETE
        return Standing.RESUMED_DIFFERS if entry.resumed else Standing.MISMATCH
    if found.hash_time_over and entry.total not in (None, found.digest.size):
        return Standing.INCOMPLETE  # more was announced, and no hash says that this is all
    return Standing.AWAITS_HASH
