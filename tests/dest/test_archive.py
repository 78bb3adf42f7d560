"""A file coming to be: a name that nobody can misuse, bytes that are what was hashed, a final name only when proven."""

import asyncio
import errno
import hashlib
import os
import resource
import stat
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from restore_agent.dest.publish import Candidate, Promoter, publish, set_aside

from restore_agent.core.errors import DestError, ForeignFile, InTheWay, NoSpace, Unwritable
from restore_agent.core.names import MISMATCH, PART, UNPROVEN
from restore_agent.core.untrusted import Finding
from restore_agent.dest.archive import BLOCK, Digest, Part, digest_of, structure_of
from restore_agent.dest.directory import Directory
from restore_agent.dest.journal import Identity, Journal
from restore_agent.dest.lock import STATE_DIRECTORY
from restore_agent.restore.transfer.pipeline import Pipeline
from restore_agent.restore.transfer.transfer import CONSUMERS

COMPANIONS = ("", PART, UNPROVEN, MISMATCH)
DATA = bytes(range(256)) * 40
T = TypeVar("T")


@pytest.fixture
def dest(tmp_path: Path) -> Iterator[Directory]:
    with Directory.open(tmp_path / "dest", create=True) as directory:
        yield directory


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


# ---------------------------------------------------------------- a part


async def put(part: Part, *pieces: bytes) -> None:
    """Let pieces flow into a part, as a transfer would."""
    flow = Pipeline(2, BLOCK, CONSUMERS)

    def bring() -> None:
        for piece in pieces:
            for at in range(0, len(piece) or 1, BLOCK):
                block, size = flow.take(), len(piece[at : at + BLOCK])
                block[:size] = piece[at : at + BLOCK]
                flow.give(block, size)
        flow.end()

    await asyncio.gather(part.pour(flow), asyncio.to_thread(bring))


async def write(dest: Directory, archive: str, *blocks: bytes) -> Digest:
    part = await Part.open(dest, archive)
    try:
        await part.restart()
        await put(part, *blocks)
        return await part.sync()
    finally:
        await part.close()


@pytest.mark.parametrize("blocks", [(), (b"",), (b"x",), (DATA,), (DATA, b"", DATA[:77], b"y"), (bytes(BLOCK + 1),)])
def test_the_digest_of_a_part_is_that_of_the_bytes_on_disk(blocks: tuple[bytes, ...], dest: Directory) -> None:
    digest = run(write(dest, "rs0.tar.gz", *blocks))
    path = dest.path / "rs0.tar.gz.part"
    whole = b"".join(blocks)
    assert path.read_bytes() == whole
    assert digest == Digest(sha1(whole), len(whole), path.stat().st_ino)


def test_a_part_is_for_its_owner_only_whatever_its_mode_was(dest: Directory) -> None:
    path = dest.path / "a.part"
    path.write_bytes(b"")
    path.chmod(0o666)
    run(write(dest, "a", DATA))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert dest.names() == ["a.part"]


def test_a_part_that_is_started_over_holds_nothing_of_before(dest: Directory) -> None:
    run(write(dest, "a", DATA))
    digest = run(write(dest, "a", b"short"))
    assert (dest.path / "a.part").read_bytes() == b"short"
    assert digest.sha1 == sha1(b"short")


def test_opening_a_part_changes_nothing_in_it(dest: Directory) -> None:
    (dest.path / "a.part").write_bytes(DATA)

    async def only_open() -> None:
        await (await Part.open(dest, "a")).close()

    run(only_open())
    assert (dest.path / "a.part").read_bytes() == DATA


@pytest.mark.parametrize("have", [0, 1, 5000, len(DATA)])
def test_a_part_is_taken_over_and_continued(have: int, dest: Directory) -> None:
    (dest.path / "a.part").write_bytes(DATA)
    seen: list[int] = []

    async def resume() -> Digest:
        part = await Part.open(dest, "a")
        try:
            await part.take_over(have, seen.append)
            assert part.size == have
            await put(part, b"and more")
            return await part.sync()
        finally:
            await part.close()

    digest = run(resume())
    assert (dest.path / "a.part").read_bytes() == DATA[:have] + b"and more"
    assert digest.sha1 == sha1(DATA[:have] + b"and more")
    assert seen == ([have] if have else [])


def test_taking_over_a_long_part_tells_how_far_it_is(dest: Directory) -> None:
    (dest.path / "a.part").write_bytes(bytes(2 * BLOCK + 7))
    seen: list[int] = []

    async def take_over() -> str:
        part = await Part.open(dest, "a")
        try:
            await part.take_over(2 * BLOCK + 7, seen.append)
            return (await part.sync()).sha1
        finally:
            await part.close()

    assert run(take_over()) == sha1(bytes(2 * BLOCK + 7))
    assert seen == [BLOCK, 2 * BLOCK, 2 * BLOCK + 7]


def test_a_part_that_is_shorter_than_thought_is_not_taken_over_as_zeros(dest: Directory) -> None:
    (dest.path / "a.part").write_bytes(b"short")

    async def take_over() -> None:
        part = await Part.open(dest, "a")
        try:
            await part.take_over(1000, lambda _: None)
        finally:
            await part.close()

    with pytest.raises(InTheWay, match="shorter"):
        run(take_over())


