"""A systemd of its own, booted in fresh namespaces: units meet their real restrictions, and the host sees none of it.

It shares the host's network, so that it reaches a simulator on loopback. Needs root, systemd, and a cgroup2 hierarchy
that may be written; `boot` skips where one of them is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

SYSTEMD = Path("/lib/systemd/systemd")
JOURNALD = "/lib/systemd/systemd-journald"
PATIENCE = 20.0

_NO_DEFAULTS = "[Unit]\nDefaultDependencies=no\n"
_UNITS = {
    **{f"{name}.target": _NO_DEFAULTS for name in ("sysinit", "basic", "shutdown", "network-online", "umount")},
    "boot.target": f"{_NO_DEFAULTS}Wants=systemd-journald.socket\nAfter=systemd-journald.socket\n",
    "systemd-journald.socket": (
        f"{_NO_DEFAULTS}[Socket]\nListenStream=/run/systemd/journal/stdout\n"
        "ListenDatagram=/run/systemd/journal/socket\nPassCredentials=yes\nSocketMode=0666\n"
    ),
    "systemd-journald.service": (
        f"{_NO_DEFAULTS}[Service]\nType=notify\nExecStart={JOURNALD}\nSockets=systemd-journald.socket\n"
    ),
}
_BOOT = """\
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/etc-upper /run/etc-work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc-upper,workdir=/run/etc-work overlay /etc
mount -t tmpfs -o mode=0755 tmpfs /var/lib
mount -t tmpfs -o mode=0755 tmpfs /opt
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cp -r "$1"/opt/. /opt/
cp -r "$1"/etc/. /etc/
mount --make-rshared /  # as at the boot of a host: credentials are mounted by propagation
exec env -i container=test PATH="$PATH" SYSTEMD_UNIT_PATH="$1/units" \\
    /lib/systemd/systemd --system --unit=boot.target --show-status=no --log-target=null
"""


@dataclass
class Booted:
    """A running systemd; `pid` is its process in the host's view."""

    pid: int

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside; its standard output."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", "--ipc", "--uts", *command]
        done = subprocess.run(inside, check=False, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout

    def start(self, unit: str) -> None:
        """Start a unit without waiting for its end."""
        self.run("systemctl", "start", "--no-block", unit)

    def shown(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        out = self.run("systemctl", "show", *(f"--property={name}" for name in names), unit)
        return dict(line.split("=", 1) for line in out.splitlines())

    def ended(self, unit: str) -> dict[str, str]:
        """Wait until a unit rests; how it ended."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            shown = self.shown(unit, "ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts", "Job")
            if shown["ActiveState"] in ("inactive", "failed") and shown.get("Job", "") in ("", "0"):
                return shown
            time.sleep(0.05)
        raise AssertionError(f"{unit} did not end: {self.log(unit)}")

    def log(self, unit: str) -> list[str]:
        """What the journal holds of a unit's own output, each line with its priority: `<6>text`."""
        out = self.run("journalctl", "--output=json", "--no-pager", f"_SYSTEMD_UNIT={unit}")
        return [f"<{entry['PRIORITY']}>{entry['MESSAGE']}" for entry in map(json.loads, out.splitlines())]


@contextlib.contextmanager
def boot(place: Path, files: Mapping[str, str | Path], units: Mapping[str, str]) -> Iterator[Booted]:
    """Boot with `files` laid over /etc and /opt, and `units`. Everything ends with the block."""
    root = _cgroups()
    if os.geteuid() != 0 or not SYSTEMD.exists() or not shutil.which("nsenter") or root is None:
        pytest.skip("booting a systemd needs root, systemd, nsenter and a cgroup2 hierarchy")
    for name, text in {**_UNITS, **units}.items():
        _lay(place / "units" / name, text)
    for name, source in files.items():
        _lay(place / name.lstrip("/"), source)
    for name in ("etc", "opt"):
        (place / name).mkdir(exist_ok=True)
    group = root / f"restore-agent-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    spaces = ["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts", "--ipc", "--cgroup"]
    inner = ["unshare", *spaces, "bash", "-c", _BOOT, "boot", str(place)]
    command = ["bash", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *inner]
    with (place / "boot.log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield _wait(process, place / "boot.log")
    finally:
        process.kill()
        process.wait()
        _remove(group)


def _cgroups() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(where, os.W_OK):
            return Path(where)
    return None


def _lay(path: Path, source: str | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Path):
        shutil.copy(source, path)
    else:
        path.write_text(source)


def _wait(process: subprocess.Popen[bytes], log: Path) -> Booted:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        for pid in children.read_text().split():
            booted = Booted(int(pid))
            with contextlib.suppress(AssertionError):
                booted.run("systemctl", "show", "--property=Version")
                return booted
        time.sleep(0.05)
    pytest.skip(f"systemd does not boot here: {log.read_text()[-300:]}")


def _remove(group: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and group.exists():
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()
        time.sleep(0.02)
