"""The states that POSIX lets a power loss leave, at every point of a recorded run.

What an fsync of a file covered is there; later writes and truncations of it are there, partly there, or lost. What an
fsync of a directory covered is there; each later create, rename and unlink in it is there or not, by itself. A rename
is one thing: never half. An fsync of a file does not cover its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from .trace import ROOT, Op

Tree = dict[str, "bytes | Tree"]
"""Names to a file's bytes or to a directory's tree."""

DATA_MODES = ("there", "lost", "half", "zeros", "untruncated")
_NAMING = ("create", "mkdir", "link", "rename", "unlink")


@dataclass(frozen=True)
class State:
    """What a power loss after operation `point` may leave below the root; `label` says which choices were made."""

    point: int
    label: str
    tree: Tree

    @property
    def digest(self) -> int:
        """Equal for equal trees; of this process only."""
        return hash(_sorted(self.tree))


def _sorted(tree: Tree) -> tuple[object, ...]:
    """A tree as a value. Bytes keep their hash, so that those that many states share are read only once."""
    return tuple((name, _sorted(item) if isinstance(item, dict) else item) for name, item in sorted(tree.items()))


@dataclass
class _Disk:
    """What is durable, and what waits for an fsync, after some operations."""

    data: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    waiting_data: dict[int, list[Op]] = field(default_factory=dict)
    waiting_names: list[Op] = field(default_factory=list)
    contents: dict[tuple[int, str], bytes] = field(default_factory=dict)  # by object and mode, until it changes

    def take(self, op: Op) -> None:
        """The next operation."""
        for mode in DATA_MODES:
            self.contents.pop((op.object, mode), None)
        if op.kind in ("write", "truncate"):
            self.waiting_data.setdefault(op.object, []).append(op)
        elif op.kind in _NAMING:
            self.waiting_names.append(op)
            if op.kind == "create":
                self.data.setdefault(op.object, b"")
            elif op.kind == "mkdir":
                self.names.setdefault(op.object, {})
        elif op.kind == "sync" and op.object in self.names:
            self._sync_names(op.object)
        elif op.kind == "sync":
            self.data[op.object] = _content(self.data[op.object], self.waiting_data.pop(op.object, []), "there")

    def _sync_names(self, directory: int) -> None:
        covered = [op for op in self.waiting_names if directory in (op.directory, op.to_directory)]
        self.waiting_names = [op for op in self.waiting_names if op not in covered]
        _apply(self.names, covered)

    def tree(self, naming: Sequence[Op], modes: dict[int, str], default: str) -> Tree:
        """The tree when these waiting name operations came through, and each file's waiting data by its mode."""
        names = {directory: dict(entries) for directory, entries in self.names.items()}
        _apply(names, naming)
        return self._tree(ROOT, names, modes, default)

    def _tree(self, directory: int, names: dict[int, dict[str, int]], modes: dict[int, str], default: str) -> Tree:
        found: Tree = {}
        for name, item in names[directory].items():
            if item in names:
                found[name] = self._tree(item, names, modes, default)
            else:
                key = (item, modes.get(item, default))
                if key not in self.contents:
                    self.contents[key] = _content(self.data[item], self.waiting_data.get(item, []), key[1])
                found[name] = self.contents[key]
        return found


def _apply(names: dict[int, dict[str, int]], naming: Sequence[Op]) -> None:
    for op in naming:
        if op.kind in ("create", "mkdir", "link"):
            names[op.directory][op.name] = op.object
        else:
            if names[op.directory].get(op.name) == op.object:
                del names[op.directory][op.name]
            if op.kind == "rename":
                names[op.to_directory][op.to_name] = op.object


def _content(durable: bytes, waiting: Sequence[Op], mode: str) -> bytes:
    """A file's bytes when its waiting operations met this mode."""
    if mode == "lost" or not waiting:
        return durable
    if mode == "half":
        waiting = [*waiting[:-1], _halved(waiting[-1])]
    if mode == "untruncated":
        waiting = [op for op in waiting if op.kind == "write"]
    found = bytearray(durable)
    for op in waiting:
        if op.kind == "truncate":
            found = found[: op.offset].ljust(op.offset, b"\0")
            continue
        data = bytes(len(op.data)) if mode == "zeros" and op.offset >= len(durable) else op.data
        found = found.ljust(op.offset, b"\0")
        found[op.offset : op.offset + len(data)] = data
    return bytes(found)


def _halved(op: Op) -> Op:
    return Op(op.kind, op.object, offset=op.offset, data=op.data[: len(op.data) // 2])


def final_tree(ops: Sequence[Op]) -> Tree:
    """The tree when nothing is lost."""
    disk = _Disk()
    for op in ops:
        disk.take(op)
    return disk.tree(disk.waiting_names, {}, "there")


def crash_states(ops: Sequence[Op], after: Callable[[Op], bool] = lambda _: True) -> Iterator[State]:
    """Every state after every operation, the same one at the same number of GETs and words only once.

    With `after`, only those right after some operations.
    """
    disk, seen, marks = _Disk(), set(), 0
    for point, op in enumerate(ops, 1):
        disk.take(op)
        marks += op.kind in ("get", "said")
        if not after(op):
            continue
        for state in _states_at(point, disk):
            key = (marks, state.digest)
            if key not in seen:
                seen.add(key)
                yield state


def _states_at(point: int, disk: _Disk) -> Iterator[State]:
    naming = disk.waiting_names
    choices: dict[str, list[Op]] = {"all names": list(naming), "no new names": []}
    for number, left_out in enumerate(naming):
        choices[f"lost: {left_out}"] = [op for op in naming if op is not left_out]
        choices[f"first {number} names"] = naming[:number]
    for which, chosen in choices.items():
        for mode in DATA_MODES:
            yield State(point, f"{which}; data {mode}", disk.tree(chosen, {}, mode))
    for item in disk.waiting_data:
        for mode in DATA_MODES[1:]:
            yield State(point, f"all names; #{item} {mode}", disk.tree(naming, {item: mode}, "there"))
        yield State(point, f"all names; only #{item} there", disk.tree(naming, {item: "there"}, "lost"))
