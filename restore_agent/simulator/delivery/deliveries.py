"""Delivery URLs of the live jobs: which job a URL belongs to, whether it is valid, and the effects of a GET."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

from ..archives import Archive
from ..body import NOTHING, Body, BytesPart, FilePart
from ..faults.faults import Faults
from ..model import Job, Manager
from ..model.deployment import SNAPSHOT_TIME
from .plan import GARBAGE, Ask, Content, Plan, plan_delivery, refusal, with_echoes, with_head
from .urls import delivery_url, token_path

_PULL = re.compile(
    r"/backup/restore/(?:v2/pull/(?P<v2>[0-9a-f]+)(?:/(?P<token>[^/]+))?|v3/pull/(?P<v3>[0-9a-f]+))/(?P<name>[^/]*)"
)

_HOP = re.compile(r"\bhop=(\d+)")

_QUERY_TOKEN = re.compile(r"\btoken=([^&]*)")


@dataclass(frozen=True)
class DeliveryAnswer:
    """Answer of a delivery: the plan, the content that its bytes are taken from, and the archive, if any."""

    plan: Plan
    content: Body = NOTHING
    job: Job | None = None
    archive: Archive | None = None
    auth: str = "none"

    @property
    def body(self) -> Body:
        """Bytes that are sent before the ending."""
        source = self.content if self.plan.page is None else Body((BytesPart(self.plan.page),))
        return source.cut(self.plan.start, self.plan.start + self.plan.send)

    def is_cut_off(self) -> bool:
        """Return whether the delivery has expired on a server that then interrupts active transfers."""
        job = self.job
        if job is None or self.archive is None or job.faults.expires_cut is None:
            return False
        return job.delivery_status == "EXPIRED"


def is_delivery(target: str) -> bool:
    """Return whether a request is for a delivery."""
    return target.startswith("/backup/restore/")


def job_of(manager: Manager, target: str) -> Job | None:
    """Return the job whose delivery a target is, whether or not its token is valid."""
    matched = _match(target)
    return manager.find_job(matched["v2"] or matched["v3"]) if matched else None


def _match(target: str) -> re.Match[str] | None:
    return _PULL.fullmatch(urlsplit(target).path)


def answer(manager: Manager, method: str, target: str, headers: dict[str, str], origin: str) -> DeliveryAnswer:
    """Return the answer to a request for a delivery that arrived at `origin`, and apply its effects."""
    with manager.lock:
        job, matched = job_of(manager, target), _match(target)
        if job is None or matched is None:
            return DeliveryAnswer(refusal(404, "Not found."))
        token = _token_in(matched, target, headers)
        auth = _credential(job, matched, token)
        ask = Ask(headers.get("range"), headers.get("if-range"))
        plan = _refused(job, auth, method) or _redirection(job, target, origin)
        taken = DeliveryAnswer(plan, job=job, auth=auth) if plan else _accept(job, method, ask, auth)
        return replace(taken, plan=with_echoes(taken.plan, job.faults, token.removeprefix("Bearer ")))


def _token_in(matched: re.Match[str], target: str, headers: dict[str, str]) -> str:
    """Return the token of a request as it stands there: in the path, the query, or the Authorization header."""
    if matched["v3"]:
        return headers.get("authorization", "")
    found = _QUERY_TOKEN.search(urlsplit(target).query)
    return matched["token"] or (found[1] if found else "")


def _credential(job: Job, matched: re.Match[str], token: str) -> str:
    """Return the valid credential of a request: `token` (in the URL) or `bearer`; else `refused`."""
    if matched["v2"]:
        return "token" if job.accepts(unquote(token), "url") else "refused"
    bare = token.removeprefix("Bearer ")
    has_scheme = bare != token or job.faults.no_bearer_field
    return "bearer" if has_scheme and job.faults.url_v2 and job.accepts(bare, "bearer") else "refused"


def _refused(job: Job, auth: str, method: str) -> Plan | None:
    """Return the refusal of a request, or None."""
    plan = _refusal(job, auth, method)
    return None if plan is None else with_head(plan, job.faults)


def _refusal(job: Job, auth: str, method: str) -> Plan | None:
    if auth == "refused":
        return refusal(404, "Not found.")
    if method == "HEAD" and job.faults.head == "count":
        job.downloads += 1  # the behavior of real servers is unknown; this is the worst case
        return refusal(405, "Method not allowed.")
    if method not in ("GET", "HEAD"):
        return refusal(405, "Method not allowed.")
    status = job.delivery_status
    if status == "EXPIRED":
        return refusal(job.faults.dead_status or 410, "The link has expired.")
    if status == "MAX_DOWNLOADS_EXCEEDED":
        return refusal(job.faults.dead_status or 403, "The link was used as often as allowed.")
    return None if job.has_url else refusal(404, "Not ready.")


def _location(job: Job, target: str, origin: str) -> str | None:
    """Return the Location of a redirect, if any: always a URL with a token in its path, as headers are not kept."""
    faults, manager = job.faults, job.manager
    if faults.redirect_loop:
        return delivery_url(job)
    matched = _HOP.search(urlsplit(target).query)
    hop = int(matched[1]) if matched else 0
    if hop < faults.redirect:
        return f"{origin}{_with_hop(job, hop + 1)}"
    if faults.redirect_other_origin and origin != manager.second_origin:
        return f"{manager.second_origin}{_with_hop(job, hop)}"
    return None


def _with_hop(job: Job, hop: int) -> str:
    path = token_path(job)
    return f"{path}{'&' if '?' in path else '?'}hop={hop}"


def _redirection(job: Job, target: str, origin: str) -> Plan | None:
    location = _location(job, target, origin)
    if location is None:
        return None
    plan = refusal(302, "Found elsewhere.")
    return replace(plan, headers=(*plan.headers, ("Location", location)))


def _accept(job: Job, method: str, ask: Ask, auth: str) -> DeliveryAnswer:
    faults, attempt = job.faults, job.attempts
    archive = job.archive(attempt)
    plan = plan_delivery(faults, attempt, ask, _content(archive, faults, attempt))
    if method == "HEAD":
        return DeliveryAnswer(plan, job=job, auth=auth)
    job.attempts += 1
    if plan.status in (200, 206) and faults.count == "start":
        job.downloads += 1
    if plan.page is not None:
        return DeliveryAnswer(plan, job=job, auth=auth)
    if faults.hash_after == "start":
        job.completed_at, job.sha1 = job.manager.clock.now(), archive.sha1
    return DeliveryAnswer(plan, archive_body(archive, faults, damaged=plan.damaged), job, archive, auth)


def _content(archive: Archive, faults: Faults, attempt: int) -> Content:
    edition = attempt if faults.etag_changes else 0
    tag = hashlib.sha256(f"{archive.sha1}/{edition}".encode()).hexdigest()[:16]
    size = archive.size + (len(GARBAGE) if faults.trailing_garbage else 0)
    return Content(size, f'"{tag}"', formatdate(SNAPSHOT_TIME + edition, usegmt=True))


def archive_body(archive: Archive, faults: Faults, *, damaged: bool) -> Body:
    """Return an archive as it is sent: with a changed byte in the middle, or with bytes after it, by fault."""
    whole = FilePart(archive.path, 0, archive.size)
    parts: tuple[FilePart | BytesPart, ...] = (whole,)
    if damaged:
        middle = archive.size // 2
        with archive.path.open("rb") as file:
            file.seek(middle)
            flipped = BytesPart(bytes([file.read(1)[0] ^ 0xFF]))
        parts = (whole.part(0, middle), flipped, whole.part(middle + 1, archive.size))
    return Body((*parts, BytesPart(GARBAGE)) if faults.trailing_garbage else parts)


def complete(taken: DeliveryAnswer) -> None:
    """Record a download whose bytes are all sent, if this is one; called before the last byte is sent."""
    job, archive = taken.job, taken.archive
    if job is None or archive is None or not taken.plan.proves:
        return
    with job.manager.lock:
        job.completed += 1
        job.completed_at = job.manager.clock.now()
        job.sha1 = archive.sha1
        if job.faults.count == "end":
            job.downloads += 1
