"""The journal file: one synced line per fact, read again by a later run, compacted, and kept on a failing disk."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from restore_agent.core.errors import DestError, NoSpace, RecordUnreadable, Unwritable
from restore_agent.core.receipt import RestoreId
from restore_agent.dest.directory import Directory
from restore_agent.dest.journal import Entry, Journal
from restore_agent.dest.journal import journal as journal_module
from restore_agent.dest.journal.facts import Answered, Attempt, Cut, Fact, Named, Proven, Ready, Synced, Whole
from restore_agent.dest.journal.journal import JOURNAL, SCHEMA

NOW = 1492776000.0
TIME = "2017-04-21T12:00:00.000Z"
SHA1 = "0123456789abcdef0123456789abcdef01234567"
ATTEMPT = Attempt("rs0.tar.gz", "rs0.tar.gz", None)
LINE = {
    "fact": "attempt",
    "job_id": "j1",
    "time": TIME,
    "file_name": "rs0.tar.gz",
    "served_as": "rs0.tar.gz",
    "hash_before": None,
}
RESTORE = RestoreId("g", "c", None, "b")
T = TypeVar("T")


def journal_file(state: Directory) -> Path:
    return state.path / JOURNAL


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def record(state: Directory, *facts: tuple[str, Fact], restore: RestoreId | None = None) -> Journal:
    """Open the journal, record facts with their jobs, and close it."""
    journal = Journal.open(state, restore)

    async def all_of_them() -> None:
        for job_id, fact in facts:
            await journal.record(job_id, fact, NOW)

    try:
        run(all_of_them())
    finally:
        journal.close()
    return journal


def lines(state: Directory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal_file(state).read_bytes().splitlines()]


# ---------------------------------------------------------------- written and read again


def test_a_later_run_reads_what_this_one_has_in_memory(state: Directory) -> None:
    story = [ATTEMPT, Answered('"v"', 4096, False, "b1"), Synced(9), Whole(SHA1, 1.5, 4096), Proven("a", SHA1)]
    kept = record(state, *(("j1", fact) for fact in story), ("j2", ATTEMPT))
    assert kept.entries() == Journal.peek(state).entries()
    assert kept.entry("j1").proven == SHA1


def test_jobs_are_kept_apart(state: Directory) -> None:
    journal = record(state, ("j1", ATTEMPT), ("j2", ATTEMPT), ("j1", ATTEMPT))
    assert [journal.entry(job).attempts for job in ("j1", "j2", "j3")] == [2, 1, 0]
    assert list(journal.entries()) == ["j1", "j2"]


def test_an_unknown_job_has_an_empty_entry(state: Directory) -> None:
    assert Journal.peek(state).entry("j1") == Entry()


def test_record_returns_the_new_entry(state: Directory) -> None:
    journal = Journal.open(state)
    entry = run(journal.record("j1", ATTEMPT, NOW))
    journal.close()
    assert entry == journal.entry("j1")
    assert (entry.attempts, entry.download_started_at) == (1, TIME)


def test_the_entries_are_a_copy_that_later_facts_do_not_change(state: Directory) -> None:
    journal = Journal.open(state)
    before = journal.entries()
    run(journal.record("j1", ATTEMPT, NOW))
    journal.close()
    assert (list(before), list(journal.entries())) == ([], ["j1"])


def test_the_journal_begins_with_its_schema_and_restore_and_has_one_fact_per_line(state: Directory) -> None:
    record(state, ("j1", ATTEMPT), ("j1", Cut()), restore=RESTORE)
    assert lines(state) == [
        {"schema": SCHEMA, "restore": RESTORE.values()},
        LINE,
        {"fact": "cut", "job_id": "j1", "time": TIME},
    ]
    assert journal_file(state).read_bytes().endswith(b"}\n")


def test_the_journal_is_readable_for_its_owner_only(state: Directory) -> None:
    record(state)
    assert journal_file(state).stat().st_mode & 0o777 == 0o600


def test_opening_again_adds_nothing(state: Directory) -> None:
    record(state, ("j1", ATTEMPT), restore=RESTORE)
    before = journal_file(state).read_bytes()
    record(state, restore=RestoreId("g", "c", None, "another"))
    assert journal_file(state).read_bytes() == before


def test_peeking_changes_nothing(state: Directory) -> None:
    assert Journal.peek(None).entries() == {}
    assert Journal.peek(state).entries() == {}
    assert sorted(os.listdir(state.path)) == []
    record(state, ("j1", ATTEMPT))
    with journal_file(state).open("ab") as file:
        file.write(b'{"fact":"torn')
    before = journal_file(state).read_bytes()
    journal = Journal.peek(state)
    assert (journal.torn, journal.entry("j1").attempts) == (True, 1)
    assert journal_file(state).read_bytes() == before
    assert sorted(os.listdir(state.path)) == [JOURNAL]


def test_a_journal_that_was_opened_with_peek_cannot_be_written(state: Directory) -> None:
    record(state, ("j1", ATTEMPT))
    journal = Journal.peek(state)
    with pytest.raises(RecordUnreadable, match="reading only"):
        run(journal.record("j1", Cut(), NOW))
    journal.close()
    assert journal.entry("j1") == Journal.peek(state).entry("j1")


def test_closing_twice_does_nothing(state: Directory) -> None:
    journal = Journal.open(state)
    journal.close()
    run(journal.finish())
    with pytest.raises(RecordUnreadable):
        run(journal.record("j1", Cut(), NOW))


# ---------------------------------------------------------------- the restore that DEST belongs to


def test_the_restore_of_a_new_journal_is_read_again(state: Directory) -> None:
    assert record(state, restore=RESTORE).restore == RESTORE
    assert Journal.peek(state).restore == RESTORE
    assert record(state, restore=RestoreId(batch_id="another")).restore == RESTORE


def test_a_journal_of_the_previous_version_has_no_restore_until_it_is_recorded(state: Directory) -> None:
    journal_file(state).write_bytes(f'{{"schema":"{SCHEMA}"}}\n'.encode() + json.dumps(LINE).encode() + b"\n")
    journal = Journal.open(state, RESTORE)
    assert (journal.restore, journal.entry("j1").attempts) == (None, 1)
    run(journal.belongs_to(RESTORE))
    journal.close()
    assert journal.restore == Journal.peek(state).restore == RESTORE
    assert len(lines(state)) == 3


def test_a_restore_whose_batch_becomes_known_is_recorded_once(state: Directory) -> None:
    single = RestoreId("g", "c", None, None, ("j1",))
    journal = Journal.open(state, single)

    async def story() -> None:
        await journal.belongs_to(single)
        await journal.belongs_to(RESTORE)
        await journal.belongs_to(RESTORE)

    run(story())
    journal.close()
    assert [line["restore"]["batch_id"] for line in lines(state)] == [None, "b"]
    assert Journal.peek(state).restore == RESTORE


# ---------------------------------------------------------------- order and durability


def test_a_fact_is_synced_before_the_agent_can_act_on_it(state: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(journal_file(state).read_bytes())

    monkeypatch.setattr(os, "fsync", watched)
    journal = Journal.open(state)
    assert json.loads(synced[0]) == {"schema": SCHEMA, "restore": None}

    async def facts() -> None:
        for number in range(3):
            await journal.record(f"j{number}", ATTEMPT, NOW)
            assert f'"job_id":"j{number}"'.encode() in synced[-1]
            assert synced[-1] == journal_file(state).read_bytes()

    run(facts())
    journal.close()
    assert len(synced) >= 4


def test_facts_of_several_jobs_take_one_sync(state: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(state)
    syncs: list[int] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        fsync(descriptor)
        syncs.append(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    run(journal.record_all({f"j{number}": Named(f"{number}.tar") for number in range(50)}, NOW))
    journal.close()
    assert len(syncs) == 1
    assert {job: entry.file_name for job, entry in Journal.peek(state).entries().items()} == {
        f"j{number}": f"{number}.tar" for number in range(50)
    }


def test_facts_that_are_recorded_in_parallel_do_not_mix(state: Directory) -> None:
    journal = Journal.open(state)

    async def in_parallel() -> None:
        await asyncio.gather(*(journal.record(f"j{n % 5}", ATTEMPT, NOW) for n in range(40)))

    run(in_parallel())
    journal.close()
    assert len(lines(state)) == 41
    assert {job: entry.attempts for job, entry in Journal.peek(state).entries().items()} == {
        f"j{n}": 8 for n in range(5)
    }


@pytest.mark.parametrize("then", ["another fact", "finish"])
def test_a_fact_on_disk_is_in_memory_although_its_writer_was_cancelled(
    then: str, state: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.open(state)
    fsync, at_disk, go_on = os.fsync, threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        at_disk.set()
        go_on.wait(10)
        fsync(descriptor)

    async def story() -> None:
        writing = asyncio.ensure_future(journal.record("j1", ATTEMPT, NOW))
        await asyncio.to_thread(at_disk.wait, 10)
        writing.cancel()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        with suppress(asyncio.CancelledError):
            await writing
        await (journal.finish() if then == "finish" else journal.record("j1", Synced(5), NOW))

    monkeypatch.setattr(os, "fsync", slow)
    run(story())
    journal.close()
    assert journal.entry("j1").attempts == 1
    assert journal.entries() == Journal.peek(state).entries()


# ---------------------------------------------------------------- a disk that fails


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The disk is full `after` this many bytes more, and has space again once that was reported."""
    write, space = os.write, [after] if after else []

    def almost_full(descriptor: int, data: memoryview) -> int:
        if space:
            return write(descriptor, data[: space.pop()])
        monkeypatch.setattr(os, "write", write)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", almost_full)


