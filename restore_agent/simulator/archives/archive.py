"""Making of an archive file."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path

from .compression import DEFLATED, Gzip, Plain, Sink
from .contents import members
from .recipe import Recipe

_BOMB_SIZE = 4 << 30


@dataclass(frozen=True)
class Archive:
    """Archive on disk: `size` and `sha1` of the file as sent, `unpacked` is the sum of the sizes of its files."""

    path: Path
    size: int
    sha1: str
    unpacked: int


def make_archive(path: Path, recipe: Recipe) -> Archive:
    """Write an archive to `path`. It has at least a few KiB, however small the requested size."""
    with path.open("wb") as file:
        sink: Sink = Gzip(file) if recipe.gzipped else Plain(file)
        unpacked = _write_tar(sink, recipe)
        sink.close()
    if recipe.damaged:
        _damage(path, recipe.gzipped)
    return Archive(path, path.stat().st_size, sha1_of(path), unpacked)


def _write_tar(sink: Sink, recipe: Recipe) -> int:
    top = recipe.top
    unpacked = 0
    sink.write(_header(top, 0, directory=True), DEFLATED)
    sink.write(_header(f"{top}/journal", 0, directory=True), DEFLATED)
    for member in members(recipe):
        sink.write(_header(f"{top}/{member.name}", member.size), DEFLATED)
        for block in member.blocks:
            sink.write(block, member.level)
        sink.write(bytes(-member.size % tarfile.BLOCKSIZE), DEFLATED)
        unpacked += member.size
    if recipe.bomb and isinstance(sink, Gzip):
        sink.write(_header(f"{top}/collection-9-bomb.wt", _BOMB_SIZE), DEFLATED)
        sink.write_zeros(_BOMB_SIZE)
    sink.write(bytes(2 * tarfile.BLOCKSIZE), DEFLATED)
    return unpacked


def _header(name: str, size: int, *, directory: bool = False) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o700 if directory else 0o600
    info.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    info.mtime = 1_492_636_465
    info.uname = info.gname = "mongod"
    # the GNU format holds sizes above 8 GiB and long names, as archives of real servers do
    return info.tobuf(tarfile.GNU_FORMAT)


def _damage(path: Path, gzipped: bool) -> None:
    """Change a byte that a checksum covers: file data of a gzip, or the header of the first file of a plain tar."""
    offset = path.stat().st_size // 2 if gzipped else 2 * tarfile.BLOCKSIZE + 3
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x5A]))


def sha1_of(path: Path) -> str:
    """Return the SHA1 of a file, 40 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
