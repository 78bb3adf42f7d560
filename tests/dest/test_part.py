"""The part file of an archive: its hash is that of its bytes, whichever attempts wrote them."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import resource
import stat
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restore_agent.core.errors import InTheWay, NoSpace, ResourcesExhausted, Unwritable
from restore_agent.dest import archive as archive_module
from restore_agent.dest.archive import BLOCK, Digest, Follower, Hashed, NoFollower, Part
from restore_agent.dest.directory import Directory

DATA = bytes(range(256)) * 40
T = TypeVar("T")


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@asynccontextmanager
async def part_of(
    dest: Directory, *, ours: bool = True, hashed: Hashed | None = None, follower: Follower | None = None
) -> AsyncIterator[Part]:
    """Open the part file of the archive `a`."""
    part = await Part.open(dest, "a", ours=ours, hashed=hashed, follower=follower)
    try:
        yield part
    finally:
        await part.close()


async def put(part: Part, *blocks: bytes) -> None:
    """Give blocks to each consumer of a part file."""
    for consumer in part.consumers:
        await consumer(memoryview(block) for block in blocks)


async def write(dest: Directory, *blocks: bytes) -> Digest:
    """Write the part file from its start."""
    async with part_of(dest) as part:
        await part.restart()
        await put(part, *blocks)
        return await part.sync()


def path_of(dest: Directory) -> Path:
    return dest.path / "a.part"


# ---------------------------------------------------------------- bytes and hash


@pytest.mark.parametrize("blocks", [(), (b"",), (b"x",), (DATA,), (DATA, b"", DATA[:77], b"y"), (bytes(BLOCK + 1),)])
def test_the_digest_of_a_part_file_is_that_of_the_bytes_on_disk(blocks: tuple[bytes, ...], dest: Directory) -> None:
    digest = run(write(dest, *blocks))
    data = b"".join(blocks)
    assert path_of(dest).read_bytes() == data
    assert digest == Digest(sha1(data), len(data), path_of(dest).stat().st_ino)


def test_a_part_file_that_starts_again_has_no_earlier_bytes(dest: Directory) -> None:
    run(write(dest, DATA))
    digest = run(write(dest, b"short"))
    assert path_of(dest).read_bytes() == b"short"
    assert digest.sha1 == sha1(b"short")


def test_opening_a_part_file_of_the_agent_does_not_change_it(dest: Directory) -> None:
    path_of(dest).write_bytes(DATA)

    async def only_open() -> int:
        async with part_of(dest) as part:
            return part.size

    assert run(only_open()) == 0
    assert path_of(dest).read_bytes() == DATA


def test_a_consumer_returns_a_block_when_it_requests_the_next_one(dest: Directory) -> None:
    """A block is recycled then; a consumer that kept it would read other bytes."""
    block = memoryview(bytearray(4))

    def recycled() -> Iterator[memoryview]:
        for text in (b"aaaa", b"bbbb", b"cc"):
            block[: len(text)] = text
            yield block[: len(text)]

    async def story() -> Digest:
        async with part_of(dest) as part:
            for consumer in part.consumers:
                await consumer(recycled())
            return await part.sync()

    assert run(story()).sha1 == sha1(b"aaaabbbbcc")
    assert path_of(dest).read_bytes() == b"aaaabbbbcc"


# ---------------------------------------------------------------- a later attempt


@pytest.mark.parametrize("have", [0, 1, 5000, len(DATA)])
def test_a_part_file_is_hashed_again_and_continued(have: int, dest: Directory) -> None:
    path_of(dest).write_bytes(DATA)
    seen: list[int] = []

    async def resume() -> Digest:
        async with part_of(dest) as part:
            await part.hash_existing(have, seen.append)
            assert part.size == have
            await put(part, b"and more")
            return await part.sync()

    digest = run(resume())
    assert path_of(dest).read_bytes() == DATA[:have] + b"and more"
    assert digest.sha1 == sha1(DATA[:have] + b"and more")
    assert seen == ([have] if have else [])


def test_hashing_a_long_part_file_reports_its_progress(dest: Directory) -> None:
    path_of(dest).write_bytes(bytes(2 * BLOCK + 7))
    seen: list[int] = []

    async def story() -> str:
        async with part_of(dest) as part:
            await part.hash_existing(2 * BLOCK + 7, seen.append)
            return (await part.sync()).sha1

    assert run(story()) == sha1(bytes(2 * BLOCK + 7))
    assert seen == [BLOCK, 2 * BLOCK, 2 * BLOCK + 7]


def test_a_part_file_that_is_shorter_than_expected_is_not_continued_with_zeros(dest: Directory) -> None:
    path_of(dest).write_bytes(b"short")

    async def story() -> None:
        async with part_of(dest) as part:
            await part.hash_existing(1000, lambda _: None)

    with pytest.raises(InTheWay, match="shorter"):
        run(story())
    assert path_of(dest).read_bytes() == b"short"


def test_the_hash_of_an_earlier_attempt_is_continued_without_reading_the_file(dest: Directory) -> None:
    async def story() -> Digest:
        async with part_of(dest) as part:
            await put(part, DATA)
            hashed = part.hashed
        async with part_of(dest, hashed=hashed) as part:
            assert part.size == len(DATA)
            await put(part, b"and more")
            return await part.sync()

    assert run(story()).sha1 == sha1(DATA + b"and more")
    assert path_of(dest).read_bytes() == DATA + b"and more"


@pytest.mark.parametrize("change", ["longer", "shorter", "replaced", "not ours"])
def test_the_hash_of_an_earlier_attempt_is_ignored_if_the_file_was_changed(change: str, dest: Directory) -> None:
    async def story() -> int:
        async with part_of(dest) as part:
            await put(part, DATA)
            hashed = part.hashed
        if change == "replaced":
            path_of(dest).with_name("other").write_bytes(DATA)
            path_of(dest).with_name("other").rename(path_of(dest))
        elif change != "not ours":
            os.truncate(path_of(dest), len(DATA) + (1 if change == "longer" else -1))
        async with part_of(dest, ours=change != "not ours", hashed=hashed) as part:
            return part.size

    assert run(story()) == 0


@hypothesis_settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    attempts=st.lists(
        st.tuples(st.sampled_from(["restart", "continue", "hash"]), st.lists(st.binary(max_size=50), max_size=3)),
        max_size=5,
    )
)
def test_the_hash_is_that_of_the_file_after_any_attempts(
    attempts: list[tuple[str, list[bytes]]], dest: Directory
) -> None:
    async def story() -> None:
        expected, hashed = b"", None
        for how, blocks in attempts:
            async with part_of(dest, hashed=hashed) as part:
                if how == "restart" or part.size != len(expected):
                    await part.restart()
                    expected = b""
                elif how == "hash":
                    await part.hash_existing(len(expected) // 2, lambda _: None)
                    expected = expected[: len(expected) // 2]
                await put(part, *blocks)
                expected += b"".join(blocks)
                digest, hashed = await part.sync(), part.hashed
            assert path_of(dest).read_bytes() == expected
            assert (digest.sha1, digest.size) == (sha1(expected), len(expected))

    run(story())
    dest.remove("a.part")


# ---------------------------------------------------------------- whose file it is


def test_a_part_file_is_readable_for_its_owner_only_whatever_its_mode_was(dest: Directory) -> None:
    path_of(dest).write_bytes(b"")
    path_of(dest).chmod(0o666)
    run(write(dest, DATA))
    assert stat.S_IMODE(path_of(dest).stat().st_mode) == 0o600
    assert sorted(os.listdir(dest.path)) == ["a.part"]


def test_a_part_file_without_a_journal_entry_is_replaced(dest: Directory) -> None:
    path_of(dest).write_bytes(b"of another program")
    reader = path_of(dest).open("rb")

    async def story() -> Digest:
        async with part_of(dest, ours=False) as part:
            assert part.size == 0
            await put(part, DATA)
            return await part.sync()

    with reader:
        digest = run(story())
        assert reader.read() == b"of another program"
    assert path_of(dest).read_bytes() == DATA
    assert digest.sha1 == sha1(DATA)


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("kind", ["link", "link to nowhere", "directory", "fifo", "hard link"])
def test_an_object_that_is_not_a_file_of_its_own_is_in_the_way(
    kind: str, ours: bool, dest: Directory, outside: Path
) -> None:
    place = path_of(dest)
    make: dict[str, Callable[[], object]] = {
        "link": lambda: place.symlink_to(outside),
        "link to nowhere": lambda: place.symlink_to(outside.with_name("nowhere")),
        "directory": place.mkdir,
        "fifo": lambda: os.mkfifo(place),
        "hard link": lambda: os.link(outside, place),
    }
    make[kind]()

    async def story() -> None:
        async with part_of(dest, ours=ours):
            pass

    before = threading.active_count()
    with pytest.raises(InTheWay):
        run(story())
    assert outside.read_bytes() == b"not yours"
    assert not outside.with_name("nowhere").exists()
    assert threading.active_count() <= before + 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("ours", [True, False])
def test_a_part_file_of_another_user_is_in_the_way(ours: bool, dest: Directory) -> None:
    path_of(dest).write_bytes(b"theirs")
    os.chown(path_of(dest), 65534, -1)

    async def story() -> None:
        async with part_of(dest, ours=ours):
            pass

    with pytest.raises(InTheWay, match="owned by user 65534"):
        run(story())
    assert path_of(dest).read_bytes() == b"theirs"


def test_a_part_file_that_another_process_writes_to_is_in_the_way(dest: Directory) -> None:
    async def disturbed() -> None:
        async with part_of(dest) as part:
            await put(part, DATA)
            with path_of(dest).open("ab") as other:
                other.write(b"x")
            await part.sync()

    with pytest.raises(InTheWay, match="changed by another process"):
        run(disturbed())


# ---------------------------------------------------------------- failing writes and syncs


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes: the kernel fails a write in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_beyond_the_limit_of_the_process_is_an_error_and_keeps_the_bytes_before(dest: Directory) -> None:
    async def overflow() -> None:
        async with part_of(dest) as part:
            await put(part, DATA)
            with files_up_to(len(DATA) + 100):
                await put(part, DATA)

    with pytest.raises(ResourcesExhausted, match=r"cannot write a\.part") as caught:
        run(overflow())
    assert caught.value.exit_code == 41
    assert path_of(dest).read_bytes()[: len(DATA)] == DATA


def test_the_size_counts_only_blocks_that_are_written(dest: Directory) -> None:
    async def story() -> tuple[int, int]:
        async with part_of(dest) as part:
            _, write_all = part.consumers
            with files_up_to(len(DATA) + 100), pytest.raises(ResourcesExhausted):
                await write_all(memoryview(block) for block in (DATA, DATA))
            return part.size, path_of(dest).stat().st_size

    assert run(story()) == (len(DATA), len(DATA) + 100)


@pytest.mark.parametrize(("call", "sync"), [("fsync", Part.sync), ("fdatasync", Part.flush)])
def test_after_a_failed_sync_no_byte_of_the_part_file_is_trusted(
    call: str, sync: Callable[[Part], Coroutine[Any, Any, object]], dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def story() -> bool:
        async with part_of(dest) as part:
            await put(part, DATA)
            assert not part.sync_failed
            monkeypatch.setattr(os, call, fail)
            with pytest.raises(Unwritable, match=r"cannot sync a\.part"):
                await sync(part)
            return part.sync_failed

    assert run(story())


def test_the_tail_is_truncated_to_free_space(dest: Directory) -> None:
    async def story(tail: int) -> None:
        async with part_of(dest) as part:
            await part.restart()
            await put(part, DATA)
            await part.truncate_tail(tail)

    run(story(100))
    assert path_of(dest).read_bytes() == DATA[:-100]
    run(story(len(DATA) + 1))
    assert path_of(dest).read_bytes() == b""


# ---------------------------------------------------------------- durability and threads


def watch_syncs(monkeypatch: pytest.MonkeyPatch, call: str) -> list[int]:
    """Return a list that grows with the size of each file that is synced."""
    synced: list[int] = []
    real = getattr(os, call)

    def watched(descriptor: int) -> None:
        real(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, call, watched)
    return synced


def test_a_part_file_is_synced_before_its_digest_is_known(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = watch_syncs(monkeypatch, "fsync")
    digest = run(write(dest, DATA, DATA))
    assert synced == [2 * len(DATA)] == [digest.size]


def test_a_flush_makes_the_bytes_so_far_durable(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = watch_syncs(monkeypatch, "fdatasync")

    async def story() -> int:
        async with part_of(dest) as part:
            await put(part, DATA)
            return await part.flush()

    assert run(story()) == len(DATA)
    assert synced == [len(DATA)]


def test_write_back_begins_long_before_the_sync(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    advised: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, size, __: advised.append((offset, size)))
    run(write(dest, *[bytes(BLOCK)] * 40))
    assert advised == [(0, 32 << 20), (32 << 20, 32 << 20)]


def test_a_file_system_that_takes_no_advice_is_written_all_the_same(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "not supported")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    assert run(write(dest, *[bytes(BLOCK)] * 17)).size == 17 * BLOCK


def test_a_part_file_ends_its_threads(dest: Directory) -> None:
    run(write(dest, DATA))
    for thread in threading.enumerate():
        if thread.name.startswith("archive"):
            thread.join(30)
            assert not thread.is_alive()


def test_a_host_that_cannot_start_a_thread_is_reported_before_a_download(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, allowed = threading.Thread.start, [1]

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("archive"):
            if not allowed:
                raise RuntimeError("can't start new thread")
            allowed.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(ResourcesExhausted, match="no thread for another archive") as caught:
        run(write(dest, DATA))
    assert (caught.value.exit_code, caught.value.spent) == (41, False)
    assert sorted(os.listdir(dest.path)) == []


def test_the_threads_of_a_part_file_are_running_when_it_is_open(dest: Directory) -> None:
    async def story() -> int:
        before = threading.active_count()
        async with part_of(dest) as part:
            blocks: Iterable[memoryview] = [memoryview(DATA)]
            assert threading.active_count() - before == archive_module._THREADS
            await part.consumers[0](blocks)
            return threading.active_count() - before

    assert run(story()) == archive_module._THREADS


# ---------------------------------------------------------------- a follower


class Recorder(NoFollower):
    """A follower that notes what it is told, and has space to give back `rooms` times."""

    def __init__(self, rooms: int = 0, at: int = 0) -> None:
        self.events: list[tuple[str, int]] = []
        self.inode = 0
        self._rooms, self._at = rooms, at

    def opened(self, descriptor: int) -> None:
        self.inode = os.fstat(descriptor).st_ino

    def grew(self, size: int) -> None:
        self.events.append(("grew", size))

    def truncated(self, size: int) -> None:
        self.events.append(("truncated", size))

    def position(self) -> int:
        return self._at

    def make_room(self) -> bool:
        self.events.append(("make room", 0))
        self._rooms -= 1
        return self._rooms >= 0


def test_a_follower_is_notified_of_the_file_and_of_every_change_of_its_size(dest: Directory) -> None:
    first, second = Recorder(), Recorder()

    async def story() -> None:
        async with part_of(dest, follower=first) as part:
            assert first.inode == path_of(dest).stat().st_ino
            await put(part, b"four", b"more")
            await part.restart()
            await put(part, b"again")
            hashed = part.hashed
        async with part_of(dest, hashed=hashed, follower=second) as part:
            await part.hash_existing(2, lambda _: None)

    run(story())
    assert first.events == [("grew", 0), ("grew", 4), ("grew", 8), ("truncated", 0), ("grew", 5)]
    assert second.events == [("grew", 5), ("truncated", 0), ("grew", 2)]


def test_pages_that_a_follower_has_not_read_stay_in_memory(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    advised: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, size, __: advised.append((offset, size)))

    async def story() -> int:
        async with part_of(dest, follower=Recorder(at=100)) as part:
            await put(part, DATA)
            return await part.flush()

    assert run(story()) == len(DATA)
    assert advised == [(0, 100)]


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The next writes of blocks find the disk full this many times."""
    write, left = io.FileIO.write, [times]

    def full(file: io.FileIO, data: Any, /) -> int:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(archive_module._BlockFile, "write", full, raising=False)


def test_the_size_on_disk_is_known_while_the_file_is_open_and_after(dest: Directory) -> None:
    async def story() -> None:
        async with part_of(dest) as part:
            await put(part, DATA)
            os.ftruncate(part._file.fileno(), 2 * len(DATA))  # as if a block were written that is not counted yet
            assert (part.on_disk(), part.size) == (2 * len(DATA), len(DATA))
        assert part.on_disk() == len(DATA)

    run(story())


@pytest.mark.parametrize(("rooms", "full", "written"), [(1, 1, True), (0, 1, False), (5, 2, False)])
def test_on_a_full_disk_the_follower_is_asked_once_per_block_for_space(
    rooms: int, full: int, written: bool, dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = Recorder(rooms)

    async def story() -> Digest:
        async with part_of(dest, follower=follower) as part:
            fill_the_disk(monkeypatch, full)
            await put(part, DATA)
            return await part.sync()

    if written:
        assert run(story()).sha1 == sha1(DATA)
    else:
        with pytest.raises(NoSpace, match=r"cannot write a\.part"):
            run(story())
    assert follower.events.count(("make room", 0)) == 1
