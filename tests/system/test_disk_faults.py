"""A disk that fails, in DEST and in the directory of data paths, and a DEST that is removed during a run.

A few faults of each kind here; all of them in `scripts/torture --disk-faults`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.agents import QUICK, StartAgent, StartSimulator, connection_args, deliveries, finished, wait_until
from torture import diskfaults, trace
from torture.diskfaults import ARCHIVE, SLOW_CUT, STAGED, STATE, DiskFault

strace = pytest.mark.skipif(not trace.strace_works(), reason="faults at system calls are injected by strace")

IN_DEST = (
    DiskFault("write", f"{STATE}/journal.jsonl", "EIO"),
    DiskFault("openat", STATE, "EIO", 3),
    DiskFault("fsync", ARCHIVE, "EIO"),
    DiskFault("fsync", f"{STATE}/journal.jsonl", "EIO", 3),
    DiskFault("rename,renameat,renameat2,link,linkat", "", "EIO"),
    DiskFault("renameat2", "", "ENOSYS"),
    next(diskfaults.read_only_cases()),
)
IN_DIR = (
    DiskFault("pwrite64", STAGED, "ENOSPC"),
    DiskFault("fsync", STAGED, "EIO"),
    DiskFault("fsync", "<data>/<staging>", "EIO"),
    DiskFault("renameat,renameat2", "<data>", "EIO"),
)


@strace
@pytest.mark.parametrize("faults", [IN_DEST, IN_DIR], ids=["in DEST", "in the directory of data paths"])
def test_a_fault_ends_in_its_exit_code_and_the_next_run_repairs_it(
    faults: tuple[DiskFault, ...], tmp_path: Path
) -> None:
    assert set(faults) <= set(diskfaults.cases())
    tally = diskfaults.try_all(faults, tmp_path, jobs=2)
    assert not tally.violations, "\n".join(tally.violations)
    assert tally.met == len(faults)


@strace
def test_a_failed_sync_in_the_background_ends_the_transfer(tmp_path: Path) -> None:
    tally = diskfaults.try_all((DiskFault("fdatasync", ARCHIVE, "EIO", server=SLOW_CUT),), tmp_path)
    assert (tally.met, tally.violations) == (1, [])


def test_a_dest_that_is_removed_during_a_transfer_ends_in_a_clear_error(
    simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("drip=100k", "max-downloads=5")
    args = ["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--output=json"]
    process = start_agent(args)
    wait_until(lambda: deliveries(sim) and deliveries(sim)[0].bytes_sent)
    shutil.rmtree(dest)
    ended = finished(process)
    assert ended.code in (41, 42), ended.err
    assert ended.result["exit_code"] == ended.code
    assert not dest.exists()
