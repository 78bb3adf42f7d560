"""`run --unpack`: the data path, what the receipt and the status say of it, owner, names, and restoreInfo.txt."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from support.agents import (
    Restore,
    StartAgent,
    StartSimulator,
    deliveries,
    finished,
    meanwhile,
    receipt_in,
    sha1_of,
    status_in,
    wait_until,
)
from support.data_paths import content_of, data_path_of, is_whole, names_in, run_args, served, staging_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another owner needs root")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory of data paths that does not exist yet."""
    return tmp_path / "data"


def test_each_verified_archive_becomes_a_data_path_as_gnu_tar_makes_it(
    simulator: StartSimulator, restore: Restore, data: Path, tmp_path: Path
) -> None:
    sim = simulator(shards=2)
    assert restore(sim, f"--unpack={data}").code == 0
    assert names_in(data) == {data_path_of(sim, index) for index in range(3)}
    for index in range(3):
        assert content_of(data / data_path_of(sim, index)) == served(sim, tmp_path, index)


@pytest.mark.parametrize("faults", [["framing=chunked"], ["framing=close"], ["gzip-members"], ["plain-tar"]])
def test_an_archive_is_unpacked_in_every_framing_and_format(
    simulator: StartSimulator, restore: Restore, data: Path, tmp_path: Path, faults: list[str]
) -> None:
    sim = simulator(*faults, archive_size=1 << 20)
    assert restore(sim, f"--unpack={data}").code == 0
    assert content_of(data / data_path_of(sim)) == served(sim, tmp_path)


def test_the_receipt_and_the_result_describe_the_data_path(
    simulator: StartSimulator, restore: Restore, data: Path, dest: Path
) -> None:
    sim = simulator()
    ended = restore(sim, f"--unpack={data}")
    record = ended.archive
    assert record == receipt_in(dest)["archives"][0]
    assert record["data_path"] == str(data / data_path_of(sim))
    assert is_whole(data / data_path_of(sim), record)
    assert record["archive_kept"] is True
    assert record["path"] == str(dest / sim.job(0).archive_name)
    assert record["verified_at"] <= record["unpacked_at"] <= ended.result["finished_at"]
    assert (record["verdict"], record["exit_code"], record["reason"]) == ("verified", 0, None)
    assert record["restore_info"]["Storage Engine"] == "wiredTiger"
    assert (ended.result["outcome"], ended.result["changed"]) == ("verified", True)
    assert sha1_of(dest / sim.job(0).archive_name) == sim.job(0).archive().sha1


def test_a_run_without_unpack_has_empty_fields(simulator: StartSimulator, restore: Restore) -> None:
    record = restore(simulator()).archive
    assert [record[name] for name in ("data_path", "data_files", "data_bytes", "restore_info")] == [None] * 4
    assert record["unpacked_at"] is None
    assert record["archive_kept"] is True


def test_files_have_mode_0600_and_directories_0700_also_the_one_that_is_created(
    simulator: StartSimulator, restore: Restore, tmp_path: Path
) -> None:
    sim, data = simulator("member=setuid"), tmp_path / "not" / "yet"
    before = os.umask(0o077)
    try:
        assert restore(sim, f"--unpack={data}").code == 0
    finally:
        os.umask(before)
    for path in (data, *data.rglob("*")):
        assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_directory_may_be_reached_through_a_link(
    simulator: StartSimulator, restore: Restore, data: Path, tmp_path: Path
) -> None:
    sim, link = simulator(), tmp_path / "link"
    data.mkdir()
    link.symlink_to(data)
    record = restore(sim, f"--unpack={link}").archive
    assert record["data_path"] == str(link / data_path_of(sim))
    assert names_in(data) == {data_path_of(sim)}
    again = restore(sim, f"--unpack={data}")
    assert (again.code, again.result["changed"]) == (0, False)


