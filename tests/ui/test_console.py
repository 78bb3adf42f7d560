"""What people and programs see: text in a pipe and on a terminal, JSON Lines, sizes and times."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.agents import (
    QUICK,
    Json,
    Restore,
    Result,
    RunAgent,
    StartAgent,
    StartSimulator,
    connection_args,
    finished,
    receipt_in,
)

from restore_agent.core.errors import HashMismatch, RedirectRefused
from restore_agent.core.events import (
    ArchiveFinished,
    ArchiveProgress,
    Downloaded,
    DownloadStarted,
    Event,
    JobSeen,
    Notice,
    Progress,
    RetryScheduled,
    RunFailed,
    RunFinished,
    RunStarted,
    Silent,
)
from restore_agent.core.exit_codes import EXIT_CODES
from restore_agent.core.receipt import ArchiveRecord, Receipt, Verdict
from restore_agent.core.redaction import Redactor
from restore_agent.ui import bars
from restore_agent.ui.json_lines import JsonConsole
from restore_agent.ui.terminal import terminal_size
from restore_agent.ui.text import TextConsole
from restore_agent.ui.wording import folded, shortened, size_text, time_text, waiting_text

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
RECEIPT_FIELDS = {
    "schema",
    "agent_version",
    "outcome",
    "exit_code",
    "changed",
    "ops_manager",
    "group_id",
    "cluster_id",
    "host_id",
    "batch_id",
    "started_at",
    "finished_at",
    "archives",
}
ARCHIVE_FIELDS = {
    "job_id",
    "cluster_id",
    "host_id",
    "snapshot_id",
    "snapshot_timestamp",
    "file_name",
    "path",
    "bytes",
    "sha1",
    "expected_sha1",
    "verdict",
    "reason",
    "exit_code",
    "downloads_spent",
    "resumed",
    "seconds",
    "bytes_per_second",
    "encryption_enabled",
    "master_key_uuid",
    "point_in_time",
}


# Words


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "?"),
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1.0 MiB"),
        (int(1.5 * (1 << 30)), "1.5 GiB"),
        (1 << 40, "1.0 TiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_sizes_for_people(size: float | None, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (0.9, "0s"),
        (59, "59s"),
        (60, "1m00s"),
        (725, "12m05s"),
        (3600, "1h00m"),
        (11400, "3h10m"),
        (86400, "1d00h"),
        (2 * 86400 + 4 * 3600 + 59, "2d04h"),
    ],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


@pytest.mark.parametrize("width", range(3, 40))
def test_a_shortened_name_keeps_both_ends(width: int) -> None:
    name = "electron_0-1492528465-0123456789abcdef.tar.gz"
    short = shortened(name, width)
    assert len(short) == width
    head, _, tail = short.partition("…")
    assert name.startswith(head)
    assert name.endswith(tail)


def test_a_name_that_fits_is_not_shortened() -> None:
    assert shortened("config.tar.gz", 13) == "config.tar.gz"


# One event after the other


def progress(state: str, **more: Any) -> ArchiveProgress:
    known: dict[str, Any] = {
        "job_id": "j" * 24,
        "file_name": "electron_0.tar.gz",
        "state": state,
        "bytes": 512 << 10,
        "total_bytes": 1 << 20,
        "bytes_per_second": 1 << 18,
        "expires_at": None,
        "downloads_spent": 1,
        "delivery_status": "READY",
        "expires_in": 3000.0,
    }
    return ArchiveProgress(**{**known, **more})


def receipt(*archives: ArchiveRecord, code: int = 0, changed: bool = True) -> Receipt:
    return Receipt(
        group_id="g",
        cluster_id="c",
        host_id=None,
        batch_id="b",
        ops_manager="https://om:443",
        started_at="2026-01-01T00:00:00.000Z",
        finished_at="2026-01-01T00:00:01.000Z",
        outcome="failed" if code else "verified",
        exit_code=code,
        changed=changed,
        archives=archives,
    )


MISMATCH = HashMismatch("SHA1 on disk is a, published is b", archive="a.tar.gz", left="kept as x", spent=True)
SETTLED = ArchiveRecord("job", file_name="a.tar.gz", verdict=Verdict.MISMATCH, exit_code=11)

SENTENCES: list[tuple[Event, str]] = [
    (RunStarted("https://om:443", "/backup"), "Ops Manager https://om:443, archives go to /backup"),
    (RunStarted(None, "/backup"), "Ops Manager not asked, archives go to /backup"),
    (
        JobSeen("job", None, "IN_PROGRESS", None, "wait", "not-ready", None),
        "job job: job IN_PROGRESS, delivery -: wait (not-ready)",
    ),
    (
        RetryScheduled("job", "a.tar.gz", 1, "transfer-cut", "the connection broke", 1024, True, 2.0),
        "a.tar.gz: the connection broke (1.0 KiB on disk, a download may be spent, next attempt in 2s)",
    ),
    (
        RetryScheduled("job", "a.tar.gz", 1, "delivery-unreachable", "no route", 0, False, 61.0),
        "a.tar.gz: no route (0 B on disk, no download was spent, next attempt in 1m01s)",
    ),
    (Downloaded("job", "a.tar.gz", 2048, "0" * 40, 2.0), "a.tar.gz: 2.0 KiB in 2.0 s (1.0 KiB/s)"),
    (Downloaded("job", "a.tar.gz", 2048, "0" * 40, 0.0), "a.tar.gz: 2.0 KiB in 0.0 s, "),
    (ArchiveFinished("job", ArchiveRecord("job", verdict=Verdict.VERIFIED)), "job job: verified"),
    (Notice("warning", "the disk is nearly full"), "warning: the disk is nearly full"),
    (Notice("info", "all is well"), "all is well"),
]


def text_console(**more: Any) -> tuple[TextConsole, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return TextConsole(out, err, Redactor(), more.get("progress", "none"), more.get("command", "run")), out, err


@pytest.mark.parametrize(("event", "sentence"), SENTENCES)
def test_each_event_is_a_sentence_on_stderr(event: Event, sentence: str) -> None:
    console, out, err = text_console()
    console.report(event)
    assert re.match(r"\d\d:\d\d:\d\d ", err.getvalue())
    assert err.getvalue()[9:].startswith(sentence)
    assert not out.getvalue()


def test_a_job_that_is_about_to_be_downloaded_needs_no_line_of_its_own() -> None:
    console, _, err = text_console()
    console.report(JobSeen("job", "a.tar.gz", "FINISHED", "READY", "download", "ready", None))
    assert not err.getvalue()


def test_a_download_names_host_and_offset_and_no_path() -> None:
    console, _, err = text_console()
    console.report(DownloadStarted("job", "a.tar.gz", 2, 1 << 20, "https://om:8443/…/a.tar.gz"))
    assert "a.tar.gz: resuming at 1.0 MiB" in err.getvalue()
    assert "https://om:8443" in err.getvalue()
    console.report(DownloadStarted("job", "a.tar.gz", 1, 0, "https://om:8443/…/a.tar.gz"))
    assert "a.tar.gz: downloading" in err.getvalue()


@pytest.mark.parametrize("event", [RunFailed(MISMATCH.fields()), ArchiveFinished("job", SETTLED, MISMATCH.fields())])
def test_an_error_tells_what_which_archive_what_is_left_what_was_spent_and_what_next(event: Event) -> None:
    console, _, err = text_console()
    console.report(event)
    said = [line[9:] for line in err.getvalue().splitlines()]
    assert said == [
        "error: a.tar.gz: SHA1 on disk is a, published is b [hash-mismatch]",
        "  on disk: kept as x",
        "  download spent: yes",
        "  next: Do not use the quarantined file. Create a new restore job.",
    ]


def test_the_null_reporter_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    Silent().report(RunStarted(None, "/backup"))
    assert capsys.readouterr() == ("", "")


ALL_EVENTS = [
    *(event for event, _ in SENTENCES),
    DownloadStarted("job", "a.tar.gz", 1, 0, "https://om/…/a.tar.gz"),
    Progress((progress("downloading"), progress("waiting"))),
    RunFailed(MISMATCH.fields()),
    ArchiveFinished("job", SETTLED, MISMATCH.fields()),
    RunFinished(receipt(SETTLED, code=11)),
]


@pytest.mark.parametrize("event", ALL_EVENTS, ids=lambda event: type(event).__name__)
def test_each_event_is_a_line_of_json_with_event_and_time(event: Event) -> None:
    out = io.StringIO()
    console = JsonConsole(out, Redactor())
    console.report(event)
    console.close()
    line = json.loads(out.getvalue())
    assert list(line)[:2] == ["event", "time"]
    assert line["event"] == event.name
    assert datetime.fromisoformat(line["time"]).tzinfo == UTC
    if hasattr(event, "job_id") and event.job_id:
        assert line["job_id"] == "job"


def test_a_line_of_json_about_one_archive_s_failure_names_its_job() -> None:
    out = io.StringIO()
    JsonConsole(out, Redactor()).report(ArchiveFinished("job", SETTLED, MISMATCH.fields()))
    line = json.loads(out.getvalue())
    assert line["job_id"] == "job"
    assert line["problem"]["id"] == "hash-mismatch"


def test_a_notice_about_no_job_has_no_job_id() -> None:
    out = io.StringIO()
    JsonConsole(out, Redactor()).report(Notice("info", "all is well"))
    assert "job_id" not in json.loads(out.getvalue())


def test_json_progress_is_thinned() -> None:
    out = io.StringIO()
    console = JsonConsole(out, Redactor())
    for _ in range(50):
        console.report(Progress((progress("downloading"),)))
    assert len(out.getvalue().splitlines()) == 1


def test_secrets_and_control_characters_reach_neither_form() -> None:
    redactor = Redactor()
    redactor.learn("correct-horse-battery")
    status = "token correct-horse-battery \x1b[2J\r\n\u202eevil"
    nasty = JobSeen("job", "a.tar.gz", status, None, "wait", "not-ready", None)
    out, err = io.StringIO(), io.StringIO()
    JsonConsole(out, redactor).report(nasty)
    TextConsole(io.StringIO(), err, redactor, "none", "run").report(nasty)
    for text in (json.loads(out.getvalue())["status"], err.getvalue()):
        assert "correct-horse" not in text
        assert not CONTROL.search(text)
        assert "\u202e" not in text
    assert len(err.getvalue().splitlines()) == 1, "a server's newline forges no second line"


# Plain progress


def test_plain_progress_is_a_line_per_moving_archive_and_one_for_those_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bars, "_PLAIN_EVERY", 0.0)
    console, out, err = text_console(progress="plain")
    waiting = progress("waiting", file_name=None, delivery_status=None, expires_in=None)
    rows = (progress("downloading"), progress("hashing", total_bytes=None), waiting, progress("verified"))
    console.report(Progress(rows))
    console.close()
    assert [line[9:] for line in err.getvalue().splitlines()] == [
        "electron_0.tar.gz: downloading, 512.0 KiB of 1.0 MiB, 256.0 KiB/s",
        "electron_0.tar.gz: hashing, 512.0 KiB, 256.0 KiB/s",
        "waiting for 1 job: 1 not started",
    ]
    assert not out.getvalue()


def test_plain_progress_comes_every_half_minute_not_at_every_tick() -> None:
    console, _, err = text_console(progress="plain")
    for _ in range(20):
        console.report(Progress((progress("downloading"),)))
    assert not err.getvalue()


def test_no_progress_means_none() -> None:
    console, out, err = text_console(progress="none")
    console.report(Progress((progress("downloading"),)))
    console.close()
    assert (out.getvalue(), err.getvalue()) == ("", "")


def test_the_waiting_line_counts_statuses_and_tells_the_tightest_expiry() -> None:
    rows = (
        progress("waiting", delivery_status="IN_PROGRESS", expires_in=7200.0),
        progress("waiting", delivery_status="IN_PROGRESS", expires_in=60.0),
        progress("waiting", delivery_status="NOT_STARTED", expires_in=None),
        progress("downloading"),
    )
    said = waiting_text(rows)
    assert said == "waiting for 3 jobs: 2 IN_PROGRESS, 1 NOT_STARTED; first expires in 1m00s"
    assert waiting_text((progress("downloading"),)) is None


# The closing table


def long_record(verdict: Verdict | None, **more: Any) -> ArchiveRecord:
    values: dict[str, Any] = {
        "job_id": "5" * 24,
        "file_name": f"electron_replica_set_with_a_long_name-1492528465-{'5' * 24}.tar.gz",
        "path": "/backup/restore/archive.tar.gz",
        "bytes": 1023 << 30,
        "sha1": "a" * 40,
        "bytes_per_second": 1023 << 20,
        "verdict": verdict,
    }
    return ArchiveRecord(**{**values, **more})


def test_the_closing_table_fits_80_columns() -> None:
    console, out, _ = text_console()
    rows = [long_record(verdict, reason="fewer-jobs-than-expected", exit_code=25) for verdict in (*Verdict, None)]
    console.report(RunFinished(receipt(*rows, code=25)))
    table = out.getvalue().splitlines()
    assert sum(line.strip() == f"sha1 {'a' * 40}, 1023.0 MiB/s" for line in table) == len(rows)
    assert sum("fewer-jobs-than-expected" in line for line in table) == len(rows)
    assert max(map(len, table)) <= 80


def closing_table(*records: ArchiveRecord, code: int = 0) -> list[str]:
    console, out, _ = text_console()
    console.report(RunFinished(receipt(*records, code=code)))
    return out.getvalue().splitlines()


def kept_at(
    path: str | None, verdict: Verdict = Verdict.VERIFIED, name: str = "a.tar.gz", code: int = 0
) -> ArchiveRecord:
    return ArchiveRecord("5" * 24, file_name=name, path=path, verdict=verdict, exit_code=code)


def test_the_table_says_once_where_the_archives_are() -> None:
    table = closing_table(kept_at("/backup/restore/a.tar.gz"), kept_at("/backup/restore/b.tar.gz", name="b.tar.gz"))
    assert [line.split()[:2] for line in table[:-1]] == [
        ["In", "/backup/restore:"],
        ["verified", "a.tar.gz"],
        ["verified", "b.tar.gz"],
    ]


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.UNPROVEN, 10), (Verdict.MISMATCH, 11)])
def test_a_file_that_did_not_get_its_final_name_is_told_with_the_one_it_is_kept_under(
    verdict: Verdict, code: int
) -> None:
    name = "electron_0-1492528465-2c923b1e0fad9ff6f7c10fa6.tar.gz"
    table = closing_table(kept_at(f"/backup/restore/{name}.{verdict}", verdict, name, code), code=code)
    assert f"          kept as {name}.{verdict}" in table
    assert max(map(len, table)) <= 80


def test_archives_in_different_directories_are_told_with_their_whole_paths() -> None:
    table = closing_table(kept_at("/backup/one/a.tar.gz"), kept_at("/backup/two/a.tar.gz.unproven"))
    assert [line.strip() for line in table if line.startswith(" ")] == [
        "/backup/one/a.tar.gz",
        "/backup/two/a.tar.gz.unproven",
    ]


def test_archives_that_left_nothing_on_disk_have_no_directory() -> None:
    table = closing_table(kept_at(None, Verdict.FAILED, code=23), code=23)
    assert table[0].startswith("failed    a.tar.gz")


@pytest.mark.parametrize(("length", "lines"), [(57, 0), (58, 1), (70, 1), (71, 2), (255, 4)])
def test_a_name_that_its_row_cuts_stands_whole_below_it(length: int, lines: int) -> None:
    name = ("replica_set_" * 30)[: length - 7] + ".tar.gz"
    table = closing_table(kept_at(f"/backup/restore/{name}", name=name))
    told = [line.strip() for line in table[2:-1]]
    assert (len(told), "".join(told)) == (lines, name if lines else "")
    assert max(map(len, table)) <= 80


def test_after_a_failure_the_end_counts_what_is_verified() -> None:
    failed, good = kept_at(None, Verdict.FAILED, "a.tar.gz", 23), kept_at("/b/b.tar.gz", name="b.tar.gz")
    skipped = kept_at(None, Verdict.SKIPPED, "c.tar.gz")
    table = closing_table(failed, good, skipped, code=23)
    assert table[-3:-1] == ["1 of 2 archives verified.", "Exit code 23: downloads used up before an archive was whole."]


def test_an_error_that_ends_a_run_says_what_is_next_at_the_end_too() -> None:
    console, out, _ = text_console()
    console.report(RunFailed(RedirectRefused("it redirects").fields()))
    console.report(RunFinished(receipt(code=32)))
    assert "Next: Give --url as the final address" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_what_an_error_says_is_next_is_for_its_own_exit_code() -> None:
    console, out, _ = text_console()
    console.report(RunFailed(RedirectRefused("it redirects").fields()))
    console.report(RunFinished(receipt(code=41)))
    assert "Give --url" not in out.getvalue()


@pytest.mark.parametrize("code", sorted(EXIT_CODES))
def test_every_end_says_its_code_and_what_to_do(code: int) -> None:
    console, out, _ = text_console()
    console.report(RunFinished(receipt(code=code)))
    closing = out.getvalue().splitlines()
    if code:
        assert f"xit code {code}" in "\n".join(closing)
        assert "Next:" in "\n".join(closing)
    assert max(map(len, closing)) <= 80, "the end is read on the same 80 columns as the table"


@pytest.mark.parametrize(
    ("records", "changed", "command", "text"),
    [
        ([Verdict.VERIFIED], True, "run", "1 archive verified."),
        ([Verdict.VERIFIED] * 2, False, "run", "2 archives verified. Nothing had to be done."),
        ([Verdict.VERIFIED] * 2, False, "verify", "2 archives verified."),
        (
            [Verdict.VERIFIED, Verdict.UNPROVEN],
            True,
            "run",
            "1 archive verified. 1 unproven, as --allow-unproven admits.",
        ),
    ],
)
def test_a_success_counts_its_archives(records: list[Verdict], changed: bool, command: str, text: str) -> None:
    console, out, _ = text_console(command=command)
    console.report(RunFinished(receipt(*(long_record(verdict) for verdict in records), changed=changed)))
    assert out.getvalue().splitlines()[-1] == text


# Whole runs in a pipe


def test_in_a_pipe_text_has_no_control_characters_and_results_alone_are_on_stdout(
    simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("cut=50%@0", "max-downloads=2", "hostile-text", shards=1)
    ended = finished(start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}"]))
    assert ended.code == 0, ended.err
    for text in (ended.out, ended.err):
        assert not CONTROL.search(text)
        assert not ANSI.search(text)
    table = ended.out.splitlines()
    assert [line.split()[0] for line in table if not line.startswith(" ")] == ["verified", "verified", "2"]
    assert table[0].strip() == f"In {dest}:"
    assert {line.split()[1] for line in table if line.startswith("verified")} == {job.file_name for job in sim.jobs}
    assert "attempt 1" in ended.err
    assert "attempt 1" not in ended.out


def test_a_status_with_line_breaks_forges_no_line_of_the_log(simulator: StartSimulator, restore: Restore) -> None:
    ended = restore(simulator("hostile-text", "never-ready"), "--output=text", "--wait-timeout=0.1s")
    assert ended.code == 20
    assert not [line for line in ended.err.splitlines() if re.match(r'(\d\d:\d\d:\d\d )?\{"event"', line)]


def test_json_in_a_pipe_leaves_stderr_to_nobody(simulator: StartSimulator, start_agent: StartAgent, dest: Path) -> None:
    sim = simulator(shards=1)
    ended = finished(start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "-o", "json"]))
    assert ended.code == 0
    assert ended.err == ""
    assert ended.lines[-1]["event"] == "result"


def check_json(ended: Result) -> None:
    """What holds for JSON output whatever the end."""
    for line in ended.lines:
        assert {"event", "time"} <= set(line)
        assert MOMENT.fullmatch(line["time"])
    assert [line["event"] for line in ended.lines].count("result") == 1
    assert set(ended.result) - {"event", "time", "plan"} == RECEIPT_FIELDS
    assert all(set(record) == ARCHIVE_FIELDS for record in ended.result["archives"])
    assert ended.result["exit_code"] == ended.code
    assert (ended.result["outcome"] == "failed") == (ended.code not in (0, 10))


ENDS: list[tuple[list[str], list[str], int]] = [
    ([], [], 0),
    (["hash=never"], ["--hash-timeout=0.1s"], 10),
    (["hash=wrong"], [], 11),
    (["damaged-gzip", "hash=never"], ["--hash-timeout=0.1s"], 11),
    (["never-ready"], ["--wait-timeout=0.1s"], 20),
    (["broken"], [], 21),
    (["expired"], [], 22),
    (["cut=50%"], [], 23),
    ([], ["--select=nothing"], 24),
    ([], ["--group-id=unknown"], 24),
    (["refuse=500x9", "max-downloads=9"], ["--retries=0"], 25),
    (["forbidden"], [], 30),
    (["api-redirect"], [], 32),
    (["api-503=always"], ["--wait-timeout=0.2s"], 32),
    ([], ["--dest=/dev/null/restore"], 42),
    ([], ["--dest=/dev/null"], 42),
    ([], ["--retries=many"], 2),
    ([], ["--url=om.example.net"], 2),
    ([], ["--host-id=abc"], 2),
]


@pytest.mark.parametrize(("faults", "options", "code"), ENDS)
def test_every_end_is_json_lines_that_close_with_a_result(
    simulator: StartSimulator, restore: Restore, faults: list[str], options: list[str], code: int
) -> None:
    ended = restore(simulator(*faults), *options)
    assert ended.code == code, ended.out
    check_json(ended)
    assert ended.err == ""


def test_the_result_is_what_the_receipt_holds(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    ended = restore(simulator(shards=1))
    told = {name: value for name, value in ended.result.items() if name not in ("event", "time")}
    assert told == receipt_in(dest)


@pytest.mark.parametrize(
    "args",
    [
        ["run", "-o", "json"],
        ["run", "--output=json", "--no-such-option"],
        ["run", "--no-such-option", "-o", "json"],
        ["run", "-ojson", "--no-such-option"],
        ["plan", "-o", "json", "--dest"],
        ["verify", "-o", "json"],
        ["status", "-o", "json"],
        ["rehearse", "-o", "json", "--fault", "no-such-fault"],
        ["run", "-o", "json", "--config", "/no/such/file"],
    ],
)
def test_a_mistake_in_the_call_is_json_too_where_json_was_asked_for(run_agent: RunAgent, args: list[str]) -> None:
    ended = run_agent(args)
    assert ended.code == 2
    assert ended.events("error")[0]["id"] == "usage"
    check_json(ended)


def test_json_asked_for_by_the_environment_holds_for_mistakes_too(run_agent: RunAgent) -> None:
    ended = run_agent(["run", "--no-such-option"], {"RESTORE_AGENT_OUTPUT": "json"})
    assert ended.code == 2
    check_json(ended)


def test_json_asked_for_by_the_file_holds_for_errors_too(run_agent: RunAgent, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('output = "json"\n')
    ended = run_agent(["run", f"--config={config}"])
    assert ended.code == 2
    check_json(ended)


def test_an_output_that_is_neither_is_told_in_text(run_agent: RunAgent) -> None:
    ended = run_agent(["run", "-o", "yaml"])
    assert ended.code == 2
    assert "must be one of text, json" in ended.err


# A terminal of 80 columns and 24 lines


def screen_of(written: str, columns: int) -> list[str]:
    """What stands on a terminal after all that was written to it: text, returns, cursor up, erase below."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]", written):
        if part == "\x1b[A":
            row = max(0, row - 1)
        elif part == "\x1b[J":
            lines[row:] = [lines[row][:column]]
        elif part == "\r":
            column = 0
        elif part == "\n" or (len(part) == 1 and column == columns):
            row, column = row + 1, column if part == "\n" else 0
            lines += [""] * (row + 1 - len(lines))
        if len(part) == 1 and part not in "\r\n":
            lines[row] = lines[row].ljust(column)[:column] + part + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in "\n".join(lines).rstrip().split("\n")]


