"""Contents of a simulated data path, made block by block; the same bytes for the same seed and size.

Half of the bytes are incompressible, as in files of WiredTiger, whose blocks are compressed already.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from .compression import DEFLATED, STORED, Block, Packed, packed
from .recipe import Recipe

_HALF = 256 << 10
"""Bytes of a stripe that are random; as many follow that can be compressed."""

_OVERHEAD = 4096

# {storage: {engine: "wiredTiger", options: {directoryPerDB: false, directoryForIndexes: false}}} (bsonspec.org)
_BSON_OPTIONS = b"\x08directoryPerDB\x00\x00\x08directoryForIndexes\x00\x00\x00"

_BSON_STORAGE = (
    b"\x02engine\x00" + struct.pack("<i", 11) + b"wiredTiger\x00"
    b"\x03options\x00" + struct.pack("<i", len(_BSON_OPTIONS) + 4) + _BSON_OPTIONS + b"\x00"
)

_BSON_BODY = b"\x03storage\x00" + struct.pack("<i", len(_BSON_STORAGE) + 4) + _BSON_STORAGE + b"\x00"

_STORAGE_BSON = struct.pack("<i", len(_BSON_BODY) + 4) + _BSON_BODY


@dataclass(frozen=True)
class File:
    """File of a data path: its blocks with their compression levels."""

    name: str
    size: int
    blocks: Iterator[tuple[Block, int]]


def files(recipe: Recipe) -> Iterator[File]:
    """Yield the files of a data path; read each before the next one."""
    rng = random.Random(f"{recipe.seed}/{recipe.name}")
    bulk = max(0, recipe.size - _OVERHEAD)
    yield _whole("WiredTiger", b"WiredTiger\nWiredTiger 3.2.0: (April 20, 2017)\n")
    yield _whole("WiredTiger.lock", b"WiredTiger lock file\n")
    yield _whole("WiredTiger.turtle", b"WiredTiger version string\nWiredTiger 3.2.0\n" + b"file:WiredTiger.wt\n" * 20)
    yield _whole("WiredTiger.wt", _table(rng, 9))
    yield _whole("_mdb_catalog.wt", _table(rng, 5))
    yield _whole("sizeStorer.wt", _table(rng, 2))
    yield _whole("storage.bson", _STORAGE_BSON)
    sizes = {"collection-0": bulk * 6 // 10, "index-1": bulk // 10}
    sizes["collection-2"] = bulk - sum(sizes.values())
    random_half = rng.randbytes(min(_HALF, bulk))
    for name, size in sizes.items():
        yield _striped(f"{name}-4581296413374023456.wt", size, random_half, recipe.gzipped)
    yield _whole("journal/WiredTigerLog.0000000001", _table(rng, 3))
    for number in range(recipe.shape.small_files):
        yield _whole(f"diagnostic.data/metrics.{number:06}", b"%d\n" % number)
    if recipe.info is not None:
        yield _whole("restoreInfo.txt", recipe.info_text)


def _whole(name: str, data: bytes) -> File:
    return File(name, len(data), iter([(data, DEFLATED)]))


def _table(rng: random.Random, rows: int) -> bytes:
    """Return 4 KiB pages that are mostly empty, like small WiredTiger tables."""
    text = b"".join(b"\x00%s\x00key_format=q,value_format=u" % rng.randbytes(8) for _ in range(rows))
    return text.ljust(-(-len(text) // 4096) * 4096, b"\x00")


def _striped(name: str, sent: int, random_half: bytes, gzipped: bool) -> File:
    """Return a file that is about `sent` bytes in the archive: alternately random data and documents."""
    ratio = _ratio() if gzipped else 1.0
    half = max(1, int(sent / (1 + ratio)))
    sizes = [_HALF] * (half // _HALF) + ([half % _HALF] if half % _HALF else [])
    return File(name, 2 * sum(sizes), _stripes(sizes, memoryview(random_half * 2), half))


def _stripes(sizes: list[int], doubled: memoryview, label: int) -> Iterator[tuple[Block, int]]:
    """Yield different, incompressible blocks at the speed of a copy: one random block, rotated and numbered."""
    for number, size in enumerate(sizes):
        turn = number * 65_537 % max(1, len(doubled) // 2)
        numbered = struct.pack(">QQ", number, label)[:size]
        yield numbered, STORED
        yield doubled[turn : turn + size - len(numbered)], STORED
        documents = _documents()
        yield (documents, DEFLATED) if size == _HALF else (documents.data[:size], DEFLATED)


def _ratio() -> float:
    documents = _documents()
    return len(documents.deflated) / len(documents.data)


@cache
def _documents() -> Packed:
    """Return documents that deflate well, compressed once per process for speed."""
    rng = random.Random("documents")
    rows = (
        b'{"_id": %010d, "name": "customer-%04d", "city": "Dublin", "active": true, "balance": %d}\n'
        % (number, rng.randrange(10_000), rng.randrange(1_000_000))
        for number in range(_HALF // 80)
    )
    return packed(b"".join(rows)[:_HALF].ljust(_HALF, b"\x00"))
