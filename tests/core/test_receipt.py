"""The receipt: the contract's fields in the contract's order, read again, merged, and refused when it is not ours."""

import contextlib
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restore_agent import __version__
from restore_agent.core.clock import rfc3339
from restore_agent.core.errors import OtherBatch, RecordUnreadable
from restore_agent.core.receipt import SCHEMA, ArchiveRecord, Receipt, Verdict, outcome_of, parse_receipt

SHA1 = "0123456789abcdef0123456789abcdef01234567"
VERIFIED = ArchiveRecord("j1", file_name="rs0.tar.gz", sha1=SHA1, verdict=Verdict.VERIFIED)


def receipt(*archives: ArchiveRecord, **fields: Any) -> Receipt:
    known = {
        "group_id": "g",
        "cluster_id": "c",
        "host_id": None,
        "batch_id": "b",
        "ops_manager": "https://om:8443",
        "started_at": rfc3339(0),
        "finished_at": rfc3339(1),
        "outcome": "verified",
        "exit_code": 0,
        "changed": True,
    }
    return Receipt(**{**known, **fields}, archives=archives)


def as_file(document: object) -> bytes:
    return json.dumps(document).encode()


# ---------------------------------------------------------------- what it looks like

# the contract's section 3, receipt.json, as it lists them
FIELDS = [
    *("schema", "agent_version", "outcome", "exit_code", "changed", "ops_manager", "group_id", "cluster_id"),
    *("host_id", "batch_id", "started_at", "finished_at", "archives"),
]
ARCHIVE_FIELDS = [
    *("job_id", "cluster_id", "host_id", "snapshot_id", "snapshot_timestamp", "file_name", "path", "bytes"),
    *("sha1", "expected_sha1", "verdict", "reason", "exit_code", "downloads_spent", "resumed", "seconds"),
    *("bytes_per_second", "encryption_enabled", "master_key_uuid", "point_in_time"),
]


def test_a_receipt_has_the_fields_of_the_contract_in_their_order() -> None:
    document = receipt(VERIFIED).to_json()
    assert list(document) == FIELDS
    assert list(document["archives"][0]) == ARCHIVE_FIELDS


def test_a_receipt_names_its_schema_and_the_version_that_wrote_it() -> None:
    document = receipt().to_json()
    assert (document["schema"], document["agent_version"]) == ("restore-agent/receipt/1", __version__)


def test_the_verdicts_are_those_of_the_contract() -> None:
    assert [verdict.value for verdict in Verdict] == ["verified", "unproven", "mismatch", "failed", "skipped"]


def test_a_verdict_is_written_as_its_word() -> None:
    written = json.loads(as_file(receipt(VERIFIED).to_json()))
    assert written["archives"][0]["verdict"] == "verified"


