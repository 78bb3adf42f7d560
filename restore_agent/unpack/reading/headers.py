"""Tar headers and member data from a stream of plain bytes: v7, ustar, GNU and pax, with sparse files.

`tarfile.TarInfo.frombuf` reads each header block. The rest is read here, because `tarfile`

* takes an invalid header after the first member for the end of the archive, which hides damage;
* reads pax headers, long names and sparse maps of any size into memory, and matches pax headers with regular
  expressions that backtrack while they hold the interpreter lock (CVE-2024-6232, Python 3.11.9 and older);
* keeps every member of the archive in memory, and times as floating-point numbers without nanoseconds;
* loses its place after sparse members with a pax size, and takes the times in old GNU headers for a part of the name.
"""

from __future__ import annotations

import re
import tarfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...core.errors import CannotUnpack, DamagedArchive, Finding
from ..errors import shown

_BLOCK = 512
_PAX_LIMIT = 4 << 20  # bytes of one extended header
_NAME_LIMIT = 1 << 16  # bytes of a GNU long name; Linux takes 4095
_EXTENTS_LIMIT = 1 << 18  # areas of one sparse file; 4 MiB of memory
_NUMBER_LIMIT = 40  # digits of a number in text
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices and directories, whatever their size says
_WANTED = frozenset((b"path", b"linkpath", b"size", b"mtime"))
_SPARSE = b"GNU.sparse."
_TIME = re.compile(rb"(-?)(\d{1,20})(?:\.(\d{0,40}))?")
_SECOND = 10**9


@dataclass(slots=True)
class Header:
    """One member. `stored` bytes of data follow in the archive; `size` is the size of the file."""

    kind: bytes
    name: bytes
    target: bytes
    size: int
    stored: int
    mtime_ns: int
    extents: array[int] | None = None
    """Offset and length in turn of each area of data of a sparse file; None if the file is not sparse."""


@dataclass(slots=True)
class _Extended:
    """Fields of pax and GNU long-name headers that apply to the next member."""

    name: bytes | None = None
    target: bytes | None = None
    fields: dict[bytes, bytes] = field(default_factory=dict)
    extents: array[int] | None = None


class PlainStream:
    """Plain bytes, read in exact amounts."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = memoryview(b"")

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes. Raises DamagedArchive (truncated) if there are fewer."""
        if len(self._block) >= size:
            taken, self._block = bytes(self._block[:size]), self._block[size:]
            return taken
        return b"".join(self.pieces(size))

    def take_header(self) -> bytes:
        """Return the next 512 bytes, or none at the end. Raises DamagedArchive (truncated) between the two."""
        return self.take(_BLOCK) if self._block or self._next_block() else b""

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield the next `size` bytes in pieces. Raises DamagedArchive (truncated) if there are fewer."""
        while size:
            if not self._block and not self._next_block():
                raise DamagedArchive("the archive ends inside a member", Finding.TRUNCATED)
            piece = self._block[:size]
            self._block = self._block[len(piece) :]
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Skip the next `size` bytes. Raises DamagedArchive (truncated) if there are fewer."""
        for _ in self.pieces(size):
            pass

    def drain(self) -> None:
        """Read all that is left."""
        self._block = memoryview(b"")
        while self._next_block():
            pass

    def _next_block(self) -> bool:
        self._block = memoryview(next((block for block in self._blocks if block), b""))
        return bool(self._block)


