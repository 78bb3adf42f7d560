"""What goes on around the agent in a round: consoles, proxies, disks, other programs in DEST, `verify` in between."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Literal

from .servers import Server

Console = Literal["files", "full pipe", "stopped terminal"]
Verify = Literal["", "offline", "online"]
StrayKind = Literal["noise", "zeros", "another archive", "right bytes"]

Where = Literal["beside", "other disk", "dest"]
Obstacle = Literal["", "file", "directory", "empty directory", "link", "staging link", "staging file", "no directory"]
Afterwards = Literal["", "moved", "written"]

SUFFIXES = (".part", ".unproven", ".mismatch")


@dataclass(frozen=True)
class Stray:
    """A companion file of job number `job` that another program left before the first run.

    `foreign`: another user owns it and keeps it open for writing.
    """

    job: int
    suffix: str
    kind: StrayKind
    foreign: bool = False

    def __str__(self) -> str:
        return f"{self.kind} at {self.suffix} of job {self.job}{', of another user' * self.foreign}"


@dataclass(frozen=True)
class Intruder:
    """A file of another program that appears at the final name of a job, after so many journal lines."""

    job: int
    lines: int

    def __str__(self) -> str:
        return f"a file at the final name of job {self.job} after {self.lines} journal lines"


@dataclass(frozen=True)
class Extras:
    """The surroundings of one round. `slow_disk` is in seconds per sync; `syncs_often`: background syncs of a few KiB.

    `expect_jobs`: the command line says how many jobs the batch has. `other_batch`: a run for another batch comes
    between.
    """

    verify: Verify = ""
    proxy: bool = False
    slow_disk: float = 0.0
    syncs_often: bool = False
    console: Console = "files"
    strays: tuple[Stray, ...] = ()
    intruder: Intruder | None = None
    expect_jobs: bool = False
    other_batch: bool = False

    def __str__(self) -> str:
        shown = [f"{item.name} {getattr(self, item.name)}" for item in fields(self) if getattr(self, item.name)]
        strays = "; ".join(map(str, self.strays))
        shown = [f"strays: {strays}" if one.startswith("strays") else one for one in shown if one != "console files"]
        return ", ".join(shown) or "none"

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions of `defects.py` that the agent runs under."""
        slow = (f"slow disk {self.slow_disk}",) if self.slow_disk else ()
        return slow + (("sync often",) if self.syncs_often else ())

    @property
    def families(self) -> tuple[str, ...]:
        """The kinds of them, for the figures."""
        found = {
            f"verify {self.verify}": self.verify,
            "proxy": self.proxy,
            "slow disk": self.slow_disk,
            "background syncs": self.syncs_often,
            f"console: {self.console}": self.console != "files",
            "stray files": self.strays,
            "intruder": self.intruder,
            "run for another batch": self.other_batch,
        }
        return tuple(name for name, wanted in found.items() if wanted)


@dataclass(frozen=True)
class Unpack:
    """How a round unpacks. `disk_kib` is the size of a disk of its own that fills up; the obstacle concerns one job.

    `late`: the runs before the fate is over have no `--unpack`. `afterwards`: what happens to a data path at the end.
    """

    where: Where = "beside"
    discard: bool = False
    late: bool = False
    disk_kib: int = 0
    obstacle: Obstacle = ""
    job: int = 0
    afterwards: Afterwards = ""

    def __str__(self) -> str:
        shown = [self.where, *["discard"] * self.discard, *["late"] * self.late]
        shown += [f"disk of {self.disk_kib} KiB"] if self.disk_kib else []
        shown += [f"{self.obstacle} in the way of job {self.job}"] if self.obstacle else []
        return ", ".join([*shown, *filter(None, [self.afterwards])])

    @property
    def families(self) -> tuple[str, ...]:
        """The kinds of it, for the figures."""
        found = {
            f"unpack: {self.where}": True,
            "unpack: archive discarded": self.discard,
            "unpack: later": self.late,
            "unpack: full disk": self.disk_kib,
            f"unpack: {self.obstacle} in the way": self.obstacle,
            f"unpack: data path {self.afterwards}": self.afterwards,
        }
        return tuple(name for name, wanted in found.items() if wanted)


def draw_extras(rng: random.Random, server: Server) -> Extras:
    """The surroundings of a round with this server. Strays and intruders need names that are known beforehand."""
    named = not any(fault.startswith(("name", "same-name")) for fault in server.faults)
    jobs = range(server.jobs)
    strays = tuple(_stray(rng, rng.choice(jobs)) for _ in range(rng.choice((1, 1, 2)))) if rng.random() < 0.15 else ()
    intruder = Intruder(rng.choice(jobs), rng.randrange(3, 9)) if rng.random() < 0.08 else None
    return Extras(
        verify=rng.choice(("", "", "offline", "online")),
        proxy=rng.random() < 0.15,
        slow_disk=rng.choice((0.01, 0.05)) if rng.random() < 0.15 else 0.0,
        syncs_often=rng.random() < 0.3,
        console=rng.choice(("full pipe", "stopped terminal")) if rng.random() < 0.12 else "files",
        strays=tuple({(one.job, one.suffix): one for one in strays}.values()) if named else (),
        intruder=intruder if named else None,
        other_batch=server.jobs > 1 and rng.random() < 0.2,
        expect_jobs=any(fault.startswith(("appears-after", "job-unlisted")) for fault in server.faults),
    )


def _stray(rng: random.Random, job: int) -> Stray:
    kinds: tuple[StrayKind, ...] = ("noise", "zeros", "another archive", "right bytes")
    return Stray(job, rng.choice(SUFFIXES), rng.choice(kinds), foreign=rng.random() < 0.3)
