"""Parts of a response body."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Headers = tuple[tuple[str, str], ...]


HTML_PAGE = b"<!DOCTYPE html>\n<html><head><title>Ops Manager</title></head><body>Please log in.</body></html>\n"
"""Page that a proxy or a login form sends instead of an answer."""


@dataclass(frozen=True)
class FilePart:
    """Bytes `[start, stop)` of a file."""

    path: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def part(self, start: int, stop: int) -> FilePart:
        """Return bytes `[start, stop)` of this part."""
        return FilePart(self.path, self.start + start, self.start + stop)


@dataclass(frozen=True)
class BytesPart:
    """Bytes in memory."""

    data: bytes

    def __len__(self) -> int:
        return len(self.data)

    def part(self, start: int, stop: int) -> BytesPart:
        """Return bytes `[start, stop)` of this part."""
        return BytesPart(self.data[start:stop])


@dataclass(frozen=True)
class FillPart:
    """`size` times the same byte, which uses no memory until it is sent."""

    byte: bytes
    size: int

    def __len__(self) -> int:
        return self.size

    def part(self, start: int, stop: int) -> FillPart:
        """Return bytes `[start, stop)` of this part."""
        return FillPart(self.byte, stop - start)


Part = FilePart | BytesPart | FillPart


@dataclass(frozen=True)
class Body:
    """Sequence of parts."""

    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def cut(self, start: int, stop: int) -> Body:
        """Return bytes `[start, stop)`."""
        return Body(tuple(self._cut(start, stop)))

    def _cut(self, start: int, stop: int) -> Iterator[Part]:
        at = 0
        for part in self.parts:
            first, last = max(start - at, 0), min(stop - at, len(part))
            if first < last:
                yield part if (first, last) == (0, len(part)) else part.part(first, last)
            at += len(part)

    def pieces(self, size: int) -> Iterator[Part]:
        """Yield the body in pieces of at most `size` bytes."""
        for part in self.parts:
            for start in range(0, len(part), size):
                yield part.part(start, min(start + size, len(part)))


NOTHING = Body(())
