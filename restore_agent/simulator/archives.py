"""Archives as Ops Manager sends them: a gzip tar of one directory that is shaped like a MongoDB data path.

Made on disk, block by block, the same bytes for the same seed and size. The bulk is random and stored (as a real
archive of compressed WiredTiger blocks is close to incompressible), the rest is deflated.
"""

from __future__ import annotations

import hashlib
import random
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

BLOCK = 1 << 20

_STORED, _PACKED = 0, 6

_TEXT_SHARE = 32  # one part in this many of an archive is text that deflates

_BOMB_INFLATED = 4 << 30

_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

# {storage: {engine: "wiredTiger", options: {directoryPerDB: false, directoryForIndexes: false}}} (bsonspec.org)
_BSON_OPTIONS = b"\x08directoryPerDB\x00\x00\x08directoryForIndexes\x00\x00\x00"

_BSON_STORAGE = (
    b"\x02engine\x00" + struct.pack("<i", 11) + b"wiredTiger\x00"
    b"\x03options\x00" + struct.pack("<i", len(_BSON_OPTIONS) + 4) + _BSON_OPTIONS + b"\x00"
)

_BSON_BODY = b"\x03storage\x00" + struct.pack("<i", len(_BSON_STORAGE) + 4) + _BSON_STORAGE + b"\x00"

_STORAGE_BSON = struct.pack("<i", len(_BSON_BODY) + 4) + _BSON_BODY


@dataclass(frozen=True)
class Archive:
    """An archive on disk: `size` and `sha1` are of the file as sent, `unpacked` is the sum of the files in it."""

    path: Path
    size: int
    sha1: str
    unpacked: int


@dataclass(frozen=True)
class Recipe:
    """What an archive is made of: `name` with extension, `size` in bytes as sent (about), `seed`, and its faults."""

    name: str
    size: int
    seed: str
    gzipped: bool = True
    damaged: bool = False
    bomb: bool = False
    info: tuple[tuple[str, str], ...] = ()


def make_archive(path: Path, recipe: Recipe) -> Archive:
    """Write the archive to `path`. An archive has a few KiB at least, however small a size was asked for."""
    with path.open("wb") as file:
        sink: _Sink = _Gzip(file) if recipe.gzipped else _Plain(file)
        unpacked = _write_tar(sink, recipe)
        sink.close()
    if recipe.damaged:
        _damage(path, recipe.gzipped)
    return Archive(path, path.stat().st_size, _sha1(path), unpacked)


class _Sink(Protocol):
    def write(self, data: bytes | memoryview, level: int) -> None: ...

    def close(self) -> None: ...


