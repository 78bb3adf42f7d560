"""Unusual tar members, harmless and hostile, each as the bytes that it has in a tar."""

from __future__ import annotations

import tarfile
from collections.abc import Callable

MTIME = 1_492_636_465

_SPARSE_SIZE = 1 << 20

_DATA = b"d" * 4096


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """Return the header of a member."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mtime = size, kind, target, MTIME
    info.mode = 0o700 if kind == tarfile.DIRTYPE else 0o600
    info.uname = info.gname = "mongod"
    return info


def encoded(info: tarfile.TarInfo) -> bytes:
    """Return a header as bytes; the GNU format holds long names and sizes above 8 GiB."""
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """Return the bytes that follow `size` bytes of data up to the next block."""
    return bytes(-size % tarfile.BLOCKSIZE)


def member(name: str, data: bytes = _DATA) -> bytes:
    """Return a regular file."""
    return encoded(header(name, len(data))) + data + padding(len(data))


def extra_member(kind: str, top: str) -> bytes:
    """Return the members for a value of the `member` fault; `top` is the top directory with a slash, or empty."""
    return _MEMBERS[kind](top)


def _long_name(top: str) -> bytes:
    return member(f"{top}{'long-' * 30}{'name' * 20}.wt")


def _pax_name(top: str) -> bytes:
    info = header(f"{top}{'päx-' * 40}.wt", len(_DATA))
    return info.tobuf(tarfile.PAX_FORMAT) + _DATA


def _hard_link(top: str) -> bytes:
    return encoded(header(f"{top}linked.lock", 0, tarfile.LNKTYPE, f"{top}WiredTiger.lock"))


def _duplicate(top: str) -> bytes:
    return member(f"{top}twice.wt", b"first" * 1000) + member(f"{top}twice.wt", b"last")


def _setuid(top: str) -> bytes:
    info = header(f"{top}setuid.wt", len(_DATA))
    info.mode, info.uid, info.gid = 0o6777, 0, 0
    return encoded(info) + _DATA


def _sparse_gnu(top: str) -> bytes:
    """Return a sparse file in the old GNU format: data at 0 and at 512 KiB, a hole at the end."""
    block = bytearray(encoded(header(f"{top}sparse-gnu.wt", 2 * len(_DATA), b"S")))
    at = 386
    for offset, size in ((0, len(_DATA)), (_SPARSE_SIZE // 2, len(_DATA)), (_SPARSE_SIZE, 0)):
        block[at : at + 24] = f"{offset:011o}\0{size:011o}\0".encode()
        at += 24
    block[483:495] = f"{_SPARSE_SIZE:011o}\0".encode()
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block) + 2 * _DATA


def _sparse_pax(top: str) -> bytes:
    """Return a sparse file in the pax format 1.0, with the same map."""
    numbers = (3, 0, len(_DATA), _SPARSE_SIZE // 2, len(_DATA), _SPARSE_SIZE, 0)
    sparse_map = "".join(f"{number}\n" for number in numbers).encode()
    stored = sparse_map + padding(len(sparse_map)) + 2 * _DATA
    info = header(f"{top}GNUSparseFile.0/sparse-pax.wt", len(stored))
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": f"{top}sparse-pax.wt",
        "GNU.sparse.realsize": str(_SPARSE_SIZE),
    }
    return info.tobuf(tarfile.PAX_FORMAT) + stored


def _through_symlink(top: str) -> bytes:
    return encoded(header(f"{top}out", 0, tarfile.SYMTYPE, "/tmp")) + member(f"{top}out/escaped.wt")  # noqa: S108  # a name in an archive


_MEMBERS: dict[str, Callable[[str], bytes]] = {
    "long-name": _long_name,
    "pax-name": _pax_name,
    "hard-link": _hard_link,
    "duplicate": _duplicate,
    "empty": lambda top: member(f"{top}empty.wt", b""),
    "setuid": _setuid,
    "sparse-gnu": _sparse_gnu,
    "sparse-pax": _sparse_pax,
    "absolute": lambda top: member("/tmp/absolute.wt"),  # noqa: S108  # a name in an archive
    "dotdot": lambda top: member(f"{top}../../escaped.wt"),
    "symlink": lambda top: encoded(header(f"{top}link", 0, tarfile.SYMTYPE, "WiredTiger")),
    "through-symlink": _through_symlink,
    "through-file": lambda top: member(f"{top}WiredTiger/inside.wt"),
    "link-outside": lambda top: encoded(header(f"{top}passwd", 0, tarfile.LNKTYPE, "../../etc/passwd")),
    "device": lambda top: encoded(header(f"{top}device", 0, tarfile.CHRTYPE)),
    "fifo": lambda top: encoded(header(f"{top}fifo", 0, tarfile.FIFOTYPE)),
}
