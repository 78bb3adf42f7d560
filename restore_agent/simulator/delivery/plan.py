"""Plan of the answer of a delivery URL: a pure function of the faults, the attempt number, and the Range header.

Nothing here uses a socket; `server/wire.py` sends the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from ..body import HTML_PAGE, Headers
from ..faults.faults import Faults
from ..faults.values import step_at
from .heads import Form, echoes, form_of, head_style, more_headers

Ending = Literal["whole", "cut", "reset", "clean-cut", "stall"]

JSON_PAGE = b'{"error": 500, "reason": "Internal Server Error", "detail": "The snapshot store is busy."}\n'

GARBAGE = b"\r\n<!-- served by a helpful proxy -->\r\n"

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


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
    form: Form
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
        return max(0, (self.send if self.ending == "clean-cut" else self.length) + self.form.excess)


def plan_delivery(faults: Faults, attempt: int, ask: Ask, content: Content) -> Plan:
    """Return the answer to attempt `attempt` (from 0) at a valid URL."""
    step = step_at(faults.attempts, attempt)
    if step is not None and step.kind == "refuse":
        return refusal(step.status, "The delivery was refused.", faults.retry_after)
    plan = _page(faults, attempt) or _archive(faults, ask, content)
    plan = replace(plan, form=form_of(faults), rate=faults.drip, damaged=attempt < faults.damaged)
    plan = replace(plan, headers=plan.headers + more_headers(faults))
    if step is not None:
        plan = _ended(plan, step.kind, step.at.of(plan.length))
    elif plan.form.excess and faults.framing == "length":
        plan = _ended(plan, "cut", plan.length)
    proves = plan.proves and (plan.ending == "whole" or (faults.hash_after != "complete" and plan.send == plan.length))
    return replace(plan, proves=proves)


def refusal(status: int, detail: str, retry_after: int | None = None) -> Plan:
    """Return a refusal: a status and a small body."""
    page = f"{detail}\n".encode()
    headers: Headers = (("Content-Type", "text/plain"),)
    if retry_after is not None:
        headers += (("Retry-After", str(retry_after)),)
    if status == 407:
        headers += (("Proxy-Authenticate", 'Basic realm="proxy"'),)
    return _whole(status, headers, 0, len(page), page=page)


def _whole(
    status: int, headers: Headers, start: int, stop: int, *, page: bytes | None = None, proves: bool = False
) -> Plan:
    return Plan(status, headers, start, stop, Form(), "whole", stop - start, page=page, proves=proves)


def _ended(plan: Plan, kind: str, send: int) -> Plan:
    kinds: dict[str, Ending] = {"cut": "cut", "reset": "reset", "clean-cut": "clean-cut", "stall": "stall"}
    return replace(plan, ending=kinds[kind], send=send)


def with_echoes(plan: Plan, faults: Faults, token: str) -> Plan:
    """Return the plan with the token of the request wherever the `echo-token` fault repeats it."""
    found = echoes(faults, token)
    if not found:
        return plan
    names = {"content-type": "Content-Type", "etag": "ETag", "header": "X-Token"}
    echoed = {names[place].lower(): (names[place], text) for place, text in found.items() if place in names}
    if "content-type" in echoed:
        echoed["content-type"] = ("Content-Type", f"application/x-gzip; token={found['content-type']}")
    if "etag" in echoed:
        echoed["etag"] = ("ETag", f'"{found["etag"]}"')
    headers = (*(header for header in plan.headers if header[0].lower() not in echoed), *echoed.values())
    if "status-line" in found:
        style = replace(plan.form.head, reason=f"Token {found['status-line']}")
        plan = replace(plan, form=replace(plan.form, head=style))
    if plan.page is not None and "body" in found:
        page = plan.page + f"token {found['body']}\n".encode()
        plan = replace(plan, page=page, stop=len(page), send=len(page))
    return replace(plan, headers=headers)


def with_head(plan: Plan, faults: Faults) -> Plan:
    """Return a refusal with the form of head that faults give every delivery answer."""
    return replace(plan, form=replace(plan.form, head=head_style(faults)), headers=plan.headers + more_headers(faults))


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
