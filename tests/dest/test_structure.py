"""Whether a file is a whole archive by its own structure: real archives, and every way to spoil them."""

import gzip
import io
import random
import struct
import tarfile
import time
import tracemalloc
import zlib
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restore_agent.core.errors import Finding
from restore_agent.dest.structure import SNIFF, StructureCheck, header_is_sound, looks_like_archive

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
GIB = 1 << 30
END = bytes(1024)
TOP = "rs0-1492636465-5c9e"


def find(blocks: Iterable[bytes | memoryview], check: StructureCheck | None = None) -> Finding:
    check = check or StructureCheck()
    for block in blocks:
        check.feed(block)
    return check.finish()


def member(name: str, data: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(f"{TOP}/{name}")
    info.size = len(data)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, data


def tar_of(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return whole.getvalue()


def zipped(plain: bytes) -> bytes:
    return gzip.compress(plain, mtime=0)


def some_members(form: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    """What an archive of a data path holds, and every kind of entry besides."""
    noise = random.Random(7).randbytes
    long_name = "x" * (90 if form == "ustar" else 300)
    return [
        member("", type=tarfile.DIRTYPE),
        member("restoreInfo.txt", b"Group: rs0\n"),
        member("WiredTiger.wt", noise(2000)),
        member("empty"),
        member("one-record", noise(512)),
        member("one-byte-more", noise(513)),
        member(f"collection/{long_name}.wt", noise(700)),
        member("link", type=tarfile.SYMTYPE, linkname=long_name),
        member("hard-link", type=tarfile.LNKTYPE, linkname=f"{TOP}/WiredTiger.wt"),
        member("fifo", type=tarfile.FIFOTYPE),
        member("device", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("contiguous", noise(100), type=tarfile.CONTTYPE),
        member("größe.wt", noise(5)),
    ]


TARS = {form: tar_of(some_members(form), number) for form, number in FORMATS.items()}


def end_of(tar: bytes) -> int:
    """Where the two zero records that end an archive are over."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        archive.getmembers()
        return archive.offset + 1024


SMALL = {form: tar_of([member("a", b"data" * 40), member("b")], number) for form, number in FORMATS.items()}


# ---------------------------------------------------------------- whole ones


@pytest.mark.parametrize("form", FORMATS)
def test_a_tar_of_every_format_is_complete(form: str) -> None:
    assert find([TARS[form]]) is Finding.WHOLE


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("level", [0, 1, 9])
def test_a_gzip_tar_of_every_format_is_complete(form: str, level: int) -> None:
    assert find([gzip.compress(TARS[form], level, mtime=0)]) is Finding.WHOLE


@pytest.mark.parametrize("size", [1, 2, 7, 511, 512, 513, 10_000])
@pytest.mark.parametrize("packed", [False, True], ids=["tar", "gzip"])
def test_the_size_of_the_blocks_does_not_matter(size: int, packed: bool) -> None:
    whole = zipped(TARS["gnu"]) if packed else TARS["gnu"]
    assert find(memoryview(whole)[at : at + size] for at in range(0, len(whole), size)) is Finding.WHOLE


def test_a_tar_with_exactly_two_zero_records_at_its_end_is_complete() -> None:
    for tar in TARS.values():
        assert find([tar[: end_of(tar)]]) is Finding.WHOLE


@pytest.mark.parametrize("cuts", [(1000,), (512, 1024), (10, 20, 30), (0,)])
def test_a_gzip_of_several_members_is_complete(cuts: tuple[int, ...]) -> None:
    tar = TARS["gnu"]
    edges = [0, *cuts, len(tar)]
    chain = b"".join(zipped(tar[one:other]) for one, other in pairwise(edges))
    assert find([chain]) is Finding.WHOLE


def test_a_gzip_with_every_optional_field_in_its_header_is_complete() -> None:
    plain = TARS["gnu"]
    deflate = zlib.compressobj(wbits=-15)
    head = b"\x1f\x8b\x08\x1e\0\0\0\0\0\x03" + b"\x04\0abcd" + b"rs0.tar\0" + b"a comment\0"
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    tail = struct.pack("<II", zlib.crc32(plain), len(plain))
    whole = head + deflate.compress(plain) + deflate.flush() + tail
    assert gzip.decompress(whole) == plain
    assert find([whole]) is Finding.WHOLE


def test_zeros_after_the_last_gzip_member_are_padding() -> None:
    for size in (1, 512, 100_000):
        assert find([zipped(TARS["gnu"]), bytes(size)]) is Finding.WHOLE


def test_an_old_tar_without_a_magic_number_is_complete() -> None:
    record = bytearray(SMALL["ustar"][:512])
    record[257:512] = bytes(255)
    old = resummed(record) + SMALL["ustar"][512:]
    assert find([old]) is Finding.WHOLE
    assert looks_like_archive(old[:512])


def test_a_header_with_a_signed_checksum_is_valid() -> None:
    record = bytearray(tar_of([member("ü")], tarfile.GNU_FORMAT)[:512])
    record[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in record)
    record[148:156] = b"%06o\0 " % signed
    assert header_is_sound(bytes(record))


# ---------------------------------------------------------------- sizes beyond 8 GiB, and holes


def resummed(record: bytearray) -> bytes:
    """A header record with the checksum that belongs to it."""
    record[148:156] = b" " * 8
    record[148:156] = b"%06o\0 " % sum(record)
    return bytes(record)


def long_data(size: int) -> Iterable[memoryview]:
    """Bytes that are no header, in blocks that cost nothing to hand out."""
    block = memoryview(b"\x55" * (16 << 20))
    while size > 0:
        yield block[: min(size, len(block))]
        size -= len(block)


@pytest.mark.parametrize("form", ["gnu", "pax"])
@pytest.mark.parametrize("size", [8 * GIB - 1, 8 * GIB, 9 * GIB + 1])
def test_a_file_over_8_gib_is_skipped_to_its_exact_end(form: str, size: int) -> None:
    info, _ = member("collection.wt")
    info.size = size
    head, padding = info.tobuf(FORMATS[form]), bytes(-size % 512)
    assert find([head, *long_data(size), padding, END]) is Finding.WHOLE
    assert find([head, *long_data(size - 512), padding, END]) is Finding.TRUNCATED
    assert find([head, *long_data(size + 512), padding, END]) is Finding.DAMAGED


def test_the_pax_size_applies_to_the_next_file_only() -> None:
    big, _ = member("big")
    big.size = 8 * GIB
    rest = tar_of([member("small", b"x" * 600)], tarfile.USTAR_FORMAT)
    assert find([big.tobuf(tarfile.PAX_FORMAT), *long_data(8 * GIB), rest]) is Finding.WHOLE


def test_a_long_name_between_a_pax_size_and_its_file_does_not_use_the_size() -> None:
    big, _ = member("big")
    big.size = 8 * GIB
    pax = big.tobuf(tarfile.PAX_FORMAT)
    long_name = member("n" * 200)[0].tobuf(tarfile.GNU_FORMAT)[:1024]
    assert find([pax[:-512], long_name, pax[-512:], *long_data(8 * GIB), END]) is Finding.WHOLE


def sparse_header(extents: int, stored: int) -> bytes:
    """An old GNU sparse header of `extents` pieces of 512 bytes with holes between, and its further maps."""
    pieces = [b"%011o\0%011o\0" % (at * 4096, 512) for at in range(extents)]
    info, _ = member("sparse", type=b"S", size=stored)
    record = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    record[386:482] = b"".join(pieces[:4]).ljust(96, b"\0")
    record[482] = len(pieces) > 4
    record[483:495] = b"%011o\0" % (extents * 4096)
    further = []
    for at in range(4, len(pieces), 21):
        more = at + 21 < len(pieces)
        further.append(b"".join(pieces[at : at + 21]).ljust(504, b"\0") + bytes([more]) + bytes(7))
    return resummed(record) + b"".join(further)


@pytest.mark.parametrize("extents", [1, 4, 5, 25, 26, 60])
def test_a_gnu_sparse_file_is_skipped_with_all_its_maps(extents: int) -> None:
    data = b"\x55" * (512 * extents)
    whole = sparse_header(extents, len(data)) + data + tar_of([member("next", b"after")], tarfile.GNU_FORMAT)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        assert [info.name for info in archive] == [f"{TOP}/sparse", f"{TOP}/next"]
    assert find([whole]) is Finding.WHOLE
    assert find([zipped(whole)]) is Finding.WHOLE
    end = end_of(whole)
    assert all(find([whole[:cut]]) is Finding.TRUNCATED for cut in range(0, end, 256))


def test_a_pax_sparse_file_is_skipped_like_any_other() -> None:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a", "GNU.sparse.realsize": "9999"}
    data = b"1\n0\n512\n".ljust(512, b"\0") + b"\x55" * 512
    assert find([tar_of([member("sparse", data, pax_headers=headers)])]) is Finding.WHOLE


def test_a_pax_value_that_looks_like_a_size_is_not_a_size() -> None:
    whole = tar_of([member("é\n12 size=600\n", b"data"), member("b", b"\x55" * 5000)])
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        assert [info.size for info in archive] == [4, 5000]
    assert find([whole]) is Finding.WHOLE


def test_an_excessively_large_pax_header_is_skipped() -> None:
    whole = tar_of([member("a", b"data", pax_headers={"comment": "x" * (3 << 20)})])
    assert find([whole]) is Finding.WHOLE


def test_a_pax_header_of_very_many_records_is_read_quickly() -> None:
    records = b"5 a=\n" * 200_000 + b"19 size=8589934592\n"
    info, _ = member("x", type=b"x", size=len(records))
    file, _ = member("big")
    check = StructureCheck()
    began = time.process_time()
    check.feed(info.tobuf(tarfile.GNU_FORMAT) + records + bytes(-len(records) % 512))
    assert time.process_time() - began < 2.0
    check.feed(file.tobuf(tarfile.GNU_FORMAT))
    assert find([*long_data(8 * GIB), END], check) is Finding.WHOLE


def test_a_header_of_no_known_type_has_data_like_a_file() -> None:
    assert find([tar_of([member("a", b"\x55" * 700, type=b"Z")])]) is Finding.WHOLE


# ---------------------------------------------------------------- cut ones


@pytest.mark.parametrize("form", FORMATS)
def test_a_gzip_that_is_truncated_anywhere_is_never_complete(form: str) -> None:
    whole = zipped(SMALL[form])
    findings = {find([whole[:cut]]) for cut in range(len(whole))}
    assert findings == {Finding.TRUNCATED}


@pytest.mark.parametrize("form", FORMATS)
def test_a_tar_that_is_truncated_before_its_end_is_never_complete(form: str) -> None:
    whole = SMALL[form]
    findings = {find([whole[:cut]]) for cut in range(end_of(whole))}
    assert findings == {Finding.TRUNCATED}


@pytest.mark.parametrize("split", [100, 512, 700, 1024, 1500])
def test_a_gzip_of_several_members_that_is_truncated_anywhere_is_never_complete(split: int) -> None:
    tar = SMALL["gnu"][: end_of(SMALL["gnu"])]
    whole = zipped(tar[:split]) + zipped(tar[split:])
    findings = {find([whole[:cut]]) for cut in range(len(whole))}
    assert findings == {Finding.TRUNCATED}


def test_an_empty_file_is_truncated() -> None:
    assert find([]) is Finding.TRUNCATED
    assert find([b"", b""]) is Finding.TRUNCATED


def test_a_complete_gzip_of_a_truncated_tar_is_truncated() -> None:
    tar = SMALL["gnu"]
    assert {find([zipped(tar[:cut])]) for cut in range(0, end_of(tar), 64)} == {Finding.TRUNCATED}


@pytest.mark.parametrize("size", [512, 1024, 10_240, 1 << 20])
@pytest.mark.parametrize("packed", [False, True], ids=["tar", "gzip"])
def test_zeros_alone_are_not_an_archive(size: int, packed: bool) -> None:
    assert find([zipped(bytes(size)) if packed else bytes(size)]) is not Finding.WHOLE


# ---------------------------------------------------------------- damaged ones


@pytest.mark.parametrize("form", FORMATS)
def test_a_gzip_with_a_flipped_bit_in_its_data_is_never_complete(form: str) -> None:
    """Time, flags of no effect and system in the head, and the bits that fill deflate's last byte, carry none."""
    whole, plain = zipped(SMALL[form]), SMALL[form]
    of_no_effect = {*range(4, 10), len(whole) - 9}
    for at in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << bit
            if find([flipped]) is Finding.WHOLE:
                assert at in of_no_effect or (at, bit) == (3, 0)
                assert gzip.decompress(flipped) == plain


@pytest.mark.parametrize("form", FORMATS)
def test_a_tar_with_a_flipped_bit_in_a_header_is_never_complete(form: str) -> None:
    for at in range(512):
        for bit in range(8):
            flipped = bytearray(SMALL[form])
            flipped[at] ^= 1 << bit
            finding = find([flipped])
            # the sum's own field may be written in more than one way
            assert finding is not Finding.WHOLE or 148 <= at < 156


@pytest.mark.parametrize(("at", "what"), [(-8, "crc"), (-5, "crc"), (-4, "length"), (-1, "length")])
def test_a_gzip_whose_trailer_is_wrong_is_damaged(at: int, what: str) -> None:
    wrong = bytearray(zipped(TARS["gnu"]))
    wrong[at] ^= 0xFF
    assert find([wrong]) is Finding.DAMAGED, what


@pytest.mark.parametrize(
    "tail", [b"x", b"\x1f\x8b\x00", b"<html>", bytes(100) + b"x", zipped(b"x")[:-1] + b"\xff", END + zipped(b"more")]
)
def test_a_gzip_with_other_bytes_after_its_last_member_is_not_complete(tail: bytes) -> None:
    finding = Finding.TRUNCATED if len(tail) < 4 else Finding.DAMAGED  # so few bytes may be the start of a member
    assert find([zipped(TARS["gnu"]) + tail]) is finding
    assert find([zipped(TARS["gnu"]), tail]) is finding


def test_a_byte_that_is_missing_from_the_middle_is_damage() -> None:
    whole = zipped(TARS["pax"])
    for at in range(20, len(whole) - 20, 97):
        assert find([whole[:at] + whole[at + 1 :]]) is not Finding.WHOLE


def test_a_lone_zero_record_between_members_is_damage() -> None:
    tar = SMALL["ustar"]
    assert find([tar[:1024] + bytes(512) + tar[1024:]]) is Finding.DAMAGED


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><html><head><title>Login</title></head><body>" + b"x" * 2000,
        b'{"error": 404, "errorCode": "RESTORE_JOB_NOT_FOUND"}' + b" " * 1000,
        b"PK\x03\x04" + bytes(range(256)) * 8,
        b"\x28\xb5\x2f\xfd" + bytes(range(256)) * 8,
        b"A" * 512,
    ],
)
def test_a_page_is_not_an_archive(body: bytes) -> None:
    assert find([body]) is Finding.DAMAGED
    assert find([zipped(body)]) is Finding.DAMAGED
    assert not looks_like_archive(body[:SNIFF])
    assert not looks_like_archive(body)


def test_a_damaged_archive_stays_damaged_whatever_follows() -> None:
    check = StructureCheck()
    check.feed(b"A" * 512)
    assert check.damaged
    check.feed(TARS["gnu"])
    assert check.finish() is Finding.DAMAGED


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("not octal", b"00000009999\0"),
        ("negative in base 256", b"\xff" * 12),
        ("letters", b"size unknown"),
    ],
)
def test_a_size_that_is_not_a_number_is_damage(field: str, text: bytes) -> None:
    record = bytearray(SMALL["gnu"][:512])
    record[124:136] = text
    assert find([resummed(record)]) is Finding.DAMAGED, field


