"""Fuzz targets of the unpacker: any bytes as an archive, and archives that are built from drawn members.

Whatever comes, it is unpacked or refused with an error of ours, nothing but regular files and directories is made,
nothing is made outside staging, a refused archive leaves nothing, and time and memory are bounded.
"""

from __future__ import annotations

import gzip
import os
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from restore_agent.core.errors import NotUnpacked
from restore_agent.unpack.datapath import DataPaths
from restore_agent.unpack.reading.source import Source
from restore_agent.unpack.unpacker import Options, Unpacker

_SPACE = 24 << 20  # bytes that an archive may take on the disk
_LONGEST = 20.0  # seconds
_JOB = "0" * 24

_NAMES = (
    b"t",
    b"T",
    b"a",
    b"A",
    b"b",
    b".",
    b"..",
    b"",
    b"/",
    b"t/a",
    b"n" * 99,
    b"\xff",
    b"\xc3\xa9",
    b"x\n",
    b"a\\b",
)
_USUAL_NAMES, _USUAL_KINDS = (b"a", b"b", b"c", b"d"), (b"0", b"5", b"0", b"0", b"1")
_KINDS = (b"0", b"\0", b"5", b"1", b"2", b"3", b"4", b"6", b"7", b"x", b"g", b"L", b"K", b"S", b"M", b"V", b"Z")
_SIZES = (
    b"00000000000\0",
    b"00000001000\0",
    b"77777777777\0",
    b"\x80" + b"\xff" * 11,
    b"-0000000001\0",
    b"0 0\0",
    b"\0" * 12,
)
_RECORDS = (b"path", b"linkpath", b"size", b"mtime", b"GNU.sparse.map", b"GNU.sparse.name", b"GNU.sparse.major")


def archive(data: bytes) -> None:
    """Any bytes, also as the plain side of a gzip."""
    for packed in (data, gzip.compress(data, 1)):
        _unpack(packed)


def members(data: bytes) -> None:
    """An archive of drawn members: names, kinds, sizes, links, pax records, floods, and inflation."""
    drawn = _Drawn(data)
    plain = b"".join(_member(drawn) for _ in range(drawn.up_to(7) + 1))
    plain += bytes(1024) * (drawn.up_to(3) > 0)
    _unpack(plain if drawn.up_to(1) else _zipped(plain, drawn.up_to(3) + 1))


class _Drawn:
    """Choices taken from the bytes of the fuzzer, one after the other; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def up_to(self, most: int) -> int:
        """A number from 0 to `most`."""
        return next(self._data, 0) % (most + 1)

    def of(self, choices: tuple[bytes, ...]) -> bytes:
        """One of these."""
        return choices[self.up_to(len(choices) - 1)]

    def some(self, most: int) -> bytes:
        """Some bytes of the fuzzer as they are."""
        return bytes(next(self._data, 0) for _ in range(self.up_to(most)))


def _member(drawn: _Drawn) -> bytes:
    names = _NAMES if drawn.up_to(7) == 7 else _USUAL_NAMES
    name = b"/".join([b"t", *(drawn.of(names) for _ in range(drawn.up_to(2) + 1))][drawn.up_to(9) == 9 :])
    kind = drawn.of(_KINDS) if drawn.up_to(7) == 7 else drawn.of(_USUAL_KINDS)
    target, body = b"t/" + drawn.of(names), drawn.some(40)
    if kind in (b"x", b"g"):
        body = b"".join(_record(drawn.of(_RECORDS), drawn.some(20)) for _ in range(drawn.up_to(2) + 1))
    size = drawn.of(_SIZES) if drawn.up_to(7) == 7 else b"%011o\0" % len(body)
    block = _header(name, kind, size, target, damaged=drawn.up_to(30) == 30)
    one = block + body + bytes(-len(body) % 512)
    if drawn.up_to(20) == 20:  # many tiny ones, or a member that inflates a thousandfold
        many = b"".join(_header(b"t/%d" % n, b"0", b"%011o\0" % 0, b"") for n in range(300))
        return one + many + _header(b"t/zeros", b"0", b"%011o\0" % (4 << 20), b"") + bytes(4 << 20)
    return one


def _record(key: bytes, value: bytes) -> bytes:
    text = b" %s=%s\n" % (key, value)
    return b"%d" % (len(text) + 2) + text


def _header(name: bytes, kind: bytes, size: bytes, target: bytes, *, damaged: bool = False) -> bytes:
    block = bytearray(512)
    fields = {0: name[:100], 100: b"0000644\0", 124: size, 136: b"14000000000\0", 148: b" " * 8, 156: kind, 157: target}
    for offset, value in {**fields, 257: b"ustar\x0000"}.items():
        block[offset : offset + len(value)] = value
    block[148:156] = b"%06o\0 " % (sum(block) + damaged)
    return bytes(block)


def _zipped(plain: bytes, count: int) -> bytes:
    """Several gzip members, quickly."""
    step = len(plain) // count + 1
    return b"".join(_gzip(plain[at : at + step]) for at in range(0, len(plain), step))


def _gzip(plain: bytes) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(plain) + packer.flush()


def _unpack(packed: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_place()) as work:
        base = Path(work)
        (base / "archive").write_bytes(packed)
        (base / "canary").mkdir()
        began = time.monotonic()
        done = _run(base, len(packed))
        assert time.monotonic() - began < _LONGEST, "it takes too long"
        assert sorted(os.listdir(base)) == ["archive", "canary", "data"], os.listdir(base)
        assert not os.listdir(base / "canary")
        assert len(os.listdir(base / "data")) == 1, "something is outside staging"
        found = list(_below(base / "data" / f".{_JOB}.unpacking"))
        if done is None:
            assert not found, f"a refused archive leaves {found}"
            return
        files = [status.st_size for _, status in found if stat.S_ISREG(status.st_mode)]
        assert all(stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode) for _, status in found), found
        assert all(not stat.S_IMODE(status.st_mode) & 0o7077 for _, status in found), found
        assert (done.files, done.bytes) == (len(files), sum(files)), (done, files)


def _run(base: Path, size: int) -> Any:
    """What the unpacker says, None if it refuses the archive."""
    descriptor = os.open(base / "archive", os.O_RDONLY)
    source = Source(descriptor)
    os.close(descriptor)
    with DataPaths.open(base / "data", create=True) as paths:
        staging = paths.staging(_JOB)
        reserve = max(0, paths.free_bytes() - _SPACE)
        try:
            source.finish(size)
            return Unpacker(source, staging, Options(space_reserve=lambda: reserve)).run()
        except NotUnpacked:
            return None
        finally:
            source.close()
            staging.close()


def _below(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    for folder, names, files in os.walk(os.fsencode(root)):
        for name in (*names, *files):
            path = os.path.join(folder, name)
            yield os.fsdecode(path), os.lstat(path)


def _place() -> str | None:
    with suppress(OSError):
        return "/dev/shm" if os.statvfs("/dev/shm").f_bavail else None  # a RAM disk, where there is one
    return None


TARGETS: dict[str, Callable[[bytes], None]] = {"archive": archive, "members": members}
