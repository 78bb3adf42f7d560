"""The directory of `--unpack`, shared by the jobs of a run: data paths, their names, and room on the disk."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ...core.errors import CannotUnpack, DataPathInTheWay, NoSpaceToUnpack, NotUnpacked
from ...core.names import data_path_names
from ...core.settings import RunSettings, UnpackSettings
from ...core.untrusted import printable
from ...dest.directory import Directory, nearest
from ...dest.space import RESERVED_FOR_RECORDS, DiskSpace
from ...unpack.datapath import DataPaths
from ...unpack.unpacker import Unpacker
from ...unpack.writer import Owner

_PATIENCE = 60.0  # seconds for which a full disk waits for what is being unpacked to be removed


class DataPlace:
    """The directory of data paths. `error` is why nothing can be unpacked there; it concerns every archive alike."""

    def __init__(
        self,
        settings: RunSettings,
        unpack: UnpackSettings,
        space: DiskSpace | None,
        file_names: Callable[[], Mapping[str, str]],
    ) -> None:
        self.settings, self.group_id = unpack, settings.target.group_id
        self.owner = Owner(unpack.uid, unpack.gid)
        self.slots = threading.BoundedSemaphore(settings.limits.parallel)  # unpackers at the same time
        self._space, self._file_names = space, file_names
        self._paths: DataPaths | None = None
        self._active: set[Unpacker] = set()
        self._changed = threading.Condition()
        self._names: dict[str, str] = {}
        self.error: NotUnpacked | None = None
        self.shares_disk = False

    def open(self, dest: Directory) -> None:
        """Open the directory, and create it if it is missing; a failure is kept in `error`."""
        try:
            self._paths = DataPaths.open(self.settings.directory, self.owner, create=True)
            self.shares_disk = self._paths.device() == dest.device()
            if self._space:
                self._space.request_room = self.request_room
        except NotUnpacked as error:
            self.error = error

    def look(self) -> None:
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

    def foresee(self, job_id: str, *, done: bool) -> NotUnpacked | None:
        """Return the error that unpacking a job would meet, as far as it is known now. Changes nothing."""
        if done or self.error or self._paths is None:
            return None if done else self.error
        try:
            self._paths.require_free(self.name_of(job_id))
            self._paths.require_unlocked(job_id)
        except NotUnpacked as error:
            return error
        return None

    def free_bytes(self) -> int | None:
        """Return the free space of the directory, or None if it is not known."""
        try:
            return self._paths.free_bytes() if self._paths else None
        except NotUnpacked:
            return None

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

    def name_of(self, job_id: str) -> str:
        """Return the name of the data path of a job, unique among all archives of DEST."""
        files = self._file_names()
        if job_id not in self._names or len(self._names) != len(files):
            self._names = data_path_names(files)
        return self._names[job_id]

    # ------------------------------------------------------------ room

    def reserve(self) -> int:
        """Return the bytes that unpacking must leave free: records and downloads, if they share the disk."""
        if not self.shares_disk or self._space is None:
            return 0
        return RESERVED_FOR_RECORDS + self._space.still_needed()

    def started(self, unpacker: Unpacker) -> None:
        """Note that an unpacker runs."""
        with self._changed:
            self._active.add(unpacker)

    def ended(self, unpacker: Unpacker) -> None:
        """Note that an unpacker has ended, and that its staging directory is empty or complete."""
        with self._changed:
            self._active.discard(unpacker)
            self._changed.notify_all()

    def request_room(self) -> bool:
        """Stop what is being unpacked on the disk of DEST; return whether that makes room. From any thread."""
        with self._changed:
            active = list(self._active) if self.shares_disk else []
        for unpacker in active:
            unpacker.cancel(NoSpaceToUnpack("the download needs the space of what was unpacked"))
        return bool(active)

    def make_room(self) -> bool:
        """Like `request_room`, and wait until the room is there."""
        if not self.request_room():
            return False
        until = time.monotonic() + _PATIENCE
        with self._changed:
            return self._changed.wait_for(lambda: not self._active, until - time.monotonic())
