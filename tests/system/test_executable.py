"""The executable: one static file that runs on hosts without Python, libc, home directory, or writable /tmp.

scripts/test-executable builds it and runs these tests, and those of signals, locks, secrets, and the unit with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.agents import (
    PATIENCE,
    QUICK,
    Json,
    Result,
    StartAgent,
    StartSimulator,
    connection_args,
    finished,
    wait_until,
)
from support.program import EXECUTABLE
from support.single_file import ROOT

import restore_agent
from restore_agent.network.tls import CA_FILES
from restore_agent.simulator import Simulator

pytestmark = pytest.mark.skipif(not EXECUTABLE, reason="scripts/test-executable builds it and runs this")

PROGRAM = Path(EXECUTABLE or "/")
START_UP = 0.6
"""Seconds that `--version` may take."""


def call(*args: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the executable without any variable of this host, unless `env` is given."""
    more = {"env": {}, "capture_output": True, "text": True, "timeout": 60, **more}
    return subprocess.run([str(arg) for arg in (PROGRAM, *args)], check=False, **more)


class Jail:
    """A root directory with the executable and nothing else; it is entered in namespaces of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("proc", "dev", "tmp", "etc"):
            (root / name).mkdir(parents=True)
        shutil.copy(PROGRAM, root / "restore-agent")

    def add(self, name: str, content: str | bytes) -> Path:
        """Write a file."""
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def run(self, *args: object, mounts: str = "proc dev", before: str = "", user: str = "") -> Result:
        """Run the executable inside, with the given mounts."""
        script = "R=$1; shift; mount --make-rprivate /; "
        script += "mount -t proc proc $R/proc; " if "proc" in mounts else ""
        script += "mount --bind /dev $R/dev; " if "dev" in mounts else ""
        script += f"{before}; " if before else ""
        script += f'exec env -i {self.environment} {CHROOT} {user} "$R" /restore-agent "$@"'
        command = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-euc",
            script,
            "jail",
            self.root,
            *args,
        ]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    environment = ""


CHROOT = shutil.which("chroot", path=f"{os.environ['PATH']}:/usr/sbin") or "chroot"


@pytest.fixture
def jail(tmp_path: Path) -> Jail:
    """An empty root directory; skips where namespaces are not allowed."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("a root directory of its own needs root and namespaces")
    return Jail(tmp_path / "jail")


def reaching(jail: Jail, sim: Simulator, *, jobs: bool = False) -> list[str]:
    """The options that reach a simulator from inside, without a CA file, and with `jobs` name its only job."""
    key = jail.add("key", sim.hello["private_key"])
    key.chmod(0o600)
    skipped = ("--ca-file", "--private-key-file")
    return [arg for arg in connection_args(sim, jobs=jobs) if not arg.startswith(skipped)] + ["--private-key-file=/key"]


# ---------------------------------------------------------------- the file


def test_the_executable_is_one_static_program_for_any_kernel_since_3_2() -> None:
    headers = subprocess.run(["readelf", "-lnW", PROGRAM], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in headers
    assert "DYNAMIC" not in headers
    assert re.search(r"GNU_STACK\s.*\bRW\b", headers)
    oldest = re.search(r"OS: Linux, ABI: ([\d.]+)", headers)
    assert oldest
    operating = (ROOT / "restore_agent" / "share" / "doc" / "operating.md").read_text()
    assert f"Linux {oldest[1].removesuffix('.0')}" in operating


def test_the_executable_starts_quickly() -> None:
    def seconds() -> float:
        began = time.monotonic()
        assert call("--version").stdout == f"restore-agent, version {restore_agent.__version__}\n"
        return time.monotonic() - began

    assert min(seconds() for _ in range(5)) < START_UP


def test_the_hash_of_the_executable_is_in_the_hash_file_and_in_the_list_of_contents() -> None:
    name = PROGRAM.name
    done = subprocess.run(["sha256sum", "-c", f"{name}.sha256"], cwd=PROGRAM.parent, capture_output=True, check=False)
    assert done.returncode == 0
    listed = json.loads((PROGRAM.parent / f"{name}.cdx.json").read_text())
    sha256 = hashlib.sha256(PROGRAM.read_bytes()).hexdigest()
    assert listed["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": sha256}]
    inside = {entry["name"]: entry for entry in listed["components"]}
    assert {"httpx", "isal", "jinja2", "prometheus-client", "libssl-dev", "libc6-dev", "libpython3.11-dev"} <= set(
        inside
    )
    for entry in inside.values():
        assert entry["licenses"][0]["expression"], entry
        assert len(entry["hashes"][0]["content"]) == 64
    needed = {entry["ref"]: entry["dependsOn"] for entry in listed["dependencies"]}
    assert len(needed[listed["metadata"]["component"]["bom-ref"]]) == len(inside)