def shown_on(err: io.StringIO) -> list[str]:
    """The screen behind a console; a stream that is no terminal starts a new line with each line feed."""
    return screen_of(err.getvalue().replace("\n", "\r\n"), columns=80)


class Terminal:
    """A pseudo terminal with a process on it; `shown` is all that was written."""

    def __init__(self, args: list[str], env: Mapping[str, str], columns: int = 80, lines: int = 24) -> None:
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        command = [sys.executable, "-m", "restore_agent", *args]
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command],  # only its own terminal turns a ^C into a signal
            stdin=side,
            stdout=side,
            stderr=side,
            env={**os.environ, "TERM": "xterm", **env},
        )
        os.close(side)
        self.shown = ""

    def press(self, keys: bytes, once: str) -> None:
        """Press keys as soon as `once` is shown."""
        while once not in self.shown and select.select([self._main], [], [], 20)[0]:
            self.shown += os.read(self._main, 65536).decode(errors="replace")
        os.write(self._main, keys)

    def finish(self) -> int:
        """Read until the process has gone; its exit code."""
        raw = bytearray()
        try:
            while select.select([self._main], [], [], 20)[0] and (block := os.read(self._main, 65536)):
                raw += block
        except OSError:  # EIO is how the last writer's end shows
            pass
        os.close(self._main)
        self.shown += raw.decode(errors="replace")
        return self.process.wait(5)

    @property
    def screens(self) -> list[str]:
        """Everything that stood on one line at some time, without escapes."""
        return [ANSI.sub("", text) for text in re.split(r"[\r\n]+|\x1b\[A", self.shown)]


