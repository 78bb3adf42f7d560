"""Archives that the simulator makes."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from pathlib import Path

import pytest
from api_client import FRAMINGS, SMALL, Start, archive_of, sha1

from restore_agent.simulator.archives import Recipe, Shape, make_archive

# Archives


def test_an_archive_is_a_gzip_tar_of_a_data_path(tmp_path: Path) -> None:
    recipe = Recipe("electron_0-1-ab.tar.gz", 1 << 20, "seed", info=(("Replica Set", "electron_0"),))
    archive = make_archive(tmp_path / "a", recipe)
    with tarfile.open(archive.path, "r:gz") as tar:
        names = tar.getnames()
        assert sum(member.size for member in tar) == archive.unpacked
        info = tar.extractfile("electron_0-1-ab/restoreInfo.txt")
        assert info is not None and info.read() == b"Replica Set: electron_0\n"
    assert names[0] == "electron_0-1-ab"
    assert {name.split("/", 1)[1] for name in names[1:]} >= {"WiredTiger", "WiredTiger.wt", "journal", "storage.bson"}
    assert abs(archive.size - (1 << 20)) < 1 << 14
    assert archive.sha1 == sha1(archive.path.read_bytes())


def test_archives_are_derived_from_seed_and_size(tmp_path: Path) -> None:
    recipes = [Recipe("a.tar.gz", 5000, "one"), Recipe("a.tar.gz", 5000, "one"), Recipe("a.tar.gz", 5000, "two")]
    one, again, other = (make_archive(tmp_path / str(number), recipe) for number, recipe in enumerate(recipes))
    assert one.sha1 == again.sha1 != other.sha1


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_333_333])
def test_archives_of_any_size_are_complete(tmp_path: Path, size: int) -> None:
    archive = make_archive(tmp_path / "a", Recipe("a.tar.gz", size, "seed"))
    with tarfile.open(archive.path) as tar:
        assert len(tar.getmembers()) == 14


def test_a_damaged_gzip_matches_its_hash_and_fails_its_check(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a", Recipe("a.tar.gz", SMALL, "seed", shape=Shape(damage="checksum")))
    assert archive.sha1 == sha1(archive.path.read_bytes())
    with pytest.raises((gzip.BadGzipFile, zlib.error)):
        gzip.decompress(archive.path.read_bytes())


def test_a_damaged_plain_tar_has_a_bad_header(tmp_path: Path) -> None:
    archive = make_archive(
        tmp_path / "a", Recipe("a.tar", SMALL, "seed", gzipped=False, shape=Shape(damage="checksum"))
    )
    with tarfile.open(archive.path, "r:") as tar:
        assert all(member.isdir() for member in tar)  # tarfile ends quietly at the bad header of the first file


def test_a_bomb_is_small_and_announces_gigabytes(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a", Recipe("a.tar.gz", SMALL, "seed", shape=Shape(bomb=True)))
    assert archive.size < 8 << 20
    with tarfile.open(archive.path, "r:gz") as tar:
        names = iter(tar)
        assert next(names).isdir()
    assert int.from_bytes(archive.path.read_bytes()[-4:], "little") < 1 << 20  # 4 GiB and a bit, modulo 2**32


# Bodies


@pytest.mark.parametrize(
    ("fault", "content_type", "beginning"),
    [
        ("html-body", "text/html;charset=utf-8", b"<!DOCTYPE"),
        ("json-body", "application/json", b"{"),
        ("empty-body", "application/x-gzip", b""),
    ],
)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_body_may_be_something_other_than_an_archive(
    start: Start, fault: str, content_type: str, beginning: bytes, framing: str
) -> None:
    client = start(fault, f"framing={framing}")
    answer = client.download()
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, content_type)
    assert answer.content.startswith(beginning) and len(answer.content) < 1000
    assert "hashes" not in client.job()


def test_a_damaged_body_differs_in_one_byte_from_its_hash(start: Start) -> None:
    client = start("damaged=1", "max-downloads=2")
    damaged, whole = client.download().content, archive_of(client)
    assert sum(one != other for one, other in zip(damaged, whole, strict=True)) == 1
    assert client.job()["hashes"][0]["hash"] == sha1(whole)
    assert client.download().content == whole


def test_garbage_may_follow_the_archive(start: Start) -> None:
    client = start("trailing-garbage")
    content = client.download().content
    whole = archive_of(client)
    assert content.startswith(whole) and len(content) > len(whole)


def test_an_archive_may_be_a_plain_tar(start: Start) -> None:
    client = start("plain-tar")
    assert client.url().endswith(".tar")
    with tarfile.open(fileobj=io.BytesIO(client.download().content), mode="r:") as tar:
        assert tar.getnames()


def test_an_archive_may_be_labelled_as_an_encoding(start: Start) -> None:
    client = start("content-encoding-gzip")
    with client.plain.stream("GET", client.url()) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert b"".join(response.iter_raw()) == archive_of(client)
