"""The whole drill in one play over three hosts: from a snapshot to data paths and one report on the control node."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from lab import HOSTS, LATEST, Lab
from plays import FROM_SNAPSHOT, HERE, QUICK, play, variables
from support.agents import deliveries, receipt_in

from restore_agent.simulator import Job, Simulator


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "lab"


def posts(sim: Simulator) -> int:
    """Requests for a restore that reached Ops Manager."""
    return len([one for one in sim.requests if one.method == "POST" and one.auth == "digest"])


def requested(sim: Simulator) -> list[Job]:
    """The restore jobs that a play requested."""
    return [job for job in sim.jobs if job.batch_id != sim.hello["batch_id"]]


def report_of(lab: Lab) -> Path:
    return lab.directory / "receipts" / str(requested(lab.simulator)[0].batch_id) / "report.html"


def test_a_play_restores_the_latest_snapshot_to_data_paths_and_writes_a_report(directory: Path) -> None:
    """One lab for the whole story. The executable is a script on the control node that is copied to the hosts."""
    with Lab(directory) as lab:
        executable = directory / "restore-agent-linux"
        executable.write_text(f'#!/bin/sh\nexec {sys.executable} -m restore_agent "$@"\n')
        lab.write_inventory(**QUICK, **FROM_SNAPSHOT, restore_agent_executable=str(executable), **own_paths())
        the_snapshot_is_restored_on_all_hosts(lab)
        a_second_play_finds_the_batch_and_changes_nothing(lab)
        another_snapshot_into_the_same_directories_is_not_requested(lab)
        a_check_with_other_directories_requests_nothing(lab)


def own_paths() -> dict[str, str]:
    """Paths of each host: all hosts are this machine."""
    return {
        "restore_agent_executable_dest": "{{ restore_agent_pyz_dest }}-linux",
        "restore_agent_unpack": "{{ restore_agent_config_dir }}-data",
    }


def the_snapshot_is_restored_on_all_hosts(lab: Lab) -> None:
    done = play(lab, version="oldest")
    assert done.code == 0, done.out
    jobs = requested(lab.simulator)
    assert (posts(lab.simulator), len(jobs)) == (1, len(HOSTS))
    for name, host in lab.hosts.items():
        (record,) = receipt_in(host.dest)["archives"]
        assert record["file_name"].startswith(HOSTS[name].rstrip("*"))
        assert (Path(record["data_path"]) / "WiredTiger").exists()
        assert json.loads((host.dest / "request.json").read_text())["batch_id"] == jobs[0].batch_id
        assert (host.directory / "bin" / "restore-agent-linux").exists()
        assert not (host.directory / "bin" / "restore-agent").exists(), "the executable comes before the zipapp"
    report = report_of(lab)
    assert f"Report: {report}" in done.out
    assert "The batch is complete: all 3 archives are verified." in report.read_text()
    assert [secret for secret in lab.simulator.secrets if secret in done.out + report.read_text()] == []


def a_second_play_finds_the_batch_and_changes_nothing(lab: Lab) -> None:
    report = report_of(lab)
    before = report.stat().st_mtime_ns
    again = play(lab, "--diff", version=LATEST)
    assert (again.code, again.changed) == (0, dict.fromkeys(HOSTS, 0)), again.out
    assert "Its restore was requested at" in again.out
    assert (posts(lab.simulator), len(deliveries(lab.simulator))) == (1, len(HOSTS))
    assert report.stat().st_mtime_ns == before


def another_snapshot_into_the_same_directories_is_not_requested(lab: Lab) -> None:
    stopped = play(lab, *variables(restore_agent_snapshot_before="1h"))
    assert stopped.code == 2, stopped.out
    assert "Nothing was requested." in stopped.out
    assert "has the receipt of batch" in stopped.out
    assert posts(lab.simulator) == 1


def a_check_with_other_directories_requests_nothing(lab: Lab) -> None:
    checked = play(lab, "--check", *variables(restore_agent_dest="{{ restore_agent_config_dir }}-next"))
    assert checked.code == 0, checked.out
    assert "A run would request its restore." in checked.out
    assert "The restore is not requested yet, so a check cannot plan the restore." in checked.out
    assert posts(lab.simulator) == 1


def test_a_broken_shard_fails_the_play_with_a_report_that_begins_with_it(directory: Path) -> None:
    with Lab(directory, "broken@0") as lab:
        lab.write_inventory(
            **HERE, **QUICK, **FROM_SNAPSHOT, restore_agent_unpack="{{ restore_agent_config_dir }}-data"
        )
        done = play(lab)
        assert done.code == 2, done.out
        assert done.failed == dict.fromkeys(HOSTS, 1), "no later play may go on anywhere"
        report = report_of(lab)
        assert f"Report: {report}" in done.out
        the_report_begins_with_the_broken_shard(report.read_text())
        assert "Next: Create a new restore job" in done.out
        assert re.search(r"shard0: electron_0-\S+: Ops Manager reports job status BROKEN.*\[job-broken\]", done.out)
        assert re.search(r"electron_0-\S+: verified on no host \(failed on shard0\)", done.out)
        assert receipt_in(lab.hosts["shard0"].dest)["exit_code"] == 21
        assert [receipt_in(lab.hosts[name].dest)["outcome"] for name in ("shard1", "config")] == ["verified"] * 2


def the_report_begins_with_the_broken_shard(page: str) -> None:
    texts = [
        "not complete: 2 of 3 archives are verified, 1 failed",
        "The restore job failed in Ops Manager",
        "electron_0-",
    ]
    places = [page.index(text) for text in texts]
    assert places == sorted(places)
    assert places[-1] < page.index("electron_1-"), "what is verified comes later"
