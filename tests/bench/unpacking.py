"""From READY to the data path: the agent with --unpack, beside what people do with curl, sha1sum and tar.

The archive is a tree of files as WiredTiger's are, about half of it incompressible, packed by tar and gzip.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import measure
from .contest import AGENT, Contest, Sample, in_turn
from .link import link
from .measure import median
from .report import MIB, Findings, Goal
from .servers import Archive, Nginx, ops_manager

STOCK, ISAL, PLAIN = f"{AGENT}, zlib", f"{AGENT}, isal", f"{AGENT}, no unpacking"
CURL, TAR, IGZIP, PIGZ, TEE = (
    "curl -o",
    "curl && sha1sum && tar -xzf",
    "curl && sha1sum && tar -I igzip",
    "curl && sha1sum && tar -I pigz",
    "curl | tee | tar (proves nothing)",
)
_TRANSPORT = "http length"
_NO_LIMIT, _FOUR, _LINKS = "no limit", "four at once", {"1 Gbit/s": "1gbit", "2.5 Gbit/s": "2.5gbit"}
_WITHOUT_ISAL = "import sys; sys.modules['isal'] = None\nfrom restore_agent.cli.main import main; main()"
_WITH_ISAL = "from restore_agent.cli.main import main; main()"
_FILES, _BLOCK = 8, 32 << 10


@dataclass(frozen=True)
class Tree:
    """What is packed: bytes of its files, and the archive."""

    size: int
    archive: Archive


def make_tree(nginx: Nginx, which: str, size: int) -> Tree:
    """Make an archive of about `size` bytes below nginx's root: files of blocks, half random, half of documents."""
    top = nginx.root / f"tree-{which}" / "data"
    top.mkdir(parents=True)
    content = int(size * 1.72)
    for number in range(_FILES):
        with (top / f"collection-{number}.wt").open("wb") as file:
            for block in _blocks(number, content // _FILES):
                file.write(block)
    archive = nginx.root / "archives" / which
    pack = f"tar -C '{top.parent}' -cf - data | pigz -6 > '{archive}' && sha1sum '{archive}' && rm -r '{top.parent}'"
    done = subprocess.run(["sh", "-c", pack], check=True, capture_output=True, text=True)
    return Tree(content // _FILES // _BLOCK * _BLOCK * _FILES, Archive(which, archive.stat().st_size, done.stdout[:40]))


def _blocks(seed: int, size: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randint(2, 8)).hex() for _ in range(900)]
    text = " ".join(rng.choice(words) for _ in range(600_000)).encode()
    half = _BLOCK // 2
    for _ in range(size // _BLOCK):
        at = rng.randrange(len(text) - half)
        yield rng.randbytes(half) + text[at : at + half]


class UnpackFindings(Findings):
    """Samples by (link, command)."""

    ratio = 1.0
    """Bytes of the data path for each byte of the archive."""

    def goals(self) -> list[Goal]:
        """Compare with what was set."""
        rows = [
            (_NO_LIMIT, TAR, STOCK, 1.7, 2.2),
            (_NO_LIMIT, TAR, ISAL, 2.1, 2.8),
            (_NO_LIMIT, IGZIP, ISAL, 1.5, 1.9),
            (_FOUR, TAR, STOCK, 1.3, 1.6),
        ]
        found = [
            Goal(f"{where}: {ours} against {theirs}", self.seconds(where, theirs) / self.seconds(where, ours), *set_to)
            for where, theirs, ours, *set_to in rows
            if (where, theirs) in self.single
        ]
        for where, who, least, goal in (("1 Gbit/s", STOCK, 1.15, 1.05), ("2.5 Gbit/s", ISAL, 1.6, 1.25)):
            if (where, who) in self.single:
                ratio = self.seconds(where, who) / self.seconds(where, CURL)
                found.append(Goal(f"{where}: time of {who} against {CURL}", ratio, least, goal, True))
        if ("1 Gbit/s", PLAIN) in self.single:
            with_unpack, without = (self._transfer("1 Gbit/s", who) for who in (STOCK, PLAIN))
            found.append(
                Goal("1 Gbit/s: transfer with --unpack against without", with_unpack / without, 1.05, 1.0, True)
            )
        ours = [key for key in self.single if key in ((_NO_LIMIT, STOCK), (_NO_LIMIT, ISAL))]
        peak = max(sample.cost.memory for key in ours for sample in self.single[key])
        found.append(Goal("peak memory, one archive, MiB", peak / MIB, 80, 60, True))
        if self.memory_of_eight:
            found.append(Goal("peak memory, 8 archives at once, MiB", self.memory_of_eight / MIB, 120, 100, True))
        return found

    def _transfer(self, where: str, who: str) -> float:
        return median([sample.transfer for sample in self.single[where, who]])

    def table(self) -> str:
        """Everything, for a terminal."""
        about = f"archives of {self.size / MIB:.0f} MiB, data paths {self.ratio:.2f} times as large"
        lines = [f"== {self.target}, {about}, medians of whole runs, {self.conditions} =="]
        for where in dict.fromkeys(where for where, _ in self.single):
            lines += [
                "",
                f"{where:<36}{'seconds':>9}{'lowest':>8}{'highest':>9}{'transfer':>10}{'CPU s':>8}{'peak MiB':>10}",
            ]
            lines += [self._line(where, who) for seen, who in self.single if seen == where]
        lines += ["", f"{'':<58} measured  at least  goal", *(goal.line() for goal in self.goals())]
        return "\n".join(lines)

    def _line(self, where: str, who: str) -> str:
        samples = self.single[where, who]
        times = [sample.cost.seconds for sample in samples]
        cpu = median([sample.cost.cpu for sample in samples])
        peak = max(sample.cost.memory for sample in samples) / MIB
        spread = f"{median(times):>9.2f}{min(times):>8.2f}{max(times):>9.2f}"
        return f"{who:<36}{spread}{self._transfer(where, who):>10.2f}{cpu:>8.2f}{peak:>10.0f}"


class UnpackBench:
    """One target's measurements."""

    def __init__(self, given: argparse.Namespace, home: Path, target: Path) -> None:
        self._given, self._home, self._target = given, home, target / "target"
        self._until = time.monotonic() + given.seconds

    def run(self, name: str) -> UnpackFindings:
        """Measure everything."""
        given, nginx = self._given, Nginx(self._home)
        whole, part = make_tree(nginx, "whole", given.size), make_tree(nginx, "part", given.size // 4)
        findings = UnpackFindings(name, whole.archive.size, f"memory {given.memory}")
        findings.ratio = whole.size / whole.archive.size
        with nginx.running():
            here = Unpacking(nginx, self._target)
            with ops_manager(nginx, _TRANSPORT, whole.archive, 1, self._home / "one") as options:
                work = {who: here.agent(who, options, whole) for who in (STOCK, ISAL)}
                work |= {who: here.peer(who, whole) for who in (CURL, TAR, IGZIP, PIGZ, TEE)}
                in_turn(findings.single, _NO_LIMIT, work, given.rounds, self._until)
            with ops_manager(nginx, _TRANSPORT, part.archive, 4, self._home / "four") as options:
                work = {STOCK: here.agent(STOCK, options, part, 4), TAR: here.peer(TAR, part, 4)}
                in_turn(findings.single, _FOUR, work, given.rounds, self._until)
            with ops_manager(nginx, _TRANSPORT, part.archive, 8, self._home / "eight") as options:
                findings.memory_of_eight = here.agent(STOCK, options, part, 8, "--parallel=8")().cost.memory
        for rate in _LINKS if os.geteuid() == 0 else ():
            self._over(rate, whole, findings)
        return findings

    def _over(self, rate: str, tree: Tree, findings: UnpackFindings) -> None:
        with link(_LINKS[rate]) as ends:
            os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"127.0.0.1,{ends.address}"
            nginx = Nginx(self._home, ends.address, ends.server)
            home = self._home / f"link-{_LINKS[rate]}"
            with nginx.running(), ops_manager(nginx, _TRANSPORT, tree.archive, 1, home, ends.client) as options:
                there = Unpacking(nginx, self._target, ends.client)
                work = {who: there.agent(who, options, tree) for who in (STOCK, ISAL, PLAIN)}
                work[CURL] = there.peer(CURL, tree)
                in_turn(findings.single, rate, work, self._given.rounds, self._until)


class Unpacking:
    """Runs one command into an empty `target`, from where `prefix` puts it."""

    def __init__(self, nginx: Nginx, target: Path, prefix: Sequence[str] = ()) -> None:
        self._nginx, self._target, self._prefix = nginx, target, prefix
        self._empty = Contest(nginx, target).empty
        self._log = nginx.root / "commands.log"

    def agent(self, who: str, options: Sequence[str], tree: Tree, count: int = 1, *more: str) -> Callable[[], Sample]:
        """Return what runs the agent once and checks its receipt."""
        dest, data = self._target / "dest", self._target / "data"
        program = [sys.executable, "-c", _WITH_ISAL if who == ISAL else _WITHOUT_ISAL]
        command = [
            *self._prefix,
            *program,
            "run",
            *options,
            *more,
            f"--dest={dest}",
            "--output=json",
            "--progress=none",
        ]
        if who != PLAIN:
            command.append(f"--unpack={data}")

        def run() -> Sample:
            self._empty()
            cost = measure.run([[command]], self._log)
            receipt = json.loads((dest / "receipt.json").read_bytes())
            unpacked = [one["data_bytes"] for one in receipt["archives"]]
            if receipt["outcome"] != "verified" or (who != PLAIN and unpacked != [tree.size] * count):
                raise RuntimeError(f"the agent did not unpack what it was sent: {receipt}")
            return Sample(cost, max(one["seconds"] for one in receipt["archives"]), 0.0)

        return run

    def peer(self, who: str, tree: Tree, count: int = 1) -> Callable[[], Sample]:
        """Return what runs the steps of a peer once, `count` of them at the same time, and checks what they wrote."""
        places = [self._target / f"data-{number}" for number in range(count)]
        scripts = [
            _script(who, self._nginx.url(_TRANSPORT, tree.archive, number), self._target / f"{number}.tar.gz", place)
            for number, place in enumerate(places)
        ]

        def run() -> Sample:
            self._empty()
            for place in places:
                place.mkdir()
            cost = measure.side_by_side([[[*self._prefix, "bash", "-ec", script]] for script in scripts], self._log)
            for place in places if who != CURL else ():
                if sum(file.stat().st_size for file in place.rglob("*.wt")) != tree.size:
                    raise RuntimeError(f"{who} did not unpack what it was sent")
            return Sample(cost, cost.seconds, 0.0)

        return run


def _script(who: str, url: str, file: Path, place: Path) -> str:
    curl = f"curl --silent --show-error --fail '{url}'"
    if who == TEE:
        return f"set -o pipefail; {curl} | tee '{file}' | tar -xz -C '{place}'"
    if who == CURL:
        return f"exec {curl} -o '{file}'"
    unpack = {TAR: "-xzf", IGZIP: "-I igzip -xf", PIGZ: "-I pigz -xf"}[who]
    return f"{curl} -o '{file}'; sha1sum '{file}'; tar {unpack} '{file}' -C '{place}'"
