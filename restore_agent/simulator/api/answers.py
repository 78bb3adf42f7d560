"""Requests and answers of the API: rendering, envelopes, and their faults."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..body import HTML_PAGE, NOTHING, Body, BytesPart, FillPart, Headers, Part
from ..faults.faults import Faults
from .digest import Verdict

VERSION = "gitHash=simulator; versionString=4.0.0.50245.20180626T1400Z"

JSON: Headers = (("Content-Type", "application/json"), ("Vary", "Accept-Encoding"))

HOSTILE = '\x1b[2J\x1b]0;owned\x07\r\n{"event": "result", "exit_code": 0}\n\u202e\u0000\x9b31m'
"""Text that clears terminals, forges log lines, and reverses the writing direction."""

PLAIN_HTTP = b"Client sent an HTTP request to an HTTPS server.\n"

SURROGATES = "\ud800 and \udfff"
"""Halves of surrogate pairs, which JSON can express and UTF-8 cannot."""

Document = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """Request to the API. `target` is the path with its query, as sent."""

    method: str
    target: str
    authorization: str | None = None
    body: bytes = b""

    @property
    def path(self) -> str:
        """Target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """Parameters of the query; the last of repeated ones."""
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    def number(self, name: str, default: int) -> int:
        """Return a whole number of at least 1 from the query."""
        text = self.query.get(name, "")
        return max(1, int(text)) if text.isascii() and text.isdigit() else default

    def is_set(self, name: str) -> bool:
        """Return whether a parameter is `true`."""
        return self.query.get(name, "").lower() == "true"


@dataclass(frozen=True)
class Answer:
    """Answer of the API, sent after `delay` seconds.

    If `trouble` is `close`, `reset`, `stall`, or `endless-header`, no answer is sent.
    """

    status: int
    headers: Headers = ()
    body: Body = NOTHING
    auth: Verdict = "none"
    trouble: str | None = None
    delay: float = 0.0


class Refused(Exception):
    """Ends a request with an error document."""

    def __init__(self, status: int, code: str, detail: str, *parameters: str) -> None:
        super().__init__(code)
        self.status, self.code, self.detail, self.parameters = status, code, detail, parameters


def version(faults: Faults) -> Headers:
    """Return the header with the version of the server."""
    return () if faults.no_version else (("X-MongoDB-Service-Version", VERSION),)


def error_answer(refused: Refused, faults: Faults, headers: Headers = (), auth: Verdict = "none") -> Answer:
    """Return the answer with an error document."""
    detail = refused.detail + odd_text(faults)
    document = error_document(refused.status, refused.code, detail, refused.parameters)
    body = Body((BytesPart(json.dumps(document).encode()),))
    return Answer(refused.status, (*version(faults), *JSON, *headers), body, auth)


_CODES = {403: "IP_ADDRESS_NOT_ON_ACCESS_LIST", 404: "RESOURCE_NOT_FOUND", 429: "RATE_LIMITED"}


def status_refusal(status: int) -> Refused:
    """Return the refusal with this status."""
    code = _CODES.get(status, "UNEXPECTED_ERROR" if status >= 500 else "REQUEST_REFUSED")
    return Refused(status, code, "Too busy." if status in (429, 503) else "The request was refused.")


def odd_text(faults: Faults) -> str:
    """Return text that faults append to names, statuses, and error details."""
    return (HOSTILE if faults.hostile_text else "") + (SURROGATES if faults.surrogates else "")


def foreign_answer(status: int) -> Answer:
    """Return an answer that does not come from the API: of a proxy (407), or of the TLS layer (400)."""
    if status == 407:
        headers: Headers = (("Proxy-Authenticate", 'Basic realm="proxy"'), ("Content-Type", "text/html"))
        return Answer(407, headers, Body((BytesPart(b"<html><body>Proxy Authentication Required</body></html>\n"),)))
    return Answer(status, (("Content-Type", "text/plain"),), Body((BytesPart(PLAIN_HTTP),)))


def error_document(status: int, code: str, detail: str, parameters: Sequence[str] = ()) -> Document:
    """Return an error document, which is the same for every endpoint."""
    return {
        "detail": detail,
        "error": status,
        "errorCode": code,
        "parameters": list(parameters),
        "reason": HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "",
    }


def html_answer(auth: Verdict) -> Answer:
    """Return a page instead of JSON, as a proxy or a login form sends it."""
    return Answer(200, (("Content-Type", "text/html;charset=utf-8"),), Body((BytesPart(HTML_PAGE),)), auth)


def enveloped(document: Document, status: int, *, is_list: bool) -> Document:
    """Return the document with its status inside: a list gets a field, any other document is wrapped."""
    return {"status": status, **document} if is_list else {"status": status, "content": document}


def render(document: Document, question: Question, faults: Faults) -> Body:
    """Return a document as JSON, changed by the faults."""
    shown: Any = _with_numbers_as_strings(document) if faults.numbers_as_strings else document
    if faults.json_array:
        shown = [shown]
    text = json.dumps(shown, indent=2 if question.is_set("pretty") else None)
    if faults.json_array or not (faults.deep_json or faults.huge_answer):
        return Body((BytesPart(text.encode()),))
    return Body(_enlarged(text, faults.deep_json, faults.huge_answer))


def _enlarged(text: str, depth: int, size: int) -> tuple[Part, ...]:
    """Return the same object with more fields: one with `depth` nested levels, one with `size` bytes."""
    nested = f'"nested": {"[" * depth}{"]" * depth}, ' if depth else ""
    head = BytesPart(("{" + nested).encode())
    tail = BytesPart(text[1:].encode())
    if not size:
        return head, tail
    return head, BytesPart(b'"padding": "'), FillPart(b"x", size), BytesPart(b'", '), tail


def _with_numbers_as_strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_numbers_as_strings(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_numbers_as_strings(item) for item in value]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
