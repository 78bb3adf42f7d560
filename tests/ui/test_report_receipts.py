"""Receipt documents are checked before anything is made of them; the file that is wrong is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore_agent.ui.report import ReceiptFile, ReceiptsUnusable, as_text, judge, receipt_file
from restore_agent.ui.report.html import as_html
from restore_agent.ui.report.receipts import read_receipts
from tests.support.receipts import archive, receipt


def refused(document: Any) -> str:
    """Return the message with which a document is refused."""
    with pytest.raises(ReceiptsUnusable) as caught:
        read_receipts([ReceiptFile("/r/bad\x1b\u202e.json", document)])
    assert isinstance(caught.value, ValueError)
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith("/r/bad\\x1b\\u202e.json is not a receipt of restore-agent: ")
    return caught.value.message


@pytest.mark.parametrize(
    "document", [None, 7, "x", [], {}, {"schema": "restore-agent/receipt/2"}, {"schema": ["x" * 999]}]
)
def test_a_document_that_is_not_a_receipt_is_refused(document: Any) -> None:
    assert len(refused(document)) < 300


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("archives", None),
        ("archives", [7]),
        ("exit_code", "0"),
        ("exit_code", 77),
        ("exit_code", True),
        ("batch_id", 5),
        ("hostname", ["h"]),
        ("started_at", 12),
        ("agent_version", "9" * 20_000),
    ],
)
def test_a_field_of_the_wrong_type_is_named(field: str, value: Any) -> None:
    assert ("an archive" if value == [7] else field) in refused(receipt(archive(0)) | {field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("job_id", None),
        ("verdict", "fine"),
        ("bytes", -1),
        ("bytes", 2**70),
        ("bytes", 1.5),
        ("seconds", float("nan")),
        ("seconds", "3"),
        ("sha1", 5),
        ("restore_info", {"a": 1}),
        ("restore_info", []),
        ("archive_kept", 1),
        ("verified_at", 5),
    ],
)
def test_a_field_of_an_archive_of_the_wrong_type_is_named(field: str, value: Any) -> None:
    assert field in refused(receipt(archive(0, **{field: value})))


def test_a_receipt_that_contains_a_job_twice_is_refused() -> None:
    assert "a job twice" in refused(receipt(archive(0), archive(0)))


def test_an_invalid_time_is_unknown() -> None:
    report = judge(
        [ReceiptFile("/r", receipt(archive(0, verified_at="yesterday", ready_at="2026-11-24"), started_at="x"))]
    )
    moments = report.rows[0].archive.moments
    assert (moments.verified, moments.ready, report.hosts[0].started) == (None, None, None)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000])
def test_a_file_that_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ReceiptsUnusable, match=r"^/r/x\.json is not a receipt"):
        receipt_file("/r/x.json", raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(receipt())), st.sampled_from(sorted(archive())), JSON, JSON)
def test_any_value_in_any_field_is_refused_or_shown(field: str, inner: str, value: Any, other: Any) -> None:
    document = receipt(archive(0, **{inner: other})) | {field: value}
    try:
        report = judge([ReceiptFile("/r/x.json", document)])
    except ReceiptsUnusable:
        return
    assert as_text(report, 60)
    assert as_html(report)
