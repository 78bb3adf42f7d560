"""The border where OSError becomes an error of unpacking."""

from __future__ import annotations

import errno

from ..core.errors import CannotUnpack, NoSpaceToUnpack, NotUnpacked

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class errors_of_unpacking:
    """Context that turns an OSError into NoSpaceToUnpack or CannotUnpack. `doing` is a verb, with its object or `name`.

    A class that formats the name only for an error: three of these are entered for each file of an archive.
    """

    __slots__ = ("_doing", "_name")

    def __init__(self, doing: str, name: bytes | str | tuple[bytes, ...] = "") -> None:
        self._doing = doing
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            name = b"/".join(self._name) if isinstance(self._name, tuple) else self._name
            raise unpack_error(error, f"{self._doing} {shown(name)}".rstrip()) from error


def unpack_error(error: OSError, doing: str) -> NotUnpacked:
    """Return the error for a failed file operation."""
    kind = NoSpaceToUnpack if error.errno in _NO_SPACE else CannotUnpack
    return kind(f"cannot {doing}: {error.strerror or error}")


def shown(name: bytes | str) -> str:
    """Return a name from an archive as printable text of at most 200 characters."""
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:200]) + ("…" if len(text) > 200 else "")
