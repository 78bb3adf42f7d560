"""Redirects and credentials of a delivery, and runs that are killed or stopped and run again."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from support.agents import (
    Restore,
    Result,
    StartAgent,
    StartSimulator,
    deliveries,
    finished,
    journal_in,
    meanwhile,
    receipt_in,
    status_in,
    wait_until,
)
from support.one_shot import is_published, started_run

from restore_agent.simulator import Simulator

# ---------------------------------------------------------------- redirects and credentials


def test_five_redirects_are_followed(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("redirect=5")
    assert restore(sim).code == 0
    assert [request.status for request in deliveries(sim)] == [302] * 5 + [200]
    assert is_published(sim, dest)


@pytest.mark.parametrize("fault", ["redirect=6", "redirect-loop"])
def test_a_sixth_redirect_is_not(fault: str, simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(fault, "max-downloads=9")
    ended = restore(sim, "--retries=0")
    assert ended.code == 25
    assert ended.archive["reason"] == "delivery-refused"
    assert len(deliveries(sim)) == 6


def test_the_token_is_sent_within_its_origin_and_to_no_other(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("url-v2", "redirect=1", "redirect-other-origin")
    assert restore(sim).code == 0
    header = f"Bearer {sim.job(0).bearer}"
    seen = [(request.headers["host"], request.headers.get("authorization")) for request in deliveries(sim)]
    first, second = (origin.split("//")[1] for origin in (sim.manager.origin, sim.manager.second_origin))
    assert seen == [(first, header), (first, header), (second, None)]


@pytest.mark.parametrize("faults", [[], ["other-origin"], ["url-v2"], ["url-v2=only", "other-origin"], ["redirect=2"]])
def test_api_credentials_never_reach_a_delivery_url(
    faults: list[str], simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator(*faults, shards=1)
    assert restore(sim).code == 0
    for request in deliveries(sim):
        said = request.headers.get("authorization", "")
        assert "digest" not in said.lower()
        assert sim.hello["public_key"] not in json.dumps(request.headers) + request.path
        assert sim.hello["private_key"] not in json.dumps(request.headers) + request.path
    for request in sim.requests:
        if request.kind == "api":
            assert "bearer" not in request.headers.get("authorization", "").lower()


@pytest.mark.parametrize("variant", [[], ["no-bearer-field"], ["bearer-in-value"]])
@pytest.mark.parametrize("kind", ["both", "only"])
def test_the_newer_url_with_its_header_is_preferred(
    kind: str, variant: list[str], simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(f"url-v2={kind}", *variant)
    assert restore(sim).code == 0
    (request,) = deliveries(sim)
    assert "/v3/pull/" in request.path
    assert request.auth == "bearer"
    assert is_published(sim, dest)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.net/a.tar.gz", "delivery-url-unusable"),
        ("http://user:word@127.0.0.1/a.tar.gz", "delivery-url-unusable"),
        ("http://127.0.0.1:99999/a.tar.gz", "delivery-url-unusable"),
        ("not a url", "delivery-url-unusable"),
    ],
)
def test_25_when_the_delivery_url_is_invalid(
    url: str, reason: str, simulator: StartSimulator, restore: Restore
) -> None:
    ended = restore(simulator(f"job-field=delivery.url:{json.dumps(url)}"))
    assert ended.code == 25
    assert ended.archive["reason"] == reason
    assert ended.archive["downloads_spent"] == 0


# ---------------------------------------------------------------- killed, stopped, run again


def in_flight(sim: Simulator, dest: Path, size: int = 1000) -> None:
    """Wait until so many bytes of the archive are on disk."""
    part = dest / f"{sim.job(0).file_name}.part"
    wait_until(lambda: part.exists() and part.stat().st_size > size, "bytes on disk")


def test_a_killed_run_is_resumed_by_the_next_one(
    simulator: StartSimulator, restore: Restore, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("drip=40K", "range=honour", "max-downloads=2")
    process = started_run(start_agent, sim, dest)
    in_flight(sim, dest)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    sim.set_faults("range=honour")
    ended = restore(sim)
    assert ended.code == 0
    assert ended.archive["resumed"] is True
    assert ended.archive["downloads_spent"] == 2
    assert [request.status for request in deliveries(sim)] == [200, 206]
    assert is_published(sim, dest)


def test_a_killed_run_of_a_server_without_ranges_starts_over(
    simulator: StartSimulator, restore: Restore, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("drip=40K", "max-downloads=2")
    process = started_run(start_agent, sim, dest)
    in_flight(sim, dest)
    process.kill()
    process.wait()
    sim.set_faults()
    ended = restore(sim)
    assert ended.code == 0
    assert ended.archive["resumed"] is False
    assert ended.archive["downloads_spent"] == 2


def test_a_run_killed_while_it_waits_for_the_hash_needs_no_second_download(
    simulator: StartSimulator, restore: Restore, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("hash=late:3600")
    process = started_run(start_agent, sim, dest, "--hash-timeout=60s")
    wait_until((dest / ".restore-agent/journal.jsonl").exists)
    wait_until(lambda: any(line.get("fact") == "whole" for line in journal_in(dest)))
    process.kill()
    process.wait()
    sim.set_faults()
    ended = restore(sim)
    assert ended.code == 0
    assert ended.archive["downloads_spent"] == 1
    assert len(deliveries(sim)) == 1
    assert is_published(sim, dest)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_waiting_ends_the_run_immediately_and_spends_no_download(
    number: signal.Signals, code: int, simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("never-ready")
    process = started_run(start_agent, sim, dest, "--wait-timeout=1h", "--poll-interval=1h")
    wait_until((dest / ".restore-agent/status.json").exists)
    wait_until(lambda: any(request.status == 200 for request in sim.requests))
    process.send_signal(number)
    ended = finished(process)
    assert ended.code == code
    assert ended.result["outcome"] == "failed"
    assert "Traceback" not in ended.err
    assert status_in(dest)["state"] == "interrupted"
    assert deliveries(sim) == []


def test_a_signal_during_a_stalled_transfer_ends_it_immediately_and_keeps_its_bytes(
    simulator: StartSimulator, start_agent: StartAgent, restore: Restore, dest: Path
) -> None:
    sim = simulator("stall=60%", "range=honour", "max-downloads=2")
    process = started_run(start_agent, sim, dest, "--stall-timeout=60s")
    in_flight(sim, dest)
    process.send_signal(signal.SIGTERM)
    assert finished(process).code == 143
    ended = restore(sim)
    assert ended.code == 0
    assert ended.archive["resumed"] is True


def test_a_stopped_run_leaves_the_receipt_of_an_earlier_run_unchanged(
    simulator: StartSimulator, start_agent: StartAgent, restore: Restore, dest: Path
) -> None:
    sim = simulator("never-ready@1", shards=1)
    with sim.lock:
        sim.job(1).status = "BROKEN"  # so that it is known not to be selected
    assert restore(sim, "--select=electron_0-*").code == 0
    with sim.lock:
        sim.job(1).status = None
    before = receipt_in(dest)
    process = started_run(start_agent, sim, dest, "--wait-timeout=1h")
    wait_until(lambda: status_in(dest)["pid"] == process.pid)
    process.terminate()
    assert finished(process).code == 143
    assert receipt_in(dest) == before


# ---------------------------------------------------------------- order


def test_the_earliest_expiry_is_downloaded_first_with_one_download_at_a_time(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator(shards=3)
    with sim.lock:
        for index, hours in enumerate((4, 2, 3, 1)):
            sim.job(index).expires = sim.clock.now() + hours * 3600
    assert restore(sim, "--parallel=1").code == 0
    assert [request.job_id for request in deliveries(sim)] == [sim.job(index).id for index in (3, 1, 2, 0)]


def test_a_job_without_expiry_is_downloaded_after_jobs_with_an_expiry(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("job-field=delivery.expires:__missing__@0", shards=1)
    assert restore(sim, "--parallel=1").code == 0
    assert [request.job_id for request in deliveries(sim)] == [sim.job(1).id, sim.job(0).id]


@pytest.mark.parametrize(("parallel", "most"), [(1, 1), (2, 2), (4, 4)])
def test_no_more_transfers_run_in_parallel_than_allowed(
    parallel: int, most: int, simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("stall=50%@0", "stall=50%@1", "stall=50%@2", "stall=50%@3", "max-downloads=2", shards=3)
    peak: list[int] = []

    def count() -> None:
        wait_until(lambda: len(deliveries(sim)) >= most)
        peak.append(len(deliveries(sim)))

    with meanwhile(count):
        restore(sim, f"--parallel={parallel}", "--stall-timeout=0.2s", "--retries=0")
    assert peak == [most]


def test_the_failure_of_one_archive_does_not_delay_the_others(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("cut=10%xalways@0", shards=2)
    ended: Result = restore(sim)
    assert ended.code == 23
    assert sorted(ended.verdicts) == ["failed", "verified", "verified"]
    assert is_published(sim, dest, 1)
    assert is_published(sim, dest, 2)
