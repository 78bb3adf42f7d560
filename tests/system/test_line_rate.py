"""What a run costs: start-up, waiting, polling, memory, dirty pages; and that limits are met as they were asked for."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import Restore, StartAgent, StartSimulator, connection_args, journal_in, status_in, wait_until

from restore_agent.restore.transfer import transfer
from restore_agent.restore.transfer.pipeline import ConsumerFailed, Pipeline

ROOT = Path(__file__).parents[2]


# ---------------------------------------------------------------- start-up


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_load_no_large_library(argument: str) -> None:
    program = f"import sys; sys.argv = ['restore-agent', {argument!r}]\nfrom restore_agent.cli.main import main\n"
    program += "try: main()\nexcept SystemExit: print(sorted(sys.modules), file=sys.stderr)"
    bare = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}  # coverage loads a lot itself
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, env=bare)
    loaded = set(done.stderr.split("'"))
    assert "click" in loaded
    assert loaded & {"httpx", "asyncio", "ssl", "tqdm", "aiofiles", "email", "tomllib", "http.client"} == set()


# ---------------------------------------------------------------- waiting and polling


def test_a_poll_of_five_hundred_jobs_is_one_call_per_page(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("never-ready", shards=499, archive_size=1 << 10)
    ended = restore(sim, "--wait-timeout=1s", "--poll-interval=10s")
    assert (ended.code, len(ended.result["archives"])) == (20, 500)
    lists = [request for request in sim.requests if "restoreJobs" in request.path and request.status == 200]
    assert len(lists) == 5, "one poll, five pages of a hundred"


def test_waiting_costs_next_to_no_cpu(simulator: StartSimulator, start_agent: StartAgent, dest: Path) -> None:
    sim = simulator("never-ready", shards=3)
    process = start_agent(["run", *connection_args(sim), f"--dest={dest}", "--progress=none"])

    def cpu() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    wait_until(lambda: (dest / ".restore-agent" / "status.json").exists() and status_in(dest)["archives"], "a poll")
    time.sleep(0.5)
    before = cpu()
    time.sleep(2.0)
    assert cpu() - before <= 0.1, "a twentieth of one core, and most of that is the clock's grain"


# ---------------------------------------------------------------- limits


def test_the_rate_limit_is_met_and_shared_fairly(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(shards=2, archive_size=1 << 20)
    ended = restore(sim, f"--limit-rate={2 << 20}")
    records = ended.result["archives"]
    seconds, size = max(record["seconds"] for record in records), sum(record["bytes"] for record in records)
    assert ended.code == 0
    assert 0.95 <= seconds * (2 << 20) / size <= 1.3, "never faster; slower only as far as the host is busy"
    assert min(record["seconds"] for record in records) >= 0.8 * seconds, "all three are on their way to the end"


# ---------------------------------------------------------------- blocks


def blocks(count: int, size: int) -> list[memoryview]:
    return [memoryview(bytearray(size)) for _ in range(count)]


def consumed(flow: Pipeline, into: list[bytes], *, slowly: threading.Event | None = None) -> threading.Thread:
    """A consumer of the first stage, in a thread."""

    def work() -> None:
        for block in flow.stage(0):
            if slowly:
                slowly.wait(5)
            into.append(bytes(block))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_blocks_leave_a_flow_in_the_order_in_which_they_entered() -> None:
    flow, seen = Pipeline(blocks(2, 4), 1), list[bytes]()
    consumer = consumed(flow, seen)
    for number in range(100):
        block = flow.take()
        block[:2] = number.to_bytes(2, "big")
        flow.give(block, 2)
    flow.end()
    consumer.join(5)
    assert seen == [number.to_bytes(2, "big") for number in range(100)]


def test_a_reader_is_never_further_ahead_than_the_number_of_blocks() -> None:
    flow, go, seen = Pipeline(blocks(3, 1), 1), threading.Event(), list[bytes]()
    consumer = consumed(flow, seen, slowly=go)
    for _ in range(3):
        flow.give(flow.take(), 1)
    assert not seen
    go.set()
    flow.give(flow.take(), 1)
    flow.end()
    consumer.join(5)
    assert len(seen) == 4


def test_a_paused_flow_returns_no_block_until_it_continues() -> None:
    flow = Pipeline(blocks(1, 1), 1)
    flow.hold()
    began = time.monotonic()
    threading.Timer(0.05, flow.resume).start()
    assert len(flow.take()) == 1
    assert time.monotonic() - began >= 0.04


def test_a_waiting_reader_is_notified_that_a_consumer_failed() -> None:
    flow = Pipeline(blocks(1, 1), 1)
    flow.give(flow.take(), 1)
    flow.hold()
    threading.Timer(0.05, flow.break_off).start()
    for _ in range(2):
        with pytest.raises(ConsumerFailed):
            flow.take()


@pytest.mark.parametrize("filled", [False, True])
def test_parallel_transfers_share_the_memory_for_blocks(filled: bool) -> None:
    for parallel in (1, 4, 8, 16, 64):
        count, size = transfer.blocks(parallel, filled=filled)
        assert parallel * count * size <= 32 << 20
    assert transfer.blocks(10_000, filled=filled)[1] == 128 << 10


def test_blocks_are_few_and_large_only_if_the_kernel_fills_them_by_itself() -> None:
    assert transfer.blocks(1, filled=True) == (2, 5 << 20)
    assert transfer.blocks(1, filled=False) == (4, 2 << 20)


def test_parallel_transfers_share_the_limit_of_dirty_bytes() -> None:
    assert [transfer.keep_every(count) >> 20 for count in (1, 4, 8, 16, 64)] == [256, 128, 64, 32, 32]


# ---------------------------------------------------------------- write-back on the way


@pytest.fixture
def kept_often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Transfers that sync every 64 KiB."""
    monkeypatch.setattr(transfer, "_KEEP_EVERY", 1 << 16)
    monkeypatch.setattr(transfer, "_LEAST_KEEP", 1 << 16)
    monkeypatch.setattr(transfer, "_PROGRESS_EVERY", 0.005)
    monkeypatch.setattr(transfer, "_LEAST_BLOCK", 1 << 12)
    monkeypatch.setattr(transfer, "_ASSEMBLED", (4, 1 << 12))
    monkeypatch.setattr(transfer, "_FILLED", (2, 1 << 12))
    yield


