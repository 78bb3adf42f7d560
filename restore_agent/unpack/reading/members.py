"""Rules, without I/O, for what an archive may contain and where each member is written.

Paths are tuples of components below the root of the data path. Names are bytes, as they are in the archive and as
Linux stores them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ...core.errors import CannotUnpack, UnsafeArchive
from ..errors import shown
from .headers import Header

Path = tuple[bytes, ...]

_PATH_LIMIT = 4095  # bytes; Linux cannot open a longer path
_REFUSED = {
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"M": "the continuation of a file in another archive",
}
_VOLUME_LABEL = b"V"


class Kind(Enum):
    """Kinds of members that are written."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Member:
    """A member that may be written: a file, a directory, or a hard link to the earlier file `target`."""

    kind: Kind
    path: Path
    target: Path
    size: int
    mtime_ns: int


def member_of(header: Header) -> Member | None:
    """Return the member that a header describes, or None if it describes none (a volume label).

    What GNU tar extracts as a regular file is one, unknown types included. A name that ends with a slash is a
    directory. Raises UnsafeArchive, and CannotUnpack for a name that Linux cannot hold.
    """
    if header.kind == _VOLUME_LABEL:
        return None
    if header.kind in _REFUSED:
        raise UnsafeArchive(f"{shown(header.name)} is {_REFUSED[header.kind]}")
    kind = _kind_of(header)
    path = safe_path(header.name)
    if not path and kind is not Kind.DIRECTORY:
        raise UnsafeArchive(f"{shown(header.name)} is not a name of a file")
    target = safe_path(header.target) if kind is Kind.LINK else ()
    return Member(kind, path, target, header.size, header.mtime_ns)


def _kind_of(header: Header) -> Kind:
    if header.kind == b"1":
        return Kind.LINK
    if header.kind in (b"5", b"D") or (header.kind in (b"0", b"\0", b"7") and header.name.endswith(b"/")):
        return Kind.DIRECTORY
    return Kind.FILE


def safe_path(name: bytes) -> Path:
    """Return the components of a name; `.` and empty ones are left out.

    Raises UnsafeArchive for an empty or absolute name and for `..`, CannotUnpack for a name that is too long.
    """
    if not name or b"\0" in name:
        raise UnsafeArchive("the archive contains a member without a valid name")
    if name.startswith(b"/"):
        raise UnsafeArchive(f"{shown(name)} is an absolute name")
    path = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in path:
        raise UnsafeArchive(f"{shown(name)} leads out of its directory")
    if len(name) > _PATH_LIMIT:
        raise CannotUnpack(f"{shown(name)}: the name has {len(name)} bytes")
    return path


class Layout:
    """Decision whether the archive has one top directory, whose contents become those of the data path.

    The archive is read once, so the first member decides: if it is in or is a directory, that directory is expected
    to be the only one and is left out of every path. If a later member lies elsewhere, `entered` returns the
    directory's name, once: what has been written must then be moved into a directory of this name.
    """

    def __init__(self) -> None:
        self._top: bytes | None = None
        self._decided = False

    @property
    def top(self) -> bytes | None:
        """Name of the directory that is left out, or None."""
        return self._top

    def entered(self, member: Member) -> bytes | None:
        """Take the next member. Returns the name of a top directory that is no longer the only entry, or None."""
        if not member.path:
            return None
        in_directory = len(member.path) > 1 or member.kind is Kind.DIRECTORY
        if not self._decided:
            self._decided = True
            self._top = member.path[0] if in_directory else None
        elif self._top is not None and (member.path[0] != self._top or not in_directory):
            left, self._top = self._top, None
            return left
        return None

    def place(self, path: Path) -> Path | None:
        """Return where a path of the archive is below the root; None if it is not below the one top directory."""
        if self._top is None:
            return path
        return path[1:] if path[:1] == (self._top,) else None
