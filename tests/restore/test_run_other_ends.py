"""Exit codes of the connection, of DEST, and of signals: 30 to 143."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents import (
    QUICK,
    Restore,
    StartAgent,
    StartSimulator,
    connection_args,
    deliveries,
    finished,
    journal_in,
    meanwhile,
    receipt_in,
    snapshot_of,
    status_in,
    wait_until,
)
from support.runs import ended_with, name_of, names_in, published

# ---------------------------------------------------------------- other ends


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("unauthorized", "USER_UNAUTHORIZED: You are not authorized"),
        ("unauthorized=empty", "HTTP 401"),
        ("forbidden", "IP_ADDRESS_NOT_ON_ACCESS_LIST: IP address 127.0.0.1"),
        ("not-in-group", "NOT_IN_GROUP: The current user"),
    ],
)
def test_30_when_the_api_refuses_access(
    fault: str, said: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    ended = ended_with(restore(simulator(fault)), 30, "api-access-refused")
    assert said in ended.events("error")[0]["message"]
    assert not (dest / "receipt.json").exists()


@pytest.mark.parametrize("fault", ["wrong-host", "expired-cert", "client-cert"])
def test_31_when_the_tls_handshake_fails(fault: str, simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    ended_with(restore(simulator(fault, tls=True)), 31, "tls")
    assert not (dest / "receipt.json").exists()


def test_31_when_the_server_is_not_trusted(simulator: StartSimulator, restore: Restore) -> None:
    other = simulator(tls=True)
    sim = simulator(tls=True)
    ended = ended_with(restore(sim, f"--ca-file={other.hello['ca_file']}"), 31, "tls")
    assert "--ca-file" in ended.events("error")[0]["hint"]
    assert sim.requests == []


def test_31_when_the_delivery_host_is_not_trusted_without_spending_a_download(
    simulator: StartSimulator, restore: Restore
) -> None:
    elsewhere = simulator(tls=True)
    url = elsewhere.document(0)["delivery"]["url"]
    sim = simulator(f'job-field=delivery.url:"{url}"', tls=True)
    ended = ended_with(restore(sim), 31, "tls")
    assert deliveries(elsewhere) == []
    assert ended.archive["downloads_spent"] == 0
    (settled,) = ended.events("archive")
    assert settled["problem"]["download_spent"] is False


def test_the_receipt_is_left_as_it_was_at_31(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    url = simulator(tls=True).document(0)["delivery"]["url"]
    ended_with(restore(simulator(f'job-field=delivery.url:"{url}"', tls=True)), 31)
    assert not (dest / "receipt.json").exists()


def test_a_client_certificate_is_sent_to_a_server_that_requires_one(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("client-cert", tls=True)
    certificate, key = sim.client_certificate()
    ended_with(restore(sim, f"--client-cert={certificate}", f"--client-key={key}"), 0)


def test_32_when_no_server_listens(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        ended = restore(simulator(), f"--url=http://127.0.0.1:{port}", "--wait-timeout=0.3s")
    ended_with(ended, 32, "ops-manager-unreachable")
    assert not (dest / "receipt.json").exists()


@pytest.mark.parametrize("fault", ["api-429=always", "api-500=always", "api-503=always", "api-reset=always"])
def test_32_when_the_api_keeps_failing_until_the_wait_timeout(
    fault: str, simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator(fault)
    ended_with(restore(sim, "--wait-timeout=0.4s"), 32, "ops-manager-unreachable")
    assert len(sim.requests) > 1


def test_the_api_may_be_unreachable_for_the_wait_timeout_however_short_the_hash_timeout(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("api-503=always")

    def recover() -> None:
        wait_until(lambda: len(sim.requests) >= 4)
        sim.set_faults()

    with meanwhile(recover):
        ended_with(restore(sim, "--hash-timeout=0.05s"), 0)


def test_an_unreachable_api_ends_the_run_after_the_wait_timeout_however_long_the_hash_timeout(
    simulator: StartSimulator, restore: Restore
) -> None:
    began = time.monotonic()
    ended_with(restore(simulator("api-503=always"), "--wait-timeout=0.2s", "--hash-timeout=4s"), 32)
    assert time.monotonic() - began < 3


def test_32_when_the_api_fails_permanently_while_a_hash_is_awaited(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=late:3600")

    def fail() -> None:
        wait_until(lambda: any(request.completed for request in deliveries(sim)))
        wait_until(lambda: any(line.get("fact") == "whole" for line in journal_in(dest)))
        sim.set_faults("hash=late:3600", "api-503=always")

    with meanwhile(fail):
        ended_with(restore(sim, "--hash-timeout=0.5s"), 32, "ops-manager-unreachable")
    assert not (dest / "receipt.json").exists()
    assert (dest / f"{name_of(sim)}.part").exists()
    sim.set_faults()
    ended_with(restore(sim), 0)
    assert len(deliveries(sim)) == 1


def test_40_before_a_download_is_spent_when_the_disk_is_full(
    simulator: StartSimulator, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    place = small_disk(512)
    sim = simulator(archive_size=1 << 20)
    ended = ended_with(restore(sim, to=place), 40, "no-space")
    assert deliveries(sim) == []
    assert ended.archive["downloads_spent"] == 0
    assert receipt_in(place)["exit_code"] == 40


def test_40_as_soon_as_the_servers_length_shows_that_the_archive_does_not_fit(
    simulator: StartSimulator, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    place = small_disk(3 << 10)
    sim = simulator("max-downloads=2", archive_size=4 << 20)
    ended = ended_with(restore(sim, to=place), 40, "no-space")
    part = place / f"{name_of(sim)}.part"
    assert not part.exists() or part.stat().st_size == 0, "what does not fit is not written until the disk is full"
    assert "bytes short" in ended.events("archive")[0]["problem"]["message"]
    assert receipt_in(place)["exit_code"] == 40


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_40_when_an_archive_does_not_fit_and_a_later_run_with_enough_space_downloads_it(
    framing: str, simulator: StartSimulator, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    place = small_disk(3 << 10)
    sim = simulator(f"framing={framing}", "max-downloads=2", archive_size=4 << 20)
    ended = ended_with(restore(sim, to=place), 40, "no-space")
    assert ended.archive["downloads_spent"] == 1
    assert not (place / name_of(sim)).exists()
    subprocess.run(["mount", "-o", "remount,size=16m", place], check=True)
    ended_with(restore(sim, to=place), 0)
    assert published(sim, place)


def test_40_leaves_a_receipt_and_no_temporary_file_although_the_disk_was_full(
    simulator: StartSimulator, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    place = small_disk(3 << 10)
    sim = simulator("framing=chunked", archive_size=4 << 20)
    ended_with(restore(sim, to=place), 40, "no-space")
    assert names_in(place) <= {f"{name_of(sim)}.part", "receipt.json", ".restore-agent"}
    assert receipt_in(place)["exit_code"] == 40


def test_40_for_one_archive_leaves_the_other_one_verified(
    simulator: StartSimulator, restore: Restore, small_disk: Callable[..., Path]
) -> None:
    place = small_disk(2900)
    sim = simulator(shards=1, archive_size=7 << 18)
    ended = ended_with(restore(sim, "--parallel=1", to=place), 40, "no-space")
    assert sorted(ended.verdicts) == ["failed", "verified"]
    assert sum(published(sim, place, index) for index in range(2)) == 1
    assert len(deliveries(sim)) == 1  # that the other one will not fit shows before its download is spent


def test_41_when_dest_is_read_only(
    simulator: StartSimulator, restore: Restore, tmp_path: Path, small_disk: Callable[..., Path]
) -> None:
    sim = simulator()
    if os.geteuid() == 0:
        place = small_disk(512, "ro")
    else:
        place = tmp_path / "locked"
        place.mkdir(mode=0o500)
    ended_with(restore(sim, to=place), 41, "dest-unwritable")
    assert sim.requests == []
    assert names_in(place) == set()


def test_41_when_dest_cannot_be_made(simulator: StartSimulator, restore: Restore) -> None:
    ended_with(restore(simulator(), to=Path("/proc/restore-agent/here")), 41, "dest-unwritable")


def test_42_when_a_foreign_file_has_the_final_name(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("hash=early")
    dest.mkdir()
    (dest / name_of(sim)).write_text("somebody else's")
    ended = ended_with(restore(sim), 42, "foreign-file")
    assert (dest / name_of(sim)).read_text() == "somebody else's"
    assert deliveries(sim) == []
    assert ended.events("archive")[0]["problem"]["download_spent"] is False
    assert receipt_in(dest)["exit_code"] == 42


def test_42_when_no_hash_is_published_for_a_foreign_file(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    dest.mkdir()
    (dest / name_of(sim)).write_bytes(sim.job(0).archive().path.read_bytes())
    ended_with(restore(sim), 42, "foreign-file")
    assert deliveries(sim) == []


def test_a_foreign_file_with_the_published_hash_counts_as_verified_without_a_download(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=early")
    dest.mkdir()
    (dest / name_of(sim)).write_bytes(sim.job(0).archive().path.read_bytes())
    ended = ended_with(restore(sim), 0)
    assert ended.archive["verdict"] == "verified"
    assert ended.archive["downloads_spent"] == 0
    assert ended.result["changed"] is False
    assert deliveries(sim) == []
    assert name_of(sim) in (dest / "SHA1SUMS").read_text()


def test_42_when_a_file_appears_at_the_final_name_during_the_download(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=late:0.5")

    def intrude() -> None:
        wait_until(lambda: any(request.completed for request in deliveries(sim)))
        (dest / name_of(sim)).write_text("somebody else's")

    with meanwhile(intrude):
        ended_with(restore(sim), 42, "foreign-file")
    assert (dest / name_of(sim)).read_text() == "somebody else's"
    (dest / name_of(sim)).unlink()
    ended_with(restore(sim), 0)
    assert len(deliveries(sim)) == 1


def test_42_when_dest_has_sums_that_the_agent_did_not_write(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    dest.mkdir()
    (dest / "SHA1SUMS").write_text("somebody's own list\n")
    sim = simulator()
    ended_with(restore(sim), 42, "foreign-file")
    assert (dest / "SHA1SUMS").read_text() == "somebody's own list\n"
    assert deliveries(sim) == []


def test_the_hash_time_does_not_begin_while_jobs_are_expected_that_are_not_listed_yet(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("appears-after=1@1", "hash=late:0.8@0", shards=1)
    ended_with(restore(sim, "--expect-jobs=2", "--hash-timeout=0.2s", "--wait-timeout=20s"), 0)


def test_42_when_dest_holds_the_receipt_of_another_batch(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    ended_with(restore(simulator(shards=1)), 0)
    before = snapshot_of(dest)
    other = simulator(shards=3)
    ended_with(restore(other), 42, "other-batch")
    assert other.requests == []
    after = snapshot_of(dest)
    assert {name for name in before | after if before.get(name) != after.get(name)} <= {".restore-agent"}


def test_42_when_dest_holds_the_receipt_of_another_single_job(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    ended_with(restore(simulator()), 0)
    other = simulator(seed="another")
    ended_with(restore(other), 42, "other-batch")
    assert deliveries(other) == []


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", '{"schema": "restore-agent/receipt/2"}', '{"schema": "restore-agent/receipt/1"}'],
)
def test_42_when_the_receipt_is_damaged_or_of_a_future_version(
    text: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    dest.mkdir()
    (dest / "receipt.json").write_text(text)
    ended_with(restore(sim), 42, "record-unreadable")
    assert (dest / "receipt.json").read_text() == text
    assert sim.requests == []


@pytest.mark.parametrize("text", ["", "\x00" * 300])
def test_a_receipt_that_a_crash_left_empty_is_reported_and_written_again(
    text: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    restore(sim)
    (dest / "receipt.json").write_text(text)
    ended = ended_with(restore(sim), 0)
    assert "receipt.json was empty after a crash" in ended.events("notice")[0]["message"]
    assert receipt_in(dest)["archives"][0]["verdict"] == "verified"
    assert len(deliveries(sim)) == 1


def test_42_when_dest_is_a_file(simulator: StartSimulator, restore: Restore, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("ours")
    ended_with(restore(simulator(), to=file), 42, "in-the-way")
    ended_with(restore(simulator(), to=file / "below"), 42, "in-the-way")
    assert file.read_text() == "ours"


def test_50_when_another_run_holds_dest(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    ended_with(restore(simulator()), 0)
    sim = simulator()
    before = snapshot_of(dest)
    with (dest / ".restore-agent" / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended_with(restore(sim), 50, "dest-held")
    assert snapshot_of(dest) == before
    assert sim.requests == []


def test_50_during_a_real_run_which_continues_unaffected(
    simulator: StartSimulator, restore: Restore, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("hash=late:60")
    process = start_agent(["run", *connection_args(sim), *QUICK, "--hash-timeout=60s", f"--dest={dest}", "-o", "json"])
    wait_until(lambda: any(request.completed for request in deliveries(sim)))
    ended_with(restore(sim), 50, "dest-held")
    sim.clock.advance(60)
    ended_with(finished(process), 0)
    assert len(deliveries(sim)) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_130_and_143_when_a_signal_stops_the_run_and_the_next_run_resumes(
    number: signal.Signals,
    code: int,
    simulator: StartSimulator,
    restore: Restore,
    start_agent: StartAgent,
    dest: Path,
) -> None:
    sim = simulator("drip=40K", "range=honour", "max-downloads=2")
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "-o", "json"])
    wait_until(lambda: (part := dest / f"{name_of(sim)}.part").exists() and part.stat().st_size > 1000)
    process.send_signal(number)
    ended_with(finished(process), code, "stopped")
    status = status_in(dest)
    assert (status["state"], status["exit_code"]) == ("interrupted", code)
    assert not (dest / "receipt.json").exists()
    sim.set_faults("range=honour")
    ended = ended_with(restore(sim), 0)
    assert ended.archive["resumed"] is True
    assert published(sim, dest)
