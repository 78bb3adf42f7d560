"""Archives of real tools come out as GNU tar extracts them: names, bytes, holes, times and links."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from archives import (
    END,
    TOP,
    areas,
    content,
    extracted_by_gnu_tar,
    needs,
    raw_header,
    run,
    tar_of,
    unpack,
    zipped,
)
from archives import directory as directory_entry
from archives import member as member_entry

from restore_agent.core.errors import Finding
from restore_agent.unpack.reading.inflate import backend
from restore_agent.unpack.unpacker import Options

MIB = 1 << 20
NANOSECONDS = 1_234_567_890_123_456_789


def libraries() -> list[object]:
    with_isal = backend(fast=True)
    both = [pytest.param(backend(fast=False), id="zlib")]
    return [*both, pytest.param(with_isal, id="isal")] if with_isal.name.startswith("isal") else both


def make_tree(root: Path, *, long_names: bool = True) -> Path:
    """A tree like WiredTiger's, with everything that a real archive may contain. Returns its top directory."""
    top = root / TOP
    (top / "db" / "index").mkdir(parents=True)
    (top / "empty directory").mkdir()
    rnd = random.Random(7)
    (top / "WiredTiger").write_bytes(b"WiredTiger\nWiredTiger 10.0.2\n")
    (top / "collection-0.wt").write_bytes(rnd.randbytes(3 * MIB + 17))
    (top / "db" / "index" / "zeros.wt").write_bytes(bytes(2 * MIB))
    (top / "empty").touch()
    (top / "dütt ünd\nso").write_bytes(b"x" * 511)
    (top / "restoreInfo.txt").write_text("Group: g\nReplica Set: rs0\nReplica Set: other\n")
    os.link(top / "collection-0.wt", top / "db" / "linked.wt")
    if long_names:
        deep = top / ("d" * 120) / ("e" * 200)
        deep.mkdir(parents=True)
        (deep / ("f" * 250)).write_bytes(b"deep")
    for path in sorted(top.rglob("*"), reverse=True):
        os.utime(path, ns=(NANOSECONDS, NANOSECONDS))
    os.utime(top, ns=(NANOSECONDS, NANOSECONDS + 5))
    return top


def pack(root: Path, archive: Path, *options: str, tool: str = "tar", what: str = TOP) -> Path:
    run(tool, *options, "-cf", archive, what, cwd=root)
    return archive


def require_same_as_gnu_tar(archive: Path, tmp_path: Path, top: str = TOP, options: Options | None = None) -> None:
    expected = extracted_by_gnu_tar(archive, tmp_path / "expected") / top
    unpack(archive, tmp_path / "into", options)
    found = content(tmp_path / "into" / "data")
    wanted = content(expected)
    if not top:
        found["."] = wanted["."] = None  # the root's own time is that of the extraction
    assert found == wanted


@pytest.mark.parametrize("library", libraries())
@pytest.mark.parametrize("form", ["posix", "gnu", "oldgnu"])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_archives_of_gnu_tar(tmp_path: Path, form: str, suffix: str, library: object) -> None:
    make_tree(tmp_path)
    archive = pack(tmp_path, tmp_path / f"a{suffix}", f"--format={form}", "--auto-compress")
    require_same_as_gnu_tar(archive, tmp_path, options=Options(library=library))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["v7", "ustar"])
def test_archives_of_gnu_tar_in_formats_without_long_names(tmp_path: Path, form: str) -> None:
    make_tree(tmp_path, long_names=False)
    require_same_as_gnu_tar(pack(tmp_path, tmp_path / "a.tar", f"--format={form}"), tmp_path)


def test_an_incremental_archive_with_times_in_old_gnu_headers(tmp_path: Path) -> None:
    make_tree(tmp_path)
    listed = f"--listed-incremental={tmp_path / 'snar'}"
    archive = pack(tmp_path, tmp_path / "a.tar", "--format=gnu", listed)
    unpack(archive, tmp_path / "into")
    expected = extracted_by_gnu_tar(archive, tmp_path / "expected") / TOP
    assert content(tmp_path / "into" / "data") == content(expected)


