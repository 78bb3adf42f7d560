"""Whose files restore-agent reads as records, and which files it writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from restore_agent.core.errors import InTheWay
from restore_agent.dest.directory import Directory

ANOTHER_USER = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


def record(dest: Directory, *, mode: int = 0o600, owner: int | None = None) -> Path:
    """Create `receipt.json` in DEST with a mode and an owner."""
    path = dest.path / "receipt.json"
    path.write_bytes(b"{}")
    path.chmod(mode)
    if owner is not None:
        os.chown(path, owner, -1)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o644])
def test_a_record_that_others_may_read_is_used(mode: int, dest: Directory) -> None:
    record(dest, mode=mode)
    assert dest.read("receipt.json") == b"{}"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_record_that_others_may_write_is_refused(mode: int, dest: Directory) -> None:
    record(dest, mode=mode)
    with pytest.raises(InTheWay, match="writable by another user") as caught:
        dest.read("receipt.json")
    assert (caught.value.exit_code, caught.value.archive) == (42, "receipt.json")
    assert "write permission" in caught.value.hint


@needs_root
def test_a_record_of_another_user_is_refused(dest: Directory) -> None:
    record(dest, owner=ANOTHER_USER)
    with pytest.raises(InTheWay, match=f"owned by user {ANOTHER_USER}") as caught:
        dest.read("receipt.json")
    assert "root_squash" in caught.value.hint


@needs_root
def test_a_record_of_the_owner_of_dest_is_used(tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    os.chown(tmp_path / "dest", ANOTHER_USER, -1)
    with Directory.open(tmp_path / "dest", create=False) as dest:
        record(dest, owner=ANOTHER_USER)
        assert dest.read("receipt.json") == b"{}"


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_directory_of_records_that_others_may_write_is_refused(create: bool, mode: int, dest: Directory) -> None:
    (dest.path / ".restore-agent").mkdir()
    (dest.path / ".restore-agent").chmod(mode)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InTheWay, match="writable by another user"):
        dest.subdirectory(".restore-agent", create=create)
    assert len(os.listdir("/proc/self/fd")) == before


@needs_root
def test_a_directory_of_records_of_another_user_is_refused(dest: Directory) -> None:
    (dest.path / ".restore-agent").mkdir()
    os.chown(dest.path / ".restore-agent", ANOTHER_USER, -1)
    with pytest.raises(InTheWay, match="owned by user"):
        dest.subdirectory(".restore-agent", create=True)


def test_a_file_of_this_user_with_one_name_is_its_own(dest: Directory) -> None:
    dest.require_own("receipt.json", record(dest).stat())


def test_a_file_with_more_than_one_hard_link_is_not_written(dest: Directory, tmp_path: Path) -> None:
    path = record(dest)
    os.link(path, tmp_path / "elsewhere")
    with pytest.raises(InTheWay, match="more than one hard link") as caught:
        dest.require_own("receipt.json", path.stat())
    assert (caught.value.archive, caught.value.spent) == ("receipt.json", False)
    for flags in (os.O_WRONLY, os.O_RDWR | os.O_CREAT):
        with pytest.raises(FileExistsError, match="more than one hard link"):
            dest.open_file("receipt.json", flags)
    assert dest.read("receipt.json") == b"{}", "reading it is harmless"


@needs_root
def test_a_file_of_another_user_is_not_written(dest: Directory) -> None:
    path = record(dest, owner=ANOTHER_USER)
    with pytest.raises(InTheWay, match="writes only its own files") as caught:
        dest.require_own("receipt.json", path.stat())
    assert (caught.value.exit_code, caught.value.spent) == (42, False)
