"""`plan --unpack`: it ends with 13 where `run` would, warns of space, and writes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents import QUICK, Restore, Result, RunAgent, StartSimulator, connection_args, deliveries, snapshot_of
from support.data_paths import data_path_of

from restore_agent.simulator import Simulator
from restore_agent.unpack.datapath import DataPaths

Plan = Callable[..., Result]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory of data paths that does not exist yet."""
    return tmp_path / "data"


@pytest.fixture
def plan(run_agent: RunAgent, dest: Path, data: Path) -> Plan:
    """`plan(sim, *options)`: plan into `dest` and `data`."""

    def call(sim: Simulator, *options: object) -> Result:
        args = [*connection_args(sim), *QUICK, f"--dest={dest}", f"--unpack={data}", "--output=json", *options]
        return run_agent(["plan", *args])

    return call


def require_foreseen(sim: Simulator, ended: Result, reason: str) -> None:
    assert ended.code == 13, ended.out
    (row,) = ended.result["plan"]
    assert (row["exit_code"], row["reason"]) == (13, reason)
    assert any(line["level"] == "warning" for line in ended.events("notice")), "the cause, not only its ID"
    assert len(deliveries(sim)) <= 1


def test_without_an_obstacle_the_code_is_0_and_no_file_is_written(
    simulator: StartSimulator, plan: Plan, dest: Path, data: Path
) -> None:
    sim = simulator(shards=1)
    ended = plan(sim)
    assert ended.code == 0
    data_paths = [str(data / data_path_of(sim, index)) for index in range(2)]
    assert sorted(row["data_path"] for row in ended.result["plan"]) == sorted(data_paths)
    assert all(row["to_unpack"] for row in ended.result["plan"])
    assert not data.exists()
    assert not dest.exists()
    assert deliveries(sim) == []


def test_the_text_names_each_data_path_and_compares_the_size_with_the_free_space(
    simulator: StartSimulator, plan: Plan, restore: Restore, data: Path
) -> None:
    sim = simulator()
    ended = plan(sim, "--output=text")
    assert f"\n         unpack into {data / data_path_of(sim)}\n" in ended.out
    assert re.search(rf"to unpack into {data}: 1 archives, at most [\d.]+ \wiB; free there: [\d.]+ \wiB", ended.err)
    restore(sim, f"--unpack={data}")
    ended = plan(sim, "--output=text")
    assert f"\n         data path {data / data_path_of(sim)}\n" in ended.out
    assert f"to unpack into {data}: 0 archives; free there" in ended.err


@pytest.mark.parametrize("ready", [True, False])
def test_a_directory_that_is_a_file_is_reported(
    simulator: StartSimulator, plan: Plan, data: Path, *, ready: bool
) -> None:
    sim = simulator(*([] if ready else ["never-ready"]))
    data.write_text("mine")
    require_foreseen(sim, plan(sim), "cannot-unpack")


@needs_root
def test_a_directory_that_is_read_only_is_reported(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path, small_disk: Callable[..., Path]
) -> None:
    sim, disk = simulator(), small_disk(1024, "ro")
    for data in (disk, disk / "below"):
        args = ["plan", *connection_args(sim), *QUICK, f"--dest={dest}", f"--unpack={data}", "--output=json"]
        require_foreseen(sim, run_agent(args), "cannot-unpack")


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_a_name_that_is_used_is_reported(simulator: StartSimulator, plan: Plan, data: Path, kind: str) -> None:
    sim = simulator()
    data.mkdir()
    name = data / data_path_of(sim)
    if kind == "file":
        name.touch()
    elif kind == "directory":
        (name / "sub").mkdir(parents=True)
    else:
        name.symlink_to(data)
    before = snapshot_of(data)
    ended = plan(sim)
    require_foreseen(sim, ended, "data-path-in-the-way")
    assert any(line["message"].startswith(sim.job(0).file_name) for line in ended.events("notice"))
    assert snapshot_of(data) == before


