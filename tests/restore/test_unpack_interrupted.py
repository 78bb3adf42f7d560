"""`run --unpack` that is stopped, killed, or not alone: nothing unproven is published, and nothing stale stays."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.agents import (
    PATIENCE,
    Restore,
    StartAgent,
    StartSimulator,
    deliveries,
    finished,
    journal_in,
    receipt_in,
    sha1_of,
    status_in,
    wait_until,
)
from support.data_paths import content_of, data_path_of, is_whole, names_in, run_args, served, staging_of

SLOW = "drip=400000"
STOP_TIME = 3.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory of data paths that does not exist yet."""
    return tmp_path / "data"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_while_the_archive_is_downloaded_stops_cleanly_and_publishes_nothing(
    simulator: StartSimulator,
    start_agent: StartAgent,
    restore: Restore,
    data: Path,
    dest: Path,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
) -> None:
    sim = simulator(SLOW, "range=honour", "max-downloads=3", archive_size=2 << 20)
    process = start_agent(run_args(sim, dest, f"--unpack={data}"))
    wait_until(lambda: staging_of(sim) in names_in(data) and names_in(data / staging_of(sim)), "some unpacked file")
    began = time.monotonic()
    process.send_signal(number)
    assert finished(process).code == code
    assert time.monotonic() - began < STOP_TIME
    assert names_in(data) <= {staging_of(sim)}
    sim.set_faults("range=honour")
    assert restore(sim, f"--unpack={data}").code == 0
    assert names_in(data) == {data_path_of(sim)}
    assert content_of(data / data_path_of(sim)) == served(sim, tmp_path)


def test_a_signal_while_only_unpacking_is_left_stops_cleanly(
    simulator: StartSimulator, start_agent: StartAgent, restore: Restore, data: Path, dest: Path
) -> None:
    sim = simulator(shards=3, archive_size=16 << 20)
    assert restore(sim).code == 0
    process = start_agent(run_args(sim, dest, f"--unpack={data}", "--parallel=1"))
    wait_until(lambda: any(name.endswith(".unpacking") for name in names_in(data)), "a staging directory")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    ended = finished(process)
    assert time.monotonic() - began < STOP_TIME
    assert ended.code in (143, 0)
    assert all((data / name).is_dir() for name in names_in(data))
    assert restore(sim, f"--unpack={data}").code == 0
    assert names_in(data) == {data_path_of(sim, index) for index in range(4)}
    assert len(deliveries(sim)) == 4


def test_a_signal_while_the_hash_is_awaited_publishes_nothing(
    simulator: StartSimulator, start_agent: StartAgent, restore: Restore, data: Path, dest: Path
) -> None:
    sim = simulator("hash=never")
    process = start_agent(run_args(sim, dest, f"--unpack={data}", "--hash-timeout=60s"))
    wait_until(lambda: staging_of(sim) in names_in(data), "the staging directory")
    wait_until(lambda: any(line.get("fact") == "whole" for line in journal_in(dest)), "the end of the download")
    process.send_signal(signal.SIGTERM)
    assert finished(process).code == 143
    assert names_in(data) == {staging_of(sim)}
    sim.set_faults()
    assert restore(sim, f"--unpack={data}").code == 0
    assert names_in(data) == {data_path_of(sim)}
    assert len(deliveries(sim)) == 1


@pytest.mark.parametrize("seed", range(12))
def test_a_run_after_kill_9_at_any_moment_completes(
    simulator: StartSimulator,
    start_agent: StartAgent,
    restore: Restore,
    data: Path,
    dest: Path,
    tmp_path: Path,
    seed: int,
) -> None:
    rnd = random.Random(seed)
    sim = simulator("range=honour", "max-downloads=9", archive_size=6 << 20)
    whole = served(sim, tmp_path)
    for _ in range(3):
        process = start_agent(run_args(sim, dest, f"--unpack={data}"))
        wait_until(dest.exists, "DEST")
        time.sleep(rnd.uniform(0.0, 0.6))
        process.kill()
        process.communicate(timeout=PATIENCE)
        assert names_in(data) <= {staging_of(sim), data_path_of(sim)}
        if (data / data_path_of(sim)).exists():
            assert content_of(data / data_path_of(sim)) == whole
            assert (dest / sim.job(0).archive_name).exists()
    ended = restore(sim, f"--unpack={data}")
    assert ended.code == 0, ended.err
    assert names_in(data) == {data_path_of(sim)}
    assert content_of(data / data_path_of(sim)) == whole
    assert is_whole(data / data_path_of(sim), receipt_in(dest)["archives"][0])
    assert restore(sim, f"--unpack={data}").result["changed"] is False


KILLED_AT = """
import os, signal, sys
from restore_agent.cli import main
from restore_agent.unpack.datapath import DataPaths
from restore_agent.dest.directory import Directory
moment, name = sys.argv.pop(1).split(":")
owner = {"DataPaths": DataPaths, "Directory": Directory}[moment.split(".")[0]]
method = moment.split(".")[1]
real = getattr(owner, method)
def dying(self, *args, **more):
    asked = any(name in str(arg) or name in getattr(arg, "name", "") for arg in args)
    if asked and moment.endswith("before"):
        os.kill(os.getpid(), signal.SIGKILL)
    found = real(self, *args, **more)
    if asked:
        os.kill(os.getpid(), signal.SIGKILL)
    return found
setattr(owner, method, dying)
main.main()
"""


