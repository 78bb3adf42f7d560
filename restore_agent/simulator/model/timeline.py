"""Statuses of a restore job and its delivery as functions of faults and time."""

from __future__ import annotations

from dataclasses import dataclass

from ..faults.faults import Faults


@dataclass(frozen=True)
class Moment:
    """State of a delivery now: seconds since its creation, and whether it has expired or is used up."""

    age: float
    expired: bool
    used_up: bool


def ready_at(faults: Faults, position: int) -> float:
    """Return the age in seconds at which a delivery becomes READY."""
    return faults.ready_after + position * faults.stagger


def delivery_status(faults: Faults, position: int, moment: Moment) -> str:
    """Return the delivery's `statusName`."""
    age = moment.age
    if age < faults.unknown_status:
        return "STAGED_FOR_PICKUP"
    if _reached(faults.delivery_failed, age):
        return "FAILED"
    if _reached(faults.interrupted, age):
        return "INTERRUPTED"
    if faults.expired or moment.expired:
        return "EXPIRED"
    ready = ready_at(faults, position)
    if faults.never_ready or age < ready:
        return "NOT_STARTED" if age < ready / 2 else "IN_PROGRESS"
    return "MAX_DOWNLOADS_EXCEEDED" if moment.used_up else "READY"


def job_status(faults: Faults, age: float, delivery: str, *, downloaded: bool) -> str:
    """Return the job's `statusName`; `delivery` is that of its delivery."""
    if age < faults.unknown_status:
        return "AWAITING_OPERATOR"
    if _reached(faults.broken, age):
        return "BROKEN"
    if _reached(faults.killed, age):
        return "KILLED"
    done = {
        "ready": downloaded or delivery in ("READY", "EXPIRED", "MAX_DOWNLOADS_EXCEEDED"),
        "downloaded": downloaded or delivery == "EXPIRED",
        "never": False,
    }
    return "FINISHED" if done[faults.finished] else "IN_PROGRESS"


def _reached(after: float | None, age: float) -> bool:
    return after is not None and age >= after
