"""State of one restore job, shared by the parts that work on it."""

from __future__ import annotations

from enum import Enum

from ...core.errors import DestError, Finding
from ...core.jobs import Job
from ...core.names import path_text
from ...core.receipt import ArchiveRecord, Verdict
from ...dest.archive import Digest, Hashed
from ...dest.journal import Entry
from ...dest.journal.facts import Fact
from ...dest.promotion import Candidate
from ...dest.workspace import record_of
from ..proof import Evidence, Kind, Standing, standing_of
from ..transfer.rate import Meter
from .context import RunContext

NOTHING_LEFT = "nothing of it"
"""The description of what is on disk of an archive without any byte."""


class Phase(Enum):
    """The step that a restore job is at."""

    NAMING = "naming"
    INSPECTING = "inspecting"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    UNPACKING = "unpacking"
    FINISHED = "finished"


class JobState:
    """What is known of one restore job in this run.

    `sent` counts the GETs of this run. `hashed` is the hash of the part file as far as this process knows it.
    `candidate` is the complete file that needs a published hash, `set_aside` an earlier one.
    """

    def __init__(self, job_id: str, context: RunContext) -> None:
        self.job_id = job_id
        self.context = context
        self.name: str | None = None
        self.phase = Phase.NAMING
        self.record: ArchiveRecord | None = None
        self.meter = Meter(context.clock)
        self.hashing = False
        self.changed = False
        self.sent = 0
        self.hashed: Hashed | None = None
        self.candidate: Candidate | None = None
        self.set_aside: Candidate | None = None

    @property
    def job(self) -> Job:
        """The latest poll result."""
        return self.context.poller.jobs[self.job_id]

    @property
    def entry(self) -> Entry:
        """The journal entry."""
        return self.context.journal.entry(self.job_id)

    @property
    def published(self) -> tuple[str, ...]:
        """The hashes that Ops Manager publishes for the archive now, under any name that it had."""
        url = self.job.delivery_url
        names = (url.file_name if url else None, self.entry.served_as)
        return self.job.published_hashes(*(names if any(names) else (self.name,)))

    @property
    def shown_state(self) -> str:
        """The state in the status file: `waiting`, `downloading`, `hashing`, `unpacking`, or the verdict."""
        if self.record and self.record.verdict and self.phase is not Phase.UNPACKING:
            return self.record.verdict.value
        if self.hashing or self.phase is Phase.VERIFYING:
            return "hashing"
        shown = {Phase.DOWNLOADING: "downloading", Phase.UNPACKING: "unpacking"}
        return shown.get(self.phase, "waiting")

    @property
    def may_still_download(self) -> bool:
        """Whether a download may follow."""
        return self.phase in (Phase.NAMING, Phase.INSPECTING, Phase.WAITING, Phase.DOWNLOADING)

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for Ops Manager: for its delivery, or for a poll after a failure."""
        return self.phase in (Phase.NAMING, Phase.WAITING)

    @property
    def is_finished(self) -> bool:
        """Whether it has its verdict, and nothing is left to do."""
        return self.phase is Phase.FINISHED

    # ------------------------------------------------------------ phases

    def assign_name(self, name: str) -> None:
        """Set the name of the archive in DEST; then its files can be inspected."""
        if self.phase is Phase.NAMING:
            self.name, self.phase = name, Phase.INSPECTING

    def named(self) -> str:
        """Return the name of the archive in DEST; every phase after NAMING has one."""
        assert self.name is not None  # noqa: S101  # NAMING ends with one
        return self.name

    def path(self, name: str) -> str:
        """Return the absolute path of a name in DEST."""
        return path_text(self.context.directory.path, name)

    def size_on_disk(self, kind: Kind) -> int:
        """Return the size of one of the files in bytes; 0 if there is none. Raises DestError."""
        found = self.context.directory.find(self.named() + kind.value)
        return found.st_size if found else 0

    def standing(
        self, kind: Kind, digest: Digest, finding: Finding | None = None, *, hash_time_over: bool = False
    ) -> Standing:
        """Return the standing of a file; `finding` and `hash_time_over` are as in `Evidence`."""
        return standing_of(Evidence(kind, digest, self.published, self.entry, finding, hash_time_over))

    async def journal(self, fact: Fact) -> None:
        """Record a fact. Raises DestError."""
        await self.context.journal.record(self.job_id, fact, self.context.clock.wall())

    def left(self) -> str:
        """Return what is on disk of an archive that failed, in words."""
        kinds = (Kind.PART, Kind.UNPROVEN) if self.entry.set_aside else (Kind.PART,)
        try:
            sizes = {kind: self.size_on_disk(kind) for kind in kinds} if self.name else {}
        except DestError as error:
            return f"unknown ({error.message})"
        kept = [f"{self.name}{kind.value} with {size} bytes" for kind, size in sizes.items() if size]
        return " and ".join(kept) or NOTHING_LEFT

    def record_as(
        self,
        verdict: Verdict,
        digest: Digest | None = None,
        *,
        expected: str | None = None,
        exit_code: int = 0,
        reason: str | None = None,
        path: str | None = None,
    ) -> ArchiveRecord:
        """Return the record of the archive with a verdict."""
        entry = self.entry
        rate = int(entry.received / entry.seconds) if digest and entry.received and entry.seconds else None
        return record_of(
            self.job,
            entry,
            self.name,
            path=path,
            bytes=digest.size if digest else None,
            sha1=digest.sha1 if digest else None,
            expected_sha1=expected,
            verdict=verdict,
            reason=reason,
            exit_code=exit_code,
            resumed=entry.resumed,
            seconds=entry.seconds if digest else None,
            bytes_per_second=rate,
        )
