"""Promotion: only a verified, durable, journaled archive has its final name, after a crash at any point."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from restore_agent.core.errors import DestError, ForeignFile, InTheWay, NoSpace, Unwritable
from restore_agent.core.names import MISMATCH, PART, UNPROVEN
from restore_agent.dest import system
from restore_agent.dest.archive import Digest
from restore_agent.dest.directory import Directory
from restore_agent.dest.journal import Identity, Journal
from restore_agent.dest.journal.facts import Attempt, Entry, Promoted, Proven, Whole
from restore_agent.dest.lock import STATE_DIRECTORY
from restore_agent.dest.promotion import Candidate, Promoter

DATA = bytes(range(256)) * 40
SHA1 = hashlib.sha1(DATA, usedforsecurity=False).hexdigest()
T = TypeVar("T")


class StillClock:
    """Time that stands still."""

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@pytest.fixture
def promoter(dest: Directory, state: Directory) -> Iterator[Promoter]:
    """The promoter of a DEST in which the job `j1` downloads."""
    journal = Journal.open(state)
    run(journal.record("j1", Attempt("a", "a", None), 0.0))
    run(journal.record("j1", Whole(SHA1, 1.0, len(DATA)), 0.0))
    yield Promoter(dest, journal, StillClock())
    journal.close()


def candidate(dest: Directory, name: str = "a" + PART) -> Candidate:
    """Return a complete file of this name in DEST."""
    path = dest.path / name
    path.write_bytes(DATA)
    return Candidate(name, Digest(SHA1, len(DATA), path.stat().st_ino))


def entry(promoter: Promoter) -> Entry:
    return promoter.journal.entry("j1")


def let_sync_of_the_part_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def fails_for_the_part(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("a.part"):
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails_for_the_part)


def files(dest: Directory) -> list[str]:
    return [name for name in sorted(os.listdir(dest.path)) if name != STATE_DIRECTORY]


# ---------------------------------------------------------------- a verified file


@pytest.mark.parametrize("suffix", [PART, UNPROVEN, MISMATCH])
def test_a_verified_file_gets_its_final_name(suffix: str, promoter: Promoter, dest: Directory) -> None:
    run(promoter.promote("j1", "a", candidate(dest, "a" + suffix)))
    assert files(dest) == ["a"]
    assert (dest.path / "a").read_bytes() == DATA
    assert (entry(promoter).proven, entry(promoter).file_name) == (SHA1, "a")
    assert entry(promoter).promoted == Identity.of((dest.path / "a").stat())
    assert stat.S_IMODE((dest.path / "a").stat().st_mode) == 0o600


def test_a_crash_at_any_step_of_a_promotion_leaves_what_the_next_run_needs(
    promoter: Promoter, dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes, then the fact that they are verified, then the name, and only then which file it was."""
    (dest.path / "a.unproven").write_bytes(b"older")
    found = candidate(dest)
    calls: list[str] = []
    fsync, unlink, rename = os.fsync, os.unlink, system.rename_noreplace

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        calls.append("sync " + os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    def watched_unlink(name: bytes, **more: Any) -> None:
        unlink(name, **more)
        calls.append("remove " + name.decode())

    def watched_rename(*arguments: Any) -> None:
        rename(*arguments)
        calls.append("rename")

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "unlink", watched_unlink)
    monkeypatch.setattr(system, "rename_noreplace", watched_rename)
    run(promoter.promote("j1", "a", found))
    assert calls == [
        *("sync a.part", "sync journal.jsonl", "rename", "sync dest", "sync journal.jsonl"),
        "remove a.unproven",
    ]
    assert files(dest) == ["a"]