def test_dest_may_be_the_directory_itself(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator()
    assert restore(sim, f"--unpack={dest}").code == 0
    archive = sim.job(0).archive_name
    assert names_in(dest) == {archive, data_path_of(sim), "receipt.json", "SHA1SUMS", ".restore-agent"}
    assert restore(sim, f"--unpack={dest}").result["changed"] is False


def test_jobs_that_share_a_name_get_their_id_in_front(simulator: StartSimulator, restore: Restore, data: Path) -> None:
    sim = simulator("same-name", shards=1)
    assert restore(sim, f"--unpack={data}").code == 0
    names = names_in(data)
    assert len(names) == 2
    assert all(any(name.startswith(f"{job.id}-") for name in names) for job in sim.jobs)


def test_an_empty_directory_at_the_name_is_replaced(
    simulator: StartSimulator, restore: Restore, data: Path, tmp_path: Path
) -> None:
    sim = simulator()
    (data / data_path_of(sim)).mkdir(parents=True)
    assert restore(sim, f"--unpack={data}").code == 0
    assert content_of(data / data_path_of(sim)) == served(sim, tmp_path)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("range_", ["honour", "ignore"])
def test_a_transfer_that_is_resumed_or_starts_again_gives_the_same_data_path(
    simulator: StartSimulator, restore: Restore, data: Path, tmp_path: Path, framing: str, range_: str
) -> None:
    faults = ["cut=60%x1", f"framing={framing}", f"range={range_}", "max-downloads=5"]
    sim = simulator(*faults, archive_size=2 << 20)
    assert restore(sim, f"--unpack={data}").code == 0
    assert len(deliveries(sim)) == 2
    assert content_of(data / data_path_of(sim)) == served(sim, tmp_path)
    assert names_in(data) == {data_path_of(sim)}


def test_a_body_that_ends_early_in_complete_framing_is_downloaded_again(
    simulator: StartSimulator, restore: Restore, data: Path, tmp_path: Path
) -> None:
    sim = simulator("clean-cut=60%x1", "framing=chunked", "range=honour", "max-downloads=5", archive_size=2 << 20)
    assert restore(sim, f"--unpack={data}", "--hash-timeout=0.5s").code == 0
    assert content_of(data / data_path_of(sim)) == served(sim, tmp_path)


# ---------------------------------------------------------------- owner


@needs_root
@pytest.mark.parametrize(
    ("owner", "uid", "gid"),
    [("4321:4322", 4321, 4322), ("4321", 4321, 0), ("nobody", 65534, 0), ("nobody:", 65534, 65534), (":4322", 0, 4322)],
)
def test_everything_gets_the_owner_asked_for(
    simulator: StartSimulator, restore: Restore, data: Path, owner: str, uid: int, gid: int
) -> None:
    assert restore(simulator(), f"--unpack={data}", f"--owner={owner}").code == 0
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in (data, *data.rglob("*"))} == {(uid, gid)}


