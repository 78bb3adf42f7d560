"""What a round is about: a server's behaviour and the agent's fate, drawn from one seed.

Pure: the same seed gives the same draw. How the processes then interleave is up to the host.
"""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass, field
from typing import Literal

Moment = Literal["start", "request", "delivery", "journal"]
FateKind = Literal["through", "sigterm", "sigint", "kill", "full-disk", "second-agent"]

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
class Fate:
    """What happens to the agent before it is left alone. `disk_kib` is the size of a disk that fills up."""

    kind: FateKind
    interruptions: tuple[Interruption, ...] = ()
    disk_kib: int = 0
    second_after: float = 0.0

    def __str__(self) -> str:
        more = [str(step) for step in self.interruptions]
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

    def __str__(self) -> str:
        server = f"{'TLS, ' if self.tls else ''}{self.shards} shards, {self.archive_size} bytes"
        agent = f"--retries {self.retries} --parallel {self.parallel}{' --allow-unproven' * self.allow_unproven}"
        return f"server: {server}: {' '.join(self.faults) or 'no fault'}\nagent: {agent}\nfate: {self.fate}"


@dataclass
class _Server:
    """A behaviour in the making. `spoilt` counts the attempts that it spoils, so that downloads can be dealt out."""

    rng: random.Random
    jobs: int
    faults: list[str] = field(default_factory=list)
    families: list[str] = field(default_factory=list)
    spoilt: int = 0

    def add(self, family: str, *faults: str) -> None:
        self.families.append(family)
        self.faults.extend(faults)

    def place(self) -> str:
        """For all jobs, or for one."""
        return f"@{self.rng.randrange(self.jobs)}" if self.jobs > 1 and self.rng.random() < 0.4 else ""


def draw(seed: int) -> Draw:
    """The round with this seed."""
    rng = random.Random(f"torture/{seed}")
    shards = rng.choice((0, 0, 1, 1, 2, 3))
    archive_size = rng.choice((1 << 10, rng.randrange(1 << 10, 64 << 10), rng.randrange(64 << 10, 3 << 20)))
    server = _Server(rng, shards + 1 if shards else 1)
    tls = seed % 2 == 1
    wait_timeout, fate_allowed = WAIT_TIMEOUT, True
    kind = rng.random()
    if kind < 0.06:
        _refusing_api(server, tls, shards)
        wait_timeout, fate_allowed = 1.5, rng.random() < 0.3
    elif kind < 0.09:
        server.add("never ready", rng.choice(("never-ready", "unknown-status", "ready-without-url")) + server.place())
        wait_timeout = 1.5
    else:
        _ordinary(server, archive_size)
    fate = _fate(rng, shards, archive_size) if fate_allowed else Fate("through")
    return Draw(
        seed=seed,
        tls=tls,
        shards=shards,
        archive_size=archive_size,
        faults=tuple(server.faults),
        families=tuple(dict.fromkeys(server.families)),
        retries=rng.choice((5, 5, 5, 8, 2, 1)),
        parallel=rng.choice((4, 4, 1, 2)),
        wait_timeout=wait_timeout,
        allow_unproven=rng.random() < 0.15,
        debug=rng.random() < 0.5,
        confirm=rng.random() < 0.3,
        verify=rng.random() < 0.15,
        fate=fate,
    )


# ---------------------------------------------------------------- servers


def _refusing_api(server: _Server, tls: bool, shards: int) -> None:
    faults = ["unauthorized", "unauthorized=empty", "forbidden", "not-in-group", "api-500=always", "api-503=always"]
    faults += ["api-reset=always", "api-redirect", "not-json", "json-array", "null-results", "api-429=always"]
    faults += ["no-batch"] if shards else []
    faults += ["wrong-host", "expired-cert"] if tls else []
    server.add("API refuses", server.rng.choice(faults))