class TarStream:
    """Members of a tar. Read `data()` of one before the next is asked for; data that is not read is skipped."""

    def __init__(self, plain: PlainStream) -> None:
        self._plain = plain
        self._global: dict[bytes, bytes] = {}
        self._unread = 0  # bytes of the member's data, padding included
        self._header: Header | None = None

    def headers(self) -> Iterator[Header]:
        """Yield each member up to the two zero blocks, then read the rest.

        Raises DamagedArchive, and CannotUnpack for a header that needs too much memory.
        """
        extended, members = _Extended(), 0
        while (block := self._next_header()) is not None:
            info = _parsed(block)
            self._unread = 0 if info.type in _WITHOUT_DATA else _padded(info.size)
            if self._read_extended(info, extended):
                continue
            self._header = self._member(block, info, extended)
            extended, members = _Extended(), members + 1
            yield self._header
        if not members:
            raise DamagedArchive("the archive has no members")
        self._plain.drain()

    def data(self) -> Iterator[tuple[int, memoryview]]:
        """Yield the data of the member as (offset in the file, bytes)."""
        header = self._header
        if header is None:
            return
        extents = header.extents if header.extents is not None else array("Q", (0, header.stored))
        for at in range(0, len(extents), 2):
            offset, length = extents[at], extents[at + 1]
            if _padded(length) > self._unread:
                raise DamagedArchive(f"{shown(header.name)}: the map of the sparse file does not match its data")
            self._unread -= length
            for piece in self._plain.pieces(length):
                yield offset, piece
                offset += len(piece)
            self._skip(_padded(length) - length)  # GNU tar starts each area of a sparse file in a new block

    def _skip(self, size: int) -> None:
        self._unread -= size
        self._plain.skip(size)

    def _take(self, size: int) -> bytes:
        if size > self._unread:
            raise DamagedArchive("the map of a sparse file is longer than its data")
        self._unread -= size
        return self._plain.take(size)

    def _next_header(self) -> bytes | None:
        """Return the next header block, or None after the two zero blocks that end an archive."""
        self._skip(self._unread)
        block = self._plain.take_header()
        if any(block):
            return block
        if not block or not (second := self._plain.take_header()):
            raise DamagedArchive("the archive ends without its end mark", Finding.TRUNCATED)
        if any(second):
            raise DamagedArchive("the archive goes on after a zero block")
        return None

    # ---- extended headers

    def _read_extended(self, info: tarfile.TarInfo, extended: _Extended) -> bool:
        if info.type in (b"x", b"X"):
            extended.extents = _pax_extents(records := self._records(info.size))
            extended.fields = _wanted(records)
        elif info.type == b"g":
            self._global |= _wanted(self._records(info.size))
        elif info.type == b"L":
            extended.name = self._long_name(info.size)
        elif info.type == b"K":
            extended.target = self._long_name(info.size)
        else:
            return False
        return True

    def _long_name(self, size: int) -> bytes:
        if size > _NAME_LIMIT:
            raise CannotUnpack(f"the archive contains a name of {size} bytes")
        return self._take(_padded(size))[:size].partition(b"\0")[0]

    def _records(self, size: int) -> list[tuple[bytes, bytes]]:
        if size > _PAX_LIMIT:
            raise CannotUnpack(f"the archive contains an extended header of {size} bytes")
        return list(_pax_records(self._take(_padded(size))[:size]))

    # ---- members

    def _member(self, block: bytes, info: tarfile.TarInfo, extended: _Extended) -> Header:
        fields = {key: value for key, value in (self._global | extended.fields).items() if value}
        stored = info.size
        if b"size" in fields and info.type not in _WITHOUT_DATA:
            stored = _decimal(fields[b"size"])
            self._unread = _padded(stored)
        header = Header(
            kind=info.type,
            name=fields.get(b"path", extended.name if extended.name is not None else _name(block)),
            target=fields.get(b"linkpath", extended.target if extended.target is not None else _text(block[157:257])),
            size=stored,
            stored=stored,
            mtime_ns=_nanoseconds(fields[b"mtime"]) if b"mtime" in fields else int(info.mtime) * _SECOND,
        )
        self._apply_sparse(header, block, fields, extended.extents)
        return header

    def _apply_sparse(
        self, header: Header, block: bytes, fields: dict[bytes, bytes], extents: array[int] | None
    ) -> None:
        if header.kind == b"S":
            header.size = _octal(block[483:495])
            header.extents = self._old_gnu_map(block)
        elif header.kind in (b"0", b"\0", b"7") and (b"GNU.sparse.major" in fields or extents is not None):
            header.name = fields.get(b"GNU.sparse.name", header.name)
            header.size = _decimal(fields.get(b"GNU.sparse.realsize") or fields.get(b"GNU.sparse.size") or b"")
            header.extents = extents if extents is not None else self._map_in_data()
        if header.extents is not None:
            header.stored = self._unread
            _require_valid(header)

    def _old_gnu_map(self, block: bytes) -> array[int]:
        extents: array[int] = array("Q")
        _add_old_gnu(extents, block[386:482])
        extended = block[482]
        while extended:
            more = self._plain.take(_BLOCK)  # these blocks do not count as data
            _add_old_gnu(extents, more[:504])
            extended = more[504]
        return extents

    def _map_in_data(self) -> array[int]:
        """Read the map of format 1.0: a count and as many pairs of decimal numbers, one a line, padded to a block."""
        numbers = self._lines_of_map()
        count = next(numbers)
        if count > _EXTENTS_LIMIT:
            raise CannotUnpack(f"the archive contains a sparse file with {count} areas")
        return array("Q", (_unsigned(next(numbers)) for _ in range(2 * count)))

    def _lines_of_map(self) -> Iterator[int]:
        rest = b""
        while True:
            rest += self._take(_BLOCK)
            *lines, rest = rest.split(b"\n")
            for line in lines:
                yield _decimal(line)
            if len(rest) > _NUMBER_LIMIT:
                raise DamagedArchive("the map of a sparse file is invalid")


