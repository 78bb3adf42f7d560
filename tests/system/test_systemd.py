"""The unit: what it restarts for, how exposed it is, and that the agent really works under it, in a booted systemd."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from support.agents import PATIENCE, QUICK, Restore, RunAgent, StartAgent, StartSimulator, connection_args, wait_until
from support.booted import Booted, boot
from support.program import EXECUTABLE
from support.single_file import built

import restore_agent
from restore_agent.core.events import ArchiveProgress
from restore_agent.core.exit_codes import EXIT_CODES, codes
from restore_agent.simulator import Simulator
from restore_agent.ui.systemd import progress_line

PAGES = Path(restore_agent.__file__).parent / "share" / "man"
PYTHON = "/usr/bin/python3"
needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


@pytest.fixture
def unit(run_agent: RunAgent, tmp_path: Path) -> Path:
    """The installed unit."""
    ended = run_agent(["systemd", "--program=/bin/true", f"--install={tmp_path}"])
    assert ended.code == 0
    return Path(ended.out.strip())


def analyze(*args: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "MANPATH": str(PAGES)}
    return subprocess.run(["systemd-analyze", *map(str, args)], env=env, capture_output=True, text=True, check=False)


# ---------------------------------------------------------------- the text of the unit


def test_the_unit_is_printed_with_the_program_that_was_named(run_agent: RunAgent) -> None:
    text = run_agent(["systemd", "--program=/usr/bin/python3 /opt/restore-agent.pyz"]).out
    assert "\nExecStart=/usr/bin/python3 /opt/restore-agent.pyz run --progress plain\n" in text
    assert "@PROGRAM@" not in text


def test_the_unit_restarts_exactly_for_codes_that_the_runbook_marks_as_run_again_or_wait(run_agent: RunAgent) -> None:
    text = run_agent(["systemd", "--program=/bin/true"]).out
    found = re.search(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert found
    helps = {code for code in codes() if EXIT_CODES[code].next_step in ("run again", "wait")}
    assert {int(code) for code in found[1].split()} == set(codes()) - helps - {0}


def test_an_installed_unit_is_readable_and_complete(unit: Path) -> None:
    assert unit.name == "restore-agent@.service"
    assert unit.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in unit.parent.iterdir()] == [unit.name]


def test_a_directory_that_cannot_be_written_is_a_usage_error(run_agent: RunAgent) -> None:
    ended = run_agent(["systemd", "--program=/bin/true", "--install=/proc/no-such"])
    assert ended.code == 2
    assert "/proc/no-such" in ended.err


@pytest.mark.parametrize(
    ("started", "line"),
    [
        ("/opt/agent/bin/restore-agent", "/opt/agent/bin/restore-agent"),
        ("/opt/my agent/50%/restore-agent", '"/opt/my agent/50%%/restore-agent"'),
        ("/opt/restore-agent.pyz", "/usr/bin/python3 /opt/restore-agent.pyz"),
        ("/opt/lib/restore_agent/__main__.py", "/usr/bin/python3 -m restore_agent"),
    ],
)
def test_the_unit_starts_the_agent_with_the_command_that_printed_it(
    run_agent: RunAgent, monkeypatch: pytest.MonkeyPatch, started: str, line: str
) -> None:
    monkeypatch.setattr("sys.argv", [started])
    monkeypatch.setattr("sys.executable", PYTHON)
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    assert f"\nExecStart={line} run" in run_agent(["systemd"]).out


@pytest.mark.parametrize(
    "started", ["/home/op/clone/.venv/bin/restore-agent", "/run/user/0/restore-agent.pyz", "/tmp/restore-agent"]
)
def test_a_program_that_the_unit_cannot_access_is_printed_with_a_warning_and_not_installed(
    run_agent: RunAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, started: str
) -> None:
    monkeypatch.setattr("sys.argv", [started])
    printed = run_agent(["systemd"])
    assert (printed.code, "[Service]" in printed.out) == (0, True)
    installed = run_agent(["systemd", f"--install={tmp_path}"])
    assert (installed.code, list(tmp_path.iterdir())) == (2, [])
    for ended in (printed, installed):
        assert "cannot access" in ended.err
        assert "--program" in ended.err


@needs_analyze
def test_systemd_reports_no_problem_in_the_unit(unit: Path) -> None:
    done = analyze("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")


@needs_analyze
def test_the_unit_has_a_low_exposure_level(unit: Path) -> None:
    done = analyze("security", "--offline=true", "--threshold=15", unit)
    assert done.returncode == 0, done.stdout
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure
    assert float(exposure[1]) <= 1.5


# ---------------------------------------------------------------- the status line


def manager(address: str) -> socket.socket:
    """What a service manager listens on."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind("\0" + address[1:] if address.startswith("@") else address)
    listener.setblocking(False)
    return listener


