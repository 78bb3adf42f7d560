"""A small disk of its own for DEST: a tmpfs where this process may mount one."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SmallDisk:
    """A mounted tmpfs."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def remount(self, *options: str) -> None:
        """Change it while it is in use: `size=64m`, `ro`, `rw`."""
        _mount("-o", ",".join(["remount", *options]), str(self._place))


@contextmanager
def small_disk(place: Path, kib: int, *options: str) -> Iterator[SmallDisk]:
    """Mount a disk of so many KiB at `place`, which is made; unmounted at the end."""
    place.mkdir(mode=0o700)
    _mount("-t", "tmpfs", "-o", ",".join([f"size={kib}k", "mode=0700", *options]), "tmpfs", str(place))
    try:
        yield SmallDisk(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@functools.cache
def may_mount(probe: Path) -> bool:
    """Whether small disks can be had here; tried in a directory below `probe`."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        return False
    place = probe / f"mount-probe-{os.getpid()}"
    try:
        with small_disk(place, 64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