def test_a_negative_size_is_damage() -> None:
    record = bytearray(SMALL["gnu"][:512])
    record[124:136] = b"-0000002000\0"
    assert find([resummed(record)]) is Finding.DAMAGED  # in the middle of a block it would be read for ever


# ---------------------------------------------------------------- the first bytes


@pytest.mark.parametrize("form", FORMATS)
def test_the_first_bytes_of_an_archive_are_recognized(form: str) -> None:
    assert looks_like_archive(TARS[form][:SNIFF])
    assert looks_like_archive(zipped(TARS[form])[:2])
    assert looks_like_archive(zipped(TARS[form])[:SNIFF])


@pytest.mark.parametrize("head", [b"", b"\x1f", bytes(SNIFF), bytes(512), b"\x8b\x1f" * 200, b"ustar" * 50])
def test_other_first_bytes_are_not_recognized(head: bytes) -> None:
    assert not looks_like_archive(head)


# ---------------------------------------------------------------- bombs


def peak_while(check: StructureCheck, blocks: Iterable[bytes | memoryview]) -> int:
    tracemalloc.start()
    try:
        for block in blocks:
            check.feed(block)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_archive_that_inflates_a_thousandfold_needs_little_memory() -> None:
    plain = 16 << 20
    info, _ = member("zeros", size=16 * plain)
    bomb = zipped(info.tobuf(tarfile.GNU_FORMAT)) + zipped(bytes(plain)) * 16 + zipped(END)
    check = StructureCheck()
    assert peak_while(check, [bomb]) < 8 << 20
    assert check.finish() is Finding.WHOLE


