"""Contents of a simulated data path, made block by block; the same bytes for the same seed and size."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .compression import DEFLATED, STORED
from .recipe import Recipe

_BLOCK = 1 << 20

_TEXT_SHARE = 32  # one part in 32 of an archive is text that deflates

# {storage: {engine: "wiredTiger", options: {directoryPerDB: false, directoryForIndexes: false}}} (bsonspec.org)
_BSON_OPTIONS = b"\x08directoryPerDB\x00\x00\x08directoryForIndexes\x00\x00\x00"

_BSON_STORAGE = (
    b"\x02engine\x00" + struct.pack("<i", 11) + b"wiredTiger\x00"
    b"\x03options\x00" + struct.pack("<i", len(_BSON_OPTIONS) + 4) + _BSON_OPTIONS + b"\x00"
)

_BSON_BODY = b"\x03storage\x00" + struct.pack("<i", len(_BSON_STORAGE) + 4) + _BSON_STORAGE + b"\x00"

_STORAGE_BSON = struct.pack("<i", len(_BSON_BODY) + 4) + _BSON_BODY


@dataclass(frozen=True)
class Member:
    """File in the data path: its blocks, and their compression level."""

    name: str
    size: int
    blocks: Iterator[bytes | memoryview]
    level: int = DEFLATED


def members(recipe: Recipe) -> Iterator[Member]:
    """Yield the files of a data path; each must be read before the next."""
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


def _whole(name: str, data: bytes) -> Member:
    return Member(name, len(data), iter([data]))


def _page(rng: random.Random, lines: int) -> bytes:
    """Return 4 KiB pages that are mostly empty, like small WiredTiger tables."""
    text = b"".join(b"\x00%s\x00key_format=q,value_format=u" % rng.randbytes(8) for _ in range(lines))
    return text.ljust(-(-len(text) // 4096) * 4096, b"\x00")


def _random_member(rng: random.Random, name: str, size: int) -> Member:
    return Member(name, size, _random_blocks(rng, size), STORED)


def _random_blocks(rng: random.Random, size: int) -> Iterator[bytes | memoryview]:
    """Yield different, incompressible blocks at the speed of a copy: one random block, rotated and numbered."""
    seed_block = rng.randbytes(min(size, _BLOCK))
    doubled = memoryview(seed_block + seed_block)
    for number, start in enumerate(range(0, size, _BLOCK)):
        length = min(_BLOCK, size - start)
        turn = number * 65_537 % len(seed_block)
        label = struct.pack(">QQ", number, size)[:length]
        yield label
        yield doubled[turn : turn + length - len(label)]


def _text_member(rng: random.Random, name: str, size: int) -> Member:
    return Member(name, size, _text_blocks(rng, size))


def _text_blocks(rng: random.Random, size: int) -> Iterator[bytes]:
    """Yield hex digits, which deflate to about half; drawn once per MiB for speed."""
    text = rng.randbytes(min(size, 1 << 17)).hex().encode()
    for start in range(0, size, len(text) or 1):
        yield text[: size - start]
