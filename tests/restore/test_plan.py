"""`plan`: it says what `run` would do and ends with the code that `run` would meet, having touched nothing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    snapshot_of,
    wait_until,
)

import restore_agent.restore.poller
from restore_agent.simulator import Simulator

Plan = Callable[..., Result]


@pytest.fixture
def plan(run_agent: RunAgent, dest: Path) -> Plan:
    """`plan(sim, *options)`: plan into `dest`, JSON output unless an option says otherwise."""

    def call(sim: Simulator, *options: object) -> Result:
        return run_agent(["plan", *connection_args(sim), *QUICK, f"--dest={dest}", "--output=json", *options])

    return call


def rows(ended: Result) -> list[Json]:
    """The verdict per job."""
    return list(ended.result["plan"])


def row(ended: Result) -> Json:
    """The verdict on the only job."""
    (only,) = rows(ended)
    return only


@contextmanager
def held(dest: Path) -> Iterator[None]:
    """The lock of DEST, as another run holds it."""
    state = dest / ".restore-agent"
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def final_name(sim: Simulator, index: int = 0) -> str:
    return sim.job(index).file_name


# Without an obstacle


def test_a_ready_batch_is_planned_as_downloads_without_an_obstacle(simulator: StartSimulator, plan: Plan) -> None:
    sim = simulator(shards=2)
    ended = plan(sim)
    assert ended.code == 0
    assert [row["step"] for row in rows(ended)] == ["download"] * 3
    assert {row["file_name"] for row in rows(ended)} == {job.file_name for job in sim.jobs}
    assert all(3500 < row["expires_in"] <= 3600 for row in rows(ended))
    assert all(row["largest_bytes"] > 0 for row in rows(ended)), "the snapshot bounds each archive's size"


def test_a_plan_creates_no_dest_and_requests_no_archive(simulator: StartSimulator, plan: Plan, tmp_path: Path) -> None:
    sim = simulator(shards=2)
    before = snapshot_of(tmp_path)
    assert plan(sim).code == 0
    assert snapshot_of(tmp_path) == before
    assert not deliveries(sim)
    assert {request.method for request in sim.requests} == {"GET"}


def test_jobs_that_are_not_ready_yet_are_not_an_obstacle(simulator: StartSimulator, plan: Plan) -> None:
    ended = plan(simulator("never-ready"))
    assert ended.code == 0
    assert (row(ended)["step"], row(ended)["exit_code"]) == ("wait", 0)


@pytest.mark.parametrize("fault", ["unknown-status", "ready-without-url", "missing-delivery"])
def test_what_only_needs_time_is_a_wait(simulator: StartSimulator, plan: Plan, fault: str) -> None:
    ended = plan(simulator(fault, "ready-after=60") if fault == "missing-delivery" else simulator(fault))
    assert ended.code == 0
    assert row(ended)["step"] == "wait"


def test_a_job_of_many_that_is_an_automated_restore_is_shown_as_skipped(simulator: StartSimulator, plan: Plan) -> None:
    ended = plan(simulator("automated@1", shards=2))
    assert ended.code == 0
    assert sorted(row["step"] for row in rows(ended)) == ["download", "download", "skip"]


def test_only_selected_jobs_are_planned(simulator: StartSimulator, plan: Plan) -> None:
    sim = simulator(shards=2)
    ended = plan(sim, "--select=config*")
    assert row(ended)["file_name"] == final_name(sim, 2)


def test_fewer_jobs_than_expected_are_reported_but_may_still_change(simulator: StartSimulator, plan: Plan) -> None:
    ended = plan(simulator(shards=2), "--expect-jobs=5")
    assert ended.code == 0
    assert any("--expect-jobs asks for 5" in notice["message"] for notice in ended.events("notice"))


# Obstacles that Ops Manager puts up: the code is the one that `run` meets


def use_up(sim: Simulator) -> None:
    sim.job(0).downloads = 1


OBSTACLES = [
    (["broken"], [], 21),
    (["killed"], [], 21),
    (["delivery-failed"], [], 21),
    (["interrupted"], [], 21),
    (["expired"], [], 22),
    (["automated"], [], 24),
    (["method=SCP"], [], 24),
    ([], ["--select=nothing*"], 24),
    ([], ["--group-id=000000000000000000000000"], 24),
    ([], ["--cluster-id=000000000000000000000000"], 24),
    ([], ["--job-id=ffffffffffffffffffffffff"], 24),
    (['job-field=delivery.url:"ftp://elsewhere/archive.tar.gz"'], [], 25),
    (["forbidden"], [], 30),
    (["unauthorized"], [], 30),
    (["unauthorized=empty"], [], 30),
    (["not-in-group"], [], 30),
    (["api-redirect"], [], 32),
    (["not-json"], [], 32),
    (["null-results"], [], 32),
]


@pytest.mark.parametrize(("faults", "options", "code"), OBSTACLES)
def test_plan_ends_with_the_code_of_run(
    simulator: StartSimulator, plan: Plan, restore: Restore, faults: list[str], options: list[str], code: int
) -> None:
    sim = simulator(*faults, shards=2 if "null-results" in faults else 0)
    planned = plan(sim, *options)
    assert planned.code == code, planned.out
    assert planned.result["exit_code"] == code
    assert not deliveries(sim)
    assert restore(sim, *options).code == code


def test_used_up_downloads_are_reported_before_they_are_needed(
    simulator: StartSimulator, plan: Plan, restore: Restore
) -> None:
    sim = simulator()
    use_up(sim)
    ended = plan(sim)
    assert (ended.code, row(ended)["exit_code"], row(ended)["reason"]) == (23, 23, "downloads-used-up")
    assert restore(sim).code == 23


def test_a_batch_that_lists_nothing_is_an_obstacle(simulator: StartSimulator, plan: Plan, restore: Restore) -> None:
    sim = simulator("no-batch", shards=2)
    assert plan(sim).code == 24
    assert restore(sim).code == 24


def test_jobs_that_fail_for_different_reasons_are_12(simulator: StartSimulator, plan: Plan, restore: Restore) -> None:
    sim = simulator("broken@0", "expired@1", shards=2)
    ended = plan(sim)
    assert ended.code == 12
    assert sorted(row["exit_code"] for row in rows(ended)) == [0, 21, 22]
    assert restore(sim).code == 12


@pytest.mark.parametrize("fault", ["wrong-host", "expired-cert", "client-cert"])
def test_a_tls_error_is_31(simulator: StartSimulator, plan: Plan, restore: Restore, fault: str) -> None:
    sim = simulator(fault, tls=True)
    assert plan(sim).code == 31
    assert restore(sim).code == 31


def test_an_untrusted_certificate_is_31(simulator: StartSimulator, run_agent: RunAgent, dest: Path) -> None:
    args = [arg for arg in connection_args(simulator(tls=True)) if not arg.startswith("--ca-file")]
    ended = run_agent(["plan", *args, f"--dest={dest}", "-ojson"])
    assert ended.code == 31
    assert "--ca-file" in ended.events("error")[0]["hint"]


@pytest.mark.parametrize("fault", ["api-500=always", "api-429=always", "api-503=always", "api-reset=always"])
def test_an_api_that_is_unreachable_for_a_minute_is_32(
    simulator: StartSimulator, plan: Plan, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(restore_agent.restore.poller, "PATIENCE", 0.3)
    assert plan(simulator(fault)).code == 32


def test_a_transient_error_of_the_api_is_waited_out(simulator: StartSimulator, plan: Plan) -> None:
    sim = simulator("api-503=2", "api-reset=1")
    assert plan(sim).code == 0


def test_an_address_without_a_server_is_32(
    run_agent: RunAgent, simulator: StartSimulator, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_agent.restore.poller, "PATIENCE", 0.3)
    sim = simulator()
    args = connection_args(sim)
    key = dest.parent / "key"
    shutil.copy(sim.directory / "private-key", key)
    sim.stop()
    ended = run_agent(["plan", *args, f"--private-key-file={key}", *QUICK, f"--dest={dest}", "-ojson"])
    assert ended.code == 32
    assert "run the command again" in ended.events("error")[0]["hint"].lower()


# Obstacles in DEST


def a_foreign_file(dest: Path, name: str) -> None:
    dest.mkdir()
    (dest / name).write_bytes(b"somebody's only copy of something")


def a_link_at_the_final_name(dest: Path, name: str) -> None:
    dest.mkdir()
    (dest / name).symlink_to("/etc/hostname")


def a_directory_at_the_part(dest: Path, name: str) -> None:
    (dest / f"{name}.part").mkdir(parents=True)


def a_file_for_dest(dest: Path, name: str) -> None:
    dest.write_text("not a directory")


def a_receipt_cut_in_half(dest: Path, name: str) -> None:
    dest.mkdir()
    (dest / "receipt.json").write_text('{"schema": "restore-agent/receipt/1", "agent_ver')


def a_receipt_of_the_future(dest: Path, name: str) -> None:
    dest.mkdir()
    (dest / "receipt.json").write_text('{"schema": "restore-agent/receipt/2", "archives": []}')


def a_link_for_the_receipt(dest: Path, name: str) -> None:
    dest.mkdir()
    (dest / "receipt.json").symlink_to("/etc/hostname")


def a_journal_of_the_future(dest: Path, name: str) -> None:
    (dest / ".restore-agent").mkdir(parents=True)
    (dest / ".restore-agent" / "journal.jsonl").write_text('{"schema": "restore-agent/journal/2"}\n')


def a_damaged_journal(dest: Path, name: str) -> None:
    (dest / ".restore-agent").mkdir(parents=True)
    (dest / ".restore-agent" / "journal.jsonl").write_text('{"schema": "restore-agent/journal/1"}\n\x00\x00\n{}\n')


def a_file_for_the_state(dest: Path, name: str) -> None:
    dest.mkdir()
    (dest / ".restore-agent").write_text("")


def sums_of_another_program(dest: Path, _: str) -> None:
    dest.mkdir()
    (dest / "SHA1SUMS").write_text("somebody's own list\n")


IN_DEST = [
    sums_of_another_program,
    a_foreign_file,
    a_link_at_the_final_name,
    a_directory_at_the_part,
    a_file_for_dest,
    a_receipt_cut_in_half,
    a_receipt_of_the_future,
    a_link_for_the_receipt,
    a_journal_of_the_future,
    a_damaged_journal,
    a_file_for_the_state,
]


@pytest.mark.parametrize("obstacle", IN_DEST)
def test_a_foreign_object_in_dest_is_42_and_left_unchanged(
    simulator: StartSimulator,
    plan: Plan,
    restore: Restore,
    dest: Path,
    tmp_path: Path,
    obstacle: Callable[[Path, str], None],
) -> None:
    sim = simulator()
    obstacle(dest, final_name(sim))
    before = snapshot_of(tmp_path)
    ended = plan(sim)
    assert ended.code == 42, ended.out
    assert snapshot_of(tmp_path) == before
    assert restore(sim).code == 42
    assert not deliveries(sim)


def test_a_dest_below_a_file_is_an_obstacle(
    simulator: StartSimulator, plan: Plan, restore: Restore, tmp_path: Path
) -> None:
    sim = simulator()
    (tmp_path / "file").write_text("")
    below = f"--dest={tmp_path / 'file' / 'dest'}"
    planned = plan(sim, below)
    assert planned.code == 42
    assert restore(sim, below).code == planned.code


def test_the_receipt_of_another_batch_is_42(
    simulator: StartSimulator, plan: Plan, restore: Restore, tmp_path: Path
) -> None:
    assert restore(simulator(shards=1)).code == 0
    before = snapshot_of(tmp_path)
    ended = plan(simulator(shards=1, seed="another"))
    assert (ended.code, ended.events("error")[0]["id"]) == (42, "other-batch")
    assert snapshot_of(tmp_path) == before


def test_single_jobs_of_another_restore_are_42(simulator: StartSimulator, plan: Plan, restore: Restore) -> None:
    assert restore(simulator()).code == 0
    other = simulator(seed="another")
    ended = plan(other)
    assert (ended.code, ended.events("error")[0]["id"]) == (42, "other-batch")
    assert restore(other).code == 42


def test_a_dest_that_another_run_holds_is_50(simulator: StartSimulator, plan: Plan, dest: Path, tmp_path: Path) -> None:
    with held(dest):
        before = snapshot_of(tmp_path)
        ended = plan(simulator())
        assert snapshot_of(tmp_path) == before
    assert ended.code == 50
    assert "status" in ended.events("error")[0]["hint"]


def test_a_dest_in_which_a_run_for_another_batch_waits_is_50_too(
    simulator: StartSimulator, plan: Plan, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator(shards=1)
    args = ["run", *connection_args(sim, jobs=False), f"--dest={dest}", "--batch-id=000000000000000000000001"]
    assert run_agent([*args, *QUICK, "--wait-timeout=0.2s", "--output=json"]).code in (24, 32)
    with held(dest):
        assert plan(sim).code == 50


def test_planning_during_a_real_run_is_50_and_does_not_affect_the_run(
    simulator: StartSimulator, plan: Plan, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("stall=50%")
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}"])
    wait_until(lambda: deliveries(sim), "the download")
    assert plan(sim).code == 50
    assert process.poll() is None


def test_a_full_disk_is_40(
    simulator: StartSimulator, plan: Plan, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    sim = simulator()
    disk = small_disk(256)
    ended = plan(sim, f"--dest={disk / 'restore'}")
    assert ended.code == 40
    assert restore(sim, f"--dest={disk / 'restore'}").code == 40
    assert not deliveries(sim)


def test_a_disk_that_may_be_too_small_is_a_warning_only(
    simulator: StartSimulator, plan: Plan, small_disk: Callable[..., Path]
) -> None:
    ended = plan(simulator(archive_size=4 << 20), f"--dest={small_disk(2048)}")
    assert ended.code == 0
    assert any("may not fit" in notice["message"] for notice in ended.events("notice"))


def test_a_read_only_disk_is_41(
    simulator: StartSimulator, plan: Plan, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    disk = small_disk(4096, "ro")
    sim = simulator()
    assert plan(sim, f"--dest={disk}").code == 41
    assert restore(sim, f"--dest={disk}").code == 41


def test_a_dest_that_cannot_be_made_on_a_read_only_disk_is_41(
    simulator: StartSimulator, plan: Plan, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    disk = small_disk(4096, "ro")
    sim = simulator()
    assert plan(sim, f"--dest={disk / 'restore'}").code == 41
    assert restore(sim, f"--dest={disk / 'restore'}").code == 41


_WITHOUT_OVERRIDE = """
import ctypes, os, sys
prctl = ctypes.CDLL(None).prctl
for capability in (1, 2, 3):  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER: what lets root write everywhere
    prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, "-m", "restore_agent", *sys.argv[1:]])
