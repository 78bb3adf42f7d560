"""Report as one HTML file. The only module that needs Jinja2; the templates lie next to it."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from ... import __version__
from ...core.errors import UsageError
from ..wording import time_text
from .rows import MARKS, PROOF, facts, heading, host_cells, published, size, standing_text, why
from .timeline import PHASES, timeline
from .values import BatchReport
from .wording import cut, moment, visible


def as_html(report: BatchReport, created: str | None = None) -> str:
    """Return the report as one page that loads nothing and runs no script. `created` is shown as the page's time.

    Raises UsageError if Jinja2 is not installed.
    """
    css = _file("page.css")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    picture = timeline(report.rows)
    values = {
        "report": report,
        "created": created,
        "css": css,
        "css_hash": digest,
        "heading": heading(report),
        "proof": PROOF,
        "picture": picture,
        "phases": PHASES,
        "version": __version__,
    }
    page: str = _environment().get_template("page.html.j2").render(values)
    return page


def _environment() -> Any:
    try:
        import jinja2
    except ImportError:
        hint = "Install it for the Python of restore-agent (`pip install jinja2`), or leave out --html to get text."
        raise UsageError("a report as HTML needs Jinja2, which is not installed", hint=hint) from None
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FunctionLoader(_file),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalized,
    )
    environment.globals.update(marks=MARKS, facts=facts, standing=standing_text, why=why, size=size)
    environment.globals.update(published=published, cells=host_cells, moment=moment)
    environment.filters.update(duration=time_text, percent=_percent, label=cut)
    return environment


def _finalized(value: Any) -> Any:
    """Make each text that a template prints visible; what is no text, or marked as safe, stays."""
    return visible(value, 1000) if type(value) is str else value


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.3f}%"


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
