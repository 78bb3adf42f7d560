"""Delivery links over the live model: which job a URL means, whether it is good, and what a GET of it sets going."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

from ..archives import Archive
from ..body import NOTHING, Body, BytesPart, FilePart
from ..faults.faults import Faults
from ..model import SNAPSHOT_TIME, Job, Manager
from .plan import GARBAGE, Ask, Content, Plan, plan_delivery, refusal

_PULL = re.compile(
    r"/backup/restore/(?:v2/pull/(?P<v2>[0-9a-f]+)/(?P<token>[^/]+)|v3/pull/(?P<v3>[0-9a-f]+))/(?P<name>[^/]*)"
)

_HOP = re.compile(r"hop=(\d+)")


@dataclass(frozen=True)
class Pull:
    """One answer of a delivery: the plan, the content it takes its bytes from, and the archive behind it, if any."""

    plan: Plan
    content: Body = NOTHING
    job: Job | None = None
    archive: Archive | None = None
    auth: str = "none"

    @property
    def body(self) -> Body:
        """The bytes that go out before the ending."""
        source = self.content if self.plan.page is None else Body((BytesPart(self.plan.page),))
        return source.cut(self.plan.start, self.plan.start + self.plan.send)

    def is_cut_off(self) -> bool:
        """Whether the link has expired on a server that cuts running transfers then."""
        job = self.job
        if job is None or self.archive is None or job.faults.expires_cut is None:
            return False
        return job.delivery_status == "EXPIRED"


def is_link(target: str) -> bool:
    """Whether a request is for a delivery."""
    return target.startswith("/backup/restore/")


def link_job(manager: Manager, target: str) -> Job | None:
    """The job whose delivery a target is, whether or not its token is good."""
    matched = _match(target)
    return manager.find_job(matched["v2"] or matched["v3"]) if matched else None


def _match(target: str) -> re.Match[str] | None:
    return _PULL.fullmatch(urlsplit(target).path)


def pull(manager: Manager, method: str, target: str, headers: dict[str, str], origin: str) -> Pull:
    """The answer to a request for a delivery that came in at `origin`; what it sets going is set going here."""
    with manager.lock:
        job, matched = link_job(manager, target), _match(target)
        if job is None or matched is None:
            return Pull(refusal(404, "Not found."))
        auth = _proof(job, matched["token"], headers.get("authorization"))
        if auth == "refused":
            return Pull(refusal(404, "Not found."), job=job, auth=auth)
        refused = _refused(job, method)
        if refused is not None:
            return Pull(refused, job=job, auth=auth)
        hop = _redirect(job, target, origin)
        if hop is not None:
            return Pull(_redirection(hop), job=job, auth=auth)
        return _admit(job, method, Ask(headers.get("range"), headers.get("if-range")), auth)


def _proof(job: Job, token: str | None, authorization: str | None) -> str:
    """How a request shows that it may: `token` (in the path) or `bearer`, or else `refused`."""
    if token is not None:
        return "token" if unquote(token) == job.token else "refused"
    good = {f"Bearer {job.bearer}"} | ({job.bearer} if job.faults.no_bearer_field else set())
    return "bearer" if authorization in good and job.faults.url_v2 else "refused"


def _refused(job: Job, method: str) -> Plan | None:
    """Why a link that is proved gives nothing, or None."""
    if method == "HEAD" and job.faults.head == "count":
        job.downloads += 1  # what real servers do is unknown: this is the worst
        return refusal(405, "Method not allowed.")
    if method not in ("GET", "HEAD"):
        return refusal(405, "Method not allowed.")
    status = job.delivery_status
    if status == "EXPIRED":
        return refusal(job.faults.dead_status or 410, "The link has expired.")
    if status == "MAX_DOWNLOADS_EXCEEDED":
        return refusal(job.faults.dead_status or 403, "The link was used as often as allowed.")
    return None if job.has_url else refusal(404, "Not ready.")


def _redirect(job: Job, target: str, origin: str) -> str | None:
    """Where a request is sent instead; always to a link with the token in its path, since headers do not travel."""
    faults, manager = job.faults, job.manager
    if faults.redirect_loop:
        return manager.delivery_origin(job) + job.path_v2()
    matched = _HOP.search(urlsplit(target).query)
    hop = int(matched[1]) if matched else 0
    if hop < faults.redirect:
        return f"{origin}{job.path_v2()}?hop={hop + 1}"
    if faults.redirect_other_origin and origin != manager.second_origin:
        return f"{manager.second_origin}{job.path_v2()}?hop={hop}"
    return None


def _redirection(location: str) -> Plan:
    plan = refusal(302, "Found elsewhere.")
    return Plan(
        302, (*plan.headers, ("Location", location)), 0, plan.stop, "length", "whole", plan.send, page=plan.page
    )


def _admit(job: Job, method: str, ask: Ask, auth: str) -> Pull:
    faults, attempt = job.faults, job.attempts
    archive = job.archive(attempt)
    plan = plan_delivery(faults, attempt, ask, _content(archive, faults, attempt))
    if method == "HEAD":
        return Pull(plan, job=job, auth=auth)
    job.attempts += 1
    if plan.status in (200, 206) and faults.count == "start":
        job.downloads += 1
    if plan.page is not None:
        return Pull(plan, job=job, auth=auth)
    return Pull(plan, archive_body(archive, faults, damaged=plan.damaged), job, archive, auth)


def _content(archive: Archive, faults: Faults, attempt: int) -> Content:
    edition = attempt if faults.etag_changes else 0
    tag = hashlib.sha256(f"{archive.sha1}/{edition}".encode()).hexdigest()[:16]
    size = archive.size + (len(GARBAGE) if faults.trailing_garbage else 0)
    return Content(size, f'"{tag}"', formatdate(SNAPSHOT_TIME + edition, usegmt=True))


def archive_body(archive: Archive, faults: Faults, *, damaged: bool) -> Body:
    """An archive as it goes out: with a byte flipped in the middle, or garbage behind it, if so wanted."""
    whole = FilePart(archive.path, 0, archive.size)
    parts: tuple[FilePart | BytesPart, ...] = (whole,)
    if damaged:
        middle = archive.size // 2
        with archive.path.open("rb") as file:
            file.seek(middle)
            flipped = BytesPart(bytes([file.read(1)[0] ^ 0xFF]))
        parts = (whole.part(0, middle), flipped, whole.part(middle + 1, archive.size))
    return Body((*parts, BytesPart(GARBAGE)) if faults.trailing_garbage else parts)


def complete(taken: Pull) -> None:
    """The last byte of a body is going out: the download counts as whole, if that is what it was."""
    job, archive = taken.job, taken.archive
    if job is None or archive is None or not taken.plan.proves:
        return
    with job.manager.lock:
        job.completed += 1
        job.completed_at = job.manager.clock.now()
        job.sha1 = archive.sha1
        if job.faults.count == "end":
            job.downloads += 1