def _ordinary(server: _Server, archive_size: int) -> None:
    rng = server.rng
    chances = (
        (_framing, 0.6),
        (_endings, 0.6),
        (_ranges, 0.5),
        (_pages, 0.15),
        (_damage, 0.1),
        (_hashes, 0.5),
        (_timeline, 0.35),
        (_ends_of_jobs, 0.12),
        (_urls, 0.35),
        (_api_troubles, 0.35),
        (_api_manners, 0.4),
        (_clocks, 0.15),
        (_names, 0.1),
    )
    for add, chance in chances:
        if rng.random() < chance:
            add(server)
    if rng.random() < 0.7:
        server.add("slow drip", f"drip={max(2048, int(archive_size / rng.uniform(0.05, 0.35)))}")
    dealt = rng.choice((1, 2, server.spoilt + 1, server.spoilt + 2, server.spoilt + 6, 100))
    server.add(f"downloads {'1' if dealt == 1 else 'several'}", f"max-downloads={dealt}")
    if rng.random() < 0.4:
        server.add("counted at the end", "count=end")


def _framing(server: _Server) -> None:
    server.add("framing", f"framing={server.rng.choice(('length', 'chunked', 'close'))}")
    if server.rng.random() < 0.2:
        server.add("framing", "header-noise")
    if server.rng.random() < 0.15:
        server.add("framing", "content-encoding-gzip")
    if server.rng.random() < 0.2:
        server.add("framing", "plain-tar")


def _endings(server: _Server) -> None:
    rng, place = server.rng, server.place()
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        kind = rng.choice(("cut", "cut", "reset", "clean-cut", "stall", "refuse"))
        if kind == "refuse":
            server.add("refusals 4xx/5xx", f"refuse={rng.choice((401, 403, 404, 429, 500, 502, 503))}{place}")
        else:
            name = {"cut": "cuts", "reset": "RST", "clean-cut": "clean cuts", "stall": "stalls"}[kind]
            server.add(name, f"{kind}={rng.choice((0, 1, rng.randrange(2, 99), rng.randrange(2, 99), 100))}%{place}")
        server.spoilt += 1


def _ranges(server: _Server) -> None:
    rng = server.rng
    mode = rng.choice(("honour", "honour", "honour", "ignore", "wrong-offset", "wrong-total", "wrong-bytes", "416"))
    server.add("Range honoured" if mode == "honour" else f"Range {mode}", f"range={mode}{server.place()}")
    if mode not in ("honour", "ignore"):
        server.spoilt *= 2
    if rng.random() < 0.25:
        server.add("validators", rng.choice(("etag-changes", "no-validator", "different-bytes")))


def _pages(server: _Server) -> None:
    server.add("pages instead of archives", f"{server.rng.choice(('html-body', 'json-body', 'empty-body'))}=1")
    server.spoilt += 1


def _damage(server: _Server) -> None:
    faults = ("damaged=1", "damaged", "damaged-gzip", "trailing-garbage")
    server.add("damage", server.rng.choice(faults) + server.place())


def _hashes(server: _Server) -> None:
    rule = server.rng.choice(
        ("late:0.1", "late:0.4", "early", "early-wrong:0.3", "never", "wrong", "upper", "other-name", "null", "none")
    )
    family = f"hash {rule.partition(':')[0]}"
    server.add(family, "digest-none" if rule == "none" else f"hash={rule}{server.place()}")


def _timeline(server: _Server) -> None:
    rng = server.rng
    faults = ["ready-after=0.8", "stagger=0.4", "missing-delivery", "ready-without-url=0.7", "unknown-status=0.7"]
    faults += ["finished=ready", "appears-after=0.08", "url-gone"]
    server.add("timeline", *rng.sample(faults, rng.choice((1, 1, 2))))


def _ends_of_jobs(server: _Server) -> None:
    rng, place = server.rng, server.place()
    after = round(rng.uniform(0.2, 1.5), 2)
    ends = {
        "expiry": ("expired", f"expires-in={after}", f"expires-cut={after}"),
        "job gives up": (f"broken={after}", f"killed={after}", f"delivery-failed={after}", f"interrupted={after}"),
        "not HTTP": ("automated", "method=AUTOMATED_RESTORE"),
    }
    family = rng.choice(("expiry", "expiry", "job gives up", "not HTTP"))
    server.add(family, rng.choice(ends[family]) + place)


