"""Runs again, the selection of jobs, readiness, and names."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents import (
    PATIENCE,
    QUICK,
    Restore,
    RunAgent,
    StartSimulator,
    connection_args,
    deliveries,
    meanwhile,
    receipt_in,
    sha1_of,
    snapshot_of,
    wait_until,
)
from support.runs import ended_with, name_of, names_in, published

from restore_agent.simulator import Simulator

# ---------------------------------------------------------------- again


def test_a_second_run_changes_nothing_and_requests_no_delivery_url(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(shards=2)
    first = ended_with(restore(sim), 0)
    before, gets = snapshot_of(dest), len(deliveries(sim))
    second = ended_with(restore(sim), 0)
    assert second.result["changed"] is False
    assert len(deliveries(sim)) == gets
    after = snapshot_of(dest)
    touched = {name for name in before | after if before.get(name) != after.get(name)}
    assert touched <= {"receipt.json", ".restore-agent", ".restore-agent/status.json", ".restore-agent/journal.jsonl"}
    for name in ("sha1", "expected_sha1", "bytes", "path", "downloads_spent", "verdict"):
        assert [r[name] for r in second.result["archives"]] == [r[name] for r in first.result["archives"]]


def test_a_second_run_reports_in_text_that_nothing_had_to_be_done(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator()
    restore(sim)
    assert "Nothing had to be done" in restore(sim, "--output=text").out


def test_a_second_run_succeeds_after_the_deliveries_expired(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("url-gone", shards=1)
    restore(sim)
    sim.clock.advance(7200)
    ended = ended_with(restore(sim), 0)
    assert ended.verdicts == ["verified"] * 2
    assert ended.result["changed"] is False


def test_an_archive_that_was_changed_is_not_treated_as_verified(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    restore(sim)
    path = dest / name_of(sim)
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"changed")
    ended_with(restore(sim), 42, "foreign-file")
    assert len(deliveries(sim)) == 1


def test_an_archive_that_was_removed_is_downloaded_again_while_the_delivery_is_ready(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("max-downloads=2")
    restore(sim)
    (dest / name_of(sim)).unlink()
    ended = ended_with(restore(sim), 0)
    assert ended.archive["downloads_spent"] == 2
    assert published(sim, dest)


def test_a_run_after_a_failed_one_continues_and_the_receipt_shows_it(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("never-ready@1", shards=1)
    ended_with(restore(sim, "--wait-timeout=0.3s"), 20)
    sim.set_faults()
    ended = ended_with(restore(sim), 0)
    assert ended.verdicts == ["verified"] * 2
    assert receipt_in(dest)["exit_code"] == 0
    assert len(deliveries(sim)) == 2


# ---------------------------------------------------------------- which jobs


@pytest.mark.parametrize(
    "pattern_of",
    [
        lambda sim: sim.job(1).id,
        lambda sim: sim.job(1).id[:20] + "*",
        lambda sim: sim.job(1).member.cluster_id,
        lambda sim: sim.job(1).archive_name,
        lambda sim: "electron_1-*",
    ],
    ids=["job-id", "job-id-glob", "cluster-id", "archive", "archive-glob"],
)
def test_select_takes_job_id_cluster_id_and_archive_name(
    pattern_of: Callable[[Simulator], str], simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(shards=2)
    ended = ended_with(restore(sim, f"--select={pattern_of(sim)}"), 0)
    assert ended.archive["job_id"] == sim.job(1).id
    assert [request.job_id for request in deliveries(sim)] == [sim.job(1).id]


def test_select_takes_the_host_id_of_a_mirrored_config_server(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("sccc", shards=1)
    host = sim.job(1).member.host_id
    ended = ended_with(restore(sim, f"--select={host}"), 0)
    assert ended.archive["host_id"] == host
    assert ended.archive["cluster_id"] is None


def test_a_selection_by_id_does_not_wait_for_the_names_of_other_jobs(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("never-ready@1", shards=1)
    ended = ended_with(restore(sim, f"--select={sim.job(0).member.cluster_id}", "--wait-timeout=2s"), 0)
    assert ended.archive["job_id"] == sim.job(0).id


def test_several_selections_add_up(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(shards=2)
    ended = ended_with(restore(sim, "--select=electron_0-*", "--select=config-*"), 0)
    assert {record["job_id"] for record in ended.result["archives"]} == {sim.job(0).id, sim.job(2).id}


def test_a_selection_by_name_waits_for_the_name(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("ready-after=0.4", shards=1)
    ended = ended_with(restore(sim, "--select=config-*"), 0)
    assert ended.archive["job_id"] == sim.job(1).id


def test_a_second_run_for_other_jobs_of_the_batch_merges_into_the_receipt(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(shards=2)
    restore(sim, "--select=electron_0-*")
    first = receipt_in(dest)
    ended = ended_with(restore(sim, "--select=electron_1-*"), 0)
    merged = receipt_in(dest)
    assert [record["job_id"] for record in first["archives"]] == [sim.job(0).id]
    assert {record["job_id"] for record in merged["archives"]} == {sim.job(0).id, sim.job(1).id}
    assert first["archives"][0] in merged["archives"]
    assert ended.result["archives"] == merged["archives"]
    assert (dest / "SHA1SUMS").read_text().count("\n") == 2
    assert len(deliveries(sim)) == 2


def test_expect_jobs_waits_for_jobs_that_are_listed_late(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("appears-after=0.5@1", shards=1)
    ended = ended_with(restore(sim, "--expect-jobs=2"), 0)
    assert ended.verdicts == ["verified"] * 2


def test_two_jobs_can_be_named_by_their_ids(simulator: StartSimulator, restore: Restore, run_agent: RunAgent) -> None:
    sim = simulator(shards=2)
    args = connection_args(sim, jobs=False)
    ids = [sim.job(index).id for index in (0, 2)]
    options = [f"--job-id={job_id}" for job_id in (*ids, ids[0])]
    dest = sim.directory / "dest"
    ended = ended_with(run_agent(["run", *args, *options, *QUICK, f"--dest={dest}", "-o", "json"]), 0)
    assert {record["job_id"] for record in ended.result["archives"]} == set(ids)
    assert ended.result["batch_id"] == sim.hello["batch_id"]
    assert len(deliveries(sim)) == 2


def test_a_mirrored_config_server_is_restored_by_its_host_id(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator("sccc", shards=1)
    host = sim.job(1).member.host_id
    args = [arg for arg in connection_args(sim) if not arg.startswith("--cluster-id")]
    ended = ended_with(run_agent(["run", *args, f"--host-id={host}", *QUICK, f"--dest={dest}", "-o", "json"]), 0)
    assert ended.archive["host_id"] == host
    assert receipt_in(dest)["host_id"] == host
    assert receipt_in(dest)["cluster_id"] is None
    assert all(f"/hosts/{host}/restoreJobs" in request.path for request in sim.requests if request.kind == "api")


@pytest.mark.parametrize("fault", ["automated@0", "method=SCP@0", "method=QUERY@0", "method=SOMETHING_NEW@0"])
def test_jobs_that_are_not_delivered_over_http_are_skipped_without_a_request(
    fault: str, simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator(fault, shards=1)
    ended = ended_with(restore(sim), 0)
    assert {record["job_id"]: record["verdict"] for record in ended.result["archives"]} == {
        sim.job(0).id: "skipped",
        sim.job(1).id: "verified",
    }
    assert {request.job_id for request in deliveries(sim)} == {sim.job(1).id}


def test_a_batch_of_automated_restores_only_is_not_a_success(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("automated", shards=1)
    ended_with(restore(sim), 24, "no-http-delivery")
    assert deliveries(sim) == []


# ---------------------------------------------------------------- readiness


@pytest.mark.parametrize(
    "fault",
    [
        "missing-delivery",
        "unknown-status=0.4",
        "ready-without-url=0.4",
        "finished=ready",
        "ready-after=0.4",
        "header-noise",
        "numbers-as-strings",
        "plain-tar",
        "content-encoding-gzip",
        'job-field=somethingNew:{"a":[1]}',
        "job-field=timestamp:__missing__",
        "job-field=encryptionEnabled:__missing__",
        "job-field=delivery.maxDownloads:__missing__",
        "job-field=delivery.expires:__missing__",
        'job-field=delivery.expires:"next tuesday"',
        "job-field=delivery.maxDownloads:2147483647",
        "job-field=delivery.methodName:__missing__",
        'job-field=delivery.methodName:"CLIENT_PIT_HTTP"',
        'job-field=hashes:"none"',
    ],
)
def test_a_run_accepts_unusual_fields_of_a_job(fault: str, simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(fault, "ready-after=0.2") if fault == "missing-delivery" else simulator(fault)
    if fault.startswith("job-field=hashes"):
        ended_with(restore(sim, "--hash-timeout=0.2s"), 10)
    else:
        ended_with(restore(sim), 0)
    assert len(deliveries(sim)) == 1


def test_a_download_starts_as_soon_as_its_own_job_is_ready(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("never-ready@1", shards=1)

    def release() -> None:
        wait_until(lambda: published(sim, dest, 0))
        sim.set_faults()

    with meanwhile(release):
        ended_with(restore(sim), 0)


def test_all_transfers_together_stay_within_the_rate_limit(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(shards=1, archive_size=SIZE)
    began = time.monotonic()
    ended_with(restore(sim, f"--limit-rate={SIZE * 4}"), 0)
    assert 0.4 <= time.monotonic() - began < PATIENCE


SIZE = 1 << 17


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("../../outside.tar.gz", "outside.tar.gz"),
        ("/etc/cron.d/evil.tar.gz", "evil.tar.gz"),
        ("..\\..\\windows.tar.gz", "windows.tar.gz"),
        (".hidden.tar.gz", "hidden.tar.gz"),
        ("...", None),
        ("new\nline\x1b[2J.tar.gz", "newline[2J.tar.gz"),
        ("dash-—-and ümlaut.tar.gz", "dash-—-and ümlaut.tar.gz"),
        ("-rf.tar.gz", "-rf.tar.gz"),
    ],
)
def test_an_archive_stays_inside_dest_whatever_its_name(
    name: str, stored: str | None, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(f"name={name}")
    ended = ended_with(restore(sim), 0)
    kept = ended.archive["file_name"]
    assert kept == (stored or f"{sim.job(0).id}.tar.gz")
    assert names_in(dest) == {kept, "SHA1SUMS", "receipt.json", ".restore-agent"}
    assert names_in(dest.parent) == {dest.name}


@pytest.mark.parametrize("length", [246, 255, 300, 2000])
def test_a_name_that_is_too_long_is_cut_to_fit(
    length: int, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(f"name={'ä' * ((length - 7) // 2)}.tar.gz", "hash=never")
    ended = ended_with(restore(sim, "--hash-timeout=0.2s"), 10)
    kept = ended.archive["file_name"]
    assert kept.endswith(".tar.gz")
    assert len(f"{kept}.unproven".encode()) <= 255
    assert (dest / f"{kept}.unproven").exists()


def test_jobs_that_share_a_name_get_their_ids_in_front(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("same-name", shards=2)
    ended_with(restore(sim), 0)
    shared = sim.job(0).file_name
    wanted = {f"{sim.job(index).id}-{shared}" for index in range(3)}
    assert {path.name for path in dest.glob("*.tar.gz")} == wanted
    for index in range(3):
        assert sha1_of(dest / f"{sim.job(index).id}-{shared}") == sim.job(index).archive().sha1


@pytest.mark.parametrize("name", ["receipt.json", "SHA1SUMS"])
def test_a_name_that_the_agent_uses_itself_gets_the_job_id_in_front(
    name: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(f"name={name}")
    ended = ended_with(restore(sim), 0)
    assert ended.archive["file_name"] == f"{sim.job(0).id}-{name}"
    assert receipt_in(dest)["exit_code"] == 0


def test_a_name_that_equals_the_part_file_of_another_job_does_not_collide(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("name=a.tar.gz@0", "name=a.tar.gz.part@1", shards=1)
    ended = ended_with(restore(sim), 0)
    assert ended.verdicts == ["verified"] * 2
    assert len({record["file_name"] for record in ended.result["archives"]}) == 2
