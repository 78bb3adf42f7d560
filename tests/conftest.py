"""What tests of whole commands share: a simulator per test, the command line in this process, and as a process.

`run_agent` calls the real command line here and now, which is quick and counted by coverage; `start_agent` starts a
process of its own, for signals, kills and pipes. Both see an environment without this host's settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from restore_agent.cli import main
from restore_agent.simulator import Simulator
from restore_agent.simulator.log import Request

SMALL = 1 << 16
PATIENCE = 15.0
"""Seconds after which waiting for a condition is a failure; no test waits that long when all is well."""

QUICK = ("--poll-interval=0.05s", "--wait-timeout=5s", "--hash-timeout=2s", "--stall-timeout=5s")
"""Pace of tests; what a test gives after it wins."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Json]:
        """Standard output as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def result(self) -> Json:
        """The last line of JSON, which is the result of every run."""
        last = self.lines[-1]
        assert last["event"] == "result"
        return last

    def events(self, name: str) -> list[Json]:
        """The lines of one kind."""
        return [line for line in self.lines if line["event"] == name]

    @property
    def verdicts(self) -> list[str]:
        """The archives' verdicts, in the order of the result."""
        return [record["verdict"] for record in self.result["archives"]]

    @property
    def archive(self) -> Json:
        """The only archive of the result."""
        (record,) = self.result["archives"]
        return dict(record)


RunAgent = Callable[..., Result]
StartSimulator = Callable[..., Simulator]
StartAgent = Callable[..., "subprocess.Popen[str]"]


def connection_args(sim: Simulator, *, jobs: bool = True) -> list[str]:
    """The options that reach a simulator and, with `jobs`, name its batch or its only job."""
    hello = sim.hello
    key = sim.directory / "private-key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_text(hello["private_key"] + "\n")
    args = [f"--url={hello['url']}", f"--public-key={hello['public_key']}", f"--private-key-file={key}"]
    args += [f"--group-id={hello['group_id']}", f"--cluster-id={hello['cluster_id']}"]
    if hello["ca_file"]:
        args.append(f"--ca-file={hello['ca_file']}")
    if jobs and hello["batch_id"]:
        args.append(f"--batch-id={hello['batch_id']}")
    elif jobs:
        args += [f"--job-id={job_id}" for job_id in hello["job_ids"]]
    return args


