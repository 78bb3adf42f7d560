"""Whose bytes a file in DEST has: names belong to their jobs for as long as the journal lives."""

from __future__ import annotations

import subprocess
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
    sha1_of,
    wait_until,
)

from restore_agent.simulator import Simulator


def require_right_bytes(sim: Simulator, dest: Path) -> None:
    """Every archive is under a name of its own, and SHA1SUMS passes."""
    expected = {job.sha1 for job in sim.jobs}
    assert {sha1_of(path) for path in dest.glob("*.tar.gz")} == expected
    subprocess.run(["sha1sum", "--check", "--strict", "SHA1SUMS"], cwd=dest, capture_output=True, check=True)
    assert len((dest / "SHA1SUMS").read_text().splitlines()) == len(expected)


def run_of(run_agent: RunAgent, sim: Simulator, dest: Path, index: int, *options: str) -> Result:
    """A run for one job of the batch, named by its ID."""
    args = [*connection_args(sim, jobs=False), f"--job-id={sim.job(index).id}", *QUICK, f"--dest={dest}"]
    return run_agent(["run", *args, "--output=json", *options])


def killed(start_agent: StartAgent, sim: Simulator, dest: Path, downloads: int) -> None:
    """A run that is killed after so many GETs."""
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}"])
    wait_until(lambda: len(deliveries(sim)) >= downloads and list(dest.glob("*.part")), "the download")
    process.kill()
    finished(process)


def test_a_name_stays_with_its_job_whichever_jobs_a_later_poll_lists(
    simulator: StartSimulator, start_agent: StartAgent, restore: Restore, dest: Path
) -> None:
    shared = ["same-name", "max-downloads=9", "stall=50%"]
    sim = simulator(*shared, "job-unlisted=1x99999@1", shards=1)
    killed(start_agent, sim, dest, 1)
    sim.set_faults(*shared, "job-unlisted=1x99999@0")
    killed(start_agent, sim, dest, 2)
    assert len(list(dest.glob("*.part"))) == 2
    sim.set_faults("same-name", "max-downloads=9")
    assert restore(sim).code == 0
    require_right_bytes(sim, dest)


@pytest.mark.parametrize("hashes", [[], ["hash=never"]], ids=["hash", "no hash"])
def test_runs_for_jobs_that_share_a_name_use_separate_files(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path, hashes: list[str]
) -> None:
    sim = simulator("same-name", *hashes, shards=1)
    for index in (0, 1):
        assert run_of(run_agent, sim, dest, index, "--allow-unproven", "--hash-timeout=0.3s").code == 0
    assert len(deliveries(sim)) == 2
    files = [path for path in dest.iterdir() if path.name.endswith((".tar.gz", ".unproven"))]
    assert {sha1_of(path) for path in files} == {job.archive().sha1 for job in sim.jobs}


@pytest.mark.parametrize("suffix", [".unproven", ".part", ".mismatch"])
def test_a_part_file_without_a_journal_entry_is_not_used(
    simulator: StartSimulator, restore: Restore, dest: Path, suffix: str
) -> None:
    sim, other = simulator("hash=never"), simulator("name=other.tar.gz", seed="another")
    dest.mkdir()
    stray = dest / f"{sim.job(0).file_name}{suffix}"
    stray.write_bytes(other.job(0).archive().path.read_bytes())
    ended = restore(sim, "--allow-unproven", "--hash-timeout=0.3s")
    assert ended.code == 0
    assert len(deliveries(sim)) == 1
    assert ended.archive["sha1"] == sim.job(0).archive().sha1


def test_an_archive_of_a_killed_run_stays_in_the_sums_of_a_later_one_for_another_job(
    simulator: StartSimulator, start_agent: StartAgent, restore: Restore, dest: Path
) -> None:
    sim = simulator("stall=50%@1", "max-downloads=9", shards=1)
    process = start_agent(["run", *connection_args(sim), *QUICK, "--stall-timeout=60s", f"--dest={dest}"])
    wait_until(lambda: (dest / sim.job(0).file_name).exists() and list(dest.glob("*.part")), "the first archive")
    process.kill()
    finished(process)
    sim.set_faults("max-downloads=9")
    assert restore(sim, f"--select={sim.job(1).id}").code == 0
    require_right_bytes(sim, dest)


def test_a_killed_run_keeps_dest_for_its_batch_although_there_is_no_receipt(
    simulator: StartSimulator, start_agent: StartAgent, run_agent: RunAgent, restore: Restore, dest: Path
) -> None:
    sim, other = simulator("stall=50%", "max-downloads=9", shards=1), simulator(shards=1, seed="another")
    killed(start_agent, sim, dest, 1)
    verified = run_agent(["verify", f"--dest={dest}", "--output=json"])
    assert verified.result["batch_id"] == sim.hello["batch_id"]
    assert other.hello["batch_id"] != sim.hello["batch_id"]
    assert restore(other).code == 42
    sim.set_faults("max-downloads=9")
    assert restore(sim).code == 0


def test_a_name_in_the_url_that_changes_between_polls_loses_no_archive(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("name-changes=1", "ready-after=0.3", "cut=50%", "max-downloads=9")
    ended = restore(sim)
    assert ended.code == 0, ended.out
    assert len(list(dest.glob("*.tar.gz"))) == 1
