"""Every command of the runbook, unchanged, on three hosts with a simulated Ops Manager.

The values that an operator fills in (addresses, IDs, paths, the user of mongod) are replaced. Commands for a host run
there through ssh. systemctl, runuser, and mongosh are stand-ins that record their arguments, because these hosts have
no systemd and no MongoDB server.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import HOSTS, ROOT, Lab
from support.agents import receipt_in

RUNBOOK = (ROOT / "restore_agent" / "share" / "doc" / "runbook.md").read_text().split("\n## ")[0]
STEPS = [step.partition("\n") for step in RUNBOOK.split("\n### ")[1:]]


def commands_of(text: str) -> str:
    """The indented blocks of a step, in order."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    return "\n".join(re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in blocks)


def filled_in(lab: Lab, text: str) -> str:
    """The commands with the lab's addresses, ids and paths. The hosts have LAB and host from their sshd."""
    hello = lab.simulator.hello
    for placeholder, value in {
        "KEY_FILE=/etc/restore-agent/key": f"KEY_FILE={lab.directory}/key",
        "/etc/pki/opsmanager-ca.pem": hello["ca_file"],
        "https://opsmanager.example.net:8443": hello["url"],
        "5fc4f5a8b2e4a1000155b6aa": hello["group_id"],
        "5fc4f6b2b2e4a1000155b7cc": hello["cluster_id"],
        "5fc4f7c1b2e4a1000155b8aa": lab.simulator.manager.snapshot_id,
        "PUBLIC_KEY=abcdefgh": f"PUBLIC_KEY={hello['public_key']}",
        "mongodb:mongodb": f"{os.getuid()}:{os.getgid()}",
        "expect_jobs = $JOBS": 'expect_jobs = $JOBS\npoll_interval = "0.2s"',  # for the sake of this test's time
        "/etc/restore-agent": "$LAB/$host/etc",
        "/backup/restore": "$LAB/$host/backup",
        "/var/lib/mongodb": "$LAB/$host/data",
        "/var/lib/restore": "$LAB/$host/unpacked",
    }.items():
        text = text.replace(placeholder, value)
    return text


def whole_script(lab: Lab) -> str:
    """All steps as one script for the administrator's host; those for each host are sent there."""
    lines = [f"set -euo pipefail; export LAB={lab.directory} PATH={lab.directory}/tools:$PATH"]
    for title, _, text in STEPS:
        lines.append(f"echo {shlex.quote(title)}")
        commands = filled_in(lab, commands_of(text))
        if "On the administrator's host" in title:
            lines.append(commands)
            continue
        for host, select in HOSTS.items():
            file = lab.directory / f"step-{title[0]}-{host}"
            before = (
                "export PATH=$LAB/tools:$PATH RESTORE_AGENT_CONFIG=$LAB/$host/etc/config.toml SELECT='electron_0-*'\n"
            )
            file.write_text((before + commands).replace("electron_0-*", select))
            lines.append(f"ssh {host} bash -euo pipefail -s < {file}")
    return "\n".join(lines)


def write_tools(lab: Lab) -> None:
    """The programs that the runbook calls and that need a word about this lab."""
    tools = lab.directory / "tools"
    tools.mkdir()
    programs = {
        "ssh": f'exec {shutil.which("ssh")} -F {lab.directory}/ssh_config "$@"',
        "restore-agent": f'exec {sys.executable} -m restore_agent "$@"',
        "systemctl": 'echo "$@" >> "$LAB/$host/systemctl"',
        "runuser": 'echo "$@" >> "$LAB/$host/runuser"',
        "mongosh": 'echo "$@" >> "$LAB/$host/mongosh"',
    }
    for name, command in programs.items():
        (tools / name).write_text(f"#!/bin/sh\n{command}\n")
        (tools / name).chmod(0o755)
    (lab.directory / "key").touch(mode=0o600)
    (lab.directory / "key").write_text(lab.simulator.hello["private_key"] + "\n")


@pytest.fixture
def lab() -> Iterator[Lab]:
    directory = Path(tempfile.mkdtemp(prefix="ra-"))
    with Lab(directory) as running:
        write_tools(running)
        yield running
    shutil.rmtree(directory)


def test_the_runbook_restores_data_files_on_every_host_from_a_new_request(lab: Lab) -> None:
    for host in lab.hosts.values():
        (host.directory / "data").mkdir()
        (host.directory / "data" / "old.wt").write_text("the disaster")
    done = subprocess.run(
        ["bash", "-s"],
        input=whole_script(lab),
        cwd=lab.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert "The batch is complete: all 3 archives are verified." in done.stdout
    assert "<!DOCTYPE html>" in (lab.directory / "report.html").read_text()
    assert done.stdout.count(".tar.gz: OK") == len(HOSTS)
    for name, host in lab.hosts.items():
        assert receipt_in(host.dest)["outcome"] == "verified"
        files = {path.name for path in (host.directory / "data").iterdir()}
        assert {"WiredTiger", "restoreInfo.txt", "journal"} <= files, name
        assert (host.directory / "data.before" / "old.wt").read_text() == "the disaster"
        assert (host.directory / "systemctl").read_text() == "stop mongod\nstart mongod\n"
        assert (host.directory / "runuser").read_text().startswith("-u mongodb -- mongod --dbpath")
        asked = (host.directory / "mongosh").read_text()
        steps = [asked.index(word) for word in ("dropDatabase", "minOpTimeRecovery", "shutdownServer", "rs.initiate")]
        assert steps == sorted(steps)
        assert (host.directory / "etc" / "key").stat().st_mode & 0o777 == 0o600
    ordered = [job for job in lab.simulator.jobs if job.max_downloads == 3]
    assert [job.downloads for job in ordered] == [1, 1, 1], "the batch that the runbook ordered, and no other"
    assert [secret for secret in lab.simulator.secrets if secret in done.stdout] == []


def test_the_runbook_marks_each_decision_of_an_operator() -> None:
    assert len(STEPS) == 8
    assert all("*Decide*" in text or "*decide*" in text for _, _, text in STEPS)
    assert all(commands_of(text).strip() for _, _, text in STEPS)
