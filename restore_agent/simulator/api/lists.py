"""Pages of lists."""

from __future__ import annotations

from urllib.parse import urlencode

from ..model import Manager
from .answers import Document, Question

MAX_ITEMS = 100


def list_document(items: list[Document], question: Question, manager: Manager, missing: int = 0) -> Document:
    """Return one page of a list, as requested by `pageNum` and `itemsPerPage`.

    `missing`: items at the end that are left out, although totalCount includes them.
    """
    faults = manager.faults
    page = question.number("pageNum", 1)
    size = min(question.number("itemsPerPage", MAX_ITEMS), faults.page_size or MAX_ITEMS)
    start = (page - 1) * size
    shown: list[Document] | None = items[: len(items) - missing][start : start + size]
    more = start + size < len(items)
    if faults.endless_pages:
        shown, more = _with_new_ids(items[:size], page, manager), True
    document: Document = {
        "links": _page_links(question, manager, page, size, more),
        "results": None if faults.null_results else shown,
        "totalCount": len(items) if not faults.endless_pages else 2_147_483_647,
    }
    if faults.no_total_count:
        del document["totalCount"]
    elif faults.wrong_count is not None:
        document["totalCount"] = max(0, document["totalCount"] + faults.wrong_count)
    return document


def _with_new_ids(items: list[Document], page: int, manager: Manager) -> list[Document]:
    """Return the first page as it is, and on the other pages the same items with new IDs."""
    if page == 1:
        return items
    return [item | {"id": manager.deployment.make_id("endless", page, n)} for n, item in enumerate(items)]


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
