"""Three hosts (or fewer) on this machine and a simulated Ops Manager, for the demo and for tests of playbooks.

Each host is an sshd of its own on a loopback address, with its own host key, home, configuration, DEST and agent.
`python -m tests.ansible.lab DIRECTORY` serves until SIGINT or SIGTERM; it writes inventory.yml,
ansible.cfg and playbook.yml there, and prints one line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipapp
from collections.abc import Iterator, Sequence
from importlib.metadata import files as files_of
from pathlib import Path
from typing import Any

from restore_agent.simulator import Simulator

ROOT = Path(__file__).parent.parent.parent
COLLECTIONS = ROOT / "restore_agent" / "share"
"""What ANSIBLE_COLLECTIONS_PATH holds: the directory with `ansible_collections` in it."""

_VENVS = ROOT / ".ansible"
BIN = {version: _VENVS / version / "bin" for version in ("oldest", "newest", "latest")}
"""Programs of each ansible-core that `scripts/test-ansible` installs; the latest needs a Python newer than 3.11."""

if not BIN["latest"].exists():
    del BIN["latest"]
LATEST = "latest" if "latest" in BIN else "newest"
"""The latest that is installed here."""

BASE_PYTHON = os.path.realpath(sys.executable)
HOSTS = {"shard0": "electron_0-*", "shard1": "electron_1-*", "config": "config-*"}
"""Host to the archives it fetches, as `select` of the role."""

_SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
_SSHD_CONFIG = """\
ListenAddress {address}
Port {port}
HostKey {directory}/host_key
PidFile {directory}/sshd.pid
AuthorizedKeysFile {directory}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
SetEnv HOME={directory}/home LAB={directory.parent} host={directory.name}
"""

_ANSIBLE_CFG = """\
[defaults]
collections_path = {collections}
home = {directory}/.ansible
local_tmp = {directory}/.ansible/tmp
inventory = {directory}/inventory.yml
nocows = true
[ssh_connection]
pipelining = true
ssh_args = -o ControlMaster=auto -o ControlPersist=15s
control_path_dir = {sockets}
"""

_PLAYBOOK = """\
- name: Restore the shards of a batch
  hosts: all
  gather_facts: false
  roles:
    - role: restore_agent.mongodb.restore
"""


class Host:
    """One host: an sshd and all that was started through it. `kill` ends it as a power cut would."""

    def __init__(self, name: str, address: str, directory: Path, public_key: str) -> None:
        self.name, self.address, self.directory = name, address, directory
        self.dest = directory / "backup"
        self.port = _free_port(address)
        (directory / "home").mkdir(parents=True)
        (directory / "bin").mkdir()
        _keygen(directory / "host_key")
        (directory / "authorized_keys").write_text(public_key)
        config = _SSHD_CONFIG.format(address=address, port=self.port, directory=directory)
        (directory / "sshd_config").write_text(config)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Let people in."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd asks for it when root starts it
        command = [_SSHD, "-D", "-e", "-f", str(self.directory / "sshd_config")]
        with (self.directory / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        _wait_for(lambda: _answers(self.address, self.port), f"the sshd of {self.name}")

    def kill(self) -> int:
        """End the sshd, its sessions and every process that was started through them, at once; how many there were."""
        ours = list(_tree(self._process.pid)) if self._process else []
        ours += [pid for pid in self.processes() if pid not in ours]
        for pid in ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process:
            self._process.wait()
        self._process = None
        return len(ours)

    def processes(self) -> list[int]:
        """Processes that were started through this host's sshd, by the home that it gave them."""
        mark = f"HOME={self.directory}/home".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    @property
    def known_host(self) -> str:
        """Its line of known_hosts."""
        return f"[{self.address}]:{self.port} {(self.directory / 'host_key.pub').read_text()}"