@pytest.mark.parametrize(
    ("epoch", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1492776000.25, "2017-04-21T12:00:00.250Z"),
        (4102444800, "2100-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_is_rfc_3339_in_utc(epoch: float, text: str) -> None:
    assert rfc3339(epoch) == text
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)


# ---------------------------------------------------------------- outcome


def judged(verdict: Verdict | None, code: int = 0) -> ArchiveRecord:
    return ArchiveRecord(f"{verdict}-{code}", verdict=verdict, exit_code=code)


GOOD, SKIPPED = judged(Verdict.VERIFIED), judged(Verdict.SKIPPED)
LATE, ALLOWED = judged(Verdict.UNPROVEN, 10), judged(Verdict.UNPROVEN)
BAD, EXPIRED, SPENT = judged(Verdict.MISMATCH, 11), judged(Verdict.FAILED, 22), judged(Verdict.FAILED, 23)


@pytest.mark.parametrize(
    ("records", "outcome", "code"),
    [
        ([GOOD], "verified", 0),
        ([GOOD, GOOD, SKIPPED], "verified", 0),
        ([LATE], "unproven", 10),
        ([GOOD, LATE, LATE], "unproven", 10),
        ([ALLOWED], "unproven", 0),
        ([GOOD, ALLOWED, SKIPPED], "unproven", 0),
        ([BAD], "failed", 11),
        ([GOOD, EXPIRED, EXPIRED], "failed", 22),
        ([EXPIRED, SPENT], "failed", 12),
        ([BAD, LATE], "failed", 12),
        ([ALLOWED, EXPIRED], "failed", 22),
        ([judged(Verdict.MISMATCH, 0)], "failed", 0),
        ([judged(None)], "failed", 0),
    ],
)
def test_the_outcome_is_that_of_the_archives(records: list[ArchiveRecord], outcome: str, code: int) -> None:
    assert outcome_of(records) == (outcome, code)


# ---------------------------------------------------------------- other restores and other runs


@pytest.mark.parametrize(
    ("written", "batch_id", "job_ids"),
    [
        (receipt(VERIFIED, batch_id="b"), "b", []),
        (receipt(VERIFIED, batch_id="b"), "b", ["j2"]),
        (receipt(batch_id="b"), "b", []),
        (receipt(VERIFIED, batch_id=None), None, ["j1"]),
        (receipt(VERIFIED, batch_id=None), None, ["j0", "j1"]),
        (receipt(batch_id=None), None, ["j2"]),
    ],
    ids=["batch", "other job of the batch", "batch without archives", "job", "job and more", "no archives"],
)
def test_a_run_for_the_same_restore_may_merge(written: Receipt, batch_id: str | None, job_ids: list[str]) -> None:
    written.require_same_restore(batch_id, job_ids)
    assert written.batch_id == batch_id


@pytest.mark.parametrize(
    ("written", "batch_id", "job_ids", "named"),
    [
        (receipt(VERIFIED, batch_id="b"), "b2", [], "batch b"),
        (receipt(batch_id="b"), "b2", [], "batch b"),
        (receipt(VERIFIED, batch_id="b"), None, ["j2"], "batch b"),
        (receipt(VERIFIED, batch_id=None), "b", [], "single restore jobs"),
        (receipt(VERIFIED, batch_id=None), None, ["j2"], "single restore jobs"),
    ],
    ids=["batch", "batch without archives", "job after batch", "batch after job", "job after job"],
)
def test_the_receipt_of_another_restore_is_in_the_way(
    written: Receipt, batch_id: str | None, job_ids: list[str], named: str
) -> None:
    with pytest.raises(OtherBatch) as caught:
        written.require_same_restore(batch_id, job_ids)
    assert named in caught.value.message
    assert (caught.value.exit_code, caught.value.fields()["download_spent"]) == (42, False)


def test_a_second_run_adds_its_archives_to_those_of_the_first() -> None:
    first = receipt(VERIFIED, ArchiveRecord("j3", verdict=Verdict.FAILED, exit_code=22))
    second = receipt(ArchiveRecord("j2", verdict=Verdict.VERIFIED), outcome="verified")
    merged = second.merged_with(first)
    assert {record.job_id: record.exit_code for record in merged.archives} == {"j1": 0, "j2": 0, "j3": 22}
    assert (merged.outcome, merged.started_at) == (second.outcome, second.started_at)


def test_a_second_run_replaces_what_the_first_said_of_the_same_job() -> None:
    first = receipt(ArchiveRecord("j1", verdict=Verdict.FAILED, exit_code=22))
    merged = receipt(VERIFIED).merged_with(first)
    assert merged.archives == (VERIFIED,)


def test_with_nothing_earlier_a_receipt_stays_as_it_is() -> None:
    made = receipt(VERIFIED)
    assert made.merged_with(None) is made


# ---------------------------------------------------------------- read again


def test_a_receipt_reads_as_it_was_written() -> None:
    full = replace(
        VERIFIED, bytes=5, seconds=0.5, bytes_per_second=10, resumed=True, downloads_spent=2, reason="hash-mismatch"
    )
    made = receipt(full, ArchiveRecord("j2"))
    assert parse_receipt(as_file(made.to_json())) == made


def test_fields_that_a_later_version_added_are_passed_over() -> None:
    document = receipt(VERIFIED).to_json()
    document["novelty"] = 1
    document["archives"][0]["novelty"] = {"a": 1}
    assert parse_receipt(as_file(document)) == receipt(VERIFIED)


def test_a_receipt_of_another_version_of_the_agent_is_read() -> None:
    document = {**receipt(VERIFIED).to_json(), "agent_version": "0.0.1"}
    assert parse_receipt(as_file(document)).agent_version == "0.0.1"


@pytest.mark.parametrize("schema", ["restore-agent/receipt/2", "restore-agent/status/1", "", None, 5, [1] * 1000])
def test_a_receipt_of_another_schema_is_refused_with_advice(schema: object) -> None:
    with pytest.raises(RecordUnreadable) as caught:
        parse_receipt(as_file({**receipt(VERIFIED).to_json(), "schema": schema}))
    assert caught.value.exit_code == 42
    assert SCHEMA in caught.value.message
    assert len(caught.value.message) < 200
    assert "version" in caught.value.hint


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"5",
        b"{}",
        b"\xff\xfe",
        bytes(4096),
        b"[" * 100_000,
        as_file(receipt(VERIFIED).to_json())[:-1],
    ],
)
def test_a_receipt_that_is_damaged_is_refused(raw: bytes) -> None:
    with pytest.raises(RecordUnreadable, match="is damaged or not the agent"):
        parse_receipt(raw)


