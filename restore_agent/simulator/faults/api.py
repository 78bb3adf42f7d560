"""Faults of the API, of the server's clock, and of TLS."""

from __future__ import annotations

from dataclasses import dataclass

from .rows import fault, flag
from .syntax import (
    COUNT,
    OFFSET,
    READINGS,
    SECONDS,
    SIZE,
    SKEW,
    SNAPSHOTS,
    STATUS,
    TIMES,
    choice,
    first_requests,
    refusal,
)
from .values import ALWAYS, SnapshotRule, Span, Step


@dataclass(frozen=True, kw_only=True)
class ApiFaults:
    """Answers of the API, server clock, and TLS."""

    # Authentication
    qop: str = fault(
        "auth",
        choice("auth", "none", "op"),
        'qop of the digest challenge; op: op="auth", as on the reference page',
        server=True,
    )
    challenge: str = fault(
        "digest",
        choice("digest", "basic-after", "basic-first", "negotiate-first", "separate", "digest-after", "digest-first"),
        "challenges of a 401: Digest alone; with Basic after it, Basic before it, or Negotiate before it in a header; "
        "Basic in a second header; a Digest with an unknown algorithm after it or before it",
        server=True,
    )
    stale_nonce: int | None = fault(None, COUNT, "requests per nonce before it is stale", server=True)
    one_nonce: bool = flag("only the latest nonce is valid; earlier ones are refused without stale=true", server=True)
    unauthorized: str | None = fault(
        None, choice("json", "empty").optional("json"), "401 for every key, with or without a document", server=True
    )
    forbidden: bool = flag("403 IP_ADDRESS_NOT_ON_ACCESS_LIST", server=True)
    not_in_group: bool = flag("401 NOT_IN_GROUP", server=True)

    # Faults of the first requests, in the order written
    api_429: tuple[Step, ...] = fault(
        (), first_requests("429", 429), "429 for the first N requests", many=True, server=True
    )
    api_500: tuple[Step, ...] = fault(
        (), first_requests("500", 500), "500 for the first N requests", many=True, server=True
    )
    api_503: tuple[Step, ...] = fault(
        (), first_requests("503", 503), "503 for the first N requests", many=True, server=True
    )
    api_reset: tuple[Step, ...] = fault(
        (), first_requests("reset"), "RST for the first N requests", many=True, server=True
    )
    api_stall: tuple[Step, ...] = fault(
        (), first_requests("stall"), "no answer to the first N requests", many=True, server=True
    )
    api_refuse: tuple[Step, ...] = fault(
        (),
        refusal("status"),
        "that status for the next TIMES requests; 407 as a proxy, 400 as a TLS port that received plain HTTP",
        many=True,
        server=True,
    )
    api_delay: float = fault(0.0, SECONDS, "seconds before each answer", server=True)
    api_retry_after: int | None = fault(None, COUNT, "Retry-After header of 429, 500, and 503", server=True)
    api_redirect: bool = flag("the API redirects to a second port", server=True)

    # Documents
    page_size: int | None = fault(None, COUNT, "maximum items per page, whatever was requested", server=True)
    no_total_count: bool = flag("lists have no totalCount", server=True)
    wrong_count: int | None = fault(None, OFFSET, "totalCount is this much too large (or too small)", server=True)
    short_list: tuple[Span, ...] = fault(
        (),
        READINGS,
        "the list of jobs lacks its last job at that reading (from 1), TIMES times, but totalCount includes it",
        many=True,
        server=True,
    )
    no_next_link: bool = flag("lists have no links to the next page", server=True)
    next_drops_batch: bool = flag("links to other pages have no batchId", server=True)
    endless_pages: bool = flag("every page has a next page, with new jobs", server=True)
    envelope_always: bool = flag("answers are wrapped as with envelope=true", server=True)
    not_json: float = fault(0, TIMES.optional(ALWAYS), "200 with an HTML page for the first N answers", server=True)
    json_array: bool = flag("answers are JSON arrays", server=True)
    null_results: bool = flag("results is null", server=True)
    numbers_as_strings: bool = flag("numbers are sent as strings", server=True)
    deep_json: int = fault(0, COUNT.optional(1000), "a field with N nested levels in each answer", server=True)
    huge_answer: int = fault(0, SIZE, "a field of this size in each answer", server=True)
    endless_header: bool = flag("API answers with endless headers", server=True)
    hostile_text: bool = flag("terminal escapes and newlines in names, statuses, and error details", server=True)

    surrogates: bool = flag("lone surrogates in names, statuses, and error details", server=True)

    # Snapshots and requests for a restore
    snapshots: tuple[SnapshotRule, ...] | None = fault(
        None,
        SNAPSHOTS,
        "snapshots in the order listed: complete, incomplete, inconsistent (possibly), missing (lacks a shard); HOURS "
        "old; N of them, 6 hours apart",
        server=True,
    )
    old_snapshots: bool = flag("lists of snapshots include incomplete ones, as on old servers", server=True)
    post_refuse: tuple[Step, ...] = fault(
        (), refusal("post"), "this status for the next TIMES POSTs; no job is created", many=True, server=True
    )
    post_fail: tuple[Step, ...] = fault(
        (),
        refusal("fail"),
        "this status for the next TIMES POSTs, although the jobs are created",
        many=True,
        server=True,
    )
    post_lost: str | None = fault(
        None,
        choice("close", "reset", "stall").optional("close"),
        "the jobs of a POST are created, but the connection ends without an answer",
        server=True,
    )
    post_delay: float = fault(
        0.0, SECONDS, "seconds between the creation of jobs and the answer to a POST", server=True
    )
    post_status: int = fault(200, STATUS, "status of a successful POST", server=True)
    no_version: bool = flag("no X-MongoDB-Service-Version header, as on old servers", server=True)

    # Clock and TLS
    clock_skew: float = fault(0.0, SKEW, "difference between the server's clock and the real time", server=True)
    no_date: bool = flag("no Date header", server=True)
    bad_date: bool = flag("an invalid Date header", server=True)
    client_cert: bool = flag("TLS: clients need a certificate of the simulator's CA", server=True)
    wrong_host: bool = flag("TLS: the certificate is for another host", server=True)
    plain_400: bool = flag("TLS: plain HTTP is answered with 400 instead of a closed connection", server=True)
    expired_cert: bool = flag("TLS: the certificate has expired", server=True)
