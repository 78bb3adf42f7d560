"""Whether a file is a whole tar or gzip tar by its own structure: the evidence when no hash is published.

A pure rule: blocks go in, a finding comes out, memory stays constant whatever the archive inflates to. The gzip
CRC and length (RFC 1952) are checked by zlib; the tar walk (POSIX ustar, pax, GNU) checks each header's sum, skips
the data by its size, and wants the two zero blocks that end an archive.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from ..core.errors import Finding

_GZIP_MAGIC = b"\x1f\x8b"

_TAR_MAGIC_AT = 257

_RECORD = 512

_INFLATE_AT_ONCE = 1 << 20  # bytes; bounds memory against a member that inflates a thousandfold

_DEFLATE_AT_ONCE = 1 << 16  # bytes; what is left of it is copied for each piece, so it is kept small

_PAX_LIMIT = 1 << 20  # bytes; an extended header above this is passed over like data

_PAX_RECORD = re.compile(rb"(\d{1,7}) ")

_EXTENSIONS = (b"g", b"L", b"K")

_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")

SNIFF = _RECORD
"""Bytes that `looks_like_archive` needs: the header of a tar without compression has its sum in them."""


def looks_like_archive(head: bytes) -> bool:
    """Whether the first bytes of a body are those of a gzip member or a tar header.

    `head` should hold `SNIFF` bytes; a shorter one is judged by what is there.
    """
    if head[:2] == _GZIP_MAGIC:
        return True
    return head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar" or (
        len(head) >= _RECORD and header_is_sound(head[:_RECORD])
    )


class StructureCheck:
    """Fed with a file's bytes in order; `finish()` gives the finding. Once damaged, it stays damaged."""

    def __init__(self) -> None:
        self._head: bytes | None = b""  # until the first two bytes tell gzip from tar, then None
        self._gzip: _Gzip | None = None
        self._tar = _TarWalk()
        self._damaged = False

    @property
    def damaged(self) -> bool:
        """Whether reading on can be spared."""
        return self._damaged

    def feed(self, block: bytes | memoryview) -> None:
        """Take the next bytes of the file, of any length."""
        if self._damaged:
            return
        if self._head is not None:
            block = self._head + bytes(block)
            self._head = block if len(block) < len(_GZIP_MAGIC) else None
            if self._head is not None:
                return
            self._gzip = _Gzip() if block.startswith(_GZIP_MAGIC) else None
        try:
            self._consume(block)
        except (zlib.error, _Unsound):
            self._damaged = True

    def _consume(self, block: bytes | memoryview) -> None:
        if self._gzip is None:
            self._tar.feed(block)
            return
        for at in range(0, len(block), _DEFLATE_AT_ONCE):
            for plain in self._gzip.inflate(block[at : at + _DEFLATE_AT_ONCE]):
                self._tar.feed(plain)

    def finish(self) -> Finding:
        """The finding, once every byte was fed."""
        if self._damaged:
            return Finding.DAMAGED
        compressed_whole = self._gzip is None or self._gzip.between_members
        return Finding.WHOLE if compressed_whole and self._tar.ended else Finding.TRUNCATED


class _Unsound(Exception):
    """The bytes cannot be a tar."""