@pytest.mark.usefixtures("kept_often")
def test_an_offset_is_journalled_only_once_its_bytes_are_synced(
    simulator: StartSimulator, restore: Restore, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fdatasync = os.fdatasync

    def watched(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        fdatasync(descriptor)
        synced.append(size)

    monkeypatch.setattr(os, "fdatasync", watched)
    sim = simulator("drip=2000000", archive_size=1 << 20)
    assert restore(sim).code == 0
    offsets = [line["offset"] for line in journal_in(dest) if line.get("fact") == "synced"]
    assert len(offsets) >= 3
    assert all(offset <= size for offset, size in zip(offsets, synced, strict=True))
    archive = dest / sim.job(0).file_name
    assert hashlib.sha1(archive.read_bytes()).hexdigest() == sim.job(0).archive().sha1


@pytest.mark.usefixtures("kept_often")
def test_a_disk_that_is_slower_than_the_network_slows_the_transfer(
    simulator: StartSimulator, restore: Restore, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a sync lags the file stops growing, although the server goes on; so what is dirty is bounded."""
    stood_at: list[int] = []
    fdatasync = os.fdatasync

    def slow(descriptor: int) -> None:
        size, before = os.fstat(descriptor).st_size, -1
        while size != before and not stood_at:
            before = size
            time.sleep(0.2)
            size = os.fstat(descriptor).st_size
        stood_at.append(size)
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    sim = simulator("drip=1000000", archive_size=1 << 20)
    ended = restore(sim)
    assert ended.code == 0
    assert 1 << 16 <= stood_at[0] < ended.archive["bytes"]


@pytest.mark.usefixtures("kept_often")
def test_a_sync_that_fails_during_the_transfer_ends_the_archive_with_41(
    simulator: StartSimulator, restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    ended = restore(simulator("drip=2000000", archive_size=1 << 20))
    assert (ended.code, ended.archive["verdict"]) == (41, "failed")


# ---------------------------------------------------------------- the bench itself


def test_the_bench_measures_each_program_and_reports_its_goals(tmp_path: Path) -> None:
    if not all(Path("/usr/bin", program).exists() for program in ("curl", "aria2c", "wget", "openssl")):
        assert not os.environ.get("CI"), "CI has to run the bench"
        pytest.skip("the bench's peers are not installed")
    options = ["--size=256K", "--rounds=1", "--transport=https chunked", f"--directory={tmp_path}", f"--out={tmp_path}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for who in ("restore-agent", "curl -o && sha1sum", "curl | tee | sha1sum", "aria2c --checksum", "wget && sha1sum"):
        assert who in done.stdout
    assert "all else of a run" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"bench-ram.json", "bench-ram.svg"}, "it cleans up"
