"""The public API: from a request to an answer, over the live model; and everything the faults do to answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..body import Body, BytesPart, Headers
from ..faults.faults import step_at
from ..model import Manager
from . import documents as doc
from .answers import JSON, VERSION, Answer, Question, enveloped, html_answer, list_document, render
from .digest import DigestGuard, Verdict

_ID = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True)
class _List:
    """All items of a list, of which the answer shows a page."""

    items: list[doc.Document]


class _Refused(Exception):
    """Ends a request with an error document."""

    def __init__(self, status: int, code: str, detail: str, *parameters: str) -> None:
        super().__init__(code)
        self.status, self.code, self.detail, self.parameters = status, code, detail, parameters


class Api:
    """The API over a manager. Call `answer` from any thread."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._guard = DigestGuard(manager.public_key, manager.private_key)
        self._requests = 0
        self._answers = 0

    def answer(self, question: Question) -> Answer:
        """The answer to one request, faults included."""
        with self._manager.lock:
            trouble = self._trouble()
            if trouble is not None:
                return trouble
            return self._authorised(question)

    def _trouble(self) -> Answer | None:
        """What stands before any answer: overload, resets, silence, redirects."""
        faults = self._manager.faults
        step = step_at(faults.api_troubles, self._requests)
        self._requests += 1
        if step is None:
            return Answer(200, trouble="endless-header") if faults.endless_header else None
        if not step.status:
            return Answer(0, trouble=step.kind)
        code = "RATE_LIMITED" if step.status == 429 else "UNEXPECTED_ERROR"
        wait: Headers = () if faults.api_retry_after is None else (("Retry-After", str(faults.api_retry_after)),)
        return self._error(_Refused(step.status, code, "Too busy."), wait)

    def _authorised(self, question: Question) -> Answer:
        manager, faults = self._manager, self._manager.faults
        if faults.api_redirect:
            return Answer(302, (*VERSION, ("Location", manager.second_origin + question.target)))
        now = manager.clock.now()
        verdict = self._guard.judge(
            question.authorization, question.method, question.target, now, uses=faults.stale_nonce
        )
        if verdict != "digest" or faults.unauthorized:
            return self._challenge(verdict, now)
        try:
            self._check_access()
            status, found = self._route(question)
        except _Refused as refused:
            return self._error(refused, auth=verdict)
        return self._render(question, status, found, verdict)

    def _challenge(self, verdict: Verdict, now: float) -> Answer:
        faults = self._manager.faults
        stale = verdict == "digest-stale" and not faults.one_nonce
        header = self._guard.challenge(now, stale=stale, qop=faults.qop, alone=faults.one_nonce)
        headers: Headers = (("WWW-Authenticate", header),)
        if faults.unauthorized == "empty":
            return Answer(401, (*VERSION, *headers), auth=verdict)
        refused = _Refused(401, "USER_UNAUTHORIZED", "You are not authorized for this resource.")
        return self._error(refused, headers, verdict)

    def _check_access(self) -> None:
        faults = self._manager.faults
        if faults.forbidden:
            detail = "IP address 127.0.0.1 is not allowed to access this resource."
            raise _Refused(403, "IP_ADDRESS_NOT_ON_ACCESS_LIST", detail, "127.0.0.1")
        if faults.not_in_group:
            raise _Refused(401, "NOT_IN_GROUP", "The current user is not in the group.", self._manager.group_id)

    def _error(self, refused: _Refused, headers: Headers = (), auth: Verdict = "none") -> Answer:
        hostile = self._manager.faults.hostile_text
        document = doc.error_document(refused.status, refused.code, refused.detail, refused.parameters, hostile=hostile)
        body = Body((BytesPart(json.dumps(document).encode()),))
        return Answer(refused.status, (*VERSION, *JSON, *headers), body, auth)

    # From a path to documents

    def _route(self, question: Question) -> tuple[int, doc.Document | _List]:
        path = question.path.removeprefix(doc.API).strip("/")
        for method, pattern, handler in _ROUTES:
            matched = re.fullmatch(pattern, path)
            if matched is not None and method == question.method:
                return handler(self, question, **matched.groupdict())
        if any(re.fullmatch(pattern, path) for _, pattern, _ in _ROUTES):
            raise _Refused(405, "METHOD_NOT_ALLOWED", f"{question.method} is not allowed here.")
        raise _Refused(404, "RESOURCE_NOT_FOUND", f"Cannot find resource {question.path}.", question.path)

    def _root(self, _question: Question) -> tuple[int, doc.Document]:
        link = {"href": f"{self._manager.origin}{doc.API}/groups", "rel": "http://mms.mongodb.com/groups"}
        return 200, {"appName": "MongoDB Ops Manager API (simulated)", "links": [link]}

    def _group(self, _question: Question, group: str) -> tuple[int, doc.Document]:
        self._need_group(group)
        return 200, doc.group_document(self._manager)

    def _clusters(self, _question: Question, group: str) -> tuple[int, _List]:
        self._need_group(group)
        ids = dict.fromkeys([self._manager.cluster_id, *(m.cluster_id for m in self._manager.members if not m.host_id)])
        return 200, _List([doc.cluster_document(self._manager, cluster_id) for cluster_id in ids])

    def _cluster(self, _question: Question, group: str, cluster: str) -> tuple[int, doc.Document]:
        self._need_cluster(group, cluster)
        return 200, doc.cluster_document(self._manager, cluster)

    def _snapshots(self, _question: Question, group: str, cluster: str) -> tuple[int, _List]:
        manager = self._manager
        self._need_cluster(group, cluster)
        ids = (
            [manager.snapshot_id]
            if cluster == manager.cluster_id
            else [member.snapshot_id for member in manager.members_of(cluster)]
        )
        found = (doc.snapshot_document(manager, snapshot_id) for snapshot_id in ids)
        return 200, _List([document for document in found if document])

    def _snapshot(self, _question: Question, group: str, cluster: str, snapshot: str) -> tuple[int, doc.Document]:
        self._need_cluster(group, cluster)
        document = doc.snapshot_document(self._manager, snapshot)
        if document is None or cluster not in (self._manager.cluster_id, document["clusterId"]):
            raise _Refused(404, "SNAPSHOT_NOT_FOUND", f"No snapshot with ID {snapshot} exists.", snapshot)
        return 200, document

    def _jobs(self, question: Question, group: str, owner: str) -> tuple[int, _List]:
        owner_id = self._need_owner(group, owner)
        batch = question.query.get("batchId")
        if batch is not None and self._manager.faults.no_batch:
            return 200, _List([])
        jobs = [job for job in self._manager.jobs_of(owner_id) if batch in (None, job.batch_id)]
        return 200, _List([doc.job_document(job) for job in jobs])

    def _job(self, _question: Question, group: str, owner: str, job: str) -> tuple[int, doc.Document]:
        owner_id = self._need_owner(group, owner)
        if not _ID.fullmatch(job):
            raise _Refused(404, "INVALID_JOB_ID", f"{job} is not a restore job ID.", job)
        found = next((known for known in self._manager.jobs_of(owner_id) if known.id == job), None)
        if found is None:
            raise _Refused(404, "RESTORE_JOB_NOT_FOUND", f"No restore job with ID {job} exists.", job)
        return 200, doc.job_document(found)

    def _create(self, question: Question, group: str, owner: str) -> tuple[int, _List]:
        self._need_owner(group, owner)
        order = _json_object(question.body)
        members = doc.snapshot_members(self._manager, str(order.get("snapshotId")))
        if not members:
            raise _Refused(400, "INVALID_SNAPSHOT_ID", "No such snapshot.", str(order.get("snapshotId")))
        jobs = self._manager.create_jobs(members, **_delivery_order(order))
        return 200, _List([doc.job_document(job) for job in jobs])

    def _need_group(self, group: str) -> None:
        if group != self._manager.group_id:
            raise _Refused(404, "GROUP_NOT_FOUND", f"No group with ID {group} exists.", group)

    def _need_cluster(self, group: str, cluster: str) -> None:
        self._need_group(group)
        if not self._manager.members_of(cluster):
            raise _Refused(
                404, "CLUSTER_NOT_FOUND", f"No cluster with ID {cluster} exists in group {group}.", cluster, group
            )

    def _need_owner(self, group: str, owner: str) -> str:
        """The id in `clusters/ID` or `hosts/ID`, once it is known to exist."""
        kind, _, owner_id = owner.partition("/")
        if kind == "clusters":
            self._need_cluster(group, owner_id)
        else:
            self._need_group(group)
            if owner_id not in [member.host_id for member in self._manager.members]:
                raise _Refused(404, "HOST_NOT_FOUND", f"No host with ID {owner_id} exists in group {group}.", owner_id)
        return owner_id

    # From documents to an answer

    def _render(self, question: Question, status: int, found: doc.Document | _List, auth: Verdict) -> Answer:
        manager, faults = self._manager, self._manager.faults
        self._answers += 1
        if self._answers <= faults.not_json:
            return html_answer(auth)
        is_list = isinstance(found, _List)
        document = list_document(found.items, question, manager) if isinstance(found, _List) else found
        if faults.envelope_always or question.says("envelope"):
            document = enveloped(document, status, is_list=is_list)
        return Answer(status, (*VERSION, *JSON), render(document, question, manager), auth)