def test_its_list_of_contents_is_valid_cyclonedx() -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    listed = (PROGRAM.parent / f"{PROGRAM.name}.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(listed) is None


def test_the_executable_contains_every_file_of_an_installed_agent(tmp_path: Path) -> None:
    for args, said in [
        (["--help"], "ansible-collections"),
        (["explain", "23"], "downloads used up"),
        (["man", "run"], '.TH "RESTORE-AGENT-RUN"'),
        (["man", "runbook"], "Runbook"),
        (["completion", "bash"], "_RESTORE_AGENT_COMPLETE"),
        (["systemd"], f"ExecStart={PROGRAM} run"),
        (["alerts"], "RestoreFailed"),
        (["simulator", "--list-faults"], "max-downloads"),
        (["ansible-collections", "--extract", tmp_path / "collections"], "collections"),
    ]:
        done = call(*args)
        assert done.returncode == 0, (args, done.stderr)
        assert said in done.stdout, args
    role = tmp_path / "collections/ansible_collections/restore_agent/mongodb/roles/restore/tasks/main.yml"
    assert role.read_bytes() == (ROOT / "restore_agent/share" / role.relative_to(tmp_path / "collections")).read_bytes()


def test_it_writes_metrics(tmp_path: Path) -> None:
    assert call("run", f"--metrics-file={tmp_path / 'a.prom'}", "--url=http://127.0.0.1:9").returncode == 2
    assert "restore_agent_run_exit_code" in (tmp_path / "a.prom").read_text()


def test_a_truncated_copy_is_reported(tmp_path: Path) -> None:
    short = tmp_path / "restore-agent"
    short.write_bytes(PROGRAM.read_bytes()[:-1000])
    short.chmod(0o755)
    done = subprocess.run([short, "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"restore-agent: {short} is not complete; copy it again and compare its SHA-256\n"


def test_files_and_variables_of_a_python_on_the_host_have_no_effect(tmp_path: Path) -> None:
    copied = Path(shutil.copy(PROGRAM, tmp_path / "restore-agent"))
    (tmp_path / "json.py").write_text("raise SystemExit(99)")
    (tmp_path / "pyvenv.cfg").write_text(f"home = {tmp_path}\n")
    (tmp_path / "restore-agent._pth").write_text(f"{tmp_path}\n")
    env = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": str(tmp_path / "json.py")}
    done = subprocess.run([copied, "explain", "23"], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------- hosts with nothing


def assert_rehearsed(ended: Result) -> None:
    assert ended.code == 0, ended.err + ended.out
    assert ended.result["ops_manager"].startswith("https://")
    assert ended.verdicts == ["verified"] * 2
    assert all(record["data_path"] and record["data_files"] for record in ended.result["archives"])


REHEARSAL = ("rehearse", "--dest=/d", "--unpack=/u", "--shards=1", "--archive-size=256K", "--output=json")


def test_rehearse_works_in_an_empty_root_directory(jail: Jail) -> None:
    ended = jail.run(*REHEARSAL)
    assert_rehearsed(ended)
    assert list((jail.root / "tmp").iterdir()) == []
    page = (jail.root / "d/report.html").read_text()
    assert "<html" in page


def test_it_does_not_need_proc(jail: Jail) -> None:
    assert_rehearsed(jail.run(*REHEARSAL, mounts="dev"))


def test_the_executable_inflates_with_isal(jail: Jail) -> None:
    args = [arg for arg in REHEARSAL if arg != "--output=json"]
    assert re.search(r"inflating\s+with\s+isal", jail.run(*args, "--progress=plain").err)


def test_a_user_without_rights_name_home_or_utf_8_can_use_it(jail: Jail) -> None:
    place = jail.root / "ü"
    place.mkdir()
    os.chown(place, 4711, 4711)
    (jail.root / "tmp").chmod(0o1777)
    jail.environment = "LC_ALL=de_DE.ISO-8859-1 LANG=de_DE.ISO-8859-1"
    args = [arg.replace("=/", "=/ü/") if arg[:6] in ("--dest", "--unpa") else arg for arg in REHEARSAL]
    ended = jail.run(*args, user="--userspec=4711:4711")
    assert_rehearsed(ended)
    assert ended.result["archives"][0]["path"].startswith("/ü/d/")


@pytest.mark.parametrize("kind", ["noexec", "ro", "size=4k,nr_inodes=2"])
def test_the_executable_extracts_no_files_so_tmp_may_be_unusable(
    jail: Jail, simulator: StartSimulator, kind: str
) -> None:
    args = reaching(jail, simulator(shards=0), jobs=True)
    before = f"mount -t tmpfs -o {kind} tmpfs $R/tmp; (: > $R/tmp/full) 2>/dev/null || true"
    jail.environment = "TMPDIR=/tmp"
    ended = jail.run("run", *args, *QUICK, "--dest=/d", "--output=json", before=before)
    assert ended.code == 0, ended.err + ended.out
    assert ended.verdicts == ["verified"]


# ---------------------------------------------------------------- the trust store


@pytest.mark.parametrize("place", [*CA_FILES, "/etc/ssl/certs/hashed", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_the_certificates_of_the_system_are_found(jail: Jail, simulator: StartSimulator, place: str) -> None:
    sim = simulator(tls=True, shards=0)
    certificates = Path(sim.hello["ca_file"]).read_bytes()
    if place.startswith("/") and not place.endswith("hashed"):
        jail.add(place, certificates)
    elif place.endswith("hashed"):
        name = ["openssl", "x509", "-hash", "-noout", "-in", sim.hello["ca_file"]]
        hashed = subprocess.run(name, capture_output=True, text=True, check=True).stdout.strip()
        jail.add(f"/etc/ssl/certs/{hashed}.0", certificates)
    else:
        jail.add("/own/ca.pem", certificates)
        jail.environment = f"{place}=/own" + ("/ca.pem" if place == "SSL_CERT_FILE" else "")
    ended = jail.run("check", *reaching(jail, sim), "--output=json")
    assert ended.code == 0, ended.err + ended.out


def test_without_certificates_the_error_names_the_paths(jail: Jail, simulator: StartSimulator) -> None:
    ended = jail.run("check", *reaching(jail, simulator(tls=True, shards=0)))
    assert ended.code == 31
    said = " ".join((ended.out + ended.err).split())
    for place in CA_FILES:
        assert place in said


# ---------------------------------------------------------------- names


@contextmanager
def name_server(address: str) -> Iterator[list[bytes]]:
    """A DNS server on port 53 that answers each question for an IPv4 address with 127.0.0.1, and no other."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))

        def serve() -> None:
            while query := server.recvfrom(512):
                if len(query[0]) < 12:
                    return
                question = query[0][12 : query[0].index(b"\0", 12) + 5]
                asked.append(question)
                found = question.endswith(b"\0\1\0\1")
                head = query[0][:2] + b"\x81\x80\0\1" + (b"\0\1" if found else b"\0\0") + bytes(4)
                answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if found else b""
                server.sendto(head + question + answer, query[1])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield asked
        server.sendto(b"end", (address, 53))
        thread.join(PATIENCE)


SERVICES = "hosts: sss mymachines resolve [!UNAVAIL=return] files myhostname dns\npasswd: sss files systemd\n"


def test_names_are_resolved_by_etc_hosts_and_dns_whatever_nsswitch_conf_names(
    jail: Jail, simulator: StartSimulator
) -> None:
    sim = simulator(shards=0)
    jail.add("/etc/nsswitch.conf", SERVICES)
    jail.add("/etc/hosts", "127.0.0.1 in-hosts.example\n")
    jail.add("/etc/resolv.conf", "nameserver 127.0.0.77\noptions timeout:1 attempts:1\n")
    args = [arg for arg in reaching(jail, sim) if not arg.startswith("--url")]
    port = sim.hello["url"].rpartition(":")[2]
    with name_server("127.0.0.77") as asked:
        for name in ("in-hosts.example", "in-dns.example"):
            ended = jail.run("check", *args, f"--url=http://{name}:{port}")
            assert ended.code == 0, ended.err + ended.out
        assert any(b"in-dns" in question for question in asked)
        assert not any(b"in-hosts" in question for question in asked)


def test_a_name_server_that_does_not_answer_delays_no_signal(jail: Jail, simulator: StartSimulator) -> None:
    jail.add("/etc/resolv.conf", "nameserver 127.0.0.78\n")
    args = [arg for arg in reaching(jail, simulator(shards=0), jobs=True) if not arg.startswith("--url")]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.78", 53))
        server.settimeout(PATIENCE)
        command = [CHROOT, jail.root, "/restore-agent", "run", *args, "--url=http://in-dns.example", "--dest=/d"]
        (jail.root / "dev/null").touch()
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            server.recvfrom(512)
            began = time.monotonic()
            process.terminate()
            assert process.wait(PATIENCE) == 143
            assert time.monotonic() - began < 3


def test_it_connects_over_ipv6(jail: Jail, simulator: StartSimulator) -> None:
    sim = simulator(shards=0, host="::1")
    assert "[::1]" in sim.hello["url"]
    assert jail.run("check", *reaching(jail, sim)).code == 0


def test_an_owner_is_read_from_etc_passwd(jail: Jail, simulator: StartSimulator) -> None:
    jail.add("/etc/passwd", "mongod:x:4712:4713::/:/bin/false\n")
    jail.add("/etc/nsswitch.conf", SERVICES)
    args = ["run", *reaching(jail, simulator(shards=0), jobs=True), *QUICK, "--dest=/d", "--unpack=/u", "--output=json"]
    ended = jail.run(*args, "--owner=mongod:")
    assert ended.code == 0, ended.err + ended.out
    (data_path,) = (jail.root / "u").iterdir()
    assert (data_path.stat().st_uid, data_path.stat().st_gid) == (4712, 4713)
    assert jail.run(*args, "--owner=unknown").code == 2


# ---------------------------------------------------------------- processes


SLOW = "drip=128K"


def started(start_agent: StartAgent, sim: Simulator, dest: Path, *options: str, **more: Any) -> subprocess.Popen[str]:
    """A run that is downloading."""
    args = ["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--output=json", *options]
    process = start_agent(args, **more)
    wait_until(lambda: any(dest.glob("*.part")), "a download")
    return process


def children(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text().split()]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_run_is_one_process_that_a_signal_ends_within_three_seconds_without_a_lock(
    start_agent: StartAgent, simulator: StartSimulator, dest: Path, number: int, code: int
) -> None:
    sim = simulator(SLOW, shards=0, archive_size=1 << 20)
    process = started(start_agent, sim, dest)
    assert children(process.pid) == []
    assert Path(f"/proc/{process.pid}/exe").resolve() == PROGRAM.resolve()
    command = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
    assert sim.hello["private_key"] not in command
    began = time.monotonic()
    process.send_signal(number)
    assert finished(process).code == code
    assert time.monotonic() - began < 3
    again = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--output=json"])
    assert finished(again).code != 50


def test_a_signal_at_any_moment_of_the_start_has_the_exit_code_of_the_program(start_agent: StartAgent) -> None:
    args = ["simulator"]
    for delay in range(0, 120, 8):
        process = start_agent(args)
        exe = Path(f"/proc/{process.pid}/exe")
        wait_until(lambda exe=exe: os.readlink(exe) == str(PROGRAM), "the program")
        time.sleep(0.002 + delay / 1000)
        process.terminate()
        assert finished(process).code in (0, 143), delay


def test_after_kill_9_no_process_and_no_lock_is_left(
    start_agent: StartAgent, simulator: StartSimulator, dest: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    sim = simulator(SLOW, "max-downloads=3", shards=0, archive_size=1 << 18)
    process = started(start_agent, sim, dest, env={"TMPDIR": str(temporary)})
    group = os.getpgid(process.pid)
    process.kill()
    process.wait()
    assert list(temporary.iterdir()) == []
    assert [entry for entry in processes() if entry.get("exe") == str(PROGRAM) and entry["pgid"] != str(group)] == []
    args = ["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--output=json"]
    assert finished(start_agent(args)).code == 0


def processes() -> Iterator[Json]:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            yield {"exe": os.readlink(path / "exe"), "pgid": (path / "stat").read_text().rpartition(")")[2].split()[2]}
        except OSError:
            continue


def test_nohup_and_a_closed_terminal_do_not_end_it(
    start_agent: StartAgent, simulator: StartSimulator, dest: Path
) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = started(start_agent, simulator(SLOW, shards=0, archive_size=1 << 18), dest, preexec_fn=ignore)
    process.send_signal(signal.SIGHUP)
    assert finished(process).code == 0


def test_the_executable_may_be_replaced_by_another_version_while_it_runs(
    simulator: StartSimulator, dest: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copy(PROGRAM, tmp_path / "restore-agent"))
    sim = simulator(SLOW, shards=0, archive_size=1 << 18)
    args = ["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--output=json"]
    process = subprocess.Popen([copied, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any(dest.glob("*.part")), "a download")
    (tmp_path / "other").write_text("another version")
    (tmp_path / "other").rename(copied)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
