"""Faults of deliveries: framing, interrupted transfers, ranges, and delivery URLs."""

from __future__ import annotations

from dataclasses import dataclass

from .rows import fault, flag
from .syntax import COUNT, RATE, SECONDS, TEXT, choice, ending, refusal
from .values import Step


@dataclass(frozen=True, kw_only=True)
class DeliveryFaults:
    """Answers of delivery URLs."""

    # Framing
    framing: str = fault("length", choice("length", "chunked", "close"), "how the end of an archive is marked")
    header_noise: bool = flag("odd header case and spacing, many headers, a misleading Content-Disposition")

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
    name: str | None = fault(None, TEXT, "archive name in the URL; it is percent-encoded there")
    same_name: bool = flag("all jobs have the same archive name", server=True)
