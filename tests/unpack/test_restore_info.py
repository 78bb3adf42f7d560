"""The `name: value` lines of restoreInfo.txt, and whether they contradict the restore job."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from restore_agent.unpack.restore_info import FILE_NAME, contradictions, parse_restore_info, read_restore_info


def read(directory: Path) -> dict[str, str] | None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        return read_restore_info(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("raw", "info"),
    [
        (b"", {}),
        (b"Replica Set: rs0\nGroup ID: 5\n", {"Replica Set": "rs0", "Group ID": "5"}),
        (b"Replica Set: rs0\r\nReplica Set: other\r\n", {"Replica Set": "rs0"}),
        (b"\xef\xbb\xbfGroup: a: b\n", {"Group": "a: b"}),
        (b"no separator\n: value\n\n12:30\nEmpty:\n", {"Empty": ""}),
        (b"  Padded :  value  \n", {"Padded": "value"}),
        (b"Name: \xff\n", {"Name": "\ufffd"}),
        (b"a\x1b[1m: \x1b[2J\n", {"a\\x1b[1m": "\\x1b[2J"}),
        (b"last: line", {"last": "line"}),
    ],
)
def test_lines_with_a_name_and_a_value(raw: bytes, info: dict[str, str]) -> None:
    assert parse_restore_info(raw) == info


def test_only_the_first_64_kib_count_and_no_line_is_cut() -> None:
    filler = b"x" * ((64 << 10) - 10) + b"\n"
    assert parse_restore_info(b"a: 1\n" + filler + b"cut: in the middle\n") == {"a": "1"}
    assert parse_restore_info(b"a: " + b"1" * ((64 << 10) - 3) + b"\nb: 2\n") == {"a": "1" * ((64 << 10) - 3)}


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    os.mkfifo(tmp_path / FILE_NAME)
    assert read(tmp_path) is None
    (tmp_path / FILE_NAME).unlink()
    (tmp_path / FILE_NAME).write_text("Replica Set: rs0\n")
    assert read(tmp_path) == {"Replica Set": "rs0"}


def test_values_that_contradict_the_job() -> None:
    info = {"Replica Set": "rs0", "ClusterId": "5C9E", "Group ID": "1", "Other": "x"}
    expected = {"Replica Set": "rs1", "Cluster ID": "5c9e", "Group ID": None, "Snapshot": "y"}
    (sentence,) = contradictions(info, expected)
    assert "'rs0'" in sentence
    assert "'rs1'" in sentence
