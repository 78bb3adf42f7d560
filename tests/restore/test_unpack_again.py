"""`run --unpack` again, after success or 13, without a hash, with another directory, and after --discard-archive."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.agents import (
    Restore,
    Result,
    RunAgent,
    StartSimulator,
    connection_args,
    deliveries,
    journal_in,
    receipt_in,
    sha1_of,
    snapshot_of,
)
from support.data_paths import content_of, data_path_of, names_in, served

from restore_agent.simulator import Simulator

DATA_FIELDS = ("data_path", "data_files", "data_bytes", "restore_info", "unpacked_at", "archive_kept")
BRIEF = "--hash-timeout=0.3s"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory of data paths that does not exist yet."""
    return tmp_path / "data"


def require_unchanged(sim: Simulator, ended: Result, downloads: int = 1) -> None:
    assert (ended.code, ended.result["changed"]) == (0, False), ended.err
    assert len(deliveries(sim)) == downloads


# ---------------------------------------------------------------- after success


def test_a_run_again_changes_nothing(simulator: StartSimulator, restore: Restore, data: Path, dest: Path) -> None:
    sim = simulator()
    first = restore(sim, f"--unpack={data}")
    before = snapshot_of(data), data.stat().st_mtime_ns
    again = restore(sim, f"--unpack={data}")
    require_unchanged(sim, again)
    assert (snapshot_of(data), data.stat().st_mtime_ns) == before
    assert [again.archive[name] for name in DATA_FIELDS] == [first.archive[name] for name in DATA_FIELDS]


def test_a_data_path_that_was_moved_away_is_not_unpacked_again(
    simulator: StartSimulator, restore: Restore, data: Path, tmp_path: Path
) -> None:
    sim = simulator()
    restore(sim, f"--unpack={data}")
    (data / data_path_of(sim)).rename(tmp_path / "shard0")
    require_unchanged(sim, restore(sim, f"--unpack={data}"))
    assert names_in(data) == set()


def test_a_data_path_that_mongod_has_written_to_is_left_as_it_is(
    simulator: StartSimulator, restore: Restore, data: Path
) -> None:
    sim = simulator()
    restore(sim, f"--unpack={data}")
    (data / data_path_of(sim) / "WiredTiger.wt").write_bytes(b"written by mongod")
    (data / data_path_of(sim) / "mongod.lock").touch()
    before = snapshot_of(data)
    require_unchanged(sim, restore(sim, f"--unpack={data}"))
    assert snapshot_of(data) == before


def test_a_data_path_in_a_removed_directory_is_not_unpacked_again(
    simulator: StartSimulator, restore: Restore, data: Path
) -> None:
    sim = simulator()
    restore(sim, f"--unpack={data}")
    shutil.rmtree(data)
    data.write_text("now a file")
    require_unchanged(sim, restore(sim, f"--unpack={data}"))


def test_another_directory_gets_its_own_data_path(
    simulator: StartSimulator, restore: Restore, data: Path, tmp_path: Path
) -> None:
    sim = simulator()
    restore(sim, f"--unpack={data}")
    other = tmp_path / "other"
    ended = restore(sim, f"--unpack={other}")
    assert (ended.code, ended.result["changed"], len(deliveries(sim))) == (0, True, 1)
    assert ended.archive["data_path"] == str(other / data_path_of(sim))
    assert content_of(other / data_path_of(sim)) == content_of(data / data_path_of(sim))
    require_unchanged(sim, restore(sim, f"--unpack={data}"))
    require_unchanged(sim, restore(sim, f"--unpack={other}"))


@pytest.mark.parametrize("again", [[], ["--select=*"]])
def test_a_run_without_unpack_keeps_the_data_path_fields_of_the_receipt(
    simulator: StartSimulator, restore: Restore, data: Path, dest: Path, again: list[str]
) -> None:
    sim = simulator()
    first = restore(sim, f"--unpack={data}").archive
    require_unchanged(sim, restore(sim, *again))
    assert [receipt_in(dest)["archives"][0][name] for name in DATA_FIELDS] == [first[name] for name in DATA_FIELDS]


def test_verify_keeps_the_data_path_and_its_fields_in_the_receipt(
    simulator: StartSimulator, restore: Restore, run_agent: RunAgent, data: Path, dest: Path
) -> None:
    sim = simulator()
    first = restore(sim, f"--unpack={data}").archive
    before = snapshot_of(data)
    for connection in ([], connection_args(sim)):
        ended = run_agent(["verify", f"--dest={dest}", "--output=json", *connection])
        assert ended.code == 0
        assert [ended.archive[name] for name in DATA_FIELDS] == [first[name] for name in DATA_FIELDS]
    assert snapshot_of(data) == before


