"""The real command line, whole runs (API with digest, download, SHA1, fsync, rename, receipt), beside its peers.

nginx serves over http and https, with a length and chunked. Every command writes a fresh file, whatever was written
before is removed first, and the order turns each round. Memory is kept from going back to the host of a virtual
machine, whose reluctance to give it again would be what is measured (`memory.py`; --memory=as-it-is leaves it). Peers
are timed without a sync; what syncing their file takes after it is added in the column `synced`. The agent always
syncs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .contest import AGENT, BEFORE, CURL_SUM, PEERS, Contest, Sample, in_turn, installed
from .flat import flat
from .memory import kept_warm
from .plot import svg
from .report import START_UP, Findings
from .servers import TRANSPORTS, Archive, Nginx, ops_manager
from .unpacking import UnpackBench

_RAM, _DISK = "/dev/shm", "/var/tmp"  # a directory of its own is made there
_NEEDED = {
    "nginx": "nginx-light",
    "openssl": "openssl",
    "curl": "curl",
    "aria2c": "aria2",
    "wget": "wget",
    "pigz": "pigz",
    "igzip": "isal",
    "tc": "iproute2",
}
_AT_ONCE, _MANY = 4, 8
_PATH = os.environ.get("PATH", "") + ":/usr/sbin"


def main() -> int:
    """Parse, measure, tell; 1 when a goal's least value is missed and --strict is given."""
    given = _parser().parse_args()
    given.size = given.size or _usual_size(given)
    given.rounds = given.rounds or (3 if given.quick else 5)
    _require_programs()
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1"
    given.out.mkdir(parents=True, exist_ok=True)
    if given.flat:
        with _home(_RAM) as home, _home(given.directory or _DISK) as target:
            return flat(home, target, given.size)
    missed = 0
    for target in ("ram", "disk") if given.target == "both" else (given.target,):
        where = given.directory or (_RAM if target == "ram" else _DISK)
        name = f"{'RAM disk' if target == 'ram' else 'disk'} ({where})"
        with _home(_RAM) as home, _home(where) as into, _memory(given, home):
            findings = (UnpackBench if given.unpack else Bench)(given, home, into).run(name)
        print(findings.table(), flush=True)
        file = given.out / f"bench-{'unpack-' if given.unpack else ''}{target}"
        file.with_suffix(".json").write_text(json.dumps(findings.data(), indent=1) + "\n")
        file.with_suffix(".svg").write_text(svg(findings))
        missed += sum(not goal.reached(goal.least) for goal in findings.goals())
    return 1 if missed and given.strict else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="archives of 256 MiB, three rounds")
    parser.add_argument("--target", choices=("ram", "disk", "both"), default="ram", help="where archives go (ram)")
    parser.add_argument("--directory", metavar="DIR", help=f"a directory on that target ({_RAM}, {_DISK})")
    parser.add_argument("--size", type=_size, metavar="SIZE", help="size of one archive (2G); four at once share it")
    parser.add_argument("--memory", choices=("warm", "as-it-is"), default="warm", help="see above (warm)")
    parser.add_argument("--rounds", type=int, metavar="N", help="runs of each command (5)")
    parser.add_argument("--only", action="append", metavar="WHO", help=f"{AGENT}, {', '.join(PEERS)}; repeatable")
    parser.add_argument("--transport", action="append", choices=TRANSPORTS, help="repeatable (all)")
    parser.add_argument("--agent", type=Path, metavar="FILE", help="the agent's program, such as the executable")
    parser.add_argument(
        "--before", type=Path, metavar="FILE", help="the program of an earlier version, measured in turn with this one"
    )
    parser.add_argument("--seconds", type=float, default=1500.0, metavar="MAX", help="begin no round after this (1500)")
    parser.add_argument("--flat", action="store_true", help="instead: memory and dirty pages over 8 GiB, and 8 at once")
    parser.add_argument(
        "--unpack",
        action="store_true",
        help="instead: until the data path is there, without a limit and over links of 1 and 2.5 Gbit/s",
    )
    parser.add_argument("--out", type=Path, default=Path(".bench"), metavar="DIR", help="for JSON and SVG (.bench)")
    parser.add_argument("--strict", action="store_true", help="exit 1 when an `at least` is missed")
    return parser


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if not match:
        raise argparse.ArgumentTypeError("a size is digits and K, M or G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


def _usual_size(given: argparse.Namespace) -> int:
    if given.quick:
        return 256 << 20
    return (8 if given.flat else 1 if given.unpack else 2) << 30


def _require_programs() -> None:
    """Install what is missing where that is allowed, else name it."""
    missing = [package for program, package in _NEEDED.items() if not shutil.which(program, path=_PATH)]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)
    elif missing:
        sys.exit(f"the bench needs these Debian packages: {' '.join(missing)}")


