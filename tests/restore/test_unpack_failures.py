"""`run --unpack` that cannot unpack ends with 13; the archive is downloaded, verified, and published all the same."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents import Restore, Result, StartSimulator, deliveries, receipt_in, sha1_of, snapshot_of
from support.data_paths import data_path_of, names_in, staging_of

from restore_agent.simulator import Simulator
from restore_agent.unpack.datapath import DataPaths

SmallDisk = Callable[..., Path]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root ignores permissions; a read-only mount needs root")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory of data paths that does not exist yet."""
    return tmp_path / "data"


def require_safe(sim: Simulator, dest: Path, ended: Result, reason: str) -> None:
    """The archive is as without --unpack, and the receipt says why it is not unpacked."""
    assert ended.code == 13, ended.err
    record = ended.archive
    assert (record["verdict"], record["exit_code"], record["reason"]) == ("verified", 13, reason)
    assert (ended.result["outcome"], ended.result["exit_code"]) == ("verified", 13)
    assert record["data_path"] is None
    assert record["archive_kept"] is True
    assert record["downloads_spent"] == len(deliveries(sim)) == 1
    archive = dest / sim.job(0).archive_name
    assert sha1_of(archive) == record["sha1"] == sim.job(0).archive().sha1
    assert record["path"] == str(archive)
    assert (dest / "SHA1SUMS").read_text() == f"{record['sha1']}  {archive.name}\n"
    assert receipt_in(dest)["archives"][0] == record
    (problem,) = (line["problem"] for line in ended.events("archive"))
    assert problem["id"] == reason
    assert problem["message"]
    assert problem["hint"]


def require_repaired(sim: Simulator, restore: Restore, data: Path) -> None:
    """A run after the cause was removed unpacks from disk."""
    again = restore(sim, f"--unpack={data}")
    assert again.code == 0, again.err
    assert again.archive["data_path"] == str(data / data_path_of(sim))
    assert again.archive["reason"] is None
    assert len(deliveries(sim)) == 1
    assert names_in(data) >= {data_path_of(sim)}


# ---------------------------------------------------------------- something in the way


@pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling link"])
def test_a_name_that_is_used_is_left_alone(
    simulator: StartSimulator, restore: Restore, dest: Path, data: Path, tmp_path: Path, kind: str
) -> None:
    sim = simulator()
    name = data / data_path_of(sim)
    data.mkdir()
    if kind == "file":
        name.write_text("mine")
    elif kind == "directory":
        (name / "sub").mkdir(parents=True)
    else:
        (tmp_path / "elsewhere").mkdir()
        name.symlink_to(tmp_path / ("elsewhere" if kind == "link" else "nowhere"))
    before = snapshot_of(data)
    require_safe(sim, dest, restore(sim, f"--unpack={data}"), "data-path-in-the-way")
    assert snapshot_of(data) == before
    assert names_in(tmp_path / "elsewhere") == set()
    name.rename(tmp_path / "moved away")
    require_repaired(sim, restore, data)


def test_the_directory_may_not_be_a_file(simulator: StartSimulator, restore: Restore, dest: Path, data: Path) -> None:
    sim = simulator()
    data.write_text("mine")
    require_safe(sim, dest, restore(sim, f"--unpack={data}"), "cannot-unpack")
    assert data.read_text() == "mine"
    data.unlink()
    require_repaired(sim, restore, data)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_foreign_object_at_the_name_of_the_staging_directory_is_in_the_way(
    simulator: StartSimulator, restore: Restore, dest: Path, data: Path, tmp_path: Path, kind: str
) -> None:
    sim, outside = simulator(), tmp_path / "outside"
    data.mkdir()
    outside.mkdir()
    staging = data / staging_of(sim)
    if kind == "file":
        staging.write_text("mine")
    else:
        staging.symlink_to(outside)
    require_safe(sim, dest, restore(sim, f"--unpack={data}"), "data-path-in-the-way")
    assert names_in(outside) == set()
    assert names_in(data) == {staging.name}


