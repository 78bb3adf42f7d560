"""Opening of DEST for run, verify, and the commands that only read, and the records that a run leaves there."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from restore_agent.core.clock import rfc3339
from restore_agent.core.errors import DestHeld, ForeignFile, InTheWay, NoRestoreHere, OtherBatch, RecordUnreadable
from restore_agent.core.jobs import Job
from restore_agent.core.names import RECEIPT, SUMS
from restore_agent.core.receipt import ArchiveRecord, Receipt, RestoreId, Verdict, parse_receipt
from restore_agent.dest.directory import Directory
from restore_agent.dest.journal import Entry
from restore_agent.dest.journal.facts import Attempt, Fact, Proven
from restore_agent.dest.lock import STATE_DIRECTORY, Lock
from restore_agent.dest.workspace import STATE_NAMES, Access, Workspace, record_of, write_receipt, write_sums

SHA1, OTHER = "0123456789abcdef0123456789abcdef01234567", "f" * 40
RESTORE = RestoreId("g", "c", None, "b")


def receipt(*archives: ArchiveRecord, batch_id: str | None = "b") -> Receipt:
    times = (rfc3339(0), rfc3339(1))
    return Receipt("g", "c", None, batch_id, "https://om", *times, "verified", 0, True, archives)


def archive(job_id: str, name: str, sha1: str | None = SHA1, verdict: Verdict = Verdict.VERIFIED) -> ArchiveRecord:
    return ArchiveRecord(job_id, file_name=name, sha1=sha1, verdict=verdict)


def used(path: Path, *facts: tuple[str, Fact], restore: RestoreId | None = RESTORE) -> Path:
    """Make a DEST that a run used; the journal has these facts."""
    with ExitStack() as stack:
        place = Workspace.open(stack, path, Access.RUN, restore)
        for job_id, fact in facts:
            asyncio.run(place.journal.record(job_id, fact, 0.0))
    return path


def opened(path: Path, access: Access, asked: RestoreId | None = None) -> Workspace:
    """Open DEST, close it again, and return what was found."""
    with ExitStack() as stack:
        return Workspace.open(stack, path, access, asked)


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(one.relative_to(path)): one.read_bytes() if one.is_file() else b"" for one in sorted(path.rglob("*"))}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A DEST that does not exist yet."""
    return tmp_path / "restore"


# ---------------------------------------------------------------- access


def test_a_run_creates_dest_with_its_records_and_holds_the_lock(path: Path) -> None:
    with ExitStack() as stack:
        place = Workspace.open(stack, path, Access.RUN, RESTORE)
        assert sorted(os.listdir(place.state_directory.path)) == ["journal.jsonl", "lock"]
        assert (place.restore, place.earlier, place.notes) == (RESTORE, None, [])
        with pytest.raises(DestHeld):
            opened(path, Access.RUN, RESTORE)
    opened(path, Access.RUN, RESTORE)


def test_verify_needs_a_dest_that_a_run_used(path: Path) -> None:
    with pytest.raises(NoRestoreHere, match="does not exist"):
        opened(path, Access.VERIFY)
    path.mkdir()
    with pytest.raises(NoRestoreHere, match="no run was ever in") as caught:
        opened(path, Access.VERIFY)
    assert caught.value.exit_code == 42
    assert os.listdir(path) == []
    used(path)
    assert opened(path, Access.VERIFY).restore == RESTORE


def test_reading_a_missing_dest_creates_nothing(path: Path) -> None:
    place = opened(path, Access.READ, RESTORE)
    assert (place.directory, place.state, place.earlier, place.journal.entries()) == (None, None, None, {})
    assert not path.exists()


def test_reading_changes_nothing_and_needs_no_lock(path: Path) -> None:
    used(path, ("j1", Attempt("a", "a", None)))
    (path / ".receipt.json.tmp").write_bytes(b"half")
    with (path / STATE_DIRECTORY / "journal.jsonl").open("ab") as file:
        file.write(b'{"fact":"torn')
    before = snapshot(path)
    assert opened(path, Access.READ).journal.entry("j1").attempts == 1
    assert snapshot(path) == before
    with ExitStack() as stack:
        Workspace.open(stack, path, Access.RUN)
        assert opened(path, Access.READ).journal.entry("j1").attempts == 1


