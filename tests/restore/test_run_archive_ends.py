"""Exit codes of archives and of the batch: 2, and 10 to 25."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.agents import (
    QUICK,
    Restore,
    RunAgent,
    StartSimulator,
    connection_args,
    deliveries,
    meanwhile,
    receipt_in,
    sha1_of,
    wait_until,
)
from support.runs import ended_with, name_of, published

# ---------------------------------------------------------------- ends of archives


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


def test_11_stays_the_verdict_if_the_downloads_were_used_up_since(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=wrong", "max-downloads=1")
    ended_with(restore(sim), 11, "hash-mismatch")
    again = ended_with(restore(sim), 11, "hash-mismatch")
    assert again.archive["path"] == str(dest / f"{name_of(sim)}.mismatch")
    assert len(deliveries(sim)) == 1


def test_12_when_archives_fail_for_different_reasons_and_other_archives_are_verified(
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
def test_21_when_the_job_failed_in_ops_manager(
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


def test_22_when_the_delivery_expires_during_the_transfer(simulator: StartSimulator, restore: Restore) -> None:
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
    ended = ended_with(restore(sim), 24, "batch-empty")
    assert "no restore job of the batch is listed yet" in ended.events("notice")[0]["message"]
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
def test_24_when_an_id_is_unknown_and_the_message_names_it(
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


def test_24_for_a_job_that_vanishes_does_not_keep_the_other_one_from_being_verified(
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
def test_25_when_a_ready_delivery_url_never_returns_an_archive(
    fault: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(fault, "max-downloads=99")
    ended = ended_with(restore(sim, "--retries=1"), 25)
    assert len(deliveries(sim)) == 2
    assert ended.archive["verdict"] == "failed"
    assert [path.name for path in dest.glob("*.tar.gz*") if path.stat().st_size] == []
    assert receipt_in(dest)["exit_code"] == 25