def wait_until(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """The first true value of `condition`; a failure after PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError(f"{what} did not come about within {PATIENCE:.0f} s")


def deliveries(sim: Simulator) -> list[Request]:
    """The requests that reached a delivery URL, in order."""
    return [request for request in sim.requests if request.kind == "delivery"]


def sha1_of(path: Path) -> str:
    """SHA1 of a file, 40 hex digits."""
    return hashlib.sha1(path.read_bytes()).hexdigest()


def receipt_in(dest: Path) -> Json:
    """The receipt in DEST."""
    document: Json = json.loads((dest / "receipt.json").read_text())
    return document


def journal_in(dest: Path) -> list[Json]:
    """The journal's whole lines."""
    text = (dest / ".restore-agent" / "journal.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def status_in(dest: Path) -> Json:
    """The status file in DEST."""
    document: Json = json.loads((dest / ".restore-agent" / "status.json").read_text())
    return document


def snapshot_of(root: Path) -> dict[str, tuple[int, int, str]]:
    """Every file below `root`: mode, time of change, content hash. Equal snapshots: nothing was touched."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = sha1_of(path) if stat.S_ISREG(status.st_mode) else ""
        found[str(path.relative_to(root))] = (status.st_mode, status.st_mtime_ns, content)
    return found


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting, proxy, systemd credential or trust store of this host reaches a test."""
    for name in list(os.environ):
        if name.startswith("RESTORE_AGENT_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "JOURNAL_STREAM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)  # reading the system's store takes longer than most runs here
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A DEST that does not exist yet."""
    return tmp_path / "restore"


@pytest.fixture
def simulator() -> Iterator[StartSimulator]:
    """Start a simulator: `simulator("cut=50%", shards=0, archive_size=..., tls=True)`. Stopped after the test."""
    running: list[Simulator] = []

    def start(*faults: str, shards: int = 0, archive_size: int = SMALL, **more: Any) -> Simulator:
        sim = Simulator(faults=faults, shards=shards, archive_size=archive_size, **more)
        sim.start()
        running.append(sim)
        return sim

    yield start
    for sim in running:
        sim.stop()


@pytest.fixture
def run_agent(monkeypatch: pytest.MonkeyPatch) -> RunAgent:
    """Call the command line in this process: `run_agent(["run", ...], {"NAME": "value"})`."""

    def run(args: Sequence[object], env: Mapping[str, str] | None = None) -> Result:
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                pytest.raises(SystemExit) as end,
            ):
                main([str(arg) for arg in args])
        code = end.value.code
        assert isinstance(code, int)
        return Result(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def restore(run_agent: RunAgent, dest: Path) -> Callable[..., Result]:
    """`restore(sim, *options, env=...)`: `run` with quick pace and JSON output against a simulator, into `dest`."""

    def run(sim: Simulator, *options: object, env: Mapping[str, str] | None = None, to: Path | None = None) -> Result:
        args = ["run", *connection_args(sim), *QUICK, f"--dest={to or dest}", "--output=json", *options]
        return run_agent(args, env)

    return run


Restore = Callable[..., Result]


@pytest.fixture
def start_agent() -> Iterator[StartAgent]:
    """Start the command line as a process: `start_agent(["run", ...], {"NAME": "value"})` gives its Popen."""
    running: list[subprocess.Popen[str]] = []

    def start(args: Sequence[object], env: Mapping[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "restore_agent", *map(str, args)]
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **more}
        process = subprocess.Popen(command, env={**os.environ, **(env or {})}, text=True, **more)
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finished(process: subprocess.Popen[str]) -> Result:
    """Wait for a process of `start_agent`."""
    out, err = process.communicate(timeout=PATIENCE)
    return Result(process.returncode, out, err)


@contextlib.contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Run `action` in a thread beside the body (a call of `run_agent`); what it raises fails the test."""
    problems: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    try:
        yield
    except BaseException as failure:
        if problems:  # most likely why the body failed
            raise problems[0] from failure
        raise
    thread.join(PATIENCE)
    assert not thread.is_alive(), "what should have happened meanwhile did not end"
    if problems:
        raise problems[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a tmpfs: `small_disk(kib, "ro")` gives its directory. Skips where mounting is not allowed."""
    mounted: list[Path] = []

    def mount(kib: int, *options: str) -> Path:
        if os.geteuid() != 0 or not shutil.which("mount"):
            pytest.skip("mounting a small file system needs root")
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        wanted = ",".join([f"size={kib}k", "mode=0700", *options])
        command = ["mount", "-t", "tmpfs", "-o", wanted, "tmpfs", str(place)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting a small file system is not allowed here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


# ---------------------------------------------------------------- servers of raw bytes

Script = Callable[[socket.socket], None]


def says(*pieces: bytes | float) -> Script:
    """A server that sends these bytes, pausing for the numbers (seconds), and closes."""

    def play(connection: socket.socket) -> None:
        for piece in pieces:
            if isinstance(piece, bytes):
                connection.sendall(piece)
            else:
                time.sleep(piece)

    return play


@contextlib.contextmanager
def serving(*scripts: Script) -> Iterator[tuple[str, list[bytes]]]:
    """A server that plays one script per connection; the URL of an archive there, and the heads of its requests."""
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for script in scripts:
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        head = b""
                        while b"\r\n\r\n" not in head and (data := connection.recv(65536)):
                            head += data
                        heads.append(head)
                        script(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/pull/secret/a.tar.gz", heads
        listener.close()