@contextlib.contextmanager
def _home(where: str) -> Iterator[Path]:
    """A directory of the bench's own, removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="restore-agent-bench-", dir=where))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _memory(given: argparse.Namespace, home: Path) -> contextlib.AbstractContextManager[None]:
    """Memory for the archives that are served, those that are written, and some more."""
    if given.memory == "warm":
        return kept_warm(home, (5 if given.unpack else 3) * given.size + (1 << 30))
    return contextlib.nullcontext()


class Bench:
    """One target's measurements."""

    def __init__(self, given: argparse.Namespace, home: Path, target: Path) -> None:
        self._size, self._memory, self._rounds = given.size, given.memory, given.rounds
        self._who = [one for one in (AGENT, *PEERS) if not given.only or one in given.only]
        self._transports = given.transport or list(TRANSPORTS)
        self._until = time.monotonic() + given.seconds
        self._home, self._target = home, target / "target"
        self._program = str(given.agent.absolute()) if given.agent else installed()
        self._before = str(given.before.absolute()) if given.before else None

    def run(self, name: str) -> Findings:
        """Measure everything."""
        findings, nginx = Findings(name, self._size, f"memory {self._memory}"), Nginx(self._home)
        whole = nginx.make("whole", self._size)
        part = nginx.make("part", self._size // _AT_ONCE)
        with nginx.running():
            contest = Contest(nginx, self._target, self._program)
            for transport in self._transports:
                with ops_manager(nginx, transport, whole, 1, self._home / transport.replace(" ", "-")) as options:
                    work = self._singles(contest, transport, whole, options)
                    in_turn(findings.single, transport, work, self._rounds, self._until)
            together = [one for one in self._transports if one.endswith("length")] or self._transports
            for transport in together if CURL_SUM in self._who and AGENT in self._who else []:
                home = self._home / f"{transport.replace(' ', '-')}-4"
                with ops_manager(nginx, transport, part, _AT_ONCE, home) as options:
                    work = self._fours(contest, transport, part, options)
                    in_turn(findings.together, transport, work, self._rounds, self._until)
            if AGENT in self._who:
                findings.memory_of_eight = self._eight(contest, nginx, part)
                findings.start_up = self._start_up()
        return findings

    Work = dict[str, Callable[[], Sample]]

    def _singles(self, contest: Contest, transport: str, archive: Archive, options: Sequence[str]) -> Work:
        peers = {who: lambda who=who: contest.peer(who, transport, archive) for who in self._who if who != AGENT}
        ours = {AGENT: lambda: contest.agent(options, archive)} if AGENT in self._who else {}
        if self._before:
            before = Contest(contest.nginx, self._target, self._before)
            ours[BEFORE] = lambda: before.agent(options, archive)
        return {**ours, **peers}

    def _fours(self, contest: Contest, transport: str, archive: Archive, options: Sequence[str]) -> Work:
        return {
            AGENT: lambda: contest.agent(options, archive, _AT_ONCE),
            CURL_SUM: lambda: contest.peer(CURL_SUM, transport, archive, _AT_ONCE),
        }

    def _eight(self, contest: Contest, nginx: Nginx, archive: Archive) -> int:
        """The peak memory of eight archives at once, over the transport that needs most."""
        transport = self._transports[-1]
        with ops_manager(nginx, transport, archive, _MANY, self._home / "eight") as options:
            return contest.agent(options, archive, _MANY, f"--parallel={_MANY}").cost.memory

    def _start_up(self) -> dict[str, list[float]]:
        """Seconds of `--version` and `--help` beside the least that a program with click can take."""
        agent = [self._program]
        found: dict[str, list[float]] = {name: [] for name in START_UP}
        for _ in range(4 * self._rounds):
            for name, arguments in START_UP.items():
                command = [sys.executable] if arguments[0] == "-c" else agent
                began = time.monotonic()
                subprocess.run([*command, *arguments], check=True, stdout=subprocess.DEVNULL, timeout=60)
                found[name].append(time.monotonic() - began)
        return found


if __name__ == "__main__":
    sys.exit(main())
