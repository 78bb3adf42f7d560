"""A damaged journal: a crash can damage the last line only, which is set aside; other damage is an error."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restore_agent.core.errors import InTheWay, RecordUnreadable
from restore_agent.core.receipt import RestoreId
from restore_agent.dest.directory import Directory
from restore_agent.dest.journal import Journal
from restore_agent.dest.journal.facts import (
    Answered,
    Attempt,
    Cut,
    Entry,
    Fact,
    Promoted,
    Proven,
    Unpacked,
    Whole,
)
from restore_agent.dest.journal.journal import DAMAGED, JOURNAL, SCHEMA
from restore_agent.dest.journal.reading import FACTS

NOW = 1492776000.0
SHA1 = "0123456789abcdef0123456789abcdef01234567"
ATTEMPT = Attempt("rs0.tar.gz", "rs0.tar.gz", None)
ANSWERED = Answered('"v1"', 4096, False, "b1")

LINES = {
    "empty": b"",
    "text": b"no json",
    "half an object": b"{",
    "zeros": b"\0" * 40,
    "no UTF-8": b"\xff\xfe",
    "null": b"null",
    "list": b"[]",
    "number": b"5",
    "string": b'"text"',
    "no fact": b'{"job_id":"j1"}',
    "no job": b'{"fact":"cut"}',
    "fields missing": b'{"fact":"attempt","job_id":"j1"}',
    "one field missing": b'{"fact":"answered","job_id":"j1","validator":null}',
    "fact is a list": b'{"fact":["attempt"],"job_id":"j1"}',
    "job is a list": b'{"fact":"cut","job_id":["j1"]}',
    "job is an object": b'{"fact":"cut","job_id":{"j":1}}',
    "time is a number": b'{"fact":"cut","job_id":"j1","time":5}',
    "restore is a list": b'{"schema":"restore-agent/journal/1","restore":[]}',
    "entry is a list": b'{"fact":"entry","job_id":"j1","entry":[]}',
    "nested too deep": b"[" * 100_000,
}


def journal_file(state: Directory) -> Path:
    return state.path / JOURNAL


def record(state: Directory, *facts: tuple[str, Fact]) -> Journal:
    """Open the journal, record facts with their jobs, and close it."""
    journal = Journal.open(state)

    async def all_of_them() -> None:
        for job_id, fact in facts:
            await journal.record(job_id, fact, NOW)

    try:
        asyncio.run(all_of_them())
    finally:
        journal.close()
    return journal


def lines(state: Directory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal_file(state).read_bytes().splitlines()]


# ---------------------------------------------------------------- a line that a crash left incomplete


def test_a_last_line_that_is_torn_anywhere_is_set_aside_and_the_rest_stays(state: Directory) -> None:
    record(state, ("j1", ATTEMPT), ("j1", ANSWERED))
    kept = journal_file(state).read_bytes()
    known = Journal.peek(state).entry("j1")
    record(state, ("jö", ATTEMPT))
    complete = journal_file(state).read_bytes()
    for cut in range(len(kept), len(complete)):
        journal_file(state).write_bytes(complete[:cut])
        journal = Journal.open(state)
        journal.close()
        assert journal.torn is (cut > len(kept))
        assert journal.entries() == {"j1": known}
        assert journal_file(state).read_bytes() == kept
        assert state.read(DAMAGED) == (complete[len(kept) : cut] or None)


def test_after_a_torn_line_the_next_one_begins_on_its_own(state: Directory) -> None:
    record(state, ("j1", ATTEMPT))
    with journal_file(state).open("ab") as file:
        file.write(b'{"fact":"attempt","job_id":"j1","ti')
    record(state, ("j1", ATTEMPT))
    assert [line.get("fact") for line in lines(state)] == [None, "attempt", "attempt"]
    assert not Journal.peek(state).torn


def test_a_journal_that_was_torn_in_its_first_line_begins_again(state: Directory) -> None:
    record(state)
    complete = journal_file(state).read_bytes()
    for cut in range(len(complete)):
        journal_file(state).write_bytes(complete[:cut])
        assert record(state).torn is (cut > 0)
        assert journal_file(state).read_bytes() == complete


@pytest.mark.parametrize("tail", [b"\0" * 100, b"\xff", b"{}", b"no json"])
def test_everything_after_the_last_newline_is_torn(tail: bytes, state: Directory) -> None:
    record(state, ("j1", ATTEMPT))
    with journal_file(state).open("ab") as file:
        file.write(tail)
    assert Journal.peek(state).torn
    assert record(state, ("j1", Cut())).entry("j1").attempts == 1
    assert state.read(DAMAGED) == tail


# ---------------------------------------------------------------- a complete line that cannot be read


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_damaged_last_line_is_set_aside_and_the_journal_continues(line: bytes, state: Directory) -> None:
    record(state, ("j1", ATTEMPT))
    before = journal_file(state).read_bytes()
    journal_file(state).write_bytes(before + line + b"\n")
    peeked = Journal.peek(state)
    assert (peeked.torn, peeked.entry("j1").attempts) == (True, 1)
    assert journal_file(state).read_bytes() == before + line + b"\n"
    opened = record(state, ("j1", ATTEMPT))
    assert (opened.torn, opened.entry("j1").attempts) == (True, 2)
    assert state.read(DAMAGED) == line + b"\n"
    assert [one.get("fact") for one in lines(state)] == [None, "attempt", "attempt"]
    assert not Journal.peek(state).torn


def test_a_damaged_last_line_is_set_aside_with_the_torn_one_after_it(state: Directory) -> None:
    record(state, ("j1", ATTEMPT))
    before = journal_file(state).read_bytes()
    journal_file(state).write_bytes(before + b'{"fact":\n\0\0\0')
    assert record(state).torn
    assert journal_file(state).read_bytes() == before
    assert state.read(DAMAGED) == b'{"fact":\n\0\0\0'


def test_a_line_that_was_set_aside_before_is_replaced(state: Directory) -> None:
    record(state, ("j1", ATTEMPT))
    for tail in (b"first\n", b"second\n"):
        with journal_file(state).open("ab") as file:
            file.write(tail)
        record(state)
        assert state.read(DAMAGED) == tail


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_damaged_line_before_the_last_is_an_error_and_left_as_it_is(line: bytes, state: Directory) -> None:
    record(state, ("j1", ATTEMPT), ("j1", Cut()))
    written = journal_file(state).read_bytes().splitlines(keepends=True)
    written.insert(2, line + b"\n")
    journal_file(state).write_bytes(b"".join(written))
    for read in (Journal.open, Journal.peek):
        with pytest.raises(RecordUnreadable, match="damaged at line 3"):
            read(state)
    assert journal_file(state).read_bytes() == b"".join(written)
    assert sorted(os.listdir(state.path)) == [JOURNAL]


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_two_damaged_lines_are_an_error(line: bytes, state: Directory) -> None:
    record(state, ("j1", ATTEMPT))
    with journal_file(state).open("ab") as file:
        file.write(2 * (line + b"\n"))
    with pytest.raises(RecordUnreadable, match="damaged at line 3"):
        Journal.open(state)


# ---------------------------------------------------------------- the first line


@pytest.mark.parametrize("first", [b"", b"no json", b"\0" * 40, b"[" * 100_000], ids=lambda first: repr(first[:20]))
def test_a_journal_whose_first_line_is_damaged_before_others_is_an_error(first: bytes, state: Directory) -> None:
    written = first + b'\n{"fact":"cut","job_id":"j1"}\n'
    journal_file(state).write_bytes(written)
    with pytest.raises(RecordUnreadable, match="damaged at line 1"):
        Journal.open(state)
    assert journal_file(state).read_bytes() == written


@pytest.mark.parametrize("only", [b"no json\n", b"\0" * 40 + b"\n", b"\n", b"\0" * 4096], ids=repr)
def test_a_journal_without_a_valid_line_after_a_crash_begins_again(only: bytes, state: Directory) -> None:
    journal_file(state).write_bytes(only)
    journal = Journal.open(state, RestoreId(batch_id="b"))
    journal.close()
    assert (journal.torn, journal.entries(), journal.restore) == (True, {}, RestoreId(batch_id="b"))
    assert state.read(DAMAGED) == only
    assert Journal.peek(state).restore == RestoreId(batch_id="b")


@pytest.mark.parametrize("rest", [b"", b"+ not even JSON\n"])
def test_a_journal_without_a_schema_was_not_written_by_the_agent(rest: bytes, state: Directory) -> None:
    written = b'{"fact":"cut","job_id":"j1"}\n' + rest
    journal_file(state).write_bytes(written)
    with pytest.raises(RecordUnreadable, match="has no schema"):
        Journal.open(state)
    assert journal_file(state).read_bytes() == written


@pytest.mark.parametrize(
    "rest",
    [b"", b'{"fact":"cut","job_id":"j1"}\n', b'{"kind":"attempt","job_id":"j1"}\n', b"+ not even JSON any more\n"],
    ids=["alone", "known facts", "other facts", "other form"],
)
@pytest.mark.parametrize("schema", ["restore-agent/journal/2", "x" * 5000, 5], ids=lambda schema: str(schema)[:24])
def test_a_journal_of_a_later_schema_is_left_to_the_version_that_wrote_it(
    schema: object, rest: bytes, state: Directory
) -> None:
    written = json.dumps({"schema": schema}).encode() + b"\n" + rest
    journal_file(state).write_bytes(written)
    with pytest.raises(RecordUnreadable, match=str(schema)[:24]) as caught:
        Journal.open(state)
    assert "version of restore-agent that wrote it" in caught.value.hint
    assert caught.value.exit_code == 42
    assert len(caught.value.message) < 200
    assert journal_file(state).read_bytes() == written


# ---------------------------------------------------------------- other objects at its name


def test_a_journal_that_is_a_link_is_not_followed(state: Directory, outside: Path) -> None:
    journal_file(state).symlink_to(outside)
    for read in (Journal.open, Journal.peek):
        with pytest.raises(InTheWay):
            read(state)
    assert outside.read_bytes() == b"not yours"


def test_a_link_at_the_name_of_the_damaged_line_is_replaced_and_not_followed(state: Directory, outside: Path) -> None:
    (state.path / DAMAGED).symlink_to(outside)
    journal_file(state).write_bytes(f'{{"schema":"{SCHEMA}"}}\ndamaged\n'.encode())
    record(state)
    assert state.read(DAMAGED) == b"damaged\n"
    assert outside.read_bytes() == b"not yours"


# ---------------------------------------------------------------- any bytes

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
GOOD = [
    *(ATTEMPT, ANSWERED, Whole(SHA1, 1.5, 4096), Proven("rs0.tar.gz", SHA1), Promoted(7, 4096, 99)),
    Unpacked("/data/rs0", 1, 1, True, None),
]
FIELDS = {name: value for fact in GOOD for name, value in fact.values().items()} | {"offset": 5, "entry": {}}
near_facts = st.fixed_dictionaries(
    {"fact": st.sampled_from(sorted(FACTS)) | anything, "job_id": st.sampled_from(["j1", "j2"]) | anything},
    optional={name: st.just(value) | anything for name, value in FIELDS.items()}
    | dict.fromkeys(("schema", "restore", "time"), anything),
)
near_journals = st.lists(near_facts | anything, max_size=4).map(
    lambda facts: b"".join(json.dumps(line).encode() + b"\n" for line in [{"schema": SCHEMA}, *facts])
)


@hypothesis_settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200) | near_journals | near_journals.map(lambda raw: raw[:-3]))
def test_any_journal_is_read_or_refused(state: Directory, raw: bytes) -> None:
    state.remove(DAMAGED)
    journal_file(state).write_bytes(raw)
    try:
        seen = Journal.peek(state)
    except RecordUnreadable:
        assert journal_file(state).read_bytes() == raw
        return
    again = record(state, ("j1", ATTEMPT))
    assert again.torn is seen.torn
    assert Journal.peek(state).entry("j1").attempts == seen.entry("j1").attempts + 1
    assert (state.find(DAMAGED) is not None) is seen.torn


@hypothesis_settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=near_journals)
def test_any_journal_that_is_read_is_the_same_after_compaction(state: Directory, raw: bytes) -> None:
    journal_file(state).write_bytes(raw)
    try:
        journal = Journal.open(state)
    except RecordUnreadable:
        return
    journal._compact()
    journal.close()
    compacted = Journal.peek(state)
    assert not compacted.torn
    assert repr(compacted.entries()) == repr(journal.entries())  # repr: a number may be NaN
    assert compacted.restore == journal.restore
    assert all(isinstance(entry, Entry) for entry in compacted.entries().values())
