"""Contents of simulated archives, compared with GNU tar, and archives that are given."""

from __future__ import annotations

import gzip
import subprocess
import tarfile
from pathlib import Path

import pytest
from api_client import SMALL, Start, archive_of, sha1

from restore_agent.simulator.archives import Archive, Recipe, Shape, make_archive
from restore_agent.simulator.archives.members import extra_member
from restore_agent.simulator.faults.values import MEMBER_KINDS

TOP = "electron_0-1-ab"
HARMLESS = MEMBER_KINDS[: MEMBER_KINDS.index("absolute")]
HOSTILE = MEMBER_KINDS[len(HARMLESS) :]


def made(directory: Path, *, size: int = SMALL, **shape: object) -> Archive:
    """Return an archive with this shape."""
    recipe = Recipe(f"{TOP}.tar.gz", size, "seed", info=(("Replica Set", "rs"),), shape=Shape(**shape))  # type: ignore[arg-type]
    return make_archive(directory / "archive", recipe)


def unpacked(archive: Path, directory: Path) -> Path:
    """Unpack an archive with GNU tar."""
    directory.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", directory], check=True, capture_output=True)
    return directory


@pytest.mark.parametrize("size", [300_000, 4 << 20])
def test_half_of_the_files_is_incompressible_and_the_archive_has_the_requested_size(tmp_path: Path, size: int) -> None:
    archive = made(tmp_path, size=size)
    assert abs(archive.size - size) < size // 20
    assert 1.6 < archive.unpacked / archive.size < 1.95
    files = unpacked(archive.path, tmp_path / "out")
    assert sum(path.stat().st_size for path in files.rglob("*") if path.is_file()) == archive.unpacked


