"""Delivery URLs that may be good for one download only: what is asked of them, and what follows when one breaks."""

from __future__ import annotations

import os
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from support.agents import (
    SMALL,
    Restore,
    StartAgent,
    StartSimulator,
    deliveries,
    meanwhile,
    wait_until,
)
from support.one_shot import BRISK, ENDINGS, FRAMINGS, attempts_in, is_published, never_published_wrongly, started_run

# ---------------------------------------------------------------- what is asked


def test_a_delivery_url_gets_one_get_and_no_other_request(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(shards=2)
    assert restore(sim).code == 0
    assert sorted((request.method, request.job_id) for request in deliveries(sim)) == sorted(
        ("GET", job.id) for job in sim.jobs
    )
    assert all(request.range is None for request in deliveries(sim))
    assert all(request.headers["accept-encoding"] == "identity" for request in deliveries(sim))


def test_no_head_and_no_probe_is_sent_whatever_fails(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("cut=30%", "html-body=1", "redirect=2", "max-downloads=9", "range=honour", shards=1)
    restore(sim)
    assert {request.method for request in sim.requests} == {"GET"}
    assert {request.range for request in deliveries(sim)} <= {None} | {f"bytes={size}-" for size in range(1, SMALL * 2)}


def test_the_journal_has_each_attempt_before_its_get(
    simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("cut=30%x2", "stall=0%", "max-downloads=9", shards=0)
    process = started_run(start_agent, sim, dest, "--stall-timeout=30s")

    def seen(number: int) -> bool:
        return len(deliveries(sim)) >= number

    for number in (1, 2, 3):
        wait_until(partial(seen, number))
        assert len(attempts_in(dest)) >= number
    wait_until(lambda: len(deliveries(sim)) == 3)
    assert len(attempts_in(dest)) == 3
    process.kill()


def test_the_journal_line_is_synced_before_the_request_is_sent(
    simulator: StartSimulator, restore: Restore, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = simulator("cut=30%", "max-downloads=2")
    seen: list[tuple[int, int]] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("journal.jsonl"):
            seen.append((len(attempts_in(dest)), len(deliveries(sim))))

    monkeypatch.setattr(os, "fsync", watched)
    assert restore(sim).code == 0
    assert (1, 0) in seen, "the first attempt was on disk when no request had arrived"
    assert (2, 1) in seen, "the second attempt was on disk when only the first request had arrived"
    assert all(requests <= attempts for attempts, requests in seen)


def test_success_is_followed_by_no_further_get(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("max-downloads=9", "hash=late:0.3")
    assert restore(sim).code == 0
    assert restore(sim).code == 0
    assert len(deliveries(sim)) == 1


def test_an_expired_or_unready_delivery_url_is_never_requested(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("expired@0", "never-ready@1", "automated@2", shards=2)
    restore(sim, "--wait-timeout=0.2s")
    assert deliveries(sim) == []


# ---------------------------------------------------------------- cuts


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interrupted_single_download_is_never_promoted(
    ending: str, framing: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(f"{ending}=60%", f"framing={framing}")
    ended = restore(sim, *BRISK)
    assert ended.code == 23, ended.out
    assert ended.archive["verdict"] == "failed"
    assert len(deliveries(sim)) == 1
    assert not (dest / sim.job(0).file_name).exists()
    assert not (dest / f"{sim.job(0).file_name}.unproven").exists()
    assert not (dest / "SHA1SUMS").exists()


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interrupted_download_is_retried_while_downloads_are_left(
    ending: str, framing: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(f"{ending}=60%x2", f"framing={framing}", "max-downloads=3")
    ended = restore(sim, *BRISK)
    assert ended.code == 0, ended.out
    assert ended.archive["downloads_spent"] == 3
    assert ended.archive["resumed"] is False
    assert len(ended.events("attempt-failed")) == 2
    assert is_published(sim, dest)


@pytest.mark.parametrize("cut", ["0%", "1", "10", "100%"])
@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_body_that_ends_near_its_end_is_judged_by_its_own_structure(
    cut: str, framing: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(f"clean-cut={cut}", f"framing={framing}", "hash=early")
    ended = restore(sim)
    assert ended.code == (0 if cut == "100%" else 23), ended.out
    assert never_published_wrongly(sim, dest)


def test_a_truncated_plain_tar_is_detected_although_the_connection_closed_normally(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("clean-cut=60%", "framing=close", "plain-tar")
    assert restore(sim).code == 23
    assert not (dest / sim.job(0).file_name).exists()


def test_the_job_is_polled_again_before_another_attempt(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("cut=60%x3", "max-downloads=9")
    restore(sim)
    kinds = [request.kind for request in sim.requests]
    gets = [place for place, kind in enumerate(kinds) if kind == "delivery"]
    assert len(gets) == 4
    assert all("api" in kinds[one:next_] for one, next_ in pairwise(gets))


@pytest.mark.parametrize(("count", "spent"), [("start", 2), ("end", 3)])
def test_what_the_server_answers_decides_not_a_guess_of_what_it_counts(
    count: str, spent: int, simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("cut=60%x2", f"count={count}", "max-downloads=2" if count == "start" else "max-downloads=1")
    ended = restore(sim)
    assert ended.code == (23 if count == "start" else 0)
    assert ended.archive["downloads_spent"] == len(deliveries(sim)) == spent


def test_22_when_the_delivery_expires_after_an_interruption(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("cut=60%", "max-downloads=9", "expires-in=3600")

    def expire() -> None:
        wait_until(lambda: deliveries(sim))
        sim.clock.advance(7200)

    with meanwhile(expire):
        ended = restore(sim, "--poll-interval=0.5s")
    assert ended.code == 22
    assert len(deliveries(sim)) == 1


@pytest.mark.parametrize("retries", [0, 2])
def test_25_when_the_retries_are_used_up_while_the_api_reports_ready(
    retries: int, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("cut=60%xalways", "max-downloads=99")
    ended = restore(sim, f"--retries={retries}")
    assert ended.code == 25
    assert ended.archive["reason"] == "transfer-cut"
    assert len(deliveries(sim)) == ended.archive["downloads_spent"] == retries + 1
    problem = ended.events("archive")[0]["problem"]
    assert f"{retries + 1} attempt" in problem["message"]
    assert problem["download_spent"] is True
    assert ".part with" in problem["on_disk"]


@pytest.mark.parametrize(
    ("faults", "retries", "code"),
    [
        (("max-downloads=1",), 0, 23),
        (("max-downloads=2",), 1, 23),
        (("max-downloads=9", "expires-in=0.3", "drip=64K", "stall=50%"), 0, 22),
    ],
)
def test_after_the_last_attempt_the_status_of_the_job_decides(
    faults: tuple[str, ...], retries: int, code: int, simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("cut=60%xalways", *faults)
    ended = restore(sim, f"--retries={retries}", "--stall-timeout=0.5s")
    assert ended.code == code
    assert len(deliveries(sim)) == retries + 1


def test_a_resume_that_led_to_other_bytes_is_not_a_mismatch_even_after_the_last_attempt(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("cut=60%", "range=wrong-bytes", "max-downloads=9")
    ended = restore(sim, "--retries=1")
    assert (ended.code, ended.archive["reason"]) == (25, "transfer-cut")
    assert restore(sim).code == 0
    assert is_published(sim, dest)


def test_no_download_is_spent_when_the_delivery_host_cannot_be_reached(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    gone = simulator()
    url = gone.document(0)["delivery"]["url"]
    gone.stop()
    sim = simulator(f'job-field=delivery.url:"{url}"')
    ended = restore(sim, "--retries=1")
    assert ended.code == 25
    assert ended.archive["reason"] == "delivery-unreachable"
    assert ended.archive["downloads_spent"] == 0
    assert ended.events("archive")[0]["problem"]["download_spent"] is False


def test_retry_after_of_a_refusal_is_honoured(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("refuse=503", "retry-after=1", "max-downloads=9")
    assert restore(sim).code == 0
    first, second = deliveries(sim)
    assert second.time - first.time >= 1


@pytest.mark.parametrize(
    "page", ["html-body=1", "json-body=1", "empty-body=1", "refuse=503", "refuse=404", "refuse=204"]
)
def test_a_page_instead_of_the_archive_is_refused_and_the_next_attempt_succeeds(
    page: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(page, "max-downloads=2")
    assert restore(sim).code == 0
    assert len(deliveries(sim)) == 2
    assert is_published(sim, dest)


def test_a_page_does_not_change_a_part_file_that_can_be_resumed(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("cut=60%", "refuse=503", "max-downloads=9", "range=honour")
    ended = restore(sim)
    assert ended.code == 0
    assert [request.status for request in deliveries(sim)] == [200, 503, 206]
    assert ended.archive["resumed"] is True


def test_a_url_that_is_renewed_is_taken_from_the_latest_poll(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("renew-url=1", "drip=64K", "cut=60%x2", "max-downloads=9")
    assert restore(sim, "--retries=20").code == 0
    assert is_published(sim, dest)
    assert len({request.path for request in deliveries(sim)}) > 1


# ---------------------------------------------------------------- resume


@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_interrupted_transfer_is_resumed_if_the_server_supports_it(
    framing: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("cut=60%", "range=honour", "max-downloads=2", f"framing={framing}")
    ended = restore(sim)
    assert ended.code == 0, ended.out
    first, second = deliveries(sim)
    assert (first.status, first.range) == (200, None)
    assert "if-range" not in first.headers
    assert second.headers["if-range"].startswith('"')
    total = sim.job(0).archive().size
    kept = int(second.range.removeprefix("bytes=").removesuffix("-")) if second.range else 0
    assert 0 < kept <= total * 0.6 + 1
    assert second.status == 206
    assert ended.archive["resumed"] is True
    assert ended.archive["downloads_spent"] == 2
    assert is_published(sim, dest)
    (begun, resumed) = ended.events("download-started")
    assert (begun["offset"], resumed["offset"]) == (0, kept)


@pytest.mark.parametrize(
    "faults",
    [
        ["range=none"],
        ["range=ignore"],
        ["range=416"],
        ["range=wrong-offset"],
        ["range=wrong-total"],
        ["range=wrong-bytes"],
        ["range=honour", "etag-changes"],
        ["range=honour", "no-validator"],
        ["range=honour", "different-bytes"],
        ["range=ignore", "framing=chunked"],
        ["range=wrong-total", "framing=close"],
    ],
    ids="+".join,
)
def test_an_untrusted_range_answer_restarts_the_download(
    faults: list[str], simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("cut=60%", "max-downloads=9", *faults)
    ended = restore(sim)
    assert ended.code == 0, ended.out
    assert is_published(sim, dest)
    assert ended.archive["resumed"] is False
    assert ended.archive["bytes"] == sim.job(0).archive(sim.job(0).attempts - 1).size


@pytest.mark.parametrize("fault", ["range=wrong-offset", "range=wrong-total", "range=wrong-bytes", "range=416"])
def test_a_wrong_range_costs_a_download_and_never_verifies_other_bytes(
    fault: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("cut=60%", "max-downloads=2", fault)
    ended = restore(sim)
    assert ended.code in (0, 11, 23)
    assert never_published_wrongly(sim, dest)
    assert (ended.code == 0) == is_published(sim, dest)


def test_a_resumed_download_that_is_interrupted_is_resumed_again(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("cut=50%x4", "range=honour", "max-downloads=9", archive_size=1 << 20)
    ended = restore(sim)
    assert ended.code == 0
    starts = [line["offset"] for line in ended.events("download-started")]
    assert starts == sorted(starts)
    assert len(set(starts)) == 5
    assert is_published(sim, dest)


def test_a_part_file_changed_by_another_process_fails_the_hash_and_is_downloaded_again(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("cut=60%", "range=honour", "max-downloads=1")
    assert restore(sim).code == 23
    part = dest / f"{sim.job(0).file_name}.part"
    with part.open("r+b") as file:
        file.seek(20_000)
        file.write(b"\x00" * 100)
    with sim.lock:
        sim.job(0).max_downloads = 9
    ended = restore(sim)
    assert ended.code == 0, ended.out
    assert [request.status for request in deliveries(sim)] == [200, 206, 200]
    assert ended.archive["resumed"] is False
    assert is_published(sim, dest)