def test_reading_a_dest_that_no_run_used_finds_no_state(path: Path) -> None:
    path.mkdir()
    (path / "other").write_bytes(b"")
    place = opened(path, Access.READ)
    assert (place.state, place.restore) == (None, None)
    assert os.listdir(path) == ["other"]


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("kind", ["file", "link to nowhere"])
def test_an_object_that_is_not_a_directory_is_not_a_dest(kind: str, access: Access, path: Path) -> None:
    if kind == "file":
        path.write_bytes(b"not yours")
    else:
        path.symlink_to(path.with_name("nowhere"))
    with pytest.raises(InTheWay):
        opened(path, access)
    assert not path.with_name("nowhere").exists()


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("name", [RECEIPT, SUMS])
def test_an_object_at_the_name_of_a_record_is_in_the_way(name: str, access: Access, path: Path, outside: Path) -> None:
    used(path)
    (path / name).symlink_to(outside)
    with pytest.raises(InTheWay, match="symbolic link"):
        opened(path, access)
    assert outside.read_bytes() == b"not yours"


@pytest.mark.parametrize("access", [Access.RUN, Access.VERIFY])
def test_temporary_files_of_a_run_that_was_killed_are_removed(access: Access, path: Path) -> None:
    used(path)
    for name in (RECEIPT, SUMS):
        (path / f".{name}.tmp").write_bytes(b"half")
    for name in STATE_NAMES:
        (path / STATE_DIRECTORY / f".{name}.tmp").write_bytes(b"half")
    opened(path, access)
    assert os.listdir(path) == [STATE_DIRECTORY]
    assert [name for name in os.listdir(path / STATE_DIRECTORY) if name.endswith(".tmp")] == []


def test_a_damaged_last_line_of_the_journal_is_set_aside_with_a_note(path: Path) -> None:
    used(path, ("j1", Attempt("a", "a", None)))
    with (path / STATE_DIRECTORY / "journal.jsonl").open("ab") as file:
        file.write(b'{"fact":\n')
    place = opened(path, Access.RUN, RESTORE)
    assert place.journal.entry("j1").attempts == 1
    assert ["journal" in note and "set aside" in note for note in place.notes] == [True]
    assert (path / STATE_DIRECTORY / "journal.damaged").read_bytes() == b'{"fact":\n'
    assert opened(path, Access.RUN, RESTORE).notes == []


# ---------------------------------------------------------------- the receipt of an earlier run


@pytest.mark.parametrize("access", Access)
def test_the_earlier_receipt_is_read(access: Access, path: Path) -> None:
    used(path)
    (path / RECEIPT).write_text(json.dumps(receipt(archive("j1", "a")).to_json()))
    assert opened(path, access, RESTORE).earlier == receipt(archive("j1", "a"))


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("raw", [b"", b"\0" * 4096])
def test_a_receipt_that_a_power_loss_left_empty_is_ignored_with_a_note(raw: bytes, access: Access, path: Path) -> None:
    used(path)
    (path / RECEIPT).write_bytes(raw)
    place = opened(path, access, RESTORE)
    assert place.earlier is None
    assert ["receipt.json was empty" in note for note in place.notes] == [True]
    assert (path / RECEIPT).read_bytes() == raw


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("raw", [b"{", b"{}", b" ", b"\0{", b'{"schema":"restore-agent/receipt/2"}'])
def test_a_damaged_receipt_is_refused_and_left_as_it_is(raw: bytes, access: Access, path: Path) -> None:
    used(path)
    (path / RECEIPT).write_bytes(raw)
    with pytest.raises(RecordUnreadable):
        opened(path, access, RESTORE)
    assert (path / RECEIPT).read_bytes() == raw
    with Directory.open(path / STATE_DIRECTORY, create=False) as state:
        assert not Lock.is_held(state)


