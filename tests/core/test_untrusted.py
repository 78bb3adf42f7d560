"""JSON from outside, within bounded memory."""

from __future__ import annotations

import pytest

from restore_agent.core.untrusted import MOST_VALUES, parse_document


@pytest.mark.parametrize("raw", [b"{}", b"[1, 2]", b"null", b'"text"', '{"ü": 1}'.encode()])
def test_a_document_is_read(raw: bytes) -> None:
    assert parse_document(raw) in ({}, [1, 2], None, "text", {"ü": 1})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000 + b"]" * 100_000,
        b"[" + b"[]," * MOST_VALUES + b"1]",
        b"[" + b"1," * MOST_VALUES + b"1]",
    ],
    ids=["empty", "html", "cut", "no text", "deep", "many lists", "many numbers"],
)
def test_an_invalid_or_too_large_document_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_document(raw)
