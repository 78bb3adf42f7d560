"""Data paths after a power loss: what must hold on the disk itself, and after the next run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from restore_agent.simulator import Job

from . import checks
from .datapaths import STAGING, UNPROVEN, content_of, extracted, stem_of
from .witness import Violation, journal_lines

Names = dict[str, str]
"""Names below a data path, and what they are: `directory`, or the SHA1 of a file."""


def names_of(content: Mapping[str, tuple[str, int]]) -> Names:
    """A content without its times, which a replay of file operations does not have."""
    return {name: kind for name, (kind, _) in content.items() if name != "."}


def served(job: Job, scratch: Path) -> dict[str, Names]:
    """By SHA1 of each archive that a job has sent: what its data path holds."""
    archives = [job.archive(number) for number in range(max(1, job.attempts))]
    contents = {archive.sha1: extracted(archive.path, scratch) for archive in archives}
    return {sha1: names_of(content) for sha1, content in contents.items() if content is not None}


def check_on_disk(dest: Path, known: Mapping[str, Names]) -> Iterator[Violation]:
    """A data path is whole, and of an archive whose proof is durable; what the journal says of it is there."""
    data, lines = dest.parent / "data", journal_lines(dest)
    for path in _data_paths(data):
        found = names_of(content_of(path))
        if not any(found == names for names in known.values()):
            yield Violation("a data path is whole", f"{path.name} holds {sorted(found)} after a power loss")
        elif not path.name.endswith(UNPROVEN) and not any(line.get("fact") == "proven" for line in lines):
            yield Violation("a data path is of a proven archive", f"{path.name} after a power loss")
    said: dict[str, checks.Json] = {str(line["job_id"]): line for line in lines if line.get("fact") == "unpacked"}
    for line in said.values():
        path = data / Path(line["path"]).name
        later = line["final"] or not any(one.get("fact") == "staged" and one["final"] for one in lines)
        if later and not path.is_dir():
            yield Violation("what was said is durable", f"{path.name} is not there after a power loss")
    discarded = any(line.get("fact") == "archive-discarded" for line in lines)
    if discarded and all(path.name.endswith(UNPROVEN) for path in _data_paths(data)):
        yield Violation("an archive stays until its data path is published", "no data path after a power loss")


def check_after(dest: Path, job: Job, code: int | None, known: Mapping[str, Names]) -> Iterator[Violation]:
    """After the next run DIR holds the data paths and nothing else."""
    data = dest.parent / "data"
    there = {path.name for path in data.iterdir()} if data.is_dir() else set()
    wanted = {stem_of(job.archive_name)} if code == 0 else set()
    if there != wanted:
        yield Violation("only data paths are left in DIR", f"{sorted(there)}, right is {sorted(wanted)}")
    yield from check_on_disk(dest, known)


def is_discarded(dest: Path, job: Job) -> bool:
    """Whether the journal keeps the proof of an archive that was discarded."""
    return any(line.get("fact") == "archive-discarded" and line["job_id"] == job.id for line in journal_lines(dest))


def inode_of(fact: checks.Json, dest: Path) -> int | None:
    """The inode of the directory that a fact is about: on a real disk it keeps its own."""
    data, name = dest.parent / "data", Path(fact["path"]).name
    candidates = [data / name, data / f"{name}{UNPROVEN}", data / f".{fact['job_id']}{STAGING}"]
    return next((path.stat().st_ino for path in candidates if path.is_dir()), None)


def moved_to(root: Path, recorded: Path) -> None:
    """Let the records speak of the place where the state lies now, rather than of that of the recording."""
    for name in ("restore/.restore-agent/journal.jsonl", "restore/receipt.json"):
        path = root / name
        if path.is_file():
            old, new = (json.dumps(str(place))[1:-1].encode() for place in (recorded, root))
            path.write_bytes(path.read_bytes().replace(old, new))


def _data_paths(data: Path) -> list[Path]:
    return [path for path in data.iterdir() if not path.name.startswith(".")] if data.is_dir() else []
