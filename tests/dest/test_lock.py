"""The lock of DEST: one run at a time, released by the kernel."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from restore_agent.core.errors import DestHeld, InTheWay
from restore_agent.dest.directory import Directory
from restore_agent.dest.lock import LOCK, Lock, boot_id


def test_only_one_run_can_lock_dest(state: Directory) -> None:
    lock = Lock.take(state)
    with pytest.raises(DestHeld) as caught:
        Lock.take(state)
    lock.release()
    assert str(state.path.parent) in caught.value.message
    assert (caught.value.exit_code, caught.value.fields()["download_spent"]) == (50, False)


def test_after_a_run_the_next_one_can_begin(state: Directory) -> None:
    Lock.take(state).release()
    lock = Lock.take(state)
    assert Lock.is_held(state)
    lock.release()
    assert not Lock.is_held(state)


def test_the_lock_file_stays_so_that_no_two_runs_lock_different_files(state: Directory) -> None:
    Lock.take(state).release()
    inode = (state.path / LOCK).stat().st_ino
    Lock.take(state).release()
    assert (state.path / LOCK).stat().st_ino == inode


def test_a_check_of_the_lock_creates_no_file(state: Directory) -> None:
    assert not Lock.is_held(state)
    assert sorted(os.listdir(state.path)) == []


def test_a_lock_that_is_a_link_is_not_followed(state: Directory, tmp_path: Path) -> None:
    (state.path / LOCK).symlink_to(tmp_path / "outside")
    with pytest.raises(InTheWay):
        Lock.take(state)
    with pytest.raises(InTheWay):
        Lock.is_held(state)
    assert not (tmp_path / "outside").exists()


HOLDER = """
import pathlib, sys, time
from restore_agent.dest.directory import Directory
from restore_agent.dest.lock import Lock
lock = Lock.take(Directory.open(pathlib.Path(sys.argv[1]), create=False))
print("held", flush=True)
time.sleep(60)
"""


def test_the_kernel_releases_the_lock_with_the_process(state: Directory) -> None:
    command = [sys.executable, "-c", HOLDER, str(state.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert Lock.is_held(state)
        with pytest.raises(DestHeld):
            Lock.take(state)
        holder.send_signal(signal.SIGKILL)
    assert not Lock.is_held(state)
    Lock.take(state).release()


def test_a_check_of_the_lock_does_not_block_a_run(state: Directory) -> None:
    """Monitoring can check the lock at any moment, and shares it while it does; that must not end a run with 50."""
    Lock.take(state).release()
    check = os.open(state.path / LOCK, os.O_RDONLY)
    fcntl.flock(check, fcntl.LOCK_SH | fcntl.LOCK_NB)
    soon = threading.Timer(0.03, os.close, [check])
    soon.start()
    try:
        lock = Lock.take(state)
        assert Lock.is_held(state)
        lock.release()
    finally:
        soon.join()


def test_the_boot_id_of_this_host_does_not_change() -> None:
    assert boot_id()
    assert boot_id() == boot_id()
