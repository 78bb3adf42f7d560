"""Unpacking of one archive into its staging directory, in one pass and at its own pace.

Inflating limits the speed, so it has a thread to itself; CRC, tar and writing are in the thread of `Unpacker.run`,
syncing and an optional consumer of the archive's bytes are in further ones. All of them release the interpreter lock
for nearly all of their time. Memory is bounded by the queues between them, about 8 MiB with the largest blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from ..core.errors import Finding, NoSpaceToUnpack, NotUnpacked, UnpackCancelled
from .datapath import Staging
from .pipeline import Queue, QueueClosed, Syncer, start_thread
from .reading.headers import PlainStream, TarStream
from .reading.inflate import OUTPUT_SIZE, Backend, Inflater, MemberCheck, Trailer, backend
from .reading.members import Kind, Layout, Member, member_of
from .reading.source import Restarted, Source
from .restore_info import read_restore_info
from .writer import Owner, SpaceGuard, Tree

_PLAIN_BLOCKS = 8  # as inflated
_ARCHIVE_BLOCKS = 4  # for the consumer
_SYNC_TIMEOUT = 30.0  # seconds for syncs in progress on a full disk

_Item = tuple[bytes, Trailer | None, int]
Consumer = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Result of unpacking a complete archive. `files` and `bytes` count regular files and links, and their sizes."""

    files: int
    bytes: int
    archive_bytes: int
    restore_info: dict[str, str] | None
    trailing_garbage: bool
    """Whether bytes after the last gzip member were ignored, as gzip(1) does."""

    @property
    def finding(self) -> Finding:
        """Result of the structure check. Ignored bytes count as damage: they are no evidence of a complete archive."""
        return Finding.DAMAGED if self.trailing_garbage else Finding.WHOLE


@dataclass(frozen=True, slots=True)
class Options:
    """How to unpack.

    space_reserve: bytes that must stay free, computed at each check; called in the unpacking thread.
    on_progress: called with the bytes of the archive that are unpacked so far; starts again from 0 after a restart.
    consumer: called at each start, returns a function that is given all bytes of the archive, for example to hash
    them; it runs in a thread of its own.
    block_size: bytes of each block that is read or inflated; about a dozen are in memory.
    """

    owner: Owner = field(default_factory=Owner)
    space_reserve: Callable[[], int] = lambda: 0
    on_progress: Callable[[int], None] = lambda _: None
    consumer: Callable[[], Consumer] | None = None
    library: Backend | None = None
    block_size: int = OUTPUT_SIZE


class Unpacker:
    """One archive on its way into a staging directory. `run` blocks; `cancel` may be called from any thread."""

    def __init__(self, source: Source, staging: Staging, options: Options | None = None) -> None:
        self._source = source
        self._staging = staging
        self._options = options or Options()
        self._library = self._options.library or backend()

    def cancel(self, error: NotUnpacked | None = None) -> None:
        """Let `run` raise `error`, by default UnpackCancelled, within a second; the content is left as it is then."""
        self._source.cancel(error)

    def run(self) -> Unpacked:
        """Unpack and sync all, following the source to its end, and again from the start after a restart.

        After any error, except a cancellation for another reason than space, the staging directory is empty. An error
        that follows from the bytes is raised only once the source is finished, because a restart can bring other bytes.
        Raises NotUnpacked.
        """
        while True:
            try:
                reader = self._source.start()
                self._staging.empty(self._source.check)
                return _Attempt(self._source, self._staging, self._options, self._library, reader).run()
            except Restarted:
                continue
            except NotUnpacked as error:
                if isinstance(error, NoSpaceToUnpack):
                    self._give_space_back()
                if self._source.cancelled is not None or isinstance(error, UnpackCancelled):
                    raise
                self._empty_quietly()
                if not error.about_archive or self._is_final():
                    raise

    def _give_space_back(self) -> None:
        """Remove the content although unpacking may be cancelled: a download waits for its space."""
        with suppress(NotUnpacked):
            self._staging.empty()

    def _empty_quietly(self) -> None:
        with suppress(NotUnpacked, Restarted):
            self._staging.empty(self._source.check)

    def _is_final(self) -> bool:
        """Wait until the archive is finished; return False if other bytes come instead."""
        try:
            self._source.wait_until_settled()
        except Restarted:
            return False
        return True