def test_a_chain_of_empty_gzip_members_needs_little_memory() -> None:
    check = StructureCheck()
    assert peak_while(check, [zipped(b"") * 20_000]) < 8 << 20
    assert check.finish() is Finding.TRUNCATED


def test_headers_that_announce_endless_extensions_need_little_memory() -> None:
    info, _ = member("x", type=b"x", size=(1 << 20) + 1)
    promise = info.tobuf(tarfile.GNU_FORMAT)
    block = memoryview(bytes((1 << 20) + 512))
    check = StructureCheck()
    assert peak_while(check, [promise, block] * 20) < 8 << 20
    assert check.finish() is Finding.TRUNCATED


# ---------------------------------------------------------------- whatever comes


def in_chunks(whole: bytes, sizes: list[int]) -> list[bytes]:
    """`whole` cut into chunks of these sizes, over and over."""
    chunks, at, turn = [], 0, 0
    while at < len(whole):
        step = sizes[turn % len(sizes)]
        chunks.append(whole[at : at + step])
        at, turn = at + step, turn + 1
    return chunks


chunk_sizes = st.lists(st.integers(1, 3000), min_size=1, max_size=5)
any_bytes = (
    st.binary(max_size=3000)
    | st.binary(max_size=300).map(lambda tail: b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + tail)
    | st.binary(max_size=3000).map(zipped)
    | st.tuples(st.sampled_from(sorted(SMALL.values())), st.integers(0, 2000), st.binary(max_size=20)).map(
        lambda made: made[0][: made[1]] + made[2] + made[0][made[1] + len(made[2]) :]
    )
)


@hypothesis_settings(deadline=None, max_examples=75)
@given(any_bytes, chunk_sizes)
def test_any_bytes_have_the_same_result_in_any_chunks(whole: bytes, sizes: list[int]) -> None:
    finding = find([whole])
    assert finding in Finding
    assert find(in_chunks(whole, sizes)) is finding


names = st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), min_size=1, max_size=150)


@hypothesis_settings(deadline=None, max_examples=75)
@given(
    st.lists(st.tuples(names, st.binary(max_size=1500)), min_size=1, max_size=5),
    st.sampled_from(["gnu", "pax"]),
    st.booleans(),
    chunk_sizes,
    st.data(),
)
def test_any_archive_is_complete_and_no_prefix_of_it_is(
    files: list[tuple[str, bytes]], form: str, packed: bool, sizes: list[int], data: st.DataObject
) -> None:
    tar = tar_of([member(name, content) for name, content in files], FORMATS[form])
    whole = zipped(tar) if packed else tar
    cut = data.draw(st.integers(0, len(whole) - 1 if packed else end_of(tar) - 1))
    assert find(in_chunks(whole, sizes)) is Finding.WHOLE
    assert find(in_chunks(whole[:cut], sizes)) is Finding.TRUNCATED
