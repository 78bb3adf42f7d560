"""The receipt: its fields in the order of the contract, read again, merged, and refused if it is damaged."""

import contextlib
import json
import re
import socket
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restore_agent import __version__
from restore_agent.core.clock import rfc3339
from restore_agent.core.errors import AccessRefused, FewerJobs, OtherBatch, RecordUnreadable
from restore_agent.core.receipt import (
    SCHEMA,
    ArchiveRecord,
    Receipt,
    RestoreId,
    Verdict,
    outcome_of,
    parse_receipt,
    receipt_of,
)

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

# section 3 of the contract, receipt.json, in its order
FIELDS = [
    *("schema", "agent_version", "hostname", "outcome", "exit_code", "changed", "ops_manager", "group_id"),
    *("cluster_id", "host_id", "batch_id", "started_at", "finished_at", "archives"),
]
ARCHIVE_FIELDS = [
    *("job_id", "cluster_id", "host_id", "snapshot_id", "snapshot_timestamp", "file_name", "path", "bytes"),
    *("sha1", "expected_sha1", "verdict", "reason", "exit_code", "downloads_spent", "resumed", "seconds"),
    *("bytes_per_second", "encryption_enabled", "master_key_uuid", "point_in_time"),
    *("ready_at", "download_started_at", "downloaded_at", "verified_at", "unpacked_at"),
    *("data_path", "data_files", "data_bytes", "restore_info", "archive_kept"),
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


def test_a_verdict_is_written_as_its_name() -> None:
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


GOOD, SKIPPED, NOT_UNPACKED = judged(Verdict.VERIFIED), judged(Verdict.SKIPPED), judged(Verdict.VERIFIED, 13)
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
        ([NOT_UNPACKED], "verified", 13),
        ([GOOD, NOT_UNPACKED, SKIPPED], "verified", 13),
        ([judged(Verdict.UNPROVEN, 13)], "unproven", 13),
        ([NOT_UNPACKED, EXPIRED], "failed", 22),
        ([NOT_UNPACKED, LATE], "unproven", 10),
        ([judged(Verdict.MISMATCH, 0)], "failed", 0),
        ([judged(None)], "failed", 0),
    ],
)
def test_the_outcome_is_that_of_the_archives(records: list[ArchiveRecord], outcome: str, code: int) -> None:
    assert outcome_of(records) == (outcome, code)


def made_of(*records: ArchiveRecord, **errors: Any) -> Receipt:
    restore = RestoreId("g", "c", "h", "b", ("ignored",))
    return receipt_of(restore, records, ops_manager="https://om:8443", times=("t0", "t1"), changed=True, **errors)


def test_a_receipt_is_made_of_the_restore_its_archives_and_the_times() -> None:
    made = made_of(GOOD, SKIPPED)
    assert (made.group_id, made.cluster_id, made.host_id, made.batch_id) == ("g", "c", "h", "b")
    assert (made.started_at, made.finished_at, made.ops_manager, made.changed) == ("t0", "t1", "https://om:8443", True)
    assert (made.outcome, made.exit_code, made.archives) == ("verified", 0, (GOOD, SKIPPED))
    assert made.hostname == socket.gethostname()


@pytest.mark.parametrize(("records", "code"), [([], 24), ([GOOD], 24), ([EXPIRED], 12), ([NOT_UNPACKED], 24)])
def test_an_error_of_the_batch_counts_like_one_more_failed_archive(records: list[ArchiveRecord], code: int) -> None:
    made = made_of(*records, batch_error=FewerJobs("2 of 3 jobs"))
    assert (made.outcome, made.exit_code) == ("failed", code)


@pytest.mark.parametrize("records", [[], [GOOD], [EXPIRED, SPENT]])
def test_an_error_of_the_run_alone_decides_the_exit_code(records: list[ArchiveRecord]) -> None:
    made = made_of(*records, batch_error=FewerJobs("2 of 3 jobs"), run_error=AccessRefused("401"))
    assert (made.outcome, made.exit_code) == ("failed", 30)


# ---------------------------------------------------------------- other restores and other runs


def test_a_receipt_names_the_restore_that_it_is_of() -> None:
    made = receipt(VERIFIED, ArchiveRecord("j2"), batch_id=None)
    assert made.restore == RestoreId("g", "c", None, None, ("j1", "j2"))


def test_a_second_run_adds_its_archives_to_those_of_the_first() -> None:
    first = receipt(VERIFIED, ArchiveRecord("j3", verdict=Verdict.FAILED, exit_code=22))
    second = receipt(ArchiveRecord("j2", verdict=Verdict.VERIFIED), outcome="verified")
    merged = second.merged_with(first)
    assert {record.job_id: record.exit_code for record in merged.archives} == {"j1": 0, "j2": 0, "j3": 22}
    assert (merged.outcome, merged.started_at) == (second.outcome, second.started_at)


def test_a_second_run_replaces_the_record_of_the_same_job() -> None:
    first = receipt(ArchiveRecord("j1", verdict=Verdict.FAILED, exit_code=22))
    merged = receipt(VERIFIED).merged_with(first)
    assert merged.archives == (VERIFIED,)


def test_with_nothing_earlier_a_receipt_stays_as_it_is() -> None:
    made = receipt(VERIFIED)
    assert made.merged_with(None) is made


# ---------------------------------------------------------------- read again


def test_a_receipt_that_was_written_is_read_unchanged() -> None:
    full = replace(
        VERIFIED, bytes=5, seconds=0.5, bytes_per_second=10, resumed=True, downloads_spent=2, reason="hash-mismatch"
    )
    made = receipt(full, ArchiveRecord("j2"))
    assert parse_receipt(as_file(made.to_json())) == made


def test_fields_that_a_later_version_added_are_ignored() -> None:
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
def test_a_receipt_with_an_invalid_field_is_refused(change: dict[str, Any]) -> None:
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
def test_any_content_of_receipt_json_is_read_or_refused(raw: bytes) -> None:
    try:
        read = parse_receipt(raw)
    except RecordUnreadable:
        return
    merged = receipt(VERIFIED).merged_with(read)
    assert VERIFIED in merged.archives
    assert list(merged.to_json()) == FIELDS
    with contextlib.suppress(OtherBatch):
        read.restore.require_same(RestoreId("g", "c", None, "b"))
