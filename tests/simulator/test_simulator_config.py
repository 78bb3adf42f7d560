"""The configuration file that the simulator writes, used by the real command."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from api_client import SMALL
from support.agents import QUICK, RunAgent, StartAgent, wait_until

from restore_agent.simulator import Faults, Simulator
from restore_agent.simulator.config_file import write_config
from restore_agent.simulator.model.manager import Order


@pytest.mark.parametrize("shards", [0, 1])
def test_a_restore_needs_only_the_written_file(
    start_agent: StartAgent, run_agent: RunAgent, tmp_path: Path, shards: int
) -> None:
    config = tmp_path / "simulator.toml"
    process = start_agent(
        ["simulator", "--tls", f"--shards={shards}", "--archive-size=64K", f"--write-config={config}"]
    )
    assert process.stdout is not None
    hello = json.loads(process.stdout.readline())
    ended = run_agent(["run", f"--config={config}", *QUICK, "-o", "json"])
    assert ended.code == 0
    assert ended.verdicts == ["verified"] * len(hello["job_ids"])
    assert stat.S_IMODE(config.with_name("simulator.toml.key").stat().st_mode) == 0o600
    assert len(list((tmp_path / "restore").glob("*.tar.gz"))) == len(hello["job_ids"])


def served(**more: Any) -> dict[str, Any]:
    """Return the facts about a simulator."""
    with Simulator(archive_size=SMALL, **more) as simulator:
        return simulator.hello


def test_the_file_is_overwritten_by_the_next_simulator(tmp_path: Path) -> None:
    path = tmp_path / 'a "quoted" é.toml'
    first, second = served(), served(shards=0)
    write_config(path, first)
    write_config(path, second)
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    assert (table["url"], table["job_id"]) == (second["url"], second["job_ids"])
    assert Path(table["private_key_file"]).read_text() == second["private_key"] + "\n"
    assert "private_key" not in table


@pytest.mark.parametrize("name", ["config.toml", "config.toml.key"])
def test_a_file_of_another_origin_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="not overwritten"):
        write_config(tmp_path / "config.toml", served())
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "config.toml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write_config(tmp_path / "config.toml", served())
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_cannot_be_written_is_a_usage_error(run_agent: RunAgent, tmp_path: Path) -> None:
    ended = run_agent(["simulator", "--archive-size=1K", f"--write-config={tmp_path}/absent/config.toml"])
    assert (ended.code, ended.out) == (2, "")
    assert "absent" in ended.err


def test_an_archive_can_be_given_on_the_command_line(
    start_agent: StartAgent, run_agent: RunAgent, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "WiredTiger").write_bytes(b"WiredTiger\n" * 1000)
    config = tmp_path / "c.toml"
    process = start_agent(["simulator", "--shards=0", f"--archive={home}", f"--write-config={config}"])
    assert process.stdout is not None and process.stdout.readline()
    wait_until(config.exists)
    assert run_agent(["run", f"--config={config}", *QUICK, f"--unpack={tmp_path}/data"]).code == 0
    (data,) = (tmp_path / "data").iterdir()
    assert (data / "WiredTiger").read_bytes() == b"WiredTiger\n" * 1000


@pytest.mark.parametrize(("shards", "last"), [(0, 0), (2, 2)])
def test_a_fault_for_a_job_that_does_not_exist_is_refused(shards: int, last: int) -> None:
    Simulator(shards=shards, archive_size=SMALL, faults=[f"plain-tar@{last}"])
    with pytest.raises(ValueError, match=rf"'plain-tar@{last + 1}': there is no job {last + 1}; jobs are @0"):
        Simulator(shards=shards, archive_size=SMALL, faults=[f"plain-tar@{last + 1}"])
    with Simulator(shards=shards, archive_size=SMALL) as simulator, pytest.raises(ValueError, match="no job 7"):
        simulator.set_faults("cut=1@7")


def test_the_range_of_jobs_is_open_if_it_is_not_known() -> None:
    assert Faults.parse(["cut=1@99"]).for_job(99).cut


def test_faults_for_one_job_also_apply_to_that_job_of_a_requested_batch() -> None:
    with Simulator(shards=1, archive_size=SMALL, faults=["max-downloads=7@1"]) as simulator:
        manager = simulator.manager
        made = manager.create_jobs(manager.snapshots.first, manager.snapshot_id, Order())
        assert [job.max_downloads for job in made] == [1, 7]


def test_the_list_of_faults_says_which_can_be_limited_to_a_job(run_agent: RunAgent) -> None:
    lines = run_agent(["simulator", "--list-faults"]).out.splitlines()
    rows = dict(zip(lines[::2], lines[1::2], strict=True))
    assert "counted from 0" in rows["NAME[=VALUE]@N"]
    assert rows["plain-tar"].endswith("(@N)")
    assert rows["max-downloads=N"].endswith("(default 1; @N)")
    assert "@N" not in rows["page-size=N"]