class Lab:
    """The hosts, the simulated Ops Manager, and what Ansible needs to reach them. Started and ended as a context."""

    def __init__(
        self, directory: Path, *faults: str, archive_size: int = 1 << 20, shards: int = len(HOSTS) - 1
    ) -> None:
        self.directory = directory
        self.simulator = Simulator(tls=True, shards=shards, archive_size=archive_size, faults=faults)
        directory.mkdir(parents=True, exist_ok=True)
        _keygen(directory / "user_key")
        public = (directory / "user_key.pub").read_text()
        self._is_sharded = shards > 0
        names = [*list(HOSTS)[:-1][: max(shards, 1)], *(["config"] if self._is_sharded else [])]
        self.hosts = {
            name: Host(name, f"127.0.0.{number}", directory / name, public)
            for number, name in enumerate(names, start=2)
        }
        self.inventory = directory / "inventory.yml"

    def __enter__(self) -> Lab:
        with contextlib.ExitStack() as stack:
            # not below the directory: a socket's path has room for about a hundred characters
            self._sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="ra-", ignore_cleanup_errors=True))
            stack.callback(self._end_hosts)
            stack.enter_context(self.simulator)
            for host in self.hosts.values():
                host.start()
            (self.directory / "known_hosts").write_text("".join(host.known_host for host in self.hosts.values()))
            self.write_inventory()
            self._write_settings()
            self._end = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    def _end_hosts(self) -> None:
        for host in self.hosts.values():
            host.kill()

    def write_inventory(self, **more: Any) -> None:
        """The inventory, in JSON, which is YAML; `more` are variables of all hosts."""
        hosts = {host.name: _host_vars(host) for host in self.hosts.values()}
        for host in hosts.values() if not self._is_sharded else ():
            host["restore_agent_select"] = []
        document = {"all": {"hosts": hosts, "vars": {**self._shared_vars(), **more}}}
        self.inventory.touch(mode=0o600)  # the private key stands in it, where a vault would hold it
        self.inventory.write_text(json.dumps(document, indent=2) + "\n")

    def _shared_vars(self) -> dict[str, Any]:
        hello = self.simulator.hello
        ssh = f"-o UserKnownHostsFile={self.directory}/known_hosts -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
        names = ("url", "public_key", "private_key", "group_id", "cluster_id", "batch_id")
        return {
            "ansible_ssh_private_key_file": str(self.directory / "user_key"),
            "ansible_ssh_common_args": ssh,
            "ansible_python_interpreter": BASE_PYTHON,
            **{f"restore_agent_{name}": hello[name] for name in names},
            "restore_agent_ca": hello["ca_file"],
            "restore_agent_expect_jobs": len(self.hosts),
            "restore_agent_pyz": str(self.directory / "restore-agent.pyz"),
            "restore_agent_python": BASE_PYTHON,
            "restore_agent_receipts": str(self.directory / "receipts"),
            "restore_agent_progress_every": 5,
        }

    def _write_settings(self) -> None:
        """For Ansible, so that this collection is found and no other settings are; for ssh; and a playbook."""
        (self.directory / "ansible.cfg").write_text(
            _ANSIBLE_CFG.format(directory=self.directory, collections=COLLECTIONS, sockets=self._sockets)
        )
        (self.directory / "playbook.yml").write_text(_PLAYBOOK)
        ssh = [f"UserKnownHostsFile {self.directory}/known_hosts", f"IdentityFile {self.directory}/user_key"]
        for host in self.hosts.values():
            ssh += [f"Host {host.name}", f"  HostName {host.address}", f"  Port {host.port}"]
        (self.directory / "ssh_config").write_text("\n".join(ssh) + "\n")


def _host_vars(host: Host) -> dict[str, Any]:
    return {
        "ansible_host": host.address,
        "ansible_port": host.port,
        "restore_agent_select": [HOSTS[host.name]],
        "restore_agent_dest": str(host.dest),
        "restore_agent_config_dir": str(host.directory / "etc"),
        "restore_agent_pyz_dest": str(host.directory / "bin" / "restore-agent"),
    }


def build_pyz(target: Path) -> None:
    """The agent in a single file: the project's own build where it is, else the packages of this environment zipped."""
    build = ROOT / "scripts" / "build-zipapp"
    if build.exists():
        subprocess.run([str(build)], check=True, stdout=subprocess.DEVNULL)
        shutil.copy(ROOT / "dist" / "restore-agent.pyz", target)
        return
    stage = target.with_suffix(".stage")
    shutil.copytree(
        ROOT / "restore_agent",
        stage / "restore_agent",
        ignore=shutil.ignore_patterns("ansible_collections", "__pycache__"),
    )
    for package in (
        "httpx",
        "httpcore",
        "h11",
        "anyio",
        "idna",
        "certifi",
        "aiofiles",
        "click",
        "tqdm",
        "typing_extensions",
    ):
        for file in files_of(package) or ():
            if file.suffix in (".py", ".pem") and ".." not in file.parts:
                (stage / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), stage / file)
    zipapp.create_archive(stage, target, interpreter="/usr/bin/env python3", main="restore_agent.cli.main:main")
    shutil.rmtree(stage)


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(path)], check=True)


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as listener:
        return int(listener.getsockname()[1])


def _answers(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


def _wait_for(condition: Any, what: str, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come up within {seconds:.0f} s")
        time.sleep(0.02)


def _tree(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _tree(int(child))


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a lab for people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="made anew")
    parser.add_argument("--fault", action="append", default=[], help="a fault of the simulated Ops Manager; repeatable")
    parser.add_argument("--archive-size", type=int, default=24 << 20, help="bytes of each archive")
    given = parser.parse_args(arguments)
    shutil.rmtree(given.directory, ignore_errors=True)
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with Lab(given.directory.absolute(), *given.fault, archive_size=given.archive_size) as lab:
        build_pyz(lab.directory / "restore-agent.pyz")
        data = f"{lab.directory}/{{{{ inventory_hostname }}}}/data"
        lab.write_inventory(restore_agent_snapshot="latest", restore_agent_batch_id="", restore_agent_unpack=data)
        print(json.dumps({"directory": str(lab.directory), "ops_manager": lab.simulator.hello["url"]}), flush=True)
        over.wait()


if __name__ == "__main__":
    main()
