"""A disk that fails: an error at every kind of call, and a DEST that goes away under a run.

Every fifth fault here, and at least one of each kind of call; all of them in `scripts/torture --disk-faults`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.agents import QUICK, StartAgent, StartSimulator, connection_args, deliveries, finished, wait_until
from torture import diskfaults, trace
from torture.diskfaults import DiskFault

strace = pytest.mark.skipif(not trace.strace_works(), reason="faults at system calls are injected by strace")
KINDS = sorted({fault.call for fault in diskfaults.cases()})


@strace
@pytest.mark.parametrize("call", KINDS)
def test_a_fault_ends_in_its_exit_code_and_the_next_run_mends_it(call: str, tmp_path: Path) -> None:
    faults = tuple(fault for fault in diskfaults.cases() if fault.call == call)[::5]
    tally = diskfaults.try_all(faults, tmp_path)
    assert not tally.violations, "\n".join(tally.violations)
    assert tally.met * 2 >= len(faults), f"only {tally.met} of {len(faults)} faults were met"


@strace
def test_after_a_failed_fsync_of_an_archive_it_is_fetched_afresh(tmp_path: Path) -> None:
    fault = DiskFault("fsync", diskfaults.ARCHIVE, "EIO")
    tally = diskfaults.try_all((fault,), tmp_path)
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
