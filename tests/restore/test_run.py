"""A run that succeeds, and its status file."""

from __future__ import annotations

import os
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.agents import (
    QUICK,
    Json,
    Restore,
    RunAgent,
    StartSimulator,
    connection_args,
    deliveries,
    meanwhile,
    receipt_in,
    sha1_of,
    status_in,
    wait_until,
)
from support.runs import RFC3339, ended_with, name_of, names_in, published

from restore_agent import __version__

# fmt: off
RECEIPT_FIELDS = [
    "schema", "agent_version", "hostname", "outcome", "exit_code", "changed", "ops_manager", "group_id", "cluster_id",
    "host_id", "batch_id", "started_at", "finished_at", "archives",
]
ARCHIVE_FIELDS = [
    "job_id", "cluster_id", "host_id", "snapshot_id", "snapshot_timestamp", "file_name", "path", "bytes", "sha1",
    "expected_sha1", "verdict", "reason", "exit_code", "downloads_spent", "resumed", "seconds", "bytes_per_second",
    "encryption_enabled", "master_key_uuid", "point_in_time", "ready_at", "download_started_at", "downloaded_at",
    "verified_at", "unpacked_at", "data_path", "data_files", "data_bytes", "restore_info", "archive_kept",
]
# fmt: on


# ---------------------------------------------------------------- 0: success


