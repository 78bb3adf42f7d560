"""Staging, publication, and what is in the way of a data path."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import TOP, directory, member, run, tar_of, unpack, zipped

from restore_agent.core.errors import CannotUnpack, DataPathInTheWay, NoSpaceToUnpack, NotUnpacked, UnpackCancelled
from restore_agent.unpack.datapath import DataPaths, data_path_name, staging_name
from restore_agent.unpack.reading.source import Source
from restore_agent.unpack.unpacker import Options, Unpacker
from restore_agent.unpack.writer import Owner, SpaceGuard

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[DataPaths]:
    with DataPaths.open(tmp_path / "into", create=True) as opened:
        yield opened


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@pytest.mark.parametrize(
    ("archive", "name"),
    [("a.tar.gz", "a"), ("a.tgz", "a"), ("a.tar", "a"), ("a.TAR.GZ", "a"), ("a.zip", "a.zip"), (".tar", ".tar")],
)
def test_a_data_path_has_the_name_of_the_archive_without_extension(archive: str, name: str) -> None:
    assert data_path_name(archive) == name


def test_a_staging_name_never_leaves_its_directory() -> None:
    assert staging_name("5c9e") == ".5c9e.unpacking"
    for job_id in ("../x", "a/b", "", "x" * 300, "a\0b", "ü"):
        name = staging_name(job_id)
        assert len(name) < 255
        assert "/" not in name
        assert name.endswith(".unpacking")
        assert len(name) > len("..unpacking")


def test_the_directory_is_made_private_with_its_parents(tmp_path: Path) -> None:
    with DataPaths.open(tmp_path / "a" / "b", create=True) as paths:
        assert paths.path.stat().st_mode & 0o777 == 0o700
        assert paths.is_writable()
        assert paths.free_bytes() > 0
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    with DataPaths.open(tmp_path / "link", create=True) as paths:
        assert paths.device() == tmp_path.stat().st_dev
    with pytest.raises(CannotUnpack):
        DataPaths.open(tmp_path / "missing", create=False)


def test_a_staging_directory_is_closed_once_although_the_run_is_stopped_while_it_is_published(
    paths: DataPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = paths.staging("job")
    descriptor, close = staging.descriptor, os.close
    closing, closed_twice, closed = threading.Event(), threading.Event(), list[int]()

    def slow_close(number: int) -> None:
        if number == descriptor:
            closed.append(number)
            if closing.is_set():
                closed_twice.set()
            closing.set()
            closed_twice.wait(0.3)  # until the other thread has come as far, if nothing keeps it from that
        close(number)

    monkeypatch.setattr(os, "close", slow_close)
    publishing = threading.Thread(target=paths.publish, args=(staging, "electron"))
    publishing.start()
    assert closing.wait(10)
    staging.close()
    publishing.join()
    assert closed == [descriptor]
    assert names(paths.path) == ["electron"]


def test_a_second_lock_of_a_staging_directory_is_refused(paths: DataPaths) -> None:
    staging = paths.staging("job")
    for attempt in (paths.staging, paths.require_unlocked, paths.remove_stale):
        with pytest.raises(DataPathInTheWay, match="another run"):
            attempt("job")
    other = paths.staging("other")
    staging.discard()
    staging.discard()
    other.close()
    paths.require_unlocked("job")
    assert names(paths.path) == [".other.unpacking"]
    assert paths.remove_stale("other")
    assert not paths.remove_stale("other")
    assert names(paths.path) == []


def test_only_one_of_many_gets_the_staging_directory(paths: DataPaths) -> None:
    got, refused = [], []

    def attempt() -> None:
        try:
            got.append(paths.staging("job"))
        except DataPathInTheWay as error:
            refused.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 19)
    got[0].discard()


def test_files_of_an_earlier_run_are_removed(paths: DataPaths) -> None:
    stale = paths.path / ".job.unpacking"
    (stale / "d" / "e").mkdir(parents=True)
    (stale / "d" / "e" / "f").write_text("old")
    (stale / "link").symlink_to(paths.path.parent)
    stale.chmod(0o777)
    staging = paths.staging("job")
    assert names(stale) == []
    assert stale.stat().st_mode & 0o777 == 0o700
    staging.discard()


def test_staging_follows_no_link_and_replaces_no_file(paths: DataPaths, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    name = paths.path / ".job.unpacking"
    name.symlink_to(tmp_path / "elsewhere")
    for attempt in (paths.staging, paths.remove_stale):
        with pytest.raises(DataPathInTheWay):
            attempt("job")
    name.unlink()
    name.write_text("a file")
    with pytest.raises(DataPathInTheWay):
        paths.staging("job")
    assert names(tmp_path / "elsewhere") == ["precious"]


@root_only
def test_staging_of_another_user_is_in_the_way(paths: DataPaths) -> None:
    name = paths.path / ".job.unpacking"
    name.mkdir()
    os.chown(name, 4242, 4242)
    with pytest.raises(DataPathInTheWay, match="another user"):
        paths.staging("job")


def test_publishing_replaces_only_an_empty_directory(paths: DataPaths, tmp_path: Path) -> None:
    (paths.path / "empty").mkdir()
    (paths.path / "full").mkdir()
    (paths.path / "full" / "x").touch()
    (paths.path / "file").touch()
    (paths.path / "dangling").symlink_to("nowhere")
    (tmp_path / "target").mkdir()
    (paths.path / "link").symlink_to(tmp_path / "target")
    staging = paths.staging("job")
    (paths.path / staging.name / "data").touch()
    for name in ("full", "file", "dangling", "link"):
        with pytest.raises(DataPathInTheWay):
            paths.publish(staging, name)
        with pytest.raises(DataPathInTheWay):
            paths.require_free(name)
    identity = paths.publish(staging, "empty")
    assert names(paths.path / "empty") == ["data"]
    assert paths.identity("empty") == identity
    assert names(paths.path) == ["dangling", "empty", "file", "full", "link"]
    assert names(tmp_path / "target") == []


def test_an_object_that_appears_after_the_check_is_not_replaced(paths: DataPaths) -> None:
    staging = paths.staging("job")
    paths.require_free = lambda name: (paths.path / name).mkdir() or (paths.path / name / "x").touch()  # type: ignore[assignment, func-returns-value, method-assign]
    with pytest.raises(DataPathInTheWay):
        paths.publish(staging, "data")
    assert names(paths.path / "data") == ["x"]
    staging.discard()


def test_a_staging_directory_that_was_replaced_is_not_published(paths: DataPaths) -> None:
    staging = paths.staging("job")
    os.rename(paths.path / staging.name, paths.path / "moved")
    (paths.path / staging.name).mkdir()
    with pytest.raises(CannotUnpack, match="replaced"):
        paths.publish(staging, "data")
    assert names(paths.path) == [".job.unpacking", "moved"]


def test_the_lock_moves_with_the_data_path_and_ends(paths: DataPaths) -> None:
    staging = paths.staging("job")
    paths.publish(staging, "data")
    descriptor = os.open(paths.path / "data", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_an_unproven_data_path_is_promoted_once(paths: DataPaths) -> None:
    identity = paths.publish(paths.staging("job"), "data.unproven")
    with pytest.raises(DataPathInTheWay, match="not the data path"):
        paths.promote("data.unproven", "data", (0, 0))
    paths.promote("data.unproven", "data", identity)
    assert paths.identity("data") == identity
    with pytest.raises(DataPathInTheWay):
        paths.promote("data.unproven", "data", identity)


# ---------------------------------------------------------------- owner, durability, space

ARCHIVE = zipped(tar_of([directory(TOP), member(f"{TOP}/a", b"a" * 9000), member(f"{TOP}/d/b", b"b")]))


@root_only
def test_every_unpacked_file_has_the_requested_owner(tmp_path: Path) -> None:
    with DataPaths.open(tmp_path / "into", Owner(4242, 4343), create=True):
        pass
    unpack(ARCHIVE, tmp_path / "into", Options(owner=Owner(4242, 4343)))
    root = tmp_path / "into"
    for path in (root, *root.rglob("*")):
        assert (path.stat().st_uid, path.stat().st_gid) == (4242, 4343)


@root_only
def test_a_staging_directory_with_another_owner_can_be_used_by_the_next_run(tmp_path: Path) -> None:
    owner = Owner(4242, 4242)
    with DataPaths.open(tmp_path / "into", owner, create=True) as paths:
        staging = paths.staging("job")
        os.fchown(staging.descriptor, 4242, 4242)
        staging.close()
        paths.staging("job").discard()


def test_every_file_and_directory_is_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(descriptor: int) -> None:
        steps.append(os.readlink(f"/proc/self/fd/{descriptor}").replace(str(tmp_path / "into"), ""))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", lambda *names, **where: (steps.append("rename"), rename(*names, **where)))
    (tmp_path / "into").mkdir()
    unpack(ARCHIVE, tmp_path / "into")
    staged = "/.job.unpacking"
    before, after = steps[: steps.index("rename")], steps[steps.index("rename") + 1 :]
    assert sorted(before) == sorted([f"{staged}/a", f"{staged}/d/b", f"{staged}/d", staged])
    assert before[-2:] == [f"{staged}/d", staged]
    assert after[0] == ""


def test_a_failed_sync_of_a_file_raises_cannot_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    (tmp_path / "into").mkdir()
    monkeypatch.setattr("restore_agent.unpack.pipeline.os.fsync", fail)
    (tmp_path / "a").write_bytes(ARCHIVE)
    with DataPaths.open(tmp_path / "into", create=True) as paths, (tmp_path / "a").open("rb") as file:
        unpacker = Unpacker(Source.of_complete_file(file.fileno()), paths.staging("job"))
        with pytest.raises(CannotUnpack, match="Input/output error"):
            unpacker.run()


def test_unpacking_stops_before_the_reserve_is_touched(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with pytest.raises(NoSpaceToUnpack, match="must stay free"):
        unpack(ARCHIVE, tmp_path / "into", Options(space_reserve=lambda: free))
    assert names(tmp_path / "into") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", disk]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("cannot mount a tmpfs")
    yield disk
    run("umount", disk)


def test_a_full_disk_raises_no_space_and_its_space_is_freed(small_disk: Path) -> None:
    archive = tar_of([member("t/a", os.urandom(10 << 20)), member("t/b", os.urandom(14 << 20))])
    (small_disk.parent / "a").write_bytes(zipped(archive))
    with pytest.raises(NoSpaceToUnpack, match="free"):
        unpack(small_disk.parent / "a", small_disk / "into")
    status = os.statvfs(small_disk)
    assert (status.f_blocks - status.f_bfree) * status.f_frsize < 1 << 20


def test_a_disk_that_fills_up_between_two_checks_raises_no_space(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpaceGuard, "take", lambda *_: None)
    (small_disk.parent / "a").write_bytes(zipped(tar_of([member("t/b", os.urandom(26 << 20))])))
    with pytest.raises(NoSpaceToUnpack, match="No space left"):
        unpack(small_disk.parent / "a", small_disk / "into")
    assert names(small_disk / "into") == []


def test_a_sparse_file_needs_the_space_of_its_data_only(small_disk: Path) -> None:
    source = small_disk.parent / "t"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.write(b"x" * 5000)
        file.truncate(1 << 30)
    run("tar", "--sparse", "-cf", small_disk.parent / "a.tar", "t", cwd=small_disk.parent)
    assert unpack(small_disk.parent / "a.tar", small_disk / "into").bytes == 1 << 30


# ---------------------------------------------------------------- killed

CHILD = """
import os, sys
from pathlib import Path
from restore_agent.unpack.datapath import DataPaths
from restore_agent.unpack.reading.source import Source
from restore_agent.unpack.unpacker import Unpacker
paths = DataPaths.open(Path(sys.argv[2]), create=True)
staging = paths.staging("job")
print("started", flush=True)
Unpacker(Source.of_complete_file(os.open(sys.argv[1], os.O_RDONLY)), staging).run()
paths.publish(staging, "data")
"""


def test_every_file_of_a_killed_run_is_removed_by_the_next_run(tmp_path: Path) -> None:
    entries = [member(f"t/{number}", bytes([number]) * 100_000) for number in range(200)]
    (tmp_path / "a").write_bytes(tar_of(entries))
    into = tmp_path / "into"
    for delay in (0.0, 0.01, 0.03, 0.06, 0.1, 0.2):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, tmp_path / "a", into], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"started\n"
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert set(names(into)) <= {".job.unpacking", "data"}
        if (into / "data").exists():
            assert len(names(into / "data")) == 200
            assert names(into) == ["data"]
            run("rm", "-r", into / "data")
        else:
            with DataPaths.open(into, create=False) as paths:
                paths.require_unlocked("job")
    unpack(tmp_path / "a", into)
    assert names(into) == ["data"]


def test_a_removal_can_be_ended(paths: DataPaths) -> None:
    (paths.path / ".job.unpacking" / "d").mkdir(parents=True)

    def stop() -> None:
        raise UnpackCancelled("stopped")

    with pytest.raises(NotUnpacked):
        paths.remove_stale("job", stop)
    assert paths.remove_stale("job")


def test_a_failed_sync_of_the_directory_reverts_the_rename(paths: DataPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = paths.staging("job")

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("restore_agent.unpack.datapath.os.fsync", fail)
        with pytest.raises(CannotUnpack, match="Input/output error"):
            paths.publish(staging, "data")
    assert names(paths.path) == [".job.unpacking"]
    paths.publish(staging, "data")


def test_a_file_system_without_locks_on_directories_can_be_used(
    paths: DataPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, operation: int) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr("restore_agent.unpack.datapath.fcntl.flock", fail)
    paths.publish(paths.staging("job"), "data")
    assert names(paths.path) == ["data"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission_raises_cannot_unpack(paths: DataPaths) -> None:
    paths.path.chmod(0o500)
    assert not paths.is_writable()
    with pytest.raises(CannotUnpack):
        paths.staging("job")


@root_only
def test_a_read_only_disk_and_a_mount_point_are_found_beforehand(small_disk: Path) -> None:
    with DataPaths.open(small_disk.parent, create=False) as paths, pytest.raises(DataPathInTheWay, match="mount"):
        paths.require_free(small_disk.name)
    with DataPaths.open(small_disk, create=False) as paths:
        run("mount", "-o", "remount,ro", small_disk)
        assert not paths.is_writable()
        with pytest.raises(CannotUnpack, match="Read-only"):
            paths.staging("job")