def heard(listener: socket.socket) -> list[str]:
    told = []
    while True:
        try:
            told.append(listener.recv(65536).decode())
        except BlockingIOError:
            return told


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_service_manager_receives_the_progress_of_the_run(
    simulator: StartSimulator, restore: Restore, tmp_path: Path, kind: str
) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@restore-agent-test-{os.getpid()}"
    with manager(address) as listener:
        assert restore(simulator("ready-after=0.5", shards=1), env={"NOTIFY_SOCKET": address}).code == 0
        told = heard(listener)
    assert told[0].startswith("READY=1\nSTATUS=archives go to ")
    assert any(re.search(r"STATUS=\d of \d archives finished", message) for message in told)
    assert told[-1] == "STOPPING=1\nSTATUS=exit code 0: every selected archive is verified, now or already"


def test_the_service_manager_receives_the_reason_of_a_failure_without_a_secret(
    simulator: StartSimulator, restore: Restore, tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    sim = simulator("forbidden")
    with manager(address) as listener:
        assert restore(sim, env={"NOTIFY_SOCKET": address}).code == 30
        (*_, last) = heard(listener)
    assert last.startswith("STOPPING=1\nSTATUS=exit code 30: ")
    assert last.count("\n") == 1
    assert not any(secret in last for secret in sim.secrets)


def test_the_status_line_counts_archives_by_their_state() -> None:
    def row(state: str, size: int, rate: int = 0) -> ArchiveProgress:
        return ArchiveProgress(state, None, state, size, None, rate, None, 0, delivery_status="IN_PROGRESS")

    rows = (row("verified", 9), row("downloading", 1 << 20, 1024), row("hashing", 1 << 20), row("waiting", 0))
    assert progress_line(rows) == (
        "1 of 4 archives finished; 2 in progress with 2.0 MiB, 1.0 KiB/s; waiting for 1 job: 1 IN_PROGRESS"
    )
    assert progress_line(rows[:1]) == "1 of 1 archives finished"


@pytest.mark.parametrize("address", ["/no/such/socket", "relative", "@", ""])
def test_a_missing_service_manager_ends_no_run(simulator: StartSimulator, restore: Restore, address: str) -> None:
    assert restore(simulator(), env={"NOTIFY_SOCKET": address}).code == 0


def test_a_service_manager_that_does_not_read_delays_nothing(
    simulator: StartSimulator, restore: Restore, tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    with manager(address), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                other.sendto(b"STATUS=full", address)
        assert restore(simulator(), env={"NOTIFY_SOCKET": address}).code == 0


# ---------------------------------------------------------------- the journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[TextIO]:
    """A stream that is the journal, as JOURNAL_STREAM names one."""
    with (tmp_path / "journal").open("w") as stream:
        yield stream


def stream_of(stream: TextIO, inode: int = 0) -> dict[str, str]:
    status = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + inode}"}


def test_in_the_journal_each_entry_is_one_line_with_its_priority(
    simulator: StartSimulator, start_agent: StartAgent, journal: TextIO, dest: Path
) -> None:
    args = ["run", *connection_args(simulator("cut=50%x9", "max-downloads=2")), *QUICK, f"--dest={dest}"]
    process = start_agent(args, stream_of(journal), stderr=journal)
    assert process.wait(PATIENCE) == 23
    lines = Path(journal.name).read_text().splitlines()
    assert all(re.match(r"<[346]>\S", line) for line in lines), lines
    assert any(re.match(r"<4>.*next attempt in", line) for line in lines)
    (error,) = [line for line in lines if line.startswith("<3>")]
    assert re.match(r"<3>error: .*\[downloads-used-up\]; on disk: .*; download spent: yes; next: ", error)


def test_a_stream_other_than_the_journal_has_times_and_no_priorities(
    simulator: StartSimulator, start_agent: StartAgent, journal: TextIO, dest: Path
) -> None:
    """As when a unit's output is piped on: JOURNAL_STREAM is inherited, but names another stream."""
    args = ["run", *connection_args(simulator()), *QUICK, f"--dest={dest}"]
    assert start_agent(args, stream_of(journal, inode=1), stderr=journal).wait(PATIENCE) == 0
    lines = Path(journal.name).read_text().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines), lines


