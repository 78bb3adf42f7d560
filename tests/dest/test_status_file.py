"""The status file: its fields, replaced as a whole, and refused if it is damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from restore_agent.core.errors import RecordUnreadable
from restore_agent.dest.directory import Directory
from restore_agent.dest.lock import STATE_DIRECTORY, Lock
from restore_agent.dest.status import STATUS, StatusFile, read_status

NOW = 1492776000.0

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


def with_lock(state: Directory, read: Callable[[], Any]) -> Any:
    lock = Lock.take(state)
    try:
        return read()
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
        "trouble": None,
        "archives": [ARCHIVE],
    }


def test_the_status_has_the_error_that_is_retried(state: Directory) -> None:
    trouble = {"message": "Ops Manager cannot be reached", "until": "2017-04-21T18:00:00.000Z"}
    status_file(state).write("waiting", NOW, [], trouble=trouble)
    assert with_lock(state, lambda: read_status(state))["trouble"] == trouble


def test_without_a_run_there_is_no_status(state: Directory) -> None:
    assert read_status(state) is None
    assert sorted(os.listdir(state.path)) == []


@pytest.mark.parametrize("shown", ["waiting", "downloading", "verifying", "unpacking"])
def test_the_status_of_a_run_whose_process_ended_is_interrupted(shown: str, state: Directory) -> None:
    status_file(state).write(shown, NOW, [ARCHIVE])
    assert with_lock(state, lambda: read_status(state))["state"] == shown
    gone = read_status(state)
    assert gone is not None
    assert gone["state"] == "interrupted"
    assert json.loads((state.path / STATUS).read_bytes())["state"] == shown


@pytest.mark.parametrize(("shown", "code"), [("finished", 0), ("finished", 12), ("interrupted", 130)])
def test_the_status_of_a_run_that_ended_stays(shown: str, code: int, state: Directory) -> None:
    status_file(state).write(shown, NOW, [], exit_code=code)
    seen = read_status(state)
    assert seen is not None
    assert (seen["state"], seen["exit_code"]) == (shown, code)


def test_the_status_is_replaced_atomically(state: Directory) -> None:
    status = status_file(state)
    status.write("waiting", NOW, [])
    with (state.path / STATUS).open("rb") as reader:
        status.write("downloading", NOW, [ARCHIVE] * 100)
        assert json.loads(reader.read())["state"] == "waiting"
    assert json.loads((state.path / STATUS).read_bytes()) == status.last
    assert sorted(os.listdir(state.path)) == [STATUS]


@pytest.mark.parametrize("raw", [b"", bytes(100)])
def test_a_status_that_a_power_loss_left_empty_is_none(raw: bytes, state: Directory) -> None:
    (state.path / STATUS).write_bytes(raw)
    assert read_status(state) is None


def test_only_the_last_status_of_a_run_is_durable(state: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
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
