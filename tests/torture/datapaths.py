"""The directory of `--unpack` in a round: where it is, what is in its way, and what it may hold at any instant."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from restore_agent.simulator import Job, Simulator
from tests.support.data_paths import content_of

from . import checks
from .disk import SmallDisk, may_mount, small_disk
from .extras import Unpack
from .witness import STATE, Violation, Witness, final_names

STAGING, UNPROVEN = ".unpacking", ".unproven"
HARMLESS = ("long-name", "pax-name", "hard-link", "duplicate", "empty", "setuid", "sparse-gnu", "sparse-pax")

_MADE_NOW = 1_600_000_000 * 10**9  # nanoseconds; times in the simulator's archives are before that

Content = dict[str, tuple[str, int]]


def stem_of(archive: str) -> str:
    """The name of an archive without its extension."""
    return archive.removesuffix(".gz").removesuffix(".tar")


def extracted(archive: Path, scratch: Path) -> Content | None:
    """What GNU tar makes of an archive; without the time of the root where the archive has no single top directory.

    None for an archive that tar refuses or that holds anything but files and directories.
    """
    into = Path(tempfile.mkdtemp(prefix="tar-", dir=scratch))
    command = ["tar", "-xf", str(archive), "-C", str(into), "--no-same-owner", "--delay-directory-restore"]
    done = subprocess.run(command, check=False, capture_output=True)
    plain = all(stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR) for path in into.rglob("*"))
    if done.returncode or not plain:
        shutil.rmtree(into)
        return None
    children = list(into.iterdir())
    single = len(children) == 1 and children[0].is_dir()
    found = content_of(children[0] if single else into)
    shutil.rmtree(into)
    return found if single else {name: seen for name, seen in found.items() if name != "."}


class DataPlace:
    """DIR of one round, watched. `active`: the command lines have `--unpack`; `mended`: nothing is in the way now."""

    def __init__(self, unpack: Unpack, home: Path, witness: Witness, simulator: Simulator) -> None:
        self._unpack, self._home, self._witness, self._simulator = unpack, home, witness, simulator
        self._jobs = [job for job in simulator.jobs if not job.stray]
        self._dest = witness.dest
        self._stack = ExitStack()
        self._disk: SmallDisk | None = None
        self._lock = threading.Lock()
        self._contents: dict[str, Content | None] = {}
        self._judged: dict[str, int] = {}
        self._published: set[str] = set()  # ids of jobs whose final data path was seen
        self._changed = False
        self.active, self.mended = not unpack.late, False
        self.directory = self._place()
        self._foreign = self._put_obstacle()

    def close(self) -> None:
        """Unmount the disk."""
        self._stack.close()

    def _place(self) -> Path:
        if self._unpack.where == "dest":
            return self._dest
        if self._unpack.where == "beside" or not may_mount(self._home):
            return self._dest.parent / "data"
        kib = self._unpack.disk_kib or 64 << 10
        self._disk = self._stack.enter_context(small_disk(self._home / "other-disk", kib))
        return self._home / "other-disk" / "data"

    @property
    def _has_small_disk(self) -> bool:
        return bool(self._disk and self._unpack.disk_kib and not self.mended)

    def options(self) -> list[str]:
        """The options of a run."""
        if not self.active:
            return []
        return [f"--unpack={self.directory}", *["--discard-archive"] * self._unpack.discard]

    def covers(self, path: Path) -> bool:
        """Whether a path belongs to DIR, for the check that nothing else is touched."""
        return path == self.directory or self.directory in path.parents

    # ------------------------------------------------------------ obstacles

    def _put_obstacle(self) -> set[str]:
        """Put what another program left in the way; the names of it in DIR."""
        kind, job = self._unpack.obstacle, self._jobs[self._unpack.job]
        if kind == "no directory":
            self.directory.write_text("a file\n")
            return set()
        if not kind:
            return set()
        self.directory.mkdir(mode=0o700, exist_ok=True)
        name = f".{job.id}{STAGING}" if kind.startswith("staging") else stem_of(job.file_name)
        path = self.directory / name
        if kind.endswith("file"):
            path.touch(mode=0o600)
        elif kind.endswith("link"):
            path.symlink_to(self._home / "canaries" / "beside")
        else:
            path.mkdir(mode=0o700)
            if kind == "directory":
                (path / "mine").touch(mode=0o600)
        return set() if kind == "empty directory" else {name}

    def mend(self) -> bool:
        """Let the operator free space, take away what is in the way, and ask for data paths; whether that is news."""
        news = not self.active or ((bool(self._unpack.obstacle) or self._has_small_disk) and not self.mended)
        self.active = self.mended = True
        if self._disk and self._unpack.disk_kib:
            self._disk.remount("size=64m")
        if self._unpack.obstacle == "no directory" and self.directory.is_file():
            self.directory.unlink()
        for name in self._foreign:
            path = self.directory / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self._foreign = set()
        return news

    def change_a_data_path(self) -> None:
        """Do to a data path what operators and mongod do: it stays done all the same."""
        paths = [self.directory / name for name in self._names() if not name.startswith(".")]
        if not paths or not self._unpack.afterwards:
            return
        self._changed = True
        if self._unpack.afterwards == "moved":
            shutil.move(paths[0], self._home / "moved")
        else:
            (paths[0] / "mongod.lock").touch(mode=0o600)

    # ------------------------------------------------------------ every instant

    def look(self) -> None:
        """Judge what is new in DIR, and archives that are gone."""
        with self._lock:
            there = set(final_names(self._dest))
            for name in self._names():
                self._judge(name)
            for name, job_id in self._witness.verified_files().items():
                if name not in there and not (self._unpack.discard and job_id in self._published):
                    self._witness.blame("an archive stays until its data path is published", name)

    def _names(self) -> list[str]:
        """The names in DIR but those of other programs and, where DIR is DEST, of archives and records."""
        with suppress(OSError), os.scandir(self.directory) as entries:
            found = [entry for entry in entries if entry.name not in self._foreign]
            if self.directory == self._dest:
                found = [entry for entry in found if entry.is_dir(follow_symlinks=False) and entry.name != STATE]
            return [entry.name for entry in found]
        return []

    def _judge(self, name: str) -> None:
        if name.startswith(".") and name.endswith(STAGING):
            if name not in {f".{job.id}{STAGING}" for job in self._jobs}:
                self._witness.blame("only data paths and staging directories are in DIR", name)
            return
        try:
            status = os.lstat(self.directory / name)
            if self._judged.get(name) == status.st_ino or self._changed or self._is_obstacle(name, status):
                return
            if not stat.S_ISDIR(status.st_mode):
                self._judged[name] = status.st_ino
                self._witness.blame("a data path is a directory, never a link", name)
                return
            found = content_of(self.directory / name)
        except OSError:  # it got its final name meanwhile
            return
        self._judged[name] = status.st_ino
        self._blame_content(name, found)

    def _is_obstacle(self, name: str, status: os.stat_result) -> bool:
        """Whether it is the empty directory of another program, which is no data path before it is replaced."""
        empty = self._unpack.obstacle == "empty directory" and stat.S_ISDIR(status.st_mode)
        return empty and not os.listdir(self.directory / name)

    def _blame_content(self, name: str, found: Content) -> None:
        """Hold the content of a data path against what GNU tar makes of the archives that it may be of."""
        proven = not name.endswith(UNPROVEN)
        for job in self._jobs:
            for sha1, path in self._archives(job):
                expected = self._content(sha1, path)
                if expected is None or not _same(expected, found):
                    continue
                if proven and sha1 not in self._witness.published[job.id]:
                    self._witness.blame("a data path is of a proven archive", f"{name}: {sha1} is not published")
                self._published |= {job.id} if proven else set()
                return
        self._witness.blame("a data path is whole", f"{name} holds {sorted(found)[:40]}")

    def _archives(self, job: Job) -> list[tuple[str, Path]]:
        with self._simulator.lock:
            variants = range(max(1, job.attempts) if job.faults.different_bytes else 1)
            archives = [job.archive(number) for number in variants]
        return [(archive.sha1, archive.path) for archive in archives]

    def _content(self, sha1: str, path: Path) -> Content | None:
        """What a data path of an archive holds; None for one that must be refused."""
        if sha1 not in self._contents:
            self._contents[sha1] = extracted(path, self._home)
        return self._contents[sha1]

    # ------------------------------------------------------------ the end of a run

    def check_kept(self) -> None:
        """After any end, also a kill, look at everything again: no data path has changed since it was published."""
        if not self._changed:
            with self._lock:
                self._judged.clear()
        self._witness.look()

    def check_clean(self, finished: Collection[str]) -> Iterator[Violation]:
        """A job with a verdict leaves no staging directory, and nothing in DIR is for others."""
        with suppress(OSError):
            for name in self._names():
                if name.removeprefix(".").removesuffix(STAGING) in finished and name.endswith(STAGING):
                    yield Violation("a finished job leaves no staging directory", name)
        if self.active and self.directory.is_dir() and not self._foreign:
            yield from checks.check_modes(self.directory)

    def check_record(self, job: Job, record: checks.Json, reasons: Collection[str]) -> Iterator[Violation]:
        """What the receipt says of one archive that was to be unpacked is true; `reasons` are those a 13 may have."""
        if not self.active or record["verdict"] not in ("verified", "unproven"):
            return
        if record["exit_code"] == 13 and record["reason"] not in reasons:
            told = f"{record['reason']}, right is {sorted(reasons)}"
            yield Violation("every archive that can be unpacked is unpacked", f"{job.id}: {told}")
        if record["exit_code"] == 0 and not self._changed:
            yield from self._check_data_path(record)

    def _check_data_path(self, record: checks.Json) -> Iterator[Violation]:
        suffix = "" if record["verdict"] == "verified" else UNPROVEN
        path = Path(record["data_path"] or "none")
        if path.parent != self.directory or not path.is_dir() or path.name.endswith(UNPROVEN) != bool(suffix):
            yield Violation("the receipt's data path is there", str(record))
            return
        files = [one for one in path.rglob("*") if one.is_file()]
        if (len(files), sum(one.stat().st_size for one in files)) != (record["data_files"], record["data_bytes"]):
            yield Violation("the receipt counts what is in the data path", f"{record}: {len(files)} files")
        expected = self._contents.get(record["sha1"])
        if expected is not None and not _same(expected, content_of(path)):
            yield Violation("a data path is of its own archive", str(record))
        if not suffix and record["archive_kept"] == self._unpack.discard:
            yield Violation("an archive is discarded if that was asked for", str(record))

    def reasons(self, job: Job, *, starved: bool) -> set[str]:
        """The reasons for which an archive may be proven and not unpacked."""
        faults, found = job.faults, set[str]()
        if set(faults.member) - set(HARMLESS):
            found.add("unsafe-archive")
        if faults.damaged_inside or faults.damaged_gzip:
            found.add("damaged-archive")
        if self._has_small_disk or (starved and self._unpack.where != "other disk"):
            found |= {"no-space-to-unpack", "cannot-unpack"} if starved else {"no-space-to-unpack"}
        if self._unpack.obstacle == "no directory" and not self.mended:
            found |= {"cannot-unpack", "data-path-in-the-way"}
        elif self._unpack.obstacle not in ("", "empty directory") and not self.mended:
            found |= {"data-path-in-the-way"} if job is self._jobs[self._unpack.job] else set()
        return found

    def tree(self) -> dict[str, Any]:
        """DIR with its inodes: equal trees, nothing was touched."""
        if not self.directory.is_dir() or self.directory == self._dest:
            return {}
        found: dict[str, Any] = dict(checks.tree_of(self.directory))
        return found | {f"inode of {name}": os.lstat(self.directory / name).st_ino for name in self._names()}

    def happened(self, number: int) -> bool:
        """Whether unpacking has come so far: 1 a staging directory, 2 with content, 3 a data path, 4 discarded."""
        names: Sequence[str] = self._names()
        if number <= 2:
            staged = [name for name in names if name.endswith(STAGING)]
            with suppress(OSError):
                return any(number == 1 or os.listdir(self.directory / name) for name in staged)
            return False
        published = [name for name in names if not name.startswith(".")]
        kept = set(final_names(self._dest))
        return bool(published) and (number == 3 or any(name not in kept for name in self._witness.verified_files()))


def _same(expected: Content, found: Content) -> bool:
    """Equal names, kinds, bytes and times; a directory that the archive does not list has no time of its own."""
    found = {name: seen for name, seen in found.items() if name in expected or name != "."}
    timeless = {name for name, (kind, time) in expected.items() if kind == "directory" and time > _MADE_NOW}
    return _without_times(expected, timeless) == _without_times(found, timeless)


def _without_times(content: Content, timeless: Collection[str]) -> Content:
    return {name: (kind, 0 if name in timeless else time) for name, (kind, time) in content.items()}
