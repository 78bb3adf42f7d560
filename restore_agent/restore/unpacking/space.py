"""Space and slots of everything that is being unpacked: a download on the same disk comes first."""

from __future__ import annotations

import threading
from typing import Protocol

from ...core.errors import NoSpaceToUnpack, NotUnpacked
from ...dest.space import RESERVED_FOR_RECORDS, DiskSpace

_MOST_UNPACKERS = 8  # at the same time, each with a dozen blocks in memory

_BLOCK, _SMALL_BLOCK = (
    512 << 10,
    128 << 10,
)  # bytes; the small ones leave memory for more than _MOST_UNPACKERS transfers

_CLEANUP_TIMEOUT = 60.0  # seconds for which a full disk waits for what is being unpacked to be removed


class SpaceUser(Protocol):
    """A job with a staging directory. `void` is why its content was given up."""

    void: NotUnpacked | None

    @property
    def is_idle(self) -> bool:
        """Whether it waits for bytes although no transfer is in progress."""

    def give_up(self, error: NotUnpacked) -> bool:
        """Begin to remove the content; return whether that makes room."""

    def stop(self) -> None:
        """Stop unpacking; the content stays."""


class UnpackSpace:
    """The staging directories of a run.

    `slots` bounds how many are filled at the same time, `block_size` (bytes) the memory of each.
    """

    def __init__(self, parallel: int, space: DiskSpace | None) -> None:
        self.slots = threading.BoundedSemaphore(min(parallel, _MOST_UNPACKERS))
        self.block_size = _BLOCK if parallel <= _MOST_UNPACKERS else _SMALL_BLOCK
        self._space = space
        self._shared = False
        self._users: set[SpaceUser] = set()
        self._given_back = False
        self._changed = threading.Condition()

    def share(self) -> None:
        """Note that the downloads are on the same disk."""
        self._shared = True
        if self._space:
            self._space.request_room = self.request_room

    def reserve(self) -> int:
        """Return the bytes that unpacking must leave free: records and downloads, if they share the disk."""
        if not self._shared or self._space is None:
            return 0
        return RESERVED_FOR_RECORDS + self._space.still_needed()

    def started(self, user: SpaceUser) -> None:
        """Note that a staging directory uses space."""
        with self._changed:
            self._users.add(user)

    def ended(self, user: SpaceUser) -> None:
        """Note that a staging directory is empty, or has become a data path."""
        with self._changed:
            self._users.discard(user)
            self._changed.notify_all()

    def gave_back(self, user: SpaceUser) -> None:
        """Note that a staging directory was emptied for want of space."""
        self._given_back = True
        self.ended(user)

    def request_room(self) -> bool:
        """Give up everything that is unpacked on the disk of DEST and not published; return whether that makes room.

        Room that was made since the last request counts: the download may have found the disk full just before.
        From any thread; returns at once.
        """
        with self._changed:
            users = list(self._users) if self._shared else []
            given_back, self._given_back = self._given_back and self._shared, False
        error = NoSpaceToUnpack("a download needs the space of what was unpacked")
        asked = [user.give_up(error) for user in users]  # each, not only the first one
        return given_back or any(asked)

    def make_room(self) -> bool:
        """Like `request_room`, and wait until the room is there."""
        if not self.request_room():
            return False
        with self._changed:
            return self._changed.wait_for(lambda: not any(user.void for user in self._users), _CLEANUP_TIMEOUT)

    def free_a_slot(self) -> None:
        """Stop an unpacker that waits for a transfer to go on, while another one waits for a slot. From any thread."""
        with self._changed:
            idle = next((user for user in self._users if user.is_idle), None)
        if idle:
            idle.stop()