def _json_object(body: bytes) -> doc.Document:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise _Refused(400, "INVALID_JSON", f"Received JSON is malformed: {error}.") from error
    if not isinstance(value, dict):
        raise _Refused(400, "INVALID_JSON", "Received JSON is not an object.")
    return value


def _delivery_order(order: doc.Document) -> dict[str, Any]:
    """Arguments for new jobs from a POST body: old servers took a snapshotId alone, newer ones say how to deliver."""
    delivery = order.get("delivery", {})
    if not isinstance(delivery, dict) or delivery.get("methodName", "HTTP") != "HTTP":
        raise _Refused(400, "INVALID_DELIVERY_METHOD", "Only delivery by HTTP is simulated.")
    try:
        wanted: dict[str, Any] = {}
        if "maxDownloads" in delivery:
            wanted["max_downloads"] = max(1, int(delivery["maxDownloads"]))
        if "expirationHours" in delivery:
            wanted["hours"] = float(delivery["expirationHours"])
        if "expires" in delivery:
            wanted["expires"] = datetime.fromisoformat(delivery["expires"]).timestamp()
    except (TypeError, ValueError) as error:
        raise _Refused(400, "INVALID_ATTRIBUTE", f"Invalid attribute in delivery: {error}.") from error
    return wanted


_Handler = Callable[..., tuple[int, Any]]

_GROUP = r"groups/(?P<group>[^/]+)"

_CLUSTER = rf"{_GROUP}/clusters/(?P<cluster>[^/]+)"

_JOBS = rf"{_GROUP}/(?P<owner>(?:clusters|hosts)/[^/]+)/restoreJobs"

_ROUTES: tuple[tuple[str, str, _Handler], ...] = (
    ("GET", "", Api._root),
    ("GET", _GROUP, Api._group),
    ("GET", rf"{_GROUP}/clusters", Api._clusters),
    ("GET", _CLUSTER, Api._cluster),
    ("GET", rf"{_CLUSTER}/snapshots", Api._snapshots),
    ("GET", rf"{_CLUSTER}/snapshots/(?P<snapshot>[^/]+)", Api._snapshot),
    ("GET", _JOBS, Api._jobs),
    ("GET", rf"{_JOBS}/(?P<job>[^/]+)", Api._job),
    ("POST", _JOBS, Api._create),
)
