"""`verify`: archives in DEST are proven again, or for the first time, and no delivery URL is ever touched."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents import (
    QUICK,
    Restore,
    Result,
    RunAgent,
    StartAgent,
    StartSimulator,
    connection_args,
    deliveries,
    finished,
    journal_in,
    receipt_in,
    sha1_of,
    snapshot_of,
    wait_until,
)

import restore_agent.restore.poller
from restore_agent.simulator import Simulator

Verify = Callable[..., Result]


@pytest.fixture
def verify(run_agent: RunAgent, dest: Path) -> Verify:
    """`verify(sim, *options)`: with a connection to a simulator; `verify()`: offline. JSON output."""

    def call(sim: Simulator | None = None, *options: object) -> Result:
        reach = connection_args(sim, jobs=False) if sim else []
        return run_agent(["verify", *reach, "--poll-interval=0.05s", f"--dest={dest}", "--output=json", *options])

    return call


@pytest.fixture
def restored(simulator: StartSimulator, restore: Restore) -> Simulator:
    """A simulator whose batch of two was restored into DEST."""
    sim = simulator(shards=1)
    assert restore(sim).code == 0
    return sim


def final(dest: Path, sim: Simulator, index: int = 0) -> Path:
    return dest / sim.job(index).file_name


def flip_a_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def sums_pass(dest: Path) -> bool:
    check = subprocess.run(["sha1sum", "-c", "--strict", "SHA1SUMS"], cwd=dest, capture_output=True, check=False)
    return check.returncode == 0


def kill_during_the_hash_wait(start_agent: StartAgent, sim: Simulator, dest: Path) -> None:
    """Leaves a whole part file and a journal that says so, and no receipt."""
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--hash-timeout=1h"])
    journal = dest / ".restore-agent" / "journal.jsonl"
    wait_until(lambda: journal.exists() and '"whole"' in journal.read_text(), "the whole part file")
    process.kill()
    process.communicate()


# Proving again


def test_only_the_selected_archives_are_verified(restored: Simulator, dest: Path, verify: Verify) -> None:
    flip_a_byte(final(dest, restored, 0))
    mine, other = restored.job(1).id, restored.job(0).id
    assert verify(None, f"--job-id={mine}").code == 0
    assert verify(None, f"--select={restored.job(1).file_name}").code == 0
    assert {record["job_id"] for record in receipt_in(dest)["archives"]} == {mine, other}
    assert verify(None, "--job-id=none-of-these").code == 24
    assert verify(None, f"--job-id={other}").code == 11


def test_verify_accepts_the_options_of_a_run_for_one_job(
    simulator: StartSimulator, restore: Restore, dest: Path, verify: Verify
) -> None:
    sim = simulator("hash=late:3600")
    assert restore(sim, "--hash-timeout=0s").code == 10
    sim.clock.advance(7200)
    ended = verify(None, *connection_args(sim))
    assert (ended.code, ended.verdicts) == (0, ["verified"])


def test_after_a_success_everything_is_still_verified(verify: Verify, restored: Simulator, dest: Path) -> None:
    ended = verify(restored)
    assert ended.code == 0
    assert ended.verdicts == ["verified"] * 2
    assert (ended.result["outcome"], ended.result["changed"]) == ("verified", False)
    assert sums_pass(dest)


def test_without_a_connection_the_hashes_of_the_receipt_verify_the_archives(
    verify: Verify, restored: Simulator
) -> None:
    asked = len(restored.requests)
    assert verify().code == 0
    assert len(restored.requests) == asked, "without a connection no request is sent"


def test_bytes_are_read_again_whatever_the_journal_contains(verify: Verify, restored: Simulator, dest: Path) -> None:
    path = final(dest, restored)
    before = path.stat()
    flip_a_byte(path)
    assert verify().code == 11
    assert not path.exists()
    assert path.with_name(path.name + ".mismatch").stat().st_size == before.st_size


@pytest.mark.parametrize("online", [True, False])
def test_a_flipped_byte_is_quarantined_and_leaves_receipt_and_sums(
    verify: Verify, restored: Simulator, dest: Path, online: bool
) -> None:
    broken = final(dest, restored)
    flip_a_byte(broken)
    ended = verify(restored if online else None)
    assert ended.code == 11
    records = {record["file_name"]: record for record in receipt_in(dest)["archives"]}
    record = records[broken.name]
    assert (record["verdict"], record["reason"], record["exit_code"]) == ("mismatch", "hash-mismatch", 11)
    assert record["path"] == str(broken) + ".mismatch"
    assert (ended.result["outcome"], ended.result["changed"]) == ("failed", True)
    assert not broken.exists()
    assert broken.name not in (dest / "SHA1SUMS").read_text()
    assert sums_pass(dest)
    assert len(deliveries(restored)) == 2


def test_the_record_of_a_damaged_archive_has_the_hash_of_its_current_bytes(
    verify: Verify, restored: Simulator, dest: Path
) -> None:
    broken = final(dest, restored)
    proven = sha1_of(broken)
    flip_a_byte(broken)
    verify()
    record = next(r for r in receipt_in(dest)["archives"] if r["file_name"] == broken.name)
    assert record["sha1"] == sha1_of(broken.with_name(broken.name + ".mismatch"))
    assert record["expected_sha1"] == proven


def test_a_second_verify_of_a_quarantined_archive_has_the_same_result(
    verify: Verify, restored: Simulator, dest: Path
) -> None:
    flip_a_byte(final(dest, restored))
    assert verify().code == 11
    again = verify(restored)
    assert (again.code, again.result["changed"]) == (11, False)


def test_a_quarantined_archive_that_matches_the_hash_published_now_is_promoted(
    verify: Verify, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=wrong")
    assert restore(sim).code == 11
    sim.set_faults()
    ended = verify(sim)
    assert (ended.code, ended.archive["verdict"]) == (0, "verified")
    assert sha1_of(final(dest, sim)) == sim.job(0).sha1


def test_a_missing_archive_is_42(verify: Verify, restored: Simulator, dest: Path) -> None:
    final(dest, restored).unlink()
    ended = verify(restored)
    assert ended.code == 42
    (problem,) = [line["problem"] for line in ended.events("archive") if line["problem"]]
    assert problem["id"] == "archive-missing"
    assert problem["file_name"] == final(dest, restored).name
    assert final(dest, restored).name not in (dest / "SHA1SUMS").read_text()
    assert len(deliveries(restored)) == 2


def test_a_missing_archive_is_downloaded_again_by_run_if_downloads_are_left(
    verify: Verify, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("max-downloads=2")
    assert restore(sim).code == 0
    final(dest, sim).unlink()
    assert verify(sim).code == 42
    assert restore(sim).code == 0
    assert verify(sim).code == 0


def test_a_link_in_place_of_an_archive_is_not_followed(verify: Verify, restored: Simulator, dest: Path) -> None:
    path = final(dest, restored)
    elsewhere = dest.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert verify(restored).code == 42
    assert path.is_symlink()


def test_a_copy_of_a_verified_archive_is_verified(verify: Verify, restored: Simulator, dest: Path) -> None:
    path = final(dest, restored)
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.replace(path)
    assert verify().code == 0


def test_archives_that_were_skipped_stay_skipped(verify: Verify, simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("automated@1", shards=1)
    assert restore(sim).code == 0
    ended = verify(sim)
    assert ended.code == 0
    assert sorted(ended.verdicts) == ["skipped", "verified"]


def test_an_archive_that_failed_stays_failed_with_its_reason(
    verify: Verify, simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("expired@1", shards=1)
    assert restore(sim).code == 22
    ended = verify(sim)
    assert ended.code == 22
    (record,) = [r for r in ended.result["archives"] if r["verdict"] == "failed"]
    assert record["reason"] == "delivery-expired"


# Hashes published late


@pytest.fixture
def unproven(simulator: StartSimulator, restore: Restore, dest: Path) -> Simulator:
    """A simulator that published no hash, and DEST with the archive that waits for one."""
    sim = simulator("hash=never")
    assert restore(sim, "--hash-timeout=0.1s").code == 10
    assert final(dest, sim).with_name(sim.job(0).file_name + ".unproven").exists()
    return sim


def test_an_unproven_archive_is_promoted_once_its_hash_is_published(
    verify: Verify, unproven: Simulator, dest: Path
) -> None:
    unproven.set_faults()
    ended = verify(unproven)
    assert ended.code == 0
    assert (ended.result["outcome"], ended.result["changed"]) == ("verified", True)
    record = ended.archive
    assert (record["verdict"], record["reason"], record["path"]) == ("verified", None, str(final(dest, unproven)))
    assert record["expected_sha1"] == record["sha1"] == sha1_of(final(dest, unproven))
    assert not list(dest.glob("*.unproven"))
    assert sums_pass(dest)
    assert receipt_in(dest)["exit_code"] == 0
    assert len(deliveries(unproven)) == 1


def test_it_stays_unproven_while_nothing_is_published(verify: Verify, unproven: Simulator, dest: Path) -> None:
    ended = verify(unproven)
    assert (ended.code, ended.archive["verdict"]) == (10, "unproven")
    assert list(dest.glob("*.unproven"))


def test_it_stays_unproven_without_a_connection(verify: Verify, unproven: Simulator, dest: Path) -> None:
    unproven.set_faults()
    ended = verify()
    assert (ended.code, ended.archive["verdict"]) == (10, "unproven")
    assert list(dest.glob("*.unproven"))
    assert not final(dest, unproven).exists()


def test_a_hash_that_differs_quarantines_the_unproven_archive(verify: Verify, unproven: Simulator, dest: Path) -> None:
    unproven.set_faults("hash=wrong")
    ended = verify(unproven)
    assert (ended.code, ended.archive["verdict"]) == (11, "mismatch")
    assert list(dest.glob("*.mismatch"))
    assert not list(dest.glob("*.unproven"))


def test_an_unproven_archive_that_was_damaged_since_is_quarantined(
    verify: Verify, unproven: Simulator, dest: Path
) -> None:
    flip_a_byte(next(dest.glob("*.unproven")))
    ended = verify(unproven)
    assert (ended.code, ended.archive["reason"]) == (11, "archive-damaged")


def test_the_hash_may_be_published_after_the_delivery_expired(verify: Verify, unproven: Simulator) -> None:
    unproven.set_faults()
    unproven.clock.advance(7200)
    assert verify(unproven).code == 0


def test_verify_polls_once_and_does_not_wait(verify: Verify, unproven: Simulator) -> None:
    asked = len(unproven.requests)
    began = time.monotonic()
    verify(unproven, "--poll-interval=5s")
    assert time.monotonic() - began < 4
    api = [request for request in unproven.requests[asked:] if request.auth.startswith("digest")]
    assert len(api) == 1


def test_a_batch_that_ops_manager_no_longer_has_is_verified_with_the_receipt(
    verify: Verify, restored: Simulator
) -> None:
    restored.set_faults("no-batch")
    began = time.monotonic()
    ended = verify(restored, "--poll-interval=1s")
    assert ended.code == 0
    assert [notice["level"] for notice in ended.events("notice")] == ["warning"]
    assert time.monotonic() - began < 0.9, "one answer is enough: verify waits for nothing"


def test_a_job_that_ops_manager_no_longer_has_is_verified_with_the_receipt(
    verify: Verify, simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator()
    assert restore(sim).code == 0
    args = connection_args(sim, jobs=False)
    sim.jobs.clear()
    ended = verify(None, *args)
    assert ended.code == 0
    assert "verifying by the records in DEST alone" in ended.events("notice")[0]["message"]


# After a kill


def test_a_complete_part_file_is_verified_after_a_kill_during_the_hash_wait(
    verify: Verify, simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("hash=never")
    kill_during_the_hash_wait(start_agent, sim, dest)
    assert not (dest / "receipt.json").exists()
    sim.set_faults()
    ended = verify(sim, f"--group-id={sim.hello['group_id']}", f"--cluster-id={sim.hello['cluster_id']}")
    assert ended.code == 0
    assert ended.archive["verdict"] == "verified"
    assert final(dest, sim).exists()
    assert sums_pass(dest)
    assert len(deliveries(sim)) == 1


def test_a_complete_part_file_without_a_hash_becomes_unproven(
    verify: Verify, simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("hash=never")
    kill_during_the_hash_wait(start_agent, sim, dest)
    ended = verify()
    assert (ended.code, ended.archive["verdict"]) == (10, "unproven")
    assert list(dest.glob("*.unproven"))
    assert not list(dest.glob("*.part"))


def test_without_a_receipt_the_journal_identifies_the_restore(
    verify: Verify, simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("hash=never")
    kill_during_the_hash_wait(start_agent, sim, dest)
    ended = verify(None, *[a for a in connection_args(sim, jobs=False) if "-id=" not in a])
    assert ended.code == 10
    hello = sim.hello
    assert (ended.result["group_id"], ended.result["cluster_id"]) == (hello["group_id"], hello["cluster_id"])
    again = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--allow-unproven"])
    assert finished(again).code == 0, "verify left DEST to the restore that it belongs to"


def test_half_a_part_file_is_not_verified(
    verify: Verify, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("cut=50%", "max-downloads=2")
    assert restore(sim, "--retries=0").code == 25
    before = sha1_of(next(dest.glob("*.part")))
    ended = verify(sim)
    assert ended.code == 25
    assert sha1_of(next(dest.glob("*.part"))) == before


def test_half_a_part_without_a_receipt_is_reported_as_not_downloaded(
    verify: Verify, simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("drip=256K", archive_size=1 << 20)
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}"])
    wait_until(lambda: [part for part in dest.glob("*.part") if part.stat().st_size], "a beginning of the part file")
    process.kill()
    process.communicate()
    ended = verify()
    assert (ended.code, ended.archive["reason"]) == (20, "not-downloaded")


def test_a_torn_last_line_of_the_journal_does_not_matter(verify: Verify, restored: Simulator, dest: Path) -> None:
    journal = dest / ".restore-agent" / "journal.jsonl"
    with journal.open("a") as file:
        file.write('{"fact": "attempt", "job_')
    assert verify(restored).code == 0
    assert journal.read_text().endswith("}\n")
    assert journal_in(dest)


# What stops it


def test_a_truncated_receipt_is_42_and_stays_unchanged(verify: Verify, restored: Simulator, dest: Path) -> None:
    receipt = dest / "receipt.json"
    receipt.write_bytes(receipt.read_bytes()[: receipt.stat().st_size // 2])
    before = snapshot_of(dest)
    ended = verify(restored)
    assert (ended.code, ended.events("error")[0]["id"]) == (42, "record-unreadable")
    assert snapshot_of(dest) == before


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "restore-agent/receipt/2"},
        {"archives": None},
        {"archives": [{"job_id": 5}]},
        {"archives": [{"job_id": "a", "verdict": "perhaps"}]},
        {"exit_code": "zero"},
        {"batch_id": 7},
    ],
)
def test_a_receipt_of_another_shape_is_42(
    verify: Verify, restored: Simulator, dest: Path, change: dict[str, object]
) -> None:
    (dest / "receipt.json").write_text(json.dumps({**receipt_in(dest), **change}))
    ended = verify(restored)
    assert (ended.code, ended.events("error")[0]["id"]) == (42, "record-unreadable")


def test_a_field_that_a_later_version_added_is_ignored(verify: Verify, restored: Simulator, dest: Path) -> None:
    (dest / "receipt.json").write_text(json.dumps({**receipt_in(dest), "mood": "good"}))
    assert verify().code == 0


def test_a_name_in_the_receipt_cannot_refer_to_a_file_outside_dest(
    verify: Verify, restored: Simulator, dest: Path
) -> None:
    receipt = receipt_in(dest)
    outside = dest.parent / "outside"
    outside.write_text("not to be touched")
    receipt["archives"][0]["file_name"] = "../outside"
    (dest / "receipt.json").write_text(json.dumps(receipt))
    ended = verify()
    assert outside.read_text() == "not to be touched"
    assert {path.name for path in dest.parent.iterdir()} == {"outside", dest.name}
    assert ended.code == 42


def test_a_damaged_journal_is_42(verify: Verify, restored: Simulator, dest: Path) -> None:
    journal = dest / ".restore-agent" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:1], "not json\n", *lines[1:]]))
    ended = verify(restored)
    assert (ended.code, ended.events("error")[0]["id"]) == (42, "record-unreadable")
    assert "line 2" in ended.events("error")[0]["message"]


def test_an_api_that_is_unreachable_for_a_minute_is_32(
    verify: Verify, restored: Simulator, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_agent.restore.poller, "PATIENCE", 0.3)
    restored.set_faults("api-503=always")
    before = snapshot_of(dest)
    assert verify(restored).code == 32
    assert snapshot_of(dest) == before


def test_a_refused_key_is_30(verify: Verify, restored: Simulator) -> None:
    restored.set_faults("forbidden")
    assert verify(restored).code == 30


def test_a_dest_that_a_run_has_locked_is_50(verify: Verify, restored: Simulator, dest: Path) -> None:
    with (dest / ".restore-agent" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = snapshot_of(dest)
        assert verify(restored).code == 50
        assert snapshot_of(dest) == before


def test_a_missing_dest_is_named(verify: Verify, dest: Path) -> None:
    ended = verify()
    assert ended.code in (41, 42)
    assert str(dest) in ended.events("error")[0]["message"]
    assert not dest.exists()


def test_a_dest_without_a_run_has_no_archive_to_verify(verify: Verify, dest: Path) -> None:
    dest.mkdir()
    ended = verify()
    assert ended.code == 42
    assert "no run was ever in" in ended.events("error")[0]["message"]
    assert not list(dest.iterdir())


def test_a_dest_of_a_run_without_a_download_has_no_archive_to_verify(
    verify: Verify, simulator: StartSimulator, restore: Restore
) -> None:
    assert restore(simulator("forbidden")).code == 30
    assert verify().code == 42


def test_ids_that_contradict_the_receipt_are_refused(verify: Verify, restored: Simulator) -> None:
    ended = verify(restored, "--batch-id=000000000000000000000000")
    assert (ended.code, ended.events("error")[0]["id"]) == (42, "other-batch")


def test_verify_never_requests_a_delivery_url(verify: Verify, restored: Simulator, dest: Path) -> None:
    restored.set_faults("max-downloads=9")
    for job in restored.jobs:
        job.downloads = 0
    assert all(job.is_ready for job in restored.jobs)
    for path in list(dest.glob("*.tar.gz")):
        path.unlink()
    asked = len(deliveries(restored))
    assert verify(restored).code == 42
    assert len(deliveries(restored)) == asked


# How it looks


def test_the_text_names_each_archive_and_its_verdict(verify: Verify, restored: Simulator, dest: Path) -> None:
    flip_a_byte(final(dest, restored, 1))
    ended = verify(restored, "--output=text")
    assert ended.code == 11
    assert [line.split()[0] for line in ended.out.splitlines() if not line.startswith(" ")][:2] == [
        "mismatch",
        "verified",
    ]
    assert "next: Do not use the quarantined file" in ended.err


def test_the_text_of_a_success_counts(verify: Verify, restored: Simulator) -> None:
    assert verify(restored, "--output=text").out.splitlines()[-2].startswith("2 archives verified.")