@needs("bsdtar")
@pytest.mark.parametrize("form", ["pax", "gnutar"])
def test_archives_of_bsdtar(tmp_path: Path, form: str) -> None:
    top = make_tree(tmp_path)
    unpack(pack(tmp_path, tmp_path / "a.tar.gz", "-z", "--format", form, tool="bsdtar"), tmp_path / "into")
    # bsdtar visits a directory twice, and then GNU tar does not restore the directory's time
    assert in_seconds(content(tmp_path / "into" / "data"), form) == in_seconds(content(top), form)


def in_seconds(found: dict[str, object], form: str) -> dict[str, object]:
    """Times without nanoseconds, where the format has none."""
    if form == "pax":
        return found
    return {name: (what[0], what[1] // 10**9) if isinstance(what, tuple) else 0 for name, what in found.items()}


@needs("pigz")
@pytest.mark.parametrize("options", [("-b", "128"), ("-i",), ("-R",), ("-1",)])
def test_archives_of_pigz(tmp_path: Path, options: tuple[str, ...]) -> None:
    make_tree(tmp_path)
    pack(tmp_path, tmp_path / "a.tar")
    run("pigz", *options, tmp_path / "a.tar")
    require_same_as_gnu_tar(tmp_path / "a.tar.gz", tmp_path)


@pytest.mark.parametrize("library", libraries())
def test_a_gzip_of_many_members_and_zeros_after_it(tmp_path: Path, library: object) -> None:
    make_tree(tmp_path)
    tar = pack(tmp_path, tmp_path / "a.tar").read_bytes()
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(zipped(tar, 65280) + zipped(b"") + bytes(70_000))
    require_same_as_gnu_tar(archive, tmp_path, options=Options(library=library))  # type: ignore[arg-type]


def test_zeros_and_other_bytes_after_the_end_of_a_plain_tar_are_ignored(tmp_path: Path) -> None:
    make_tree(tmp_path)
    archive = pack(tmp_path, tmp_path / "a.tar", "-b", "1")
    with archive.open("ab") as file:
        file.write(bytes(512) + b"x" * 700)
    require_same_as_gnu_tar(archive, tmp_path)


def test_bytes_after_the_last_gzip_member_are_ignored_but_make_the_structure_incomplete(tmp_path: Path) -> None:
    archive = zipped(tar_of([member_entry(f"{TOP}/a", b"a")])) + b"garbage"
    unpacked = unpack(archive, tmp_path / "into")
    assert (unpacked.files, unpacked.finding) == (1, Finding.DAMAGED)
    assert (tmp_path / "into" / "data" / "a").read_bytes() == b"a"


SPARSE = {
    "old": ("--format=oldgnu",),
    "gnu": ("--format=gnu",),
    "0.0": ("--format=posix", "--sparse-version=0.0"),
    "0.1": ("--format=posix", "--sparse-version=0.1"),
    "1.0": ("--format=posix", "--sparse-version=1.0"),
}


def make_sparse_files(top: Path) -> None:
    top.mkdir()
    for name, size, written in (
        ("hole at the end", 10 * MIB, [(0, 70_000)]),
        ("hole at the start", 10 * MIB, [(9 * MIB, MIB)]),
        ("only a hole", 5 * MIB + 3, []),
        ("many areas", 40 * MIB, [(n * 256 * 1024, 4096 * (1 + n % 3)) for n in range(150)]),
        ("odd end", 3 * MIB + 12345, [(0, 4096), (3 * MIB, 12345)]),
        ("n" * 150, 2 * MIB, [(MIB, 8192)]),
        ("over 8 GiB", 9 * 1024 * MIB, [(0, 4096), (9 * 1024 * MIB - 4096, 4096)]),
    ):
        with (top / name).open("wb") as file:
            for offset, length in written:
                file.seek(offset)
                file.write(random.Random(offset).randbytes(length))
            file.truncate(size)
    (top / "dense").write_bytes(b"d" * 10_000)


@pytest.mark.parametrize("form", SPARSE)
def test_sparse_files_stay_sparse(tmp_path: Path, form: str) -> None:
    make_sparse_files(tmp_path / TOP)
    archive = pack(tmp_path, tmp_path / "a.tar.gz", "-z", "--sparse", *SPARSE[form])
    expected = extracted_by_gnu_tar(archive, tmp_path / "expected") / TOP
    unpacked = unpack(archive, tmp_path / "into")
    digest = data_areas
    assert content(tmp_path / "into" / "data", digest) == content(expected, digest)
    assert unpacked.bytes == sum(path.stat().st_size for path in expected.iterdir())
    used = sum(path.stat().st_blocks * 512 for path in (tmp_path / "into" / "data").iterdir())
    assert used < 8 * MIB


def data_areas(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return [os.pread(file.fileno(), end - begin, begin) for begin, end in areas(path)]


@needs("bsdtar")
def test_sparse_files_of_bsdtar(tmp_path: Path) -> None:
    make_sparse_files(tmp_path / TOP)
    archive = pack(tmp_path, tmp_path / "a.tar", "--format", "pax", "--read-sparse", tool="bsdtar")
    expected = extracted_by_gnu_tar(archive, tmp_path / "expected") / TOP
    unpack(archive, tmp_path / "into")
    assert content(tmp_path / "into" / "data", data_areas) == content(expected, data_areas)


def test_thousands_of_files(tmp_path: Path) -> None:
    top = tmp_path / TOP
    for database in range(20):
        (top / f"db{database}").mkdir(parents=True)
        for number in range(150):
            (top / f"db{database}" / f"index-{number}.wt").write_bytes(b"%d" % number * (number * 7))
    archive = pack(tmp_path, tmp_path / "a.tar.gz", "-z")
    require_same_as_gnu_tar(archive, tmp_path)


@pytest.mark.parametrize(
    ("what", "top"),
    [
        ((TOP, "second"), ""),
        (("file", TOP), ""),
        ((TOP, "file"), ""),
        (("file",), ""),
        ((".",), ""),
        ((f"./{TOP}",), TOP),
        ((f"{TOP}/db", TOP), TOP),
    ],
)
def test_only_a_single_top_directory_is_left_out(tmp_path: Path, what: tuple[str, ...], top: str) -> None:
    root = tmp_path / "root"
    make_tree(root)
    (root / "second" / TOP).mkdir(parents=True)
    (root / "second" / "x").write_bytes(b"x")
    (root / "file").write_bytes(b"file")
    archive = tmp_path / "a.tar"
    run("tar", "-cf", archive, "--hard-dereference", *what, cwd=root)
    require_same_as_gnu_tar(archive, tmp_path, top)


def test_a_second_top_entry_moves_what_was_written_into_a_directory_of_the_first_name(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    entries = [directory_entry("t"), member_entry("t/t", b"inner"), directory_entry("t/d/t"), member_entry("t/d/x")]
    archive.write_bytes(tar_of([*entries, member_entry("last", b"l"), member_entry("t/late", b"late")]))
    unpack(archive, tmp_path / "into")
    expected = extracted_by_gnu_tar(archive, tmp_path / "expected")
    found, wanted = content(tmp_path / "into" / "data"), content(expected)
    assert found["t"] == ("directory", 1_500_000_000 * 10**9)
    # "." and "t/d" are not in the archive; GNU tar does not restore the time of "t", which the archive enters twice
    for name in (".", "t/d", "t"):
        found[name] = wanted[name] = None
    assert found == wanted


def test_types_that_gnu_tar_extracts_as_files(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    blocks = [raw_header(b"t/", b"5")]
    for number, kind in enumerate((b"0", b"\0", b"7", b"Z", b"A")):
        blocks.append(raw_header(b"t/%d" % number, kind, 3) + b"abc".ljust(512, b"\0"))
    blocks += [raw_header(b"t/old style directory/", b"\0"), raw_header(b"label", b"V")]
    archive.write_bytes(b"".join(blocks) + END)
    require_same_as_gnu_tar(archive, tmp_path, "t")


def test_modes_are_private_whatever_the_archive_says(tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / TOP / "empty").chmod(0o6777)
    unpack(pack(tmp_path, tmp_path / "a.tar"), tmp_path / "into")
    root = tmp_path / "into" / "data"
    for path in (root, *root.rglob("*")):
        assert path.stat().st_mode & 0o7777 == (0o700 if path.is_dir() else 0o600)
