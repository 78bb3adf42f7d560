"""The journal file `.restore-agent/journal.jsonl`.

JSON Lines: the first line names the schema and the restore that DEST belongs to, every other line is a fact about one
job. Each line is synced before the agent acts on it. A last line that a crash left incomplete or unreadable is set
aside; any other damage is an error, because a forgotten download is worse.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from ...core.clock import rfc3339
from ...core.errors import DestError, RecordUnreadable
from ...core.receipt import RestoreId
from ...core.untrusted import parse_document
from ..directory import Directory, errors_of_dest
from .facts import Entry, Fact, Summary
from .reading import read_fact

JOURNAL = "journal.jsonl"
DAMAGED = "journal.damaged"
SCHEMA = "restore-agent/journal/1"
_COMPACT_ABOVE = 4 << 20  # bytes; a reader accepts 16 MiB, and a line per sync adds 100 bytes per 32 to 256 MiB


class Journal:
    """The journal of DEST. `record` returns only after the line is on disk.

    `restore` is what DEST belongs to, or None if the journal was written by a version that did not record it. `torn`
    says that the last line was damaged by a crash and is set aside.
    """

    def __init__(self, lines: Iterable[Mapping[str, Any]] = (), *, torn: bool = False) -> None:
        self.restore: RestoreId | None = None
        self.torn = torn
        self._entries: dict[str, Entry] = {}
        self._state: Directory | None = None
        self._fd = -1
        self._thread: ThreadPoolExecutor | None = None
        self._writing = asyncio.Lock()
        for line in lines:
            self._apply(line)

    @classmethod
    def open(cls, state: Directory, restore: RestoreId | None = None) -> Journal:
        """Open the journal for writing, or begin one for `restore`. Raises DestError, RecordUnreadable."""
        raw = state.read(JOURNAL)
        lines, size = _parse(raw or b"")
        journal = cls(lines, torn=size < len(raw or b""))
        journal._state = state
        journal._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        if raw and journal.torn:
            state.write_atomically(DAMAGED, raw[size:])
        with errors_of_dest("open the journal"):
            journal._fd = state.open_file(JOURNAL, os.O_WRONLY | os.O_CREAT)
            if raw is not None and size < len(raw):
                os.ftruncate(journal._fd, size)
            os.lseek(journal._fd, size, os.SEEK_SET)
            if size == 0:
                _write(journal._fd, [_header(restore)])
                journal.restore = restore
            state.sync()  # each time: a run that was killed right here may have left a journal without its name
        if size > _COMPACT_ABOVE:
            journal._compact_if_possible()
        return journal

    @classmethod
    def peek(cls, state: Directory | None) -> Journal:
        """Read the journal without changing it; an empty one if there is none. Raises as `open`."""
        raw = (state.read(JOURNAL) if state else None) or b""
        lines, size = _parse(raw)
        return cls(lines, torn=size < len(raw))

    def entry(self, job_id: str) -> Entry:
        """Return what is known of a job; an empty entry for an unknown one."""
        return self._entries.get(job_id, Entry())

    def entries(self) -> Mapping[str, Entry]:
        """Return the entry of every job that has one, as a copy: facts are added in another thread."""
        return dict(self._entries)

    def file_names(self) -> dict[str, str]:
        """Return the name of the archive of every job that has one."""
        return {job_id: entry.file_name for job_id, entry in self._entries.items() if entry.file_name}

    async def record(self, job_id: str, fact: Fact, now: float) -> Entry:
        """Append one fact and sync it. `now` is in seconds since the epoch. Raises DestError."""
        await self.record_all({job_id: fact}, now)
        return self.entry(job_id)

    async def record_all(self, facts: Mapping[str, Fact], now: float) -> None:
        """Append one fact for each of several jobs with one sync. Raises DestError."""
        time = rfc3339(now)
        lines = [{"fact": one.fact, "job_id": job_id, "time": time, **one.values()} for job_id, one in facts.items()]
        await self._in_order(lambda: self._append(lines))

    async def belongs_to(self, restore: RestoreId) -> None:
        """Record which restore DEST belongs to, once its batch is known. Raises DestError."""
        if self.restore != restore:
            await self._in_order(lambda: self._append([_header(restore)]))

    async def _in_order(self, write: Callable[[], None]) -> None:
        # shielded: once a line is on its way to the disk, a caller that is cancelled must not make us forget it
        await asyncio.shield(self._write_in_thread(write))

    async def _write_in_thread(self, write: Callable[[], None]) -> None:
        async with self._writing:
            if self._thread is None:
                raise RecordUnreadable("the journal was opened for reading only")
            await asyncio.get_running_loop().run_in_executor(self._thread, write)

    def _append(self, lines: list[dict[str, Any]]) -> None:
        with errors_of_dest("write the journal"):
            if self._fd < 0:
                self._reopen()
            size = _write(self._fd, lines)
        for line in lines:
            self._apply(line)
        if size > _COMPACT_ABOVE:
            self._compact_if_possible()

    def _compact_if_possible(self) -> None:
        with suppress(DestError):  # the long journal is as good as the short one
            self._compact()

    def _compact(self) -> None:
        """Replace the journal by one line per job. Raises DestError; then the next line goes to the file on disk."""
        assert self._state is not None  # noqa: S101  # it is open
        lines = [_header(self.restore)]
        for job_id, entry in self._entries.items():
            lines.append({"fact": Summary.fact, "job_id": job_id, "time": "", **Summary(entry).values()})
        os.close(self._fd)  # before: after a failure it is not known which of the two files has the name
        self._fd = -1
        self._state.write_atomically(JOURNAL, b"".join(map(_encoded, lines)))
        with errors_of_dest("open the journal"):
            self._reopen()

    def _reopen(self) -> None:
        """Open the journal that a compaction left, at its end. Raises OSError, DestError."""
        assert self._state is not None  # noqa: S101  # it is open
        self._state.sync()  # a line must not be lost with the name of its file
        self._fd = self._state.open_file(JOURNAL, os.O_WRONLY)
        os.lseek(self._fd, 0, os.SEEK_END)

    async def finish(self) -> None:
        """Close the file after a line that is being written is on disk."""
        async with self._writing:
            self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None
            if self._fd >= 0:
                os.close(self._fd)

    def _apply(self, line: Mapping[str, Any]) -> None:
        if "schema" in line:
            self.restore = _restore_of(line) or self.restore
        elif (fact := read_fact(line)) is not None:
            self._entries[line["job_id"]] = fact.apply(self.entry(line["job_id"]), line.get("time", ""))


def _header(restore: RestoreId | None) -> dict[str, Any]:
    return {"schema": SCHEMA, "restore": restore.values() if restore else None}


def _restore_of(line: Mapping[str, Any]) -> RestoreId | None:
    values = line.get("restore")
    return None if values is None else RestoreId.read(values)


def _parse(raw: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the lines of a journal, and the length of the readable part in bytes. Raises RecordUnreadable."""
    size = raw.rfind(b"\n") + 1
    texts = raw[:size].split(b"\n")[:-1]
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(texts, 1):
        try:
            line = parse_document(text)
            _check(line, first=number == 1)
        except (ValueError, KeyError, TypeError):
            if number == len(texts):  # written by a crash: the agent acts on a line only after it is synced
                return lines, size - len(text) - 1
            raise RecordUnreadable(f"the journal in DEST is damaged at line {number}") from None
        lines.append(line)
    return lines, size


