"""DEST by its descriptor: no file outside of it is changed, no link in it is followed, no file is replaced in part."""

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support.settings import without_privileges

from restore_agent.core.errors import DestError, InTheWay, Unwritable
from restore_agent.dest import directory as directory_module
from restore_agent.dest.directory import Directory

# ---------------------------------------------------------------- opening


def test_dest_is_created_with_access_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Directory.open(tmp_path / "dest", create=True).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "dest").stat().st_mode) == 0o700


def test_parents_of_dest_are_made_too(tmp_path: Path) -> None:
    with Directory.open(tmp_path / "a" / "b" / "dest", create=True) as directory:
        assert directory.path == tmp_path / "a" / "b" / "dest"
        assert sorted(os.listdir(directory.path)) == []


def test_an_existing_dest_keeps_its_mode_and_its_files(tmp_path: Path) -> None:
    path = tmp_path / "dest"
    path.mkdir(mode=0o750)
    (path / "kept").write_bytes(b"")
    with Directory.open(path, create=True) as directory:
        assert sorted(os.listdir(directory.path)) == ["kept"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o750


def test_dest_itself_may_be_a_link_to_a_directory(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "dest").symlink_to(tmp_path / "disk")
    with Directory.open(tmp_path / "dest", create=True) as directory:
        directory.write_atomically("a", b"data")
    assert (tmp_path / "disk" / "a").read_bytes() == b"data"


def test_a_missing_dest_is_not_made_without_create(tmp_path: Path) -> None:
    with pytest.raises(Unwritable, match="No such file"):
        Directory.open(tmp_path / "dest", create=False)
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("below", ["", "dest"])
def test_a_file_where_dest_should_be_is_in_the_way(create: bool, below: str, outside: Path) -> None:
    with pytest.raises(InTheWay):
        Directory.open(outside / below if below else outside, create=create)
    assert outside.read_bytes() == b"not yours"


def test_a_dangling_link_is_not_a_dest(tmp_path: Path) -> None:
    (tmp_path / "dest").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DestError):
        Directory.open(tmp_path / "dest", create=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_dest_that_cannot_be_made_is_unwritable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with without_privileges(), pytest.raises(Unwritable) as caught:
            Directory.open(tmp_path / "dest", create=True)
    finally:
        tmp_path.chmod(0o700)
    assert caught.value.exit_code == 41
    assert str(tmp_path / "dest") in caught.value.message


def test_closing_twice_does_nothing(tmp_path: Path) -> None:
    directory = Directory.open(tmp_path, create=False)
    directory.close()
    directory.close()
    with pytest.raises(DestError):
        directory.read("name")


def test_dest_stays_the_same_directory_when_its_path_is_given_to_another_one(tmp_path: Path, dest: Directory) -> None:
    (tmp_path / "dest").rename(tmp_path / "moved")
    (tmp_path / "dest").mkdir()
    dest.write_atomically("a", b"data")
    assert (tmp_path / "moved" / "a").read_bytes() == b"data"
    assert os.listdir(tmp_path / "dest") == []


def test_a_descriptor_of_dest_is_not_inherited(dest: Directory) -> None:
    opened = dest.open_file("a", os.O_WRONLY | os.O_CREAT)
    try:
        assert not os.get_inheritable(opened)
    finally:
        os.close(opened)


# ---------------------------------------------------------------- a directory inside


def test_a_directory_inside_is_made_for_its_owner_only(dest: Directory) -> None:
    made = dest.subdirectory(".restore-agent", create=True)
    assert made is not None
    with made:
        made.write_atomically("status.json", b"{}")
    assert stat.S_IMODE((dest.path / ".restore-agent").stat().st_mode) == 0o700
    again = dest.subdirectory(".restore-agent", create=False)
    assert again is not None
    with again:
        assert again.read("status.json") == b"{}"


def test_a_missing_directory_inside_is_none_without_create(dest: Directory) -> None:
    assert dest.subdirectory(".restore-agent", create=False) is None
    assert sorted(os.listdir(dest.path)) == []


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("kind", ["link to a directory", "link to nowhere", "file"])
def test_something_else_in_place_of_a_directory_inside_is_in_the_way(
    kind: str, create: bool, dest: Directory, tmp_path: Path
) -> None:
    place = dest.path / ".restore-agent"
    if kind == "file":
        place.write_bytes(b"")
    else:
        place.symlink_to(tmp_path if kind == "link to a directory" else tmp_path / "nowhere")
    with pytest.raises(InTheWay):
        dest.subdirectory(".restore-agent", create=create)
    assert not (tmp_path / "nowhere").exists()


# ---------------------------------------------------------------- links, and objects that are not files

KINDS: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda place, outside: place.symlink_to(outside),
    "link to nowhere": lambda place, outside: place.symlink_to(outside.with_name("nowhere")),
    "link to itself": lambda place, _: place.symlink_to(place),
    "directory": lambda place, _: place.mkdir(),
    "fifo": lambda place, _: os.mkfifo(place),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_is_not_a_regular_file_is_in_the_way(kind: str, dest: Directory, outside: Path) -> None:
    KINDS[kind](dest.path / "name", outside)
    for look in (dest.find_file, dest.read):
        with pytest.raises(InTheWay):
            look("name")
    assert outside.read_bytes() == b"not yours"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_EXCL])
