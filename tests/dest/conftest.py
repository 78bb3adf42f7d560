"""Fixtures of the tests of DEST: the directory of a test, and the directory of its records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from restore_agent.dest.directory import Directory
from restore_agent.dest.lock import STATE_DIRECTORY


@pytest.fixture
def dest(tmp_path: Path) -> Iterator[Directory]:
    """A new DEST."""
    with Directory.open(tmp_path / "dest", create=True) as directory:
        yield directory


@pytest.fixture
def state(dest: Directory) -> Iterator[Directory]:
    """`.restore-agent/` of a new DEST."""
    made = dest.subdirectory(STATE_DIRECTORY, create=True)
    assert made is not None
    with made:
        yield made


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file next to DEST that must stay as it is."""
    path = tmp_path / "outside"
    path.write_bytes(b"not yours")
    return path