# ---------------------------------------------------------------- under a real systemd


def configuration(sim: Simulator, name: str) -> str:
    hello = sim.hello
    values = {option: hello[option] for option in ("url", "public_key", "group_id", "cluster_id", "batch_id")}
    values |= {"wait_timeout": "0.5s"} if name == "late" else {}
    values |= {"ca_file": f"/etc/restore-agent/{name}.pem", "dest": f"/var/lib/restore-agent/{name}"}
    values |= {"poll_interval": "0.1s", "hash_timeout": "5s"}
    values |= {"dest": "/opt/backup/restore", "metrics_file": "/opt/metrics/a.prom"} if name == "elsewhere" else {}
    return "".join(f'{option} = "{value}"\n' for option, value in values.items())


@pytest.fixture(scope="module")
def sims() -> Iterator[dict[str, Simulator]]:
    """A simulator for each instance of the unit."""
    faults = {"whole": ["drip=96K"], "late": ["never-ready"], "refused": ["forbidden"], "slow": ["drip=16K"]}
    faults |= {"elsewhere": []}
    running = {
        name: Simulator(faults=given, shards=1, archive_size=1 << 18, tls=True) for name, given in faults.items()
    }
    for sim in running.values():
        sim.start()
    yield running
    for sim in running.values():
        sim.stop()


def program(factory: pytest.TempPathFactory) -> tuple[list[str], str, Path]:
    """How the agent is called here, how in the booted host, and the file that is laid there."""
    if EXECUTABLE:
        return [EXECUTABLE], "/opt/restore-agent", Path(EXECUTABLE)
    if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", "import tomllib"], check=False).returncode:
        pytest.skip(f"{PYTHON} is not there or too old: the unit cannot see one below a home directory")
    pyz = built(factory) / "restore-agent.pyz"
    return [PYTHON, str(pyz)], f"{PYTHON} /opt/restore-agent.pyz", pyz


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, sims: dict[str, Simulator]) -> Iterator[Booted]:
    """A host with the single file, the unit, and an instance for each simulator."""
    command, place, file = program(tmp_path_factory)
    unit = subprocess.run(
        [*command, "systemd", f"--program={place}"], capture_output=True, text=True, check=True
    ).stdout
    units = {"restore-agent@.service": unit}
    units["restore-agent@.service.d/soon.conf"] = "[Service]\nRestartSec=100ms\n"
    units["restore-agent@elsewhere.service.d/place.conf"] = (
        "[Service]\nUser=nobody\nReadWritePaths=/opt/backup /opt/metrics\n"
    )
    files: dict[str, str | Path] = {place.split()[-1]: file}
    for name, sim in sims.items():
        files[f"/etc/restore-agent/{name}.toml"] = configuration(sim, name)
        files[f"/etc/restore-agent/{name}.key"] = sim.hello["private_key"] + "\n"
        files[f"/etc/restore-agent/{name}.pem"] = Path(sim.hello["ca_file"])
    with boot(tmp_path_factory.mktemp("host"), files, units) as booted:
        booted.run("sh", "-c", "chmod 0600 /etc/restore-agent/*.key")
        yield booted