def test_an_object_that_is_not_a_regular_file_is_never_opened_for_writing(
    kind: str, flags: int, dest: Directory, outside: Path
) -> None:
    KINDS[kind](dest.path / "name", outside)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=r"symbolic|exists|directory|regular|No such device") as caught:
        dest.open_file("name", flags)
    assert caught.value.errno in (errno.ELOOP, errno.EEXIST, errno.EISDIR, errno.ENXIO)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert outside.read_bytes() == b"not yours"
    assert not outside.with_name("nowhere").exists()


def test_a_socket_is_not_a_file(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dest.path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("name")
        with pytest.raises(InTheWay):
            dest.find_file("name")
        with pytest.raises(DestError):
            dest.read("name")


@pytest.mark.parametrize("kind", ["link", "link to nowhere", "link to itself", "fifo"])
def test_removing_a_link_leaves_its_target(kind: str, dest: Directory, outside: Path) -> None:
    KINDS[kind](dest.path / "name", outside)
    dest.remove("name")
    assert sorted(os.listdir(dest.path)) == []
    assert outside.read_bytes() == b"not yours"


def test_a_directory_is_not_removed(dest: Directory) -> None:
    (dest.path / "name").mkdir()
    with pytest.raises(DestError):
        dest.remove("name")
    assert sorted(os.listdir(dest.path)) == ["name"]


def test_a_link_is_found_as_a_link(dest: Directory, outside: Path) -> None:
    (dest.path / "name").symlink_to(outside)
    found = dest.find("name")
    assert found is not None
    assert stat.S_ISLNK(found.st_mode)


def test_a_free_name_is_found_as_none(dest: Directory) -> None:
    assert dest.find("name") is None
    assert dest.find_file("name") is None
    assert dest.read("name") is None
    dest.remove("name")
    assert sorted(os.listdir(dest.path)) == []


def test_a_regular_file_is_found_and_read(dest: Directory) -> None:
    (dest.path / "name").write_bytes(b"data")
    found = dest.find_file("name")
    assert found is not None
    assert (found.st_size, dest.read("name")) == (4, b"data")


def test_a_record_above_the_limit_is_not_read_into_memory(dest: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "RECORD_LIMIT", 1000)
    (dest.path / "name").write_bytes(bytes(1000))
    assert dest.read("name") == bytes(1000)
    (dest.path / "name").write_bytes(bytes(1001))
    with pytest.raises(InTheWay, match="larger"):
        dest.read("name")


def test_a_file_is_opened_inside_and_for_its_owner_only(dest: Directory) -> None:
    with os.fdopen(dest.open_file("name", os.O_WRONLY | os.O_CREAT), "wb") as file:
        file.write(b"data")
    assert (dest.path / "name").read_bytes() == b"data"
    assert stat.S_IMODE((dest.path / "name").stat().st_mode) == 0o600


# ---------------------------------------------------------------- names and space


def test_names_are_sorted_and_hold_the_hidden_ones(dest: Directory) -> None:
    for name in ("b", "a", ".c"):
        (dest.path / name).write_bytes(b"")
    assert sorted(os.listdir(dest.path)) == [".c", "a", "b"]


def test_free_space_is_what_a_user_without_privileges_may_write(dest: Directory) -> None:
    status = os.statvfs(dest.path)
    assert 0 < dest.free_bytes() <= status.f_blocks * status.f_frsize


def test_a_directory_of_this_user_is_writable(dest: Directory) -> None:
    assert dest.writable()
    dest.sync()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission_is_not_writable(dest: Directory) -> None:
    dest.path.chmod(0o500)
    assert not dest.writable()
    dest.path.chmod(0o700)


def test_an_error_shows_a_hostile_name_printably(dest: Directory) -> None:
    (dest.path / "a\x1b[2J\n").mkdir()
    with pytest.raises(InTheWay) as caught:
        dest.find_file("a\x1b[2J\n")
    assert caught.value.message.isprintable()
