"""One attempt: one GET of a delivery URL, and its bytes into the part file."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from ...core.errors import AgentError, DestError, NoSpace
from ...core.events import Downloaded, DownloadStarted
from ...core.jobs import Step, decide
from ...dest.archive import Follower, Part
from ...dest.journal import Entry
from ...dest.journal.facts import Answered, Synced, Unsent, Whole
from ...dest.journal.facts import Attempt as AttemptFact
from ...dest.lock import boot_id
from ...dest.promotion import Candidate, Promoter
from ...dest.space import RESERVED_FOR_RECORDS, require_file_size
from ...network.delivery import Body, Resume
from ..proof import Kind, trusted_bytes
from ..transfer.transfer import Buffers, Transfer, keep_every
from .state import JobState


def resume_offset(entry: Entry, on_disk: int, hashed: int, boot: str | None) -> int:
    """Return the bytes after which an attempt can continue; 0 starts again.

    `on_disk` is the size of the part file, `hashed` the bytes of it that this process wrote or hashed. A resume needs
    a validator. Bytes that a power loss may have replaced do not count, hashed or not. A file that is as long as
    announced is not continued: if it does not match, it is wrong.
    """
    have = trusted_bytes(entry, hashed or on_disk, boot)
    if not entry.validator or (entry.total is not None and have >= entry.total):
        return 0
    return have


class Attempt:
    """One attempt. Everything that it needs of the host is taken before its GET is sent."""

    def __init__(self, state: JobState, promoter: Promoter, follower: Follower | None = None) -> None:
        self._state = state
        self._context = state.context
        self._promoter = promoter
        self._follower = follower
        self._received = 0

    async def run(self) -> bool:
        """Download the archive, or the rest of it; return False if the delivery was not READY any more.

        Afterwards `state.candidate` is the complete file. Raises AttemptFailed, DestError, TlsError; then
        `state.hashed` holds the bytes that arrived.
        """
        state, context = self._state, self._context
        known = state.entry.total
        require_file_size(known)
        buffers = Buffers(context.limits.parallel)
        context.space.reserve(state.named(), None if known is None else max(0, known - state.size_on_disk(Kind.PART)))
        known_hash, ours = state.hashed, state.entry.is_ours
        part = await Part.open(context.directory, state.named(), ours=ours, hashed=known_hash, follower=self._follower)
        state.changed = True
        try:
            return await self._into(part, buffers)
        except DestError as error:
            await self._after_dest_error(part, error)
            raise
        except AgentError:
            await self._keep_received(part)
            raise
        finally:
            state.hashed = None if part.sync_failed else part.hashed
            with suppress(OSError):  # a close that fails after a failed write reports nothing new
                await part.close()

    async def _into(self, part: Part, buffers: Buffers) -> bool:
        state, context = self._state, self._context
        resume = await self._resume(part)
        url = state.job.delivery_url
        if url is None or decide(state.job).step is not Step.DOWNLOAD:  # hashing takes a while
            return False
        before = " ".join(state.published) or None
        await state.journal(AttemptFact(state.named(), url.file_name, before))
        state.sent += 1
        url = state.job.delivery_url or url  # the latest: syncing the journal may have taken a while, too
        offset = resume.offset if resume else 0
        started = DownloadStarted(state.job_id, state.named(), state.entry.attempts, offset, str(url))
        context.reporter.report(started)
        began = context.clock.monotonic()
        try:
            async with context.deliveries.open(url, resume, context.server_clock.now()) as body:
                delimited = body.is_delimited
                await self._receive(body, part, buffers)
        except AgentError as error:
            if error.spent is False and not isinstance(error, DestError):  # the request was not sent
                state.sent -= 1
                await state.journal(Unsent())
            raise
        await self._complete(part, context.clock.monotonic() - began, delimited=delimited)
        return True

    async def _resume(self, part: Part) -> Resume | None:
        """Return where the attempt continues, after the bytes before that are hashed; None starts again."""
        state, entry = self._state, self._state.entry
        offset = resume_offset(entry, state.size_on_disk(Kind.PART), part.size, boot_id())
        if not offset or not entry.validator:
            return None
        if offset != part.size:
            state.hashing = True
            state.meter.start(0, offset)
            await part.hash_existing(offset, self._count)
            state.hashing = False
        return Resume(part.size, entry.validator, entry.total)

    def _count(self, size: int) -> None:
        self._state.meter.bytes = size

    async def _receive(self, body: Body, part: Part, buffers: Buffers) -> None:
        """Pass the body of a checked answer to the part file."""
        state, context = self._state, self._context
        transfer = Transfer(
            body,
            buffers,
            part.consumers,
            limit=context.limit,
            size=lambda: part.size,
            on_progress=partial(self._on_progress, part),
            flush=partial(self._flush, part),
            flush_every=keep_every(context.limits.parallel),
        )
        await transfer.begin()
        if body.offset == 0:
            await part.restart()
        begun = part.size
        await state.journal(Answered(body.validator, body.total, body.offset > 0, boot_id()))
        state.meter.start(begun, body.total)
        try:
            await transfer.run()
        finally:
            state.meter.bytes = part.size
            self._received = part.size - begun
        context.space.release(state.named())

    def _on_progress(self, part: Part, total: int | None) -> None:
        """Update progress and the reservation of space. Raises NoSpace."""
        self._count(part.size)
        to_come = None if total is None else lambda: max(0, total - part.on_disk())
        self._context.space.reserve(self._state.named(), to_come)

    async def _flush(self, part: Part) -> None:
        await self._state.journal(Synced(await part.flush()))

    async def _complete(self, part: Part, seconds: float, *, delimited: bool) -> None:
        state = self._state
        digest = await part.sync()
        await state.journal(Whole(digest.sha1, round(seconds, 3), self._received, delimited))
        state.candidate = Candidate(part.name, digest)
        part.complete()
        downloaded = Downloaded(state.job_id, state.named(), digest.size, digest.sha1, seconds, self._received)
        self._context.reporter.report(downloaded)

    async def _keep_received(self, part: Part) -> None:
        """Make the bytes of a failed attempt durable, so that a resume can trust them."""
        if not part.size:
            return
        try:
            await self._flush(part)
        except DestError as error:
            await self._after_dest_error(part, error)

    async def _after_dest_error(self, part: Part, error: DestError) -> None:
        """Discard a file whose sync failed; free the last bytes of a full disk for the records."""
        if part.sync_failed:
            await self._promoter.discard(self._state.job_id, part.name)
        elif isinstance(error, NoSpace) and self._context.space.is_full():
            with suppress(DestError):
                await part.truncate_tail(RESERVED_FOR_RECORDS)