# ---------------------------------------------------------------- verified before


def test_an_archive_that_was_verified_without_unpack_is_unpacked_from_disk(
    simulator: StartSimulator, restore: Restore, data: Path, tmp_path: Path
) -> None:
    sim = simulator(shards=1)
    restore(sim)
    ended = restore(sim, f"--unpack={data}")
    assert (ended.code, ended.result["changed"], len(deliveries(sim))) == (0, True, 2)
    for index in range(2):
        assert content_of(data / data_path_of(sim, index)) == served(sim, tmp_path, index)


def test_more_archives_than_parallel_are_unpacked_from_disk(
    simulator: StartSimulator, restore: Restore, data: Path
) -> None:
    sim = simulator(shards=4)
    restore(sim)
    assert restore(sim, f"--unpack={data}", "--parallel=1").code == 0
    assert names_in(data) == {data_path_of(sim, index) for index in range(5)}


def test_an_archive_that_was_changed_on_disk_after_it_was_verified_is_not_published(
    simulator: StartSimulator, restore: Restore, data: Path, dest: Path
) -> None:
    """The journal knows the file by inode, size, and time of change: all three are set back here."""
    sim = simulator("plain-tar")
    restore(sim)
    archive = dest / sim.job(0).archive_name
    raw = bytearray(archive.read_bytes())
    at = raw.index(b"WiredTiger 3.2.0") + 3
    raw[at] ^= 1
    archive.write_bytes(raw)
    status = archive.stat()
    journal = dest / ".restore-agent" / "journal.jsonl"
    was = next(line["changed_ns"] for line in journal_in(dest) if line.get("fact") == "published")
    journal.write_text(journal.read_text().replace(str(was), str(status.st_ctime_ns)))
    ended = restore(sim, f"--unpack={data}")
    assert (ended.code, ended.archive["reason"]) == (13, "damaged-archive")
    assert names_in(data) == set()


# ---------------------------------------------------------------- without a hash


def test_without_a_hash_nothing_is_published(simulator: StartSimulator, restore: Restore, data: Path) -> None:
    sim = simulator("hash=never")
    ended = restore(sim, f"--unpack={data}", BRIEF)
    assert (ended.code, ended.verdicts) == (10, ["unproven"])
    assert names_in(data) == set()
    assert ended.archive["data_path"] is None
    sim.set_faults()
    later = restore(sim, f"--unpack={data}")
    assert (later.code, len(deliveries(sim))) == (0, 1)
    assert names_in(data) == {data_path_of(sim)}


def test_an_accepted_archive_without_a_hash_becomes_an_unproven_data_path(
    simulator: StartSimulator, restore: Restore, data: Path, tmp_path: Path
) -> None:
    sim = simulator("hash=never")
    ended = restore(sim, f"--unpack={data}", BRIEF, "--allow-unproven")
    assert (ended.code, ended.verdicts) == (0, ["unproven"])
    assert names_in(data) == {f"{data_path_of(sim)}.unproven"}
    assert ended.archive["data_path"] == str(data / f"{data_path_of(sim)}.unproven")
    assert content_of(data / f"{data_path_of(sim)}.unproven") == served(sim, tmp_path)
    require_unchanged(sim, restore(sim, f"--unpack={data}", BRIEF, "--allow-unproven"))


def test_a_hash_that_is_published_later_gives_the_data_path_its_final_name(
    simulator: StartSimulator, restore: Restore, data: Path
) -> None:
    sim = simulator("hash=never")
    restore(sim, f"--unpack={data}", BRIEF, "--allow-unproven")
    inode = (data / f"{data_path_of(sim)}.unproven").stat().st_ino
    sim.set_faults()
    ended = restore(sim, f"--unpack={data}")
    assert (ended.code, ended.verdicts, ended.result["changed"]) == (0, ["verified"], True)
    assert names_in(data) == {data_path_of(sim)}
    assert (data / data_path_of(sim)).stat().st_ino == inode
    assert ended.archive["data_path"] == str(data / data_path_of(sim))
    assert len(deliveries(sim)) == 1
    require_unchanged(sim, restore(sim, f"--unpack={data}"))


