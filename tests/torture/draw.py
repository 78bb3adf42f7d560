"""What a round is about: a server's behaviour and the agent's fate, drawn from one seed.

Pure: the same seed gives the same draw. How the processes then interleave is up to the host.
"""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass, field, replace
from typing import Literal

from .extras import Extras, Obstacle, Unpack, Where, draw_extras
from .servers import Server, ordinary, refusing_api, shapes

Moment = Literal["start", "request", "delivery", "journal", "last-byte", "unpack", "held"]
FateKind = Literal["through", "sigterm", "sigint", "sighup", "kill", "full-disk", "second-agent", "pieces"]

WAIT_TIMEOUT = 4.0
HASH_TIMEOUT = 1.0
STALL_TIMEOUT = 1.0
POLL_INTERVAL = 0.05
"""RunLimits of the agents, in seconds: short, so that a round is."""


@dataclass(frozen=True)
class Interruption:
    """A signal to a running agent: `delay` seconds after the `number`th thing of a kind has happened in its run."""

    signal: int
    after: Moment
    number: int
    delay: float

    def __str__(self) -> str:
        name = signal.Signals(self.signal).name
        return f"{name} {self.delay * 1000:.0f} ms after {self.after} {self.number}"


@dataclass(frozen=True)
class Piece:
    """A run for some jobs of the batch only, by --job-id or --select, which may be interrupted."""

    by: Literal["job-id", "select"]
    jobs: tuple[int, ...]
    interruption: Interruption | None = None

    def __str__(self) -> str:
        jobs = " ".join(map(str, self.jobs))
        return f"--{self.by} of {jobs}{f' ({self.interruption})' if self.interruption else ''}"


@dataclass(frozen=True)
class Fate:
    """What happens to the agent before it is left alone. `disk_kib` is the size of a disk that fills up.

    `pieces` are runs for single jobs into the same DEST before the one for all.
    """

    kind: FateKind
    interruptions: tuple[Interruption, ...] = ()
    disk_kib: int = 0
    second_after: float = 0.0
    pieces: tuple[Piece, ...] = ()

    def __str__(self) -> str:
        more = [str(step) for step in (*self.interruptions, *self.pieces)]
        more += [f"disk of {self.disk_kib} KiB"] if self.disk_kib else []
        more += [f"{self.second_after * 1000:.0f} ms later"] if self.kind == "second-agent" else []
        return ", ".join([self.kind, *more])


@dataclass(frozen=True)
class Draw:
    """One round. `faults` are the simulator's; `families` names what they are of, for the figures."""

    seed: int
    tls: bool
    shards: int
    archive_size: int
    faults: tuple[str, ...]
    families: tuple[str, ...]
    retries: int
    parallel: int
    wait_timeout: float
    allow_unproven: bool
    debug: bool
    confirm: bool
    verify: bool
    fate: Fate
    extras: Extras = field(default_factory=Extras)
    unpack: Unpack | None = None

    def __str__(self) -> str:
        server = f"{'TLS, ' if self.tls else ''}{self.shards} shards, {self.archive_size} bytes"
        agent = f"--retries {self.retries} --parallel {self.parallel}{' --allow-unproven' * self.allow_unproven}"
        around = f"fate: {self.fate}\naround: {self.extras}\nunpack: {self.unpack}"
        return f"server: {server}: {' '.join(self.faults) or 'no fault'}\nagent: {agent}\n{around}"


def draw(seed: int) -> Draw:
    """The round with this seed."""
    rng = random.Random(f"torture/{seed}")
    shards = rng.choice((0, 0, 1, 1, 2, 3))
    archive_size = rng.choice((1 << 10, rng.randrange(1 << 10, 64 << 10), rng.randrange(64 << 10, 3 << 20)))
    crowded = rng.random() < 0.04  # more archives at once than a shared pool of threads has places
    if crowded:
        shards, archive_size = 7, rng.randrange(1 << 10, 64 << 10)
    server = Server(rng, shards + 1 if shards else 1)
    tls = seed % 2 == 1
    wait_timeout, fate_allowed = WAIT_TIMEOUT, True
    kind = rng.random()
    if kind < 0.06:
        refusing_api(server, tls, shards)
        wait_timeout, fate_allowed = 1.5, rng.random() < 0.3
    elif kind < 0.09:
        server.add("never ready", rng.choice(("never-ready", "unknown-status", "ready-without-url")) + server.place())
        wait_timeout = 1.5
    else:
        ordinary(server, archive_size)
    fate = _fate(rng, shards, archive_size) if fate_allowed else Fate("through")
    extras = draw_extras(random.Random(f"torture/extras/{seed}"), server) if fate_allowed else Extras()
    if crowded:
        extras = replace(extras, proxy=True, slow_disk=0.05)
    slow = extras.slow_disk > 0
    unpack = _unpack(random.Random(f"torture/unpack/{seed}"), server, fate, slow=slow) if fate_allowed else None
    if unpack:
        fate = _killed_while_unpacking(random.Random(f"torture/unpack/fate/{seed}"), fate)
    return Draw(
        seed=seed,
        tls=tls,
        shards=shards,
        archive_size=archive_size,
        faults=tuple(server.faults),
        families=tuple(dict.fromkeys((*server.families, *extras.families, *(unpack.families if unpack else ())))),
        retries=rng.choice((5, 5, 5, 8, 2, 1)),
        parallel=16 if crowded else rng.choice((4, 4, 1, 2)),
        wait_timeout=wait_timeout,
        allow_unproven=rng.random() < 0.15,
        debug=rng.random() < 0.5,
        confirm=rng.random() < 0.3,
        verify=rng.random() < 0.15,
        fate=fate,
        extras=extras,
        unpack=unpack,
    )


