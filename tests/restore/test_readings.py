"""What a reading of the jobs may lack or get wrong for a while, and what it must not lead to."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from support.agents import (
    QUICK,
    Restore,
    RunAgent,
    StartAgent,
    StartSimulator,
    connection_args,
    deliveries,
    finished,
    receipt_in,
    status_in,
    wait_until,
)

from restore_agent.simulator import Simulator


def by_id(sim: Simulator, dest: Path, *indices: int) -> list[str]:
    """The arguments of a run for some jobs of a batch, named by their IDs."""
    jobs = [f"--job-id={sim.job(index).id}" for index in indices]
    return ["run", *connection_args(sim, jobs=False), *jobs, *QUICK, f"--dest={dest}", "--output=json"]


# ---------------------------------------------------------------- jobs and documents that come and go


@pytest.mark.parametrize(
    "faults",
    [
        ["job-404=3x2", "hash=late:0.5"],
        ["ready-after=0.4", "job-404=2x2"],
        ["ready-after=0.4", "job-unlisted=2x2@0"],
        ["short-list=1x2"],
        ["short-list=2x2", "ready-after=0.4"],
        ["wrong-count=-1"],
    ],
    ids=" ".join,
)
def test_a_job_or_field_that_one_poll_lacks_is_waited_for(
    simulator: StartSimulator, restore: Restore, faults: list[str]
) -> None:
    sim = simulator(*faults, shards=2)
    ended = restore(sim, "--hash-timeout=3s")
    assert ended.code == 0, ended.out
    assert ended.verdicts == ["verified"] * 3
    assert len(deliveries(sim)) == 3


def test_32_when_the_list_stays_shorter_than_its_count(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("short-list=1x99999", shards=2)
    ended = restore(sim, "--wait-timeout=0.5s")
    assert ended.code == 32
    assert "listed 2 of 3" in ended.events("error")[0]["message"]
    assert deliveries(sim) == []


def test_a_verified_job_may_be_missing_while_another_one_is_awaited(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator("ready-after=1@1", "job-404=6x99999@0", shards=1)
    ended = run_agent(by_id(sim, dest, 0, 1))
    assert ended.code == 0, ended.out
    assert len(deliveries(sim)) == 2


def test_a_job_that_an_earlier_run_verified_may_be_missing(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator(shards=1)
    assert run_agent(by_id(sim, dest, 0)).code == 0
    record = receipt_in(dest)["archives"][0]
    sim.set_faults("job-404=1x99999@0")
    ended = run_agent(by_id(sim, dest, 0))
    assert (ended.code, ended.result["changed"]) == (0, False)
    assert receipt_in(dest)["archives"] == [record]
    plan = [argument for argument in by_id(sim, dest, 0, 1)[1:] if argument not in QUICK]
    assert run_agent(["plan", *plan]).code == 0
    ended = run_agent(by_id(sim, dest, 0, 1))
    assert (ended.code, ended.verdicts) == (0, ["verified"] * 2)
    assert len(deliveries(sim)) == 2
    (dest / sim.job(0).file_name).unlink()
    assert run_agent(by_id(sim, dest, 0)).code == 24
    assert run_agent(["plan", *plan]).code == 24


def test_24_when_a_batch_that_was_listed_is_missing_writes_a_receipt(
    simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("hash=never", shards=1)
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--output=json"])
    wait_until(lambda: len(deliveries(sim)) == 2, "the downloads")
    sim.set_faults("hash=never", "api-refuse=404x99999")
    ended = finished(process)
    assert ended.code == 24
    found = [(record["verdict"], record["exit_code"]) for record in receipt_in(dest)["archives"]]
    assert found == [("failed", 24)] * 2


# ---------------------------------------------------------------- jobs of others


def test_a_document_of_another_job_is_not_used(simulator: StartSimulator, run_agent: RunAgent, dest: Path) -> None:
    sim = simulator("job-swapped@0", shards=1)
    ended = run_agent(by_id(sim, dest, 0))
    assert ended.code == 32
    assert "is about" in ended.events("error")[0]["message"]
    assert deliveries(sim) == []


@pytest.mark.parametrize("batch", ["none", "other"])
def test_a_job_of_another_batch_is_reported_and_not_used(
    simulator: StartSimulator, restore: Restore, batch: str
) -> None:
    sim = simulator(f"stray-job={batch}", shards=1)
    ended = restore(sim)
    assert ended.code == 0
    assert ended.verdicts == ["verified"] * 2
    assert any("which is not used" in notice["message"] for notice in ended.events("notice"))
    assert len(deliveries(sim)) == 2


@pytest.mark.parametrize("output", ["json", "text"])
def test_lone_surrogates_in_a_document_are_not_a_defect(
    simulator: StartSimulator, restore: Restore, output: str
) -> None:
    assert restore(simulator("surrogates"), f"--output={output}").code == 0


# ---------------------------------------------------------------- trouble


def test_an_ops_manager_that_does_not_answer_is_reported_within_two_seconds_also_in_the_status(
    simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("never-ready")
    process = start_agent(["run", *connection_args(sim), *QUICK, "--wait-timeout=60s", f"--dest={dest}", "-o", "json"])
    wait_until((dest / ".restore-agent" / "status.json").exists, "the status")
    sim.set_faults("never-ready", "api-stall=always")
    trouble = wait_until(lambda: status_in(dest)["trouble"], "trouble")
    assert trouble["reason"] == "ops-manager-unreachable"
    assert trouble["until"] is not None
    process.terminate()
    reported = finished(process).events("trouble")[0]
    assert reported["message"] == trouble["message"]


def test_an_archive_that_waits_for_another_attempt_is_reported_as_trouble(
    simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("refuse=503", "retry-after=60", "max-downloads=9", "expires-in=3600")
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "-o", "json"])
    wait_until(partial(deliveries, sim), "the first attempt")
    trouble = wait_until(lambda: status_in(dest)["trouble"], "trouble")
    assert (trouble["reason"], "HTTP 503" in trouble["message"]) == ("delivery-refused", True)
    assert trouble["until"] == status_in(dest)["archives"][0]["expires_at"]
    process.terminate()
    finished(process)


@pytest.mark.parametrize(
    "kind", ["basic-after", "basic-first", "negotiate-first", "separate", "digest-after", "digest-first"]
)
def test_the_digest_challenge_that_can_be_answered_is_found_among_others(
    kind: str, simulator: StartSimulator, restore: Restore
) -> None:
    assert restore(simulator(f"challenge={kind}")).code == 0
