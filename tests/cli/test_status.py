"""`status`: what a run in DEST is doing or did, read from another shell without disturbing it."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from support.agents import (
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
    snapshot_of,
    status_in,
    wait_until,
)

from restore_agent.dest.directory import Directory
from restore_agent.dest.lock import Lock
from restore_agent.simulator import Simulator

FIELDS = ["schema", "state", "pid", "started_at", "updated_at", "batch_id", "exit_code", "trouble", "archives"]
ARCHIVE_FIELDS = [
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
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")

Status = Callable[..., Result]


@pytest.fixture
def status(run_agent: RunAgent, dest: Path) -> Status:
    """`status(*options)`: of `dest`, JSON output unless an option says otherwise."""
    return lambda *options: run_agent(["status", f"--dest={dest}", "--output=json", *options])


def document(ended: Result) -> Json:
    """The only line of a status in JSON."""
    (line,) = ended.lines
    return line


def run_in_background(start_agent: StartAgent, sim: Simulator, dest: Path, *options: str) -> int:
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", *options])
    return process.pid


def state_is(dest: Path, wanted: str) -> Callable[[], bool]:
    def look() -> bool:
        return (dest / ".restore-agent" / "status.json").exists() and status_in(dest)["state"] == wanted

    return look


def test_during_a_download_it_shows_the_progress_of_each_archive(
    simulator: StartSimulator, start_agent: StartAgent, status: Status, dest: Path
) -> None:
    sim = simulator("drip=128K", "never-ready@1", shards=1, archive_size=1 << 20)
    pid = run_in_background(start_agent, sim, dest)

    def moving() -> bool:
        return state_is(dest, "downloading")() and any(row["bytes"] for row in status_in(dest)["archives"])

    wait_until(moving, "a status with bytes")
    ended = status()
    assert ended.code == 0
    seen = document(ended)
    assert list(seen) == FIELDS
    assert (seen["schema"], seen["state"], seen["exit_code"]) == ("restore-agent/status/1", "downloading", None)
    assert (seen["pid"], seen["batch_id"]) == (pid, sim.hello["batch_id"])
    assert MOMENT.fullmatch(seen["started_at"])
    assert MOMENT.fullmatch(seen["updated_at"])
    rows = {row["job_id"]: row for row in seen["archives"]}
    assert [list(row) for row in seen["archives"]] == [ARCHIVE_FIELDS] * 2
    first, second = rows[sim.job(0).id], rows[sim.job(1).id]
    assert (first["state"], first["file_name"], first["downloads_spent"]) == ("downloading", sim.job(0).file_name, 1)
    assert 0 < first["bytes"] < first["total_bytes"] == sim.job(0).archive().size
    assert first["bytes_per_second"] >= 0
    assert MOMENT.fullmatch(first["expires_at"])
    assert (second["state"], second["bytes"], second["total_bytes"]) == ("waiting", 0, None)


def test_while_nothing_is_ready_the_run_waits(
    simulator: StartSimulator, start_agent: StartAgent, status: Status, dest: Path
) -> None:
    run_in_background(start_agent, simulator("never-ready"), dest)
    wait_until(state_is(dest, "waiting"), "the state `waiting`")
    assert document(status())["state"] == "waiting"


def test_while_a_hash_is_awaited_the_run_verifies(
    simulator: StartSimulator, start_agent: StartAgent, status: Status, dest: Path
) -> None:
    run_in_background(start_agent, simulator("hash=never"), dest, "--hash-timeout=1h")
    wait_until(state_is(dest, "verifying"), "the state `verifying`")
    (row,) = document(status())["archives"]
    assert row["state"] == "hashing"
    assert row["bytes"] == row["total_bytes"]


def test_the_status_file_is_fresh_during_a_run(simulator: StartSimulator, start_agent: StartAgent, dest: Path) -> None:
    run_in_background(start_agent, simulator("never-ready"), dest)
    wait_until(state_is(dest, "waiting"), "the first status")
    first = status_in(dest)["updated_at"]
    second = wait_until(lambda: (now := status_in(dest)["updated_at"]) != first and now, "a newer status")
    apart = datetime.fromisoformat(second) - datetime.fromisoformat(first)
    assert apart.total_seconds() <= 5


def test_status_changes_nothing(simulator: StartSimulator, start_agent: StartAgent, status: Status, dest: Path) -> None:
    sim = simulator("drip=512K", archive_size=256 << 10)
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}"])
    wait_until(lambda: deliveries(sim) and (dest / ".restore-agent" / "status.json").exists(), "the download")
    for _ in range(5):
        assert status().code == 0
    assert finished(process).code == 0
    assert len(deliveries(sim)) == 1


def test_after_a_success_it_has_the_verdicts_and_the_exit_code(
    simulator: StartSimulator, restore: Restore, status: Status, dest: Path
) -> None:
    sim = simulator(shards=1)
    assert restore(sim).code == 0
    before = snapshot_of(dest)
    seen = document(status())
    assert (seen["state"], seen["exit_code"]) == ("finished", 0)
    assert [row["state"] for row in seen["archives"]] == ["verified"] * 2
    assert seen == status_in(dest)
    assert snapshot_of(dest) == before


def test_after_a_failure_it_shows_the_exit_code_and_itself_ends_with_0(
    simulator: StartSimulator, restore: Restore, status: Status
) -> None:
    assert restore(simulator("expired")).code == 22
    ended = status()
    assert (ended.code, document(ended)["exit_code"]) == (0, 22)
    assert [row["state"] for row in document(ended)["archives"]] == ["failed"]


def test_after_an_error_of_the_api_it_shows_the_exit_code(
    simulator: StartSimulator, restore: Restore, status: Status
) -> None:
    assert restore(simulator("forbidden")).code == 30
    seen = document(status())
    assert (seen["state"], seen["exit_code"], seen["archives"]) == ("finished", 30, [])


def test_a_killed_run_is_shown_as_interrupted(
    simulator: StartSimulator, start_agent: StartAgent, status: Status, dest: Path
) -> None:
    process = start_agent(["run", *connection_args(simulator("never-ready")), *QUICK, f"--dest={dest}"])
    wait_until(state_is(dest, "waiting"), "the first status")
    process.kill()
    process.communicate()
    assert status_in(dest)["state"] == "waiting", "the file itself could not be corrected any more"
    seen = document(status())
    assert (seen["state"], seen["exit_code"]) == ("interrupted", None)
    assert list(seen) == FIELDS


def test_a_pid_that_another_process_has_now_does_not_make_a_dead_run_active(
    simulator: StartSimulator, start_agent: StartAgent, status: Status, dest: Path
) -> None:
    process = start_agent(["run", *connection_args(simulator("never-ready")), *QUICK, f"--dest={dest}"])
    wait_until(state_is(dest, "waiting"), "the first status")
    process.kill()
    process.communicate()
    path = dest / ".restore-agent" / "status.json"
    path.write_text(json.dumps({**status_in(dest), "pid": os.getpid()}))
    assert document(status())["state"] == "interrupted"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_is_shown_as_stopped(
    simulator: StartSimulator, start_agent: StartAgent, status: Status, dest: Path, number: signal.Signals, code: int
) -> None:
    process = start_agent(["run", *connection_args(simulator("never-ready")), *QUICK, f"--dest={dest}"])
    wait_until(state_is(dest, "waiting"), "the first status")
    process.send_signal(number)
    assert finished(process).code == code
    seen = document(status())
    assert (seen["state"], seen["exit_code"]) == ("interrupted", code)


# What is not there or not whole


def test_a_dest_without_a_run_is_42(status: Status, dest: Path) -> None:
    dest.mkdir()
    ended = status()
    assert ended.code == 42
    assert ended.result["exit_code"] == 42
    assert str(dest) in ended.events("error")[0]["message"]
    assert not list(dest.iterdir())


def test_a_missing_dest_is_named_and_not_created(status: Status, dest: Path) -> None:
    ended = status()
    assert ended.code == 42
    assert "no run was ever there" in ended.events("error")[0]["message"]
    assert str(dest) in ended.events("error")[0]["message"]
    assert not dest.exists()


def test_a_run_without_a_status_yet_is_distinguished_from_no_run(status: Status, dest: Path) -> None:
    (dest / ".restore-agent").mkdir(parents=True)
    ended = status()
    assert (ended.code, ended.events("error")[0]["hint"]) == (42, "Try again in a few seconds.")


def test_dest_must_be_given(run_agent: RunAgent) -> None:
    assert run_agent(["status"]).code == 2


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": "restore-agent/status/1"}',
        '{"schema": "restore-agent/status/1", "state": "finished"}',
        '{"schema": "restore-agent/status/1", "state": "finished", "pid": 1, "updated_at": "", "archives": 7}',
        '{"schema": "restore-agent/status/1", "state": "finished", "pid": 1, "updated_at": "", "archives": [{}]}',
        '{"schema": "restore-agent/status/2", "state": "finished"}',
        '{"schema": 1, "state": "finished"}',
        "[" * 100_000,
    ],
)
def test_a_status_file_that_is_damaged_or_of_a_future_version_is_42(
    status: Status, dest: Path, text: str, output: str
) -> None:
    (dest / ".restore-agent").mkdir(parents=True)
    (dest / ".restore-agent" / "status.json").write_text(text)
    ended = status(f"--output={output}")
    assert ended.code == 42, ended.out + ended.err
    if output == "json":
        assert ended.events("error")[0]["id"] == "record-unreadable"


def test_a_truncated_status_is_42(simulator: StartSimulator, restore: Restore, status: Status, dest: Path) -> None:
    assert restore(simulator()).code == 0
    path = dest / ".restore-agent" / "status.json"
    path.write_bytes(path.read_bytes()[:150])
    assert status().code == 42


def test_a_link_for_the_status_file_is_not_followed(status: Status, dest: Path) -> None:
    (dest / ".restore-agent").mkdir(parents=True)
    (dest / ".restore-agent" / "status.json").symlink_to("/etc/hostname")
    assert status().code == 42


# For people


def test_the_text_has_state_archives_and_sizes(simulator: StartSimulator, restore: Restore, status: Status) -> None:
    sim = simulator()
    assert restore(sim).code == 0
    head, *rows = status("--output=text").out.splitlines()
    assert head.startswith("finished, exit code 0, pid ")
    assert rows[0].startswith("verified")
    assert "KiB" in rows[1]


def test_the_text_fits_80_columns_with_large_archives_in_progress(status: Status, dest: Path) -> None:
    row = {
        "job_id": "j" * 24,
        "file_name": "electron_configRS-1492528465-" + "5" * 24 + ".tar.gz",
        "state": "downloading",
        "bytes": 1023 << 30,
        "total_bytes": 1023 << 31,
        "bytes_per_second": 1023 << 20,
        "expires_at": None,
        "downloads_spent": 1,
    }
    told = {
        "schema": "restore-agent/status/1",
        "state": "finished",
        "pid": 4194304,
        "started_at": "2026-01-01T00:00:00.000Z",
        "updated_at": "2026-01-01T00:00:00.000Z",
        "batch_id": None,
        "exit_code": 143,
        "archives": [row],
    }
    (dest / ".restore-agent").mkdir(parents=True)
    (dest / ".restore-agent" / "status.json").write_text(json.dumps(told))
    ended = status("--output=text")
    assert ended.code == 0
    assert max(map(len, ended.out.splitlines())) <= 80


def write_status(dest: Path, state: str, *archives: Json, **more: object) -> None:
    """Write a status file as a run writes it."""
    row = {
        "job_id": "j" * 24,
        "file_name": "a.tar.gz",
        "state": "downloading",
        "bytes": 300 << 20,
        "downloads_spent": 1,
    }
    row |= {"total_bytes": 1200 << 20, "bytes_per_second": 100 << 20, "expires_at": "2999-01-01T00:00:00.000Z"}
    moments = {"started_at": "2026-01-01T00:00:00.000Z", "updated_at": "2026-01-01T00:00:00.000Z"}
    told = {"schema": "restore-agent/status/1", "state": state, "pid": 4711, **moments, "batch_id": None}
    told |= {"exit_code": None, "trouble": None, "archives": [row | archive for archive in archives], **more}
    (dest / ".restore-agent").mkdir(parents=True)
    (dest / ".restore-agent" / "status.json").write_text(json.dumps(told))


def held(dest: Path) -> Lock:
    directory = Directory.open(dest, create=False)
    state = directory.subdirectory(".restore-agent", create=False)
    assert state
    return Lock.take(state)


def test_the_text_of_a_running_run_has_share_time_left_expiry_trouble_and_total(status: Status, dest: Path) -> None:
    trouble = {"reason": "x", "message": "Ops Manager cannot be reached", "since": "", "until": "2026-01-01T06:30:00Z"}
    archive = {"unpacked_bytes": 240 << 20}
    write_status(dest, "downloading", archive, {"state": "verified", "job_id": "k"}, trouble=trouble)
    lock = held(dest)
    lines = status("--output=text").out.splitlines()
    lock.release()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("downloading, pid 4711, updated ")
    assert lines[1] == "trouble: Ops Manager cannot be reached; retrying until 06:30:00 UTC"
    assert lines[2] == "total: 1 of 2 finished, 40% (600.0 MiB of 1.5 GiB), 100.0 MiB/s, 9s left"
    assert lines[3] == "downloading a.tar.gz"
    assert lines[4] == "            25% (300.0 MiB of 1.2 GiB), 100.0 MiB/s, 9s left, unpacked 20%,"
    assert lines[5].startswith("            expires in ")


def test_the_text_of_an_interrupted_run_shows_no_rate(status: Status, dest: Path) -> None:
    write_status(dest, "downloading", {})
    lines = status("--output=text").out.splitlines()
    assert lines[0].startswith("interrupted, pid 4711")
    assert lines[1:] == [
        "stopped     a.tar.gz",
        "            25% (300.0 MiB of 1.2 GiB)",
        "Next: run again; it resumes.",
    ]


def test_the_text_of_a_failed_run_has_reason_and_next_step(
    simulator: StartSimulator, restore: Restore, status: Status
) -> None:
    assert restore(simulator("broken@0", shards=1)).code == 21
    text = status("--output=text").out
    assert "job-broken (exit code 21)" in text
    assert "total: 2 archives, 1 failed, 1 verified" in text or "1 verified, 1 failed" in text
    assert "Next: new restore job; see restore-agent explain 21." in text


def test_the_directory_can_be_an_argument(run_agent: RunAgent, dest: Path) -> None:
    write_status(dest, "finished", {"state": "verified"}, exit_code=0)
    assert run_agent(["status", dest]).out == run_agent(["status", f"--dest={dest}"]).out


def test_watch_ends_with_the_run(run_agent: RunAgent, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_status(dest, "downloading", {})
    lock = held(dest)
    monkeypatch.setattr("time.sleep", lambda _: lock.release())
    ended = run_agent(["status", dest, "--watch", "-o", "json"])
    assert [line["state"] for line in ended.lines] == ["downloading", "interrupted"]


def test_a_second_run_names_the_process_of_the_first(
    simulator: StartSimulator, start_agent: StartAgent, restore: Restore, dest: Path
) -> None:
    sim = simulator("never-ready")
    pid = run_in_background(start_agent, sim, dest)
    wait_until(state_is(dest, "waiting"), "the first status")
    ended = restore(sim)
    assert ended.code == 50
    assert ended.events("error")[0]["message"].endswith(f"(pid {pid})")
