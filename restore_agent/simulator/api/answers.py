"""From documents to the bytes of an answer: pages and their links, envelopes, pretty printing, and their faults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from ..body import NOTHING, Body, BytesPart, FillPart, Headers, Part
from ..delivery.plan import HTML_PAGE
from ..model import Manager
from .digest import Verdict
from .documents import Document, with_numbers_as_strings

MAX_ITEMS = 100

VERSION: Headers = (("X-MongoDB-Service-Version", "gitHash=simulator; versionString=4.0.0.50245.20180626T1400Z"),)

JSON: Headers = (("Content-Type", "application/json"), ("Vary", "Accept-Encoding"))


@dataclass(frozen=True)
class Question:
    """A request to the API. `target` is the path with its query, as sent."""

    method: str
    target: str
    authorization: str | None = None
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; of repeated ones the last."""
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    def number(self, name: str, default: int) -> int:
        """A whole number of at least 1 in the query."""
        text = self.query.get(name, "")
        return max(1, int(text)) if text.isascii() and text.isdigit() else default

    def says(self, name: str) -> bool:
        """Whether a parameter is `true`."""
        return self.query.get(name, "").lower() == "true"


@dataclass(frozen=True)
class Answer:
    """What the API says. `trouble` is one of reset, stall and endless-header, and then there is no answer."""

    status: int
    headers: Headers = ()
    body: Body = NOTHING
    auth: Verdict = "none"
    trouble: str | None = None


def list_document(items: list[Document], question: Question, manager: Manager) -> Document:
    """One page of a list, as `pageNum` and `itemsPerPage` ask for it."""
    faults = manager.faults
    page = question.number("pageNum", 1)
    size = min(question.number("itemsPerPage", MAX_ITEMS), faults.page_size or MAX_ITEMS)
    start = (page - 1) * size
    shown: list[Document] | None = items[start : start + size]
    more = start + size < len(items)
    if faults.endless_pages:
        shown, more = _unheard_of(items[:size], page, manager), True
    document: Document = {
        "links": _page_links(question, manager, page, size, more),
        "results": None if faults.null_results else shown,
        "totalCount": len(items) if not faults.endless_pages else 2_147_483_647,
    }
    if faults.no_total_count:
        del document["totalCount"]
    return document


def _unheard_of(items: list[Document], page: int, manager: Manager) -> list[Document]:
    """The first page as it is, then the same items under ids that were never seen."""
    if page == 1:
        return items
    return [item | {"id": manager.make_id("endless", page, number)} for number, item in enumerate(items)]


def _page_links(question: Question, manager: Manager, page: int, size: int, more: bool) -> list[Document]:
    links = [_page_link("self", question, manager, page, size)]
    if page > 1:
        links.append(_page_link("previous", question, manager, page - 1, size))
    if more and not manager.faults.no_next_link:
        links.append(_page_link("next", question, manager, page + 1, size))
    return links


def _page_link(relation: str, question: Question, manager: Manager, page: int, size: int) -> Document:
    query = question.query | {"pageNum": str(page), "itemsPerPage": str(size)}
    if relation != "self" and manager.faults.next_drops_batch:
        query.pop("batchId", None)
    return {"href": f"{manager.origin}{question.path}?{urlencode(query)}", "rel": relation}


def enveloped(document: Document, status: int, *, is_list: bool) -> Document:
    """The document with its status inside: a list gets a field, anything else is wrapped."""
    return {"status": status, **document} if is_list else {"status": status, "content": document}


def render(document: Document, question: Question, manager: Manager) -> Body:
    """A document as JSON, with whatever the faults make of it."""
    faults = manager.faults
    shown: Any = with_numbers_as_strings(document) if faults.numbers_as_strings else document
    if faults.json_array:
        shown = [shown]
    text = json.dumps(shown, indent=2 if question.says("pretty") else None)
    if faults.json_array or not (faults.deep_json or faults.huge_answer):
        return Body((BytesPart(text.encode()),))
    return Body(_swollen(text, faults.deep_json, faults.huge_answer))


def _swollen(text: str, depth: int, size: int) -> tuple[Part, ...]:
    """The same object with fields in front: one nested `depth` levels, one `size` bytes long."""
    nested = f'"nested": {"[" * depth}{"]" * depth}, ' if depth else ""
    head = BytesPart(("{" + nested).encode())
    tail = BytesPart(text[1:].encode())
    if not size:
        return head, tail
    return head, BytesPart(b'"padding": "'), FillPart(b"x", size), BytesPart(b'", '), tail


def html_answer(auth: Verdict) -> Answer:
    """A page where JSON should be, as a proxy or a login gives it."""
    return Answer(200, (("Content-Type", "text/html;charset=utf-8"),), Body((BytesPart(HTML_PAGE),)), auth)
