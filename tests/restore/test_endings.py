"""Complete archives whose transfer ended badly, or whose run was killed: no further GET, and nothing is overwritten."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.agents import (
    QUICK,
    Restore,
    StartAgent,
    StartSimulator,
    connection_args,
    deliveries,
    finished,
    journal_in,
    sha1_of,
    wait_until,
)

UNCLEAN = [
    ["framing=chunked", "cut=100%"],
    ["framing=chunked", "cut=100%", "chunk-end=no-crlf"],
    ["framing=chunked", "cut=100%", "chunk-end=no-data-crlf"],
    ["framing=chunked", "reset=100%"],
    ["framing=chunked", "stall=100%"],
    ["framing=chunked", "cut=100%", "plain-tar"],
    ["framing=close", "reset=100%"],
    ["wrong-length=+1"],
    ["wrong-length=+1", "stall=100%"],
]
BRISK = ("--stall-timeout=0.3s", "--hash-timeout=3s")


@pytest.mark.parametrize("faults", UNCLEAN, ids=" ".join)
def test_a_complete_archive_is_verified_however_badly_its_transfer_ended(
    simulator: StartSimulator, restore: Restore, dest: Path, faults: list[str]
) -> None:
    sim = simulator(*faults, "max-downloads=9")
    ended = restore(sim, *BRISK)
    assert ended.code == 0, ended.out
    assert len(deliveries(sim)) == 1
    assert sha1_of(dest / sim.job(0).file_name) == sim.job(0).sha1


@pytest.mark.parametrize("faults", UNCLEAN[:5], ids=" ".join)
def test_a_complete_archive_without_a_hash_is_kept_and_not_requested_again(
    simulator: StartSimulator, restore: Restore, dest: Path, faults: list[str]
) -> None:
    sim = simulator(*faults, "max-downloads=9", "hash=never")
    assert restore(sim, *BRISK, "--hash-timeout=0.5s").code == 10
    assert len(deliveries(sim)) == 1
    assert sha1_of(dest / f"{sim.job(0).file_name}.unproven") == sim.job(0).archive().sha1
    sim.set_faults(*faults)
    assert restore(sim, *BRISK).code in (0, 10)
    assert len(deliveries(sim)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
def test_a_run_that_ended_between_the_last_byte_and_its_record_needs_no_further_get(
    simulator: StartSimulator, start_agent: StartAgent, restore: Restore, dest: Path, number: signal.Signals
) -> None:
    sim = simulator("framing=chunked", "stall=100%")
    process = start_agent(["run", *connection_args(sim), *QUICK, "--stall-timeout=60s", f"--dest={dest}"])
    part, size = dest / f"{sim.job(0).file_name}.part", sim.job(0).archive().size
    wait_until(lambda: part.exists() and part.stat().st_size == size, "all bytes")
    process.send_signal(number)
    finished(process)
    assert not [line for line in journal_in(dest) if line.get("fact") == "whole"]
    assert restore(sim).code == 0
    assert len(deliveries(sim)) == 1


def test_a_later_answer_that_is_interrupted_early_does_not_destroy_its_bytes(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    """No hash and no length: the archive is complete by its structure, and the first GET stays the only one."""
    sim = simulator("framing=chunked", "reset=100%", "cut=1%", "max-downloads=9", "hash=late:0.6")
    assert restore(sim, *BRISK).code == 0
    assert len(deliveries(sim)) == 1
    assert sha1_of(dest / sim.job(0).file_name) == sim.job(0).sha1


def test_attempts_that_were_never_sent_are_not_counted_as_spent(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    dead = "http://127.0.0.1:1/pull/5fc4f5a8b2e4a1000155b6aa/a-token/archive.tar.gz"
    sim = simulator(f'job-field=delivery.url:"{dead}"')
    ended = restore(sim, "--retries=5")
    assert ended.code == 25
    assert (ended.archive["reason"], ended.archive["downloads_spent"]) == ("delivery-unreachable", 0)