class _Gzip:
    """Inflates a chain of gzip members piece by piece. Raises zlib.error on a bad CRC, length or code."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self.between_members = True
        self._padding = False

    def inflate(self, block: bytes | memoryview) -> Iterator[bytes]:
        """The plain bytes of one compressed block, in bounded pieces."""
        rest = block
        while len(rest) and not self._is_padding(rest):
            yield self._member.decompress(rest, _INFLATE_AT_ONCE)
            self.between_members = self._member.eof
            rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=31)

    def _is_padding(self, rest: bytes | memoryview) -> bool:
        """Whether zeros follow the last member: padding of a tape-minded tool, after which nothing may come."""
        self._padding = self._padding or (self.between_members and rest[0] == 0)
        if self._padding and any(rest):
            raise zlib.error("data after the padding")
        return self._padding


class _TarWalk:
    """Walks tar headers in a stream of plain bytes without keeping the data."""

    def __init__(self) -> None:
        self._skip = 0  # bytes of member data still to pass over
        self._wanted = _RECORD  # bytes that `_partial` collects before they are read
        self._partial = bytearray()
        self._read: Callable[[bytes], None] = self._header
        self._pax_size: int | None = None  # overrides the next header's size: files over 8 GiB
        self._zero_records = 0
        self._members = 0

    @property
    def ended(self) -> bool:
        """Whether the two zero records were met."""
        return self._zero_records >= 2 and self._members > 0

    def feed(self, plain: bytes | memoryview) -> None:
        """Take the next plain bytes. Raises _Unsound on a header that cannot be one."""
        at, end = 0, len(plain)
        while at < end and not self.ended:  # what follows the end is padding without meaning (POSIX)
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
                continue
            taken = plain[at : at + self._wanted - len(self._partial)]
            self._partial += taken
            at += len(taken)
            if len(self._partial) == self._wanted:
                collected = bytes(self._partial)
                self._partial.clear()
                self._read(collected)

    def _expect(self, size: int, read: Callable[[bytes], None]) -> None:
        self._wanted, self._read = size, read

    def _header(self, record: bytes) -> None:
        if not any(record):
            self._zero_records += 1
            if self._zero_records >= 2 and not self._members:
                raise _Unsound  # zeros alone are no archive
            return
        if self._zero_records or not header_is_sound(record):
            raise _Unsound
        self._members += 1
        kind = record[156:157]
        size = _number(record[124:136])
        if kind == b"x" and 0 < size <= _PAX_LIMIT:
            self._expect(_padded(size), self._pax)
            return
        if kind not in _EXTENSIONS and self._pax_size is not None:
            size, self._pax_size = self._pax_size, None
        # links, devices and directories carry no data, whatever their size field says
        data = 0 if kind in _WITHOUT_DATA else _padded(size)
        if kind == b"S" and record[482]:
            self._expect(_RECORD, partial(self._sparse_map, data))
        else:
            self._skip = data

    def _pax(self, data: bytes) -> None:
        self._expect(_RECORD, self._header)
        self._pax_size = _pax_size(data)

    def _sparse_map(self, data: int, record: bytes) -> None:
        """A GNU sparse file's further map: records without a checksum before the data, until one is the last."""
        if not record[504]:
            self._skip = data
            self._expect(_RECORD, self._header)


def header_is_sound(record: bytes) -> bool:
    """Whether a tar record's checksum fits (signed sums are what some old tars wrote)."""
    try:
        stored = _number(record[148:156])
    except _Unsound:
        return False
    blanked = record[:148] + b" " * 8 + record[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in blanked)
    return any(record) and stored in (sum(blanked), signed)


def _padded(size: int) -> int:
    return -(-size // _RECORD) * _RECORD


def _number(digits: bytes) -> int:
    """A numeric tar field: octal text, or GNU base-256 when the first bit is set."""
    if digits[:1] and digits[0] & 0x80:
        value = int.from_bytes(digits, "big") & ((1 << (8 * len(digits) - 1)) - 1)
        if digits[0] & 0x40:
            raise _Unsound
        return value
    text = digits.split(b"\x00", 1)[0].strip(b" ")
    if not re.fullmatch(rb"[0-7]*", text):
        raise _Unsound
    return int(text or b"0", 8)


def _pax_size(data: bytes) -> int | None:
    """The `size` among a pax header's records (`length key=value`), which counts for files over 8 GiB."""
    at, size = 0, None
    while found := _PAX_RECORD.match(data, at):
        end = at + max(int(found[1]), 1)
        key, _, value = data[found.end() : end].partition(b"=")
        if key == b"size" and re.fullmatch(rb"\d{1,19}\n", value):
            size = int(value)  # the last one counts
        at = end
    return size