@needs_root
def test_an_owner_without_access_to_dest_is_a_warning(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    ended = restore(simulator(), f"--unpack={dest}", "--owner=4321")
    assert ended.code == 0
    assert [line["message"] for line in ended.lines if "0700" in str(line.get("message"))]
    assert stat.S_IMODE(dest.stat().st_mode) == 0o700


@pytest.mark.parametrize("owner", ["no-such-user", "root:no-such-group", ":", "a b"])
def test_an_unknown_owner_is_a_usage_error(
    simulator: StartSimulator, restore: Restore, data: Path, dest: Path, owner: str
) -> None:
    sim = simulator()
    assert restore(sim, f"--unpack={data}", f"--owner={owner}").code == 2
    assert not dest.exists()
    assert not data.exists()
    assert deliveries(sim) == []


@pytest.mark.parametrize("option", ["--owner=root", "--discard-archive"])
def test_options_of_unpacking_need_unpack(simulator: StartSimulator, restore: Restore, option: str) -> None:
    ended = restore(simulator(), option)
    assert ended.code == 2
    assert "--unpack" in ended.events("error")[0]["message"]


def test_the_directory_can_be_set_in_the_environment(simulator: StartSimulator, restore: Restore, data: Path) -> None:
    sim = simulator()
    assert restore(sim, env={"RESTORE_AGENT_UNPACK": str(data)}).code == 0
    assert names_in(data) == {data_path_of(sim)}


# ---------------------------------------------------------------- restoreInfo.txt


@pytest.mark.parametrize(
    ("fault", "name"),
    [("replica-set", "Replica Set"), ("cluster-id", "Cluster ID"), ("group-id", "Group ID")],
)
def test_restore_info_that_contradicts_the_job_is_a_warning_that_names_the_archive(
    simulator: StartSimulator, restore: Restore, data: Path, fault: str, name: str
) -> None:
    sim = simulator(f"restore-info={fault}")
    ended = restore(sim, f"--unpack={data}")
    assert ended.code == 0
    (warning,) = (line for line in ended.events("notice") if name in line["message"])
    assert warning["level"] == "warning"
    assert sim.job(0).archive_name in warning["message"]


@pytest.mark.parametrize("kind", ["huge", "binary"])
def test_the_result_and_the_receipt_show_the_same_restore_info(
    kind: str, simulator: StartSimulator, restore: Restore, data: Path, dest: Path
) -> None:
    record = restore(simulator(f"restore-info={kind}"), f"--unpack={data}").archive
    assert record == receipt_in(dest)["archives"][0]
    assert "\x1b" not in str(record["restore_info"])


@pytest.mark.parametrize("faults", [[], ["restore-info=missing"], ["restore-info=huge"], ["restore-info=binary"]])
def test_restore_info_without_contradiction_is_no_warning(
    simulator: StartSimulator, restore: Restore, data: Path, faults: list[str]
) -> None:
    ended = restore(simulator(*faults, shards=1), f"--unpack={data}")
    assert ended.code == 0
    assert [line for line in ended.events("notice") if "restoreInfo" in line["message"]] == []
    if faults == ["restore-info=missing"]:
        assert [record["restore_info"] for record in ended.result["archives"]] == [None, None]


# ---------------------------------------------------------------- status and text


def test_the_status_is_unpacking_once_only_unpacking_is_left(
    simulator: StartSimulator, start_agent: StartAgent, restore: Restore, data: Path, dest: Path
) -> None:
    sim = simulator(archive_size=16 << 20)
    assert restore(sim).code == 0
    process = start_agent(run_args(sim, dest, f"--unpack={data}"))
    states = set()
    while process.poll() is None:
        with suppress(FileNotFoundError):
            status = status_in(dest)
            row = status["archives"][0] if status["archives"] and status["exit_code"] is None else {}
            if row.get("state") == "unpacking":
                states.add(status["state"])
                assert row["unpacked_bytes"] is None or 0 <= row["unpacked_bytes"] <= row["bytes"]
                assert row["bytes"] == row["total_bytes"] == sim.job(0).archive().size
    assert finished(process).code == 0
    assert states <= {"unpacking"}, "a fast disk may leave nothing to see"
    last = status_in(dest)["archives"][0]
    assert last["state"] == "verified"
    assert last["unpacked_bytes"] == last["bytes"]


def test_text_output_names_each_data_path_with_its_files_and_size(
    simulator: StartSimulator, restore: Restore, data: Path
) -> None:
    sim = simulator(shards=1)
    ended = restore(sim, f"--unpack={data}", "--output=text")
    assert ended.code == 0
    for index in range(2):
        assert data_path_of(sim, index) in ended.out
    assert ended.out.count(" files, ") == 2
    assert "start mongod" in ended.out


def test_names_of_staging_directories_are_those_of_the_jobs(
    simulator: StartSimulator, restore: Restore, data: Path
) -> None:
    sim = simulator("stall=50%x1", archive_size=4 << 20)

    def look() -> None:
        wait_until(lambda: staging_of(sim) in names_in(data), "the staging directory")
        assert names_in(data) == {staging_of(sim)}
        sim.set_faults()

    with meanwhile(look):
        assert restore(sim, f"--unpack={data}", "--stall-timeout=1s").code in (0, 23)
