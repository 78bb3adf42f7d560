"""What outlives a crash: a ledger that forgets nothing it said it knew, one run per DEST, and a status that is true."""

import asyncio
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restore_agent.core.errors import DestHeld, InTheWay, NoSpace, RecordUnreadable, Unwritable
from restore_agent.dest.directory import Directory
from restore_agent.dest.journal import JOURNAL, SCHEMA, Entry, Identity, Journal
from restore_agent.dest.lock import LOCK, STATE_DIRECTORY, Lock, boot_id
from restore_agent.dest.status import STATUS, StatusFile, read_status

NOW = 1492776000.0
SHA1 = "0123456789abcdef0123456789abcdef01234567"
ATTEMPT = {"file_name": "rs0.tar.gz", "served_as": "rs0.tar.gz", "hash_before": None}
ANSWERED = {"validator": '"v1"', "total": 4096, "resumed": False, "boot": "b1"}
WHOLE = {"sha1": SHA1, "seconds": 1.5, "received": 4096}
PROVEN = {"file_name": "rs0.tar.gz", "sha1": SHA1}
PUBLISHED = {"inode": 7, "size": 4096, "changed_ns": 99}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Directory]:
    """`.restore-agent/` of a new DEST."""
    with Directory.open(tmp_path / "dest", create=True) as dest:
        made = dest.subdirectory(STATE_DIRECTORY, create=True)
        assert made is not None
        with made:
            yield made


def journal_file(state: Directory) -> Path:
    return state.path / JOURNAL


def record(state: Directory, *facts: tuple[str, str, dict[str, Any]]) -> Journal:
    """Open the journal, record facts (name, job, values) and close it."""
    journal = Journal.open(state)

    async def all_of_them() -> None:
        for fact, job_id, values in facts:
            await journal.record(fact, job_id, NOW, **values)

    try:
        asyncio.run(all_of_them())
    finally:
        journal.close()
    return journal


def lines(state: Directory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal_file(state).read_bytes().splitlines()]


# ---------------------------------------------------------------- facts

STORY: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    # fact, its values, what it changes in the entry
    ("attempt", ATTEMPT, {"file_name": "rs0.tar.gz", "served_as": "rs0.tar.gz", "attempts": 1}),
    ("answered", ANSWERED, {"validator": '"v1"', "total": 4096, "boot": "b1"}),
    ("synced", {"offset": 1024}, {"synced": 1024}),
    ("cut", {}, {}),
    ("attempt", {**ATTEMPT, "hash_before": "f" * 40}, {"attempts": 2, "hash_before": "f" * 40}),
    ("answered", {**ANSWERED, "resumed": True, "boot": "b2"}, {"resumed": True, "boot": "b2"}),
    ("synced", {"offset": 2048}, {"synced": 2048}),
    ("whole", WHOLE, {"whole": SHA1, "seconds": 1.5, "received": 4096}),
    ("proven", PROVEN, {"proven": SHA1}),
    ("published", PUBLISHED, {"published": Identity(7, 4096, 99)}),
    ("a fact of a later version", {"novelty": [1, 2]}, {}),
    (
        "discarded",
        {},
        dict.fromkeys(("validator", "total", "whole", "proven", "published")) | {"resumed": False, "synced": 0},
    ),
    ("attempt", {**ATTEMPT, "file_name": "j1-rs0.tar.gz"}, {"attempts": 3, "file_name": "j1-rs0.tar.gz"}),
    ("unsent", {}, {"attempts": 2}),
]


def test_every_fact_changes_what_it_is_about_and_nothing_else(state: Directory) -> None:
    known: dict[str, Any] = {}
    for fact, values, change in STORY:
        record(state, (fact, "j1", values))
        known |= change
        if fact == "attempt" and "hash_before" not in change:
            known["hash_before"] = None
        assert Journal.peek(state).entry("j1") == Entry(**known), fact


