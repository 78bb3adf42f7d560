"""The report's page in a real browser: nothing overflows, nothing is requested, and it prints on A4."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from restore_agent.ui.report import judge
from restore_agent.ui.report.html import as_html
from tests.support.chromium import CHROMIUM, Browser, Page, chromium
from tests.support.report_cases import CASES, EXPECTED_JOBS

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

WIDTHS = {"phone": 390, "tablet": 820, "desktop": 1400}

OVERFLOWING = """
(() => {
    const wide = document.documentElement.clientWidth;
    const outside = (box) => box.right > wide + 0.5 || box.left < -0.5;
    const cut = (one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== 'inline';
    return [...document.querySelectorAll('main, main *')]
        .filter((one) => !['title', 'pattern', 'defs'].includes(one.tagName) && !one.closest('defs'))
        .filter((one) => outside(one.getBoundingClientRect()) || (one instanceof HTMLElement && cut(one)))
        .map((one) => one.outerHTML.slice(0, 200));
})()
"""
"""Elements that reach out of the window, or whose content reaches out of them."""

OVERLAPPING = """
[...document.querySelectorAll('.lane')].filter((lane) => {
    const shown = [...lane.querySelectorAll('text')].filter((one) => getComputedStyle(one).display !== 'none');
    const [name, length] = shown.map((one) => one.getBoundingClientRect());
    return shown.length !== 2 || name.right > length.left;
}).map((lane) => lane.textContent)
"""
"""Lanes whose label reaches into their duration."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return one browser for all tests of this module."""
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def opened(browser: Browser) -> Page:
    """Return a new tab."""
    return browser.page()


def written(case: str, tmp_path: Path) -> Path:
    """Write the page of a case, and return its path."""
    path = tmp_path / "report.html"
    path.write_text(as_html(judge(CASES[case](), EXPECTED_JOBS.get(case)), "2026-11-25 12:00:00"), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("case", CASES)
def test_nothing_overflows_and_nothing_is_requested(opened: Page, tmp_path: Path, case: str, width: int) -> None:
    path = written(case, tmp_path)
    opened.open(path, width)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.evaluate(OVERFLOWING) == []
    assert opened.evaluate(OVERLAPPING) == []
    assert opened.requests == [path.as_uri()]
    assert opened.messages == []  # a style or script that the policy refuses would be one


def test_the_style_sheet_is_applied_in_light_and_dark(opened: Page, tmp_path: Path) -> None:
    path = written("success", tmp_path)
    colors = []
    for dark in (False, True):
        opened.open(path, 820, dark)
        colors.append(opened.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colors == ["rgb(252, 252, 250)", "rgb(21, 23, 26)"]


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_the_contrast_that_wcag_requires(opened: Page, tmp_path: Path, dark: bool) -> None:
    opened.open(written("large", tmp_path), 820, dark)
    pairs = opened.evaluate(
        "[...new Set([...document.querySelectorAll('p, dt, dd, h1, h2, h3, span, b, small, li')]"
        ".map((one) => getComputedStyle(one).color))]"
    )
    ground = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert len(pairs) >= 4
    assert [color for color in pairs if contrast(color, ground) < 4.5] == []


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colors such as `rgb(1, 2, 3)`, from 1 to 21."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    """Return the relative luminance of a color."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_an_injected_script_does_not_run(opened: Page, tmp_path: Path) -> None:
    path = written("success", tmp_path)
    path.write_text(path.read_text().replace("</main>", "<script>document.title = 'run'</script></main>"))
    opened.open(path, 820)
    assert opened.evaluate("document.title").startswith("The batch is complete")
    assert any("Content Security Policy" in message for message in opened.messages)


@pytest.mark.parametrize(("case", "most"), [("success", 2), ("one-missing", 2), ("large", 12)])
def test_the_page_prints_on_few_sheets_of_a4(opened: Page, tmp_path: Path, case: str, most: int) -> None:
    opened.open(written(case, tmp_path), 1400)
    pdf = opened.pdf()
    assert pdf.startswith(b"%PDF-")
    sheets = re.findall(rb"/Type\s*/Page\b[^s]", pdf)
    assert 1 <= len(sheets) <= most
    boxes = {tuple(float(part) for part in box.split()) for box in re.findall(rb"/MediaBox\s*\[([^\]]*)\]", pdf)}
    assert [(round(box[2]), round(box[3])) for box in boxes] == [(595, 842)]
