"""Files that are already in DEST: hashed, and checked for their structure."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from restore_agent.core.errors import Finding, InTheWay, Unwritable
from restore_agent.dest.archive import BLOCK, Digest, digest_of, hash_file, structure_of
from restore_agent.dest.directory import Directory

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1])
def test_the_digest_of_a_file_is_that_of_its_bytes(size: int, dest: Directory) -> None:
    path = dest.path / "a"
    path.write_bytes(b"x" * size)
    seen: list[int] = []
    digest = run(digest_of(dest, "a", seen.append))
    assert digest == Digest(sha1(b"x" * size), size, path.stat().st_ino)
    assert seen[-1:] == ([size] if size else [])


def test_the_hash_of_a_file_can_be_continued(dest: Directory) -> None:
    (dest.path / "a").write_bytes(b"first")
    hashed = run(hash_file(dest, "a"))
    hashed.sha1.update(b" and more")
    hashed.size += 9
    assert hashed.digest() == Digest(sha1(b"first and more"), 14, (dest.path / "a").stat().st_ino)


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        (bytes.fromhex("1f8b0800000000000003"), Finding.TRUNCATED),
        (b"<html>" * 200, Finding.DAMAGED),
        (b"", Finding.TRUNCATED),
    ],
)
def test_the_structure_of_a_file_is_that_of_all_its_bytes(body: bytes, finding: Finding, dest: Directory) -> None:
    (dest.path / "a").write_bytes(body)
    assert run(structure_of(dest, "a")) is finding


def test_the_rest_of_a_damaged_file_is_not_read(dest: Directory) -> None:
    path = dest.path / "a"
    path.write_bytes(b"x" * 512)
    os.truncate(path, 1 << 40)
    assert run(structure_of(dest, "a")) is Finding.DAMAGED


@pytest.mark.parametrize("work", [digest_of, structure_of])
def test_an_object_that_is_not_a_file_is_not_read(work: Callable[..., Any], dest: Directory, tmp_path: Path) -> None:
    (dest.path / "link").symlink_to(tmp_path)
    (dest.path / "directory").mkdir()
    os.mkfifo(dest.path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("link", "directory", "fifo"):
        with pytest.raises(InTheWay):
            run(work(dest, name))
    with pytest.raises(Unwritable, match="No such file"):
        run(work(dest, "missing"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_with_several_hard_links_is_read(dest: Directory, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"data")
    os.link(tmp_path / "elsewhere", dest.path / "a")
    assert run(digest_of(dest, "a")).sha1 == sha1(b"data")