def test_a_file_whose_sync_failed_is_removed_and_never_trusted_again(
    promoter: Promoter, dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = candidate(dest)
    let_sync_of_the_part_fail(monkeypatch)
    with pytest.raises(Unwritable, match=r"cannot sync a\.part"):
        run(promoter.promote("j1", "a", found))
    assert files(dest) == []
    assert (entry(promoter).proven, entry(promoter).whole, entry(promoter).attempts) == (None, None, 1)


def test_a_file_whose_sync_failed_is_discarded_even_if_the_journal_cannot_be_written(
    promoter: Promoter, dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate(dest)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    run(promoter.discard("j1", "a.part"))
    assert files(dest) == []


def test_a_journal_that_cannot_be_written_prevents_the_promotion(
    promoter: Promoter, dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = candidate(dest)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoSpace):
        run(promoter.promote("j1", "a", found))
    assert files(dest) == ["a.part"]


@pytest.fixture(params=[True, False], ids=["renameat2", "no renameat2"])
def libc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library of this host, or one without renameat2."""
    if not request.param:
        monkeypatch.setattr(system, "_libc", SimpleNamespace)


@pytest.mark.parametrize("kind", ["file", "the same file", "directory", "link to nowhere"])
def test_an_object_at_the_final_name_is_never_replaced(
    kind: str, libc: None, promoter: Promoter, dest: Directory, tmp_path: Path
) -> None:
    found, place = candidate(dest), dest.path / "a"
    make: dict[str, Callable[[], object]] = {
        "file": lambda: place.write_bytes(b"not ours"),
        "the same file": lambda: os.link(dest.path / "a.part", place),
        "directory": place.mkdir,
        "link to nowhere": lambda: place.symlink_to(tmp_path / "nowhere"),
    }
    make[kind]()
    before = place.lstat()
    with pytest.raises(ForeignFile) as caught:
        run(promoter.promote("j1", "a", found))
    assert (caught.value.exit_code, caught.value.archive, caught.value.left) == (42, "a", "a.part is kept")
    assert (place.lstat().st_ino, place.lstat().st_size) == (before.st_ino, before.st_size)
    assert (dest.path / "a.part").read_bytes() == DATA
    assert entry(promoter).promoted is None


@pytest.mark.parametrize("change", ["replaced", "longer", "shorter", "link", "gone"])
def test_a_file_that_is_not_the_one_that_was_hashed_is_never_promoted(
    change: str, promoter: Promoter, dest: Directory, tmp_path: Path
) -> None:
    found, part = candidate(dest), dest.path / "a.part"
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
        run(promoter.promote("j1", "a", found))
    assert not (dest.path / "a").exists()
    assert entry(promoter).promoted is None


# ---------------------------------------------------------------- a file at the final name


def test_an_existing_verified_file_is_made_private_durable_and_known(
    promoter: Promoter, dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = candidate(dest, "a")
    (dest.path / "a").chmod(0o644)
    synced: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(os, "fsync", watched)
    run(promoter.accept_existing("j1", "a", found.digest))
    assert synced == ["a", "dest", "journal.jsonl", "journal.jsonl"]
    assert stat.S_IMODE((dest.path / "a").stat().st_mode) == 0o600
    assert (entry(promoter).proven, entry(promoter).promoted) == (SHA1, Identity.of((dest.path / "a").stat()))


def test_a_file_that_is_known_as_verified_is_not_journaled_as_verified_again(
    promoter: Promoter, dest: Directory
) -> None:
    found = candidate(dest, "a")
    run(promoter.record_verified("j1", "a", found.digest))
    size = (dest.path / STATE_DIRECTORY / "journal.jsonl").read_bytes().count(b"\n")
    run(promoter.record_verified("j1", "a", found.digest))
    lines = (dest.path / STATE_DIRECTORY / "journal.jsonl").read_bytes().splitlines()
    assert len(lines) == size + 1
    assert b'"fact":"published"' in lines[-1]


def test_a_verified_archive_is_removed_only_after_its_verification_is_in_the_journal(
    promoter: Promoter, dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(promoter.promote("j1", "a", candidate(dest)))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        with pytest.raises(NoSpace):
            run(promoter.remove_archive("j1", "a"))
    assert files(dest) == ["a"]
    run(promoter.remove_archive("j1", "a"))
    assert files(dest) == []
    assert (entry(promoter).proven, entry(promoter).archive_kept) == (SHA1, False)


# ---------------------------------------------------------------- other names


@pytest.mark.parametrize("older", [False, True])
def test_a_file_without_a_hash_is_set_aside_in_place_of_an_older_one(
    older: bool, promoter: Promoter, dest: Directory
) -> None:
    if older:
        (dest.path / "a.unproven").write_bytes(b"older")
    assert run(promoter.set_aside("j1", "a", candidate(dest))) == "a.unproven"
    assert files(dest) == ["a.unproven"]
    assert (dest.path / "a.unproven").read_bytes() == DATA
    assert entry(promoter).set_aside == SHA1


def test_a_file_that_is_set_aside_already_stays(promoter: Promoter, dest: Directory) -> None:
    found = candidate(dest, "a.unproven")
    assert run(promoter.set_aside("j1", "a", found)) == "a.unproven"
    assert files(dest) == ["a.unproven"]
    assert entry(promoter).set_aside == SHA1


def test_a_file_is_durable_and_journaled_before_it_is_set_aside(
    promoter: Promoter, dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = candidate(dest)
    calls: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(os, "fsync", watched)
    run(promoter.set_aside("j1", "a", found))
    assert calls == ["a.part", "journal.jsonl", "dest"]


def test_a_file_that_cannot_be_synced_is_not_set_aside(
    promoter: Promoter, dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = candidate(dest)
    let_sync_of_the_part_fail(monkeypatch)
    with pytest.raises(Unwritable):
        run(promoter.set_aside("j1", "a", found))
    assert files(dest) == []
    assert entry(promoter).set_aside is None


@pytest.mark.parametrize("older", [False, True])
def test_a_mismatch_is_quarantined_and_its_bytes_are_not_used_any_more(
    older: bool, promoter: Promoter, dest: Directory
) -> None:
    if older:
        (dest.path / "a.mismatch").write_bytes(b"older")
    candidate(dest)
    assert run(promoter.quarantine("j1", "a", "a.part")) == "a.mismatch"
    assert files(dest) == ["a.mismatch"]
    assert (dest.path / "a.mismatch").read_bytes() == DATA
    assert (entry(promoter).whole, entry(promoter).attempts) == (None, 1)


def test_a_mismatch_that_is_quarantined_already_stays(promoter: Promoter, dest: Directory) -> None:
    candidate(dest, "a.mismatch")
    assert run(promoter.quarantine("j1", "a", "a.mismatch")) == "a.mismatch"
    assert files(dest) == ["a.mismatch"]


@pytest.mark.parametrize("suffix", [UNPROVEN, MISMATCH])
def test_a_directory_at_the_other_name_is_in_the_way(suffix: str, promoter: Promoter, dest: Directory) -> None:
    (dest.path / f"a{suffix}").mkdir()
    found = candidate(dest)
    with pytest.raises(InTheWay):
        if suffix == UNPROVEN:
            run(promoter.set_aside("j1", "a", found))
        else:
            run(promoter.quarantine("j1", "a", found.name))
    assert (dest.path / "a.part").read_bytes() == DATA


def test_a_fact_of_an_earlier_promotion_applies_to_that_file_only(promoter: Promoter, dest: Directory) -> None:
    run(promoter.journal.record("j1", Proven("a", "f" * 40), 0.0))
    run(promoter.journal.record("j1", Promoted(1, 2, 3), 0.0))
    run(promoter.promote("j1", "a", candidate(dest)))
    assert (entry(promoter).proven, entry(promoter).promoted) == (SHA1, Identity.of((dest.path / "a").stat()))
