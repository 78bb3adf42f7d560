"""Space on a disk that downloads and data paths share: the download comes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from restore_agent.core.errors import NoSpaceToUnpack, NotUnpacked
from restore_agent.dest.directory import Directory
from restore_agent.dest.space import DiskSpace
from restore_agent.restore.unpacking.space import UnpackSpace


class Job:
    """A job with a staging directory, which it gives up at once."""

    void: NotUnpacked | None = None
    is_idle = False

    def give_up(self, error: NotUnpacked) -> bool:
        self.void = error
        return True

    def stop(self) -> None:
        pass


@pytest.fixture
def shared(tmp_path: Path) -> UnpackSpace:
    space = UnpackSpace(4, DiskSpace(Directory.open(tmp_path, create=False)))
    space.share()
    return space


def test_without_data_paths_no_space_can_be_freed(shared: UnpackSpace) -> None:
    assert not shared.make_room()


def test_a_download_takes_the_space_of_every_job_that_unpacks(shared: UnpackSpace) -> None:
    jobs = [Job(), Job()]
    for job in jobs:
        shared.started(job)
    assert shared.request_room()
    assert [type(job.void) for job in jobs] == [NoSpaceToUnpack] * 2


def test_space_that_a_job_freed_by_itself_counts_once(shared: UnpackSpace) -> None:
    """The download found the disk full, and the job emptied its staging directory before it was asked to."""
    job = Job()
    shared.started(job)
    shared.gave_back(job)
    assert shared.make_room()
    assert not shared.make_room()


def test_a_job_on_another_disk_keeps_its_space(tmp_path: Path) -> None:
    space, job = UnpackSpace(4, DiskSpace(Directory.open(tmp_path, create=False))), Job()
    space.started(job)
    assert not space.request_room()
    space.gave_back(job)
    assert not space.request_room()
    assert job.void is None
