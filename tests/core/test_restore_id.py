"""Which restore a DEST belongs to, and which run may use it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore_agent.core.errors import OtherBatch
from restore_agent.core.receipt import RestoreId


def batch(batch_id: str, *job_ids: str) -> RestoreId:
    return RestoreId("g", "c", None, batch_id, job_ids)


def jobs(*job_ids: str) -> RestoreId:
    return RestoreId("g", "c", None, None, job_ids)


names = st.none() | st.text(max_size=3)
restores = st.builds(
    RestoreId,
    names,
    names,
    names,
    st.sampled_from([None, "b1", "b2"]),
    st.sets(st.sampled_from(["j1", "j2", "j3"])).map(lambda found: tuple(sorted(found))),
)


# ---------------------------------------------------------------- may a run use this DEST


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        (batch("b"), batch("b")),
        (batch("b", "j1"), batch("b")),
        (batch("b", "j1"), batch("b", "j2")),
        (jobs("j1"), jobs("j1")),
        (jobs("j1"), jobs("j0", "j1")),
        (jobs("j1", "j2"), jobs("j2")),
        (jobs(), jobs("j1")),
        (jobs("j1"), batch("b", "j1")),
    ],
    ids=[
        *("batch", "batch with jobs", "other job of the batch", "job", "job and more", "some of the jobs"),
        *("nothing known", "job whose batch became known"),
    ],
)
def test_a_run_for_the_same_restore_may_use_dest(known: RestoreId, asked: RestoreId) -> None:
    known.require_same(asked)


@pytest.mark.parametrize(
    ("known", "asked", "named"),
    [
        (batch("b"), batch("b2"), "batch b"),
        (batch("b", "j1"), batch("b2", "j1"), "batch b"),
        (batch("b", "j1"), jobs("j1"), "batch b"),
        (batch("b"), jobs(), "batch b"),
        (jobs("j1"), batch("b"), "single restore jobs"),
        (jobs("j1"), jobs("j2"), "single restore jobs"),
        (jobs("j1"), jobs(), "single restore jobs"),
    ],
    ids=[
        *("other batch", "other batch with a job of the same ID", "job after batch", "nothing after batch"),
        *("batch after job", "job after job", "nothing after job"),
    ],
)
def test_a_run_for_another_restore_is_refused(known: RestoreId, asked: RestoreId, named: str) -> None:
    with pytest.raises(OtherBatch) as caught:
        known.require_same(asked)
    assert named in caught.value.message
    assert (caught.value.exit_code, caught.value.fields()["download_spent"]) == (42, False)


@given(restores)
def test_a_run_again_may_always_use_its_own_dest(restore: RestoreId) -> None:
    restore.require_same(restore)


@given(restores, restores)
def test_two_different_batches_never_share_a_dest(known: RestoreId, asked: RestoreId) -> None:
    if None not in (known.batch_id, asked.batch_id) and known.batch_id != asked.batch_id:
        with pytest.raises(OtherBatch):
            known.require_same(asked)


# ---------------------------------------------------------------- as JSON


@given(restores)
def test_a_restore_that_was_written_is_read_unchanged(restore: RestoreId) -> None:
    assert RestoreId.read(json.loads(json.dumps(restore.values()))) == restore


@pytest.mark.parametrize(
    "values",
    [
        *(None, [], "b", 5),
        *({"batch_id": 5}, {"group_id": ["g"]}, {"cluster_id": True}, {"host_id": {}}),
        *({"job_ids": None}, {"job_ids": "j1"}, {"job_ids": [5]}, {"job_ids": [None]}, {"job_ids": {"j1": 1}}),
    ],
    ids=str,
)
def test_a_restore_with_a_field_of_the_wrong_type_is_refused(values: Any) -> None:
    with pytest.raises(TypeError):
        RestoreId.read(values)


def test_fields_that_are_missing_or_of_a_later_version_are_accepted() -> None:
    assert RestoreId.read({}) == RestoreId()
    assert RestoreId.read({"batch_id": "b", "novelty": 1}) == RestoreId(batch_id="b")


def test_only_a_restore_without_a_batch_keeps_its_jobs() -> None:
    assert batch("b").with_jobs(("j1", "j2")) == batch("b")
    assert jobs().with_jobs(("j1", "j2")) == jobs("j1", "j2")