@pytest.mark.parametrize("field", ["batch_id", "exit_code", "archives", "started_at", "outcome", "changed"])
def test_a_receipt_without_a_field_that_is_needed_is_refused(field: str) -> None:
    document = receipt(VERIFIED).to_json()
    del document[field]
    with pytest.raises(RecordUnreadable, match="lacks fields"):
        parse_receipt(as_file(document))


@pytest.mark.parametrize(
    "change",
    [
        {"exit_code": 77},
        {"exit_code": "0"},
        {"exit_code": [0]},
        {"batch_id": 5},
        {"archives": None},
        {"archives": {"j1": {}}},
        {"archives": ["j1"]},
        {"archives": [None]},
        {"archives": [{}]},
        {"archives": [{"job_id": 5}]},
        {"archives": [{"job_id": None}]},
        {"archives": [{"job_id": "j1", "verdict": "novel"}]},
        {"archives": [{"job_id": "j1", "verdict": ["verified"]}]},
        {"archives": [{"job_id": "j1", "file_name": 5}]},
        {"archives": [{"job_id": "j1", "file_name": "../etc/passwd"}]},
        {"archives": [{"job_id": "j1", "file_name": ".bashrc"}]},
        {"archives": [{"job_id": "j1", "file_name": "a\nb"}]},
        {"archives": [{"job_id": "j1", "sha1": 5}]},
        {"archives": [{"job_id": "j1", "exit_code": [11]}]},
    ],
)
def test_a_receipt_with_a_field_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RecordUnreadable):
        parse_receipt(as_file({**receipt(VERIFIED).to_json(), **change}))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {"job_id": st.text(max_size=4) | anything},
    optional=dict.fromkeys(("file_name", "sha1", "verdict", "bytes", "seconds", "novelty"), anything),
)
changes = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys([*FIELDS, "novelty"], anything), "archives": anything | st.lists(entries, max_size=3)}
)


@hypothesis_settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200) | changes.map(lambda change: as_file({**receipt(VERIFIED).to_json(), **change})))
def test_whatever_stands_in_receipt_json_it_is_read_or_refused(raw: bytes) -> None:
    try:
        read = parse_receipt(raw)
    except RecordUnreadable:
        return
    merged = receipt(VERIFIED).merged_with(read)
    assert VERIFIED in merged.archives
    assert list(merged.to_json()) == FIELDS
    with contextlib.suppress(OtherBatch):
        read.require_same_restore("b", ["j1"])
