"""Faults of the simulated Ops Manager: the whole table, parsed into one frozen dataclass.

A fault is written `NAME[=VALUE]`. `NAME[=VALUE]@N` applies it to job N of a batch only, counted from 0 in the order of
the shards; the config server's job is the last. Each field of `Faults` is one row of the table: its default, the
syntax of its value, and its help.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import Field, dataclass, fields, replace
from functools import cache
from typing import Any, NamedTuple

from .api import ApiFaults
from .archive import ArchiveFaults
from .delivery import DeliveryFaults
from .job import JobFaults
from .rows import FaultRow
from .syntax import Syntax
from .values import HashRule, Step

_PER_JOB = re.compile(r"(?P<fault>.*)@(?P<job>\d+)", re.DOTALL)


# bases in reverse order of the table: dataclasses collect fields from the last base to the first
@dataclass(frozen=True, kw_only=True)
class Faults(ApiFaults, ArchiveFaults, DeliveryFaults, JobFaults):
    """Behavior of a server; the default is a server without faults. Make it with `Faults.parse`."""

    written: tuple[str, ...] = ()

    @classmethod
    def parse(cls, faults: Iterable[str], *, jobs: int | None = None) -> Faults:
        """Return the behavior for `NAME[=VALUE][@N]` strings; with `jobs`, N must be less than that.

        Raises ValueError that names the wrong fault and the reason.
        """
        written = tuple(faults)
        for text in written:
            _check_job(text, _parse_one(text).job, jobs)
        return _build(written, None)

    def for_job(self, index: int) -> Faults:
        """Return the behavior for job `index` of a batch."""
        return _build(self.written, index) if self.written else self

    @property
    def attempts(self) -> tuple[Step, ...]:
        """Faults of successive attempts, as written; attempts after the last step succeed."""
        steps = self.cut + self.reset + self.clean_cut + self.stall + self.refuse
        return tuple(sorted(steps, key=lambda step: step.place))

    @property
    def api_troubles(self) -> tuple[Step, ...]:
        """Faults of the first requests of the API, as written."""
        steps = self.api_429 + self.api_500 + self.api_503 + self.api_reset + self.api_stall + self.api_refuse
        return tuple(sorted(steps, key=lambda step: step.place))

    @property
    def post_troubles(self) -> tuple[Step, ...]:
        """Faults of successive POSTs, as written."""
        return tuple(sorted(self.post_refuse + self.post_fail, key=lambda step: step.place))


def describe() -> list[FaultRow]:
    """Return the table of faults, in its order."""
    return [_row(spec) for spec in _specs().values()]


def _row(spec: Field[Any]) -> FaultRow:
    syntax: Syntax = spec.metadata["syntax"]
    return FaultRow(_name(spec), syntax.text, _shown(spec.default), spec.metadata["help"], not spec.metadata["server"])


def _shown(default: object) -> str:
    if default is None or default is False or default == ():
        return ""
    if isinstance(default, HashRule):
        return default.kind
    return f"{default:g}" if isinstance(default, int | float) else str(default)


def _name(spec: Field[Any]) -> str:
    return spec.name.replace("_", "-")


@cache
def _specs() -> dict[str, Field[Any]]:
    return {_name(spec): spec for spec in fields(Faults) if "syntax" in spec.metadata}


class _Written(NamedTuple):
    spec: Field[Any]
    value: object
    job: int | None


def _parse_one(text: str) -> _Written:
    scoped = _PER_JOB.fullmatch(text)
    job = int(scoped["job"]) if scoped else None
    name, mark, value = (scoped["fault"] if scoped else text).partition("=")
    spec = _specs().get(name)
    if spec is None:
        raise ValueError(f"unknown fault {name!r}{_near(name)}")
    if job is not None and spec.metadata["server"]:
        raise ValueError(f"fault {name} belongs to the server and cannot be limited to one job (@{job})")
    return _Written(spec, _value(spec, value if mark else None), job)


def _check_job(text: str, job: int | None, jobs: int | None) -> None:
    if job is not None and jobs is not None and job >= jobs:
        last = f"@0 to @{jobs - 1}" if jobs > 1 else "@0"
        raise ValueError(f"fault {text!r}: there is no job {job}; jobs are {last}")


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, _specs(), n=3, cutoff=0.5)
    return f"; did you mean {', '.join(near)}?" if near else "; --list-faults lists all faults"


def _value(spec: Field[Any], text: str | None) -> object:
    syntax: Syntax = spec.metadata["syntax"]
    try:
        if text is None and syntax.bare is None:
            raise ValueError("needs a value")
        return syntax.bare if text is None else syntax.parse(text)
    except ValueError as error:
        form = f"{_name(spec)}={syntax.text}" if syntax.text else _name(spec)
        raise ValueError(f"fault {_name(spec)}: bad value {text!r} ({error}); write {form}") from error


@cache
def _build(written: tuple[str, ...], job: int | None) -> Faults:
    values: dict[str, Any] = {}
    for place, text in enumerate(written):
        spec, value, scope = _parse_one(text)
        if scope not in (None, job):
            continue
        if isinstance(value, Step):
            value = replace(value, place=place)
        values[spec.name] = (*values.get(spec.name, ()), value) if spec.metadata["many"] else value
    return Faults(**values, written=written if job is None else ())
