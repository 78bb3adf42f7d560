"""JSON from outside, read within bounded memory: what a server answers, and what stands in DEST."""

from __future__ import annotations

import json
from typing import Any

MOST_VALUES = 400_000
"""Values that a document may have; a thousand restore jobs have a tenth of it. Each can take a hundred bytes."""


def parse_document(raw: bytes) -> Any:
    """The value in a JSON text (RFC 8259). Raises ValueError: no JSON, nested too deep, or too many values."""
    if sum(raw.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
        raise ValueError("too many values")
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("nested too deep") from None
