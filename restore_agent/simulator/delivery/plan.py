"""Plan of the answer of a delivery URL: a pure function of the faults, the attempt number, and the Range header.

Nothing here uses a socket; `server/wire.py` sends the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from ..body import HTML_PAGE, Headers
from ..faults.faults import Faults
from ..faults.values import Step, step_at

Ending = Literal["whole", "cut", "reset", "clean-cut", "stall"]

JSON_PAGE = b'{"error": 500, "reason": "Internal Server Error", "detail": "The snapshot store is busy."}\n'

GARBAGE = b"\r\n<!-- served by a helpful proxy -->\r\n"

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")

_NOISE: Headers = (
    ("x-FRAME-options", "  DENY  "),
    ("cAcHe-CoNtRoL", "no-cache"),
    ("Cache-Control", "no-store"),
    ("Content-Disposition", 'attachment; filename="../../etc/cron.d/evil"'),
    ("Set-Cookie", "mmsa-prod=; Max-Age=0; Path=/"),
    ("Set-Cookie", "mmsa-hosted=x\tx"),
    *((f"X-Noise-{number}", "n" * 100) for number in range(40)),
)


@dataclass(frozen=True)
class Ask:
    """Headers of a request that select bytes."""

    range: str | None = None
    if_range: str | None = None


@dataclass(frozen=True)
class Content:
    """Content of the delivery at this attempt: its size as sent, and its validators."""

    size: int
    etag: str
    last_modified: str


@dataclass(frozen=True)
class Plan:
    """One answer: bytes `[start, stop)` of the content (or `page` instead), of which `send` are sent before `ending`.

    `rate` is in bytes per second. `proves`: sending all of it completes the download, so a hash is published.
    """

    status: int
    headers: Headers
    start: int
    stop: int
    framing: str
    ending: Ending
    send: int
    page: bytes | None = None
    rate: int | None = None
    proves: bool = False
    damaged: bool = False

    @property
    def length(self) -> int:
        """Bytes of the answer without its fault."""
        return self.stop - self.start

    @property
    def declared(self) -> int:
        """Content-Length to send; that of a clean cut is the number of bytes sent, so the answer looks complete."""
        return self.send if self.ending == "clean-cut" else self.length


def plan_delivery(faults: Faults, attempt: int, ask: Ask, content: Content) -> Plan:
    """Return the answer to attempt `attempt` (from 0) at a valid URL."""
    step = step_at(faults.attempts, attempt)
    if step is not None and step.kind == "refuse":
        return refusal(step.status, "The delivery was refused.", faults.retry_after)
    plan = _page(faults, attempt) or _archive(faults, ask, content)
    plan = replace(plan, framing=faults.framing, rate=faults.drip, damaged=attempt < faults.damaged)
    if faults.header_noise:
        plan = replace(plan, headers=plan.headers + _NOISE)
    return plan if step is None else _ended(plan, step)


def refusal(status: int, detail: str, retry_after: int | None = None) -> Plan:
    """Return a refusal: a status and a small body."""
    page = f"{detail}\n".encode()
    headers: Headers = (("Content-Type", "text/plain"),)
    if retry_after is not None:
        headers += (("Retry-After", str(retry_after)),)
    return _whole(status, headers, 0, len(page), page=page)


def _whole(
    status: int, headers: Headers, start: int, stop: int, *, page: bytes | None = None, proves: bool = False
) -> Plan:
    return Plan(status, headers, start, stop, "length", "whole", stop - start, page=page, proves=proves)


def _ended(plan: Plan, step: Step) -> Plan:
    kinds: dict[str, Ending] = {"cut": "cut", "reset": "reset", "clean-cut": "clean-cut", "stall": "stall"}
    return replace(plan, ending=kinds[step.kind], send=step.at.of(plan.length), proves=False)


def _page(faults: Faults, attempt: int) -> Plan | None:
    """Return the answer whose body is not an archive, if the faults require one."""
    pages = (
        (faults.html_body, "text/html;charset=utf-8", HTML_PAGE),
        (faults.json_body, "application/json", JSON_PAGE),
        (faults.empty_body, "application/x-gzip", b""),
    )
    for times, content_type, page in pages:
        if attempt < times:
            return _whole(200, (("Content-Type", content_type),), 0, len(page), page=page)
    return None


def _archive(faults: Faults, ask: Ask, content: Content) -> Plan:
    headers = _archive_headers(faults, content)
    asked = _asked_range(ask, content) if faults.range not in ("none", "ignore") else None
    if asked is None:
        return _whole(200, headers, 0, content.size, proves=True)
    start, stop = asked
    if faults.range == "416" or start >= content.size:
        plan = refusal(416, "Range not satisfiable.")
        return replace(plan, headers=(*plan.headers, ("Content-Range", f"bytes */{content.size}")))
    return _partial(faults.range, headers, (start, stop), content.size)


def _partial(mode: str, headers: Headers, span: tuple[int, int], size: int) -> Plan:
    start, stop = span
    shown_start, shown_size = start, size
    if mode == "wrong-offset":
        start = shown_start = start // 2
    elif mode == "wrong-total":
        shown_size = size + 1
    elif mode == "wrong-bytes":
        start, stop = 0, stop - start
    shown_stop = shown_start + stop - start
    headers += (("Content-Range", f"bytes {shown_start}-{shown_stop - 1}/{shown_size}"),)
    return _whole(206, headers, start, stop, proves=stop == size or mode == "wrong-bytes")


def _archive_headers(faults: Faults, content: Content) -> Headers:
    headers: Headers = (("Content-Type", "application/x-tar" if faults.plain_tar else "application/x-gzip"),)
    if faults.content_encoding_gzip:
        headers += (("Content-Encoding", "gzip"),)
    if faults.range != "none":
        headers += (("Accept-Ranges", "bytes"),)
        if not faults.no_validator:
            headers += (("ETag", content.etag), ("Last-Modified", content.last_modified))
    return headers


def _asked_range(ask: Ask, content: Content) -> tuple[int, int] | None:
    """Return the span that a Range header selects, or None if the whole is sent (RFC 9110, 13.1.5 and 14.2)."""
    matched = _RANGE.fullmatch(ask.range or "")
    if matched is None or (ask.if_range is not None and ask.if_range not in (content.etag, content.last_modified)):
        return None
    first, last = matched.groups()
    if not first:
        return (max(0, content.size - int(last)), content.size) if last else None
    stop = min(content.size, int(last) + 1) if last else content.size
    return None if last and int(last) < int(first) else (int(first), stop)
