"""Faults of deliveries: framing, interrupted transfers, ranges, and delivery URLs."""

from __future__ import annotations

from dataclasses import dataclass

from .rows import fault, flag
from .syntax import COUNT, ECHO, OFFSET, RATE, SECONDS, SIZE, TEXT, choice, ending, refusal
from .values import Echo, Step


@dataclass(frozen=True, kw_only=True)
class DeliveryFaults:
    """Answers of delivery URLs."""

    # Framing
    framing: str = fault("length", choice("length", "chunked", "close"), "how the end of an archive is marked")
    wrong_length: int | None = fault(None, OFFSET, "Content-Length is this much too large (or too small)")
    transfer_encoding: str = fault("chunked", TEXT, "spelling of Transfer-Encoding with framing=chunked")
    chunk_zeros: int = fault(0, COUNT, "chunk sizes start with N zeros")
    chunk_extension: bool = flag("chunk sizes are followed by an extension")
    chunk_trailer: bool = flag("trailer fields after the last chunk")
    chunk_end: str = fault(
        "missing",
        choice("missing", "no-crlf", "no-data-crlf"),
        "end of a chunked body after cut, reset, or stall at 100%: no last chunk, a last chunk without its final CRLF, "
        "or no CRLF after the data either",
    )

    # Heads of answers
    header_noise: bool = flag("odd header case and spacing, many headers, a misleading Content-Disposition")
    many_headers: int = fault(0, COUNT, "N more headers")
    long_header: int = fault(0, SIZE, "a header line of this size")
    space_colon: bool = flag("a header with a space before its colon")
    non_ascii_header: bool = flag("a header with a non-ASCII name")
    bare_lf: bool = flag("header lines end with LF instead of CRLF")
    no_reason: bool = flag("a status line without a reason")
    interim: int = fault(0, COUNT, "N interim answers (103) before the answer")
    echo_token: tuple[Echo, ...] = fault(
        (),
        ECHO,
        "answers repeat the token of the request in their status-line, content-type, etag, header, or body (of a "
        "refusal); FORM: plain, decoded (percent-decoded), hex, base64, upper",
        many=True,
    )
    delivery_delay: float = fault(0.0, SECONDS, "seconds before the head of each answer")

    # Faults of successive attempts, in the order written
    cut: tuple[Step, ...] = fault((), ending("cut"), "close the connection after this much of the body", many=True)
    reset: tuple[Step, ...] = fault((), ending("reset"), "reset the connection (RST) after this much", many=True)
    clean_cut: tuple[Step, ...] = fault(
        (), ending("clean-cut"), "end the body after this much, with complete framing", many=True
    )
    stall: tuple[Step, ...] = fault(
        (), ending("stall"), "stop sending after this much, keep the connection open", many=True
    )
    refuse: tuple[Step, ...] = fault((), refusal(), "answer this status instead of the archive", many=True)
    endless_delivery_header: bool = flag("delivery answers with endless headers")
    drip: int | None = fault(None, RATE, "limit the rate of every delivery")
    retry_after: int | None = fault(None, COUNT, "Retry-After header of refused deliveries")

    # Ranges
    range: str = fault(
        "none",
        choice("none", "honour", "ignore", "wrong-offset", "wrong-total", "wrong-bytes", "416"),
        "answer to a Range header; none: not supported, no validators",
    )
    etag_changes: bool = flag("another ETag and Last-Modified in each answer")
    no_validator: bool = flag("ranges without ETag and Last-Modified")

    # Delivery URLs
    url_v2: str | None = fault(None, choice("both", "only").optional("both"), "urlV2 with an Authorization header")
    no_bearer_field: bool = flag("no authBearer; authValue is the token alone")
    bearer_in_value: bool = flag("no authBearer; authValue is the whole header value")
    other_origin: bool = flag("deliveries are on a second port")
    redirect: int = fault(0, COUNT, "number of redirects before the archive")
    redirect_other_origin: bool = flag("deliveries redirect to a second port")
    redirect_loop: bool = flag("deliveries redirect to themselves")
    renew_url: float | None = fault(
        None, SECONDS, "URL and token change at this interval; earlier ones are answered with 404"
    )
    renew_token: str | None = fault(
        None,
        choice("keep", "revoke").optional("keep"),
        "another token and authValue at each reading; earlier ones stay valid, or are answered with 404",
    )
    token: str = fault(
        "base64",
        choice("base64", "short", "hex", "encoded", "query"),
        "token in the URL: base64, 6 characters, hex digits, percent-encoded, or a query parameter instead of the path",
    )
    name_changes: int | None = fault(
        None, COUNT.optional(1), "the last segment of the URL changes after N readings of the job"
    )
    name: str | None = fault(None, TEXT, "archive name in the URL; it is percent-encoded there")
    same_name: bool = flag("all jobs have the same archive name", server=True)