def test_a_plain_tar_has_the_requested_size(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive", Recipe(f"{TOP}.tar", 4 << 20, "seed", gzipped=False))
    assert abs(archive.size - (4 << 20)) < 1 << 18
    unpacked(archive.path, tmp_path / "out")


@pytest.mark.parametrize("kind", HARMLESS)
def test_gnu_tar_unpacks_every_harmless_member(tmp_path: Path, kind: str) -> None:
    files = unpacked(made(tmp_path, members=(kind,)).path, tmp_path / "out") / TOP
    assert (files / "restoreInfo.txt").read_bytes() == b"Replica Set: rs\n"
    if kind.startswith("sparse"):
        sparse = files / f"{kind}.wt"
        assert sparse.stat().st_size == 1 << 20
        data = sparse.read_bytes()
        assert data.count(b"d") == 8192
        assert data[512 << 10 :][:4096] == b"d" * 4096
    if kind == "duplicate":
        assert (files / "twice.wt").read_bytes() == b"last"


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_member_is_a_valid_tar(tmp_path: Path, kind: str) -> None:
    with tarfile.open(made(tmp_path, members=(kind,)).path) as tar:
        last = tar.getmembers()[-1]
    assert not last.isreg() or last.name.startswith("/") or ".." in last.name or last.name.count("/") > 1


def test_every_kind_of_member_is_created() -> None:
    assert all(len(extra_member(kind, "top/")) % 512 == 0 for kind in MEMBER_KINDS)


def test_top_entries_may_be_several_or_no_directory(tmp_path: Path) -> None:
    with tarfile.open(made(tmp_path, top="several").path) as tar:
        assert {name.split("/")[0] for name in tar.getnames()} == {TOP, "second", "README"}
    with tarfile.open(made(tmp_path, top="none").path) as tar:
        assert "WiredTiger" in tar.getnames()


def test_a_gzip_may_have_several_members(tmp_path: Path) -> None:
    archive = made(tmp_path, gzip_members=True)
    assert archive.path.read_bytes().count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff") > 10
    unpacked(archive.path, tmp_path / "out")


def test_an_archive_may_have_many_small_files(tmp_path: Path) -> None:
    with tarfile.open(made(tmp_path, small_files=500).path) as tar:
        assert len(tar.getnames()) > 500


@pytest.mark.parametrize("damage", ["header", "tar-end", "gzip-end", "no-members"])
def test_an_archive_may_be_damaged_inside_although_its_hash_matches(start: Start, damage: str, tmp_path: Path) -> None:
    client = start(f"damaged-inside={damage}")
    content = client.download().content
    assert client.job()["hashes"][0]["hash"] == sha1(content)
    (tmp_path / "archive").write_bytes(content)
    ended = subprocess.run(["tar", "-tzf", tmp_path / "archive"], check=False, capture_output=True)
    if damage in ("header", "gzip-end"):
        assert ended.returncode != 0
    elif damage == "tar-end":
        assert not gzip.decompress(content).endswith(bytes(1024))
    else:
        assert ended.stdout == b""


@pytest.mark.parametrize("kind", ["", "replica-set", "cluster-id", "group-id", "missing", "huge", "binary"])
def test_restore_info_names_what_was_restored_or_something_else(start: Start, kind: str, tmp_path: Path) -> None:
    client = start(*([f"restore-info={kind}"] if kind else []))
    (tmp_path / "archive").write_bytes(archive_of(client))
    (top,) = unpacked(tmp_path / "archive", tmp_path / "out").iterdir()
    assert client.url().endswith(f"/{top.name}.tar.gz")
    if kind == "missing":
        assert not (top / "restoreInfo.txt").exists()
        return
    raw = (top / "restoreInfo.txt").read_bytes()
    if kind == "huge":
        assert len(raw) > 1_000_000
    if kind == "binary":
        assert b"\0\xff: \xfe" in raw
        return
    lines = dict(line.split(": ", 1) for line in raw.decode().splitlines())
    shown = {name: lines[name] for name in ("Group ID", "Cluster ID", "Replica Set")}
    right = {"Group ID": client.hello["group_id"], "Cluster ID": client.job()["clusterId"], "Replica Set": "electron_0"}
    wrong = [name for name in right if shown[name] != right[name]]
    expected = {"replica-set": "Replica Set", "cluster-id": "Cluster ID", "group-id": "Group ID"}.get(kind)
    assert wrong == ([expected] if expected else [])
    assert {"Snapshot timestamp", "MongoDB Version", "Storage Engine"} <= lines.keys()


def test_faults_shape_the_archive_of_one_job(start: Start) -> None:
    client = start("member=symlink@1", "top=several@1", shards=1)
    assert len(archive_of(client, 0)) != len(archive_of(client, 1))


def test_a_directory_can_be_served(start: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "journal").mkdir(parents=True)
    (home / "WiredTiger").write_bytes(b"WiredTiger\n")
    (home / "journal" / "log").write_bytes(b"log" * 10_000)
    client = start(archives=[home])
    (tmp_path / "archive").write_bytes(client.download().content)
    (top,) = unpacked(tmp_path / "archive", tmp_path / "out").iterdir()
    assert client.url().endswith(f"/{top.name}.tar.gz")
    assert (top / "journal" / "log").read_bytes() == b"log" * 10_000
    assert (top / "restoreInfo.txt").read_text().startswith("Group ID: ")
    part = client.get("/snapshots").json()["results"][0]["parts"][0]
    assert part["fileSizeBytes"] == sum(path.stat().st_size for path in top.rglob("*") if path.is_file())


def test_files_can_be_served_in_turn(start: Start, tmp_path: Path) -> None:
    one, two = made(tmp_path).path.rename(tmp_path / "one.tar.gz"), tmp_path / "two.tar"
    two.write_bytes(b"not an archive")
    client = start(shards=2, archives=[one, str(two)])
    assert [client.url(index).rsplit(".", 1)[1] for index in range(3)] == ["gz", "tar", "gz"]
    assert client.download(1).content == b"not an archive"
    assert client.download(2).content == one.read_bytes()
    client.simulator.stop()
    assert one.exists()


def test_a_served_archive_must_exist(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        start(archives=[tmp_path / "absent"])
