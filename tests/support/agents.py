"""Running the agent, and reading what a run left."""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_agent.simulator import Simulator
from restore_agent.simulator.log import Request

SMALL = 1 << 16
PATIENCE = 30.0
"""Seconds after which waiting for a condition is a failure; no test waits that long when all is well."""

QUICK = ("--poll-interval=0.05s", "--wait-timeout=5s", "--hash-timeout=2s", "--stall-timeout=5s")
"""RunLimits of tests; what a test gives after it wins."""

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


Restore = Callable[..., Result]


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