# ---------------------------------------------------------------- fates


def _fate(rng: random.Random, shards: int, archive_size: int) -> Fate:
    kinds: list[FateKind] = ["through", "through", "sigterm", "sigint", "sighup", "kill", "kill", "kill", "kill"]
    kinds += ["full-disk", "second-agent"]
    kinds += ["pieces", "pieces"] if shards else []
    kind: FateKind = rng.choice(kinds)
    if kind == "kill":
        return Fate(kind, tuple(_interruption(rng, signal.SIGKILL) for _ in range(rng.choice((1, 1, 2, 3, 4)))))
    if kind == "pieces":
        return Fate(kind, pieces=_pieces(rng, shards + 1))
    signals = {"sigterm": signal.SIGTERM, "sigint": signal.SIGINT, "sighup": signal.SIGHUP}
    if kind in signals:
        return Fate(kind, tuple(_interruption(rng, signals[kind]) for _ in range(rng.choice((1, 1, 2)))))
    if kind == "full-disk":
        total = archive_size * (shards + 1 if shards else 1)
        return Fate(kind, disk_kib=max(64, int(rng.choice((0.3, 0.7, 1.0, 1.5)) * total / 1024 + rng.randrange(1400))))
    return Fate(kind, second_after=rng.uniform(0.0, 0.8) if kind == "second-agent" else 0.0)


def _pieces(rng: random.Random, jobs: int) -> tuple[Piece, ...]:
    """Some jobs one by one or in groups, in any order, some of them interrupted."""
    order = rng.sample(range(jobs), rng.randrange(1, jobs + 1))
    cut = rng.randrange(1, len(order) + 1)
    groups = [group for group in (tuple(order[:cut]), tuple(order[cut:])) if group]
    return tuple(
        Piece(
            rng.choice(("job-id", "job-id", "select")),
            group,
            _interruption(rng, rng.choice((signal.SIGKILL, signal.SIGTERM))) if rng.random() < 0.5 else None,
        )
        for group in groups
    )


def _unpack(rng: random.Random, server: Server, fate: Fate, *, slow: bool) -> Unpack | None:
    """How the round unpacks, if it does, and archives that are worth it; `slow` is whether each sync is delayed."""
    if rng.random() < 0.45:
        return None
    shapes(server, rng, slow=slow)
    where: Where = rng.choice(("beside", "beside", "other disk", "other disk", "dest"))
    named = where != "dest" and not any(fault.startswith(("name", "same-name")) for fault in server.faults)
    obstacles: tuple[Obstacle, ...] = ("file", "directory", "empty directory", "link", "staging link", "staging file")
    small = where == "other disk" and fate.kind != "full-disk" and rng.random() < 0.25
    return Unpack(
        where=where,
        discard=rng.random() < 0.3,
        late=rng.random() < 0.15,
        disk_kib=rng.choice((4200, 4400, 5000, 6000)) if small else 0,
        obstacle=rng.choice((*obstacles, "no directory")) if named and not small and rng.random() < 0.2 else "",
        job=rng.randrange(server.jobs),
        afterwards=rng.choice(("", "", "moved", "written")),
    )


def _killed_while_unpacking(rng: random.Random, fate: Fate) -> Fate:
    """Let some of the signals come at moments of unpacking."""
    steps = tuple(
        Interruption(step.signal, "unpack", rng.randrange(1, 5), rng.choice((0.0, rng.uniform(0, 0.02))))
        if rng.random() < 0.5
        else step
        for step in fate.interruptions
    )
    return replace(fate, interruptions=steps)


def _interruption(rng: random.Random, number: int) -> Interruption:
    moments: tuple[Moment, ...] = ("start", "request", "delivery", "delivery", "journal", "journal", "last-byte")
    after = rng.choice(moments)
    most = {"start": 0, "request": 11, "delivery": 3, "journal": 13, "last-byte": 2}[after]
    delays = (0.0, rng.uniform(0, 0.02), rng.uniform(0, 0.3))
    delay = rng.uniform(0.0, 1.0) if after == "start" else rng.choice(delays)
    return Interruption(number, after, rng.randrange(1, most + 1) if most else 0, delay)
