"""Archives for tests, made with real tools or block by block, and how they are unpacked and compared."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from restore_agent.unpack.datapath import DataPaths
from restore_agent.unpack.reading.source import Source
from restore_agent.unpack.unpacker import Options, Unpacked, Unpacker

TOP = "rs0-1492636465-5c9e"
END = bytes(1024)
Entry = tuple[tarfile.TarInfo, bytes]
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def member(name: str, data: bytes = b"", **attributes: Any) -> Entry:
    """A member of a tar; keywords are attributes of TarInfo."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mtime = 1_500_000_000
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, data


def directory(name: str, **attributes: Any) -> Entry:
    return member(name, type=tarfile.DIRTYPE, mode=0o755, **attributes)


def hard_link(name: str, target: str) -> Entry:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar_of(entries: Sequence[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A whole tar made with Python."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def raw_header(name: bytes, kind: bytes = b"0", size: int = 0, **fields: Any) -> bytes:
    """One header block with any type and any name, its checksum right. Keywords are offsets: `at_345=b"…"`."""
    block = bytearray(512)
    for offset, value in (
        (0, name),
        (100, b"0000644\0"),
        (108, b"0000000\0"),
        (116, b"0000000\0"),
        (124, b"%011o\0" % size),
        (136, b"%011o\0" % 1_500_000_000),
        (156, kind),
        (257, b"ustar\x0000"),
        *((int(key.removeprefix("at_")), value) for key, value in fields.items()),
    ):
        block[offset : offset + len(value)] = value
    return with_checksum(block)


def with_checksum(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax_header(records: Sequence[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    data = b"".join(pax_record(key, value) for key, value in records)
    return raw_header(b"PaxHeaders/x", kind, len(data)) + padded(data)


def pax_record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def unpack(archive: Path | bytes, into: Path, options: Options | None = None, name: str = "data") -> Unpacked:
    """Unpack a complete archive and publish it as `into/name`; the staging directory is removed on an error."""
    if isinstance(archive, bytes):
        file = into.parent / f"{into.name}.archive"
        file.write_bytes(archive)
        archive = file
    with DataPaths.open(into, create=True) as paths, archive.open("rb") as opened:
        staging = paths.staging("job")
        source = Source.of_complete_file(opened.fileno())
        try:
            unpacked = Unpacker(source, staging, options).run()
            assert not (into / name).exists()
            paths.publish(staging, name)
        finally:
            staging.discard()
            source.close()
        return unpacked


def run(*command: str | Path, cwd: Path | None = None, **options: Any) -> bytes:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, env=environment, **options).stdout


def needs(*tools: str) -> pytest.MarkDecorator:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


def extracted_by_gnu_tar(archive: Path, into: Path) -> Path:
    into.mkdir(parents=True)
    run("tar", "--extract", "--file", archive, "--no-same-owner", cwd=into)
    return into


def content(root: Path, digest: Callable[[Path], object] | None = None) -> dict[str, object]:
    """Names, kinds, bytes, sizes, areas of data, times and links of a tree, the root's own time included."""
    digest = digest or (lambda path: path.read_bytes())
    found: dict[str, object] = {".": root.stat().st_mtime_ns}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        what: object = "directory" if path.is_dir() else (status.st_size, status.st_nlink, areas(path), digest(path))
        found[str(path.relative_to(root))] = (what, status.st_mtime_ns)
    return found


def areas(path: Path) -> list[tuple[int, int]]:
    """Areas of data of a file, as the file system has them."""
    found, at = [], 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while at < size:
            try:
                begin = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            found.append((begin, at))
    return found


def in_chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def zipped(data: bytes, member_size: int | None = None) -> bytes:
    """Gzip in one member, or in members of `member_size` plain bytes each, as bgzip writes them."""
    return b"".join(gzip.compress(part, 6, mtime=0) for part in in_chunks(data, member_size or max(len(data), 1)))
