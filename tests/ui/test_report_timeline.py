"""Geometry of the timeline: phases in order, round ticks, and moments that cannot be true."""

from __future__ import annotations

from typing import Any

import pytest

from restore_agent.ui.report import judge
from restore_agent.ui.report.timeline import Timeline, timeline
from tests.support.receipts import archive, failed, files, receipt, stamp


def of(*entries: Any, **changes: Any) -> Timeline:
    """Return the timeline of archives of one host."""
    return timeline(judge(files(receipt(*entries, **changes))).rows)


def times(*seconds: float | None) -> dict[str, str | None]:
    """Return moments, in seconds after the start of the run."""
    names = ("ready_at", "download_started_at", "downloaded_at", "verified_at", "unpacked_at")
    return {name: None if at is None else stamp(at) for name, at in zip(names, seconds, strict=True)}


def phases(picture: Timeline) -> list[tuple[str, float]]:
    """Return the phases of the first lane with their seconds."""
    return [(segment.phase, round(segment.seconds, 3)) for segment in picture.lanes[0].segments]


def test_phases_follow_each_other_from_the_start_of_the_run() -> None:
    picture = of(archive(0, **times(5, 10, 60, 70, 100)))
    assert phases(picture) == [("waited", 10), ("downloaded", 50), ("waited for the hash", 10), ("unpacked", 30)]
    assert [round(one.start, 3) for one in picture.lanes[0].segments] == [0, 0.1, 0.6, 0.7]
    assert picture.lanes[0].length == "1m40s"


def test_without_unpacking_a_row_ends_with_the_verification() -> None:
    assert phases(of(archive(0, **times(5, 10, 60, 70, None))))[-1] == ("waited for the hash", 10)


def test_a_download_of_an_earlier_run_has_a_wait_since_its_job_was_ready() -> None:
    picture = of(archive(0, **times(5, 10, 60, 70, 100)), started_at=stamp(5000))
    assert phases(picture)[0] == ("waited", 5)
    picture = of(archive(0, **times(None, 10, 60, 70, 100)), started_at=stamp(5000))
    assert phases(picture)[0] == ("downloaded", 50)


def test_times_in_the_wrong_order_give_no_phase() -> None:
    assert phases(of(archive(0, **times(5, 10, 60, 40, 100)))) == [
        ("waited", 10),
        ("downloaded", 50),
    ]


def test_the_row_of_an_archive_that_failed_shows_that() -> None:
    picture = of(failed(0, 22, "delivery-expired", download_started_at=stamp(30)))
    assert phases(picture) == [("waited", 30)]
    assert picture.lanes[0].length == "failed"


def test_skipped_jobs_have_no_row() -> None:
    assert len(of(archive(0), failed(1, 0, None, "skipped")).lanes) == 1


def test_without_times_there_is_no_timeline() -> None:
    picture = of(archive(0, **times(None, None, None, None, None)))
    assert (picture.known, picture.ticks, picture.lanes[0].length) == (False, (), "unknown")


@pytest.mark.parametrize("span", [1, 7, 59, 300, 4000, 50_000, 90_000, 2_000_000, 60_000_000])
def test_ticks_are_few_and_inside_the_chart(span: float) -> None:
    picture = of(archive(0, **times(0, 0.5, span / 2, span, None)))
    assert 1 <= len(picture.ticks) <= 5
    assert all(0 <= place <= 1 for place, _ in picture.ticks)
    assert len({label for _, label in picture.ticks}) == len(picture.ticks)


def test_ticks_have_the_day_if_the_chart_spans_two_days() -> None:
    assert all(len(label) == len("11-24 02:00") for _, label in of(archive(0, **times(0, 1, 2, 90_000, None))).ticks)


def test_identical_times_are_drawn_without_an_error() -> None:
    assert of(archive(0, **times(0, 0, 0, 0, 0))).seconds > 0
