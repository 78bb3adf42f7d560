"""What archives are called in DEST: names made safe, told apart, and kept."""

from __future__ import annotations

import re
import unicodedata

PART, UNPROVEN, MISMATCH = ".part", ".unproven", ".mismatch"
RECEIPT, SUMS = "receipt.json", "SHA1SUMS"
OWN_NAMES = (RECEIPT, SUMS)
_NAME_LIMIT = 255 - len(MISMATCH)  # bytes, so that the longest companion still fits the usual 255
_EXTENSIONS = (".tar.gz", ".tgz", ".tar")


def safe_name(served_as: str, job_id: str) -> str:
    """A name inside DEST for an archive that the server calls `served_as`: never empty, hidden, or over 255 bytes."""
    base = re.split(r"[/\\]", served_as)[-1]
    kept = "".join(char for char in base if unicodedata.category(char)[0] != "C" and char not in "\u2028\u2029")
    name = kept.strip().lstrip(".").strip() or f"{_without_separators(job_id)}.tar.gz"
    return _shortened(name)


def prefixed(name: str, job_id: str) -> str:
    """The name with the job id in front, for names that are shared or reserved."""
    return _shortened(f"{_without_separators(job_id)}-{name}")


def _without_separators(job_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", job_id)[:64] or "job"


def _shortened(name: str) -> str:
    raw = name.encode()
    if len(raw) <= _NAME_LIMIT:
        return name
    extension = next((end for end in _EXTENSIONS if name.endswith(end)), "")
    return raw[: _NAME_LIMIT - len(extension)].decode(errors="ignore").rstrip() + extension


class Names:
    """Which job has which name in DEST. A name once given stays; later jobs that share it get their id in front."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    def of(self, job_id: str) -> str | None:
        """The name given to a job, if any."""
        return self._given.get(job_id)

    def keep(self, job_id: str, name: str) -> None:
        """Take over a name that an earlier run gave."""
        self._given[job_id] = name

    def give(self, wanted: dict[str, str]) -> None:
        """Name every job of `wanted` (job id to the name its server uses) that has no name yet."""
        plain = {job_id: safe_name(name, job_id) for job_id, name in wanted.items() if job_id not in self._given}
        taken = set(self._given.values())
        for job_id, name in plain.items():
            alone = list(plain.values()).count(name) == 1 and name not in taken
            free = alone and name not in OWN_NAMES and not name.endswith((PART, UNPROVEN, MISMATCH))
            self._given[job_id] = name if free else prefixed(name, job_id)