def test_an_empty_directory_at_the_name_is_not_in_the_way(simulator: StartSimulator, plan: Plan, data: Path) -> None:
    sim = simulator()
    (data / data_path_of(sim)).mkdir(parents=True)
    assert plan(sim).code == 0
    assert (data / data_path_of(sim)).is_dir()


def test_a_staging_directory_that_another_run_fills_is_reported(
    simulator: StartSimulator, plan: Plan, data: Path
) -> None:
    sim = simulator()
    with DataPaths.open(data, create=True) as other:
        staging = other.staging(sim.job(0).id)
        before = snapshot_of(data)
        require_foreseen(sim, plan(sim), "data-path-in-the-way")
        assert snapshot_of(data) == before
        staging.close()
    assert plan(sim).code == 0


def test_an_archive_that_is_unpacked_already_is_0(
    simulator: StartSimulator, plan: Plan, restore: Restore, data: Path
) -> None:
    sim = simulator()
    restore(sim, f"--unpack={data}")
    before = snapshot_of(data)
    ended = plan(sim)
    assert ended.code == 0
    (row,) = ended.result["plan"]
    assert (row["to_unpack"], row["data_path"]) == (False, str(data / data_path_of(sim)))
    (data / data_path_of(sim)).rename(data / "shard0")
    assert plan(sim).code == 0
    assert snapshot_of(data / "shard0").keys() == {name.split("/", 1)[1] for name in before if "/" in name}


def test_another_directory_after_a_discard_is_reported(
    simulator: StartSimulator, plan: Plan, restore: Restore, tmp_path: Path
) -> None:
    sim = simulator()
    restore(sim, f"--unpack={tmp_path / 'first'}", "--discard-archive")
    require_foreseen(sim, plan(sim), "archive-discarded")
    ended = plan(sim, "--output=text")
    assert "unpack into" not in ended.out, "run does not unpack it"
    assert ": 0 archives; free there" in ended.err


@needs_root
def test_a_directory_that_may_be_too_small_is_a_warning_of_plan_and_run(
    simulator: StartSimulator, run_agent: RunAgent, restore: Restore, dest: Path, small_disk: Callable[..., Path]
) -> None:
    sim, disk = simulator(archive_size=2 << 20), small_disk(512)
    args = [*connection_args(sim), *QUICK, f"--dest={dest}", f"--unpack={disk / 'data'}", "--output=json"]
    planned = run_agent(["plan", *args])
    assert planned.code == 0
    assert any(str(disk) in line["message"] and "may not fit" in line["message"] for line in planned.events("notice"))
    sim.set_faults("drip=400000")
    ended = restore(sim, f"--unpack={disk / 'data'}")
    assert ended.archive["reason"] == "no-space-to-unpack"
    assert any(str(disk) in line["message"] and "may not fit" in line["message"] for line in ended.events("notice"))


@needs_root
def test_a_run_compares_the_sizes_with_what_was_free_before_it_wrote(
    simulator: StartSimulator, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    sim = simulator("api-delay=0.3", "hash=late:1", archive_size=8 << 20)
    needed = sim.job(0).archive().unpacked
    disk = small_disk((needed >> 10) + (6 << 10))
    ended = restore(sim, f"--unpack={disk / 'data'}")
    assert ended.code == 0
    assert [line for line in ended.events("notice") if "may not fit" in line["message"]] == []


def test_dest_itself_can_be_the_directory(
    simulator: StartSimulator, run_agent: RunAgent, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    args = ["plan", *connection_args(sim), *QUICK, f"--dest={dest}", f"--unpack={dest}", "--output=json"]
    assert run_agent(args).code == 0
    assert not dest.exists()
    restore(sim, f"--unpack={dest}")
    assert run_agent(args).code == 0


def test_other_failures_decide_the_code(simulator: StartSimulator, plan: Plan, data: Path) -> None:
    sim = simulator("expired@0", shards=1)
    data.write_text("mine")
    assert plan(sim).code != 13
