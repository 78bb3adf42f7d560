"""Plain bytes of an archive: gzip with any number of members, or a plain tar.

The deflate stream is inflated raw and the trailer of each gzip member (CRC and length, RFC 1952) is handed on with the
last block of the member, because inflating limits the speed: computing the CRC in the thread that writes saves about
15% with zlib. `isal` is used if it is installed (the extra `fast`), else the standard library's zlib.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from ...core.errors import DamagedArchive, Finding

_MAGIC = b"\x1f\x8b"
_INPUT = 1 << 18  # bytes; what zlib leaves of its input is copied, so pieces are bounded
OUTPUT_SIZE = 1 << 19
"""Bytes of plain data handed on together, if nothing else is asked for: data may inflate a thousandfold."""
_LENGTH_MODULUS = 1 << 32
_HEADER_LIMIT = 1 << 17  # bytes of a gzip header, file name and comment included
_HCRC, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: Any, max_length: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Backend:
    """Library that inflates: its name with version, and its functions."""

    name: str
    decompressor: Callable[[], _Decompressor]
    crc32: Callable[[Any, int], int]

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Exceptions of invalid data. The isal package raises its own, a subclass of OSError in some releases."""
        return (zlib.error, self.foreign_error)

    foreign_error: type[Exception] = zlib.error


def backend(*, fast: bool = True) -> Backend:
    """Return isal's backend if `fast` and isal can be imported, else zlib's."""
    if fast:
        try:
            return _isal(importlib.import_module("isal"), importlib.import_module("isal.isal_zlib"))
        except ImportError:
            pass
    return Backend(f"zlib {zlib.ZLIB_RUNTIME_VERSION}", lambda: zlib.decompressobj(-zlib.MAX_WBITS), zlib.crc32)


def _isal(package: ModuleType, module: ModuleType) -> Backend:
    return Backend(
        f"isal {getattr(package, '__version__', '')}".strip(),
        lambda: module.decompressobj(-zlib.MAX_WBITS),
        module.crc32,
        module.error,
    )


@dataclass(frozen=True, slots=True)
class Trailer:
    """Last eight bytes of a gzip member: CRC and length of its plain bytes, modulo 2**32."""

    crc: int
    length: int


Plain = tuple[bytes, Trailer | None]
"""Plain bytes, and the trailer of the gzip member that ends after them."""


class Inflater:
    """Generator of plain bytes. After it ends, `trailing_garbage` says whether bytes at the end were ignored.

    Zeros after the last member are padding. Other bytes there are ignored as gzip(1) does, which calls them trailing
    garbage.
    """

    def __init__(self, blocks: Iterator[bytes], library: Backend | None = None, output_size: int = OUTPUT_SIZE) -> None:
        self._blocks = blocks
        self._output = output_size
        self._library = library or backend()
        self._rest = b""
        self._at = 0
        self._ended = False
        self.trailing_garbage = False

    def plain(self) -> Iterator[Plain]:
        """Yield the plain bytes. Raises DamagedArchive, and what the given iterator raises."""
        if not self._fill(len(_MAGIC)):
            raise DamagedArchive("the archive is shorter than any archive", Finding.TRUNCATED)
        if self._rest[:2] != _MAGIC:
            yield from self._plain_tar()
            return
        while True:
            self._skip_header()
            yield from self._member()
            if not self._another_member():
                break
        for block in self._blocks:  # read to the end, for the hash of the archive
            self.trailing_garbage = self.trailing_garbage or any(block)

    def _plain_tar(self) -> Iterator[Plain]:
        yield self._rest, None
        for block in self._blocks:
            yield block, None

    def _member(self) -> Iterator[Plain]:
        inflate = self._library.decompressor()
        while not inflate.eof:
            if not self._fill(1):
                raise _truncated()
            piece = memoryview(self._rest)[self._at : self._at + _INPUT]
            self._at += len(piece)
            yield from self._inflated(inflate, piece)
        self._at -= len(inflate.unused_data)
        yield b"", self._trailer()

    def _inflated(self, inflate: _Decompressor, piece: memoryview) -> Iterator[Plain]:
        rest: memoryview | bytes = piece
        while True:
            try:
                plain = inflate.decompress(rest, self._output)
            except self._library.errors as error:
                raise DamagedArchive(f"the archive's compressed data is invalid: {error}") from error
            if plain:
                yield plain, None
            rest = inflate.unconsumed_tail
            # output of full length: more may be buffered inside although no input is left
            if inflate.eof or (not rest and len(plain) < self._output):
                return

    def _trailer(self) -> Trailer:
        return Trailer(*struct.unpack("<LL", self._take(8)))

    def _another_member(self) -> bool:
        if not self._fill(len(_MAGIC)):
            self.trailing_garbage = any(self._rest[self._at :])
            return False
        if self._rest[self._at : self._at + 2] == _MAGIC:
            return True
        self.trailing_garbage = any(self._rest[self._at :])
        return False

    def _skip_header(self) -> None:
        head = self._take(10)
        if head[:2] != _MAGIC or head[2] != 8 or head[3] & 0xE0:
            raise DamagedArchive("the archive's gzip header is invalid")
        flags = head[3]
        if flags & _EXTRA:
            self._take(int.from_bytes(self._take(2), "little"))
        for flag in (_NAME, _COMMENT):
            if flags & flag:
                self._skip_text()
        if flags & _HCRC:
            self._take(2)

    def _skip_text(self) -> None:
        for _ in range(_HEADER_LIMIT):
            if self._take(1) == b"\0":
                return
        raise DamagedArchive("the archive's gzip header is too long")

    def _take(self, size: int) -> bytes:
        if not self._fill(size):
            raise _truncated()
        self._at += size
        return self._rest[self._at - size : self._at]

    def _fill(self, size: int) -> bool:
        """Make `size` bytes available; return whether there are as many."""
        while len(self._rest) - self._at < size and not self._ended:
            block = next(self._blocks, b"")
            self._ended = not block
            self._rest, self._at = self._rest[self._at :] + block, 0
        return len(self._rest) - self._at >= size


class MemberCheck:
    """Comparison of plain bytes with the trailers of their gzip members."""

    def __init__(self, library: Backend) -> None:
        self._crc32 = library.crc32
        self._crc = 0
        self._length = 0

    def update(self, plain: bytes, trailer: Trailer | None) -> None:
        """Take the next bytes. Raises DamagedArchive if the trailer does not match."""
        if plain:
            self._crc = self._crc32(plain, self._crc)
            self._length += len(plain)
        if trailer is None:
            return
        if (self._crc, self._length % _LENGTH_MODULUS) != (trailer.crc, trailer.length):
            raise DamagedArchive("the archive's compressed data does not match its CRC or length")
        self._crc = self._length = 0


def _truncated() -> DamagedArchive:
    return DamagedArchive("the archive's compressed data ends too early", Finding.TRUNCATED)
