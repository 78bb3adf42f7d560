"""Text and JSON from outside, made safe to read and to print."""

from __future__ import annotations

import json
import re
from typing import Any

# C0 and C1 controls, line and paragraph separators, and the bidirectional overrides that reorder a terminal line
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, limit: int = 400) -> str:
    """Return `text` on one line without control characters (shown as \\xNN), at most `limit` characters."""
    shown = _UNPRINTABLE.sub(
        lambda match: match.group().encode("unicode_escape", "surrogatepass").decode(), text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


MOST_VALUES = 400_000
"""Values that a document may have; a thousand restore jobs have a tenth of it. Each can take a hundred bytes."""


def parse_document(raw: bytes) -> Any:
    """Return the value in a JSON text (RFC 8259). Raises ValueError: no JSON, nested too deep, or too many values."""
    if sum(raw.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
        raise ValueError("too many values")
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("nested too deep") from None
