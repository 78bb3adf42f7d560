"""Syntax of fault values: small parsers, each with the form that `--list-faults` shows.

A parser accepts the text after `=` and returns the value, or raises ValueError with the expected form.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from .values import (
    ALWAYS,
    ECHO_FORMS,
    ECHO_PLACES,
    HASH_KINDS,
    SNAPSHOT_KINDS,
    Echo,
    FieldOverride,
    HashRule,
    Portion,
    SnapshotRule,
    Span,
    Step,
)

_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True)
class Syntax:
    """Form of a value: `text` for people; `bare` is the value if none is written (None: a value is required)."""

    text: str
    parse: Callable[[str], object]
    bare: object = None

    def optional(self, bare: object) -> Syntax:
        """Return the same syntax with an optional value; `bare` if it is left out."""
        return Syntax(f"[{self.text}]", self.parse, bare)


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


def _span(text: str) -> Span:
    first, times = _split_times(text)
    return Span(_positive(first), times)


def _offset(text: str) -> int:
    value = int(text)
    if not value:
        raise ValueError("must not be 0")
    return value


def _echo(text: str) -> Echo:
    place, mark, form = text.partition(":")
    if place not in ECHO_PLACES:
        raise ValueError(f"one of {', '.join(ECHO_PLACES)}")
    if mark and form not in ECHO_FORMS:
        raise ValueError(f"its form is one of {', '.join(ECHO_FORMS)}")
    return Echo(place, form or "plain")


_SNAPSHOT_INTERVAL = 6.0


def _snapshots(text: str) -> tuple[SnapshotRule, ...]:
    rules: list[SnapshotRule] = []
    for part in [] if text == "none" else text.split(","):
        written, _, times = part.partition("*")
        kind, mark, hours = written.partition(":")
        if kind not in SNAPSHOT_KINDS:
            raise ValueError(f"one of {', '.join(SNAPSHOT_KINDS)}")
        for number in range(_positive(times) if times else 1):
            age = _seconds(hours) if mark and not number else (rules[-1].hours if rules else 0) + _SNAPSHOT_INTERVAL
            rules.append(SnapshotRule(kind, age))
    return tuple(rules)


def _no_value(_text: str) -> object:
    raise ValueError("it takes no value")


FLAG = Syntax("", _no_value, bare=True)

SECONDS = Syntax("SECONDS", _seconds)

SKEW = Syntax("±SECONDS", _skew)

COUNT = Syntax("N", _positive)

OFFSET = Syntax("±N", _offset)

READINGS = Syntax("READING[xTIMES]", _span)

SNAPSHOTS = Syntax("none|KIND[:HOURS][*N],…", _snapshots)

ECHO = Syntax("PLACE[:FORM]", _echo)

TIMES = Syntax("N|always", _times)

SIZE = Syntax("BYTES", _size)

RATE = Syntax("BYTES_PER_SECOND", _rate)

STATUS = Syntax("STATUS", _status)

TEXT = Syntax("TEXT", str)

HASH = Syntax("RULE[:SECONDS]", _hash_rule)

FIELD = Syntax("FIELD:JSON|FIELD:__missing__", _field_override)


def choice(*words: str) -> Syntax:
    """Return the syntax of one of several words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return Syntax("|".join(words), parse)


def ending(kind: str) -> Syntax:
    """Return the syntax of a transfer that ends after a portion of its body, once or several times."""

    def parse(text: str) -> Step:
        portion, times = _split_times(text)
        return Step(kind, times, at=_portion(portion))

    return Syntax("PERCENT%|BYTES[xTIMES]", parse)


def refusal(kind: str = "refuse") -> Syntax:
    """Return the syntax of an HTTP status that replaces an answer, once or several times."""

    def parse(text: str) -> Step:
        status, times = _split_times(text)
        return Step(kind, times, status=_status(status))

    return Syntax("STATUS[xTIMES]", parse)


def first_requests(kind: str, status: int = 0) -> Syntax:
    """Return the syntax of a fault of the first N requests of the API."""

    def parse(text: str) -> Step:
        return Step(kind, _times(text), status=status)

    return Syntax("N|always", parse)