def test_a_staging_directory_that_another_run_fills_is_in_the_way(
    simulator: StartSimulator, restore: Restore, dest: Path, data: Path
) -> None:
    sim = simulator()
    with DataPaths.open(data, create=True) as other:
        staging = other.staging(sim.job(0).id)
        (data / staging.name / "theirs").write_text("theirs")
        require_safe(sim, dest, restore(sim, f"--unpack={data}"), "data-path-in-the-way")
        assert (data / staging.name / "theirs").read_text() == "theirs"
        staging.close()
    require_repaired(sim, restore, data)
    assert names_in(data) == {data_path_of(sim)}


# ---------------------------------------------------------------- the disk


@needs_root
def test_a_directory_that_is_read_only(
    simulator: StartSimulator, restore: Restore, dest: Path, small_disk: SmallDisk
) -> None:
    sim, data = simulator(), small_disk(1024, "ro")
    require_safe(sim, dest, restore(sim, f"--unpack={data}"), "cannot-unpack")


@needs_root
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_small_disk_for_data_paths_stays_usable(
    simulator: StartSimulator, restore: Restore, dest: Path, small_disk: SmallDisk, tmp_path: Path, framing: str
) -> None:
    sim, data = simulator(f"framing={framing}", archive_size=12 << 20), small_disk(10 << 10)
    require_safe(sim, dest, restore(sim, f"--unpack={data}"), "no-space-to-unpack")
    assert names_in(data) == set()
    require_repaired(sim, restore, tmp_path / "larger")


@needs_root
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("kib", [14 << 10, 16 << 10, 19 << 10, 24 << 10])
def test_on_one_small_disk_the_download_has_precedence(
    simulator: StartSimulator, restore: Restore, small_disk: SmallDisk, tmp_path: Path, framing: str, kib: int
) -> None:
    sim, disk = simulator(f"framing={framing}", archive_size=12 << 20), small_disk(kib)
    dest, data = disk / "restore", disk / "data"
    ended = restore(sim, f"--unpack={data}", to=dest)
    require_safe(sim, dest, ended, "no-space-to-unpack")
    assert names_in(data) == set()
    assert (dest / ".restore-agent" / "status.json").exists()


@needs_root
def test_an_unpacked_archive_that_waits_for_its_hash_makes_room_for_the_other_downloads(
    simulator: StartSimulator, restore: Restore, small_disk: SmallDisk
) -> None:
    faults = ["framing=chunked", "hash=late:3@0", "ready-after=1@1"]
    sim, disk = simulator(*faults, shards=1, archive_size=8 << 20), small_disk(27 << 10)
    ended = restore(sim, f"--unpack={disk / 'data'}", "--parallel=2", "--hash-timeout=8s", to=disk / "restore")
    assert ended.verdicts == ["verified"] * 2, ended.err
    assert [record["downloads_spent"] for record in ended.result["archives"]] == [1, 1]
    assert ended.code == 13
    assert {record["reason"] for record in ended.result["archives"]} <= {None, "no-space-to-unpack"}


# ---------------------------------------------------------------- the archive


@pytest.mark.parametrize(
    "member", ["absolute", "dotdot", "symlink", "through-symlink", "through-file", "link-outside", "device", "fifo"]
)
def test_an_unsafe_archive_is_refused_and_none_of_its_files_stays(
    simulator: StartSimulator, restore: Restore, dest: Path, data: Path, member: str
) -> None:
    sim = simulator(f"member={member}")
    require_safe(sim, dest, restore(sim, f"--unpack={data}"), "unsafe-archive")
    assert names_in(data) == set()


