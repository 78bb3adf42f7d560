"""Unpacking follows a file that grows, is restarted or truncated, and ends when it is told to."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from archives import TOP, content, directory, member, tar_of, unpack, zipped

from restore_agent.core.errors import (
    CannotUnpack,
    DamagedArchive,
    Finding,
    NoSpaceToUnpack,
    NotUnpacked,
    UnpackCancelled,
    UnsafeArchive,
)
from restore_agent.unpack.datapath import DataPaths, Staging
from restore_agent.unpack.reading.source import READ_SIZE, Restarted, Source
from restore_agent.unpack.unpacker import Options, Unpacked, Unpacker

PATIENCE = 30.0


def archive_of(seed: int, files: int = 12) -> bytes:
    rnd = random.Random(seed)
    entries = [member(f"{TOP}/{n}.wt", rnd.randbytes(150_000) + bytes(50_000)) for n in range(files)]
    return zipped(tar_of([directory(TOP), *entries]))


FIRST, SECOND = archive_of(1), archive_of(2, 9)


@dataclass
class Running:
    """An unpacker in a thread of its own, over a part file that the test writes."""

    part: Path
    paths: DataPaths
    staging: Staging
    source: Source
    unpacker: Unpacker
    thread: threading.Thread = field(init=False)
    result: Unpacked | None = None
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self.unpacker.run()
        except BaseException as error:
            self.error = error

    def write(self, data: bytes, at: int = 0) -> int:
        with self.part.open("r+b") as file:
            file.seek(at)
            file.write(data)
        return at + len(data)

    def end(self) -> Unpacked:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.001)


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Running] = []

    def begin(**options: object) -> Running:
        part = tmp_path / "a.part"
        part.touch()
        paths = DataPaths.open(tmp_path / "into", create=True)
        staging = paths.staging("job")
        with part.open("rb") as file:
            source = Source(file.fileno())
        unpacker = Unpacker(source, staging, Options(**options))  # type: ignore[arg-type]
        running.append(Running(part, paths, staging, source, unpacker))
        return running[-1]

    yield begin
    for one in running:
        one.unpacker.cancel()
        one.thread.join(PATIENCE)
        one.staging.discard()
        one.source.close()
        one.paths.close()


def require_published(running: Running, archive: bytes, tmp_path: Path) -> None:
    running.paths.publish(running.staging, "data")
    unpack(archive, tmp_path / "reference")
    assert content(tmp_path / "into" / "data") == content(tmp_path / "reference" / "data")
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["data"]


@pytest.mark.parametrize("step", [1 << 12, 100_003, READ_SIZE])
def test_a_file_that_grows_is_unpacked_to_its_last_byte(start: Start, tmp_path: Path, step: int) -> None:
    sha1 = hashlib.sha1()
    running = start(consumer=lambda: sha1.update)
    for at in range(0, len(FIRST), step):
        running.source.advance(running.write(FIRST[at : at + step], at))
    running.source.finish(len(FIRST))
    unpacked = running.end()
    assert (unpacked.files, unpacked.archive_bytes, unpacked.finding) == (12, len(FIRST), Finding.WHOLE)
    assert sha1.hexdigest() == hashlib.sha1(FIRST).hexdigest()
    require_published(running, FIRST, tmp_path)


def test_the_last_bytes_may_be_reported_by_the_end_alone(start: Start, tmp_path: Path) -> None:
    running = start()
    running.source.advance(running.write(FIRST[:1000]))
    running.wait_for(lambda: running.source.position == 1000)
    running.write(FIRST[1000:], 1000)
    running.source.finish(len(FIRST))
    running.end()
    require_published(running, FIRST, tmp_path)


def test_bytes_beyond_the_reported_size_are_not_read(start: Start) -> None:
    running = start()
    running.write(FIRST)
    running.source.advance(5000)
    running.wait_for(lambda: running.source.position == 5000)
    time.sleep(0.02)
    assert running.source.position == 5000
    assert running.thread.is_alive()


@pytest.mark.parametrize("read", [0, 10, 400_000, len(FIRST)])
def test_a_restart_unpacks_the_bytes_of_the_second_transfer_only(start: Start, tmp_path: Path, read: int) -> None:
    hashes = []

    def consumer() -> Callable[[bytes], None]:
        hashes.append(hashlib.sha1())
        return hashes[-1].update

    running = start(consumer=consumer)
    running.source.advance(running.write(FIRST[:read]))
    running.wait_for(lambda: running.source.position == read)
    running.source.restart()
    os.truncate(running.part, 0)
    for at in range(0, len(SECOND), 200_000):
        running.source.advance(running.write(SECOND[at : at + 200_000], at))
    running.source.finish(len(SECOND))
    assert running.end().files == 9
    assert hashes[-1].hexdigest() == hashlib.sha1(SECOND).hexdigest()
    require_published(running, SECOND, tmp_path)


def test_a_restart_with_another_file(start: Start, tmp_path: Path) -> None:
    running = start()
    running.source.advance(running.write(FIRST[:300_000]))
    running.wait_for(lambda: running.source.position > 0)
    other = tmp_path / "other.part"
    other.write_bytes(SECOND)
    with other.open("rb") as file:
        running.source.restart(descriptor=file.fileno())
    running.source.finish(len(SECOND))
    assert running.end().files == 9


def test_a_resume_that_keeps_all_bytes_that_were_read_continues(start: Start, tmp_path: Path) -> None:
    starts = []
    running = start(consumer=lambda: starts.append(1) or len)
    running.source.advance(running.write(FIRST[:300_000]))
    running.wait_for(lambda: running.source.position == 300_000)
    running.source.restart(keep=300_000)
    running.write(FIRST[300_000:], 300_000)
    running.source.finish(len(FIRST))
    running.end()
    assert len(starts) == 1
    require_published(running, FIRST, tmp_path)


def test_a_truncation_below_what_was_read_starts_again(start: Start, tmp_path: Path) -> None:
    running = start()
    running.source.advance(running.write(FIRST[:299_000] + b"wrong" * 200))
    running.wait_for(lambda: running.source.position == 300_000)
    running.source.restart(keep=299_000)
    running.write(FIRST[299_000:], 299_000)
    running.source.finish(len(FIRST))
    running.end()
    require_published(running, FIRST, tmp_path)


@pytest.mark.parametrize("bad", [b"\x1f\x8b\x08\x00" + b"x" * 5000, b"x" * 5000, tar_of([member("../x", b"x")])])
def test_bad_bytes_are_final_only_when_the_transfer_is(start: Start, tmp_path: Path, bad: bytes) -> None:
    running = start()
    running.source.advance(running.write(bad))
    staged = tmp_path / "into" / running.staging.name
    running.wait_for(lambda: running.source.position > 0)
    time.sleep(0.05)
    assert running.thread.is_alive()
    assert list(staged.iterdir()) == []
    running.source.restart()
    running.write(FIRST)
    running.source.finish(len(FIRST))
    running.end()
    require_published(running, FIRST, tmp_path)


def test_bad_bytes_are_reported_when_the_transfer_is_finished(start: Start, tmp_path: Path) -> None:
    running = start()
    bad = tar_of([member("t/ok", b"x"), member("../x", b"x")])
    running.source.finish(running.write(bad))
    with pytest.raises(UnsafeArchive):
        running.end()
    assert list((tmp_path / "into" / running.staging.name).iterdir()) == []


def test_a_file_that_ends_before_the_reported_size_is_an_error(start: Start) -> None:
    running = start()
    running.source.finish(running.write(FIRST[:1000]) + 1)
    with pytest.raises(CannotUnpack, match="ends before byte 1001"):
        running.end()


def test_a_transfer_that_is_abandoned_ends_unpacking(start: Start) -> None:
    running = start()
    running.source.advance(running.write(FIRST[:1000]))
    running.source.cancel()
    with pytest.raises(UnpackCancelled):
        running.end()


def test_a_truncated_archive_that_is_finished_is_damaged(start: Start, tmp_path: Path) -> None:
    running = start()
    running.source.finish(running.write(FIRST[:-9]))
    with pytest.raises(DamagedArchive) as raised:
        running.end()
    assert raised.value.finding is Finding.TRUNCATED
    assert list((tmp_path / "into" / running.staging.name).iterdir()) == []


@pytest.mark.parametrize("written", [0, 1000, len(FIRST)])
def test_cancelling_ends_unpacking_within_a_second_at_any_point(start: Start, written: int) -> None:
    running = start()
    running.source.advance(running.write(FIRST[:written]))
    running.wait_for(lambda: running.source.position == written)
    begun = time.monotonic()
    running.unpacker.cancel(NoSpaceToUnpack("the archive needs the space"))
    with pytest.raises(NoSpaceToUnpack, match="needs the space"):
        running.end()
    assert time.monotonic() - begun < 1
    running.staging.discard()


def test_cancelling_ends_a_consumer_that_hangs(start: Start) -> None:
    release = threading.Event()
    running = start(consumer=lambda: lambda _: release.wait(PATIENCE))
    running.source.finish(running.write(FIRST))
    begun = time.monotonic()
    running.unpacker.cancel()
    with pytest.raises(UnpackCancelled):
        running.end()
    assert time.monotonic() - begun < 1
    release.set()


@pytest.mark.parametrize("keep", [0, len(FIRST)])
def test_a_restart_after_the_end_makes_the_result_outdated(start: Start, keep: int) -> None:
    running = start()
    running.source.finish(running.write(FIRST))
    running.end()
    assert running.source.is_current
    running.source.restart(keep=keep)
    assert not running.source.is_current
    running.source.finish(keep + 1)
    assert not running.source.is_current


def test_an_error_of_the_consumer_is_raised(start: Start) -> None:
    def fail(_: bytes) -> None:
        raise ZeroDivisionError

    running = start(consumer=lambda: fail)
    running.source.finish(running.write(FIRST))
    with pytest.raises(ZeroDivisionError):
        running.end()


def test_progress_is_in_bytes_of_the_archive(start: Start) -> None:
    seen: list[int] = []
    running = start(on_progress=seen.append)
    running.source.finish(running.write(FIRST))
    running.end()
    assert seen == sorted(seen)
    assert seen[-1] == len(FIRST)


def test_the_reader_needs_only_its_own_descriptor(start: Start, tmp_path: Path) -> None:
    running = start()
    running.source.advance(running.write(FIRST[:1000]))
    running.write(FIRST[1000:], 1000)
    running.part.rename(tmp_path / "renamed")
    (tmp_path / "renamed").unlink()
    running.source.finish(len(FIRST))
    assert running.end().files == 12


def test_an_earlier_reader_stops_when_a_later_one_starts(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(3 * READ_SIZE))
    with (tmp_path / "a").open("rb") as file:
        source = Source.of_complete_file(file.fileno(), drop_read_pages=True)
    earlier = source.blocks(source.start())
    next(earlier)
    later = source.blocks(source.start())
    with pytest.raises(Restarted):
        next(earlier)
    assert sum(map(len, later)) == 3 * READ_SIZE
    source.close()
    source.close()


@pytest.mark.parametrize("seed", range(12))
def test_random_restarts_never_mix_two_transfers(tmp_path: Path, start: Start, seed: int) -> None:
    rnd = random.Random(seed)
    archives = [archive_of(seed, 3) for seed in (3, 4)]
    running = start()
    for _ in range(rnd.randrange(5)):
        lost = rnd.choice(archives)
        cut = rnd.randrange(len(lost))
        running.source.advance(running.write(lost[:cut]))
        for _ in range(rnd.randrange(3)):
            time.sleep(0.002)
        running.source.restart()
    final = rnd.choice(archives)
    running.source.finish(running.write(final))
    assert running.end().archive_bytes == len(final)
    require_published(running, final, tmp_path)


def test_errors_have_the_reasons_of_the_receipt() -> None:
    reasons = {kind.id for kind in (NoSpaceToUnpack, CannotUnpack, UnsafeArchive, DamagedArchive)}
    assert reasons == {"no-space-to-unpack", "cannot-unpack", "unsafe-archive", "damaged-archive"}
    assert issubclass(UnpackCancelled, NotUnpacked)