def test_verify_verifies_the_archive_and_a_later_run_renames_the_data_path(
    simulator: StartSimulator, restore: Restore, run_agent: RunAgent, data: Path, dest: Path
) -> None:
    sim = simulator("hash=never")
    restore(sim, f"--unpack={data}", BRIEF, "--allow-unproven")
    sim.set_faults()
    assert run_agent(["verify", f"--dest={dest}", "--output=json", *connection_args(sim)]).code == 0
    assert names_in(data) == {f"{data_path_of(sim)}.unproven"}
    assert restore(sim, f"--unpack={data}").code == 0
    assert names_in(data) == {data_path_of(sim)}


def test_an_unproven_data_path_of_another_download_never_gets_the_final_name(
    simulator: StartSimulator, restore: Restore, data: Path, dest: Path, tmp_path: Path
) -> None:
    sim = simulator("hash=never", "different-bytes", "max-downloads=5")
    restore(sim, f"--unpack={data}", BRIEF, "--allow-unproven")
    (dest / f"{sim.job(0).archive_name}.unproven").unlink()
    sim.set_faults("different-bytes", "max-downloads=5")
    ended = restore(sim, f"--unpack={data}")
    assert (ended.code, ended.verdicts, len(deliveries(sim))) == (0, ["verified"], 2)
    whole = content_of(data / data_path_of(sim))
    archive = dest / sim.job(0).archive_name
    assert sha1_of(archive) == ended.archive["sha1"]
    shutil.copy(archive, tmp_path / "copy")
    assert restore(sim, f"--unpack={tmp_path / 'other'}").code == 0
    assert whole == content_of(tmp_path / "other" / data_path_of(sim))


def test_a_foreign_directory_at_the_unproven_name_never_gets_the_final_name(
    simulator: StartSimulator, restore: Restore, data: Path, tmp_path: Path
) -> None:
    sim = simulator("hash=never")
    restore(sim, f"--unpack={data}", BRIEF, "--allow-unproven")
    unproven = data / f"{data_path_of(sim)}.unproven"
    unproven.rename(tmp_path / "taken")
    unproven.mkdir()
    (unproven / "mine").touch()
    sim.set_faults()
    assert restore(sim, f"--unpack={data}").code == 0
    assert content_of(data / data_path_of(sim)) == served(sim, tmp_path)
    assert names_in(unproven) == {"mine"}


def test_an_accepted_archive_that_cannot_be_unpacked_is_13_and_stays_unproven(
    simulator: StartSimulator, restore: Restore, data: Path
) -> None:
    sim = simulator("hash=never")
    (data / f"{data_path_of(sim)}.unproven").mkdir(parents=True)
    (data / f"{data_path_of(sim)}.unproven" / "mine").touch()
    ended = restore(sim, f"--unpack={data}", BRIEF, "--allow-unproven")
    assert (ended.code, ended.verdicts, ended.result["outcome"]) == (13, ["unproven"], "unproven")
    assert ended.archive["reason"] == "data-path-in-the-way"


def test_a_final_name_that_is_used_when_the_hash_is_published_is_13(
    simulator: StartSimulator, restore: Restore, data: Path
) -> None:
    sim = simulator("hash=never")
    restore(sim, f"--unpack={data}", BRIEF, "--allow-unproven")
    sim.set_faults()
    (data / data_path_of(sim)).write_text("mine")
    assert restore(sim, f"--unpack={data}").archive["reason"] == "data-path-in-the-way"
    (data / data_path_of(sim)).unlink()
    assert restore(sim, f"--unpack={data}").code == 0
    assert names_in(data) == {data_path_of(sim)}


# ---------------------------------------------------------------- --discard-archive


def test_a_discarded_archive_stays_verified_in_the_records(
    simulator: StartSimulator, restore: Restore, run_agent: RunAgent, data: Path, dest: Path, tmp_path: Path
) -> None:
    sim = simulator(shards=1)
    ended = restore(sim, f"--unpack={data}", "--discard-archive")
    assert (ended.code, ended.verdicts) == (0, ["verified"] * 2)
    assert names_in(dest) == {"receipt.json", "SHA1SUMS", ".restore-agent"}
    assert (dest / "SHA1SUMS").read_text() == ""
    for index, job in enumerate(sim.jobs):
        record = next(one for one in receipt_in(dest)["archives"] if one["job_id"] == job.id)
        assert (record["path"], record["archive_kept"]) == (None, False)
        assert (record["sha1"], record["bytes"]) == (job.archive().sha1, job.archive().size)
        assert content_of(data / data_path_of(sim, index)) == served(sim, tmp_path, index)


