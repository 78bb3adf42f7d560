"""The role with real ansible-core over real sshd: three hosts that each fetch their part of a batch."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab import BIN, HOSTS, LATEST, ROOT, Host, Lab, build_pyz
from plays import FROM_SNAPSHOT, HERE, LONGEST, QUICK, ended, followed, patiently, play, start_play, variables
from support.agents import deliveries, receipt_in


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("pyz") / "restore-agent.pyz"
    build_pyz(target)
    return target


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "lab"


def test_three_hosts_download_a_batch_and_a_second_run_changes_nothing(directory: Path, pyz: Path) -> None:
    """One story, told in one lab, since a play takes about 40 s of CPU time. Versions of ansible-core take turns.

    The zipapp compiles its modules at each start, so the last steps use the agent of this environment.
    """
    with Lab(directory) as lab:
        lab.write_inventory(restore_agent_pyz=str(pyz), **QUICK)
        on_fresh_hosts_a_check_places_nothing(lab)
        hosts_that_want_the_same_job_are_stopped_before_a_download(lab)
        a_check_is_a_plan(lab)
        the_batch_comes_home(lab)
        one_data_path_in_the_way_is_no_complete_batch(lab)
        the_batch_is_unpacked_without_a_download(lab)


def on_fresh_hosts_a_check_places_nothing(lab: Lab) -> None:
    checked = play(lab, "--check")
    assert checked.code == 0, checked.out
    assert "so a check cannot plan the restore" in checked.out
    assert "Nothing could be planned here yet." in checked.out
    assert not any((host.directory / "etc").exists() or host.dest.exists() for host in lab.hosts.values())


def hosts_that_want_the_same_job_are_stopped_before_a_download(lab: Lab) -> None:
    stopped = play(lab, *variables(restore_agent_select=["electron_*"]))
    assert stopped.code == 2, stopped.out
    assert "config and shard0 and shard1 would each download it" in stopped.out
    assert "electron_0-" in stopped.out
    assert deliveries(lab.simulator) == []


def a_check_is_a_plan(lab: Lab) -> None:
    checked = play(lab, "--check", "--diff", version="oldest")
    assert checked.code == 0, checked.out
    assert "No problems found." in checked.out
    assert checked.changed == dict.fromkeys(HOSTS, 1), "a run would fetch one archive on each host"
    assert re.search(r"^\+electron_0-.*: verified$", checked.out, re.MULTILINE)
    assert deliveries(lab.simulator) == []
    assert not any(host.dest.exists() for host in lab.hosts.values())


def the_batch_comes_home(lab: Lab) -> None:
    done = play(lab, *variables(restore_agent_snapshot="latest"), version="oldest")
    assert done.code == 0, done.out
    assert len(lab.simulator.jobs) == len(HOSTS), "a batch that is given comes before a snapshot"
    for name, host in lab.hosts.items():
        (record,) = receipt_in(host.dest)["archives"]
        assert record["verdict"] == "verified"
        assert record["file_name"].startswith(HOSTS[name].rstrip("*"))
        assert f"{record['file_name']}: verified" in done.out
        subprocess.run(["sha1sum", "--quiet", "-c", "SHA1SUMS"], cwd=host.dest, check=True)
        kept = lab.directory / "receipts" / lab.simulator.hello["batch_id"] / f"{name}.json"
        assert json.loads(kept.read_text()) == receipt_in(host.dest)
        for file in ("key", "config.toml"):
            assert stat.S_IMODE((host.directory / "etc" / file).stat().st_mode) == 0o600
        assert list((host.directory / "home" / ".ansible_async").iterdir()) == [], "cleared up"
    assert len(deliveries(lab.simulator)) == len(HOSTS)
    assert [secret for secret in lab.simulator.secrets if secret in done.out] == []


def one_data_path_in_the_way_is_no_complete_batch(lab: Lab) -> None:
    data = lab.directory / "data"
    data.mkdir()
    name = receipt_in(lab.hosts["shard0"].dest)["archives"][0]["file_name"].removesuffix(".tar.gz")
    (data / name).touch()
    stopped = play(lab, *variables(**HERE, restore_agent_unpack=str(data)), version=LATEST)
    assert stopped.code == 2, stopped.out
    assert f"{name}.tar.gz: verified on shard0, but not unpacked (data-path-in-the-way)" in stopped.out
    assert sum((data / one.name / "WiredTiger").exists() for one in data.iterdir()) == len(HOSTS) - 1
    (data / name).unlink()


def the_batch_is_unpacked_without_a_download(lab: Lab) -> None:
    data = lab.directory / "data"
    unpacking = variables(**HERE, restore_agent_unpack=str(data), restore_agent_discard_archive=True)
    done = play(lab, *unpacking)
    assert done.code == 0, done.out
    assert "Every job of the batch is verified and unpacked on its host." in done.out
    for host in lab.hosts.values():
        (record,) = receipt_in(host.dest)["archives"]
        assert (Path(record["data_path"]) / "WiredTiger").exists()
        assert (record["archive_kept"], record["path"]) == (False, None)
    again = play(lab, "-v", "--diff", *unpacking, version="oldest")
    assert (again.code, again.changed) == (0, dict.fromkeys(HOSTS, 0)), again.out
    assert len(deliveries(lab.simulator)) == len(HOSTS)
    assert [secret for secret in lab.simulator.secrets if secret in again.out] == []


def test_a_host_that_dies_during_its_download_is_restored_if_the_play_is_run_again(directory: Path) -> None:
    with Lab(directory, "max-downloads=2", "drip=64K@0", shards=1) as lab:
        lab.write_inventory(**HERE, **QUICK)
        host, dest = lab.hosts["shard0"], lab.hosts["shard0"].dest
        running = start_play(lab)
        part = wait_for_part(dest)
        time.sleep(0.5)  # in the middle of it
        assert host.kill() > 3, "the sshd, its session, the module and the agent"
        cut = ended(running)
        assert cut.code != 0
        assert cut.unreachable["shard0"] == 1
        assert "shard0: no receipt was returned" in cut.out
        assert part.exists(), "what has come stays"

        host.start()
        lab.simulator.set_faults("max-downloads=2")
        again = play(lab)
        assert again.code == 0, again.out
        assert again.changed["config"] == 0
        assert receipt_in(dest)["archives"][0]["downloads_spent"] == 2
        assert sorted(job.downloads for job in lab.simulator.jobs) == [1, 2]


def test_a_lost_run_is_reported_and_a_run_that_continues_without_its_play_is_awaited(directory: Path) -> None:
    with Lab(directory, "max-downloads=2", "drip=40K@0", shards=1) as lab:
        lab.write_inventory(**HERE, **QUICK, restore_agent_progress_every=1)
        host, dest = lab.hosts["shard0"], lab.hosts["shard0"].dest
        running = start_play(lab)
        wait_for_part(dest)
        for pid in detached(host):
            os.kill(pid, signal.SIGKILL)
        lost = ended(running)
        assert lost.code == 2, lost.out
        assert "The agent and its async task were killed on this host" in lost.out

        lab.simulator.set_faults("hash=never@0")  # the next run waits for it
        running = start_play(lab)
        patiently(lambda: lab.simulator.job(0).downloads == 2, "the second download")
        running.kill()  # the controller dies, the agent goes on
        running.communicate()
        earlier = r"Wait for the active run of an earlier play.*\n(?:skipping.*\n)*included: .* for shard0"
        again = followed(start_play(lab), earlier, lab.simulator.set_faults)
        assert again.code == 0, again.out
        assert re.search(earlier, again.out)
        assert again.changed == {"config": 0, "shard0": 2}, "its receipt is news here, and so is the report"
        assert [job.downloads for job in lab.simulator.jobs] == [2, 1]


def detached(host: Host) -> list[int]:
    """The agent on a host and what waits for it: what is not below the host's sshd any more."""
    return [pid for pid in host.processes() if re.search(r"async_wrapper|restore_agent", command_line(pid))]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def wait_for_part(dest: Path) -> Path:
    """The part file of a download that is under way."""
    return patiently(lambda: [path for path in dest.glob("*.part") if path.stat().st_size], "a download")[0]