"""


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_dest_that_belongs_to_another_user_is_41(
    simulator: StartSimulator, dest: Path, exists: bool, command: str
) -> None:
    """In a process of its own, which may not write everywhere even as root."""
    sim = simulator()
    closed = dest if exists else dest.parent / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    if os.geteuid() == 0:
        os.chown(closed, 65534, 65534)
    target = closed if exists else closed / "restore"
    args = [command, *connection_args(sim), f"--dest={target}", "-ojson"]
    ended = subprocess.run(
        [sys.executable, "-c", _WITHOUT_OVERRIDE, *args], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 41, ended.stdout + ended.stderr
    assert not deliveries(sim)
    assert not list(closed.iterdir())


# What DEST already holds


def test_archives_that_are_verified_already_are_shown_as_verified(
    simulator: StartSimulator, plan: Plan, restore: Restore, tmp_path: Path
) -> None:
    sim = simulator(shards=1)
    assert restore(sim).code == 0
    before, asked = snapshot_of(tmp_path), len(deliveries(sim))
    ended = plan(sim)
    assert ended.code == 0
    assert {row["step"] for row in rows(ended)} == {"verified"}
    assert ended.verdicts == ["verified"] * 2
    assert (ended.result["outcome"], ended.result["changed"]) == ("verified", False)
    assert snapshot_of(tmp_path) == before
    assert len(deliveries(sim)) == asked


def test_a_verified_archive_stays_verified_after_its_delivery_ended(
    simulator: StartSimulator, plan: Plan, restore: Restore
) -> None:
    sim = simulator()
    assert restore(sim).code == 0
    sim.clock.advance(7200)
    ended = plan(sim)
    assert (ended.code, row(ended)["step"], row(ended)["delivery_status"]) == (0, "verified", "EXPIRED")
    assert row(ended)["expires_in"] < 0


def test_a_file_of_another_program_counts_if_it_equals_the_published_hash(
    simulator: StartSimulator, plan: Plan, dest: Path
) -> None:
    sim = simulator("hash=early")
    dest.mkdir()
    shutil.copy(sim.job(0).archive().path, dest / final_name(sim))
    ended = plan(sim)
    assert (ended.code, row(ended)["step"], row(ended)["reason"]) == (0, "verified", "same-as-published")


def test_a_flipped_byte_in_a_verified_archive_is_an_obstacle(
    simulator: StartSimulator, plan: Plan, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    assert restore(sim).code == 0
    with (dest / final_name(sim)).open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff\x00\xff")
    ended = plan(sim)
    assert (ended.code, row(ended)["reason"]) == (42, "foreign-file")


@pytest.mark.parametrize("published", [False, True])
def test_an_unproven_archive_is_planned_as_verification_only(
    simulator: StartSimulator, plan: Plan, restore: Restore, published: bool
) -> None:
    sim = simulator("hash=never")
    assert restore(sim, "--hash-timeout=0.1s").code == 10
    asked = len(deliveries(sim))
    if published:
        sim.set_faults()
    ended = plan(sim)
    assert ended.code == 0
    assert row(ended)["step"] == "prove"
    assert row(ended)["reason"] == ("same-as-published" if published else "whole-on-disk")
    assert len(deliveries(sim)) == asked


def test_a_complete_part_left_by_a_kill_is_planned_as_verification_only(
    simulator: StartSimulator, plan: Plan, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("hash=never")
    args = ["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--hash-timeout=1h"]
    process = start_agent(args)
    journal = dest / ".restore-agent" / "journal.jsonl"
    wait_until(lambda: journal.exists() and '"whole"' in journal.read_text(), "the whole part file")
    process.kill()
    process.communicate()
    ended = plan(sim)
    assert (ended.code, row(ended)["step"], row(ended)["reason"]) == (0, "prove", "whole-on-disk")


def test_half_a_part_file_is_planned_as_a_download(
    simulator: StartSimulator, plan: Plan, restore: Restore, dest: Path
) -> None:
    sim = simulator("cut=50%", "max-downloads=2")
    assert restore(sim, "--retries=0").code == 25
    assert (dest / f"{final_name(sim)}.part").stat().st_size > 0
    ended = plan(sim)
    assert (ended.code, row(ended)["step"]) == (0, "download")
    assert ended.archive["downloads_spent"] == 1


# How it looks


def test_the_text_has_a_verdict_per_job_in_80_columns(simulator: StartSimulator, plan: Plan) -> None:
    sim = simulator("broken@1", "never-ready@2", shards=2)
    ended = plan(sim, "--output=text")
    assert ended.code == 21
    steps = [line.split()[0] for line in ended.out.splitlines() if line and not line.startswith(" ")]
    assert steps[0] == "STEP"
    assert sorted(steps[1:4]) == ["download", "fail", "wait"]
    assert "job-broken (exit code 21)" in ended.out
    table = [line for line in ended.out.splitlines() if not line.startswith("Exit code")]
    assert max(len(line) for line in table) <= 80


def test_the_text_says_that_there_is_no_obstacle(simulator: StartSimulator, plan: Plan) -> None:
    ended = plan(simulator(), "--output=text")
    assert ended.out.splitlines()[-1] == "Nothing stands in the way."


def test_the_text_of_an_obstacle_has_the_reason_and_the_next_step(
    simulator: StartSimulator, plan: Plan, dest: Path
) -> None:
    dest.write_text("a file")
    ended = plan(simulator(), "--output=text")
    assert ended.code == 42
    assert "is not a directory" in ended.err or "Not a directory" in ended.err
    assert "next: " in ended.err
    assert "Traceback" not in ended.err


def test_a_plan_in_json_ends_with_a_result_that_has_the_receipts_fields(
    simulator: StartSimulator, plan: Plan, restore: Restore
) -> None:
    sim = simulator(shards=1)
    planned = plan(sim)
    ended = restore(sim)
    assert set(planned.result) - {"plan"} == set(ended.result)
    assert set(planned.result["archives"][0]) == set(ended.result["archives"][0])
    assert json.dumps(planned.result["plan"])
