"""What the simulated Ops Manager does wrong, or differently: one table of faults, parsed into one frozen dataclass.

A fault is written `NAME[=VALUE]`, and `NAME[=VALUE]@JOB` applies it to the job with that index only. Each field of
`Faults` below is one row of the table: its default, the syntax of its value, and its line of help.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import Field, dataclass, field, fields, replace
from functools import cache
from typing import Any, NamedTuple

from .syntax import (
    ALWAYS,
    COUNT,
    FIELD,
    FLAG,
    HASH,
    RATE,
    SECONDS,
    SIZE,
    SKEW,
    STATUS,
    TEXT,
    TIMES,
    FieldOverride,
    HashRule,
    Step,
    Syntax,
    choice,
    ending,
    first_requests,
    refusal,
)

_PER_JOB = re.compile(r"(?P<fault>.*)@(?P<job>\d+)", re.DOTALL)


class FaultRow(NamedTuple):
    """One row for `--list-faults`: how it is written, what holds without it, what it does."""

    name: str
    value: str
    default: str
    help: str
    per_job: bool


def _fault(default: object, syntax: Syntax, text: str, *, many: bool = False, server: bool = False) -> Any:
    """A row of the table; `many`: may be given repeatedly; `server`: belongs to the server, so `@JOB` is refused."""
    return field(default=default, metadata={"syntax": syntax, "help": text, "many": many, "server": server})


def _flag(text: str, *, server: bool = False) -> Any:
    return _fault(False, FLAG, text, server=server)


@dataclass(frozen=True, kw_only=True)
class Faults:
    """The whole behaviour of a server; without arguments that of a well-behaved one. Make it with `Faults.parse`."""

    # Timeline of a job
    ready_after: float = _fault(0.0, SECONDS, "deliveries become READY this long after creation")
    stagger: float = _fault(0.0, SECONDS, "job i becomes READY i times this long after creation")
    never_ready: bool = _flag("deliveries stay IN_PROGRESS")
    missing_delivery: bool = _flag("no delivery object until it is READY, as old servers do")
    ready_without_url: float = _fault(0.0, SECONDS.optional(ALWAYS), "READY comes this long before the URL")
    unknown_status: float = _fault(0.0, SECONDS.optional(ALWAYS), "statuses nobody documented, for this long")
    broken: float | None = _fault(None, SECONDS.optional(0.0), "job BROKEN (from then on)")
    killed: float | None = _fault(None, SECONDS.optional(0.0), "job KILLED (from then on)")
    delivery_failed: float | None = _fault(None, SECONDS.optional(0.0), "delivery FAILED (from then on)")
    interrupted: float | None = _fault(None, SECONDS.optional(0.0), "delivery INTERRUPTED (from then on)")
    expired: bool = _flag("delivery EXPIRED from the start")
    expires_in: float | None = _fault(None, SECONDS, "EXPIRED this long after creation; a running transfer goes on")
    expires_cut: float | None = _fault(None, SECONDS, "EXPIRED this long after creation; a running transfer is cut")
    url_gone: bool = _flag("a dead link leaves the document; else it stays there")
    finished: str = _fault("downloaded", choice("downloaded", "ready"), "when the job's statusName is FINISHED")
    appears_after: float = _fault(0.0, SECONDS, "the job is not listed until this long after creation")
    automated: bool = _flag("an automated restore reported as HTTP: delivery.targetClusterId is set")
    method: str = _fault("HTTP", TEXT, "delivery.methodName")
    no_batch: bool = _flag("the batch lists no job", server=True)
    sccc: bool = _flag("the config server is mirrored (SCCC): its job carries hostId", server=True)
    encrypted: bool = _flag("encryptionEnabled with a masterKeyUUID")
    point_in_time: bool = _flag("pointInTime is true")

    # Counting of downloads
    max_downloads: int = _fault(1, COUNT, "how often a delivery may be downloaded")
    count: str = _fault("start", choice("start", "end"), "when a download counts: at its GET, or once it is whole")

    head: str = _fault("count", choice("count", "answer"), "HEAD: 405 and a download spent, or 200 and none spent")
    dead_status: int | None = _fault(None, STATUS, "status of used-up and expired links; else 403 and 410")

    # Framing
    framing: str = _fault("length", choice("length", "chunked", "close"), "how the end of an archive is told")
    header_noise: bool = _flag("odd header case and spacing, many headers, a misleading Content-Disposition")

    # Attempts that end early, in the order written
    cut: tuple[Step, ...] = _fault((), ending("cut"), "close after that much of the body", many=True)
    reset: tuple[Step, ...] = _fault((), ending("reset"), "RST after that much", many=True)
    clean_cut: tuple[Step, ...] = _fault((), ending("clean-cut"), "the framing ends cleanly after that much", many=True)
    stall: tuple[Step, ...] = _fault((), ending("stall"), "send no more after that much, stay connected", many=True)
    refuse: tuple[Step, ...] = _fault((), refusal(), "answer that status instead of the archive", many=True)
    endless_delivery_header: bool = _flag("delivery answers whose headers never end")
    drip: int | None = _fault(None, RATE, "throttle every delivery")
    retry_after: int | None = _fault(None, COUNT, "Retry-After with refusals of deliveries")

    # Ranges
    range: str = _fault(
        "none",
        choice("none", "honour", "ignore", "wrong-offset", "wrong-total", "wrong-bytes", "416"),
        "what a Range header meets; none: not supported, no validators",
    )
    etag_changes: bool = _flag("another ETag and Last-Modified with each answer")
    no_validator: bool = _flag("ranges without ETag and Last-Modified")
    different_bytes: bool = _flag("each GET sends another archive; the hash is that of the last whole one")

    # Bodies
    html_body: float = _fault(0, TIMES.optional(ALWAYS), "200 with an HTML page (so often)")
    json_body: float = _fault(0, TIMES.optional(ALWAYS), "200 with a JSON document (so often)")
    empty_body: float = _fault(0, TIMES.optional(ALWAYS), "200 with nothing (so often)")
    damaged: float = _fault(0, TIMES.optional(ALWAYS), "one byte in the middle flipped after hashing (so often)")
    damaged_gzip: bool = _flag("the archive itself is damaged; its hash matches")
    trailing_garbage: bool = _flag("bytes after the archive, not in its hash")
    plain_tar: bool = _flag(".tar instead of .tar.gz")
    content_encoding_gzip: bool = _flag("labelled Content-Encoding: gzip")
    bomb: bool = _flag("a small gzip that inflates to gigabytes")

    # Hashes
    hash: HashRule = _fault(  # noqa: RUF009 - a dataclasses.field() behind a helper
        HashRule("ready"), HASH, "late:S, early, early-wrong:S, never, wrong, upper, other-name, null"
    )
    digest_none: bool = _flag("the server setting NONE: hashes never come")

    # Delivery URLs
    url_v2: str | None = _fault(None, choice("both", "only").optional("both"), "urlV2 with an Authorization header")
    no_bearer_field: bool = _flag("authBearer is left out; authValue is the bare token")
    bearer_in_value: bool = _flag("authBearer is left out; authValue is the whole header value")
    other_origin: bool = _flag("deliveries come from a second port")
    redirect: int = _fault(0, COUNT, "so many redirects before the archive")
    redirect_other_origin: bool = _flag("deliveries redirect to a second port")
    redirect_loop: bool = _flag("deliveries redirect to themselves")
    renew_url: float | None = _fault(None, SECONDS, "URL and token change every so often; old ones are 404")
    name: str | None = _fault(None, TEXT, "archive name in the URL, percent-encoded for you")
    same_name: bool = _flag("all jobs share one archive name", server=True)

    # API
    qop: str = _fault(
        "auth", choice("auth", "none", "op"), 'qop of the digest challenge; op: the page\'s op="auth"', server=True
    )
    stale_nonce: int | None = _fault(None, COUNT, "a nonce is good for so many requests", server=True)
    one_nonce: bool = _flag("only the nonce handed out last is good; others are refused, not called stale", server=True)
    unauthorized: str | None = _fault(
        None, choice("json", "empty").optional("json"), "401 to every key, with or without a document", server=True
    )
    forbidden: bool = _flag("403 IP_ADDRESS_NOT_ON_ACCESS_LIST", server=True)
    not_in_group: bool = _flag("401 NOT_IN_GROUP", server=True)
    api_429: tuple[Step, ...] = _fault(
        (), first_requests("429", 429), "the first N requests: 429", many=True, server=True
    )
    api_500: tuple[Step, ...] = _fault(
        (), first_requests("500", 500), "the first N requests: 500", many=True, server=True
    )
    api_503: tuple[Step, ...] = _fault(
        (), first_requests("503", 503), "the first N requests: 503", many=True, server=True
    )
    api_reset: tuple[Step, ...] = _fault(
        (), first_requests("reset"), "the first N requests: RST", many=True, server=True
    )
    api_stall: tuple[Step, ...] = _fault(
        (), first_requests("stall"), "the first N requests: no answer", many=True, server=True
    )
    api_retry_after: int | None = _fault(None, COUNT, "Retry-After with 429, 500 and 503", server=True)
    api_redirect: bool = _flag("the API redirects to a second port", server=True)
    page_size: int | None = _fault(None, COUNT, "most items on a page, whatever was asked", server=True)
    no_total_count: bool = _flag("totalCount is left out", server=True)
    no_next_link: bool = _flag("links to the next page are left out", server=True)
    next_drops_batch: bool = _flag("links to other pages lack batchId", server=True)
    endless_pages: bool = _flag("every page has a next one, with jobs never seen", server=True)
    envelope_always: bool = _flag("answers are wrapped as with envelope=true", server=True)
    not_json: float = _fault(0, TIMES.optional(ALWAYS), "200 with an HTML page (the first N answers)", server=True)
    json_array: bool = _flag("answers are JSON arrays", server=True)
    null_results: bool = _flag("results is null", server=True)
    job_field: tuple[FieldOverride, ...] = _fault(
        (), FIELD, "force a field (dotted path) of the job document", many=True
    )
    numbers_as_strings: bool = _flag("numbers are sent as strings", server=True)
    deep_json: int = _fault(0, COUNT.optional(1000), "a field nested so many levels in each answer", server=True)
    huge_answer: int = _fault(0, SIZE, "a field of so many bytes in each answer", server=True)
    endless_header: bool = _flag("API answers whose headers never end", server=True)
    hostile_text: bool = _flag("terminal escapes and newlines in names, statuses, error details", server=True)

    # Clock and TLS
    clock_skew: float = _fault(0.0, SKEW, "the server's clock is wrong by that much", server=True)
    no_date: bool = _flag("no Date header", server=True)
    bad_date: bool = _flag("an unreadable Date header", server=True)
    client_cert: bool = _flag("TLS: only clients with a certificate of the simulator's CA", server=True)
    wrong_host: bool = _flag("TLS: the certificate names another host", server=True)
    expired_cert: bool = _flag("TLS: the certificate is out of date", server=True)

    written: tuple[str, ...] = ()

    @classmethod
    def parse(cls, faults: Iterable[str]) -> Faults:
        """The behaviour that `NAME[=VALUE][@JOB]` strings ask for; ValueError says which one is wrong and why."""
        written = tuple(faults)
        for text in written:
            _parse_one(text)
        return _build(written, None)

    def for_job(self, index: int) -> Faults:
        """The behaviour as the job with this index meets it."""
        return _build(self.written, index) if self.written else self

    @property
    def attempts(self) -> tuple[Step, ...]:
        """What happens to attempt after attempt, as written; attempts past the end go well."""
        steps = self.cut + self.reset + self.clean_cut + self.stall + self.refuse
        return tuple(sorted(steps, key=lambda step: step.place))

    @property
    def api_troubles(self) -> tuple[Step, ...]:
        """What the first requests of the API meet, as written."""
        steps = self.api_429 + self.api_500 + self.api_503 + self.api_reset + self.api_stall
        return tuple(sorted(steps, key=lambda step: step.place))


def step_at(steps: Iterable[Step], number: int) -> Step | None:
    """The step that attempt `number` (from 0) falls on, or None past the last."""
    for step in steps:
        if number < step.times:
            return step
        number -= int(step.times)
    return None


def describe() -> list[FaultRow]:
    """The table of faults, in its order, for people."""
    return [_row(spec) for spec in _specs().values()]


def _row(spec: Field[Any]) -> FaultRow:
    syntax: Syntax = spec.metadata["syntax"]
    default = spec.default.kind if isinstance(spec.default, HashRule) else spec.default
    shown = (
        ""
        if default is None or default is False or default == ()
        else f"{default:g}"
        if _is_number(default)
        else str(default)
    )
    return FaultRow(_name(spec), syntax.text, shown, spec.metadata["help"], not spec.metadata["server"])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _name(spec: Field[Any]) -> str:
    return spec.name.replace("_", "-")


@cache
def _specs() -> dict[str, Field[Any]]:
    return {_name(spec): spec for spec in fields(Faults) if "syntax" in spec.metadata}


class _Written(NamedTuple):
    spec: Field[Any]
    value: object
    job: int | None


def _parse_one(text: str) -> _Written:
    scoped = _PER_JOB.fullmatch(text)
    job = int(scoped["job"]) if scoped else None
    name, mark, value = (scoped["fault"] if scoped else text).partition("=")
    spec = _specs().get(name)
    if spec is None:
        raise ValueError(f"unknown fault {name!r}{_near(name)}")
    if job is not None and spec.metadata["server"]:
        raise ValueError(f"fault {name}: belongs to the server, not to one job (@{job})")
    return _Written(spec, _value(spec, value if mark else None), job)


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, _specs(), n=3, cutoff=0.5)
    return f"; did you mean {', '.join(near)}?" if near else "; --list-faults names them all"


def _value(spec: Field[Any], text: str | None) -> object:
    syntax: Syntax = spec.metadata["syntax"]
    try:
        if text is None and syntax.bare is None:
            raise ValueError("needs a value")
        return syntax.bare if text is None else syntax.parse(text)
    except ValueError as error:
        form = f"{_name(spec)}={syntax.text}" if syntax.text else _name(spec)
        raise ValueError(f"fault {_name(spec)}: bad value {text!r} ({error}); write {form}") from error


@cache
def _build(written: tuple[str, ...], job: int | None) -> Faults:
    values: dict[str, Any] = {}
    for place, text in enumerate(written):
        spec, value, scope = _parse_one(text)
        if scope not in (None, job):
            continue
        if isinstance(value, Step):
            value = replace(value, place=place)
        values[spec.name] = (*values.get(spec.name, ()), value) if spec.metadata["many"] else value
    return Faults(**values, written=written if job is None else ())
