"""File systems and hosts that lack something: sync of directories, modes, renameat2, a size, inodes, or case."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from restore_agent.core.errors import DestError, InTheWay, NoSpace, Unwritable
from restore_agent.dest import system
from restore_agent.dest.directory import Directory
from restore_agent.dest.system import make_durably, rename_noreplace

UNSUPPORTED = [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP]


def name_of(number: int) -> str:
    return errno.errorcode[number]


@pytest.fixture
def limitations(dest: Directory) -> list[str]:
    """The limitations that DEST reports."""
    reported: list[str] = []
    dest.on_limitation = reported.append
    return reported


def fail_for(monkeypatch: pytest.MonkeyPatch, call: str, number: int, wanted: Callable[[int], bool]) -> None:
    """Fail a call on a descriptor that is wanted."""
    real = getattr(os, call)

    def failing(descriptor: int, *arguments: Any) -> Any:
        if wanted(descriptor):
            raise OSError(number, os.strerror(number))
        return real(descriptor, *arguments)

    monkeypatch.setattr(os, call, failing)


def is_directory(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def is_file(descriptor: int) -> bool:
    return not is_directory(descriptor)


# ---------------------------------------------------------------- no sync of directories


@pytest.mark.parametrize("number", UNSUPPORTED, ids=name_of)
def test_a_file_system_that_cannot_sync_directories_is_reported_once_and_used(
    number: int, dest: Directory, limitations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_for(monkeypatch, "fsync", number, is_directory)
    dest.write_atomically("a", b"data")
    dest.rename("a", "b")
    dest.rename("b", "c", replace=False)
    dest.sync()
    assert dest.read("c") == b"data"
    assert limitations == ["the file system cannot sync directories: after a power loss, names may be missing"]


@pytest.mark.parametrize("number", UNSUPPORTED, ids=name_of)
def test_dest_is_made_on_a_file_system_that_cannot_sync_directories(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_for(monkeypatch, "fsync", number, is_directory)
    with Directory.open(tmp_path / "a" / "dest", create=True) as dest:
        assert sorted(os.listdir(dest.path)) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS], ids=name_of)
def test_a_sync_of_the_directory_that_fails_is_an_error(
    number: int, dest: Directory, limitations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dest.write_atomically("a", b"data")
    fail_for(monkeypatch, "fsync", number, is_directory)
    for change in (dest.sync, lambda: dest.rename("a", "b"), lambda: dest.write_atomically("c", b"data")):
        with pytest.raises(Unwritable, match="cannot sync DEST"):
            change()
    assert limitations == []


@pytest.mark.parametrize("number", [*UNSUPPORTED, errno.EIO], ids=name_of)
def test_a_sync_of_a_file_that_fails_is_always_an_error(
    number: int, dest: Directory, limitations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (dest.path / "a").write_bytes(b"data")
    fail_for(monkeypatch, "fsync", number, is_file)
    with pytest.raises(Unwritable, match="cannot sync a"):
        dest.sync_file("a")
    with pytest.raises(Unwritable, match="cannot write b"):
        dest.write_atomically("b", b"data")
    assert (sorted(os.listdir(dest.path)), limitations) == (["a"], [])


# ---------------------------------------------------------------- no modes


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, *UNSUPPORTED], ids=name_of)
def test_a_file_system_without_modes_is_reported_once_and_used(
    number: int, dest: Directory, limitations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (dest.path / "a").write_bytes(b"data")
    fail_for(monkeypatch, "fchmod", number, is_file)
    dest.sync_file("a")
    dest.sync_file("a")
    assert limitations == ["the mode of files in DEST cannot be set to 0600"]


def test_a_mode_that_cannot_be_set_for_another_reason_is_an_error(
    dest: Directory, limitations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (dest.path / "a").write_bytes(b"data")
    fail_for(monkeypatch, "fchmod", errno.EIO, is_file)
    with pytest.raises(Unwritable):
        dest.sync_file("a")
    assert limitations == []


# ---------------------------------------------------------------- rename without replacing


class Libc:
    """A C library whose renameat2 fails with a number, or that has none."""

    def __init__(self, number: int | None) -> None:
        self._number = number
        if number is not None:
            self.renameat2 = self._fail

    def _fail(self, *_: object) -> int:
        ctypes.set_errno(self._number or 0)
        return -1


@pytest.fixture(params=["renameat2", "EINVAL", "ENOSYS", "no such call"])
def libc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library of this host, or one without RENAME_NOREPLACE."""
    if request.param != "renameat2":
        number = getattr(errno, request.param, None)
        monkeypatch.setattr(system, "_libc", lambda: Libc(number))