class _Attempt:
    """One pass over the archive, from its first byte."""

    def __init__(self, source: Source, staging: Staging, options: Options, library: Backend, reader: int) -> None:
        self._source = source
        self._staging = staging
        self._options = options
        self._plain: Queue[_Item] = Queue(_PLAIN_BLOCKS, source.check)
        self._archive: Queue[bytes] = Queue(_ARCHIVE_BLOCKS, source.check)
        self._inflater = Inflater(self._blocks(reader), library, options.block_size)
        self._check = MemberCheck(library)
        self._consumed = threading.Event()
        self._consumer_error: BaseException | None = None
        self._tree = Tree(
            staging.descriptor,
            options.owner,
            SpaceGuard(staging.descriptor, options.space_reserve),
            Syncer(source.check),
            source.check,
        )

    def run(self) -> Unpacked:
        """Raises NotUnpacked or Restarted; then every thread of the attempt is about to end."""
        try:
            self._start_threads()
            self._write_members(TarStream(PlainStream(self._checked())))
            self._tree.finish()
            self._wait_for_consumer()
            return self._result()
        except NoSpaceToUnpack:
            self._tree.close(wait=_SYNC_TIMEOUT)  # the space of a file that is open is not free after its removal
            raise
        finally:
            self._source.stop_reading()
            self._plain.close()
            self._archive.close()
            self._tree.close()

    def _result(self) -> Unpacked:
        return Unpacked(
            files=self._tree.files,
            bytes=self._tree.bytes,
            archive_bytes=self._source.position,
            restore_info=read_restore_info(self._staging.descriptor),
            trailing_garbage=self._inflater.trailing_garbage,
        )

    # ---- threads

    def _start_threads(self) -> None:
        start_thread(self._inflate, "unpack-inflate")
        if self._options.consumer is not None:
            consume = self._options.consumer()
            start_thread(lambda: self._consume(consume), "unpack-hash")

    def _blocks(self, reader: int) -> Iterator[bytes]:
        for block in self._source.blocks(reader, self._options.block_size):
            if self._options.consumer is not None:
                with suppress(QueueClosed):  # a consumer that has failed; its error is raised at the end
                    self._archive.put(block)
            yield block
        self._archive.end()

    def _inflate(self) -> None:
        try:
            for plain, trailer in self._inflater.plain():
                self._plain.put((plain, trailer, self._source.position))
            self._plain.end()
        except QueueClosed:
            pass
        except BaseException as error:  # raised again in the thread of `run`
            self._plain.end(error)

    def _consume(self, consume: Consumer) -> None:
        try:
            for block in self._archive:
                consume(block)
        except BaseException as error:  # raised again in the thread of `run`
            self._consumer_error = error
            self._archive.close()
        finally:
            self._consumed.set()

    def _wait_for_consumer(self) -> None:
        while self._options.consumer is not None and not self._consumed.wait(0.25):
            self._source.check()
        if self._consumer_error is not None:
            raise self._consumer_error

    def _checked(self) -> Iterator[bytes]:
        for plain, trailer, position in self._plain:
            self._check.update(plain, trailer)
            self._options.on_progress(position)
            yield plain

    # ---- members

    def _write_members(self, tar: TarStream) -> None:
        layout, root_time = Layout(), None
        for header in tar.headers():
            self._source.check()
            member = member_of(header)
            if member is None:
                continue
            if not member.path:
                root_time = member.mtime_ns
            if (top := layout.entered(member)) is not None:
                self._tree.nest(top)
                if root_time is not None:
                    self._tree.directory((), root_time)
            self._write(member, layout, tar)

    def _write(self, member: Member, layout: Layout, tar: TarStream) -> None:
        path = layout.place(member.path)
        if path is None:
            return  # the entry `./` above the one top directory
        if member.kind is Kind.DIRECTORY:
            self._tree.directory(path, member.mtime_ns)
        elif member.kind is Kind.FILE:
            self._tree.file(path, member.size, member.mtime_ns, tar.data())
        else:
            self._tree.link(path, layout.place(member.target))