def test_a_sharded_batch_is_downloaded_and_verified(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator(shards=2)
    ended = ended_with(restore(sim), 0)
    assert ended.verdicts == ["verified"] * 3
    assert ended.result["outcome"] == "verified"
    assert ended.result["changed"] is True
    assert all(published(sim, dest, index) for index in range(3))
    assert [(request.method, request.status) for request in deliveries(sim)] == [("GET", 200)] * 3


def test_over_tls_with_a_ca_file_and_a_key_from_a_file(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator(tls=True)
    ended = ended_with(restore(sim), 0)
    assert ended.result["ops_manager"] == sim.hello["url"]
    assert sim.hello["url"].startswith("https://")
    assert published(sim, dest)


def test_the_systems_trust_store_is_the_default(simulator: StartSimulator, run_agent: RunAgent, dest: Path) -> None:
    sim = simulator(tls=True)
    args = [arg for arg in connection_args(sim) if not arg.startswith("--ca-file")]
    options = [*args, *QUICK, f"--dest={dest}", "--output=json"]
    ended_with(run_agent(["run", *options]), 31)
    ended_with(run_agent(["run", *options], {"SSL_CERT_FILE": sim.hello["ca_file"]}), 0)


def test_text_output_shows_results_on_stdout_and_the_log_on_stderr(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    ended = restore(sim, "--output=text")
    assert ended.code == 0
    assert "verified" in ended.out
    assert sim.job(0).archive().sha1 in ended.out
    assert "1 archive verified" in ended.out
    assert "downloading" in ended.err
    assert "downloading" not in ended.out
    assert "\x1b" not in ended.out + ended.err


def test_text_output_of_an_error_has_cause_files_on_disk_spent_downloads_and_next_step(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("cut=50%")
    ended = restore(sim, "--output=text")
    assert ended.code == 23
    assert name_of(sim) in ended.err
    assert "downloads are used up" in ended.err
    assert f"on disk: {name_of(sim)}.part with" in ended.err
    assert "download spent: yes" in ended.err
    assert "next: Create a new restore job with more downloads" in ended.err
    assert "Exit code 23" in ended.out


def test_json_output_is_json_lines_only_and_each_has_an_event_and_a_time(
    simulator: StartSimulator, restore: Restore
) -> None:
    ended = restore(simulator(shards=1))
    assert len(ended.lines) > 3
    for line in ended.lines:
        assert isinstance(line["event"], str)
        assert RFC3339.fullmatch(line["time"])
    assert set(ended.lines[-1]) == {"event", "time", *RECEIPT_FIELDS}


def test_the_last_line_of_json_is_the_receipt(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    ended = restore(simulator(shards=1))
    written = receipt_in(dest)
    assert {name: ended.result[name] for name in RECEIPT_FIELDS} == written
    assert list(written) == RECEIPT_FIELDS


def test_every_field_of_the_receipt_agrees_with_ops_manager_and_the_disk(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("encrypted", "point-in-time@0", shards=1)
    began = datetime.now(UTC)
    restore(sim)
    receipt = receipt_in(dest)
    hello = sim.hello
    assert receipt["schema"] == "restore-agent/receipt/1"
    assert receipt["agent_version"] == __version__
    assert receipt["outcome"] == "verified"
    assert receipt["exit_code"] == 0
    assert receipt["changed"] is True
    assert receipt["ops_manager"] == hello["url"]
    assert receipt["group_id"] == hello["group_id"]
    assert receipt["cluster_id"] == hello["cluster_id"]
    assert receipt["host_id"] is None
    assert receipt["batch_id"] == hello["batch_id"]
    started, ended = (datetime.fromisoformat(receipt[name]) for name in ("started_at", "finished_at"))
    assert abs((started - began).total_seconds()) < 5
    assert started <= ended
    assert len(receipt["archives"]) == 2
    for record in receipt["archives"]:
        index = hello["job_ids"].index(record["job_id"])
        job, document, archive = sim.job(index), sim.document(index), sim.job(index).archive()
        assert list(record) == ARCHIVE_FIELDS
        assert record["cluster_id"] == document["clusterId"]
        assert record["host_id"] is None
        assert record["snapshot_id"] == document["snapshotId"]
        assert record["snapshot_timestamp"] == document["timestamp"]["date"]
        assert record["file_name"] == job.file_name
        assert record["path"] == str(dest / job.file_name)
        assert os.path.isabs(record["path"])
        assert record["bytes"] == archive.size == os.path.getsize(record["path"])
        assert record["sha1"] == record["expected_sha1"] == archive.sha1 == sha1_of(Path(record["path"]))
        assert record["verdict"] == "verified"
        assert record["reason"] is None
        assert record["exit_code"] == 0
        assert record["downloads_spent"] == 1
        assert record["resumed"] is False
        assert record["seconds"] >= 0
        assert record["bytes_per_second"] > 0
        assert record["encryption_enabled"] is True
        assert record["master_key_uuid"] == document["masterKeyUUID"]
        assert record["point_in_time"] is (index == 0)


def test_sha1sums_is_accepted_by_sha1sum(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("hash=upper@1", shards=2)
    restore(sim)
    checked = subprocess.run(["sha1sum", "-c", "SHA1SUMS"], cwd=dest, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(": OK") == 3


def test_only_the_owner_may_read_the_files_in_dest(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    previous = os.umask(0)
    try:
        ended_with(restore(simulator("hash=never@1", shards=1), "--hash-timeout=0.2s"), 10)
    finally:
        os.umask(previous)
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [dest, *dest.rglob("*")]}
    assert {path: mode for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    assert len(modes) == 9  # DEST, archive, unproven, receipt, sums, state directory and its three files


def test_a_run_leaves_only_the_documented_files(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("cut=50%", "max-downloads=2", "hash=never@1", shards=1)
    restore(sim, "--hash-timeout=0.2s")
    expected = {name_of(sim), f"{name_of(sim, 1)}.unproven", "SHA1SUMS", "receipt.json", ".restore-agent"}
    assert names_in(dest) == expected
    assert names_in(dest / ".restore-agent") == {"lock", "journal.jsonl", "status.json"}


def test_nothing_outside_of_dest_is_written(simulator: StartSimulator, restore: Restore, tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    restore(simulator(), to=beside / "restore")
    assert names_in(beside) == {"restore"}


def test_a_relative_dest_and_missing_parents_are_accepted(
    simulator: StartSimulator, restore: Restore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = ended_with(restore(simulator(), to=Path("one/two/../three")), 0)
    assert ended.archive["path"].startswith(f"{tmp_path}/one/three/")


def test_an_existing_dest_keeps_its_mode_and_its_other_files(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    dest.mkdir(mode=0o755)
    (dest / "notes.txt").write_text("ours")
    ended_with(restore(simulator()), 0)
    assert stat.S_IMODE(dest.stat().st_mode) == 0o755
    assert (dest / "notes.txt").read_text() == "ours"


# ---------------------------------------------------------------- status.json


def test_the_status_file_shows_the_progress_of_an_active_run(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("drip=24K", shards=1)
    seen: list[Json] = []

    def look() -> None:
        path = dest / ".restore-agent" / "status.json"
        wait_until(path.exists)
        seen.append(status_in(dest))
        wait_until(lambda: (s := status_in(dest))["archives"] and s["archives"][0]["bytes"])
        seen.append(status_in(dest))
        sim.set_faults()

    with meanwhile(look):
        ended = ended_with(restore(sim), 0)
    first, moving, last = *seen, status_in(dest)
    fields = ["schema", "state", "pid", "started_at", "updated_at", "batch_id", "exit_code", "trouble", "archives"]
    for status in (first, moving, last):
        assert list(status) == fields
        assert status["schema"] == "restore-agent/status/1"
        assert status["pid"] == os.getpid()
        assert status["batch_id"] == sim.hello["batch_id"]
        assert status["started_at"] == ended.result["started_at"]
        assert RFC3339.fullmatch(status["updated_at"])
    assert first["state"] == "waiting"
    assert first["exit_code"] is moving["exit_code"] is None
    row = moving["archives"][0]
    assert list(row) == [
        "job_id",
        "file_name",
        "state",
        "bytes",
        "total_bytes",
        "bytes_per_second",
        "expires_at",
        "downloads_spent",
        "unpacked_bytes",
    ]
    assert row["state"] == "downloading"
    assert 0 < row["bytes"] < row["total_bytes"] == sim.job(0).archive().size
    assert row["bytes_per_second"] > 0
    assert row["downloads_spent"] == 1
    assert datetime.fromisoformat(row["expires_at"]).timestamp() == pytest.approx(sim.job(0).expires, abs=2)
    assert (last["state"], last["exit_code"]) == ("finished", 0)
    assert [row["state"] for row in last["archives"]] == ["verified"] * 2


def test_the_status_file_has_the_exit_code_of_a_failed_run(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    restore(simulator("expired"))
    status = status_in(dest)
    assert (status["state"], status["exit_code"]) == ("finished", 22)
    assert [row["state"] for row in status["archives"]] == ["failed"]