def _urls(server: _Server) -> None:
    faults = ("url-v2", "url-v2=only", "other-origin", "redirect=2", "redirect=5", "redirect-other-origin")
    more = ("renew-url=0.7", "redirect-loop", "redirect=6")
    fault = server.rng.choice(faults * 2 + more)
    server.add("URL renewed" if fault.startswith("renew") else "URLs and redirects", fault)
    if fault.startswith("url-v2") and server.rng.random() < 0.5:
        server.add("URLs and redirects", server.rng.choice(("no-bearer-field", "bearer-in-value")))


def _api_troubles(server: _Server) -> None:
    rng = server.rng
    fault = rng.choice(("api-429", "api-500", "api-503", "api-reset"))
    server.add("API 429/5xx/RST", f"{fault}={rng.randrange(1, 6)}")
    if rng.random() < 0.2:
        server.faults[-1] = f"{fault}=1"
        server.add("API Retry-After", "api-retry-after=1")
    if rng.random() < 0.3:
        server.add("API answers no JSON", "not-json=2")


def _api_manners(server: _Server) -> None:
    rng = server.rng
    if rng.random() < 0.5:
        server.add("401 stale nonce", f"stale-nonce={rng.randrange(1, 5)}")
    pages = ("next-drops-batch", "no-total-count", "no-next-link")
    if rng.random() < 0.4:
        server.add("API pages", f"page-size={rng.randrange(1, 3)}", rng.choice(pages))
    manners = ("envelope-always", "numbers-as-strings", "qop=none", "qop=op", "deep-json=200", "huge-answer=100000")
    if rng.random() < 0.5:
        server.add("API manners", rng.choice(manners))


def _clocks(server: _Server) -> None:
    faults = ("clock-skew=7200", "clock-skew=-86400", "no-date", "bad-date")
    server.add("server clock", server.rng.choice(faults))


def _names(server: _Server) -> None:
    names = ("../../evil", "receipt.json", ".hidden", "a b%c.tar.gz", "SHA1SUMS")
    if server.jobs > 1 and server.rng.random() < 0.4:
        server.add("names", "same-name")
    else:
        server.add("names", f"name={server.rng.choice(names)}{server.place()}")


# ---------------------------------------------------------------- fates


def _fate(rng: random.Random, shards: int, archive_size: int) -> Fate:
    kind: FateKind = rng.choice(
        ("through", "through", "sigterm", "sigint", "kill", "kill", "kill", "full-disk", "second-agent")
    )
    if kind == "kill":
        return Fate(kind, tuple(_interruption(rng, signal.SIGKILL) for _ in range(rng.choice((1, 1, 2, 3, 4)))))
    if kind in ("sigterm", "sigint"):
        number = signal.SIGTERM if kind == "sigterm" else signal.SIGINT
        return Fate(kind, tuple(_interruption(rng, number) for _ in range(rng.choice((1, 1, 2)))))
    if kind == "full-disk":
        total = archive_size * (shards + 1 if shards else 1)
        return Fate(kind, disk_kib=max(64, int(rng.choice((0.3, 0.7, 1.0, 1.5)) * total / 1024 + rng.randrange(1400))))
    return Fate(kind, second_after=rng.uniform(0.0, 0.8) if kind == "second-agent" else 0.0)


def _interruption(rng: random.Random, number: int) -> Interruption:
    after: Moment = rng.choice(("start", "request", "delivery", "delivery", "journal", "journal"))
    count = {"start": 0, "request": rng.randrange(1, 12), "delivery": rng.randrange(1, 4), "journal": 0}[after]
    count = rng.randrange(1, 14) if after == "journal" else count
    delay = rng.uniform(0.0, 1.0) if after == "start" else rng.choice((0.0, rng.uniform(0, 0.02), rng.uniform(0, 0.3)))
    return Interruption(number, after, count, delay)
