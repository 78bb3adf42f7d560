"""Writes in DEST: files replaced as a whole, renames, syncs, and the errors of a failing disk."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.settings import without_privileges

from restore_agent.core.errors import DestError, InTheWay, NoSpace, ResourcesExhausted, Unwritable
from restore_agent.dest.directory import Directory, dest_error, errors_of_dest

KINDS: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda place, outside: place.symlink_to(outside),
    "link to nowhere": lambda place, outside: place.symlink_to(outside.with_name("nowhere")),
    "link to itself": lambda place, _: place.symlink_to(place),
    "directory": lambda place, _: place.mkdir(),
    "fifo": lambda place, _: os.mkfifo(place),
}


# ---------------------------------------------------------------- writing as a whole


class Syscalls:
    """The calls that matter for durability, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        self._fsync, self._replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "replace", self.replace)

    def fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        self.seen.append("sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")

    def replace(self, *arguments: Any, **more: Any) -> None:
        self._replace(*arguments, **more)
        self.seen.append("rename")


@pytest.mark.parametrize("before", [None, b"old", b"x" * 100_000])
def test_a_file_is_written_completely(before: bytes | None, dest: Directory) -> None:
    if before is not None:
        (dest.path / "receipt.json").write_bytes(before)
    dest.write_atomically("receipt.json", b"new")
    assert (dest.path / "receipt.json").read_bytes() == b"new"
    assert stat.S_IMODE((dest.path / "receipt.json").stat().st_mode) == 0o600
    assert sorted(os.listdir(dest.path)) == ["receipt.json"]


def test_a_file_is_synced_before_it_gets_its_name_and_its_name_after(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Syscalls(monkeypatch)
    dest.write_atomically("receipt.json", b"new")
    assert calls.seen == ["sync file", "rename", "sync directory"]


def test_a_file_that_is_not_durable_is_still_replaced_atomically(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Syscalls(monkeypatch)
    dest.write_atomically("status.json", b"new", durable=False)
    assert calls.seen == ["sync file", "rename"], (
        "after a power loss the earlier file may be there, but never half of one"
    )
    assert dest.read("status.json") == b"new"


def test_a_reader_during_a_replacement_reads_the_old_file_to_its_end(dest: Directory) -> None:
    dest.write_atomically("a", b"old" * 1000)
    with (dest.path / "a").open("rb") as reader:
        dest.write_atomically("a", b"new")
        assert reader.read() == b"old" * 1000


@pytest.mark.parametrize("kind", ["link", "link to nowhere", "fifo", "left over"])
def test_an_object_at_the_temporary_name_is_removed_and_not_followed(kind: str, dest: Directory, outside: Path) -> None:
    temporary = dest.path / ".a.tmp"
    if kind == "left over":
        temporary.write_bytes(b"half")
    else:
        KINDS[kind](temporary, outside)
    dest.write_atomically("a", b"new")
    assert sorted(os.listdir(dest.path)) == ["a"]
    assert dest.read("a") == b"new"
    assert outside.read_bytes() == b"not yours"
    assert not outside.with_name("nowhere").exists()


def test_a_link_at_the_final_name_is_replaced_and_not_followed(dest: Directory, outside: Path) -> None:
    (dest.path / "a").symlink_to(outside)
    dest.write_atomically("a", b"new")
    assert dest.read("a") == b"new"
    assert outside.read_bytes() == b"not yours"


def test_a_directory_at_the_final_name_is_in_the_way(dest: Directory) -> None:
    (dest.path / "a").mkdir()
    with pytest.raises(InTheWay):
        dest.write_atomically("a", b"new")


@pytest.mark.parametrize(
    ("number", "error", "code"),
    [
        (errno.ENOSPC, NoSpace, 40),
        (errno.EDQUOT, NoSpace, 40),
        (errno.EFBIG, ResourcesExhausted, 41),
        (errno.EMFILE, ResourcesExhausted, 41),
        (errno.ENFILE, ResourcesExhausted, 41),
        (errno.ENOMEM, ResourcesExhausted, 41),
        (errno.EAGAIN, ResourcesExhausted, 41),
        (errno.EIO, Unwritable, 41),
        (errno.EROFS, Unwritable, 41),
        (errno.EACCES, Unwritable, 41),
        (errno.ELOOP, InTheWay, 42),
        (errno.EISDIR, InTheWay, 42),
        (errno.ENOTDIR, InTheWay, 42),
        (errno.EEXIST, InTheWay, 42),
        (errno.ENOTEMPTY, InTheWay, 42),
    ],
)
def test_an_error_of_the_disk_becomes_an_agent_error(number: int, error: type[DestError], code: int) -> None:
    with pytest.raises(error) as caught, errors_of_dest("write receipt.json"):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is error
    assert caught.value.exit_code == code
    assert caught.value.message == f"cannot write receipt.json: {os.strerror(number)}"
    assert isinstance(caught.value.__cause__, OSError)


def test_an_error_without_a_number_keeps_its_text() -> None:
    assert str(dest_error(OSError("odd"), "write x")) == "cannot write x: odd"


def test_other_errors_pass_through() -> None:
    with pytest.raises(KeyError), errors_of_dest("write x"):
        raise KeyError("x")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_when_a_write_fails_the_old_file_stays(call: str, dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    dest.write_atomically("a", b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, call, full)
        with pytest.raises(NoSpace):
            dest.write_atomically("a", b"new")
    assert sorted(os.listdir(dest.path)) == ["a"]
    assert dest.read("a") == b"old"
    dest.write_atomically("a", b"new")
    assert dest.read("a") == b"new"


def test_when_dest_cannot_be_written_nothing_changes(dest: Directory) -> None:
    dest.write_atomically("c", b"old")
    dest.rename("c", "a", replace=False)  # its system call is looked up now: the other user may not read Python's files
    dest.path.chmod(0o500)
    with without_privileges():
        attempts: list[Callable[[], object]] = [
            lambda: dest.write_atomically("a", b"new"),
            lambda: dest.rename("a", "b"),
            lambda: dest.rename("a", "b", replace=False),
            lambda: dest.remove("a"),
            lambda: dest.subdirectory("s", create=True),
        ]
        for attempt in attempts:
            with pytest.raises(Unwritable):
                attempt()
    dest.path.chmod(0o700)
    assert sorted(os.listdir(dest.path)) == ["a"]
    assert dest.read("a") == b"old"


# ---------------------------------------------------------------- renames and syncs


def test_a_rename_is_made_durable(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    dest.write_atomically("a", b"data")
    calls = Syscalls(monkeypatch)
    dest.rename("a", "b")
    assert calls.seen == ["sync directory"]
    assert sorted(os.listdir(dest.path)) == ["b"]


def test_a_rename_of_a_missing_file_is_an_agent_error(dest: Directory) -> None:
    with pytest.raises(DestError, match="cannot rename"):
        dest.rename("a", "b")


def test_a_file_is_made_private_and_durable(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    (dest.path / "a").write_bytes(b"data")
    (dest.path / "a").chmod(0o644)
    calls = Syscalls(monkeypatch)
    dest.sync_file("a")
    assert calls.seen == ["sync file"]
    assert stat.S_IMODE((dest.path / "a").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_is_not_a_regular_file_is_not_synced(kind: str, dest: Directory, outside: Path) -> None:
    outside.chmod(0o644)
    KINDS[kind](dest.path / "name", outside)
    with pytest.raises(InTheWay):
        dest.sync_file("name")
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644