def on_terminal(sim: Any, dest: Path, env: Json | None = None, *options: str) -> Terminal:
    args = ["run", *connection_args(sim), *QUICK, f"--dest={dest}", *options]
    terminal = Terminal(args, env or {})
    assert terminal.finish() == 0, terminal.shown
    return terminal


def test_a_terminal_gets_a_bar_per_archive_that_fits_and_goes_away(simulator: StartSimulator, tmp_path: Path) -> None:
    sim = simulator("drip=512K", "ready-after=0.4@1", shards=1, archive_size=512 << 10)
    terminal = on_terminal(sim, tmp_path / "r")
    bars = [line for line in terminal.screens if "%|" in line]
    assert len({bar.split()[0] for bar in bars}) == 2
    assert any("KiB/s" in bar for bar in bars)
    assert any("waiting for" in line for line in terminal.screens)
    assert max(len(line) for line in terminal.screens if str(tmp_path) not in line) <= 80
    table = terminal.screens[terminal.screens.index(f"          In {tmp_path / 'r'}:") :]
    assert not any("%|" in line for line in table), "nothing of the bars is left beside the table"
    assert "\x1b[32mverified" in terminal.shown
    assert not re.search("[\x00-\x06\x0b-\x0c\x0e-\x1a]", terminal.shown)


