"""The behaviour of a server: faults of the simulator, drawn by families."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Server:
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


def refusing_api(server: Server, tls: bool, shards: int) -> None:
    faults = ["unauthorized", "unauthorized=empty", "forbidden", "not-in-group", "api-500=always", "api-503=always"]
    faults += ["api-reset=always", "api-redirect", "not-json", "json-array", "null-results", "api-429=always"]
    faults += ["endless-header", "endless-pages"] if shards else ["endless-header"]
    faults += ["no-batch", "wrong-count=1"] if shards else []
    faults += ["wrong-host", "expired-cert"] if tls else []
    server.add("API refuses", server.rng.choice(faults))


def ordinary(server: Server, archive_size: int) -> None:
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
        (_whole_but_unclean, 0.2),
        (_heads, 0.15),
        (_tokens, 0.15),
        (_lists, 0.2),
    )
    for add, chance in chances:
        if rng.random() < chance:
            add(server)
    if rng.random() < 0.7:
        least = 16 << 10 if "plain-tar" in server.faults else 2 << 10  # a small archive is larger without gzip
        server.add("slow drip", f"drip={max(least, int(archive_size / rng.uniform(0.05, 0.35)))}")
    dealt = rng.choice((1, 2, server.spoilt + 1, server.spoilt + 2, server.spoilt + 6, 100))
    server.add(f"downloads {'1' if dealt == 1 else 'several'}", f"max-downloads={dealt}")
    if rng.random() < 0.4:
        server.add("counted at the end", "count=end")


def _framing(server: Server) -> None:
    server.add("framing", f"framing={server.rng.choice(('length', 'chunked', 'close'))}")
    if server.rng.random() < 0.2:
        server.add("framing", "header-noise")
    if server.rng.random() < 0.15:
        server.add("framing", "content-encoding-gzip")
    if server.rng.random() < 0.2:
        server.add("framing", "plain-tar")


def _endings(server: Server) -> None:
    rng, place = server.rng, server.place()
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        kind = rng.choice(("cut", "cut", "reset", "clean-cut", "stall", "refuse"))
        if kind == "refuse":
            server.add("refusals 4xx/5xx", f"refuse={rng.choice((401, 403, 404, 429, 500, 502, 503))}{place}")
            if rng.random() < 0.3:
                server.add("refusals with Retry-After", "retry-after=1")
        else:
            name = {"cut": "cuts", "reset": "RST", "clean-cut": "clean cuts", "stall": "stalls"}[kind]
            server.add(name, f"{kind}={rng.choice((0, 1, rng.randrange(2, 99), rng.randrange(2, 99), 100))}%{place}")
        server.spoilt += 1


def _ranges(server: Server) -> None:
    rng = server.rng
    mode = rng.choice(("honour", "honour", "honour", "ignore", "wrong-offset", "wrong-total", "wrong-bytes", "416"))
    server.add("Range honoured" if mode == "honour" else f"Range {mode}", f"range={mode}{server.place()}")
    if mode not in ("honour", "ignore"):
        server.spoilt *= 2
    if rng.random() < 0.25:
        server.add("validators", rng.choice(("etag-changes", "no-validator", "different-bytes")))


def _pages(server: Server) -> None:
    server.add("pages instead of archives", f"{server.rng.choice(('html-body', 'json-body', 'empty-body'))}=1")
    server.spoilt += 1


def _damage(server: Server) -> None:
    faults = ("damaged=1", "damaged", "damaged-gzip", "trailing-garbage")
    server.add("damage", server.rng.choice(faults) + server.place())


def _hashes(server: Server) -> None:
    rule = server.rng.choice(
        ("late:0.1", "late:0.4", "early", "early-wrong:0.3", "never", "wrong", "upper", "other-name", "null", "none")
    )
    family = f"hash {rule.partition(':')[0]}"
    server.add(family, "digest-none" if rule == "none" else f"hash={rule}{server.place()}")


def _timeline(server: Server) -> None:
    rng = server.rng
    faults = ["ready-after=0.8", "stagger=0.4", "missing-delivery", "ready-without-url=0.7", "unknown-status=0.7"]
    faults += ["finished=downloaded", "finished=never", "appears-after=0.08", "url-gone"]
    server.add("timeline", *rng.sample(faults, rng.choice((1, 1, 2))))


def _ends_of_jobs(server: Server) -> None:
    rng, place = server.rng, server.place()
    after = round(rng.uniform(0.2, 1.5), 2)
    if rng.random() < 0.3:
        server.add("dead links", f"dead-status={rng.choice((401, 404, 429, 500, 503))}")
    ends = {
        "expiry": ("expired", f"expires-in={after}", f"expires-cut={after}"),
        "job gives up": (f"broken={after}", f"killed={after}", f"delivery-failed={after}", f"interrupted={after}"),
        "not HTTP": ("automated", "method=AUTOMATED_RESTORE"),
    }
    family = rng.choice(("expiry", "expiry", "job gives up", "not HTTP"))
    server.add(family, rng.choice(ends[family]) + place)


def _urls(server: Server) -> None:
    faults = ("url-v2", "url-v2=only", "other-origin", "redirect=2", "redirect=5", "redirect-other-origin")
    more = ("renew-url=0.7", "redirect-loop", "redirect=6")
    fault = server.rng.choice(faults * 2 + more)
    server.add("URL renewed" if fault.startswith("renew") else "URLs and redirects", fault)
    if fault.startswith("url-v2") and server.rng.random() < 0.5:
        server.add("URLs and redirects", server.rng.choice(("no-bearer-field", "bearer-in-value")))


def _api_troubles(server: Server) -> None:
    rng = server.rng
    fault = rng.choice(("api-429", "api-500", "api-503", "api-reset"))
    server.add("API 429/5xx/RST", f"{fault}={rng.randrange(1, 6)}")
    if rng.random() < 0.2:
        server.faults[-1] = f"{fault}=1"
        server.add("API Retry-After", "api-retry-after=1")
    if rng.random() < 0.3:
        server.add("API answers no JSON", "not-json=2")


def _api_manners(server: Server) -> None:
    rng = server.rng
    if rng.random() < 0.5:
        server.add("401 stale nonce", f"stale-nonce={rng.randrange(1, 5)}")
    pages = ("next-drops-batch", "no-total-count", "no-next-link")
    if rng.random() < 0.4:
        server.add("API pages", f"page-size={rng.randrange(1, 3)}", rng.choice(pages))
    manners = ("envelope-always", "numbers-as-strings", "qop=none", "qop=op", "deep-json=200", "huge-answer=100000")
    if rng.random() < 0.5:
        server.add("API manners", rng.choice(manners))
    if rng.random() < 0.3:
        server.add("API manners", rng.choice(("one-nonce", "api-delay=0.05", "no-version", "sccc")))
    if rng.random() < 0.2:
        server.add("odd texts", rng.choice(("hostile-text", "surrogates")))
    if rng.random() < 0.4:
        server.add("fields of jobs", f"{rng.choice(_FIELDS)}{server.place()}")


_FIELDS = (
    *("encrypted", "point-in-time"),
    "job-field=delivery.maxDownloads:__missing__",
    "job-field=delivery.expires:__missing__",
    "job-field=snapshotId:null",
    'job-field=someField:{"a": [1]}',
    'job-field=delivery.expirationHours:"12"',
    'job-field=statusName:"SOMETHING"',
)
"""Fields that documents may have or lack, without any consequence for a restore."""


def _whole_but_unclean(server: Server) -> None:
    """Every byte of the archive comes, and then the connection ends as if it had not."""
    rng = server.rng
    kind = rng.choice(("cut", "stall", "reset", "wrong-length"))
    if kind == "wrong-length":
        server.faults.append("framing=length")
        server.add("Content-Length too large", f"wrong-length={rng.choice((1, 2, 100))}")
    else:
        server.add("whole, then cut", f"{kind}=100%{server.place()}")
        server.add("whole, then cut", f"chunk-end={rng.choice(('missing', 'no-crlf', 'no-data-crlf'))}")
        server.spoilt += 1
    if rng.random() < 0.5:
        server.add("hash published when", f"hash-after={rng.choice(('sent', 'complete', 'start'))}")
    if rng.random() < 0.3:
        server.add("several hashes", f"hash-entries={rng.choice((2, 3))}")


def _heads(server: Server) -> None:
    odd = ("many-headers=150", "long-header=70000", "space-colon", "non-ascii-header", "bare-lf", "no-reason")
    odd += ("interim=2", "transfer-encoding=Chunked", "chunk-zeros=5", "chunk-extension", "chunk-trailer")
    server.add("odd heads", *server.rng.sample(odd, server.rng.choice((1, 2))))
    if server.rng.random() < 0.3:
        server.add("late heads", "delivery-delay=0.2")


def _tokens(server: Server) -> None:
    rng = server.rng
    if rng.random() < 0.5:
        server.add("token renewed at each reading", f"renew-token={rng.choice(('keep', 'keep', 'revoke'))}")
    else:
        server.add("tokens", f"token={rng.choice(('short', 'hex', 'encoded', 'query'))}")
    if rng.random() < 0.5:
        where = rng.choice(("status-line", "content-type", "etag", "header", "body"))
        server.add("token echoed", f"echo-token={where}:{rng.choice(('plain', 'decoded', 'hex', 'base64', 'upper'))}")
    if rng.random() < 0.2:
        server.add("segment changes", f"name-changes={rng.randrange(1, 6)}")


def _lists(server: Server) -> None:
    rng = server.rng
    kind = rng.choice(("appears", "appears", "unlisted", "404", "short", "stray", "challenge", "entries", "count"))
    if kind == "count":
        server.add("short list", f"wrong-count={rng.choice((-1, -9))}")
    elif kind == "challenge":
        forms = ("basic-after", "basic-first", "negotiate-first", "separate", "digest-after", "digest-first")
        server.add("challenges", f"challenge={rng.choice(forms)}")
    elif kind == "404":
        server.add("document comes and goes", f"job-404={rng.randrange(2, 8)}x{rng.randrange(1, 3)}{server.place()}")
    elif kind == "entries":
        server.add("several hashes", f"hash-entries={rng.choice((2, 3))}")
    elif server.jobs == 1:
        return
    elif kind == "appears":
        place = rng.randrange(server.jobs)
        server.add("listed late", f"appears-after={round(rng.uniform(0.6, 1.6), 2)}@{place}", "same-name")
    elif kind == "unlisted":
        server.add(
            "listed and not", f"job-unlisted={rng.randrange(1, 8)}x{rng.randrange(1, 4)}@{rng.randrange(server.jobs)}"
        )
    elif kind == "short":
        server.add("short list", f"short-list={rng.randrange(1, 8)}x{rng.randrange(1, 4)}")
    else:
        server.add("stray job", f"stray-job={rng.choice(('none', 'other'))}")


def shapes(server: Server, rng: random.Random, *, slow: bool) -> None:
    """What the archives hold, for rounds that unpack them; `slow` is whether each sync is delayed."""
    harmless = ("long-name", "pax-name", "hard-link", "duplicate", "empty", "setuid", "sparse-gnu", "sparse-pax")
    hostile = ("absolute", "dotdot", "symlink", "through-symlink", "through-file", "link-outside", "device", "fifo")
    if rng.random() < 0.35:
        server.add("members: harmless", *(f"member={kind}" for kind in rng.sample(harmless, rng.choice((1, 2)))))
    if rng.random() < 0.12:
        server.add("members: hostile", f"member={rng.choice(hostile)}{server.place()}")
    if rng.random() < 0.2:
        server.add("several gzip members", "gzip-members")
    if rng.random() < 0.2:
        server.add("top directories", f"top={rng.choice(('none', 'several'))}")
    if rng.random() < 0.15:
        count = rng.choice((20, 200))
        dripped = "plain-tar" in server.faults and "slow drip" in server.families
        server.add("many small files", f"small-files={20 if slow or dripped else count}")  # a round may take a minute
    if rng.random() < 0.08:
        server.add(
            "damaged inside", f"damaged-inside={rng.choice(('header', 'gzip-end', 'no-members'))}{server.place()}"
        )
    if rng.random() < 0.15:
        info = ("replica-set", "cluster-id", "group-id", "missing", "huge", "binary")
        server.add("restoreInfo.txt", f"restore-info={rng.choice(info)}{server.place()}")


def _clocks(server: Server) -> None:
    faults = ("clock-skew=7200", "clock-skew=-86400", "no-date", "bad-date")
    server.add("server clock", server.rng.choice(faults))


def _names(server: Server) -> None:
    names = ("../../evil", "receipt.json", ".hidden", "a b%c.tar.gz", "SHA1SUMS")
    if server.jobs > 1 and server.rng.random() < 0.4:
        server.add("names", "same-name")
    else:
        server.add("names", f"name={server.rng.choice(names)}{server.place()}")
