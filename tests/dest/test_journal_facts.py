"""Journal facts: the effect of each one on the entry of its job, and its line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore_agent.dest.journal import Entry, Identity
from restore_agent.dest.journal.facts import (
    Answered,
    ArchiveDiscarded,
    Attempt,
    Cut,
    Discarded,
    Fact,
    Named,
    Promoted,
    Proven,
    Ready,
    SetAside,
    Staged,
    Summary,
    Synced,
    Unpacked,
    Unpacking,
    Unsent,
    Whole,
)
from restore_agent.dest.journal.reading import FACTS, read_fact

TIME = "2017-04-21T12:00:00.000Z"
SHA1, OTHER = "0123456789abcdef0123456789abcdef01234567", "f" * 40
DATA_PATH = Unpacked("/data/rs0", 12, 4096, True, {"Replica Set": "rs0"}, SHA1, 77)
STAGED = Staged("/data/rs0", 12, 4096, True, {"Replica Set": "rs0"}, SHA1, 77)

STORY: list[tuple[Fact, dict[str, Any]]] = [
    # a fact, and what it changes in the entry
    (Named("rs0.tar.gz"), {"file_name": "rs0.tar.gz"}),
    (Ready(TIME), {"ready_at": TIME}),
    (
        Attempt("rs0.tar.gz", "served.tar.gz", None),
        {"served_as": "served.tar.gz", "attempts": 1, "download_started_at": TIME},
    ),
    (Answered('"v1"', 4096, False, "b1"), {"validator": '"v1"', "total": 4096, "boot": "b1"}),
    (Synced(1024), {"synced": 1024}),
    (Cut(), {}),
    (Attempt("rs0.tar.gz", "served.tar.gz", OTHER), {"attempts": 2, "hash_before": OTHER}),
    (Answered('"v1"', 4096, True, "b2"), {"resumed": True, "boot": "b2"}),
    (Synced(2048), {"synced": 2048}),
    (
        Whole(SHA1, 1.5, 3072, False),
        {"whole": SHA1, "seconds": 1.5, "received": 3072, "delimited": False, "downloaded_at": TIME},
    ),
    (SetAside(SHA1), {"set_aside": SHA1}),
    (Proven("rs0.tar.gz", SHA1), {"proven": SHA1, "verified_at": TIME}),
    (Promoted(7, 4096, 99), {"promoted": Identity(7, 4096, 99)}),
    (STAGED, {"staged": STAGED}),
    (
        DATA_PATH,
        {"unpacked": (Unpacking(**asdict(DATA_PATH), at=TIME),), "staged": None},
    ),
    (ArchiveDiscarded(), {"archive_kept": False}),
    (
        Discarded(),
        {
            **dict.fromkeys(("validator", "total", "whole", "seconds", "received", "boot", "set_aside", "proven")),
            **dict.fromkeys(("promoted", "downloaded_at", "verified_at")),
            "resumed": False,
            "delimited": True,
            "synced": 0,
            "archive_kept": True,
        },
    ),
    (Attempt("j1-rs0.tar.gz", "served.tar.gz", OTHER), {"attempts": 3, "file_name": "j1-rs0.tar.gz"}),
    (Unsent(), {"attempts": 2}),
]


def replayed(*facts: Fact, entry: Entry | None = None) -> Entry:
    """Return an entry after facts."""
    entry = entry or Entry()
    for fact in facts:
        entry = fact.apply(entry, TIME)
    return entry


def line_of(fact: Fact) -> dict[str, Any]:
    """Return the line of a fact as a journal has it."""
    line: dict[str, Any] = json.loads(json.dumps({"fact": fact.fact, "job_id": "j1", "time": TIME, **fact.values()}))
    return line


# ---------------------------------------------------------------- effects


def test_every_fact_changes_the_fields_that_it_is_about_and_no_others() -> None:
    entry, known = Entry(), Entry()
    for fact, change in STORY:
        entry, known = fact.apply(entry, TIME), replace(known, **change)
        assert entry == known, fact


def test_the_test_sequence_has_every_fact_except_the_summary() -> None:
    assert {type(fact) for fact, _ in STORY} == set(FACTS.values()) - {Summary}


@pytest.mark.parametrize("fact", [Answered(None, None, False), Cut(), Discarded()], ids=lambda fact: fact.fact)
def test_a_part_file_that_is_written_again_is_not_complete_any_more(fact: Fact) -> None:
    assert replayed(Whole(SHA1, 1.0, 4096), fact).whole is None


def test_a_part_file_that_starts_again_has_no_durable_bytes() -> None:
    begun = (Answered('"v"', 4096, False, "b1"), Synced(1024))
    assert replayed(*begun, Answered('"v"', 4096, True, "b1")).synced == 1024
    assert replayed(*begun, Answered('"v"', 4096, False, "b1")).synced == 0


def test_a_new_verification_clears_the_identity_of_the_earlier_file() -> None:
    assert replayed(Proven("a", SHA1), Promoted(7, 1, 1), Proven("a", SHA1)).promoted is None


def test_promotion_keeps_the_archive_that_an_earlier_run_removed() -> None:
    assert replayed(Proven("a", SHA1), ArchiveDiscarded(), Promoted(7, 1, 1)).archive_kept


def test_an_attempt_that_was_never_sent_does_not_count() -> None:
    assert replayed(Attempt("a", "a", None), Unsent()).attempts == 0
    assert replayed(Unsent()).attempts == 0


def test_a_set_aside_file_stays_known_while_the_part_file_is_used_again() -> None:
    again = (Attempt("a", "a", None), Answered(None, 9, False), Whole(OTHER, 1.0, 9))
    entry = replayed(Whole(SHA1, 1.0, 4), SetAside(SHA1), *again)
    assert (entry.set_aside, entry.whole) == (SHA1, OTHER)


def test_discarding_the_bytes_keeps_the_name_the_attempts_and_the_data_paths() -> None:
    told = tuple(fact for fact, _ in STORY[:15])
    before, after = replayed(*told), replayed(*told, Discarded())
    kept = ("file_name", "served_as", "attempts", "hash_before", "ready_at", "download_started_at", "unpacked")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    empty = replace(after, **{name: getattr(Entry(), name) for name in kept})
    assert empty == Entry()


@pytest.mark.parametrize(
    ("facts", "ours"),
    [
        ((), False),
        ((Named("a"),), False),
        ((Ready(TIME),), False),
        ((Attempt("a", "a", None),), True),
        ((Attempt("a", "a", None), Unsent()), False),
        ((Attempt("a", "a", None), Discarded()), True),
        ((SetAside(SHA1),), True),
        ((Proven("a", SHA1),), True),
        ((Whole(SHA1, 1.0, 1),), True),
    ],
    ids=str,
)
def test_a_job_has_bytes_of_its_own_once_it_sent_a_request_or_has_a_complete_file(
    facts: tuple[Fact, ...], ours: bool
) -> None:
    assert replayed(*facts).is_ours is ours


def test_a_data_path_replaces_the_earlier_one_in_the_same_directory_only() -> None:
    unproven = Unpacked("/data/rs0.unproven", 1, 1, False, None)
    final, elsewhere = Unpacked("/data/rs0", 2, 2, True, None), Unpacked("/other/rs0", 3, 3, True, None)
    entry = replayed(unproven, elsewhere, final)
    assert [one.path for one in entry.unpacked] == ["/other/rs0", "/data/rs0"]
    assert entry.data_path_in("/data") == Unpacking("/data/rs0", 2, 2, True, None, at=TIME)
    assert entry.data_path_in("/nowhere") is None


def test_a_data_path_that_is_about_to_be_published_is_known_until_it_is() -> None:
    assert replayed(STAGED).staged == STAGED
    assert STAGED.published() == DATA_PATH
    assert replayed(STAGED, STAGED.published()).staged is None


def test_the_final_data_path_of_a_directory_is_found_first() -> None:
    aside, final = Unpacking("/data/a.unproven", 1, 1, False), Unpacking("/data/a", 1, 1)
    assert Entry(unpacked=(aside, final)).data_path_in("/data") == final
    assert Entry(unpacked=(aside,)).data_path_in("/data") == aside


def test_an_identity_changes_with_a_rename_and_a_replacement(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"data")
    before = Identity.of(path.stat())
    assert Identity.of(path.stat()) == before
    path.rename(tmp_path / "b")
    path.write_bytes(b"data")
    assert Identity.of(path.stat()) != before
    assert Identity.of((tmp_path / "b").stat()).size == before.size


# ---------------------------------------------------------------- lines

texts = st.text(max_size=8)
maybe_texts = st.none() | texts
sizes = st.integers(0, 1 << 60)
moments = st.floats(0, 1e9, allow_nan=False)
restore_infos = st.none() | st.dictionaries(texts, texts, max_size=2)

SIMPLE_FACTS: tuple[st.SearchStrategy[Fact], ...] = (
    st.builds(Named, texts),
    st.builds(Ready, texts),
    st.builds(Attempt, texts, texts, maybe_texts),
    st.builds(Unsent),
    st.builds(Answered, maybe_texts, st.none() | sizes, st.booleans(), maybe_texts),
    st.builds(Synced, sizes),
    st.builds(Whole, texts, moments, sizes, st.booleans()),
    st.builds(SetAside, texts),
    st.builds(Proven, texts, texts),
    st.builds(Promoted, sizes, sizes, sizes),
    st.builds(Cut),
    st.builds(Discarded),
    st.builds(Staged, texts, sizes, sizes, st.booleans(), restore_infos, maybe_texts, sizes),
    st.builds(Unpacked, texts, sizes, sizes, st.booleans(), restore_infos, maybe_texts, st.none() | sizes),
    st.builds(ArchiveDiscarded),
)
entries = st.lists(st.one_of(SIMPLE_FACTS), max_size=12).map(lambda found: replayed(*found))
facts = st.one_of(*SIMPLE_FACTS, entries.map(Summary))


@given(facts)
def test_every_fact_that_was_written_is_read_unchanged(fact: Fact) -> None:
    assert read_fact(line_of(fact)) == fact


@given(entries)
def test_a_summary_replaces_all_facts_before_it(entry: Entry) -> None:
    read = read_fact(line_of(Summary(entry)))
    assert isinstance(read, Summary)
    assert read.apply(Entry(attempts=77), TIME) == entry


@given(st.lists(facts, max_size=6), st.lists(facts, max_size=6))
def test_facts_after_a_summary_have_the_same_effect_as_without_it(before: list[Fact], after: list[Fact]) -> None:
    assert replayed(Summary(replayed(*before)), *after) == replayed(*before, *after)


def test_the_names_of_the_facts_are_those_of_the_previous_version() -> None:
    assert set(FACTS) >= {
        *("attempt", "unsent", "answered", "synced", "whole", "proven", "published", "cut", "discarded"),
    }
    assert all(name == kind.fact for name, kind in FACTS.items())


def test_a_fact_of_a_later_version_is_skipped() -> None:
    assert read_fact({"fact": "a fact of a later version", "job_id": "j1", "novelty": [1, 2]}) is None


def test_a_field_of_a_later_version_is_skipped() -> None:
    assert read_fact({**line_of(Synced(5)), "novelty": 1}) == Synced(5)


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ({"fact": "answered", "validator": None, "total": None, "resumed": False}, Answered(None, None, False, None)),
        ({"fact": "whole", "sha1": SHA1, "seconds": 2, "received": 4}, Whole(SHA1, 2, 4, True)),
    ],
    ids=["an answer without a boot", "a complete file without its framing"],
)
def test_a_fact_of_the_previous_version_is_read(line: dict[str, Any], fact: Fact) -> None:
    assert read_fact(line) == fact


def plain(kind: str) -> dict[str, Any]:
    """Return the line of the first fact of this name in the story."""
    return line_of(next(fact for fact, _ in STORY if fact.fact == kind))


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"fact": ["attempt"]},
        {"fact": None},
        {"fact": "attempt"},
        {**plain("attempt"), "file_name": 5},
        {**plain("attempt"), "hash_before": 5},
        {**plain("answered"), "total": "many"},
        {**plain("answered"), "total": True},
        {**plain("answered"), "resumed": 1},
        {**plain("answered"), "boot": 5},
        {**plain("synced"), "offset": True},
        {**plain("synced"), "offset": 1.5},
        {**plain("whole"), "sha1": [SHA1]},
        {**plain("whole"), "seconds": "long"},
        {**plain("whole"), "seconds": True},
        {**plain("proven"), "file_name": None},
        {**plain("published"), "inode": "7"},
        {**plain("unpacked"), "restore_info": {"a": 5}},
        {**plain("unpacked"), "restore_info": []},
        {**plain("unpacked"), "final": 1},
        {"fact": "entry"},
        {"fact": "entry", "entry": None},
        {"fact": "entry", "entry": []},
        {"fact": "entry", "entry": {"attempts": "5"}},
        {"fact": "entry", "entry": {"promoted": 5}},
        {"fact": "entry", "entry": {"promoted": {"inode": 5}}},
        {"fact": "entry", "entry": {"staged": {"path": "/a"}}},
        {"fact": "entry", "entry": {"unpacked": 5}},
        {"fact": "entry", "entry": {"unpacked": ["path"]}},
        {"fact": "entry", "entry": {"unpacked": [{"path": "/a"}]}},
    ],
    ids=str,
)
def test_a_line_with_a_missing_field_or_a_field_of_the_wrong_type_is_refused(line: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError)):
        read_fact(line)


def test_every_field_of_an_entry_has_a_type_that_a_summary_can_read() -> None:
    full = replayed(*(fact for fact, _ in STORY[:16]), STAGED)
    assert all(getattr(full, item.name) not in (None, ()) for item in fields(Entry))
    assert read_fact(line_of(Summary(full))) == Summary(full)
