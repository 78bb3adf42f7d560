"""Public API: authentication, answers, and faults of answers."""

from __future__ import annotations

from dataclasses import replace

from ..body import Headers
from ..faults.values import step_at
from ..model import Manager
from .answers import (
    JSON,
    Answer,
    Question,
    Refused,
    enveloped,
    error_answer,
    foreign_answer,
    html_answer,
    render,
    status_refusal,
    version,
)
from .digest import DigestGuard, Verdict, challenges
from .lists import list_document
from .resources import Found, Listing, Resources


class Api:
    """API of a manager. `answer` may be called from any thread."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._guard = DigestGuard(manager.keys.public_key, manager.keys.private_key)
        self._resources = Resources(manager)
        self._requests = 0
        self._answers = 0
        self._posts = 0

    def answer(self, question: Question) -> Answer:
        """Return the answer to one request, with its faults."""
        with self._manager.lock:
            return self._trouble() or self._authorized(question)

    def _trouble(self) -> Answer | None:
        """Return the fault of this request, if there is one: overload, reset, no answer."""
        faults = self._manager.faults
        step = step_at(faults.api_troubles, self._requests)
        self._requests += 1
        if step is None:
            return Answer(200, trouble="endless-header") if faults.endless_header else None
        if not step.status:
            return Answer(0, trouble=step.kind)
        if step.status in (400, 407):
            return foreign_answer(step.status)
        return error_answer(status_refusal(step.status), faults, self._wait(step.status))

    def _wait(self, status: int) -> Headers:
        seconds = self._manager.faults.api_retry_after
        return (("Retry-After", str(seconds)),) if seconds is not None and (status == 429 or status >= 500) else ()

    def _authorized(self, question: Question) -> Answer:
        manager, faults = self._manager, self._manager.faults
        if faults.api_redirect:
            return Answer(302, (*version(faults), ("Location", manager.second_origin + question.target)))
        now = manager.clock.now()
        verdict = self._guard.check(
            question.authorization, question.method, question.target, now, uses=faults.stale_nonce
        )
        if verdict != "digest" or faults.unauthorized:
            return self._challenge(verdict, now)
        try:
            self._check_access()
            if question.method == "POST":
                return self._posted(question, verdict)
            return self._rendered(question, self._resources.find(question), verdict)
        except Refused as refused:
            return error_answer(refused, faults, self._wait(refused.status), verdict)

    def _posted(self, question: Question, auth: Verdict) -> Answer:
        faults = self._manager.faults
        step = step_at(faults.post_troubles, self._posts)
        self._posts += 1
        if step is not None and step.kind == "post":
            raise status_refusal(step.status)
        answer = self._rendered(question, self._resources.find(question), auth)
        if step is not None:
            answer = error_answer(status_refusal(step.status), faults, self._wait(step.status), auth)
        elif answer.status == 200:
            answer = replace(answer, status=faults.post_status)
        return replace(answer, trouble=faults.post_lost, delay=faults.post_delay)

    def _challenge(self, verdict: Verdict, now: float) -> Answer:
        faults = self._manager.faults
        stale = verdict == "digest-stale" and not faults.one_nonce
        digest = self._guard.challenge(now, stale=stale, qop=faults.qop, only=faults.one_nonce)
        headers: Headers = tuple(("WWW-Authenticate", value) for value in challenges(faults.challenge, digest))
        if faults.unauthorized == "empty":
            return Answer(401, (*version(faults), *headers), auth=verdict)
        refused = Refused(401, "USER_UNAUTHORIZED", "You are not authorized for this resource.")
        return error_answer(refused, faults, headers, verdict)

    def _check_access(self) -> None:
        faults = self._manager.faults
        if faults.forbidden:
            detail = "IP address 127.0.0.1 is not allowed to access this resource."
            raise Refused(403, "IP_ADDRESS_NOT_ON_ACCESS_LIST", detail, "127.0.0.1")
        if faults.not_in_group:
            group_id = self._manager.deployment.group_id
            raise Refused(401, "NOT_IN_GROUP", "The current user is not in the group.", group_id)

    def _rendered(self, question: Question, found: Found, auth: Verdict) -> Answer:
        manager, faults = self._manager, self._manager.faults
        self._answers += 1
        if self._answers <= faults.not_json:
            return html_answer(auth)
        is_list = isinstance(found, Listing)
        document = list_document(found.items, question, manager, found.missing) if isinstance(found, Listing) else found
        if faults.envelope_always or question.is_set("envelope"):
            document = enveloped(document, 200, is_list=is_list)
        return Answer(200, (*version(faults), *JSON), render(document, question, faults), auth)