def test_what_is_in_memory_is_what_a_later_run_reads(state: Directory) -> None:
    kept = record(state, *((fact, "j1", values) for fact, values, _ in STORY))
    assert kept.entries() == Journal.peek(state).entries()
    assert kept.entry("j1").attempts == 2


def test_jobs_are_told_apart(state: Directory) -> None:
    journal = record(state, ("attempt", "j1", ATTEMPT), ("attempt", "j2", ATTEMPT), ("attempt", "j1", ATTEMPT))
    assert [journal.entry(job).attempts for job in ("j1", "j2", "j3")] == [2, 1, 0]
    assert list(journal.entries()) == ["j1", "j2"]


def test_of_an_unknown_job_nothing_is_known(state: Directory) -> None:
    assert Journal.peek(state).entry("j1") == Entry()


@pytest.mark.parametrize("fact", ["answered", "cut", "discarded"])
def test_a_part_that_is_written_to_again_is_not_whole_any_more(fact: str, state: Directory) -> None:
    values = {"answered": ANSWERED}.get(fact, {})
    journal = record(state, ("whole", "j1", WHOLE), (fact, "j1", values))
    assert journal.entry("j1").whole is None


def test_of_a_part_that_starts_over_nothing_is_known_to_be_on_disk(state: Directory) -> None:
    story = [("answered", "j1", ANSWERED), ("synced", "j1", {"offset": 1024})]
    assert record(state, *story).entry("j1").synced == 1024
    assert record(state, ("answered", "j1", {**ANSWERED, "resumed": True})).entry("j1").synced == 1024
    assert record(state, ("answered", "j1", ANSWERED)).entry("j1").synced == 0


def test_an_answer_journalled_before_boots_were_is_read(state: Directory) -> None:
    journal = record(state, ("answered", "j1", {"validator": None, "total": None, "resumed": False}))
    assert journal.entry("j1") == Entry()


def test_the_boot_of_this_host_has_a_name_that_stays() -> None:
    assert boot_id()
    assert boot_id() == boot_id()


def test_a_new_proof_forgets_which_file_the_old_one_was_about(state: Directory) -> None:
    journal = record(state, ("proven", "j1", PROVEN), ("published", "j1", PUBLISHED), ("proven", "j1", PROVEN))
    assert journal.entry("j1").published is None


def test_what_was_never_sent_is_never_less_than_no_attempt(state: Directory) -> None:
    assert record(state, ("unsent", "j1", {})).entry("j1").attempts == 0


def test_record_returns_what_is_known_now(state: Directory) -> None:
    journal = Journal.open(state)
    entry = asyncio.run(journal.record("attempt", "j1", NOW, **ATTEMPT))
    journal.close()
    assert entry == journal.entry("j1")
    assert entry.attempts == 1


def test_an_identity_changes_with_any_write_or_rename(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"data")
    before = Identity.of(path.stat())
    assert Identity.of(path.stat()) == before
    path.rename(tmp_path / "b")
    (tmp_path / "a").write_bytes(b"data")
    assert Identity.of(path.stat()) != before
    assert Identity.of((tmp_path / "b").stat()).size == before.size


# ---------------------------------------------------------------- on disk


def test_the_journal_begins_with_its_schema_and_is_one_fact_per_line(state: Directory) -> None:
    record(state, ("attempt", "j1", ATTEMPT), ("cut", "j1", {}))
    assert lines(state) == [
        {"schema": SCHEMA},
        {"fact": "attempt", "job_id": "j1", "time": "2017-04-21T12:00:00.000Z", **ATTEMPT},
        {"fact": "cut", "job_id": "j1", "time": "2017-04-21T12:00:00.000Z"},
    ]
    assert journal_file(state).read_bytes().endswith(b"}\n")


def test_the_journal_is_for_its_owner_only(state: Directory) -> None:
    record(state)
    assert journal_file(state).stat().st_mode & 0o777 == 0o600


def test_opening_again_adds_nothing_by_itself(state: Directory) -> None:
    record(state, ("attempt", "j1", ATTEMPT))
    before = journal_file(state).read_bytes()
    record(state)
    assert journal_file(state).read_bytes() == before


