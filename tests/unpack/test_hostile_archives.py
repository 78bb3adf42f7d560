"""Nothing is written outside staging and nothing stays of an archive that must not, or cannot, be unpacked."""

from __future__ import annotations

import gzip
import os
import random
import tarfile
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from archives import (
    END,
    Entry,
    directory,
    hard_link,
    in_chunks,
    member,
    padded,
    pax_header,
    raw_header,
    tar_of,
    unpack,
    with_checksum,
    zipped,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restore_agent.core.errors import CannotUnpack, DamagedArchive, Finding, NotUnpacked, UnsafeArchive
from restore_agent.unpack.datapath import remove_content
from restore_agent.unpack.reading.headers import PlainStream, TarStream
from restore_agent.unpack.reading.inflate import Inflater, MemberCheck, backend

FILE = raw_header(b"t/ok", b"0", 2) + padded(b"ok")


def require_refused(tmp_path: Path, archive: bytes, error: type[NotUnpacked]) -> NotUnpacked:
    """Unpacking raises `error`, and leaves nothing anywhere but in the archive's own file."""
    into = tmp_path / "into"
    with pytest.raises(error) as raised:
        unpack(archive, into)
    assert type(raised.value) is error
    assert list(into.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into", "into.archive"]
    return raised.value


UNSAFE = {
    "a symbolic link": [raw_header(b"t/l", b"2", at_157=b"ok")],
    "a symbolic link out, and a file through it": [
        raw_header(b"t/l", b"2", at_157=b"/tmp"),
        raw_header(b"t/l/x", b"0"),
    ],
    "a character device": [raw_header(b"t/c", b"3", at_329=b"0000001\x000000003\0")],
    "a block device": [raw_header(b"t/b", b"4")],
    "a FIFO": [raw_header(b"t/f", b"6")],
    "the continuation of a file": [raw_header(b"t/m", b"M")],
    "an absolute name": [raw_header(b"/t/x")],
    "an absolute directory": [raw_header(b"/t/", b"5")],
    "dots": [raw_header(b"t/../../x")],
    "dots at the end": [raw_header(b"t/..", b"5")],
    "only dots": [raw_header(b"..", b"5")],
    "an empty name": [raw_header(b"")],
    "a file named as the root": [raw_header(b".")],
    "a link named as the root": [raw_header(b"./", b"1", at_157=b"t/ok")],
    "a name through a file": [raw_header(b"t/ok/x")],
    "a directory through a file": [raw_header(b"t/ok/x", b"5")],
    "a file where a directory with content is": [raw_header(b"t/d/x"), raw_header(b"t/d")],
    "a file named as the top directory": [raw_header(b"t")],
    "a link to nothing": [raw_header(b"t/l", b"1", at_157=b"t/missing")],
    "a link to a later file": [raw_header(b"t/l", b"1", at_157=b"t/z"), raw_header(b"t/z")],
    "a link to a directory": [raw_header(b"t/d", b"5"), raw_header(b"t/l", b"1", at_157=b"t/d")],
    "a link to the top directory": [raw_header(b"t/l", b"1", at_157=b"t")],
    "a link to the root": [raw_header(b"t/l", b"1", at_157=b".")],
    "a link out by an absolute name": [raw_header(b"t/l", b"1", at_157=b"/etc/passwd")],
    "a link out by dots": [raw_header(b"t/l", b"1", at_157=b"t/../../etc/passwd")],
    "a link through a file": [raw_header(b"t/l", b"1", at_157=b"t/ok/x")],
    "a link to a file of another top": [raw_header(b"t/l", b"1", at_157=b"other")],
    "dots in a pax path": [pax_header([(b"path", b"../x")]), raw_header(b"t/x")],
    "an absolute pax link": [pax_header([(b"linkpath", b"/etc/passwd")]), raw_header(b"t/x", b"1", at_157=b"t/ok")],
    "a NUL in a pax path": [pax_header([(b"path", b"t/a\0b")]), raw_header(b"t/x")],
    "dots in a global path": [pax_header([(b"path", b"../x")], b"g"), raw_header(b"t/x")],
    "dots in a GNU long name": [raw_header(b"././@LongLink", b"L", 5) + padded(b"../x\0"), raw_header(b"t/x")],
    "dots in the name of a sparse file": [
        pax_header([(b"GNU.sparse.name", b"../x"), (b"GNU.sparse.map", b"0,0"), (b"GNU.sparse.size", b"0")]),
        raw_header(b"t/x"),
    ],
    "dots in a prefix": [raw_header(b"x", at_345=b"..")],
}


@pytest.mark.parametrize("blocks", UNSAFE.values(), ids=UNSAFE)
def test_an_unsafe_archive_is_refused_and_leaves_no_file(tmp_path: Path, blocks: list[bytes]) -> None:
    for archive in (FILE + b"".join(blocks) + END, zipped(FILE + b"".join(blocks) + END)):
        require_refused(tmp_path, archive, UnsafeArchive)


def size_field(text: bytes, name: bytes = b"t/x") -> bytes:
    return raw_header(name, at_124=text)


DAMAGED = {
    "no members": END,
    "only a volume label's end": bytes(512) + b"x" * 512,
    "only extended headers": pax_header([(b"path", b"x")]) + END,
    "a wrong checksum": FILE + raw_header(b"t/x").replace(b"t/x", b"t/y") + END,
    "text after a member": FILE + b"x" * 1024,
    "data after a zero block": FILE + bytes(512) + FILE + END,
    "a negative size": FILE + size_field(b"\xff" * 12) + END,
    "a size that is no number": FILE + size_field(b"12x45678901\0") + END,
    "a pax size that is no number": pax_header([(b"size", b"-1")]) + raw_header(b"t/x") + END,
    "a pax size of many digits": pax_header([(b"size", b"9" * 5000)]) + raw_header(b"t/x") + END,
    "a size of more than 63 bits": size_field(b"\x80" + b"\xff" * 11) + END,
    "a pax size of more than 63 bits": pax_header([(b"size", b"%d" % (1 << 63))]) + raw_header(b"t/x") + END,
    "a sparse file of more than 63 bits": pax_header(
        [(b"GNU.sparse.map", b""), (b"GNU.sparse.size", b"%d" % (1 << 63))]
    )
    + raw_header(b"t/x")
    + END,
    "a pax time that is no number": pax_header([(b"mtime", b"noon")]) + raw_header(b"t/x") + END,
    "a pax record without a length": raw_header(b"x", b"x", 12) + padded(b"path=t/xyz\n\n") + raw_header(b"t/x") + END,
    "a pax record longer than the header": raw_header(b"x", b"x", 9) + padded(b"99 path=a") + raw_header(b"t/x") + END,
    "a pax record of length 0": raw_header(b"x", b"x", 9) + padded(b"0 path=a\n") + raw_header(b"t/x") + END,
    "a pax record without a key": raw_header(b"x", b"x", 7) + padded(b"7 path\n") + raw_header(b"t/x") + END,
    "a sparse map with an odd count": pax_header([(b"GNU.sparse.map", b"0,1,2"), (b"GNU.sparse.size", b"9")])
    + raw_header(b"t/x", b"0", 1)
    + padded(b"x")
    + END,
    "a sparse map beyond its file": pax_header([(b"GNU.sparse.map", b"8,2"), (b"GNU.sparse.size", b"9")])
    + raw_header(b"t/x", b"0", 2)
    + padded(b"xx")
    + END,
    "a sparse map beyond its data": pax_header([(b"GNU.sparse.map", b"0,600"), (b"GNU.sparse.size", b"900")])
    + raw_header(b"t/x", b"0", 2)
    + padded(b"xx")
    + END,
    "a sparse file without a size": pax_header([(b"GNU.sparse.map", b"0,2")]) + raw_header(b"t/x", b"0", 2) + END,
    "a 1.0 map that is no number": pax_header([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9")])
    + raw_header(b"t/x", b"0", 512)
    + padded(b"1\nx\n1\n")
    + END,
    "a 1.0 map longer than its data": pax_header([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9")])
    + raw_header(b"t/x", b"0", 512)
    + padded(b"9\n" + b"0\n")
    + END,
    "a 1.0 map without lines": pax_header([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9")])
    + raw_header(b"t/x", b"0", 512)
    + b"1" * 512
    + END,
}


@pytest.mark.parametrize("archive", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_archive_is_refused_and_leaves_no_file(tmp_path: Path, archive: bytes) -> None:
    for form in (archive, zipped(archive)):
        error = require_refused(tmp_path, form, DamagedArchive)
        assert isinstance(error, DamagedArchive)
        assert error.finding is Finding.DAMAGED


WHOLE = zipped(
    tar_of([directory("t"), member("t/a", random.Random(3).randbytes(20_000)), member("t/b", bytes(90_000))])
)


def spoiled(at: int) -> bytes:
    return WHOLE[:at] + bytes([WHOLE[at] ^ 0x55]) + WHOLE[at + 1 :]


@pytest.mark.parametrize("at", [0, 2, 3, 40, 9000, len(WHOLE) // 2, len(WHOLE) - 8, len(WHOLE) - 1])
def test_a_changed_byte_of_a_gzip_is_detected(tmp_path: Path, at: int) -> None:
    require_refused(tmp_path, spoiled(at), DamagedArchive)


@pytest.mark.parametrize("size", [0, 1, 2, 5, 9, 10, 300, 15_000, len(WHOLE) - 8, len(WHOLE) - 1])
def test_a_truncated_gzip_is_detected(tmp_path: Path, size: int) -> None:
    error = require_refused(tmp_path, WHOLE[:size], DamagedArchive)
    assert isinstance(error, DamagedArchive)
    assert error.finding is Finding.TRUNCATED


PLAIN = tar_of([directory("t"), member("t/a", b"a" * 700)])


@pytest.mark.parametrize("size", [100, 512, 1024, 1025, 1536, 2048, 2048 + 512])
@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_tar_is_detected(tmp_path: Path, size: int, packed: bool) -> None:
    archive = zipped(PLAIN[:size]) if packed else PLAIN[:size]
    error = require_refused(tmp_path, archive, DamagedArchive)
    assert isinstance(error, DamagedArchive)
    assert error.finding is Finding.TRUNCATED


def test_a_gzip_header_with_all_its_optional_fields(tmp_path: Path) -> None:
    raw = zlib.compressobj(wbits=-15)
    data = raw.compress(PLAIN) + raw.flush()
    head = b"\x1f\x8b\x08\x1f" + bytes(6) + b"\x04\x00abcd" + b"name\0" + b"comment\0" + b"hc"
    trailer = zlib.crc32(PLAIN).to_bytes(4, "little") + len(PLAIN).to_bytes(4, "little")
    unpack(head + data + trailer, tmp_path / "into")
    assert (tmp_path / "into" / "data" / "a").read_bytes() == b"a" * 700
    endless = b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 300_000
    with pytest.raises(DamagedArchive):
        unpack(endless, tmp_path / "other")


# ---------------------------------------------------------------- names that the file system refuses


@pytest.mark.parametrize(
    "blocks",
    [
        [pax_header([(b"path", b"t/" + b"n" * 256)]), raw_header(b"t/x")],
        [pax_header([(b"path", b"t/" + b"n" * 256)]), raw_header(b"t/x", b"5")],
        [pax_header([(b"path", b"t/" + b"n/" * 2100 + b"x")]), raw_header(b"t/x")],
        [raw_header(b"././@LongLink", b"L", 1 << 20) + bytes(1 << 20), raw_header(b"t/x")],
        [raw_header(b"x", b"x", 5 << 20) + bytes(5 << 20), raw_header(b"t/x")],
        [
            pax_header([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9")]),
            raw_header(b"t/x", b"0", 512) + padded(b"99999999\n"),
        ],
    ],
    ids=["file name", "directory name", "path", "long name", "pax header", "sparse map"],
)
def test_a_member_that_this_system_cannot_store_raises_cannot_unpack(tmp_path: Path, blocks: list[bytes]) -> None:
    require_refused(tmp_path, zipped(FILE + b"".join(blocks) + END), CannotUnpack)


def test_a_file_larger_than_the_file_system_allows_raises_cannot_unpack(tmp_path: Path) -> None:
    size = 1 << 62
    sparse = pax_header([(b"GNU.sparse.map", b""), (b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.name", b"t/x")])
    require_refused(tmp_path, FILE + sparse + raw_header(b"t/x") + END, CannotUnpack)


def test_deep_directories_are_written_and_removed(tmp_path: Path) -> None:
    deep = b"t/" + b"d/" * 600
    blocks = FILE + pax_header([(b"path", deep + b"x")]) + raw_header(b"t/x")
    unpack(blocks + END, tmp_path / "whole")
    with pytest.raises(UnsafeArchive):
        unpack(blocks + raw_header(b"t/../x") + END, tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []
    descriptor = os.open(tmp_path / "whole" / "data", os.O_RDONLY)
    remove_content(descriptor)
    os.close(descriptor)
    assert list((tmp_path / "whole" / "data").iterdir()) == []


# ---------------------------------------------------------------- members given twice


def test_the_last_copy_of_a_duplicate_member_is_used(tmp_path: Path) -> None:
    entries = [
        member("t/a", b"first"),
        hard_link("t/kept", "t/a"),
        member("t/a", b"second!"),
        hard_link("t/a2", "t/a"),
        hard_link("t/a2", "t/a"),
        hard_link("t/a", "t/a"),
        member("t/becomes a directory", b"file"),
        directory("t/becomes a directory"),
        member("t/becomes a directory/x", b"x"),
        directory("t/becomes a file"),
        member("t/becomes a file", b"file"),
        directory("t/d", mtime=5),
        directory("t/d", mtime=7),
    ]
    unpacked = unpack(tar_of(entries), tmp_path / "into")
    root = tmp_path / "into" / "data"
    assert (root / "a").read_bytes() == (root / "a2").read_bytes() == b"second!"
    assert (root / "kept").read_bytes() == b"first"
    assert (root / "becomes a directory" / "x").read_bytes() == b"x"
    assert (root / "becomes a file").read_bytes() == b"file"
    assert (root / "d").stat().st_mtime == 7
    files = [path for path in root.rglob("*") if path.is_file()]
    assert (unpacked.files, unpacked.bytes) == (len(files), sum(path.stat().st_size for path in files))


def test_names_that_differ_in_case_are_two_files(tmp_path: Path) -> None:
    entries = [member("t/A", b"upper"), member("t/a", b"lower"), member("t/D/x", b"D"), member("t/d/x", b"d")]
    unpack(tar_of(entries), tmp_path / "into")
    root = tmp_path / "into" / "data"
    assert [(root / name).read_bytes() for name in ("A", "a", "D/x", "d/x")] == [b"upper", b"lower", b"D", b"d"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"at_136": b"\xff" * 11 + b"\xfe"}, -2 * 10**9),
        ({"at_136": b"\x80" + b"\xff" * 11}, None),
    ],
)
def test_times_outside_the_file_systems_range_do_not_fail(
    tmp_path: Path, fields: dict[str, bytes], expected: int | None
) -> None:
    unpack(raw_header(b"t/x", **fields) + END, tmp_path / "into")
    if expected is not None:
        assert (tmp_path / "into" / "data" / "x").stat().st_mtime_ns == expected


def test_an_empty_pax_value_means_the_value_of_the_header(tmp_path: Path) -> None:
    blocks = pax_header([(b"path", b"g"), (b"mtime", b"1.5")], b"g") + pax_header([(b"path", b"")])
    blocks += raw_header(b"t/x") + raw_header(b"t/ignored")
    unpack(blocks + END, tmp_path / "into")
    root = tmp_path / "into" / "data"
    assert sorted(path.name for path in root.iterdir()) == ["g", "t"]
    assert (root / "g").stat().st_mtime_ns == 1_500_000_000


# ---------------------------------------------------------------- bounds


def test_members_over_8_gib_by_pax_size_and_by_base_256_are_followed_by_the_right_header() -> None:
    size = 9 << 30
    zeros = bytes(1 << 20)

    def blocks() -> Iterator[bytes]:
        yield pax_header([(b"size", b"%d" % size)]) + raw_header(b"t/pax")
        yield from repeat(zeros, size >> 20)
        yield raw_header(b"t/gnu", at_124=b"\x80\0\0\0" + size.to_bytes(8, "big"))
        yield from repeat(zeros, size >> 20)
        yield FILE + END

    found = [(header.name, header.size) for header in TarStream(PlainStream(blocks())).headers()]
    assert found == [(b"t/pax", size), (b"t/gnu", size), (b"t/ok", 2)]


def test_memory_is_bounded_when_a_member_inflates_a_thousandfold_or_members_are_many(tmp_path: Path) -> None:
    compressed = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    archive = compressed.compress(raw_header(b"t/x", at_124=b"%011o\0" % (300 << 20)))
    archive += b"".join(compressed.compress(zeros) for _ in range(300))
    for number in range(3000):
        archive += compressed.compress(raw_header(b"t/%d" % number))
    archive += compressed.compress(END) + compressed.flush()
    assert len(archive) < 1 << 20
    tracemalloc.start()
    unpacked = unpack(archive, tmp_path / "into")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert unpacked.files == 3001
    assert peak < 20 << 20


def test_more_directories_than_memory_allows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore_agent.unpack.writer._DIRECTORIES_LIMIT", 20_000)
    archive = tar_of([directory(f"t/{number}") for number in range(200)])
    require_refused(tmp_path, archive, CannotUnpack)


def test_long_digit_runs_in_a_pax_header_are_parsed_quickly(tmp_path: Path) -> None:
    digits = raw_header(b"x", b"x", 4 << 20) + b"1" * (4 << 20) + raw_header(b"t/x") + END
    finished = threading.Timer(5, os._exit, (1,))  # a regular expression would hold the interpreter lock
    finished.start()
    try:
        require_refused(tmp_path, digits, DamagedArchive)
    finally:
        finished.cancel()


# ---------------------------------------------------------------- drawn archives

names = st.lists(st.sampled_from(["a", "b", "A", "..", ".", "", "x" * 60, "é"]), min_size=1, max_size=4).map("/".join)
kinds = st.sampled_from([b"0", b"\0", b"5", b"1", b"2", b"3", b"6", b"7", b"Z", b"V", b"D"])


@st.composite
def drawn_blocks(draw: st.DrawFn) -> bytes:
    blocks = b""
    for name, kind, target, data in draw(
        st.lists(st.tuples(names, kinds, names, st.binary(max_size=600)), min_size=1, max_size=8)
    ):
        stored = data if kind in (b"0", b"\0", b"7", b"Z", b"V", b"D") else b""
        blocks += raw_header(name.encode()[:100], kind, len(stored), at_157=target.encode()[:100]) + padded(stored)
    return blocks + END


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn_blocks())
def test_a_drawn_archive_is_unpacked_completely_or_leaves_no_file(
    tmp_path_factory: pytest.TempPathFactory, blocks: bytes
) -> None:
    base = tmp_path_factory.mktemp("drawn")
    try:
        unpacked = unpack(blocks, base / "into")
    except NotUnpacked:
        assert list((base / "into").iterdir()) == []
    else:
        paths = list((base / "into" / "data").rglob("*"))
        files = [path for path in paths if path.is_file()]
        assert not any(path.is_symlink() for path in paths)
        assert (unpacked.files, unpacked.bytes) == (len(files), sum(path.stat().st_size for path in files))
    assert sorted(path.name for path in base.iterdir()) == ["into", "into.archive"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.booleans())
def test_any_changed_bytes_give_a_result_or_an_agent_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, packed: bool
) -> None:
    base = tmp_path_factory.mktemp("changed")
    entries = [directory("t"), member("t/a", b"a" * 900), hard_link("t/b", "t/a"), member("t/" + "n" * 120, b"n")]
    archive = bytearray(tar_of(entries, data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))))
    for _ in range(data.draw(st.integers(1, 4))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # headers with right sums get further
        at = 512 * data.draw(st.integers(0, 3))
        archive[at : at + 512] = with_checksum(bytearray(archive[at : at + 512]))
    try:
        unpack(zipped(bytes(archive)) if packed else bytes(archive), base / "into")
    except NotUnpacked:
        assert list((base / "into").iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=3000), st.integers(1, 2000), st.integers(1, 2000))
def test_plain_bytes_are_the_same_for_any_pieces(data: bytes, member_size: int, piece: int) -> None:
    for library in (backend(fast=False), backend(fast=True)):
        inflater, check = Inflater(in_chunks(zipped(data, member_size), piece), library), MemberCheck(library)
        plain = b""
        for block, trailer in inflater.plain():
            check.update(block, trailer)
            plain += block
        assert plain == data == gzip.decompress(zipped(data, member_size))
        assert not inflater.trailing_garbage


class _IgnoresCase:
    """The functions of `os` as on a file system that ignores case: every name below a descriptor in lower case."""

    def __getattr__(self, function: str) -> Any:
        original = getattr(os, function)
        if function not in ("open", "mkdir", "stat", "unlink", "rmdir"):
            return original
        return lambda name, *given, **named: original(name.lower(), *given, **named)


@pytest.mark.parametrize(
    "entries",
    [
        [member("t/a", b"first"), member("t/A", b"second")],
        [member("t/d/x", b"first"), member("t/D/x", b"second")],
        [directory("t/d"), directory("t/D")],
    ],
)
def test_names_that_are_equal_on_a_file_system_that_ignores_case_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: list[Entry]
) -> None:
    monkeypatch.setattr("restore_agent.unpack.writer.os", _IgnoresCase())
    require_refused(tmp_path, tar_of(entries), CannotUnpack)


def test_a_duplicate_member_is_one_file_on_a_file_system_that_ignores_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore_agent.unpack.writer.os", _IgnoresCase())
    unpack(tar_of([member("t/a", b"first"), member("t/a", b"second")]), tmp_path / "into")
    assert (tmp_path / "into" / "data" / "a").read_bytes() == b"second"
