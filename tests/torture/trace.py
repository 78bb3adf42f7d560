"""What one or several runs of the agent did to the file system, as the kernel saw it: `strace`, parsed into operations.

The kernel sees every operation, whichever library asked for it. One that changes something below the root and that
this module does not know is an error, so that nothing is passed over; a replay of all operations gives the final tree.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["create", "mkdir", "link", "write", "truncate", "sync", "rename", "unlink", "get", "said"]
ROOT = 0
"""The object that stands for the directory in which DEST is made; it counts as durable."""

_LINE = re.compile(
    r"(?P<time>\d+\.\d+) (?P<call>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+)(?: .*)? <(?P<took>\d+\.\d+)>$",
    re.DOTALL,
)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_GET = re.compile(rb"GET /backup/restore/v\d/pull/(?P<job>[0-9a-f]+)/")
_LONGEST = 4 << 20
_CHANGES_NAMES = frozenset(("creat", "link", "symlink", "symlinkat", "mknod", "mknodat", "truncate"))
_CHANGES_DATA = frozenset(
    ("pwritev", "pwritev2", "writev", "sendfile", "splice", "copy_file_range", "fallocate", "dup2", "dup3")
)


@dataclass(frozen=True)
class Op:
    """One operation. `object` and the directories are numbers of their own, that outlive names.

    `get` marks a GET of a delivery URL (`name`: the job), `said` a line on standard output (`data`).
    """

    kind: Kind
    object: int = -1
    directory: int = -1
    name: str = ""
    to_directory: int = -1
    to_name: str = ""
    offset: int = 0
    data: bytes = b""

    def __str__(self) -> str:
        if self.kind in ("write", "truncate"):
            return f"{self.kind} #{self.object} at {self.offset}, {len(self.data)} bytes"
        return f"{self.kind} {self.name or '#' + str(self.object)}{' to ' + self.to_name if self.to_name else ''}"


@dataclass
class _Open:
    object: int
    offset: int = 0
    append: bool = False


@dataclass
class Recorder:
    """Runs the agent under strace and keeps what it does below `root`, over several runs of the same DEST."""

    root: Path
    work: Path
    ops: list[Op] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    _names: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    _next: int = 1
    _open: dict[int, _Open] = field(default_factory=dict)

    def run(self, arguments: Sequence[str], environment: Mapping[str, str], program: Sequence[str]) -> int:
        """One run of the agent; its exit code. RuntimeError for a change that cannot be modelled."""
        place = self.work / f"trace-{len(self.ends)}"
        place.mkdir()
        command = ["strace", "-ff", "-ttt", "-T", "-xx", "-s", str(_LONGEST), "--seccomp-bpf", "-f"]
        command += ["-e", "trace=%file,%desc,sendto,sendmsg", "-e", "signal=none", "-o", str(place / "t")]
        with (place / "out").open("wb") as out, (place / "err").open("wb") as err:
            done = subprocess.run(
                [*command, sys.executable, *program, *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(environment),
                cwd="/",
                timeout=120,
            )
        self._open.clear()
        for line in sorted(_lines(place), key=lambda timed: timed[0]):
            self._take(line[1])
        shutil.rmtree(place)
        self.ends.append(len(self.ops))
        return done.returncode

    # ------------------------------------------------------------ one call

    def _take(self, matched: re.Match[str]) -> None:
        call, result = matched["call"], int(matched["result"])
        if result < 0:
            return
        handler = getattr(self, f"_call_{call}", None)
        if handler is not None:
            handler(matched["arguments"], result)
        elif call in _CHANGES_NAMES and str(self.root) in _decoded(matched["arguments"]):
            raise RuntimeError(f"{call} below the root is not modelled: {matched['arguments'][:200]}")
        elif call in _CHANGES_DATA and self._target(matched["arguments"]):
            raise RuntimeError(f"{call} on a file below the root is not modelled: {matched['arguments'][:200]}")

    def _target(self, arguments: str) -> _Open | None:
        first = arguments.split(",", 1)[0].strip()
        return self._open.get(int(first)) if first.isdigit() else None

    def _find(self, descriptor: str, path: str) -> tuple[int, str] | None:
        """(directory, name) of a path below the root, else None."""
        if path.startswith("/"):
            if not path.startswith(f"{self.root}/"):
                return None
            at, parts = ROOT, path[len(str(self.root)) + 1 :].strip("/").split("/")
        else:
            opened = self._open.get(int(descriptor)) if descriptor.isdigit() else None
            if opened is None or opened.object not in self._names:
                return None
            at, parts = opened.object, path.strip("/").split("/")
        for part in parts[:-1]:
            at = self._names[at][part]
        return at, parts[-1]

    def _call_openat(self, arguments: str, result: int) -> None:
        self._open.pop(result, None)
        descriptor, path, rest = _at(arguments)
        if path in (str(self.root), "."):
            if path != ".":
                self._open[result] = _Open(ROOT)
            return
        found = self._find(descriptor, path)
        if found is None:
            return
        directory, name = found
        known = self._names[directory].get(name)
        if known is None:
            known = self._new()
            self._names[directory][name] = known
            self.ops.append(Op("create", known, directory, name))
        elif "O_TRUNC" in rest:
            self.ops.append(Op("truncate", known))
        self._open[result] = _Open(known, append="O_APPEND" in rest)

    def _call_open(self, arguments: str, result: int) -> None:
        self._call_openat(f"AT_FDCWD, {arguments}", result)

    def _call_close(self, arguments: str, result: int) -> None:
        if arguments.isdigit():
            self._open.pop(int(arguments), None)

    def _call_read(self, arguments: str, result: int) -> None:
        if opened := self._target(arguments):
            opened.offset += result

    def _call_lseek(self, arguments: str, result: int) -> None:
        if opened := self._target(arguments):
            opened.offset = result

    def _call_write(self, arguments: str, result: int) -> None:
        opened = self._target(arguments)
        if opened is None and not arguments.startswith("1,"):
            return
        data = _text(arguments)[:result]
        if opened is None:
            self.ops.append(Op("said", data=data))
            return
        if opened.append:
            raise RuntimeError("O_APPEND is not modelled")
        self.ops.append(Op("write", opened.object, offset=opened.offset, data=data))
        opened.offset += result

    def _call_pwrite64(self, arguments: str, result: int) -> None:
        if opened := self._target(arguments):
            at = int(arguments.rsplit(",", 1)[1])
            self.ops.append(Op("write", opened.object, offset=at, data=_text(arguments)[:result]))

    def _call_dup(self, arguments: str, result: int) -> None:
        self._open.pop(result, None)
        if opened := self._target(arguments):
            self._open[result] = opened

    def _call_fcntl(self, arguments: str, result: int) -> None:
        if "F_DUPFD" in arguments:
            self._call_dup(arguments, result)

    def _call_sendto(self, arguments: str, result: int) -> None:
        if found := _GET.match(_text(arguments)[:result]):
            self.ops.append(Op("get", name=found["job"].decode()))

    def _call_ftruncate(self, arguments: str, result: int) -> None:
        if opened := self._target(arguments):
            self.ops.append(Op("truncate", opened.object, offset=int(arguments.split(",")[1])))

    def _call_fsync(self, arguments: str, result: int) -> None:
        if opened := self._target(arguments):
            self.ops.append(Op("sync", opened.object))

    _call_fdatasync = _call_fsync

    def _call_mkdirat(self, arguments: str, result: int) -> None:
        descriptor, path, _ = _at(arguments)
        if found := self._find(descriptor, path):
            made = self._new()
            self._names[made] = {}
            self._names[found[0]][found[1]] = made
            self.ops.append(Op("mkdir", made, *found))

    def _call_mkdir(self, arguments: str, result: int) -> None:
        self._call_mkdirat(f"AT_FDCWD, {arguments}", result)

    def _call_renameat(self, arguments: str, result: int) -> None:
        descriptor, path, rest = _at(arguments)
        to_descriptor, to_path, _ = _at(rest)
        source, target = self._find(descriptor, path), self._find(to_descriptor, to_path)
        if source is None or target is None:
            if source or target:
                raise RuntimeError(f"a rename across the root: {path} to {to_path}")
            return
        moved = self._names[source[0]].pop(source[1])
        self._names[target[0]][target[1]] = moved
        self.ops.append(Op("rename", moved, *source, *target))

    def _call_renameat2(self, arguments: str, result: int) -> None:
        flags = arguments.rsplit(",", 1)[1].split("/*")[0].strip()
        if flags not in ("0", "0x1", "RENAME_NOREPLACE"):
            raise RuntimeError(f"renameat2 with flags {flags} is not modelled")
        self._call_renameat(arguments, result)

    def _call_linkat(self, arguments: str, result: int) -> None:
        descriptor, path, rest = _at(arguments)
        to_descriptor, to_path, _ = _at(rest)
        source, target = self._find(descriptor, path), self._find(to_descriptor, to_path)
        if source is None or target is None:
            if source or target:
                raise RuntimeError(f"a link across the root: {path} to {to_path}")
            return
        linked = self._names[source[0]][source[1]]
        self._names[target[0]][target[1]] = linked
        self.ops.append(Op("link", linked, *target))

    def _call_rename(self, arguments: str, result: int) -> None:
        first, second = (match.group() for match in _TEXT.finditer(arguments))
        self._call_renameat(f"AT_FDCWD, {first}, AT_FDCWD, {second}", result)

    def _call_unlinkat(self, arguments: str, result: int) -> None:
        descriptor, path, _ = _at(arguments)
        if found := self._find(descriptor, path):
            self.ops.append(Op("unlink", self._names[found[0]].pop(found[1]), *found))

    def _call_rmdir(self, arguments: str, result: int) -> None:
        self._call_unlinkat(f"AT_FDCWD, {arguments}", result)

    def _call_unlink(self, arguments: str, result: int) -> None:
        self._call_unlinkat(f"AT_FDCWD, {arguments}", result)

    def _call_mmap(self, arguments: str, result: int) -> None:
        parts = [part.strip() for part in arguments.split(",")]
        shared = "MAP_SHARED" in arguments and "PROT_WRITE" in arguments
        if shared and len(parts) > 4 and self._target(parts[4]):
            raise RuntimeError("a shared mapping of a file below the root is not modelled")

    def _new(self) -> int:
        self._next += 1
        return self._next - 1


def strace_works() -> bool:
    """Whether processes can be traced here."""
    if not shutil.which("strace"):
        return False
    command = ["strace", "-ff", "--seccomp-bpf", "-o", os.devnull, "true"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _lines(place: Path) -> Iterator[tuple[float, re.Match[str]]]:
    for path in sorted(place.glob("t.*")):
        for line in path.read_text("ascii").splitlines():
            if (matched := _LINE.match(line)) is not None:
                # a call counts from its end; a close from its begin, since another thread's open may get its number
                # before it has ended
                took = 0.0 if matched["call"] == "close" else float(matched["took"])
                yield float(matched["time"]) + took, matched


def _at(arguments: str) -> tuple[str, str, str]:
    """The descriptor, the path, and the rest of `AT, "path", …`."""
    descriptor, rest = arguments.split(",", 1)
    found = _TEXT.search(rest)
    assert found is not None
    return descriptor.strip(), _decoded(found.group()), rest[found.end() :].lstrip(", ")


def _text(arguments: str) -> bytes:
    found = _TEXT.search(arguments)
    return bytes.fromhex(found[1].replace("\\x", "")) if found else b""


def _decoded(arguments: str) -> str:
    """Arguments with their strings as text."""
    return _TEXT.sub(lambda found: os.fsdecode(bytes.fromhex(found[1].replace("\\x", ""))), arguments)