@pytest.mark.parametrize("again", ["same", "without discard", "without unpack"])
def test_a_run_after_a_discard_downloads_nothing(
    simulator: StartSimulator, restore: Restore, data: Path, dest: Path, again: str
) -> None:
    sim = simulator()
    first = restore(sim, f"--unpack={data}", "--discard-archive").archive
    options = {"same": [f"--unpack={data}", "--discard-archive"], "without discard": [f"--unpack={data}"]}
    (data / data_path_of(sim)).rename(data / "shard0")
    ended = restore(sim, *options.get(again, []))
    require_unchanged(sim, ended)
    assert ended.archive["data_path"] == first["data_path"]
    assert (ended.archive["path"], ended.archive["archive_kept"]) == (None, False)
    assert (ended.archive["sha1"], ended.archive["bytes"]) == (first["sha1"], first["bytes"])


@pytest.mark.parametrize("online", [True, False])
def test_verify_reports_a_discarded_archive_as_verified(
    simulator: StartSimulator, restore: Restore, run_agent: RunAgent, data: Path, dest: Path, online: bool
) -> None:
    sim = simulator()
    first = restore(sim, f"--unpack={data}", "--discard-archive").archive
    (dest / "receipt.json").unlink()  # the journal keeps the proof, too
    ended = run_agent(["verify", f"--dest={dest}", "--output=json", *(connection_args(sim) if online else [])])
    assert (ended.code, ended.verdicts) == (0, ["verified"])
    assert ended.archive["sha1"] == first["sha1"]
    assert [ended.archive[name] for name in DATA_FIELDS] == [first[name] for name in DATA_FIELDS]


def test_another_directory_after_a_discard_is_13(
    simulator: StartSimulator, restore: Restore, data: Path, tmp_path: Path
) -> None:
    sim = simulator()
    restore(sim, f"--unpack={data}", "--discard-archive")
    ended = restore(sim, f"--unpack={tmp_path / 'other'}")
    assert (ended.code, ended.archive["reason"], ended.verdicts) == (13, "archive-discarded", ["verified"])
    assert ended.result["outcome"] == "verified"
    assert names_in(tmp_path / "other") == set()
    assert len(deliveries(sim)) == 1


def test_an_archive_whose_data_path_was_published_before_can_be_discarded_later(
    simulator: StartSimulator, restore: Restore, data: Path, dest: Path
) -> None:
    sim = simulator()
    restore(sim, f"--unpack={data}")
    ended = restore(sim, f"--unpack={data}", "--discard-archive")
    assert (ended.code, ended.result["changed"], ended.archive["archive_kept"]) == (0, True, False)
    assert sim.job(0).archive_name not in names_in(dest)


@pytest.mark.parametrize("fault", ["hash=never", "member=symlink"])
def test_only_an_archive_that_is_verified_and_unpacked_is_discarded(
    simulator: StartSimulator, restore: Restore, data: Path, dest: Path, fault: str
) -> None:
    sim = simulator(fault)
    ended = restore(sim, f"--unpack={data}", "--discard-archive", BRIEF, "--allow-unproven")
    assert ended.archive["archive_kept"] is True
    assert Path(ended.archive["path"]).exists()


def test_a_discard_that_a_crash_interrupted_is_finished_by_the_next_run(
    simulator: StartSimulator, restore: Restore, data: Path, dest: Path, tmp_path: Path
) -> None:
    sim = simulator()
    restore(sim, f"--unpack={data}")
    archive = dest / sim.job(0).archive_name
    job = sim.job(0).id
    line = f'{{"fact": "archive-discarded", "job_id": "{job}", "time": "2026-01-01T00:00:00.000Z"}}\n'
    with (dest / ".restore-agent" / "journal.jsonl").open("a") as journal:
        journal.write(line)
    ended = restore(sim, f"--unpack={data}")  # without --discard-archive, the archive is kept after all
    assert (ended.code, ended.archive["archive_kept"], ended.archive["path"]) == (0, True, str(archive))
    with (dest / ".restore-agent" / "journal.jsonl").open("a") as journal:
        journal.write(line)
    ended = restore(sim, f"--unpack={data}", "--discard-archive")
    assert (ended.code, ended.archive["archive_kept"], ended.archive["path"]) == (0, False, None)
    assert not archive.exists()
    assert len(deliveries(sim)) == 1