def test_looking_changes_nothing(state: Directory) -> None:
    assert Journal.peek(None).entries() == {}
    assert Journal.peek(state).entries() == {}
    assert state.names() == []
    record(state, ("attempt", "j1", ATTEMPT))
    with journal_file(state).open("ab") as file:
        file.write(b'{"fact":"torn')
    before = journal_file(state).read_bytes()
    journal = Journal.peek(state)
    assert (journal.torn, journal.entry("j1").attempts) == (True, 1)
    assert journal_file(state).read_bytes() == before


def test_what_was_opened_for_looking_cannot_be_written(state: Directory) -> None:
    record(state, ("attempt", "j1", ATTEMPT))
    journal = Journal.peek(state)
    with pytest.raises(RecordUnreadable, match="reading only"):
        asyncio.run(journal.record("cut", "j1", NOW))
    journal.close()
    assert journal.entry("j1") == Journal.peek(state).entry("j1")


def test_closing_twice_does_nothing(state: Directory) -> None:
    journal = Journal.open(state)
    journal.close()
    journal.close()
    with pytest.raises(RecordUnreadable):
        asyncio.run(journal.record("cut", "j1", NOW))


def test_a_fact_is_synced_before_the_agent_may_act_on_it(state: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(journal_file(state).read_bytes())

    monkeypatch.setattr(os, "fsync", watched)
    journal = Journal.open(state)
    assert json.loads(synced[0]) == {"schema": SCHEMA}

    async def facts() -> None:
        for number in range(3):
            await journal.record("attempt", f"j{number}", NOW, **ATTEMPT)
            assert f'"job_id":"j{number}"'.encode() in synced[-1]
            assert synced[-1] == journal_file(state).read_bytes()

    asyncio.run(facts())
    journal.close()
    assert len(synced) >= 4


def test_facts_that_come_at_once_do_not_mix(state: Directory) -> None:
    journal = Journal.open(state)

    async def at_once() -> None:
        await asyncio.gather(*(journal.record("attempt", f"j{n % 5}", NOW, **ATTEMPT) for n in range(40)))

    asyncio.run(at_once())
    journal.close()
    assert len(lines(state)) == 41
    assert {job: entry.attempts for job, entry in Journal.peek(state).entries().items()} == {
        f"j{n}": 8 for n in range(5)
    }


def test_a_fact_on_disk_is_known_in_memory_although_its_writer_was_cancelled(
    state: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.open(state)
    fsync, at_disk, go_on = os.fsync, threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        at_disk.set()
        go_on.wait(10)
        fsync(descriptor)

    async def story() -> None:
        writing = asyncio.ensure_future(journal.record("attempt", "j1", NOW, **ATTEMPT))
        await asyncio.to_thread(at_disk.wait, 10)
        writing.cancel()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        with suppress(asyncio.CancelledError):
            await writing
        await journal.record("answered", "j1", NOW, **ANSWERED)

    monkeypatch.setattr(os, "fsync", slow)
    asyncio.run(story())
    journal.close()
    assert journal.entries() == Journal.peek(state).entries()


# ---------------------------------------------------------------- a disk that fails


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The disk is full `after` that many bytes more, and has room again once that was said."""
    write, room = os.write, [after] if after else []

    def almost_full(descriptor: int, data: memoryview) -> int:
        if room:
            return write(descriptor, data[: room.pop()])
        monkeypatch.setattr(os, "write", write)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", almost_full)


@pytest.mark.parametrize("after", [0, 1, 40])
def test_half_a_line_on_a_full_disk_does_not_swallow_the_next_one(
    after: int, state: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(state, ("attempt", "j1", ATTEMPT))
    before = journal_file(state).read_bytes()
    journal = Journal.open(state)

    async def story() -> None:
        fill_the_disk(monkeypatch, after)
        with pytest.raises(NoSpace):
            await journal.record("attempt", "j1", NOW, **ATTEMPT)
        assert journal_file(state).read_bytes() == before
        assert journal.entry("j1").attempts == 1
        await journal.record("cut", "j1", NOW)

    asyncio.run(story())
    journal.close()
    assert [line.get("fact") for line in lines(state)] == [None, "attempt", "cut"]


def test_a_write_that_takes_several_turns_is_one_line(state: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    record(state, ("attempt", "j1", ATTEMPT))
    assert lines(state)[1] == {"fact": "attempt", "job_id": "j1", "time": "2017-04-21T12:00:00.000Z", **ATTEMPT}


def test_a_fact_that_could_not_be_synced_is_not_known(state: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(state)
    fsync = os.fsync

    def fails_once(_: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails_once)
    with pytest.raises(Unwritable, match="cannot write the journal"):
        asyncio.run(journal.record("attempt", "j1", NOW, **ATTEMPT))
    journal.close()
    assert journal.entry("j1") == Entry() == Journal.peek(state).entry("j1")


# ---------------------------------------------------------------- what a crash leaves


def test_a_last_line_that_is_torn_anywhere_is_dropped_and_the_rest_stays(state: Directory) -> None:
    record(state, ("attempt", "j1", ATTEMPT), ("answered", "j1", ANSWERED))
    kept = journal_file(state).read_bytes()
    known = Journal.peek(state).entry("j1")
    record(state, ("attempt", "jö", ATTEMPT))
    whole = journal_file(state).read_bytes()
    for cut in range(len(kept), len(whole)):
        journal_file(state).write_bytes(whole[:cut])
        journal = Journal.open(state)
        journal.close()
        assert journal.torn is (cut > len(kept))
        assert journal.entries() == {"j1": known}
        assert journal_file(state).read_bytes() == kept


def test_after_a_torn_line_the_next_one_begins_on_its_own(state: Directory) -> None:
    record(state, ("attempt", "j1", ATTEMPT))
    with journal_file(state).open("ab") as file:
        file.write(b'{"fact":"attempt","job_id":"j1","ti')
    record(state, ("attempt", "j1", ATTEMPT))
    assert [line.get("fact") for line in lines(state)] == [None, "attempt", "attempt"]
    assert not Journal.peek(state).torn


def test_a_journal_that_was_cut_in_its_first_line_is_begun_anew(state: Directory) -> None:
    record(state)
    whole = journal_file(state).read_bytes()
    for cut in range(len(whole)):
        journal_file(state).write_bytes(whole[:cut])
        assert record(state).torn is (cut > 0)
        assert journal_file(state).read_bytes() == whole


@pytest.mark.parametrize("tail", [b"\0" * 100, b"\xff", b"{}", b"no json"])
def test_whatever_stands_after_the_last_newline_is_torn(tail: bytes, state: Directory) -> None:
    record(state, ("attempt", "j1", ATTEMPT))
    with journal_file(state).open("ab") as file:
        file.write(tail)
    assert Journal.peek(state).torn
    assert record(state, ("cut", "j1", {})).entry("j1").attempts == 1


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"no json",
        b"{",
        b"\0" * 40,
        b"\xff\xfe",
        b"null",
        b"[]",
        b"5",
        b'"text"',
        b'{"job_id":"j1"}',
        b'{"fact":"attempt","job_id":"j1"}',
        b'{"fact":"answered","job_id":"j1","validator":null}',
        b'{"fact":["attempt"],"job_id":"j1"}',
        b'{"fact":"cut","job_id":["j1"]}',
        b'{"fact":"cut","job_id":{"j":1}}',
        b'{"schema":5}',
        b"[" * 100_000,
    ],
    ids=lambda line: repr(line[:50]),
)
@pytest.mark.parametrize("place", ["middle", "last"])
def test_a_whole_line_that_does_not_read_is_an_error_and_left_as_it_is(
    line: bytes, place: str, state: Directory
) -> None:
    record(state, ("attempt", "j1", ATTEMPT), ("cut", "j1", {}))
    written = journal_file(state).read_bytes().splitlines(keepends=True)
    written.insert(2 if place == "middle" else 3, line + b"\n")
    journal_file(state).write_bytes(b"".join(written))
    for look in (Journal.open, Journal.peek):
        with pytest.raises(RecordUnreadable, match=f"damaged at line {3 if place == 'middle' else 4}"):
            look(state)
    assert journal_file(state).read_bytes() == b"".join(written)


@pytest.mark.parametrize(
    "fact",
    [
        {"fact": "attempt", **ATTEMPT, "file_name": 5},
        {"fact": "answered", **ANSWERED, "total": "many"},
        {"fact": "whole", **WHOLE, "sha1": [SHA1]},
        {"fact": "proven", **PROVEN, "file_name": None},
        {"fact": "whole", **WHOLE, "seconds": "long"},
        {"fact": "published", **PUBLISHED, "inode": "7"},
        {"fact": "synced", "offset": True},
        {"fact": "answered", **ANSWERED, "boot": 5},
    ],
    ids=lambda fact: fact["fact"],
)
def test_a_fact_of_the_wrong_type_is_damage_too(fact: dict[str, Any], state: Directory) -> None:
    record(state)
    with journal_file(state).open("ab") as file:
        file.write(json.dumps({**fact, "job_id": "j1"}).encode() + b"\n")
    with pytest.raises(RecordUnreadable):
        Journal.peek(state)


@pytest.mark.parametrize("first", [b"", b"no json", b"\0" * 40, b"[" * 100_000], ids=lambda first: repr(first[:20]))
def test_a_journal_whose_first_line_does_not_read_is_damaged(first: bytes, state: Directory) -> None:
    journal_file(state).write_bytes(first + b"\n")
    with pytest.raises(RecordUnreadable, match="damaged at line 1"):
        Journal.open(state)
    assert journal_file(state).read_bytes() == first + b"\n"


def test_a_journal_without_a_schema_is_not_ours(state: Directory) -> None:
    journal_file(state).write_bytes(b'{"fact":"cut","job_id":"j1"}\n')
    with pytest.raises(RecordUnreadable, match="schema 'none'"):
        Journal.open(state)


@pytest.mark.parametrize(
    "rest",
    [b"", b'{"fact":"cut","job_id":"j1"}\n', b'{"kind":"attempt","job_id":"j1"}\n', b"+ not even JSON any more\n"],
    ids=["alone", "known facts", "other facts", "other form"],
)
def test_a_journal_of_a_later_schema_is_left_to_the_version_that_wrote_it(rest: bytes, state: Directory) -> None:
    written = b'{"schema":"restore-agent/journal/2"}\n' + rest
    journal_file(state).write_bytes(written)
    with pytest.raises(RecordUnreadable, match="restore-agent/journal/2") as caught:
        Journal.open(state)
    assert "version of restore-agent that wrote it" in caught.value.hint
    assert caught.value.exit_code == 42
    assert journal_file(state).read_bytes() == written


def test_a_journal_that_is_a_link_is_not_followed(state: Directory, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    journal_file(state).symlink_to(outside)
    for look in (Journal.open, Journal.peek):
        with pytest.raises(InTheWay):
            look(state)
    assert outside.read_bytes() == b""


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FACTS = ["attempt", "unsent", "answered", "synced", "whole", "proven", "published", "cut", "discarded"]
near_facts = st.fixed_dictionaries(
    {"fact": st.sampled_from(FACTS) | anything, "job_id": st.sampled_from(["j1", "j2"]) | anything},
    optional=dict.fromkeys({*ATTEMPT, *ANSWERED, *WHOLE, *PROVEN, *PUBLISHED, "offset", "schema"}, anything),
)
near_journals = st.lists(near_facts | anything, max_size=4).map(
    lambda facts: b"".join(json.dumps(line).encode() + b"\n" for line in [{"schema": SCHEMA}, *facts])
)


@hypothesis_settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200) | near_journals | near_journals.flatmap(lambda raw: st.just(raw[:-3])))
def test_whatever_stands_in_the_journal_it_is_read_or_refused(state: Directory, raw: bytes) -> None:
    journal_file(state).write_bytes(raw)
    try:
        seen = Journal.peek(state)
    except RecordUnreadable:
        assert journal_file(state).read_bytes() == raw
        return
    again = record(state, ("attempt", "j1", ATTEMPT))
    assert again.torn is seen.torn
    assert Journal.peek(state).entry("j1").attempts == seen.entry("j1").attempts + 1


# ---------------------------------------------------------------- lock


def test_one_run_per_dest(state: Directory) -> None:
    lock = Lock.take(state)
    with pytest.raises(DestHeld) as caught:
        Lock.take(state)
    lock.release()
    assert str(state.path.parent) in caught.value.message
    assert (caught.value.exit_code, caught.value.fields()["download_spent"]) == (50, False)


def test_after_a_run_the_next_one_may_begin(state: Directory) -> None:
    Lock.take(state).release()
    lock = Lock.take(state)
    assert Lock.is_held(state)
    lock.release()
    assert not Lock.is_held(state)


def test_the_file_of_the_lock_stays_so_that_no_two_runs_lock_different_ones(state: Directory) -> None:
    Lock.take(state).release()
    inode = (state.path / LOCK).stat().st_ino
    Lock.take(state).release()
    assert (state.path / LOCK).stat().st_ino == inode


def test_asking_for_the_lock_makes_no_file(state: Directory) -> None:
    assert not Lock.is_held(state)
    assert state.names() == []


def test_a_lock_that_is_a_link_is_not_followed(state: Directory, tmp_path: Path) -> None:
    (state.path / LOCK).symlink_to(tmp_path / "outside")
    with pytest.raises(InTheWay):
        Lock.take(state)
    with pytest.raises(InTheWay):
        Lock.is_held(state)
    assert not (tmp_path / "outside").exists()


HOLDER = """
import pathlib, sys, time
from restore_agent.dest.directory import Directory
from restore_agent.dest.lock import Lock
lock = Lock.take(Directory.open(pathlib.Path(sys.argv[1]), create=False))
print("held", flush=True)
time.sleep(60)
"""


def test_the_lock_goes_with_the_process_however_that_ends(state: Directory) -> None:
    command = [sys.executable, "-c", HOLDER, str(state.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert Lock.is_held(state)
        with pytest.raises(DestHeld):
            Lock.take(state)
        holder.send_signal(signal.SIGKILL)
    assert not Lock.is_held(state)
    Lock.take(state).release()


def test_a_look_at_the_lock_does_not_keep_a_run_from_it(state: Directory) -> None:
    """Monitoring asks at any moment, and to ask is to share the lock for a moment; that must not end a run with 50."""
    Lock.take(state).release()
    look = os.open(state.path / LOCK, os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH | fcntl.LOCK_NB)
    soon = threading.Timer(0.03, os.close, [look])
    soon.start()
    try:
        lock = Lock.take(state)
        assert Lock.is_held(state)
        lock.release()
    finally:
        soon.join()


# ---------------------------------------------------------------- status

ARCHIVE = {
    "job_id": "j1",
    "file_name": "rs0.tar.gz",
    "state": "downloading",
    "bytes": 5,
    "total_bytes": None,
    "bytes_per_second": 5,
    "expires_at": None,
    "downloads_spent": 1,
}


def status_file(state: Directory) -> StatusFile:
    return StatusFile(state, pid=4711, started_at="2017-04-21T11:00:00.000Z", batch_id="b")


def with_lock(state: Directory, look: Callable[[], Any]) -> Any:
    lock = Lock.take(state)
    try:
        return look()
    finally:
        lock.release()


def test_the_status_has_the_fields_of_the_contract(state: Directory) -> None:
    status_file(state).write("downloading", NOW, [ARCHIVE])
    assert with_lock(state, lambda: read_status(state)) == {
        "schema": "restore-agent/status/1",
        "state": "downloading",
        "pid": 4711,
        "started_at": "2017-04-21T11:00:00.000Z",
        "updated_at": "2017-04-21T12:00:00.000Z",
        "batch_id": "b",
        "exit_code": None,
        "archives": [ARCHIVE],
    }


def test_without_a_run_there_is_no_status(state: Directory) -> None:
    assert read_status(state) is None
    assert state.names() == []


@pytest.mark.parametrize("said", ["waiting", "downloading", "verifying"])
def test_a_run_that_is_gone_was_interrupted(said: str, state: Directory) -> None:
    status_file(state).write(said, NOW, [ARCHIVE])
    assert with_lock(state, lambda: read_status(state))["state"] == said
    gone = read_status(state)
    assert gone is not None
    assert gone["state"] == "interrupted"
    assert json.loads((state.path / STATUS).read_bytes())["state"] == said


@pytest.mark.parametrize(("said", "code"), [("finished", 0), ("finished", 12), ("interrupted", 130)])
def test_a_run_that_ended_by_itself_stays_as_it_ended(said: str, code: int, state: Directory) -> None:
    status_file(state).write(said, NOW, [], exit_code=code)
    seen = read_status(state)
    assert seen is not None
    assert (seen["state"], seen["exit_code"]) == (said, code)


def test_the_status_is_replaced_and_never_half(state: Directory) -> None:
    status = status_file(state)
    status.write("waiting", NOW, [])
    with (state.path / STATUS).open("rb") as reader:
        status.write("downloading", NOW, [ARCHIVE] * 100)
        assert json.loads(reader.read())["state"] == "waiting"
    assert json.loads((state.path / STATUS).read_bytes()) == status.last
    assert state.names() == [STATUS]


@pytest.mark.parametrize("raw", [b"", bytes(100)])
def test_a_status_that_a_power_loss_left_empty_is_none(raw: bytes, state: Directory) -> None:
    (state.path / STATUS).write_bytes(raw)
    assert read_status(state) is None


def test_only_the_last_status_of_a_run_must_last(state: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        names.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(os, "fsync", watched)
    status_file(state).write("downloading", NOW, [])
    assert STATE_DIRECTORY not in names
    status_file(state).write("finished", NOW, [], exit_code=0)
    assert names[-1] == STATE_DIRECTORY


@pytest.mark.parametrize(
    "change",
    [
        *({"state": 5}, {"pid": "4711"}, {"updated_at": None}, {"exit_code": "0"}, {"archives": {}}, {"archives": [5]}),
        *({"archives": [{**ARCHIVE, "bytes": None}]}, {"archives": [{**ARCHIVE, "total_bytes": "many"}]}),
    ],
    ids=str,
)
def test_a_status_with_a_field_of_the_wrong_type_is_damaged(change: dict[str, Any], state: Directory) -> None:
    status = status_file(state)
    status.write("downloading", NOW, [ARCHIVE])
    (state.path / STATUS).write_text(json.dumps({**status.last, **change}))
    with pytest.raises(RecordUnreadable, match="damaged"):
        read_status(state)


@pytest.mark.parametrize(
    "raw", [b"{", b"null", b"[]", b"5", b"{}", b'{"schema":"restore-agent/status/1"}', b"\xff", b"[" * 100_000]
)
def test_a_status_that_is_damaged_is_an_error(raw: bytes, state: Directory) -> None:
    (state.path / STATUS).write_bytes(raw)
    with pytest.raises(RecordUnreadable, match="damaged"):
        read_status(state)


def test_a_status_of_a_later_schema_is_an_error(state: Directory) -> None:
    (state.path / STATUS).write_bytes(b'{"schema":"restore-agent/status/2","state":"waiting"}')
    with pytest.raises(RecordUnreadable, match="restore-agent/status/2"):
        read_status(state)
