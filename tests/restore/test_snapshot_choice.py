"""Which snapshot a request takes: pure rules."""

from __future__ import annotations

import pytest

from restore_agent.core.errors import NoSnapshot, SnapshotNotRestorable
from restore_agent.core.settings import Before
from restore_agent.network.documents import Snapshot
from restore_agent.restore.request.snapshots import latest, newest_first, require_restorable


def snapshot(name: str, created: float | None, **changes: object) -> Snapshot:
    fields: dict[str, object] = {
        "cluster_id": "c",
        "expires": None,
        "complete": True,
        "possibly_inconsistent": False,
        "missing_shards": (),
        "size": 1,
        "mongodb_version": "7.0.14",
    }
    return Snapshot(id=name, created=created, **{**fields, **changes})  # type: ignore[arg-type]


INCOMPLETE = snapshot("incomplete", 50.0, complete=False)
INCONSISTENT = snapshot("inconsistent", 40.0, possibly_inconsistent=True)
SHORT = snapshot("short", 30.0, missing_shards=("shard1",))
NEWER, OLDER, UNDATED = snapshot("newer", 20.0), snapshot("older", 10.0), snapshot("undated", None)
ALL = [OLDER, SHORT, UNDATED, INCOMPLETE, NEWER, INCONSISTENT]


def test_the_newest_snapshot_is_first_and_one_without_a_time_is_last() -> None:
    assert [one.id for one in newest_first(ALL)] == ["incomplete", "inconsistent", "short", "newer", "older", "undated"]


def test_latest_is_the_newest_complete_snapshot() -> None:
    assert latest(ALL) is NEWER


@pytest.mark.parametrize(("before", "expected"), [(20.0, NEWER), (19.9, OLDER), (10.0, OLDER), (100.0, NEWER)])
def test_latest_is_not_later_than_the_moment_that_is_given(before: float, expected: Snapshot) -> None:
    assert latest(ALL, before) is expected


def test_a_snapshot_without_a_time_is_chosen_only_if_no_moment_is_given() -> None:
    assert latest([UNDATED]) is UNDATED
    with pytest.raises(NoSnapshot):
        latest([UNDATED], 100.0)


@pytest.mark.parametrize(
    ("snapshots", "before", "text"),
    [
        ([], None, "no snapshot to restore: there is none"),
        ([OLDER], 9.0, "no snapshot to restore: there is none until 1970-01-01T00:00:09Z"),
        ([INCOMPLETE, SHORT], None, "no snapshot to restore: of 2 snapshots, none can be restored"),
        ([SHORT, OLDER], 9.5, "no snapshot to restore: there is none until 1970-01-01T00:00:09Z"),
    ],
)
def test_without_a_snapshot_that_can_be_restored_the_code_is_24(
    snapshots: list[Snapshot], before: float | None, text: str
) -> None:
    with pytest.raises(NoSnapshot) as refused:
        latest(snapshots, before)
    assert (refused.value.message, refused.value.exit_code) == (text, 24)


@pytest.mark.parametrize(
    ("chosen", "allowed", "text"),
    [
        (INCOMPLETE, False, "snapshot incomplete is not complete"),
        (INCOMPLETE, True, "snapshot incomplete is not complete"),
        (INCONSISTENT, False, "snapshot inconsistent is possibly inconsistent"),
        (SHORT, False, "snapshot short misses shard shard1"),
        (
            snapshot("both", 1.0, possibly_inconsistent=True, missing_shards=("a", "b")),
            False,
            "snapshot both is possibly inconsistent and misses shards a, b",
        ),
    ],
)
def test_a_snapshot_given_by_its_id_is_refused_if_it_lacks_something(
    chosen: Snapshot, allowed: bool, text: str
) -> None:
    with pytest.raises(SnapshotNotRestorable) as refused:
        require_restorable(chosen, allow_inconsistent=allowed)
    assert (refused.value.message, refused.value.exit_code) == (text, 24)
    assert ("--allow-inconsistent" in refused.value.hint) == chosen.complete


@pytest.mark.parametrize("chosen", [INCONSISTENT, SHORT, NEWER])
def test_a_complete_snapshot_is_chosen_if_it_is_allowed(chosen: Snapshot) -> None:
    require_restorable(chosen, allow_inconsistent=True)


def test_a_duration_counts_back_from_the_clock_that_is_given() -> None:
    assert Before(ago=60.0).on(100.0) == 40.0
    assert Before(moment=60.0).on(100.0) == 60.0
