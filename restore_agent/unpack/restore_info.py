"""`restoreInfo.txt`, which Ops Manager puts into each archive, and whether it contradicts the restore job."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping

from ..core.untrusted import printable
from .errors import errors_of_unpacking

FILE_NAME = "restoreInfo.txt"
_LIMIT = 64 << 10  # bytes that are read
_LINE = re.compile(r"([^:]*[^:\s])\s*:(?:\s+(.*))?")


def read_restore_info(root: int) -> dict[str, str] | None:
    """Return the `name: value` lines of the file in an open directory; None if there is no such file.

    Raises NotUnpacked if it cannot be read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with errors_of_unpacking(f"read {FILE_NAME}"):
        try:
            descriptor = os.open(FILE_NAME, flags, dir_fd=root)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            return parse_restore_info(file.read(_LIMIT + 1))


def parse_restore_info(raw: bytes) -> dict[str, str]:
    """Return the `name: value` lines of the first 64 KiB. Of equal names the first counts.

    A line that continues after the 64 KiB is left out, because its value is incomplete. Control characters are escaped.
    """
    if len(raw) > _LIMIT and raw[_LIMIT : _LIMIT + 1] not in (b"\n", b"\r"):
        raw = raw[:_LIMIT].rpartition(b"\n")[0]
    info: dict[str, str] = {}
    for line in raw[:_LIMIT].decode("utf-8-sig", "replace").split("\n"):
        if found := _LINE.fullmatch(line.strip()):
            info.setdefault(printable(found[1], _LIMIT), printable((found[2] or "").strip(), _LIMIT))
    return info


def contradictions(info: Mapping[str, str], expected: Mapping[str, str | None]) -> list[str]:
    """Return a sentence for each name of `expected` (`Replica Set`, `Cluster ID`, `Group ID`) with another value.

    Names are compared without regard to case, spaces and underscores. Unknown values on either side are skipped.
    """
    given = {_plain(name): value for name, value in reversed(list(info.items()))}  # the first of equal ones counts
    return [
        f"{FILE_NAME} contains {name} {given[_plain(name)]!r}, but the restore job has {value!r}"
        for name, value in expected.items()
        if value and given.get(_plain(name)) and given[_plain(name)].casefold() != value.casefold()
    ]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()
