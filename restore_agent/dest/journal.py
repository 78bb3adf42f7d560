"""What must outlive a crash: the lock, the ledger of spent downloads and the status file, in `.restore-agent/`.

The journal is JSON Lines, one fact per line, each synced before the agent acts on it. A torn last line is what a
crash leaves and is dropped; anything else that does not read is an error, because a forgotten download is worse.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..core.clock import rfc3339
from ..core.errors import RecordUnreadable
from ..core.untrusted import parse_document
from .directory import Directory, errors_of_dest

JOURNAL = "journal.jsonl"

SCHEMA = "restore-agent/journal/1"


@dataclass(frozen=True)
class Identity:
    """Which very file was published: any write, rename or replacement since changes its `changed_ns`."""

    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """The identity of a file by its stat."""
        return cls(status.st_ino, status.st_size, status.st_ctime_ns)


@dataclass(frozen=True)
class Entry:
    """What the journal knows of one job.

    `attempts` counts the GETs that may have been counted by the server. `hash_before` is what was published when
    the last of them began. `validator` and `total` are those of the answer that the part file comes from; `boot` is
    the boot of the host in which its bytes were written, and `synced` how many of them are known to be on disk.
    `whole` and `proven` are SHA1s: of a completed, synced part file, and of what was matched to a published hash.
    """

    file_name: str | None = None
    served_as: str | None = None
    attempts: int = 0
    hash_before: str | None = None
    validator: str | None = None
    total: int | None = None
    resumed: bool = False
    whole: str | None = None
    seconds: float | None = None
    received: int | None = None
    boot: str | None = None
    synced: int = 0
    proven: str | None = None
    published: Identity | None = None


class Journal:
    """The ledger of DEST. `record` returns only once the line is on disk."""

    def __init__(self, lines: list[dict[str, Any]], descriptor: int | None = None, torn: bool = False) -> None:
        self._fd = descriptor
        self._entries: dict[str, Entry] = {}
        self._writing = asyncio.Lock()
        self.torn = torn
        for line in lines:
            self._apply(line)

    @classmethod
    def open(cls, state: Directory) -> Journal:
        """Open or begin the journal for writing; a torn last line is cut off. Raises DestError, RecordUnreadable."""
        raw = state.read(JOURNAL)
        lines, whole = _parse(raw or b"")
        with errors_of_dest("open the journal"):
            descriptor = state.open_file(JOURNAL, os.O_WRONLY | os.O_CREAT)
            if raw is not None and whole < len(raw):
                os.ftruncate(descriptor, whole)
            os.lseek(descriptor, whole, os.SEEK_SET)
            if whole == 0:
                _write_line(descriptor, {"schema": SCHEMA})
            state.sync()  # each time: a run that was killed right here may have left a journal without its name
        return cls(lines, descriptor, torn=whole < len(raw or b""))

    @classmethod
    def peek(cls, state: Directory | None) -> Journal:
        """Read the journal without changing anything; an empty one when there is none. Raises as `open`."""
        raw = (state.read(JOURNAL) if state else None) or b""
        lines, whole = _parse(raw)
        return cls(lines, torn=whole < len(raw))

    def entry(self, job_id: str) -> Entry:
        """What is known of a job; an empty entry for an unknown one."""
        return self._entries.get(job_id, Entry())

    def entries(self) -> Mapping[str, Entry]:
        """Every job with at least one line."""
        return self._entries

    async def record(self, fact: str, job_id: str, now: float, **values: Any) -> Entry:
        """Append one fact and sync it. `now` is seconds since the epoch. Raises DestError."""
        # shielded: once a line is on its way to the disk, a caller that is cancelled must not make us forget it
        await asyncio.shield(self._append({"fact": fact, "job_id": job_id, "time": rfc3339(now), **values}))
        return self.entry(job_id)

    async def _append(self, line: dict[str, Any]) -> None:
        async with self._writing:
            if self._fd is None:
                raise RecordUnreadable("the journal was opened for reading only")
            with errors_of_dest("write the journal"):
                await asyncio.to_thread(_write_line, self._fd, line)
            self._apply(line)

    async def finish(self) -> None:
        """Close the file, once a line that is on its way is on disk."""
        async with self._writing:
            self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _apply(self, line: Mapping[str, Any]) -> None:
        if "schema" in line:
            return
        entry = self.entry(line["job_id"])
        self._entries[line["job_id"]] = _FACTS.get(line["fact"], _nothing)(entry, line)


def _text(line: Mapping[str, Any], name: str) -> str:
    if not isinstance(line[name], str):
        raise TypeError(name)
    return str(line[name])


def _or_none(line: Mapping[str, Any], name: str, kind: type) -> Any:
    value = line[name]
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise TypeError(name)
    return value


def _number(line: Mapping[str, Any], name: str) -> int:
    if not isinstance(line[name], int) or isinstance(line[name], bool):
        raise TypeError(name)
    return int(line[name])


def _nothing(entry: Entry, _: Mapping[str, Any]) -> Entry:
    return entry


def _attempt(entry: Entry, line: Mapping[str, Any]) -> Entry:
    return replace(
        entry,
        file_name=_text(line, "file_name"),
        served_as=_text(line, "served_as"),
        attempts=entry.attempts + 1,
        hash_before=_or_none(line, "hash_before", str),
    )


def _unsent(entry: Entry, _: Mapping[str, Any]) -> Entry:
    return replace(entry, attempts=max(0, entry.attempts - 1))


def _answered(entry: Entry, line: Mapping[str, Any]) -> Entry:
    resumed = line["resumed"] is True
    return replace(
        entry,
        validator=_or_none(line, "validator", str),
        total=_or_none(line, "total", int),
        resumed=resumed,
        whole=None,
        boot=_or_none({"boot": None, **line}, "boot", str),
        synced=entry.synced if resumed else 0,
    )


def _synced(entry: Entry, line: Mapping[str, Any]) -> Entry:
    return replace(entry, synced=_number(line, "offset"))


def _whole(entry: Entry, line: Mapping[str, Any]) -> Entry:
    seconds = line["seconds"]
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError("seconds")
    return replace(entry, whole=_text(line, "sha1"), seconds=seconds, received=_number(line, "received"))


def _proven(entry: Entry, line: Mapping[str, Any]) -> Entry:
    return replace(entry, file_name=_text(line, "file_name"), proven=_text(line, "sha1"), published=None)


def _published(entry: Entry, line: Mapping[str, Any]) -> Entry:
    return replace(
        entry, published=Identity(_number(line, "inode"), _number(line, "size"), _number(line, "changed_ns"))
    )


def _cut(entry: Entry, _: Mapping[str, Any]) -> Entry:
    return replace(entry, whole=None)


def _discarded(entry: Entry, _: Mapping[str, Any]) -> Entry:
    return replace(entry, validator=None, total=None, resumed=False, whole=None, proven=None, published=None, synced=0)


_FACTS = {
    "attempt": _attempt,
    "unsent": _unsent,
    "answered": _answered,
    "synced": _synced,
    "whole": _whole,
    "proven": _proven,
    "published": _published,
    "cut": _cut,
    "discarded": _discarded,
}


def _parse(raw: bytes) -> tuple[list[dict[str, Any]], int]:
    """The lines of a journal, and how many bytes of it are whole lines. Raises RecordUnreadable."""
    whole = raw.rfind(b"\n") + 1
    texts = raw[:whole].split(b"\n")[:-1]
    if texts:
        _check_schema(texts[0])
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = parse_document(text)
            _check(line)
        except (ValueError, KeyError, TypeError):
            raise RecordUnreadable(f"the journal in DEST is damaged at line {number}") from None
        lines.append(line)
    return lines, whole


def _check_schema(first: bytes) -> None:
    """Raise RecordUnreadable unless the first line is that of a journal of this version."""
    try:
        line = parse_document(first)
    except ValueError:
        raise RecordUnreadable("the journal in DEST is damaged at line 1") from None
    seen = line.get("schema", "none") if isinstance(line, dict) else "none"
    if seen != SCHEMA:
        hint = "Use the version of restore-agent that wrote it, or choose another --dest."
        text = f"the journal in DEST has the schema {str(seen)[:60]!r}, this version reads {SCHEMA!r}"
        raise RecordUnreadable(text, hint=hint)


def _check(line: Any) -> None:
    """Raise what `_apply` would raise, so that opening a journal is where damage shows."""
    if not isinstance(line, dict):
        raise TypeError("line")
    if "schema" in line:
        _text(line, "schema")
    else:
        _text(line, "job_id")
        _FACTS.get(_text(line, "fact"), _nothing)(Entry(), line)


def _write_line(descriptor: int, line: Mapping[str, Any]) -> None:
    data = memoryview(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    except OSError:
        os.lseek(descriptor, before, os.SEEK_SET)
        os.ftruncate(descriptor, before)  # half a line must not swallow the next one
        raise
