"""The directory of `--unpack`, shared by the jobs of a run: its data paths, their names, and what is wrong with it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from ...core.errors import CannotUnpack, DataPathInTheWay, NotUnpacked, UnpackCancelled
from ...core.names import data_path_names, path_text
from ...core.settings import RunSettings, UnpackSettings
from ...core.untrusted import printable
from ...dest.directory import Directory, nearest
from ...dest.journal.facts import Staged, is_in
from ...dest.space import DiskSpace
from ...unpack.datapath import DataPaths
from ...unpack.writer import Owner
from .space import UnpackSpace


class DataPlace:
    """The directory of data paths. `error` is why nothing can be unpacked there; it concerns every archive alike."""

    def __init__(
        self,
        settings: RunSettings,
        unpack: UnpackSettings,
        space: DiskSpace | None,
        file_names: Callable[[], Mapping[str, str]],
        *,
        ignore_case: bool,
    ) -> None:
        """`file_names` gives the archives by job ID. `ignore_case` is whether DEST ignores case.

        A directory of --unpack on another file system is not examined for that: two archives whose names differ only
        in case then share a data path there, and the second one is in the way.
        """
        self.settings, self.group_id = unpack, settings.target.group_id
        self.owner = Owner(unpack.uid, unpack.gid)
        self.space = UnpackSpace(settings.limits.parallel, space)
        self._file_names, self._ignore_case = file_names, ignore_case
        self._paths: DataPaths | None = None
        self._stopped = threading.Event()
        self._names: dict[str, str] = {}
        self.error: NotUnpacked | None = None

    def open(self, dest: Directory) -> None:
        """Open the directory, and create it if it is missing; a failure is kept in `error`."""
        try:
            self._paths = DataPaths.open(self.settings.directory, self.owner, create=True)
            if self._paths.device() == dest.device():
                self.space.share()
        except NotUnpacked as error:
            self.error = error

    def inspect(self) -> None:
        """Open the directory for reading if it exists; the error that a run would meet is kept in `error`."""
        path = self.settings.directory
        try:
            if os.path.lexists(path):
                self._paths = DataPaths.open(path, self.owner, create=False)
                if not self._paths.is_writable():
                    self.error = CannotUnpack(f"{printable(str(path), 200)} is not writable")
            elif not os.access(nearest(path), os.W_OK | os.X_OK):
                self.error = CannotUnpack(f"{printable(str(path), 200)} cannot be created")
        except NotUnpacked as error:
            self.error = error

    def foresee(self, job_id: str) -> NotUnpacked | None:
        """Return the error that unpacking a job would meet, as far as it is known now. Changes nothing."""
        if self.error or self._paths is None:
            return self.error
        try:
            self._paths.require_free(self.name_of(job_id))
            self._paths.require_unlocked(job_id)
        except NotUnpacked as error:
            return error
        return None

    def has(self, staged: Staged) -> bool:
        """Return whether a directory that was about to get its name has it: a crash came before its fact."""
        if self._paths is None or not is_in(staged.path, self.path_of()):
            return False
        identity = self._paths.identity(os.path.basename(staged.path))
        return identity is not None and identity[1] == staged.inode

    def free_bytes(self) -> int | None:
        """Return the free space of the directory, or of the one in which it is created; None if it is not known."""
        try:
            if self._paths:
                return self._paths.free_bytes()
            with DataPaths.open(nearest(self.path), create=False) as parent:
                return parent.free_bytes()
        except NotUnpacked:
            return None

    def owner_warning(self, dest: Path) -> str | None:
        """Return a warning if DEST, which only its owner can read, keeps the owner of the data paths out."""
        if self.owner == Owner() or os.path.realpath(self.path) != os.path.realpath(dest):
            return None
        return "the data paths are in DEST, which has mode 0700: the owner of --owner cannot reach them there"

    def close(self) -> None:
        """Close the directory."""
        if self._paths:
            self._paths.close()

    @property
    def paths(self) -> DataPaths:
        """The open directory. Raises NotUnpacked."""
        if self.error or self._paths is None:
            raise self.error or DataPathInTheWay("the directory of --unpack is not open")
        return self._paths

    @property
    def path(self) -> Path:
        """The directory as an absolute path."""
        return self.settings.directory

    def path_of(self, *name: str) -> str:
        """Return the path of a data path, or of the directory itself, as the records have it."""
        return path_text(self.path, *name)

    def name_of(self, job_id: str) -> str:
        """Return the name of the data path of a job, unique among all archives of DEST."""
        files = self._file_names()
        names = self._names
        if job_id not in names or len(names) != len(files):
            names = self._names = data_path_names(files, ignore_case=self._ignore_case)
        return names[job_id]

    # ------------------------------------------------------------ the end

    def stop(self) -> None:
        """Let a removal in progress end: the run was stopped."""
        self._stopped.set()

    def check(self) -> None:
        """Raise UnpackCancelled after `stop`."""
        if self._stopped.is_set():
            raise UnpackCancelled("the run was stopped")
