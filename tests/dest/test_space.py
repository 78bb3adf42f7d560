"""The free space of DEST, shared by the archives that come at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from restore_agent.core.errors import NoSpace
from restore_agent.dest.directory import Directory
from restore_agent.dest.space import DiskSpace


@pytest.fixture
def dest(tmp_path: Path) -> Iterator[Directory]:
    with Directory.open(tmp_path / "restore", create=True) as directory:
        yield directory


def test_what_fits_is_booked(dest: Directory) -> None:
    room = DiskSpace(dest)
    room.book("a", 1000)
    room.book("b", None)
    room.book("a", 0)
    assert dest.names() == []


def test_an_archive_that_will_not_fit_is_refused_with_numbers(dest: Directory) -> None:
    with pytest.raises(NoSpace) as caught:
        DiskSpace(dest).book("a", 1 << 60)
    assert caught.value.archive == "a"
    assert caught.value.message.startswith(f"{1 << 60} bytes are ")
    assert caught.value.message.endswith(" bytes are missing")


def test_archives_that_come_together_must_fit_together(dest: Directory) -> None:
    room, most = DiskSpace(dest), dest.free_bytes() * 2 // 3
    room.book("a", most)
    with pytest.raises(NoSpace, match="with 1 other") as caught:
        room.book("b", most)
    assert caught.value.archive == "b"
    room.book("a", most)
    room.release("a")
    room.book("b", most)
    assert caught.value.exit_code == 40


def test_an_archive_of_unknown_size_wants_some_room(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    room = DiskSpace(dest)
    monkeypatch.setattr(dest, "free_bytes", lambda: DiskSpace.LEAST + DiskSpace.RECORDS)
    room.book("a", None)
    with pytest.raises(NoSpace):
        room.book("b", None)
    room.release("a")
    room.release("a")
    room.book("b", None)


def test_the_last_bytes_are_for_the_records(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    room = DiskSpace(dest)
    monkeypatch.setattr(dest, "free_bytes", lambda: 100 + DiskSpace.RECORDS)
    room.book("a", 100)
    assert not room.is_full()
    with pytest.raises(NoSpace, match=": 1 bytes are missing"):
        room.book("a", 101)
    monkeypatch.setattr(dest, "free_bytes", lambda: DiskSpace.RECORDS - 1)
    assert room.is_full()