def _check(line: Any, *, first: bool) -> None:
    """Raise TypeError or KeyError for a line that cannot be applied, RecordUnreadable for another schema."""
    if not isinstance(line, dict):
        raise TypeError("line")
    if first and line.get("schema", "none") != SCHEMA:
        if "schema" not in line:
            raise RecordUnreadable(f"the journal in DEST has no schema, this version reads {SCHEMA!r}")
        hint = "Use the version of restore-agent that wrote it, or choose another --dest."
        text = f"the journal in DEST has the schema {str(line['schema'])[:60]!r}, this version reads {SCHEMA!r}"
        raise RecordUnreadable(text, hint=hint)
    if "schema" in line:
        _restore_of(line)
    elif not isinstance(line["job_id"], str) or not isinstance(line.get("time", ""), str):
        raise TypeError("job_id or time")
    elif (fact := read_fact(line)) is not None:
        fact.apply(Entry(), "")


def _encoded(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _write(descriptor: int, lines: Iterable[Mapping[str, Any]]) -> int:
    """Append lines and sync them; return the size of the file. Raises OSError, and then nothing was appended."""
    rest = memoryview(b"".join(map(_encoded, lines)))
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    size = before + len(rest)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        os.lseek(descriptor, before, os.SEEK_SET)
        os.ftruncate(descriptor, before)  # a partial line would corrupt the next one
        raise
    return size