# ---------------------------------------------------------------- the restore that DEST belongs to


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("known_by", ["journal", "receipt", "both"])
def test_a_dest_of_another_batch_is_refused(known_by: str, access: Access, path: Path) -> None:
    used(path, restore=None if known_by == "receipt" else RESTORE)
    if known_by != "journal":
        (path / RECEIPT).write_text(json.dumps(receipt(archive("j1", "a")).to_json()))
    before = snapshot(path)
    with pytest.raises(OtherBatch, match="batch b") as caught:
        opened(path, access, RestoreId("g", "c", None, "b2"))
    assert (caught.value.exit_code, caught.value.spent) == (42, False)
    assert snapshot(path) == before
    assert opened(path, access, RESTORE).restore is not None


def test_a_restore_of_single_jobs_is_compared_once_its_batch_is_known(path: Path) -> None:
    used(path)
    place = opened(path, Access.RUN, RestoreId("g", "c", None, None, ("j1",)))
    place.require_same(RestoreId("g", "c", None, "b", ("j1",)))
    with pytest.raises(OtherBatch):
        place.require_same(RestoreId("g", "c", None, "b2", ("j1",)))


def test_a_run_for_single_jobs_that_ended_before_its_first_fact_leaves_dest_free_for_a_batch(path: Path) -> None:
    with ExitStack() as stack:
        Workspace.open(stack, path, Access.RUN, RestoreId("g", "c", None, None, ("j1",)))
    place = opened(path, Access.RUN, RestoreId("g", "c", None, None, ("j2",)))
    place.require_same(RestoreId("g", "c", None, "b", ("j2",)))
    with pytest.raises(OtherBatch):  # no batch shows that they belong together
        place.require_same(RestoreId("g", "c", None, None, ("j2",)))


def test_a_free_dest_belongs_to_any_restore(path: Path) -> None:
    place = opened(path, Access.READ)
    place.require_same(RESTORE)


def test_journal_and_receipt_together_identify_the_restore(path: Path) -> None:
    used(path, restore=RestoreId("g", "c", None, None, ("j1", "j2")))
    (path / RECEIPT).write_text(json.dumps(receipt(archive("j2", "a"), archive("j3", "b")).to_json()))
    assert opened(path, Access.READ).restore == RestoreId("g", "c", None, "b", ("j1", "j2", "j3"))


# ---------------------------------------------------------------- is another run active


def test_a_locked_dest_is_not_idle(path: Path) -> None:
    used(path)
    with ExitStack() as stack:
        place = Workspace.open(stack, path, Access.READ)
        place.require_idle()
        Workspace.open(stack, path, Access.RUN, RESTORE)
        with pytest.raises(DestHeld):
            place.require_idle()


def test_a_missing_dest_is_idle(path: Path) -> None:
    opened(path, Access.READ).require_idle()


# ---------------------------------------------------------------- SHA1SUMS


@pytest.mark.parametrize("access", Access)
def test_sums_that_the_agent_did_not_write_are_in_the_way(access: Access, path: Path) -> None:
    used(path, ("j1", Attempt("a", "a", None)))
    (path / SUMS).write_text(f"{SHA1}  mine\n")
    with pytest.raises(ForeignFile, match="SHA1SUMS") as caught:
        opened(path, access, RESTORE)
    assert (caught.value.archive, caught.value.spent) == (SUMS, False)
    assert (path / SUMS).read_text() == f"{SHA1}  mine\n"


@pytest.mark.parametrize("known_by", ["journal", "receipt"])
def test_after_a_verified_archive_the_sums_belong_to_the_agent(known_by: str, path: Path) -> None:
    used(path, *([("j1", Proven("a", SHA1))] if known_by == "journal" else []))
    if known_by == "receipt":
        (path / RECEIPT).write_text(json.dumps(receipt(archive("j1", "a")).to_json()))
    (path / SUMS).write_text(f"{SHA1}  a\n")
    opened(path, Access.RUN, RESTORE)


def sums(dest: Directory, entries: dict[str, Entry], *archives: ArchiveRecord) -> str | None:
    """Bring SHA1SUMS up to date and return it."""
    write_sums(dest, entries, receipt(*archives))
    raw = dest.read(SUMS)
    return None if raw is None else raw.decode()