def test_a_bar_of_unknown_size_shows_bytes_and_rate(simulator: StartSimulator, tmp_path: Path) -> None:
    sim = simulator("drip=512K", "framing=chunked", archive_size=512 << 10)
    terminal = on_terminal(sim, tmp_path / "r")
    bars = [line for line in terminal.screens if "size unknown" in line]
    assert any("KiB/s" in bar for bar in bars)
    assert max(map(len, bars)) <= 80


def test_no_color_is_honoured_on_a_terminal(simulator: StartSimulator, tmp_path: Path) -> None:
    terminal = on_terminal(simulator(), tmp_path / "r", {"NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*m", terminal.shown)


def test_json_on_a_terminal_is_still_json(simulator: StartSimulator, tmp_path: Path) -> None:
    terminal = on_terminal(simulator(), tmp_path / "r", None, "--output=json")
    assert all(json.loads(line) for line in terminal.shown.splitlines())


def test_a_folded_line_keeps_a_path_whole_where_names_fit_and_breaks_it_where_they_do_not() -> None:
    path = f"/backup/{'restore/' * 10}"
    line = f"10:00:00 archives go to {path}"
    assert folded(line, 77) == ["10:00:00 archives go to", f"         {path}"]
    assert max(map(len, folded(line, 37))) == 37


@pytest.mark.parametrize(
    ("columns", "lines", "room"), [(80, 24, (77, 24)), (0, 0, (77, 24)), (132, 50, (129, 50)), (5, 2, (20, 2))]
)
def test_a_terminal_that_does_not_know_its_size_counts_as_80_by_24(
    columns: int, lines: int, room: tuple[int, int]
) -> None:
    main, side = pty.openpty()
    fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with os.fdopen(side, "w") as stream:
        assert terminal_size(stream) == room
    os.close(main)


def test_the_waiting_line_goes_once_nothing_waits() -> None:
    console, _, err = text_console(progress="bar")
    console.report(Progress((progress("waiting"),)))
    assert "waiting for 1 job" in err.getvalue()
    console.report(Progress((progress("downloading"),)))
    before = len(err.getvalue())
    console.report(Notice("info", "a line above the bars, after which they are drawn again"))
    assert "waiting for" not in err.getvalue()[before:]
    console.close()


def test_hashing_and_many_archives_have_their_bars() -> None:
    console, out, err = text_console(progress="bar")
    many = tuple(progress("downloading", job_id=str(number)) for number in range(40))
    console.report(Progress(many))
    console.report(Progress((progress("hashing", bytes=1 << 20, file_name="{odd}.tar.gz"), progress("waiting"))))
    console.report(Progress((progress("downloading", bytes_per_second=0), progress("waiting"))))
    console.report(Notice("warning", "a line above the bars " * 10))
    console.report(Progress((progress("verified"),)))
    console.report(RunFinished(receipt(long_record(Verdict.VERIFIED))))
    assert "waiting for the published hash" in err.getvalue()
    assert "{odd}.tar.gz" in err.getvalue()
    assert err.getvalue().count("0.0%") + err.getvalue().count(" 50%") >= 12
    assert "verified" in out.getvalue()


def test_the_row_of_an_archive_that_settled_does_not_stay_blank_between_the_others() -> None:
    console, _, err = text_console(progress="bar")
    first, second, third = (progress("downloading", job_id=name, file_name=f"{name}.tar.gz") for name in "abc")
    console.report(Progress((first, second, third, progress("waiting"))))
    assert [line.split()[0] for line in shown_on(err)] == ["waiting", "a.tar.gz", "b.tar.gz", "c.tar.gz"]
    console.report(Progress((replace(first, state="verified"), second, third)))
    assert [line.split()[0] for line in shown_on(err)] == ["b.tar.gz", "c.tar.gz"]
    console.report(Notice("info", "a line above the bars"))
    assert [line.split()[0] for line in shown_on(err)[1:]] == ["b.tar.gz", "c.tar.gz"]
    console.close()
    assert [line[9:] for line in shown_on(err)] == ["a line above the bars"]


def test_those_that_still_come_in_stand_above_those_that_await_their_hash_and_the_rest_is_counted() -> None:
    console, _, err = text_console(progress="bar")
    hashing = tuple(progress("hashing", job_id=f"h{number}", file_name=f"h{number}") for number in range(12))
    console.report(Progress((*hashing, progress("downloading", job_id="d", file_name="d"))))
    shown = shown_on(err)
    assert [line.split()[0] for line in shown[:2]] == ["d", "h0"]
    assert shown[12:] == ["and 1 more under way"]
    console.close()


def test_a_transfer_without_a_byte_does_not_claim_that_its_size_is_unknown() -> None:
    console, _, err = text_console(progress="bar")
    console.report(Progress((progress("downloading", bytes=0, total_bytes=None),)))
    assert "no byte yet" in shown_on(err)[0]
    console.report(Progress((progress("downloading", total_bytes=None),)))
    assert "size unknown" in shown_on(err)[0]
    console.close()


def test_on_40_columns_every_row_fits(simulator: StartSimulator, tmp_path: Path) -> None:
    sim = simulator("drip=512K", "ready-after=0.4@1", shards=1, archive_size=512 << 10)
    terminal = Terminal(["run", *connection_args(sim), *QUICK, f"--dest={tmp_path / 'r'}"], {}, columns=40)
    assert terminal.finish() == 0, terminal.shown
    rows = [line for line in terminal.screens if "% " in line or "waiting for 1 job" in line]
    assert any(re.search(r"\d% +\d.*KiB/s +\d+s", row) for row in rows)
    assert max(map(len, rows)) < 40


def test_control_c_leaves_nothing_of_the_bars(simulator: StartSimulator, tmp_path: Path) -> None:
    sim = simulator("drip=64K", shards=1, archive_size=512 << 10)
    terminal = Terminal(["run", *connection_args(sim), *QUICK, f"--dest={tmp_path / 'r'}"], {})
    terminal.press(b"\x03", once="%|")
    assert terminal.finish() == 130
    screen = screen_of(terminal.shown, columns=80)
    assert "^C" in terminal.shown
    assert not [line for line in screen if "^" in line or "%|" in line or not line]
    assert screen[-1] == "Next: Run the command again. It keeps the files on disk and resumes."
