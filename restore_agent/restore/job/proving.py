"""From a file in DEST to its standing: what exists at the start, and the wait for a published hash."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from ...core.clock import Deadline
from ...core.errors import AgentError, Finding
from ...core.names import MISMATCH, PART, UNPROVEN
from ...dest.archive import Digest, Hashed, hash_file, structure_of
from ...dest.directory import Directory, is_own
from ...dest.journal import Identity
from ...dest.lock import boot_id
from ...dest.promotion import Candidate
from ..proof import Kind, Standing, needs_structure
from ..transfer.transfer import finished
from .state import JobState
from .unpacking import JobUnpacking

_LEAST_ATTEMPT = 10.0  # seconds that another attempt needs before the delivery expires, and half as long as the last


class Proving:
    """Reads files of one restore job and says what they are to it. It changes nothing in DEST.

    `finding` is the structure of the candidate as far as it was read.
    """

    def __init__(self, state: JobState, unpacking: JobUnpacking | None) -> None:
        self._state = state
        self._context = state.context
        self._unpacking = unpacking
        self.finding: Finding | None = None

    # ------------------------------------------------------------ what exists

    def require_regular_files(self) -> None:
        """Raise InTheWay if something else than a regular file has a name that the archive may need."""
        for kind in Kind:
            self._directory.find_file(self._state.named() + kind.value)

    async def final(self) -> tuple[Standing, Digest] | None:
        """Return the standing of the file at the final name, or None if there is none. Raises DestError."""
        state = self._state
        if (found := self._directory.find_file(state.named())) is None:
            return None
        entry, identity = state.entry, Identity.of(found)
        if entry.proven and entry.promoted == identity:
            return Standing.VERIFIED, Digest(entry.proven, identity.size, identity.inode)
        digest = (await self._hash(state.named())).digest()
        return state.standing(Kind.FINAL, digest), digest

    async def unproven(self) -> Standing:
        """Return the standing of the `.unproven` file; one that counts becomes a candidate. Raises DestError."""
        state, name = self._state, self._state.named() + UNPROVEN
        if not is_own(self._directory.find_file(name)) or not (state.entry.is_ours or state.published):
            return Standing.FOREIGN
        candidate = Candidate(name, (await self._hash(name)).digest())
        standing = state.standing(Kind.UNPROVEN, candidate.digest)
        if standing not in (Standing.FOREIGN, Standing.ALTERED):
            state.candidate = candidate
        return standing

    async def part(self) -> Standing:
        """Return the standing of the part file; one that is complete becomes the candidate. Raises DestError.

        The file is read only if that can show that it is complete.
        """
        state, entry = self._state, self._state.entry
        found = self._directory.find_file(state.named() + PART)
        if not found or not is_own(found) or not found.st_size or not (entry.is_ours or state.published):
            return Standing.FOREIGN if not entry.is_ours else Standing.INCOMPLETE
        may_be_complete = entry.whole is not None or entry.total == found.st_size
        structure = entry.is_ours and needs_structure(entry, found.st_size, boot_id())
        if not (may_be_complete or structure or state.published):
            return Standing.INCOMPLETE
        digest = await self._hash_part()
        standing = state.standing(Kind.PART, digest)
        if standing is Standing.INCOMPLETE and structure:
            self.finding = await self._structure(state.named() + PART)
            standing = state.standing(Kind.PART, digest, self.finding)
        if standing not in (Standing.INCOMPLETE, Standing.FOREIGN):
            state.candidate = Candidate(state.named() + PART, digest)
        return standing

    async def quarantined(self) -> tuple[Standing, Digest] | None:
        """Return the standing of the `.mismatch` file, or None if nothing could verify it. Raises DestError."""
        state, name = self._state, self._state.named() + MISMATCH
        if not state.published or not is_own(self._directory.find_file(name)):
            return None
        digest = (await self._hash(name)).digest()
        return state.standing(Kind.MISMATCH, digest), digest

    def verified_now(self) -> Candidate | None:
        """Return a file whose SHA1, as this process knows it, is published by now."""
        state = self._state
        known = [state.candidate, state.set_aside]
        if state.hashed and state.hashed.size and state.name:
            known.append(Candidate(state.name + PART, state.hashed.digest()))
        published = state.published
        return next((one for one in known if one and one.digest.sha1 in published), None)

    # ------------------------------------------------------------ the wait for a hash

    async def wait_for_hash(self) -> Standing:
        """Wait until the standing of the candidate is decided, or --hash-timeout is over.

        Returns AWAITS_HASH in the second case: then it is complete by its own structure.
        """
        candidate = self._state.candidate
        assert candidate is not None  # noqa: S101  # the phase VERIFYING begins with one
        self._context.poller.poll_now()
        check: asyncio.Task[Finding] | None = None
        cut_after = self._time_before_a_cut()
        try:
            while (standing := self._standing(candidate)) is Standing.AWAITS_HASH:
                if self._context.hash_time_over.is_set():
                    break
                if self._may_be_cut(candidate) and cut_after.passed():
                    return Standing.INCOMPLETE
                if self.finding is None and check is None:
                    await self._context.poller.wait_for_poll()
                    check = asyncio.ensure_future(self._structure(candidate.name))
                    continue
                await self._wait(check, cut_after if self._may_be_cut(candidate) else None)
                if check and check.done():
                    self.finding, check = check.result(), None
            if standing is Standing.AWAITS_HASH:
                return await self._with_structure(candidate, check, hash_time_over=True)
            if standing is Standing.MISMATCH:  # a truncated archive differs, too, and is downloaded again instead
                return await self._with_structure(candidate, check)
            return standing
        finally:
            if check:
                check.cancel()
                await finished(check)

    async def _with_structure(
        self, candidate: Candidate, check: asyncio.Task[Finding] | None, *, hash_time_over: bool = False
    ) -> Standing:
        """Return the standing of the candidate once its structure is known; `check` is what reads it already."""
        if self.finding is None:
            self.finding = await (check or asyncio.ensure_future(self._structure(candidate.name)))
        return self._standing(candidate, hash_time_over=hash_time_over)

    def _standing(self, candidate: Candidate, *, hash_time_over: bool = False) -> Standing:
        """The standing of the candidate; VERIFIED also if an earlier complete file is the one that is published."""
        if found := self.verified_now():
            self._state.candidate = found
            return Standing.VERIFIED
        kind = Kind.UNPROVEN if candidate.name.endswith(UNPROVEN) else Kind.PART
        return self._state.standing(kind, candidate.digest, self.finding, hash_time_over=hash_time_over)

    def _may_be_cut(self, candidate: Candidate) -> bool:
        """Whether the file is kept only for the case that exactly its hash is published."""
        total = self._state.entry.total
        short = total is not None and candidate.digest.size < total
        return self.finding is Finding.TRUNCATED or (self.finding is Finding.WHOLE and short)

    def _time_before_a_cut(self) -> Deadline:
        """--hash-timeout, but early enough for another attempt before the delivery expires."""
        seconds = self._context.limits.hash_timeout
        if (expires := self._state.job.expires) is not None:
            needed = max(_LEAST_ATTEMPT, 1.5 * (self._state.entry.seconds or 0.0))
            seconds = min(seconds, max(0.0, expires - self._context.server_clock.now() - needed))
        return Deadline(self._context.clock, seconds)

    async def _wait(self, check: asyncio.Task[Finding] | None, until: Deadline | None) -> None:
        """Wait for the next poll, the end of the check, or a deadline."""
        helpers = [asyncio.ensure_future(self._context.poller.wait_for_poll())]
        if until is not None:
            helpers.append(asyncio.ensure_future(self._context.clock.sleep(until.remaining())))
        try:
            waiting: list[asyncio.Future[Any]] = [*helpers, check] if check else [*helpers]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for helper in helpers:
                helper.cancel()
                with suppress(asyncio.CancelledError, AgentError):
                    await helper

    # ------------------------------------------------------------ reading

    @property
    def _directory(self) -> Directory:
        return self._context.directory

    async def _structure(self, name: str) -> Finding:
        candidate = self._state.candidate
        if self._unpacking and self._unpacking.follower and candidate and candidate.name == self._state.named() + PART:
            self._unpacking.follower.complete(candidate.digest.size)
            if (finding := await self._unpacking.finding()) is not None:
                return finding  # unpacking is the check already
        async with self._context.file_readers:
            return await structure_of(self._directory, name)

    async def _hash_part(self) -> Digest:
        """The digest of the part file, from this process if it wrote the file."""
        state = self._state
        name = state.named() + PART
        if state.hashed is None or state.hashed.size != state.size_on_disk(Kind.PART):
            state.hashed = await self._hash(name)
        return state.hashed.digest()

    async def _hash(self, name: str) -> Hashed:
        state = self._state
        async with self._context.file_readers:
            state.hashing = True
            state.meter.start(0, getattr(self._directory.find(name), "st_size", None))
            try:
                return await hash_file(self._directory, name, self._count)
            finally:
                state.hashing = False

    def _count(self, size: int) -> None:
        self._state.meter.bytes = size