def test_sums_list_every_verified_archive_that_is_in_dest(dest: Directory) -> None:
    for name in ("b", "a", "größe 測試", "c"):
        (dest.path / name).write_bytes(b"")
    entries = {
        "j1": Entry(file_name="b", proven=SHA1),
        "j2": Entry(file_name="gone", proven=SHA1),
        "j3": Entry(file_name="c", set_aside=SHA1),
    }
    archives = (
        archive("j4", "größe 測試"),
        archive("j5", "a", OTHER),
        archive("j6", "c", SHA1, Verdict.UNPROVEN),
        archive("j7", "missing"),
    )
    assert sums(dest, entries, *archives) == f"{OTHER}  a\n{SHA1}  b\n{SHA1}  größe 測試\n"


def test_the_journal_counts_before_an_older_receipt(dest: Directory) -> None:
    (dest.path / "a").write_bytes(b"")
    assert sums(dest, {"j1": Entry(file_name="a", proven=SHA1)}, archive("j1", "a", OTHER)) == f"{SHA1}  a\n"


def test_without_a_verified_archive_no_sums_are_written(dest: Directory) -> None:
    assert sums(dest, {"j1": Entry(file_name="a")}, archive("j2", "b", SHA1, Verdict.FAILED)) is None


def test_an_archive_that_was_removed_is_removed_from_the_sums(dest: Directory) -> None:
    (dest.path / "a").write_bytes(b"")
    entries = {"j1": Entry(file_name="a", proven=SHA1)}
    assert sums(dest, entries) == f"{SHA1}  a\n"
    (dest.path / "a").unlink()
    assert sums(dest, entries) == ""


def test_sums_that_do_not_change_are_not_written(dest: Directory) -> None:
    (dest.path / "a").write_bytes(b"")
    entries = {"j1": Entry(file_name="a", proven=SHA1)}
    sums(dest, entries)
    inode = (dest.path / SUMS).stat().st_ino
    sums(dest, entries)
    assert (dest.path / SUMS).stat().st_ino == inode


# ---------------------------------------------------------------- records


def test_a_receipt_that_is_written_is_read_again(dest: Directory) -> None:
    write_receipt(dest, receipt(archive("j1", "a")))
    raw = dest.read(RECEIPT)
    assert raw is not None
    assert raw.endswith(b"\n")
    assert parse_receipt(raw) == receipt(archive("j1", "a"))
    assert sorted(os.listdir(dest.path)) == [RECEIPT]


def test_a_record_has_what_ops_manager_and_the_journal_know() -> None:
    job = Job("j1", cluster_id="c", snapshot_id="s", snapshot_timestamp="t", encryption_enabled=True)
    entry = Entry(attempts=3, ready_at="t1", downloaded_at="t2", archive_kept=False)
    record = record_of(job, entry, "a", verdict=Verdict.FAILED, exit_code=22)
    expected: dict[str, Any] = {
        "job_id": "j1",
        "cluster_id": "c",
        "snapshot_id": "s",
        "snapshot_timestamp": "t",
        "file_name": "a",
        "downloads_spent": 3,
        "encryption_enabled": True,
        "point_in_time": None,
        "archive_kept": False,
        "ready_at": "t1",
        "downloaded_at": "t2",
        "verified_at": None,
        "verdict": Verdict.FAILED,
        "exit_code": 22,
    }
    assert {name: getattr(record, name) for name in expected} == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / STATE_DIRECTORY).chmod(0o777),
        lambda path: (path / STATE_DIRECTORY / "journal.jsonl").chmod(0o666),
        lambda path: (path / RECEIPT).chmod(0o666),
    ],
    ids=["state directory", "journal", "receipt"],
)
@pytest.mark.parametrize("access", Access)
def test_records_that_another_user_may_write_are_not_used(
    access: Access, change: Callable[[Path], None], path: Path
) -> None:
    used(path)
    (path / RECEIPT).write_text(json.dumps(receipt(archive("j1", "a")).to_json()))
    change(path)
    with pytest.raises(InTheWay, match="writable by another user"):
        opened(path, access, RESTORE)