def killed_at(moment: str, args: list[str]) -> None:
    """Run the command line in a process that is killed before or after one of its operations."""
    command = [sys.executable, "-c", KILLED_AT, moment, *args]
    done = subprocess.run(command, check=False, capture_output=True, env=dict(os.environ), timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize("moment", ["DataPaths.publish.before", "DataPaths.publish.after"])
def test_a_run_after_kill_9_around_the_rename_completes(
    simulator: StartSimulator, restore: Restore, data: Path, dest: Path, tmp_path: Path, moment: str
) -> None:
    sim = simulator()
    killed_at(f"{moment}:{data_path_of(sim)}", run_args(sim, dest, f"--unpack={data}"))
    after = moment.endswith("after")
    assert names_in(data) == {data_path_of(sim) if after else staging_of(sim)}
    assert "unpacked" not in {line.get("fact") for line in journal_in(dest)}
    inode = next(data.iterdir()).stat().st_ino
    ended = restore(sim, f"--unpack={data}")
    assert (ended.code, len(deliveries(sim))) == (0, 1), ended.err
    assert names_in(data) == {data_path_of(sim)}
    assert content_of(data / data_path_of(sim)) == served(sim, tmp_path)
    if after:  # not unpacked a second time
        assert (data / data_path_of(sim)).stat().st_ino == inode
    assert restore(sim, f"--unpack={data}").result["changed"] is False


@pytest.mark.parametrize("moment", ["Directory.remove.before", "Directory.remove.after"])
def test_a_run_after_kill_9_around_the_removal_of_the_archive_completes(
    simulator: StartSimulator, restore: Restore, data: Path, dest: Path, moment: str
) -> None:
    sim = simulator()
    restore(sim, f"--unpack={data}")
    name = sim.job(0).archive_name
    killed_at(f"{moment}:{name}", run_args(sim, dest, f"--unpack={data}", "--discard-archive"))
    ended = restore(sim, f"--unpack={data}", "--discard-archive")
    assert (ended.code, ended.verdicts, len(deliveries(sim))) == (0, ["verified"], 1), ended.err
    assert ended.archive["archive_kept"] is False
    assert name not in names_in(dest)
    assert restore(sim, f"--unpack={data}", "--discard-archive").result["changed"] is False


def test_a_stale_staging_directory_of_a_job_that_fails_now_is_removed(
    simulator: StartSimulator, start_agent: StartAgent, restore: Restore, data: Path, dest: Path
) -> None:
    sim = simulator(SLOW, archive_size=2 << 20)
    process = start_agent(run_args(sim, dest, f"--unpack={data}"))
    wait_until(lambda: staging_of(sim) in names_in(data), "the staging directory")
    process.kill()
    process.communicate()
    sim.job(0).delivery_status = "EXPIRED"
    assert restore(sim, f"--unpack={data}").code == 22
    assert names_in(data) == set()


# ---------------------------------------------------------------- two at a time


def test_two_runs_into_one_directory_share_the_names_but_no_staging_directory(
    simulator: StartSimulator, start_agent: StartAgent, data: Path, tmp_path: Path
) -> None:
    sim = simulator("max-downloads=9", shards=2, archive_size=2 << 20)
    dests = [tmp_path / "first", tmp_path / "second"]
    processes = [start_agent(run_args(sim, place, f"--unpack={data}")) for place in dests]
    ended = [finished(process) for process in processes]
    assert {one.code for one in ended} <= {0, 13}
    for one, place in zip(ended, dests, strict=True):
        assert one.verdicts == ["verified"] * 3
        assert all((place / job.archive_name).exists() for job in sim.jobs)
        reasons = {record["reason"] for record in one.result["archives"]}
        assert reasons <= {None, "data-path-in-the-way"}
    published = [record["data_path"] for one in ended for record in one.result["archives"] if record["data_path"]]
    assert sorted(published) == sorted(str(data / data_path_of(sim, index)) for index in range(3))
    for index in range(3):
        assert content_of(data / data_path_of(sim, index)) == served(sim, tmp_path, index)
    assert names_in(data) == {data_path_of(sim, index) for index in range(3)}


def test_a_run_that_is_busy_with_another_job_is_not_disturbed(
    simulator: StartSimulator, start_agent: StartAgent, restore: Restore, data: Path, dest: Path, tmp_path: Path
) -> None:
    slow, quick = simulator(SLOW, archive_size=1 << 20), simulator(archive_size=1 << 16)
    process = start_agent(run_args(slow, dest, f"--unpack={data}"))
    wait_until(lambda: staging_of(slow) in names_in(data), "the staging directory")
    assert restore(quick, f"--unpack={data}", to=tmp_path / "other").code == 0
    assert finished(process).code == 0
    assert names_in(data) == {data_path_of(slow), data_path_of(quick)}


def test_an_unreachable_ops_manager_does_not_end_unpacking(
    simulator: StartSimulator, start_agent: StartAgent, restore: Restore, data: Path, dest: Path
) -> None:
    sim = simulator(archive_size=32 << 20)
    assert restore(sim).code == 0
    process = start_agent(run_args(sim, dest, f"--unpack={data}", "--hash-timeout=0s", "--wait-timeout=0s"))
    wait_until(lambda: staging_of(sim) in names_in(data) or process.poll() is not None, "the staging directory")
    sim.stop()
    assert finished(process).code == 0


def test_status_json_shows_unpacked_bytes_during_the_download(
    simulator: StartSimulator, start_agent: StartAgent, data: Path, dest: Path
) -> None:
    sim = simulator(SLOW, archive_size=1 << 20)
    process = start_agent(run_args(sim, dest, f"--unpack={data}"))
    wait_until((dest / ".restore-agent" / "status.json").exists, "a status")
    row = wait_until(lambda: next((one for one in status_in(dest)["archives"] if one["unpacked_bytes"]), None), "a row")
    assert row["state"] == "downloading"
    assert 0 < row["unpacked_bytes"] <= row["total_bytes"]
    assert finished(process).code == 0
    assert sha1_of(dest / sim.job(0).archive_name) == sim.job(0).archive().sha1