def test_a_part_that_somebody_else_writes_to_is_in_the_way(dest: Directory) -> None:
    async def disturbed() -> None:
        part = await Part.open(dest, "a")
        try:
            await put(part, DATA)
            with (dest.path / "a.part").open("ab") as other:
                other.write(b"x")
            await part.sync()
        finally:
            await part.close()

    with pytest.raises(InTheWay, match="somebody else"):
        run(disturbed())


@pytest.mark.parametrize("kind", ["link", "link to nowhere", "directory", "fifo"])
def test_a_part_that_is_no_file_is_in_the_way(kind: str, dest: Directory, tmp_path: Path) -> None:
    outside, place = tmp_path / "outside", dest.path / "a.part"
    outside.write_bytes(b"not yours")
    make: dict[str, Callable[[], object]] = {
        "link": lambda: place.symlink_to(outside),
        "link to nowhere": lambda: place.symlink_to(tmp_path / "nowhere"),
        "directory": place.mkdir,
        "fifo": lambda: os.mkfifo(place),
    }
    make[kind]()
    with pytest.raises(InTheWay):
        run(write(dest, "a", DATA))
    assert outside.read_bytes() == b"not yours"
    assert not (tmp_path / "nowhere").exists()


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: the kernel's own way to fail a write in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_finds_no_room_is_an_error_of_ours(dest: Directory) -> None:
    async def overflow() -> Part:
        part = await Part.open(dest, "a")
        try:
            await put(part, DATA)
            with files_up_to(len(DATA) + 100):
                await put(part, DATA)
        finally:
            await part.close()
        return part

    with pytest.raises(NoSpace, match=r"cannot write a\.part"):
        run(overflow())
    assert (dest.path / "a.part").read_bytes()[: len(DATA)] == DATA


def test_what_is_written_begins_to_be_written_back_long_before_the_sync(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, size, __: advised.append((offset, size)))
    run(write(dest, "a", *[bytes(BLOCK)] * 40))
    assert advised == [(0, 32 << 20), (32 << 20, 32 << 20)]


def test_a_file_system_that_takes_no_advice_is_written_all_the_same(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    assert run(write(dest, "a", *[bytes(BLOCK)] * 17)).size == 17 * BLOCK


def test_a_part_ends_its_threads(dest: Directory) -> None:
    before = threading.active_count()
    for _ in range(5):
        run(write(dest, "a", DATA))
    assert threading.active_count() <= before + 2


def test_a_part_is_synced_before_its_digest_is_known(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", watched)
    digest = run(write(dest, "a", DATA, DATA))
    assert synced == [2 * len(DATA)] == [digest.size]


def test_what_was_written_so_far_is_made_durable_while_more_comes(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fdatasync = os.fdatasync

    def watched(descriptor: int) -> None:
        fdatasync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    async def story() -> int:
        part = await Part.open(dest, "a")
        try:
            await put(part, DATA)
            return await part.flush()
        finally:
            await part.close()

    monkeypatch.setattr(os, "fdatasync", watched)
    assert run(story()) == len(DATA)
    assert synced == [len(DATA)]


# ---------------------------------------------------------------- a file that is there


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1])
def test_a_file_is_hashed_as_it_is(size: int, dest: Directory) -> None:
    path = dest.path / "a"
    path.write_bytes(b"x" * size)
    seen: list[int] = []
    digest = run(digest_of(dest, "a", seen.append))
    assert digest == Digest(sha1(b"x" * size), size, path.stat().st_ino)
    assert seen[-1:] == ([size] if size else [])


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        (bytes.fromhex("1f8b0800000000000003"), Finding.TRUNCATED),
        (b"<html>" * 200, Finding.DAMAGED),
        (b"", Finding.TRUNCATED),
    ],
)
def test_the_structure_of_a_file_is_judged_by_all_of_it(body: bytes, finding: Finding, dest: Directory) -> None:
    (dest.path / "a").write_bytes(body)
    assert run(structure_of(dest, "a")) is finding


def test_once_damaged_the_rest_of_a_file_is_not_read(dest: Directory) -> None:
    path = dest.path / "a"
    path.write_bytes(b"x" * 512)
    os.truncate(path, 1 << 40)
    assert run(structure_of(dest, "a")) is Finding.DAMAGED


@pytest.mark.parametrize("work", [digest_of, structure_of])
def test_what_is_no_file_is_not_read(work: Callable[..., Any], dest: Directory, tmp_path: Path) -> None:
    (dest.path / "link").symlink_to(tmp_path)
    (dest.path / "directory").mkdir()
    os.mkfifo(dest.path / "fifo")
    for name in ("link", "directory", "fifo"):
        with pytest.raises(InTheWay):
            run(work(dest, name))
    with pytest.raises(Unwritable, match="No such file"):
        run(work(dest, "missing"))


# ---------------------------------------------------------------- publishing


