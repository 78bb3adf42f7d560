"""Who runs against whom: the agent and its peers, each as the commands of one download into a fresh file."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import measure
from .measure import Cost, Pipeline
from .servers import Archive, Nginx, name_of

AGENT, CURL, CURL_SUM, TEE, ARIA, WGET = (
    "restore-agent",
    "curl -o",
    "curl -o && sha1sum",
    "curl | tee | sha1sum",
    "aria2c --checksum",
    "wget && sha1sum",
)
BEFORE = f"{AGENT}, before"
VERIFYING = (CURL_SUM, TEE, ARIA, WGET)
PEERS = (CURL, *VERIFYING)


@dataclass(frozen=True)
class Sample:
    """One run. `transfer` is what the agent's receipt says of it, for peers their time on the clock; `sync` is what
    making a peer's file durable took after it (the agent's is)."""

    cost: Cost
    transfer: float
    sync: float


def installed() -> str:
    """The agent of this environment."""
    return shutil.which("restore-agent", path=str(Path(sys.executable).parent)) or "restore-agent"


class Contest:
    """Runs everybody into `target`, which is emptied before each run, and checks that the archives came whole."""

    def __init__(self, nginx: Nginx, target: Path, program: str | None = None) -> None:
        self.nginx, self._target = nginx, target
        self._program = program or installed()
        self._log = nginx.root / "commands.log"

    def peer(self, who: str, transport: str, archive: Archive, count: int = 1) -> Sample:
        """`count` downloads at once by a peer; the sync of the files is timed after them."""
        self.empty()
        files = [self._target / name_of(archive, number) for number in range(count)]
        urls = [self.nginx.url(transport, archive, number) for number in range(count)]
        each = [_steps(who, url, file, archive, self.nginx) for url, file in zip(urls, files, strict=True)]
        cost = measure.run(each[0], self._log) if count == 1 else self._together(each)
        began = time.monotonic()
        measure.run([[["sync", str(file)]] for file in files], self._log)
        sync = time.monotonic() - began
        for file in files:
            self._check(file, archive)
        return Sample(cost, cost.seconds, sync)

    def _together(self, each: Sequence[Sequence[Pipeline]]) -> Cost:
        """Several downloads at once: each in a shell of its own, since their steps do not keep pace."""
        scripts = [" && ".join(_line(step) for step in steps) for steps in each]
        return measure.side_by_side([[["sh", "-c", script]] for script in scripts], self._log)

    def agent(self, options: Sequence[str], archive: Archive, count: int = 1, *more: str) -> Sample:
        """One whole run of the agent."""
        self.empty()
        dest = self._target / "dest"
        command = [self._program, "run", *options, *more, f"--dest={dest}", "--output=json", "--progress=none"]
        cost = measure.run([[command]], self._log)
        receipt = json.loads((dest / "receipt.json").read_bytes())
        if receipt["outcome"] != "verified" or [one["sha1"] for one in receipt["archives"]] != [archive.sha1] * count:
            raise RuntimeError(f"the agent did not prove what it was sent: {receipt}")
        for number in range(count):
            self._check(dest / name_of(archive, number), archive)
        return Sample(cost, max(one["seconds"] for one in receipt["archives"]), 0.0)

    def _check(self, file: Path, archive: Archive) -> None:
        if file.stat().st_size != archive.size:
            raise RuntimeError(f"{file} has {file.stat().st_size} bytes and should have {archive.size}")

    def empty(self) -> None:
        """Remove whatever was written before, and let the file system finish with it."""
        shutil.rmtree(self._target, ignore_errors=True)
        self._target.mkdir(parents=True)
        os.sync()


def in_turn(
    samples: dict[tuple[str, str], list[Sample]],
    label: str,
    work: dict[str, Callable[[], Sample]],
    rounds: int,
    until: float,
) -> None:
    """Run each command once per round, each round beginning with the next one; begin no round after `until`."""
    names = list(work)
    for number in range(rounds):
        if number and time.monotonic() > until:
            print(f"{label}: out of time after {number} rounds", file=sys.stderr)
            return
        for place in range(len(names)):
            who = names[(number + place) % len(names)]
            sample = work[who]()
            samples.setdefault((label, who), []).append(sample)
            print(f"{label}, round {number + 1}, {who}: {sample.cost.seconds:.2f} s", file=sys.stderr)


def _steps(who: str, url: str, file: Path, archive: Archive, nginx: Nginx) -> list[Pipeline]:
    """The pipelines that are one download by a peer, and the proof where it makes one."""
    curl = ["curl", "--silent", "--show-error", "--fail", "--cacert", str(nginx.certificate)]
    proof = [["sha1sum", str(file)]]
    if who == CURL:
        return [[[*curl, "-o", str(file), url]]]
    if who == CURL_SUM:
        return [[[*curl, "-o", str(file), url]], proof]
    if who == TEE:
        return [[[*curl, url], ["tee", str(file)], ["sha1sum"]]]
    if who == ARIA:
        where = [f"--dir={file.parent}", f"--out={file.name}", "--file-allocation=none", "--no-conf", "--quiet"]
        certificate = f"--ca-certificate={nginx.certificate}"
        return [[["aria2c", *where, certificate, f"--checksum=sha-1={archive.sha1}", "-x1", "-s1", url]]]
    return [[["wget", "-q", f"--ca-certificate={nginx.certificate}", "-O", str(file), url]], proof]


def _line(pipeline: Pipeline) -> str:
    return " | ".join(" ".join(f"'{word}'" for word in command) for command in pipeline)