def test_a_replica_set_from_its_snapshot_with_an_agent_that_pip_installs_without_an_index(directory: Path) -> None:
    with Lab(directory, shards=0) as lab:
        wheels = directory / "wheels"
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "-w", wheels, ROOT]
        subprocess.run(command, check=True, timeout=LONGEST)
        lab.write_inventory(
            restore_agent_install="pip",
            restore_agent_wheels=str(wheels),
            restore_agent_venv=str(directory / "venv"),
            **FROM_SNAPSHOT,
            **QUICK,
        )
        done = play(lab)
        assert done.code == 0, done.out
        (record,) = receipt_in(lab.hosts["shard0"].dest)["archives"]
        assert (record["verdict"], record["job_id"]) == ("verified", lab.simulator.jobs[-1].id)
        assert "pip install jinja2" in done.out, "without Jinja2, the report is text"
        report = directory / "receipts" / "jobs" / "report.txt"
        assert report.read_text().startswith("The batch is complete: its archive is verified.")
        patiently(lambda: not detached(lab.hosts["shard0"]), "the end of all that was started")


@pytest.mark.parametrize("version", sorted(BIN))
def test_the_playbook_parses(directory: Path, version: str) -> None:
    with Lab(directory) as lab:
        assert play(lab, "--syntax-check", version=version).code == 0