class _Plain:
    """A tar as it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes | memoryview, level: int) -> None:
        self._file.write(data)

    def close(self) -> None:
        pass


class _Gzip:
    """One gzip member (RFC 1952) whose compression level can change on the way, which `gzip.open` does not offer.

    A full flush ends a deflate piece on a byte without referring back, so pieces of different levels may follow.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file.write(_GZIP_HEADER)
        self._level = _PACKED
        self._deflate = zlib.compressobj(self._level, wbits=-zlib.MAX_WBITS)
        self._crc = 0
        self._length = 0

    def write(self, data: bytes | memoryview, level: int) -> None:
        if level != self._level:
            self._file.write(self._deflate.flush(zlib.Z_FULL_FLUSH))
            self._level = level
            self._deflate = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
        self._file.write(self._deflate.compress(data))
        self._count(data)

    def write_zeros(self, count: int) -> None:
        """Zeros by the gigabyte: one deflated piece, repeated. `count` is a multiple of 16 MiB."""
        zeros = bytes(16 << 20)
        self._file.write(self._deflate.flush(zlib.Z_FULL_FLUSH))
        piece = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        packed = piece.compress(zeros) + piece.flush(zlib.Z_FULL_FLUSH)
        for _ in range(count // len(zeros)):
            self._file.write(packed)
            self._count(zeros)
        self._deflate = zlib.compressobj(self._level, wbits=-zlib.MAX_WBITS)

    def close(self) -> None:
        self._file.write(self._deflate.flush(zlib.Z_FINISH))
        self._file.write(struct.pack("<II", self._crc, self._length & 0xFFFFFFFF))

    def _count(self, data: bytes | memoryview) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._length += len(data)


@dataclass(frozen=True)
class _Member:
    """A file in the data path: its blocks, and how they are compressed."""

    name: str
    size: int
    blocks: Iterator[bytes | memoryview]
    level: int = _PACKED


def _write_tar(sink: _Sink, recipe: Recipe) -> int:
    top = recipe.name.removesuffix(".gz").removesuffix(".tar")
    unpacked = 0
    sink.write(_header(top, 0, directory=True), _PACKED)
    sink.write(_header(f"{top}/journal", 0, directory=True), _PACKED)
    for member in _members(recipe):
        sink.write(_header(f"{top}/{member.name}", member.size), _PACKED)
        for block in member.blocks:
            sink.write(block, member.level)
        sink.write(bytes(-member.size % tarfile.BLOCKSIZE), _PACKED)
        unpacked += member.size
    if recipe.bomb and isinstance(sink, _Gzip):
        sink.write(_header(f"{top}/collection-9-bomb.wt", _BOMB_INFLATED), _PACKED)
        sink.write_zeros(_BOMB_INFLATED)
    sink.write(bytes(2 * tarfile.BLOCKSIZE), _PACKED)
    return unpacked


def _header(name: str, size: int, *, directory: bool = False) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o700 if directory else 0o600
    info.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    info.mtime = 1_492_636_465
    info.uname = info.gname = "mongod"
    # GNU: sizes past 8 GiB and long names fit, as in the archives of real servers
    return info.tobuf(tarfile.GNU_FORMAT)


def _members(recipe: Recipe) -> Iterator[_Member]:
    rng = random.Random(f"{recipe.seed}/{recipe.name}")
    text_size = recipe.size // _TEXT_SHARE
    bulk = max(0, recipe.size - text_size // 2 - 4096)
    yield _whole("WiredTiger", b"WiredTiger\nWiredTiger 3.2.0: (April 20, 2017)\n")
    yield _whole("WiredTiger.lock", b"WiredTiger lock file\n")
    yield _whole("WiredTiger.turtle", b"WiredTiger version string\nWiredTiger 3.2.0\n" + b"file:WiredTiger.wt\n" * 20)
    yield _whole("WiredTiger.wt", _page(rng, 9))
    yield _whole("_mdb_catalog.wt", _page(rng, 5))
    yield _whole("sizeStorer.wt", _page(rng, 2))
    yield _whole("storage.bson", _STORAGE_BSON)
    yield _random_member(rng, "collection-0-4581296413374023456.wt", bulk * 7 // 10)
    yield _text_member(rng, "index-1-4581296413374023456.wt", text_size)
    yield _random_member(rng, "collection-2-4581296413374023456.wt", bulk - bulk * 7 // 10)
    yield _whole("journal/WiredTigerLog.0000000001", _page(rng, 3))
    yield _whole("restoreInfo.txt", "".join(f"{key}: {value}\n" for key, value in recipe.info).encode())


def _whole(name: str, data: bytes) -> _Member:
    return _Member(name, len(data), iter([data]))


def _page(rng: random.Random, lines: int) -> bytes:
    """A file of 4 KiB pages that is mostly empty, as the small tables of WiredTiger are."""
    text = b"".join(b"\x00%s\x00key_format=q,value_format=u" % rng.randbytes(8) for _ in range(lines))
    return text.ljust(-(-len(text) // 4096) * 4096, b"\x00")


def _random_member(rng: random.Random, name: str, size: int) -> _Member:
    return _Member(name, size, _random_blocks(rng, size), _STORED)


def _random_blocks(rng: random.Random, size: int) -> Iterator[bytes | memoryview]:
    """Blocks that do not compress and all differ, at the speed of a copy: one random block, turned and numbered."""
    seed_block = rng.randbytes(min(size, BLOCK))
    doubled = memoryview(seed_block + seed_block)
    for number, start in enumerate(range(0, size, BLOCK)):
        length = min(BLOCK, size - start)
        turn = number * 65_537 % len(seed_block)
        label = struct.pack(">QQ", number, size)[:length]
        yield label
        yield doubled[turn : turn + length - len(label)]


def _text_member(rng: random.Random, name: str, size: int) -> _Member:
    return _Member(name, size, _text_blocks(rng, size))


def _text_blocks(rng: random.Random, size: int) -> Iterator[bytes]:
    """Hex digits, which deflate to about half, for real Huffman blocks; drawn once per MiB to stay quick."""
    text = rng.randbytes(min(size, 1 << 17)).hex().encode()
    for start in range(0, size, len(text) or 1):
        yield text[: size - start]


def _damage(path: Path, gzipped: bool) -> None:
    """Flip a byte that a checksum covers: file data of a gzip, or the header of the first file of a plain tar."""
    offset = path.stat().st_size // 2 if gzipped else 2 * tarfile.BLOCKSIZE + 3
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x5A]))


def _sha1(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
