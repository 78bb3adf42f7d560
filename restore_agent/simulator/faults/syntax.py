"""How the value of a fault is written: small parsers, each with the text that `--list-faults` shows for it.

A parser takes the text after `=` and returns the value, or raises ValueError saying what it wanted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

ALWAYS = math.inf

_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True)
class Syntax:
    """`text` is the value's form for people; `bare` is the value meant when none is written (None: one must be)."""

    text: str
    parse: Callable[[str], object]
    bare: object = None

    def optional(self, bare: object) -> Syntax:
        """The same syntax with a value that may be left out, and then means `bare`."""
        return Syntax(f"[{self.text}]", self.parse, bare)


@dataclass(frozen=True)
class Portion:
    """A part of a body: a percentage of it, or a number of bytes."""

    amount: float
    relative: bool

    def of(self, size: int) -> int:
        """Bytes of a body of `size` bytes, never more than it has."""
        wanted = size * self.amount / 100 if self.relative else self.amount
        return min(size, int(wanted))


NOTHING_YET = Portion(0, relative=False)


@dataclass(frozen=True)
class Step:
    """What happens to the next `times` attempts; `place` orders the steps of all faults as they were written."""

    kind: str
    times: float = 1
    at: Portion = NOTHING_YET
    status: int = 0
    place: int = 0


@dataclass(frozen=True)
class HashRule:
    """How hashes are published: `kind` is one of HASH_KINDS, `seconds` goes with `late` and `early-wrong`."""

    kind: str
    seconds: float = 0.0


@dataclass(frozen=True)
class FieldOverride:
    """A value forced into each job document at a dotted path; `remove` takes the field away instead."""

    path: tuple[str, ...]
    value: object = None
    remove: bool = False


HASH_KINDS = ("ready", "late", "early", "early-wrong", "never", "wrong", "upper", "other-name", "null")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return value


def _seconds(text: str) -> float:
    value = _number(text.removesuffix("s"))
    if value < 0:
        raise ValueError("must not be negative")
    return value


def _skew(text: str) -> float:
    return _number(text.removesuffix("s"))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("must be at least 1")
    return value


def _times(text: str) -> float:
    return ALWAYS if text in ("0", "always") else _positive(text)


def _size(text: str) -> int:
    matched = re.fullmatch(r"(\d+)([kmg]?)", text.lower())
    if matched is None:
        raise ValueError("a size is digits with an optional K, M or G")
    return int(matched[1]) * _SIZE_UNITS[matched[2]]


def _rate(text: str) -> int:
    value = _size(text)
    if value < 1:
        raise ValueError("must be at least 1")
    return value


def _split_times(text: str) -> tuple[str, float]:
    what, mark, times = text.partition("x")
    return what, _times(times) if mark else 1


def _portion(text: str) -> Portion:
    if not text.endswith("%"):
        return Portion(_size(text), relative=False)
    percent = _number(text.removesuffix("%"))
    if not 0 <= percent <= 100:
        raise ValueError("a percentage is between 0 and 100")
    return Portion(percent, relative=True)


def _status(text: str) -> int:
    value = int(text)
    if not 200 <= value <= 599:
        raise ValueError("an HTTP status is between 200 and 599")
    return value


def _hash_rule(text: str) -> HashRule:
    kind, mark, wait = text.partition(":")
    if kind not in HASH_KINDS:
        raise ValueError(f"one of {', '.join(HASH_KINDS)}")
    if mark and kind not in ("late", "early-wrong"):
        raise ValueError(f"{kind} takes no seconds")
    return HashRule(kind, _seconds(wait) if mark else 1.0)


def _field_override(text: str) -> FieldOverride:
    path, mark, value = text.partition(":")
    if not path or not mark:
        raise ValueError("a dotted path, a colon, and JSON")
    keys = tuple(path.split("."))
    if value == "__missing__":
        return FieldOverride(keys, remove=True)
    return FieldOverride(keys, json.loads(value))


def _no_value(_text: str) -> object:
    raise ValueError("it takes no value")


FLAG = Syntax("", _no_value, bare=True)

SECONDS = Syntax("SECONDS", _seconds)

SKEW = Syntax("±SECONDS", _skew)

COUNT = Syntax("N", _positive)

TIMES = Syntax("N|always", _times)

SIZE = Syntax("BYTES", _size)

RATE = Syntax("BYTES_PER_SECOND", _rate)

STATUS = Syntax("STATUS", _status)

TEXT = Syntax("TEXT", str)

HASH = Syntax("RULE[:SECONDS]", _hash_rule)

FIELD = Syntax("FIELD:JSON|FIELD:__missing__", _field_override)


def choice(*words: str) -> Syntax:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return Syntax("|".join(words), parse)


def ending(kind: str) -> Syntax:
    """A transfer that ends after a portion of its body, once or several times."""

    def parse(text: str) -> Step:
        portion, times = _split_times(text)
        return Step(kind, times, at=_portion(portion))

    return Syntax("PERCENT%|BYTES[xTIMES]", parse)


def refusal() -> Syntax:
    """A delivery that answers an HTTP status instead of a body, once or several times."""

    def parse(text: str) -> Step:
        status, times = _split_times(text)
        return Step("refuse", times, status=_status(status))

    return Syntax("STATUS[xTIMES]", parse)


def first_requests(kind: str, status: int = 0) -> Syntax:
    """The first N requests of the API meet this instead of an answer."""

    def parse(text: str) -> Step:
        return Step(kind, _times(text), status=status)

    return Syntax("N|always", parse)