def test_the_agent_restores_under_every_restriction_of_the_unit(host: Booted, sims: dict[str, Simulator]) -> None:
    unit = "restore-agent@whole.service"
    host.start(unit)
    shown = wait_until(lambda: (text := host.shown(unit, "StatusText")["StatusText"]) and "finished" in text and text)
    assert re.match(r"\d of 2 archives finished", shown)
    pid = host.shown(unit, "MainPID")["MainPID"]
    confined = host.run("cat", f"/proc/{pid}/status")
    assert re.search(r"^Seccomp:\s+2$", confined, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", confined, re.MULTILINE)
    ended = host.ended(unit)
    assert (ended["Result"], ended["ExecMainStatus"], ended["NRestarts"]) == ("success", "0", "0"), host.log(unit)
    place = "/var/lib/private/restore-agent/whole"
    receipt = json.loads(host.run("cat", f"{place}/receipt.json"))
    assert [one["verdict"] for one in receipt["archives"]] == ["verified", "verified"]
    assert "FAILED" not in host.run("sh", "-c", f"cd {place} && sha1sum -c SHA1SUMS")
    boots = [
        line.get("boot")
        for line in map(json.loads, host.run("cat", f"{place}/.restore-agent/journal.jsonl").splitlines())
    ]
    assert Path("/proc/sys/kernel/random/boot_id").read_text().strip() in boots


def test_with_a_drop_in_the_agent_writes_to_a_directory_of_another_user(host: Booted) -> None:
    host.run("install", "-d", "-o", "nobody", "/opt/backup", "/opt/metrics")
    unit = "restore-agent@elsewhere.service"
    host.start(unit)
    assert host.ended(unit)["ExecMainStatus"] == "0", host.log(unit)
    assert host.run("stat", "--format=%U %a", "/opt/backup/restore/receipt.json") == "nobody 600\n"
    assert "restore_agent_run_exit_code" in host.run("cat", "/opt/metrics/a.prom")


def test_jobs_that_are_not_ready_are_waited_for_again(host: Booted) -> None:
    unit = "restore-agent@late.service"
    host.start(unit)
    wait_until(lambda: int(host.shown(unit, "NRestarts")["NRestarts"]) >= 1, "a restart")
    host.run("systemctl", "stop", unit)


def test_a_refusal_is_not_retried_and_is_in_the_journal_with_its_priority(host: Booted) -> None:
    unit = "restore-agent@refused.service"
    host.start(unit)
    ended = host.ended(unit)
    assert (ended["Result"], ended["ExecMainStatus"], ended["NRestarts"]) == ("exit-code", "30", "0"), host.log(unit)
    log = wait_until(lambda: [line for line in host.log(unit) if line.startswith("<3>")], "the error in the journal")
    (error,) = log
    assert error.startswith("<3>error: ")
    assert "; next: " in error


def test_a_stop_ends_the_run_cleanly_without_a_restart(host: Booted) -> None:
    unit = "restore-agent@slow.service"
    host.start(unit)
    wait_until(
        lambda: host.run("sh", "-c", "ls /var/lib/private/restore-agent/slow/*.part", check=False), "a part file"
    )
    host.run("systemctl", "stop", unit)
    ended = host.ended(unit)
    assert (ended["ExecMainStatus"], ended["NRestarts"]) == ("143", "0")
    status = json.loads(host.run("cat", "/var/lib/private/restore-agent/slow/.restore-agent/status.json"))
    assert status["state"] == "interrupted"
