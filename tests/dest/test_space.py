"""The free space of DEST, shared by the archives that are downloaded in parallel."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from restore_agent.core.errors import NoSpace
from restore_agent.dest.directory import Directory
from restore_agent.dest.space import MINIMUM, RESERVED_FOR_RECORDS, DiskSpace


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let the file system of DEST have this many bytes free."""
    status = SimpleNamespace(f_blocks=1, f_bavail=size, f_frsize=1, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "fstatvfs", lambda _: status)


def test_archives_that_fit_are_reserved_and_nothing_is_written(dest: Directory) -> None:
    space = DiskSpace(dest)
    space.reserve("a", 1000)
    space.reserve("b", None)
    space.reserve("a", 0)
    assert sorted(os.listdir(dest.path)) == []


def test_an_archive_that_does_not_fit_is_refused_with_numbers(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 1000 + RESERVED_FOR_RECORDS)
    with pytest.raises(NoSpace) as caught:
        DiskSpace(dest).reserve("a", 5000)
    assert (caught.value.archive, caught.value.exit_code) == ("a", 40)
    assert caught.value.message == (
        f"5000 bytes are needed, but only {1000 + RESERVED_FOR_RECORDS} bytes are free, "
        f"of which {RESERVED_FOR_RECORDS} bytes are reserved for records: 4000 bytes short"
    )


def test_archives_that_are_downloaded_in_parallel_must_fit_together(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 3000 + RESERVED_FOR_RECORDS)
    space = DiskSpace(dest)
    space.reserve("a", 2000)
    with pytest.raises(NoSpace, match="4000 bytes are needed with 1 other archive") as caught:
        space.reserve("b", 2000)
    assert caught.value.archive == "b"
    space.reserve("a", 2000)  # the one that was refused has no reservation
    space.release("a")
    space.reserve("b", 2000)


def test_a_reservation_becomes_smaller_while_bytes_arrive(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2000 + RESERVED_FOR_RECORDS)
    space = DiskSpace(dest)
    space.reserve("a", 2000)
    free(monkeypatch, 500 + RESERVED_FOR_RECORDS)
    space.reserve("a", 500)
    with pytest.raises(NoSpace, match=": 1 bytes short"):
        space.reserve("a", 501)


def test_an_archive_of_unknown_size_needs_a_minimum(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, MINIMUM + RESERVED_FOR_RECORDS)
    space = DiskSpace(dest)
    space.reserve("a", None)
    with pytest.raises(NoSpace):
        space.reserve("b", None)
    space.release("a")
    space.release("a")
    space.reserve("b", None)


def test_the_last_bytes_are_reserved_for_the_records(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    space = DiskSpace(dest)
    free(monkeypatch, RESERVED_FOR_RECORDS)
    space.reserve("a", 0)
    assert not space.is_full()
    free(monkeypatch, RESERVED_FOR_RECORDS - 1)
    assert space.is_full()
    with pytest.raises(NoSpace):
        space.reserve("a", 0)


def test_on_a_file_system_that_does_not_report_its_size_everything_fits(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = SimpleNamespace(f_blocks=0, f_bavail=0, f_frsize=0, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "fstatvfs", lambda _: status)
    space = DiskSpace(dest)
    space.reserve("a", 1 << 50)
    assert not space.is_full()


def test_bytes_that_are_written_during_a_check_are_not_counted_twice(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk on which the archive fits exactly: what is not free any more is not needed any more either."""
    size, written = 10 << 20, 0

    def free_after_another_block(_: int) -> SimpleNamespace:
        nonlocal written
        written += 1 << 20
        left = size + RESERVED_FOR_RECORDS - written
        return SimpleNamespace(f_blocks=1, f_bavail=left, f_frsize=1, f_files=0, f_favail=0)

    monkeypatch.setattr(os, "fstatvfs", free_after_another_block)
    space = DiskSpace(dest)
    for _ in range(5):
        space.reserve("a", lambda: size - written)
        space.reserve("b", 0)


def test_space_that_was_freed_since_it_was_measured_is_enough(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    space = DiskSpace(dest)
    free(monkeypatch, RESERVED_FOR_RECORDS)

    def nothing_left_to_give_back() -> bool:
        free(monkeypatch, 5000 + RESERVED_FOR_RECORDS)
        return False

    space.request_room = nothing_left_to_give_back
    space.reserve("a", 5000)


def test_a_full_disk_is_not_an_error_while_other_space_is_freed(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = DiskSpace(dest)
    asked: list[bool] = []
    space.request_room = lambda: asked.append(True) or len(asked) == 1  # type: ignore[func-returns-value]
    free(monkeypatch, RESERVED_FOR_RECORDS)
    space.reserve("a", 0)
    assert asked == []
    space.reserve("a", 5000)
    assert asked == [True]
    with pytest.raises(NoSpace):
        space.reserve("a", 5000)
