"""Outputs of an archive: a plain tar, or a gzip with deflated and stored parts."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO, Protocol

STORED, DEFLATED = 0, 6
"""Compression levels of zlib."""

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

_ZEROS = 16 << 20


class Sink(Protocol):
    """Output of an archive."""

    def write(self, data: bytes | memoryview, level: int) -> None:
        """Write data, compressed at this level where the output is compressed."""

    def close(self) -> None:
        """Write the end."""


class Plain:
    """Tar without compression."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes | memoryview, level: int) -> None:
        """Write data as it is."""
        self._file.write(data)

    def close(self) -> None:
        """Do nothing: a tar without compression has no trailer."""


class Gzip:
    """One gzip member (RFC 1952) with parts of different compression levels, which `gzip.open` does not offer.

    A full flush ends a deflate block at a byte boundary and resets the window, so the parts are independent.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file.write(_HEADER)
        self._level = DEFLATED
        self._deflate = zlib.compressobj(self._level, wbits=-zlib.MAX_WBITS)
        self._crc = 0
        self._length = 0

    def write(self, data: bytes | memoryview, level: int) -> None:
        """Write data compressed at this level."""
        if level != self._level:
            self._file.write(self._deflate.flush(zlib.Z_FULL_FLUSH))
            self._level = level
            self._deflate = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
        self._file.write(self._deflate.compress(data))
        self._count(data)

    def write_zeros(self, count: int) -> None:
        """Write gigabytes of zeros quickly: one deflated part, repeated. `count` is a multiple of 16 MiB."""
        zeros = bytes(_ZEROS)
        self._file.write(self._deflate.flush(zlib.Z_FULL_FLUSH))
        part = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        packed = part.compress(zeros) + part.flush(zlib.Z_FULL_FLUSH)
        for _ in range(count // len(zeros)):
            self._file.write(packed)
            self._count(zeros)
        self._deflate = zlib.compressobj(self._level, wbits=-zlib.MAX_WBITS)

    def close(self) -> None:
        """Write the trailer: checksum and length."""
        self._file.write(self._deflate.flush(zlib.Z_FINISH))
        self._file.write(struct.pack("<II", self._crc, self._length & 0xFFFFFFFF))

    def _count(self, data: bytes | memoryview) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._length += len(data)