@pytest.mark.parametrize(
    "fault", ["damaged-gzip", "damaged-inside=header", "damaged-inside=gzip-end", "damaged-inside=no-members"]
)
def test_an_archive_that_is_damaged_inside_although_its_hash_matches_is_verified(
    simulator: StartSimulator, restore: Restore, dest: Path, data: Path, fault: str
) -> None:
    sim = simulator(fault)
    require_safe(sim, dest, restore(sim, f"--unpack={data}"), "damaged-archive")
    assert names_in(data) == set()
    again = restore(sim, f"--unpack={data}")  # from disk
    assert (again.code, again.archive["reason"], again.verdicts) == (13, "damaged-archive", ["verified"])
    assert len(deliveries(sim)) == 1


def test_a_name_that_the_file_system_refuses_cannot_be_unpacked(
    restore: Restore, dest: Path, data: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "long.tar.gz"
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("top/" + "n" * 300))
    with Simulator(shards=0, archives=[archive]) as sim:
        require_safe(sim, dest, restore(sim, f"--unpack={data}"), "cannot-unpack")
    assert names_in(data) == set()


# ---------------------------------------------------------------- codes


def test_a_mismatch_leaves_nothing_and_decides_the_code(
    simulator: StartSimulator, restore: Restore, data: Path
) -> None:
    sim = simulator("hash=wrong")
    ended = restore(sim, f"--unpack={data}", "--hash-timeout=0.5s")
    assert (ended.code, ended.verdicts) == (11, ["mismatch"])
    assert names_in(data) == set()
    assert ended.archive["data_path"] is None


@pytest.mark.parametrize("fault", ["cut=50%", "reset=50%", "clean-cut=50%"])
def test_a_download_that_fails_leaves_nothing(
    simulator: StartSimulator, restore: Restore, data: Path, fault: str
) -> None:
    sim = simulator(fault, archive_size=1 << 20)
    ended = restore(sim, f"--unpack={data}", "--hash-timeout=0.3s", "--retries=0")
    assert ended.code in (11, 23, 25), ended.err
    assert names_in(data) == set()


def test_other_failures_decide_the_code(simulator: StartSimulator, restore: Restore, data: Path) -> None:
    sim = simulator("hash=wrong@0", shards=2)
    (data / data_path_of(sim, 1)).mkdir(parents=True)
    (data / data_path_of(sim, 1) / "mine").touch()
    ended = restore(sim, f"--unpack={data}", "--hash-timeout=0.5s")
    assert ended.code == 11
    codes = {record["job_id"]: record["exit_code"] for record in ended.result["archives"]}
    assert [codes[job.id] for job in sim.jobs] == [11, 13, 0]
    assert names_in(data) == {data_path_of(sim, 1), data_path_of(sim, 2)}


def test_one_archive_that_cannot_be_unpacked_does_not_stop_the_others(
    simulator: StartSimulator, restore: Restore, data: Path
) -> None:
    sim = simulator("member=symlink@1", shards=2)
    ended = restore(sim, f"--unpack={data}", "--parallel=1")
    assert (ended.code, ended.result["outcome"]) == (13, "verified")
    assert names_in(data) == {data_path_of(sim, 0), data_path_of(sim, 2)}


def test_a_failed_download_does_not_keep_the_others_from_being_unpacked(
    simulator: StartSimulator, restore: Restore, data: Path
) -> None:
    sim = simulator("cut=50%@0", shards=2, archive_size=1 << 20)
    ended = restore(sim, f"--unpack={data}", "--parallel=1", "--retries=1")
    assert ended.code in (23, 25)
    assert names_in(data) == {data_path_of(sim, 1), data_path_of(sim, 2)}


def test_text_output_reports_that_the_archive_is_kept_and_the_next_step(
    simulator: StartSimulator, restore: Restore, data: Path
) -> None:
    sim = simulator()
    data.mkdir()
    (data / data_path_of(sim)).write_text("mine")
    ended = restore(sim, f"--unpack={data}", "--output=text")
    assert ended.code == 13
    assert "data-path-in-the-way" in ended.out
    assert "run the command again" in ended.err
    assert f"{sim.job(0).archive_name} is kept" in ended.err
