"""Making of an archive file."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .compression import Gzip, Plain, Sink, packed
from .contents import File, files
from .members import encoded, extra_member, header, member, padding
from .recipe import Recipe

_BOMB_SIZE = 4 << 30

_ZEROS = 16 << 20

_END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class Archive:
    """Archive on disk: `size` and `sha1` of the file as sent, `unpacked` is the sum of the sizes of its files."""

    path: Path
    size: int
    sha1: str
    unpacked: int


def make_archive(path: Path, recipe: Recipe) -> Archive:
    """Write an archive with simulated contents to `path`. It has a few KiB, however small the requested size."""
    shape = recipe.shape
    with path.open("wb") as file:
        sink: Sink = Gzip(file, members=shape.gzip_members) if recipe.gzipped else Plain(file)
        unpacked = 0 if shape.damage == "no-members" else _write_members(sink, recipe)
        if shape.damage != "tar-end":
            sink.write(_END)
        sink.close()
    _damage(path, recipe)
    return described(path, unpacked)


def described(path: Path, unpacked: int) -> Archive:
    """Return the facts about an archive file."""
    with path.open("rb") as file:
        sha1 = hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
    return Archive(path, path.stat().st_size, sha1, unpacked)


def _write_members(sink: Sink, recipe: Recipe) -> int:
    shape = recipe.shape
    top = "" if shape.top == "none" else f"{recipe.top}/"
    unpacked = 0
    for directory in [top, f"{top}journal/"] if top else ["journal/"]:
        sink.write(encoded(header(directory.rstrip("/"), kind=tarfile.DIRTYPE)))
    for number, file in enumerate(files(recipe)):
        _write_file(sink, top, file, valid=number != 4 or shape.damage != "header")
        unpacked += file.size
    for block in _extra_members(recipe, top):
        sink.write(block)
        sink.end_file()
    if shape.bomb:
        _write_bomb(sink, top)
    return unpacked


def _write_file(sink: Sink, top: str, file: File, *, valid: bool) -> None:
    head = encoded(header(f"{top}{file.name}", file.size))
    sink.write(head if valid else bytes([head[0] ^ 0x5A]) + head[1:])
    for block, level in file.blocks:
        sink.write(block, level)
    sink.write(padding(file.size))
    sink.end_file()


def _extra_members(recipe: Recipe, top: str) -> Iterator[bytes]:
    for kind in recipe.shape.members:
        yield extra_member(kind, top)
    if recipe.shape.top == "several":
        yield member("second/WiredTiger")
        yield member("README")


def _write_bomb(sink: Sink, top: str) -> None:
    sink.write(encoded(header(f"{top}collection-9-bomb.wt", _BOMB_SIZE)))
    zeros = packed(bytes(_ZEROS))
    for _ in range(_BOMB_SIZE // _ZEROS):
        sink.write(zeros)


def _damage(path: Path, recipe: Recipe) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        if recipe.shape.damage == "gzip-end":
            file.truncate(size - 12)
        if recipe.shape.damage != "checksum":
            return
        # a byte that a checksum covers: file data of a gzip, or the header of the first file of a plain tar
        offset = size // 2 if recipe.gzipped else 2 * tarfile.BLOCKSIZE + 3
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x5A]))