@pytest.mark.parametrize("after", [0, 1, 40])
def test_a_partial_line_on_a_full_disk_does_not_corrupt_the_next_one(
    after: int, state: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(state, ("j1", ATTEMPT))
    before = journal_file(state).read_bytes()
    journal = Journal.open(state)

    async def story() -> None:
        fill_the_disk(monkeypatch, after)
        with pytest.raises(NoSpace):
            await journal.record("j1", ATTEMPT, NOW)
        assert journal_file(state).read_bytes() == before
        assert journal.entry("j1").attempts == 1
        await journal.record("j1", Cut(), NOW)

    run(story())
    journal.close()
    assert [line.get("fact") for line in lines(state)] == [None, "attempt", "cut"]


def test_a_write_in_several_pieces_is_one_line(state: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    record(state, ("j1", ATTEMPT))
    assert lines(state)[1] == LINE


def fail_once(monkeypatch: pytest.MonkeyPatch, call: str, number: int, *, of: int = 1) -> None:
    """Fail the call of this name once, the time `of`."""
    real, left = getattr(os, call), [of]

    def failing(*arguments: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0]:
            return real(*arguments, **more)
        monkeypatch.setattr(os, call, real)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, failing)


def test_a_fact_that_could_not_be_synced_is_not_known(state: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(state)
    fail_once(monkeypatch, "fsync", errno.EIO)
    with pytest.raises(Unwritable, match="cannot write the journal"):
        run(journal.record("j1", ATTEMPT, NOW))
    journal.close()
    assert journal.entry("j1") == Entry() == Journal.peek(state).entry("j1")


# ---------------------------------------------------------------- compaction


@pytest.fixture
def compact_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compact a journal above 2000 bytes instead of 4 MiB."""
    monkeypatch.setattr(journal_module, "_COMPACT_ABOVE", 2000)


def test_a_long_journal_becomes_one_line_per_job(state: Directory, compact_early: None) -> None:
    story = [("j1", ATTEMPT), ("j2", ATTEMPT), *(("j1", Synced(number)) for number in range(60))]
    kept = record(state, *story, restore=RESTORE)
    assert len(lines(state)) < 30
    read = Journal.peek(state)
    assert (read.entries(), read.restore) == (kept.entries(), RESTORE)
    assert (read.entry("j1").attempts, read.entry("j1").synced, read.entry("j2").attempts) == (1, 59, 1)
    assert sorted(os.listdir(state.path)) == [JOURNAL]


def test_a_long_journal_of_an_earlier_run_is_compacted_when_it_is_opened(
    state: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = record(state, *(("j1", Synced(number)) for number in range(60)), restore=RESTORE)
    monkeypatch.setattr(journal_module, "_COMPACT_ABOVE", 2000)
    after = record(state, ("j1", ATTEMPT))
    assert [line.get("fact") for line in lines(state)] == [None, "entry", "attempt"]
    assert (after.entry("j1").synced, after.entry("j1").attempts) == (before.entry("j1").synced, 1)
    assert Journal.peek(state).entries() == after.entries()


@pytest.mark.parametrize(
    ("call", "number", "of"),
    [
        ("replace", errno.ENOSPC, 1),
        ("fsync", errno.EIO, 2),  # of the compacted file
        ("fsync", errno.EIO, 3),  # of the directory, once the compacted file has the name
        ("fsync", errno.EIO, 4),  # of the directory again
        ("open", errno.ENOSPC, 1),
        ("open", errno.EMFILE, 2),  # of the compacted journal
    ],
)
def test_no_fact_is_lost_when_compaction_fails(
    call: str, number: int, of: int, state: Directory, compact_early: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(state, *(("j1", Synced(one)) for one in range(23)))
    assert 1800 < journal_file(state).stat().st_size <= 2000

    async def story() -> None:
        await journal.record("j1", Ready("a" * 200), NOW)  # this line makes it too long
        await journal.record("j1", ATTEMPT, NOW)
        await journal.record("j1", Synced(99), NOW)

    journal = Journal.open(state)
    fail_once(monkeypatch, call, number, of=of)
    run(story())
    journal.close()
    entry = Journal.peek(state).entry("j1")
    assert (entry.ready_at, entry.attempts, entry.synced) == ("a" * 200, 1, 99)
    assert entry == journal.entry("j1")


def test_a_journal_that_cannot_be_opened_after_compaction_refuses_facts(
    state: Directory, compact_early: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(state, *(("j1", Synced(one)) for one in range(23)))
    journal = Journal.open(state)
    open_, replace, replaced = os.open, os.replace, []

    def noted(*arguments: Any, **more: Any) -> None:
        replace(*arguments, **more)
        replaced.append(arguments)

    def exhausted(*arguments: Any, **more: Any) -> int:
        if replaced:
            raise OSError(errno.EMFILE, "Too many open files")
        return open_(*arguments, **more)

    monkeypatch.setattr(os, "replace", noted)
    monkeypatch.setattr(os, "open", exhausted)

    async def story() -> None:
        await journal.record("j1", Ready("a" * 200), NOW)
        with pytest.raises(DestError, match="cannot write the journal"):
            await journal.record("j1", ATTEMPT, NOW)

    run(story())
    journal.close()
    monkeypatch.undo()
    assert journal.entry("j1") == Journal.peek(state).entry("j1")
    assert journal.entry("j1").attempts == 0
