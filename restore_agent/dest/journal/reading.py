"""Journal lines to facts: each field is checked against the type of the fact's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from . import facts
from .facts import Entry, Fact, Identity, Staged, Summary, Unpacking

FACTS: dict[str, type[Fact]] = {
    kind.fact: kind for kind in vars(facts).values() if isinstance(kind, type) and issubclass(kind, Fact) and kind.fact
}

_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "float | None": (int, float, type(None)),
}


def read_fact(line: Mapping[str, Any]) -> Fact | None:
    """Return the fact of a journal line, or None for one that this version does not know.

    Raises KeyError, TypeError: a field is missing or has the wrong type.
    """
    kind = FACTS.get(_typed(line["fact"], "str"))
    if kind is None:
        return None
    if kind is Summary:
        return Summary(_read_entry(line["entry"]))
    fact: Fact = _read(kind, line)
    return fact


def _read(kind: Any, values: Mapping[str, Any]) -> Any:
    """Return a dataclass from plain values, each checked against its annotation."""
    found = {}
    for item in fields(kind):
        if item.name in values:
            found[item.name] = _typed(values[item.name], str(item.type))
    return kind(**found)


def _typed(value: Any, annotation: str) -> Any:
    if annotation == "dict[str, str] | None":
        pairs = {} if value is None else value
        if not isinstance(pairs, dict) or not all(isinstance(one, str) for pair in pairs.items() for one in pair):
            raise TypeError(annotation)
        return value
    wanted = _KINDS[annotation]
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise TypeError(annotation)
    return value


def _read_entry(values: Any) -> Entry:
    if not isinstance(values, dict):
        raise TypeError("entry")
    plain = {name: value for name, value in values.items() if name not in ("promoted", "unpacked", "staged")}
    entry: Entry = _read(Entry, plain)
    promoted, unpacked, staged = values.get("promoted"), values.get("unpacked") or [], values.get("staged")
    return replace(
        entry,
        promoted=None if promoted is None else _read(Identity, promoted),
        unpacked=tuple(_read(Unpacking, one) for one in unpacked),
        staged=None if staged is None else _read(Staged, staged),
    )