# ---------------------------------------------------------------- fields


def _parsed(block: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise DamagedArchive(f"the archive contains an invalid header: {error}") from error
    info.type = block[156:157]  # frombuf changes the type of a v7 directory
    _unsigned(info.size)
    return info


def _name(block: bytes) -> bytes:
    """Return the name in a header; only POSIX headers have a prefix, old GNU headers have times there."""
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > _NUMBER_LIMIT:
        raise DamagedArchive("the archive contains an invalid number in an extended header")
    return _unsigned(int(text))


def _octal(raw: bytes) -> int:
    try:
        return _unsigned(tarfile.nti(raw))  # type: ignore[attr-defined]  # typeshed lacks it
    except tarfile.HeaderError as error:
        raise DamagedArchive("the archive contains an invalid number in a sparse header") from error


def _unsigned(number: int) -> int:
    """Return a size or offset, which the system can hold in 63 bits. Raises DamagedArchive."""
    if not 0 <= number < 1 << 63:
        raise DamagedArchive("the archive contains a number that is out of range")
    return number


def _nanoseconds(text: bytes) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise DamagedArchive("the archive contains an invalid time")
    sign, seconds, fraction = found.groups()
    digits = (fraction or b"").ljust(10, b"0")
    value = int(seconds) * _SECOND + int(digits[:9])
    return -value - (digits[9:].strip(b"0") != b"") if sign else value


# ---------------------------------------------------------------- pax


def _pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records `length key=value` of an extended header."""
    at = 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + _NUMBER_LIMIT)
        end = at + _decimal(data[at : max(space, at)])
        if not space < end <= len(data) or data[end - 1 : end] != b"\n":
            raise DamagedArchive("the archive contains an invalid extended header")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise DamagedArchive("the archive contains an invalid extended header")
        yield key, value
        at = end


def _wanted(records: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    return {key: value for key, value in records if key in _WANTED or key.startswith(_SPARSE)}


def _pax_extents(records: list[tuple[bytes, bytes]]) -> array[int] | None:
    """Return the map of a sparse file of format 0.0 (pairs of records) or 0.1 (one list), or None."""
    numbers: list[bytes] = []
    found = False
    for key, value in records:
        if key == b"GNU.sparse.map":
            numbers, found = value.split(b",") if value else [], True
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            numbers.append(value)
            found = True
        elif key == b"GNU.sparse.numblocks":
            found = True
    if len(numbers) // 2 > _EXTENTS_LIMIT:
        raise CannotUnpack(f"the archive contains a sparse file with {len(numbers) // 2} areas")
    return array("Q", (_unsigned(_decimal(number)) for number in numbers)) if found else None


# ---------------------------------------------------------------- sparse maps


def _add_old_gnu(extents: array[int], entries: bytes) -> None:
    for at in range(0, len(entries), 24):
        if not entries[at + 12]:
            return
        if len(extents) >= 2 * _EXTENTS_LIMIT:
            raise CannotUnpack(f"the archive contains a sparse file with more than {_EXTENTS_LIMIT} areas")
        extents.extend((_octal(entries[at : at + 12]), _octal(entries[at + 12 : at + 24])))


def _require_valid(header: Header) -> None:
    extents = header.extents or array("Q")
    if len(extents) % 2 or any(extents[at] + extents[at + 1] > header.size for at in range(0, len(extents), 2)):
        raise DamagedArchive(f"{shown(header.name)}: the map of the sparse file is invalid")
