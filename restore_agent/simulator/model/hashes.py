"""Hashes that the simulated server publishes for an archive."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from ..faults.faults import Faults

Entry = dict[str, str | None]


@dataclass(frozen=True)
class Sent:
    """Archive that was sent last: its SHA1 (None: no archive yet), and the seconds since then."""

    sha1: str | None
    seconds: float


def published_hashes(faults: Faults, sent: Sent, own_sha1: Callable[[], str], file_name: str) -> list[Entry] | None:
    """Return the `hashes` of a job's document, None if there are none; `own_sha1` returns that of its archive."""
    rule = faults.hash
    if faults.digest_none or rule.kind == "never":
        return None
    digest = sent.sha1
    waiting = digest is None or rule.seconds > sent.seconds
    if rule.kind == "early" and digest is None:
        digest = own_sha1()
    elif rule.kind == "early-wrong" and waiting:
        digest = other_sha1(own_sha1())  # the same until it is replaced, whatever each GET sends
    elif rule.kind == "late" and waiting:
        digest = None
    if digest is None:
        return None
    entries = [_entry(rule.kind, digest, file_name)]
    for _ in range(faults.hash_entries - 1):
        digest = other_sha1(digest)
        entries.insert(0, _entry("ready", digest, file_name))
    return entries


def _entry(kind: str, digest: str, file_name: str) -> Entry:
    shown: dict[str, str | None] = {"wrong": other_sha1(digest), "upper": digest.upper(), "null": None}
    name = "other-" + file_name.rsplit("/", 1)[-1] if kind == "other-name" else file_name
    return {"fileName": name, "hash": shown.get(kind, digest), "typeName": "SHA1"}


def other_sha1(digest: str) -> str:
    """Return another SHA1, always the same for the same one."""
    return hashlib.sha1(digest.encode(), usedforsecurity=False).hexdigest()
