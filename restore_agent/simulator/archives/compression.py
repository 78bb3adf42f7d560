"""Outputs of an archive: a plain tar, or a gzip with deflated and stored parts."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Protocol

STORED, DEFLATED = 0, 6
"""Compression levels of zlib."""

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True)
class Packed:
    """Data that is written often, and its deflated form, which ends with a full flush."""

    data: bytes
    deflated: bytes


def packed(data: bytes) -> Packed:
    """Return data together with its deflated form."""
    deflate = zlib.compressobj(DEFLATED, wbits=-zlib.MAX_WBITS)
    return Packed(data, deflate.compress(data) + deflate.flush(zlib.Z_FULL_FLUSH))


Block = bytes | memoryview | Packed


class Sink(Protocol):
    """Output of an archive."""

    def write(self, block: Block, level: int = DEFLATED) -> None:
        """Write a block, compressed at this level if the output is compressed."""

    def end_file(self) -> None:
        """Mark the end of one file of the archive."""

    def close(self) -> None:
        """Write the end."""


class Plain:
    """Tar without compression."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, block: Block, level: int = DEFLATED) -> None:
        """Write a block as it is."""
        self._file.write(block.data if isinstance(block, Packed) else block)

    def end_file(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: a tar without compression has no trailer."""


class Gzip:
    """Gzip (RFC 1952) with parts of different compression levels, which `gzip.open` does not offer.

    A full flush ends a deflate block at a byte boundary and resets the window, so the parts are independent.
    `members`: each file of the archive is a gzip member of its own, as parallel compressors write several.
    """

    def __init__(self, file: BinaryIO, *, members: bool = False) -> None:
        self._file = file
        self._members = members
        self._start()

    def _start(self) -> None:
        self._file.write(_HEADER)
        self._level = DEFLATED
        self._deflate = zlib.compressobj(self._level, wbits=-zlib.MAX_WBITS)
        self._crc = 0
        self._length = 0

    def write(self, block: Block, level: int = DEFLATED) -> None:
        """Write a block compressed at this level."""
        if isinstance(block, Packed):
            self._switch(DEFLATED)
            self._file.write(self._deflate.flush(zlib.Z_FULL_FLUSH))
            self._file.write(block.deflated)
            self._count(block.data)
            return
        if level != self._level:
            self._switch(level)
        self._file.write(self._deflate.compress(block))
        self._count(block)

    def _switch(self, level: int) -> None:
        self._file.write(self._deflate.flush(zlib.Z_FULL_FLUSH))
        self._level = level
        self._deflate = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)

    def end_file(self) -> None:
        """Start another gzip member, if each file is one."""
        if self._members:
            self.close()
            self._start()

    def close(self) -> None:
        """Write the trailer: checksum and length."""
        self._file.write(self._deflate.flush(zlib.Z_FINISH))
        self._file.write(struct.pack("<II", self._crc, self._length & 0xFFFFFFFF))

    def _count(self, data: bytes | memoryview) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._length += len(data)
