"""`run` against a simulated Ops Manager: every end of it, what it leaves on disk, and what it says."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.agents import (
    PATIENCE,
    QUICK,
    Json,
    Restore,
    Result,
    RunAgent,
    StartAgent,
    StartSimulator,
    connection_args,
    deliveries,
    finished,
    journal_in,
    meanwhile,
    receipt_in,
    sha1_of,
    snapshot_of,
    status_in,
    wait_until,
)

from restore_agent import __version__
from restore_agent.simulator import Simulator

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
ERROR_FIELDS = {"id", "exit_code", "message", "file_name", "on_disk", "download_spent", "hint"}
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def ended_with(ended: Result, code: int, reason: str | None = None) -> Result:
    """What holds for every end: exit code, last line and errors agree, and each error says all that it should."""
    assert ended.code == code, (ended.out, ended.err)
    assert ended.result["exit_code"] == code
    problems = [line["problem"] for line in ended.events("archive") if line["problem"]] + ended.events("error")
    for problem in problems:
        assert problem.keys() >= ERROR_FIELDS
        assert problem["message"]
        assert problem["hint"]
    for line in ended.events("archive"):
        if line["problem"]:
            assert line["problem"]["file_name"]
            assert line["problem"]["on_disk"]
            assert line["problem"]["download_spent"] is not None
    if reason is not None:
        assert reason in {problem["id"] for problem in problems} | {r["reason"] for r in ended.result["archives"]}
    return ended


def name_of(sim: Simulator, index: int = 0) -> str:
    return sim.job(index).archive_name


def names_in(place: Path) -> set[str]:
    return {entry.name for entry in place.iterdir()}


def published(sim: Simulator, dest: Path, index: int = 0) -> bool:
    """Whether the archive at its final name is the served one."""
    path = dest / name_of(sim, index)
    return path.exists() and sha1_of(path) == sim.job(index).archive().sha1


# ---------------------------------------------------------------- 0: success


def test_a_sharded_batch_is_downloaded_and_proven(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
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


def test_text_output_of_an_error_says_what_happened_what_is_left_what_was_spent_and_what_to_do(
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


def test_every_field_of_the_receipt_is_what_ops_manager_and_the_disk_say(
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


def test_sha1sums_passes_the_tool_it_is_written_for(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("hash=upper@1", shards=2)
    restore(sim)
    checked = subprocess.run(["sha1sum", "-c", "SHA1SUMS"], cwd=dest, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(": OK") == 3


def test_only_the_owner_may_read_what_is_in_dest(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    previous = os.umask(0)
    try:
        ended_with(restore(simulator("hash=never@1", shards=1), "--hash-timeout=0.2s"), 10)
    finally:
        os.umask(previous)
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [dest, *dest.rglob("*")]}
    assert {path: mode for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    assert len(modes) == 9  # DEST, archive, unproven, receipt, sums, state directory and its three files


def test_a_run_leaves_nothing_but_what_the_contract_names(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
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


def test_a_relative_dest_and_missing_parents_are_fine(
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


def test_the_status_file_tells_of_a_run_while_it_goes_on(
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
    ]
    assert row["state"] == "downloading"
    assert 0 < row["bytes"] < row["total_bytes"] == sim.job(0).archive().size
    assert row["bytes_per_second"] > 0
    assert row["downloads_spent"] == 1
    assert datetime.fromisoformat(row["expires_at"]).timestamp() == pytest.approx(sim.job(0).expires, abs=2)
    assert (last["state"], last["exit_code"]) == ("finished", 0)
    assert [row["state"] for row in last["archives"]] == ["verified"] * 2


def test_the_status_file_holds_the_exit_code_of_a_failed_run(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    restore(simulator("expired"))
    status = status_in(dest)
    assert (status["state"], status["exit_code"]) == ("finished", 22)
    assert [row["state"] for row in status["archives"]] == ["failed"]


# ---------------------------------------------------------------- the other exit codes


def test_2_when_an_option_is_missing(run_agent: RunAgent, dest: Path) -> None:
    ended_with(run_agent(["run", f"--dest={dest}", "-o", "json"]), 2, "usage")
    assert not dest.exists()


def test_10_when_no_hash_is_published_in_time(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("hash=never")
    ended = ended_with(restore(sim, "--hash-timeout=0.3s"), 10, "hash-not-published")
    assert ended.result["outcome"] == "unproven"
    assert ended.archive["verdict"] == "unproven"
    assert ended.archive["path"] == str(dest / f"{name_of(sim)}.unproven")
    assert sha1_of(Path(ended.archive["path"])) == ended.archive["sha1"] == sim.job(0).archive().sha1
    assert ended.archive["expected_sha1"] is None
    assert not (dest / name_of(sim)).exists()
    assert receipt_in(dest)["exit_code"] == 10


def test_11_when_the_published_hash_differs(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("hash=wrong")
    ended = ended_with(restore(sim), 11, "hash-mismatch")
    assert ended.archive["verdict"] == "mismatch"
    assert ended.archive["path"] == str(dest / f"{name_of(sim)}.mismatch")
    assert ended.archive["sha1"] != ended.archive["expected_sha1"]
    assert not (dest / name_of(sim)).exists()
    assert receipt_in(dest)["outcome"] == "failed"


def test_11_stays_the_word_when_the_downloads_are_used_up_since(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=wrong", "max-downloads=1")
    ended_with(restore(sim), 11, "hash-mismatch")
    again = ended_with(restore(sim), 11, "hash-mismatch")
    assert again.archive["path"] == str(dest / f"{name_of(sim)}.mismatch")
    assert len(deliveries(sim)) == 1


def test_12_when_archives_fail_for_different_reasons_and_the_others_are_had(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("expired@0", "broken@1", shards=2)
    ended = ended_with(restore(sim), 12)
    codes = {record["file_name"] or record["job_id"]: record["exit_code"] for record in ended.result["archives"]}
    assert sorted(codes.values()) == [0, 21, 22]
    assert published(sim, dest, 2)
    assert receipt_in(dest)["exit_code"] == 12


def test_failed_archives_with_one_code_end_with_that_code(simulator: StartSimulator, restore: Restore) -> None:
    ended = ended_with(restore(simulator("expired@0", "expired@1", shards=2)), 22)
    assert sorted(ended.verdicts) == ["failed", "failed", "verified"]


def test_20_when_a_job_is_not_ready_in_time(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("never-ready@1", shards=1)
    ended_with(restore(sim, "--wait-timeout=0.3s"), 20, "not-ready")
    assert published(sim, dest, 0)
    assert receipt_in(dest)["exit_code"] == 20
    assert [request.job_id for request in deliveries(sim)] == [sim.job(0).id]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("broken", "job-broken"),
        ("killed", "job-killed"),
        ("delivery-failed", "delivery-failed"),
        ("interrupted", "delivery-interrupted"),
    ],
)
def test_21_when_ops_manager_gave_the_job_up(
    fault: str, reason: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(fault)
    ended = ended_with(restore(sim), 21, reason)
    assert ended.archive["downloads_spent"] == 0
    assert deliveries(sim) == []
    assert receipt_in(dest)["exit_code"] == 21


def test_22_when_the_delivery_has_expired(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("expired")
    ended = ended_with(restore(sim), 22, "delivery-expired")
    (settled,) = ended.events("archive")
    assert settled["problem"]["download_spent"] is False
    assert deliveries(sim) == []
    assert receipt_in(dest)["exit_code"] == 22


def test_22_when_the_delivery_expires_under_the_transfer(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("expires-cut=1", "drip=32K", "max-downloads=9")
    ended = ended_with(restore(sim), 22, "delivery-expired")
    assert len(deliveries(sim)) == 1
    assert ended.archive["downloads_spent"] == 1


def test_23_when_the_downloads_are_used_up(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("cut=40%x9", "max-downloads=2")
    ended = ended_with(restore(sim), 23, "downloads-used-up")
    assert ended.archive["downloads_spent"] == 2
    assert len(deliveries(sim)) == 2
    assert (dest / f"{name_of(sim)}.part").exists()
    assert receipt_in(dest)["exit_code"] == 23


def test_24_when_the_batch_lists_no_job_for_three_polls(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("no-batch", shards=1)
    ended_with(restore(sim), 24, "batch-empty")
    assert len([request for request in sim.requests if request.status == 200]) == 3
    assert not (dest / "receipt.json").exists()


@pytest.mark.parametrize(
    ("option", "error_code"),
    [
        ("--group-id=000000000000000000000000", "GROUP_NOT_FOUND"),
        ("--cluster-id=000000000000000000000000", "CLUSTER_NOT_FOUND"),
        ("--job-id=000000000000000000000000", "RESTORE_JOB_NOT_FOUND"),
        ("--job-id=nonsense", "INVALID_JOB_ID"),
    ],
)
def test_24_when_an_id_is_unknown_and_the_message_says_which(
    option: str, error_code: str, simulator: StartSimulator, restore: Restore
) -> None:
    ended = ended_with(restore(simulator(), option), 24, "not-found")
    (error,) = ended.events("error")
    assert error_code in error["message"]
    assert option.partition("=")[2] in error["message"]  # the detail of the error document names it


def test_24_for_an_unknown_job_does_not_stop_the_known_one(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    ended = ended_with(restore(sim, "--job-id=000000000000000000000000"), 24, "not-found")
    assert ended.verdicts == ["verified"]
    assert published(sim, dest)
    assert receipt_in(dest)["exit_code"] == 24


def test_24_for_a_job_that_vanishes_leaves_the_other_one_to_its_proof(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator("hash=late:3600", "never-ready@0", shards=1)
    options = [f"--job-id={job_id}" for job_id in sim.hello["job_ids"]]

    def forget() -> None:
        wait_until(lambda: any(request.completed for request in deliveries(sim)))
        sim.manager.jobs.pop(0)
        sim.clock.advance(7200)

    with meanwhile(forget):
        ended = run_agent(["run", *connection_args(sim, jobs=False), *options, *QUICK, f"--dest={dest}", "-ojson"])
    assert sorted((record["verdict"], record["exit_code"]) for record in receipt_in(dest)["archives"]) == [
        ("failed", 24),
        ("verified", 0),
    ]
    assert ended.code == 24


def test_24_when_fewer_jobs_are_listed_than_expected(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator(shards=1)
    ended = ended_with(restore(sim, "--expect-jobs=3", "--wait-timeout=0.6s"), 24, "fewer-jobs-than-expected")
    assert ended.verdicts == ["verified"] * 2
    assert ended.result["outcome"] == "failed"
    assert receipt_in(dest)["exit_code"] == 24


def test_24_when_no_job_matches_the_selection(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(shards=1)
    ended_with(restore(sim, "--select=*shard99*"), 24, "nothing-selected")
    assert deliveries(sim) == []


@pytest.mark.parametrize("fault", ["html-body=always", "json-body=always", "empty-body=always", "refuse=503xalways"])
def test_25_when_the_link_is_ready_and_keeps_sending_something_else(
    fault: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(fault, "max-downloads=99")
    ended = ended_with(restore(sim, "--retries=1"), 25)
    assert len(deliveries(sim)) == 2
    assert ended.archive["verdict"] == "failed"
    assert [path.name for path in dest.glob("*.tar.gz*") if path.stat().st_size] == []
    assert receipt_in(dest)["exit_code"] == 25


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("unauthorized", "USER_UNAUTHORIZED: You are not authorized"),
        ("unauthorized=empty", "HTTP 401"),
        ("forbidden", "IP_ADDRESS_NOT_ON_ACCESS_LIST: IP address 127.0.0.1"),
        ("not-in-group", "NOT_IN_GROUP: The current user"),
    ],
)
def test_30_when_the_api_refuses_access(
    fault: str, said: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    ended = ended_with(restore(simulator(fault)), 30, "api-access-refused")
    assert said in ended.events("error")[0]["message"]
    assert not (dest / "receipt.json").exists()


@pytest.mark.parametrize("fault", ["wrong-host", "expired-cert", "client-cert"])
def test_31_when_tls_does_not_hold(fault: str, simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    ended_with(restore(simulator(fault, tls=True)), 31, "tls")
    assert not (dest / "receipt.json").exists()


def test_31_when_the_server_is_not_trusted(simulator: StartSimulator, restore: Restore) -> None:
    other = simulator(tls=True)
    sim = simulator(tls=True)
    ended = ended_with(restore(sim, f"--ca-file={other.hello['ca_file']}"), 31, "tls")
    assert "--ca-file" in ended.events("error")[0]["hint"]
    assert sim.requests == []


def test_31_when_the_delivery_host_is_not_trusted_and_no_download_is_spent(
    simulator: StartSimulator, restore: Restore
) -> None:
    elsewhere = simulator(tls=True)
    url = elsewhere.document(0)["delivery"]["url"]
    sim = simulator(f'job-field=delivery.url:"{url}"', tls=True)
    ended = ended_with(restore(sim), 31, "tls")
    assert deliveries(elsewhere) == []
    assert ended.archive["downloads_spent"] == 0
    (settled,) = ended.events("archive")
    assert settled["problem"]["download_spent"] is False


def test_the_receipt_is_left_as_it_was_at_31(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    url = simulator(tls=True).document(0)["delivery"]["url"]
    ended_with(restore(simulator(f'job-field=delivery.url:"{url}"', tls=True)), 31)
    assert not (dest / "receipt.json").exists()


def test_a_client_certificate_opens_what_asks_for_one(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("client-cert", tls=True)
    certificate, key = sim.client_certificate()
    ended_with(restore(sim, f"--client-cert={certificate}", f"--client-key={key}"), 0)


def test_32_when_nobody_listens(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        ended = restore(simulator(), f"--url=http://127.0.0.1:{port}", "--wait-timeout=0.3s")
    ended_with(ended, 32, "ops-manager-unreachable")
    assert not (dest / "receipt.json").exists()


@pytest.mark.parametrize("fault", ["api-429=always", "api-500=always", "api-503=always", "api-reset=always"])
def test_32_when_the_api_keeps_failing_until_the_time_is_over(
    fault: str, simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator(fault)
    ended_with(restore(sim, "--wait-timeout=0.4s"), 32, "ops-manager-unreachable")
    assert len(sim.requests) > 1


def test_the_api_may_be_away_for_the_wait_timeout_however_short_the_hash_timeout(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("api-503=always")

    def recover() -> None:
        wait_until(lambda: len(sim.requests) >= 4)
        sim.set_faults()

    with meanwhile(recover):
        ended_with(restore(sim, "--hash-timeout=0.05s"), 0)


def test_the_api_is_given_up_after_the_wait_timeout_however_long_the_hash_timeout(
    simulator: StartSimulator, restore: Restore
) -> None:
    began = time.monotonic()
    ended_with(restore(simulator("api-503=always"), "--wait-timeout=0.2s", "--hash-timeout=4s"), 32)
    assert time.monotonic() - began < 3


def test_32_when_the_api_fails_for_good_while_a_hash_is_awaited(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=late:3600")

    def fail() -> None:
        wait_until(lambda: any(request.completed for request in deliveries(sim)))
        wait_until(lambda: any(line.get("fact") == "whole" for line in journal_in(dest)))
        sim.set_faults("hash=late:3600", "api-503=always")

    with meanwhile(fail):
        ended_with(restore(sim, "--hash-timeout=0.5s"), 32, "ops-manager-unreachable")
    assert not (dest / "receipt.json").exists()
    assert (dest / f"{name_of(sim)}.part").exists()
    sim.set_faults()
    ended_with(restore(sim), 0)
    assert len(deliveries(sim)) == 1


def test_40_before_a_download_is_spent_when_the_disk_is_full(
    simulator: StartSimulator, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    place = small_disk(512)
    sim = simulator(archive_size=1 << 20)
    ended = ended_with(restore(sim, to=place), 40, "no-space")
    assert deliveries(sim) == []
    assert ended.archive["downloads_spent"] == 0
    assert receipt_in(place)["exit_code"] == 40


def test_40_as_soon_as_the_servers_length_shows_that_the_archive_does_not_fit(
    simulator: StartSimulator, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    place = small_disk(3 << 10)
    sim = simulator("max-downloads=2", archive_size=4 << 20)
    ended = ended_with(restore(sim, to=place), 40, "no-space")
    part = place / f"{name_of(sim)}.part"
    assert not part.exists() or part.stat().st_size == 0, "what does not fit is not written until the disk is full"
    assert "bytes short" in ended.events("archive")[0]["problem"]["message"]
    assert receipt_in(place)["exit_code"] == 40


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_40_when_an_archive_does_not_fit_and_a_run_with_room_gets_it(
    framing: str, simulator: StartSimulator, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    place = small_disk(3 << 10)
    sim = simulator(f"framing={framing}", "max-downloads=2", archive_size=4 << 20)
    ended = ended_with(restore(sim, to=place), 40, "no-space")
    assert ended.archive["downloads_spent"] == 1
    assert not (place / name_of(sim)).exists()
    subprocess.run(["mount", "-o", "remount,size=16m", place], check=True)
    ended_with(restore(sim, to=place), 0)
    assert published(sim, place)


def test_40_leaves_a_receipt_and_no_temporary_file_although_the_disk_was_full(
    simulator: StartSimulator, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    place = small_disk(3 << 10)
    sim = simulator("framing=chunked", archive_size=4 << 20)
    ended_with(restore(sim, to=place), 40, "no-space")
    assert names_in(place) <= {f"{name_of(sim)}.part", "receipt.json", ".restore-agent"}
    assert receipt_in(place)["exit_code"] == 40


def test_40_for_one_archive_leaves_the_other_one_proven(
    simulator: StartSimulator, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    place = small_disk(2900)
    sim = simulator(shards=1, archive_size=7 << 18)
    ended = ended_with(restore(sim, "--parallel=1", to=place), 40, "no-space")
    assert sorted(ended.verdicts) == ["failed", "verified"]
    assert sum(published(sim, place, index) for index in range(2)) == 1
    assert len(deliveries(sim)) == 1  # that the other one will not fit shows before its download is spent


def test_41_when_dest_is_read_only(
    simulator: StartSimulator, restore: Restore, tmp_path: Path, small_disk: Callable[..., Path]
) -> None:
    sim = simulator()
    if os.geteuid() == 0:
        place = small_disk(512, "ro")
    else:
        place = tmp_path / "locked"
        place.mkdir(mode=0o500)
    ended_with(restore(sim, to=place), 41, "dest-unwritable")
    assert sim.requests == []
    assert names_in(place) == set()


def test_41_when_dest_cannot_be_made(simulator: StartSimulator, restore: Restore) -> None:
    ended_with(restore(simulator(), to=Path("/proc/restore-agent/here")), 41, "dest-unwritable")


def test_42_when_a_foreign_file_stands_at_the_final_name(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=early")
    dest.mkdir()
    (dest / name_of(sim)).write_text("somebody else's")
    ended = ended_with(restore(sim), 42, "foreign-file")
    assert (dest / name_of(sim)).read_text() == "somebody else's"
    assert deliveries(sim) == []
    assert ended.events("archive")[0]["problem"]["download_spent"] is False
    assert receipt_in(dest)["exit_code"] == 42


def test_42_when_no_hash_is_there_to_prove_a_foreign_file(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    dest.mkdir()
    (dest / name_of(sim)).write_bytes(sim.job(0).archive().path.read_bytes())
    ended_with(restore(sim), 42, "foreign-file")
    assert deliveries(sim) == []


def test_a_foreign_file_with_the_published_hash_counts_as_verified_without_a_download(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=early")
    dest.mkdir()
    (dest / name_of(sim)).write_bytes(sim.job(0).archive().path.read_bytes())
    ended = ended_with(restore(sim), 0)
    assert ended.archive["verdict"] == "verified"
    assert ended.archive["downloads_spent"] == 0
    assert ended.result["changed"] is False
    assert deliveries(sim) == []
    assert name_of(sim) in (dest / "SHA1SUMS").read_text()


def test_42_when_a_file_appears_at_the_final_name_during_the_download(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=late:0.5")

    def intrude() -> None:
        wait_until(lambda: any(request.completed for request in deliveries(sim)))
        (dest / name_of(sim)).write_text("somebody else's")

    with meanwhile(intrude):
        ended_with(restore(sim), 42, "foreign-file")
    assert (dest / name_of(sim)).read_text() == "somebody else's"
    (dest / name_of(sim)).unlink()
    ended_with(restore(sim), 0)
    assert len(deliveries(sim)) == 1


def test_42_when_a_list_of_sums_stands_in_dest_that_the_agent_did_not_write(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    dest.mkdir()
    (dest / "SHA1SUMS").write_text("somebody's own list\n")
    sim = simulator()
    ended_with(restore(sim), 42, "foreign-file")
    assert (dest / "SHA1SUMS").read_text() == "somebody's own list\n"
    assert deliveries(sim) == []


def test_the_hash_time_does_not_begin_while_jobs_are_expected_that_are_not_listed_yet(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("appears-after=1@1", "hash=late:0.8@0", shards=1)
    ended_with(restore(sim, "--expect-jobs=2", "--hash-timeout=0.2s", "--wait-timeout=20s"), 0)


def test_42_when_dest_holds_the_receipt_of_another_batch(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    ended_with(restore(simulator(shards=1)), 0)
    before = snapshot_of(dest)
    other = simulator(shards=3)
    ended_with(restore(other), 42, "other-batch")
    assert other.requests == []
    after = snapshot_of(dest)
    assert {name for name in before | after if before.get(name) != after.get(name)} <= {".restore-agent"}


def test_42_when_dest_holds_the_receipt_of_another_single_job(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    ended_with(restore(simulator()), 0)
    other = simulator(seed="another")
    ended_with(restore(other), 42, "other-batch")
    assert deliveries(other) == []


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", '{"schema": "restore-agent/receipt/2"}', '{"schema": "restore-agent/receipt/1"}'],
)
def test_42_when_the_receipt_is_damaged_or_of_a_future_version(
    text: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    dest.mkdir()
    (dest / "receipt.json").write_text(text)
    ended_with(restore(sim), 42, "record-unreadable")
    assert (dest / "receipt.json").read_text() == text
    assert sim.requests == []


@pytest.mark.parametrize("text", ["", "\x00" * 300])
def test_a_receipt_that_a_crash_left_empty_is_reported_and_written_again(
    text: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    restore(sim)
    (dest / "receipt.json").write_text(text)
    ended = ended_with(restore(sim), 0)
    assert "receipt.json was empty after a crash" in ended.events("notice")[0]["message"]
    assert receipt_in(dest)["archives"][0]["verdict"] == "verified"
    assert len(deliveries(sim)) == 1


def test_42_when_dest_is_a_file(simulator: StartSimulator, restore: Restore, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("ours")
    ended_with(restore(simulator(), to=file), 42, "in-the-way")
    ended_with(restore(simulator(), to=file / "below"), 42, "in-the-way")
    assert file.read_text() == "ours"


def test_50_when_another_run_holds_dest(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    ended_with(restore(simulator()), 0)
    sim = simulator()
    before = snapshot_of(dest)
    with (dest / ".restore-agent" / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended_with(restore(sim), 50, "dest-held")
    assert snapshot_of(dest) == before
    assert sim.requests == []


def test_50_beside_a_real_run_which_goes_on_undisturbed(
    simulator: StartSimulator, restore: Restore, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("hash=late:60")
    process = start_agent(["run", *connection_args(sim), *QUICK, "--hash-timeout=60s", f"--dest={dest}", "-o", "json"])
    wait_until(lambda: any(request.completed for request in deliveries(sim)))
    ended_with(restore(sim), 50, "dest-held")
    sim.clock.advance(60)
    ended_with(finished(process), 0)
    assert len(deliveries(sim)) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_130_and_143_when_a_signal_stops_the_run_and_the_next_one_goes_on(
    number: signal.Signals,
    code: int,
    simulator: StartSimulator,
    restore: Restore,
    start_agent: StartAgent,
    dest: Path,
) -> None:
    sim = simulator("drip=40K", "range=honour", "max-downloads=2")
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "-o", "json"])
    wait_until(lambda: (part := dest / f"{name_of(sim)}.part").exists() and part.stat().st_size > 1000)
    process.send_signal(number)
    ended_with(finished(process), code, "stopped")
    status = status_in(dest)
    assert (status["state"], status["exit_code"]) == ("interrupted", code)
    assert not (dest / "receipt.json").exists()
    sim.set_faults("range=honour")
    ended = ended_with(restore(sim), 0)
    assert ended.archive["resumed"] is True
    assert published(sim, dest)


# ---------------------------------------------------------------- again


def test_a_second_run_changes_nothing_and_touches_no_delivery_url(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(shards=2)
    first = ended_with(restore(sim), 0)
    before, gets = snapshot_of(dest), len(deliveries(sim))
    second = ended_with(restore(sim), 0)
    assert second.result["changed"] is False
    assert len(deliveries(sim)) == gets
    after = snapshot_of(dest)
    touched = {name for name in before | after if before.get(name) != after.get(name)}
    assert touched <= {"receipt.json", ".restore-agent", ".restore-agent/status.json", ".restore-agent/journal.jsonl"}
    for name in ("sha1", "expected_sha1", "bytes", "path", "downloads_spent", "verdict"):
        assert [r[name] for r in second.result["archives"]] == [r[name] for r in first.result["archives"]]


def test_a_second_run_says_so_in_text(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator()
    restore(sim)
    assert "Nothing had to be done" in restore(sim, "--output=text").out


def test_a_second_run_succeeds_after_the_links_are_dead(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("url-gone", shards=1)
    restore(sim)
    sim.clock.advance(7200)
    ended = ended_with(restore(sim), 0)
    assert ended.verdicts == ["verified"] * 2
    assert ended.result["changed"] is False


def test_an_archive_changed_since_is_not_taken_for_the_proven_one(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    restore(sim)
    path = dest / name_of(sim)
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"changed")
    ended_with(restore(sim), 42, "foreign-file")
    assert len(deliveries(sim)) == 1


def test_an_archive_removed_since_is_fetched_again_while_the_link_is_good(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("max-downloads=2")
    restore(sim)
    (dest / name_of(sim)).unlink()
    ended = ended_with(restore(sim), 0)
    assert ended.archive["downloads_spent"] == 2
    assert published(sim, dest)


def test_a_run_after_a_failed_one_continues_and_the_receipt_says_so(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("never-ready@1", shards=1)
    ended_with(restore(sim, "--wait-timeout=0.3s"), 20)
    sim.set_faults()
    ended = ended_with(restore(sim), 0)
    assert ended.verdicts == ["verified"] * 2
    assert receipt_in(dest)["exit_code"] == 0
    assert len(deliveries(sim)) == 2


# ---------------------------------------------------------------- which jobs


@pytest.mark.parametrize(
    "pattern_of",
    [
        lambda sim: sim.job(1).id,
        lambda sim: sim.job(1).id[:20] + "*",
        lambda sim: sim.job(1).member.cluster_id,
        lambda sim: sim.job(1).archive_name,
        lambda sim: "electron_1-*",
    ],
    ids=["job-id", "job-id-glob", "cluster-id", "archive", "archive-glob"],
)
def test_select_takes_job_id_cluster_id_and_archive_name(
    pattern_of: Callable[[Simulator], str], simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(shards=2)
    ended = ended_with(restore(sim, f"--select={pattern_of(sim)}"), 0)
    assert ended.archive["job_id"] == sim.job(1).id
    assert [request.job_id for request in deliveries(sim)] == [sim.job(1).id]


def test_select_takes_the_host_id_of_a_mirrored_config_server(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("sccc", shards=1)
    host = sim.job(1).member.host_id
    ended = ended_with(restore(sim, f"--select={host}"), 0)
    assert ended.archive["host_id"] == host
    assert ended.archive["cluster_id"] is None


def test_a_selection_by_id_does_not_wait_for_the_names_of_other_jobs(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("never-ready@1", shards=1)
    ended = ended_with(restore(sim, f"--select={sim.job(0).member.cluster_id}", "--wait-timeout=2s"), 0)
    assert ended.archive["job_id"] == sim.job(0).id


def test_several_selections_add_up(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(shards=2)
    ended = ended_with(restore(sim, "--select=electron_0-*", "--select=config-*"), 0)
    assert {record["job_id"] for record in ended.result["archives"]} == {sim.job(0).id, sim.job(2).id}


def test_a_selection_by_name_waits_for_the_name(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("ready-after=0.4", shards=1)
    ended = ended_with(restore(sim, "--select=config-*"), 0)
    assert ended.archive["job_id"] == sim.job(1).id


def test_a_second_run_for_other_jobs_of_the_batch_merges_into_the_receipt(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(shards=2)
    restore(sim, "--select=electron_0-*")
    first = receipt_in(dest)
    ended = ended_with(restore(sim, "--select=electron_1-*"), 0)
    merged = receipt_in(dest)
    assert [record["job_id"] for record in first["archives"]] == [sim.job(0).id]
    assert {record["job_id"] for record in merged["archives"]} == {sim.job(0).id, sim.job(1).id}
    assert first["archives"][0] in merged["archives"]
    assert ended.result["archives"] == merged["archives"]
    assert (dest / "SHA1SUMS").read_text().count("\n") == 2
    assert len(deliveries(sim)) == 2


def test_expect_jobs_waits_for_jobs_that_are_listed_late(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("appears-after=0.5@1", shards=1)
    ended = ended_with(restore(sim, "--expect-jobs=2"), 0)
    assert ended.verdicts == ["verified"] * 2


def test_two_jobs_can_be_named_by_their_ids(simulator: StartSimulator, restore: Restore, run_agent: RunAgent) -> None:
    sim = simulator(shards=2)
    args = connection_args(sim, jobs=False)
    ids = [sim.job(index).id for index in (0, 2)]
    options = [f"--job-id={job_id}" for job_id in (*ids, ids[0])]
    dest = sim.directory / "dest"
    ended = ended_with(run_agent(["run", *args, *options, *QUICK, f"--dest={dest}", "-o", "json"]), 0)
    assert {record["job_id"] for record in ended.result["archives"]} == set(ids)
    assert ended.result["batch_id"] == sim.hello["batch_id"]
    assert len(deliveries(sim)) == 2


def test_a_mirrored_config_server_is_restored_by_its_host_id(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator("sccc", shards=1)
    host = sim.job(1).member.host_id
    args = [arg for arg in connection_args(sim) if not arg.startswith("--cluster-id")]
    ended = ended_with(run_agent(["run", *args, f"--host-id={host}", *QUICK, f"--dest={dest}", "-o", "json"]), 0)
    assert ended.archive["host_id"] == host
    assert receipt_in(dest)["host_id"] == host
    assert receipt_in(dest)["cluster_id"] is None
    assert all(f"/hosts/{host}/restoreJobs" in request.path for request in sim.requests if request.kind == "api")


@pytest.mark.parametrize("fault", ["automated@0", "method=SCP@0", "method=QUERY@0", "method=SOMETHING_NEW@0"])
def test_jobs_that_are_not_delivered_over_http_are_skipped_untouched(
    fault: str, simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator(fault, shards=1)
    ended = ended_with(restore(sim), 0)
    assert {record["job_id"]: record["verdict"] for record in ended.result["archives"]} == {
        sim.job(0).id: "skipped",
        sim.job(1).id: "verified",
    }
    assert {request.job_id for request in deliveries(sim)} == {sim.job(1).id}


def test_a_batch_of_automated_restores_only_is_no_success(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("automated", shards=1)
    ended_with(restore(sim), 24, "no-http-delivery")
    assert deliveries(sim) == []


# ---------------------------------------------------------------- readiness


@pytest.mark.parametrize(
    "fault",
    [
        "missing-delivery",
        "unknown-status=0.4",
        "ready-without-url=0.4",
        "finished=ready",
        "ready-after=0.4",
        "header-noise",
        "numbers-as-strings",
        "plain-tar",
        "content-encoding-gzip",
        'job-field=somethingNew:{"a":[1]}',
        "job-field=timestamp:__missing__",
        "job-field=encryptionEnabled:__missing__",
        "job-field=delivery.maxDownloads:__missing__",
        "job-field=delivery.expires:__missing__",
        'job-field=delivery.expires:"next tuesday"',
        "job-field=delivery.maxDownloads:2147483647",
        "job-field=delivery.methodName:__missing__",
        'job-field=delivery.methodName:"CLIENT_PIT_HTTP"',
        'job-field=hashes:"none"',
    ],
)
def test_a_run_takes_what_servers_may_say(fault: str, simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(fault, "ready-after=0.2") if fault == "missing-delivery" else simulator(fault)
    if fault.startswith("job-field=hashes"):
        ended_with(restore(sim, "--hash-timeout=0.2s"), 10)
    else:
        ended_with(restore(sim), 0)
    assert len(deliveries(sim)) == 1


def test_a_download_starts_as_soon_as_its_own_job_is_ready(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("never-ready@1", shards=1)

    def release() -> None:
        wait_until(lambda: published(sim, dest, 0))
        sim.set_faults()

    with meanwhile(release):
        ended_with(restore(sim), 0)


def test_all_bytes_together_keep_to_the_rate_limit(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(shards=1, archive_size=SIZE)
    began = time.monotonic()
    ended_with(restore(sim, f"--limit-rate={SIZE * 4}"), 0)
    assert 0.4 <= time.monotonic() - began < PATIENCE


SIZE = 1 << 17


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("../../outside.tar.gz", "outside.tar.gz"),
        ("/etc/cron.d/evil.tar.gz", "evil.tar.gz"),
        ("..\\..\\windows.tar.gz", "windows.tar.gz"),
        (".hidden.tar.gz", "hidden.tar.gz"),
        ("...", None),
        ("new\nline\x1b[2J.tar.gz", "newline[2J.tar.gz"),
        ("dash-—-and ümlaut.tar.gz", "dash-—-and ümlaut.tar.gz"),
        ("-rf.tar.gz", "-rf.tar.gz"),
    ],
)
def test_an_archive_stays_inside_dest_whatever_its_name(
    name: str, stored: str | None, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(f"name={name}")
    ended = ended_with(restore(sim), 0)
    kept = ended.archive["file_name"]
    assert kept == (stored or f"{sim.job(0).id}.tar.gz")
    assert names_in(dest) == {kept, "SHA1SUMS", "receipt.json", ".restore-agent"}
    assert names_in(dest.parent) == {dest.name}


@pytest.mark.parametrize("length", [246, 255, 300, 2000])
def test_a_name_that_is_too_long_is_cut_to_fit(
    length: int, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(f"name={'ä' * ((length - 7) // 2)}.tar.gz", "hash=never")
    ended = ended_with(restore(sim, "--hash-timeout=0.2s"), 10)
    kept = ended.archive["file_name"]
    assert kept.endswith(".tar.gz")
    assert len(f"{kept}.unproven".encode()) <= 255
    assert (dest / f"{kept}.unproven").exists()


def test_jobs_that_share_a_name_get_their_ids_in_front(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("same-name", shards=2)
    ended_with(restore(sim), 0)
    shared = sim.job(0).file_name
    wanted = {f"{sim.job(index).id}-{shared}" for index in range(3)}
    assert {path.name for path in dest.glob("*.tar.gz")} == wanted
    for index in range(3):
        assert sha1_of(dest / f"{sim.job(index).id}-{shared}") == sim.job(index).archive().sha1


@pytest.mark.parametrize("name", ["receipt.json", "SHA1SUMS"])
def test_a_name_of_the_agents_own_gets_the_job_id_in_front(
    name: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(f"name={name}")
    ended = ended_with(restore(sim), 0)
    assert ended.archive["file_name"] == f"{sim.job(0).id}-{name}"
    assert receipt_in(dest)["exit_code"] == 0


def test_a_name_that_is_anothers_companion_does_not_collide(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("name=a.tar.gz@0", "name=a.tar.gz.part@1", shards=1)
    ended = ended_with(restore(sim), 0)
    assert ended.verdicts == ["verified"] * 2
    assert len({record["file_name"] for record in ended.result["archives"]}) == 2


# ---------------------------------------------------------------- links and other things in the way


@pytest.mark.parametrize("target", ["file", "nothing"])
@pytest.mark.parametrize(
    "name",
    [
        "{archive}",
        "{archive}.part",
        "{archive}.unproven",
        "{archive}.mismatch",
        "receipt.json",
        "SHA1SUMS",
        ".receipt.json.tmp",
        ".SHA1SUMS.tmp",
        ".restore-agent",
        ".restore-agent/lock",
        ".restore-agent/journal.jsonl",
        ".restore-agent/status.json",
    ],
)
def test_a_symbolic_link_in_dest_is_never_followed(
    name: str, target: str, simulator: StartSimulator, restore: Restore, dest: Path, tmp_path: Path
) -> None:
    sim = simulator()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("not the agent's")
    (outside / "directory").mkdir()
    before = snapshot_of(outside)
    link = dest / name.format(archive=name_of(sim))
    link.parent.mkdir(parents=True, mode=0o700)
    link.symlink_to(outside / target)
    ended = restore(sim)
    assert snapshot_of(outside) == before
    if ended.code == 0:  # the link itself was replaced
        assert name in (".receipt.json.tmp", ".SHA1SUMS.tmp", ".restore-agent/status.json")
        assert not link.is_symlink()
        assert published(sim, dest)
    else:
        ended_with(ended, 42)
        assert link.is_symlink()
        assert deliveries(sim) == [], "what stands in the way is found before a download is spent"
        link.unlink()
        ended_with(restore(sim), 0)


@pytest.mark.parametrize("name", ["{archive}", "{archive}.part", "{archive}.unproven", "{archive}.mismatch"])
@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_42_when_something_that_is_no_file_stands_at_a_name_of_the_archive(
    name: str, kind: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    dest.mkdir()
    path = dest / name.format(archive=name_of(sim))
    if kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    ended_with(restore(sim), 42, "in-the-way")
    assert deliveries(sim) == []


def test_leftovers_of_nobody_knows_whom_do_not_stop_a_run(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("range=honour")
    dest.mkdir()
    for suffix in (".part", ".mismatch"):
        (dest / f"{name_of(sim)}{suffix}").write_text("left by something")
    ended = ended_with(restore(sim), 0)
    assert ended.archive["resumed"] is False
    assert published(sim, dest)
    assert (dest / f"{name_of(sim)}.mismatch").read_text() == "left by something"


@pytest.mark.parametrize(
    "record",
    [
        'not json\n{"schema":"restore-agent/journal/1"}\n',
        '[1]\n{"schema":"restore-agent/journal/1"}\n',
        '{"fact":"attempt","job_id":"x"}\n',
        '{"schema":"future"}\n',
        '{"schema":"restore-agent/journal/1"}\n\0\0\0\n{"schema":"restore-agent/journal/1"}\n',
    ],
)
def test_42_when_the_journal_is_damaged_because_a_forgotten_download_is_worse(
    record: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    (dest / ".restore-agent").mkdir(parents=True, mode=0o700)
    (dest / ".restore-agent" / "journal.jsonl").write_text(record)
    ended_with(restore(sim), 42, "record-unreadable")
    assert sim.requests == []


def test_a_journal_cut_by_a_crash_is_taken_up_with_a_warning(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(shards=1)
    restore(sim)
    journal = dest / ".restore-agent" / "journal.jsonl"
    with journal.open("a") as file:
        file.write('{"fact": "att')
    ended = ended_with(restore(sim), 0)
    assert any("crash" in line["message"] for line in ended.events("notice"))
    assert ended.result["changed"] is False
    assert len(deliveries(sim)) == 2


# ---------------------------------------------------------------- what others put into DEST


def test_42_when_the_agents_records_belong_to_another_user(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    sim = simulator()
    ended_with(restore(sim), 0)
    for forged in (dest / "receipt.json", dest / ".restore-agent"):
        os.chown(forged, 65534, 65534)
        ended_with(restore(sim), 42, "in-the-way")
        os.chown(forged, 0, 0)
    os.chown(dest, 65534, 65534)  # DEST's own owner is trusted
    os.chown(dest / "receipt.json", 65534, 65534)
    ended_with(restore(sim), 0)


def test_an_equal_file_that_somebody_else_put_there_becomes_private(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=early")
    dest.mkdir(mode=0o700)
    shutil.copyfile(sim.job(0).archive().path, dest / name_of(sim))
    (dest / name_of(sim)).chmod(0o644)
    ended_with(restore(sim), 0)
    assert deliveries(sim) == []
    assert stat.S_IMODE((dest / name_of(sim)).stat().st_mode) == 0o600


def test_the_result_shows_no_archive_of_another_restore(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    ended_with(restore(simulator(shards=1)), 0)
    for other in (simulator(shards=1, seed="other"), simulator(seed="single")):
        assert ended_with(restore(other), 42, "other-batch").result["archives"] == []


def test_42_when_dest_is_a_link_to_nowhere(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    dest.symlink_to(dest.with_name("nowhere"))
    ended_with(restore(simulator()), 42, "in-the-way")
    assert not dest.with_name("nowhere").exists()


def test_sha1sums_lists_only_what_is_there_when_an_earlier_archive_was_moved_on(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(shards=1)
    ended_with(restore(sim, f"--select={name_of(sim, 0)}"), 0)
    (dest / name_of(sim, 0)).unlink()
    ended_with(restore(sim, f"--select={name_of(sim, 1)}"), 0)
    subprocess.run(["sha1sum", "--strict", "--quiet", "-c", "SHA1SUMS"], cwd=dest, check=True)
    assert name_of(sim, 1) in (dest / "SHA1SUMS").read_text()


def test_a_selection_by_name_leaves_out_a_job_whose_name_never_came(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("never-ready@0", "ready-without-url=3600@0", shards=2)
    ended = ended_with(restore(sim, f"--select={name_of(sim, 1)[:10]}*", "--wait-timeout=0.5s"), 0)
    assert [record["job_id"] for record in ended.result["archives"]] == [sim.job(1).id]
    assert [line["job_id"] for line in ended.events("notice")] == [sim.job(0).id]


def test_41_for_a_dest_whose_name_is_too_long_in_plan_and_run(
    simulator: StartSimulator, run_agent: RunAgent, tmp_path: Path
) -> None:
    options = [*connection_args(simulator()), *QUICK, f"--dest={tmp_path}/{'n' * 300}", "--output=json"]
    assert [run_agent([command, *options]).code for command in ("plan", "run")] == [41, 41]


def test_a_job_that_is_left_out_is_told_of_once_although_other_archives_still_come(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("never-ready@0", "ready-without-url=3600@0", "drip=40K", shards=2)
    ended = ended_with(restore(sim, f"--select={name_of(sim, 1)[:10]}*", "--wait-timeout=0.2s"), 0)
    assert [line["job_id"] for line in ended.events("notice")] == [sim.job(0).id]