OBJECTS: dict[str, Callable[[Path, Path], object]] = {
    "file": lambda place, _: place.write_bytes(b"not yours"),
    "directory": lambda place, _: place.mkdir(),
    "link": lambda place, outside: place.symlink_to(outside),
    "link to nowhere": lambda place, outside: place.symlink_to(outside.with_name("nowhere")),
    "hard link to the same file": lambda place, _: os.link(place.with_name("a"), place),
    "fifo": lambda place, _: os.mkfifo(place),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_rename_without_replacing_never_replaces(kind: str, libc: None, dest: Directory, outside: Path) -> None:
    (dest.path / "a").write_bytes(b"data")
    OBJECTS[kind](dest.path / "b", outside)
    before = (dest.path / "b").lstat()
    with pytest.raises(InTheWay, match="cannot rename a to b"):
        dest.rename("a", "b", replace=False)
    assert (dest.path / "b").lstat() == before
    assert (dest.path / "a").read_bytes() == b"data"
    assert outside.read_bytes() == b"not yours"


def test_a_rename_without_replacing_takes_a_free_name(libc: None, dest: Directory) -> None:
    (dest.path / "a").write_bytes(b"data")
    dest.rename("a", "größe 測試", replace=False)
    assert sorted(os.listdir(dest.path)) == ["größe 測試"]
    assert dest.read("größe 測試") == b"data"


def test_a_rename_without_replacing_moves_a_directory_to_another_one(libc: None, tmp_path: Path) -> None:
    for name in ("from", "to", "from/data"):
        (tmp_path / name).mkdir()
    source, target = (os.open(tmp_path / name, os.O_RDONLY) for name in ("from", "to"))
    try:
        rename_noreplace(source, b"data", target, b"moved")
        with pytest.raises(FileNotFoundError):
            rename_noreplace(source, b"data", target, b"again")
    finally:
        os.close(source)
        os.close(target)
    assert (tmp_path / "to" / "moved").is_dir()


def test_a_rename_of_a_missing_file_is_an_error(libc: None, dest: Directory) -> None:
    with pytest.raises(DestError, match="cannot rename a to b"):
        dest.rename("a", "b", replace=False)
    assert sorted(os.listdir(dest.path)) == []


def test_an_error_of_renameat2_that_is_not_about_the_flag_is_raised(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dest.path / "a").write_bytes(b"data")
    monkeypatch.setattr(system, "_libc", lambda: Libc(errno.ENOSPC))
    with pytest.raises(NoSpace):
        dest.rename("a", "b", replace=False)
    assert sorted(os.listdir(dest.path)) == ["a"]


# ---------------------------------------------------------------- durable creation


def test_every_directory_that_is_made_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(os, "fsync", watched)
    make_durably(tmp_path / "a" / "b" / "dest")
    assert synced == [tmp_path.name, "a", "b"]
    make_durably(tmp_path / "a" / "b" / "dest")
    assert synced[3:] == ["b"], "the run that made it may have been killed before it could sync"


def test_a_parent_that_cannot_be_synced_does_not_matter_for_an_existing_dest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dest").mkdir()
    fail_for(monkeypatch, "fsync", errno.EIO, is_directory)
    make_durably(tmp_path / "dest")


# ---------------------------------------------------------------- size and case


def report_space(monkeypatch: pytest.MonkeyPatch, **fields: int) -> None:
    """Let the file system of DEST report these figures."""
    known = {"f_blocks": 100, "f_bavail": 10, "f_frsize": 4096, "f_files": 50, "f_favail": 5, "f_flag": 0}
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(**{**known, **fields}))


def test_free_space_is_counted_in_fragments(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    report_space(monkeypatch)
    assert dest.free_bytes() == 40960


def test_a_file_system_that_does_not_report_its_size_counts_as_unlimited(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_space(monkeypatch, f_blocks=0, f_bavail=0, f_files=0, f_favail=0)
    assert dest.free_bytes() == sys.maxsize


def test_a_file_system_without_free_inodes_has_no_space(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    report_space(monkeypatch, f_favail=0)
    with pytest.raises(NoSpace, match="no free inodes") as caught:
        dest.free_bytes()
    assert (caught.value.exit_code, caught.value.spent) == (40, False)


def test_a_file_system_without_a_fixed_number_of_inodes_has_space(
    dest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_space(monkeypatch, f_files=0, f_favail=0)
    assert dest.free_bytes() == 40960


def test_a_read_only_file_system_is_not_writable(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    report_space(monkeypatch, f_flag=os.ST_RDONLY)
    assert not dest.writable()


def test_a_directory_whose_names_differ_in_case_does_not_ignore_case(dest: Directory) -> None:
    assert not dest.ignores_case()
    dest.write_atomically("receipt.json", b"{}")
    assert not dest.ignores_case()
    (dest.path / "RECEIPT.JSON").write_bytes(b"another file")
    assert not dest.ignores_case()


def test_a_directory_where_a_name_in_another_case_is_the_same_file_ignores_case(dest: Directory) -> None:
    dest.write_atomically("receipt.json", b"{}")
    os.link(dest.path / "receipt.json", dest.path / "RECEIPT.JSON")  # one file by two names, as such a system shows it
    assert dest.ignores_case()