def test_a_proven_part_gets_its_final_name(dest: Directory) -> None:
    digest = run(write(dest, "a", DATA))
    run(publish(dest, "a.part", "a", digest))
    assert dest.names() == ["a"]
    assert (dest.path / "a").read_bytes() == DATA


class WallClock:
    """Time that stands still."""

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def publisher(dest: Directory) -> Iterator[Promoter]:
    state = dest.subdirectory(STATE_DIRECTORY, create=True)
    assert state is not None
    with state:
        journal = Journal.open(state)
        yield Promoter(dest, journal, WallClock())
        journal.close()


def test_a_crash_at_any_step_of_publishing_finds_what_it_needs(
    publisher: Promoter, dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes, then the fact that they are proven, then the name, and only then which file it was."""
    digest = run(write(dest, "a", DATA))
    (dest.path / "a.part").chmod(0o644)
    (dest.path / "a.unproven").write_bytes(b"older")
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        calls.append("sync " + os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    def watched_rename(*arguments: str, **more: int) -> None:
        rename(*arguments, **more)
        calls.append("rename")

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    run(publisher.publish("j1", "a", Candidate("a.part", digest)))
    assert calls == ["sync a.part", "sync journal.jsonl", "rename", "sync dest", "sync journal.jsonl"]
    assert dest.names() == [STATE_DIRECTORY, "a"]
    assert stat.S_IMODE((dest.path / "a").stat().st_mode) == 0o600
    entry = publisher.journal.entry("j1")
    assert (entry.proven, entry.published) == (digest.sha1, Identity.of((dest.path / "a").stat()))


def test_a_file_whose_sync_failed_is_never_trusted_again(
    publisher: Promoter, dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = run(write(dest, "a", DATA))
    fsync = os.fsync

    def fails_for_the_part(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("a.part"):
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails_for_the_part)
    with pytest.raises(Unwritable, match=r"cannot sync a\.part"):
        run(publisher.publish("j1", "a", Candidate("a.part", digest)))
    assert dest.names() == [STATE_DIRECTORY]
    assert publisher.journal.entry("j1").proven is None


@pytest.mark.parametrize("kind", ["file", "the same file", "directory", "link to nowhere"])
def test_what_stands_at_the_final_name_is_never_overwritten(kind: str, dest: Directory, tmp_path: Path) -> None:
    digest = run(write(dest, "a", DATA))
    place = dest.path / "a"
    make: dict[str, Callable[[], object]] = {
        "file": lambda: place.write_bytes(b"not ours"),
        "the same file": lambda: os.link(dest.path / "a.part", place),
        "directory": place.mkdir,
        "link to nowhere": lambda: place.symlink_to(tmp_path / "nowhere"),
    }
    make[kind]()
    before = place.lstat()
    with pytest.raises(ForeignFile) as caught:
        run(publish(dest, "a.part", "a", digest))
    assert (caught.value.exit_code, caught.value.left) == (42, "a.part is kept")
    assert place.lstat().st_ino == before.st_ino
    assert (dest.path / "a.part").read_bytes() == DATA


@pytest.mark.parametrize("change", ["replaced", "longer", "shorter", "link", "gone"])
def test_a_file_that_is_not_the_one_that_was_hashed_is_never_published(
    change: str, dest: Directory, tmp_path: Path
) -> None:
    digest = run(write(dest, "a", DATA))
    part = dest.path / "a.part"
    if change == "replaced":
        (tmp_path / "other").write_bytes(DATA)
        (tmp_path / "other").rename(part)
    elif change == "link":
        part.rename(tmp_path / "moved")
        part.symlink_to(tmp_path / "moved")
    elif change == "gone":
        part.unlink()
    else:
        os.truncate(part, len(DATA) + (1 if change == "longer" else -1))
    with pytest.raises(DestError):
        run(publish(dest, "a.part", "a", digest))
    assert not (dest.path / "a").exists()


@pytest.mark.parametrize("suffix", [UNPROVEN, MISMATCH])
@pytest.mark.parametrize("older", [False, True])
def test_a_file_is_set_aside_in_place_of_an_older_one(suffix: str, older: bool, dest: Directory) -> None:
    run(write(dest, "a", DATA))
    if older:
        (dest.path / f"a{suffix}").write_bytes(b"older")
    assert run(set_aside(dest, "a.part", "a", suffix)) == f"a{suffix}"
    assert dest.names() == [f"a{suffix}"]
    assert (dest.path / f"a{suffix}").read_bytes() == DATA


def test_a_file_that_is_aside_already_stays(dest: Directory) -> None:
    (dest.path / "a.unproven").write_bytes(DATA)
    assert run(set_aside(dest, "a.unproven", "a", UNPROVEN)) == "a.unproven"
    assert dest.names() == ["a.unproven"]


def test_a_directory_where_a_file_would_be_set_aside_is_in_the_way(dest: Directory) -> None:
    run(write(dest, "a", DATA))
    (dest.path / "a.mismatch").mkdir()
    with pytest.raises(InTheWay):
        run(set_aside(dest, "a.part", "a", MISMATCH))
    assert (dest.path / "a.part").read_bytes() == DATA
