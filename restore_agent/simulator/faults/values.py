"""Values of faults: portions of a body, steps of a sequence, rules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

ALWAYS = math.inf


@dataclass(frozen=True)
class Portion:
    """Part of a body: a percentage of it, or a number of bytes."""

    amount: float
    relative: bool

    def of(self, size: int) -> int:
        """Return the bytes that this is of a body of `size` bytes, at most `size`."""
        wanted = size * self.amount / 100 if self.relative else self.amount
        return min(size, int(wanted))


NOTHING_YET = Portion(0, relative=False)


@dataclass(frozen=True)
class Step:
    """Fault of the next `times` attempts; `place` orders the steps of all faults as they were written."""

    kind: str
    times: float = 1
    at: Portion = NOTHING_YET
    status: int = 0
    place: int = 0


def step_at(steps: Iterable[Step], number: int) -> Step | None:
    """Return the step that applies to attempt `number` (from 0), or None after the last step."""
    for step in steps:
        if number < step.times:
            return step
        number -= int(step.times)
    return None


@dataclass(frozen=True)
class Span:
    """Consecutive readings: `times` of them from reading `first` (from 1) on."""

    first: int
    times: float = 1

    def __contains__(self, reading: object) -> bool:
        return isinstance(reading, int) and self.first <= reading < self.first + self.times


@dataclass(frozen=True)
class SnapshotRule:
    """Snapshot of one of SNAPSHOT_KINDS, taken `hours` before the start."""

    kind: str
    hours: float


SNAPSHOT_KINDS = ("complete", "incomplete", "inconsistent", "missing")


@dataclass(frozen=True)
class Echo:
    """Place in an answer that repeats the token of the request, and the form in which it does."""

    place: str
    form: str = "plain"


ECHO_PLACES = ("status-line", "content-type", "etag", "header", "body")

ECHO_FORMS = ("plain", "decoded", "hex", "base64", "upper")


@dataclass(frozen=True)
class HashRule:
    """Rule for publishing hashes: `kind` is one of HASH_KINDS; `seconds` applies to `late` and `early-wrong`."""

    kind: str
    seconds: float = 0.0


HASH_KINDS = ("ready", "late", "early", "early-wrong", "never", "wrong", "upper", "other-name", "null")


MEMBER_KINDS = (
    "long-name",
    "pax-name",
    "hard-link",
    "duplicate",
    "empty",
    "setuid",
    "sparse-gnu",
    "sparse-pax",
    "absolute",
    "dotdot",
    "symlink",
    "through-symlink",
    "through-file",
    "link-outside",
    "device",
    "fifo",
)


@dataclass(frozen=True)
class FieldOverride:
    """Value that replaces the field at a dotted path of each job document; `remove` deletes the field instead."""

    path: tuple[str, ...]
    value: object = None
    remove: bool = False
