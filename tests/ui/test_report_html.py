"""The report as HTML: well formed, escaped, and without anything that a browser would load or run."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from html.parser import HTMLParser

import pytest

from restore_agent.core.errors import UsageError
from restore_agent.ui.report import judge
from restore_agent.ui.report.html import as_html
from tests.support.receipts import archive
from tests.support.report_cases import CASES, EXPECTED_JOBS

VOID = {"meta", "rect", "line", "link", "br"}


class Reader(HTMLParser):
    """Elements, attributes, and text of a page; fails if an element is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(case: str) -> str:
    """Return the page of a case."""
    return as_html(judge(CASES[case](), EXPECTED_JOBS.get(case)), "2026-11-25 12:00:00")


@pytest.fixture(params=CASES)
def page(request: pytest.FixtureRequest) -> str:
    """Return the page of each case."""
    return page_of(request.param)


def test_the_page_runs_no_script_and_loads_no_resource(page: str) -> None:
    read = Reader(page)
    assert not set(read.tags) & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "a",
        "form",
        "base",
        "use",
        "image",
    }
    names = {name for name, _ in read.attributes}
    assert not names & {"src", "href", "style", "srcset", "action", "xlink:href"}
    assert not [name for name in names if name.startswith("on")]
    assert set(re.findall(r"url\(([^)]*)\)", page)) == {"#stripes", "#bricks"}
    assert "@import" not in page


def test_the_policy_allows_only_the_style_sheet_of_the_page(page: str) -> None:
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(value for name, value in Reader(page).attributes if name == "content")
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_hostile_names_are_shown_and_are_not_markup() -> None:
    page = page_of("hostile")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{7*7}}" in page
    assert "\\u202egnp.exe\\x1b[31m\\x00\\u200b" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]", page)
    assert page.count("</style>") == 1


def test_the_judgement_is_the_first_heading_and_the_title() -> None:
    page = page_of("one-missing")
    sentence = "The batch is not complete: 2 of 4 archives are verified, 1 is in no receipt, 1 failed."
    assert f"<title>{sentence}</title>" in page
    text = Reader(page.partition("<body>")[2].partition("</body>")[0]).text
    order = [
        sentence,
        "1 of 4 restore jobs is in no receipt",
        "Next:",
        "Archives",
        "Timeline",
        "How the proof works",
        "Hosts",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_every_fact_of_an_archive_is_on_the_page() -> None:
    page = page_of("success")
    for number in range(3):
        entry = archive(number)
        for name in ("file_name", "sha1", "data_path", "job_id"):
            assert entry[name] in page
        assert f"db-restore-{number:02d}.example.com" in page
    assert "7.0.14" in page
    assert page.count('class="lane"') == 3


def test_a_page_of_the_same_report_is_the_same() -> None:
    assert page_of("large") == page_of("large")


def test_without_jinja2_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match="Jinja2") as caught:
        page_of("success")
    assert "pip install jinja2" in caught.value.hint
