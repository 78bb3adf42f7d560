"""Errors of unpacking. Each class has a stable `reason`, which the receipt contains."""

from __future__ import annotations

import errno
from enum import Enum

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Finding(Enum):
    """Result of a structure check. TRUNCATED: valid, but ends too early. DAMAGED: invalid inside."""

    WHOLE = "whole"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"


class UnpackError(Exception):
    """Base of all errors of this package.

    about_archive: the error follows from the bytes of the archive alone, so that other bytes can give another result.
    """

    reason = "cannot-unpack"
    about_archive = False


class NoSpaceToUnpack(UnpackError):
    """The disk of the data path has no space left, or what is left is reserved."""

    reason = "no-space-to-unpack"


class CannotUnpack(UnpackError):
    """A file operation failed, or the file system cannot hold the archive's content."""


class UnsafeArchive(UnpackError):
    """The archive contains a member that is neither a file, a directory, nor a link to an earlier file inside."""

    reason = "unsafe-archive"
    about_archive = True


class DamagedArchive(UnpackError):
    """The archive is truncated or invalid; `finding` says which."""

    reason = "damaged-archive"
    about_archive = True

    def __init__(self, message: str, finding: Finding = Finding.DAMAGED) -> None:
        super().__init__(message)
        self.finding = finding


class DataPathInTheWay(UnpackError):
    """Another file, another data path, or another active run uses the name."""

    reason = "data-path-in-the-way"


class UnpackCancelled(UnpackError):
    """The caller stopped unpacking, or the transfer ended without a complete archive."""

    reason = "unpack-cancelled"


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


def unpack_error(error: OSError, doing: str) -> UnpackError:
    """Return the error for a failed file operation."""
    kind = NoSpaceToUnpack if error.errno in _NO_SPACE else CannotUnpack
    return kind(f"cannot {doing}: {error.strerror or error}")


def shown(name: bytes | str) -> str:
    """Return a name from an archive as printable text of at most 200 characters."""
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:200]) + ("…" if len(text) > 200 else "")
