"""Names of archives in DEST: made safe, unique, and kept."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

PART, UNPROVEN, MISMATCH = ".part", ".unproven", ".mismatch"

RECEIPT, SUMS = "receipt.json", "SHA1SUMS"

OWN_NAMES = (RECEIPT, SUMS)

_STDIN = "-"  # what sha1sum would read instead of a file of this name

_NAME_LIMIT = 255 - len(MISMATCH)  # bytes, so that the longest companion still fits the usual 255

_EXTENSIONS = (".tar.gz", ".tgz", ".tar")

_UNWANTED = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # Unicode categories: control, format, unassigned, line breaks


def raw(name: str) -> bytes:
    """Return a name or path as it is on disk: UTF-8, whatever the locale."""
    return name.encode("utf-8", "surrogateescape")


def path_text(directory: Path, *names: str) -> str:
    """Return the path of a name in a directory as text for records, which are the same in every locale."""
    return os.path.join(os.fsencode(directory).decode("utf-8", "surrogateescape"), *names)


def safe_name(served_as: str, job_id: str) -> str:
    """A name inside DEST for an archive that the server calls `served_as`: never empty, hidden, or over 255 bytes."""
    base = re.split(r"[/\\]", served_as)[-1]
    kept = "".join(char for char in base if unicodedata.category(char) not in _UNWANTED)
    return _shortened(re.sub(r"^[\s.]+", "", kept).rstrip()) or f"{_plain(job_id)}.tar.gz"


def _plain(job_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", job_id)[:64] or "job"


def _shortened(name: str) -> str:
    raw = name.encode()
    if len(raw) <= _NAME_LIMIT:
        return name
    extension = next((end for end in _EXTENSIONS if name.endswith(end)), "")
    return raw[: _NAME_LIMIT - len(extension)].decode(errors="ignore").rstrip() + extension


def _without_suffix(name: str) -> str:
    while name.endswith((PART, UNPROVEN, MISMATCH)):
        name = name.rsplit(".", 1)[0].rstrip()
    return name


class Names:
    """Which job has which name in DEST. A name once given stays; later jobs that share it get their id in front."""

    def __init__(self, *, ignore_case: bool = False) -> None:
        self._ignore_case = ignore_case
        self._given: dict[str, str] = {}
        self._occupied = self._files(*OWN_NAMES) | {self._key(_STDIN)}

    def _key(self, name: str) -> str:
        """A name as the file system compares it."""
        return unicodedata.normalize("NFC", name).casefold() if self._ignore_case else name

    def _files(self, *names: str) -> set[str]:
        """Every file that archives of these names may have in DEST."""
        return {self._key(name + suffix) for name in names for suffix in ("", PART, UNPROVEN, MISMATCH)}

    def of(self, job_id: str) -> str | None:
        """Return the name given to a job, if any."""
        return self._given.get(job_id)

    def keep(self, job_id: str, name: str) -> None:
        """Keep a name that was given before."""
        self._given[job_id] = name
        self._occupied |= self._files(name)

    def give(self, wanted: dict[str, str]) -> None:
        """Name every job of `wanted` (job id to the name its server uses) that has no name yet.

        No file of one archive, complete or not, can have the name of a file of another one.
        """
        plain = {job_id: safe_name(name, job_id) for job_id, name in wanted.items() if job_id not in self._given}
        times = Counter(map(self._key, plain.values()))
        shared = {name for name in plain.values() if times[self._key(name)] > 1}
        for job_id, name in sorted(plain.items(), key=lambda item: (item[1] in shared, item[0])):
            unique = hashlib.sha256(job_id.encode("utf-8", "surrogatepass")).hexdigest()
            stem = _without_suffix(name)  # a final name must not look like that of an incomplete archive
            candidates = [] if name in shared or stem != name else [name]
            candidates += [_shortened(f"{_plain(job_id)}-{stem}"), _shortened(f"{unique}-{stem}")]
            free = (candidate for candidate in candidates if not self._files(candidate) & self._occupied)
            self.keep(job_id, next(free, f"{unique}.tar.gz"))


def data_path_names(files: Mapping[str, str], *, ignore_case: bool = False) -> dict[str, str]:
    """Return the name of each job's data path, by job ID; `files` are the names of the archives.

    A name is that of the archive without its extension. Jobs that would share one, and those whose name is that of a
    file in DEST, get the job ID in front, because data paths may be in DEST itself.
    """

    def key(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold() if ignore_case else name

    plain = {job_id: _without_extension(name) for job_id, name in files.items()}
    times = Counter(map(key, plain.values()))
    taken = {key(name + suffix) for name in (*files.values(), *OWN_NAMES) for suffix in ("", PART, UNPROVEN, MISMATCH)}

    def is_free(name: str) -> bool:
        return not {key(name), key(name + UNPROVEN)} & taken and not name.startswith(".")

    names = {job_id: name for job_id, name in plain.items() if times[key(name)] == 1 and is_free(name)}
    for job_id in sorted(plain.keys() - names.keys()):
        taken |= {key(name + suffix) for name in names.values() for suffix in ("", UNPROVEN)}
        unique = hashlib.sha256(job_id.encode("utf-8", "surrogatepass")).hexdigest()
        candidates = (_shortened(f"{prefix}-{plain[job_id]}") for prefix in (_plain(job_id), unique))
        names[job_id] = next(filter(is_free, candidates), unique)
    return names


def _without_extension(name: str) -> str:
    for extension in _EXTENSIONS:
        if name.endswith(extension) and name != extension:
            return name.removesuffix(extension)
    return name
