"""Other programs and users in DEST: files that are there before a run, or appear while it goes on."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from restore_agent.simulator import Job

from .extras import Extras, Stray
from .witness import Witness, journal_lines

_OTHER_USER = 54321
_LOOK_EVERY = 0.002  # seconds


class Company:
    """What other programs do in one DEST. `visited` are the jobs whose files they touched."""

    def __init__(self, extras: Extras, jobs: Sequence[Job], dest: Path, witness: Witness) -> None:
        self._extras, self._jobs, self._dest, self._witness = extras, jobs, dest, witness
        self.visited = {jobs[stray.job].id for stray in extras.strays}
        self._refused = {jobs[stray.job].id for stray in extras.strays if stray.foreign and os.geteuid() == 0}
        self._open: list[int] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if extras.strays:
            dest.mkdir(mode=0o700, exist_ok=True)
        for stray in extras.strays:
            self._put(stray, jobs[stray.job])
        if extras.intruder:
            self._thread = threading.Thread(target=self._intrude, daemon=True)
            self._thread.start()

    def _put(self, stray: Stray, job: Job) -> None:
        path = self._dest / f"{job.file_name}{stray.suffix}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, _bytes_of(stray, job))
        if stray.foreign and os.geteuid() == 0:
            os.fchown(descriptor, _OTHER_USER, _OTHER_USER)
            self._open.append(descriptor)
        else:
            os.close(descriptor)

    def _intrude(self) -> None:
        """Put a file at a final name once the journal is long enough; a file that is there already stays."""
        intruder = self._extras.intruder
        assert intruder is not None
        job = self._jobs[intruder.job]
        while len(journal_lines(self._dest)) < intruder.lines:
            if self._stop.wait(_LOOK_EVERY):
                return
        data = b"of another program\n"
        made = self._dest.parent / f".intruder-{job.id}"
        made.write_bytes(data)
        made.chmod(0o600)
        self.visited.add(job.id)
        self._witness.foreign[job.file_name] = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        try:
            os.link(made, self._dest / job.file_name)
        except OSError:
            del self._witness.foreign[job.file_name]
        made.unlink()

    def write_once_more(self) -> None:
        """The other user writes into the files that were left open: none of them may be an archive now."""
        for descriptor in self._open:
            os.pwrite(descriptor, b"changed by another user", 0)
        self._witness.look()

    def allowed(self, job: Job, codes: frozenset[int]) -> frozenset[int]:
        """The exit codes that an archive may have, given what is in its way."""
        if job.id in self._refused:
            return codes | {42}
        if job.file_name in self._witness.foreign:
            return (codes - {0}) | {42}
        return codes | {42} if job.id in self.visited and self._extras.intruder else codes

    def leave(self) -> None:
        """Stop, and close the files."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        while self._open:
            with suppress(OSError):
                os.close(self._open.pop())


def _bytes_of(stray: Stray, job: Job) -> bytes:
    archive = job.archive()
    if stray.kind == "right bytes":
        return archive.path.read_bytes()
    if stray.kind == "zeros":
        return bytes(archive.size)
    return _other_archive() if stray.kind == "another archive" else os.urandom(archive.size // 2)


def _other_archive() -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        member = tarfile.TarInfo("another/restoreInfo.txt")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"other"))
    return gzip.compress(plain.getvalue())
