"""Text output: sizes, times, sentences, plain progress, and the closing table; and the events as JSON."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime

import pytest
from support.consoles import (
    CONTROL,
    MISMATCH,
    SENTENCES,
    SETTLED,
    long_record,
    progress,
    receipt,
    text_console,
)

from restore_agent.core.errors import RedirectRefused
from restore_agent.core.events import (
    ArchiveFinished,
    Downloaded,
    DownloadStarted,
    Event,
    JobSeen,
    Notice,
    Progress,
    RunFailed,
    RunFinished,
    RunStarted,
    Silent,
)
from restore_agent.core.exit_codes import EXIT_CODES
from restore_agent.core.receipt import ArchiveRecord, Verdict
from restore_agent.core.redaction import Redactor
from restore_agent.ui import bars
from restore_agent.ui.json_lines import JsonConsole
from restore_agent.ui.text.console import TextConsole
from restore_agent.ui.wording import shortened, size_text, time_text, waiting_text, with_sizes

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
def test_sizes_are_formatted_with_units(size: float | None, text: str) -> None:
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
def test_times_are_formatted_with_units(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_a_large_number_of_bytes_in_a_message_has_a_unit() -> None:
    text = "up to 905341606 bytes, at 4194304 bytes/s; 512 bytes are free"
    assert with_sizes(text) == "up to 905341606 bytes (863.4 MiB), at 4194304 bytes/s; 512 bytes are free"


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
def test_an_error_has_cause_archive_files_on_disk_spent_downloads_and_next_step(event: Event) -> None:
    console, _, err = text_console()
    console.report(event)
    said = [line[9:] for line in err.getvalue().splitlines()]
    assert said == [
        "error: a.tar.gz: SHA1 on disk is a, published is b [hash-mismatch]",
        "  on disk: kept as x",
        "  download spent: yes",
        "  next: Do not use the quarantined file. Create a new restore job.",
    ]


def test_the_null_reporter_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
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
    *before, text = out.getvalue().splitlines()
    assert [json.loads(other)["event"] for other in before] == (
        ["error"] if getattr(event, "job_id", "") and before else []
    )
    line = json.loads(text)
    assert list(line)[:2] == ["event", "time"]
    assert line["event"] == event.name
    assert datetime.fromisoformat(line["time"]).tzinfo == UTC
    if hasattr(event, "job_id") and event.job_id:
        assert line["job_id"] == "job"


def test_a_failed_archive_is_an_error_and_an_archive_which_both_name_its_job() -> None:
    out = io.StringIO()
    JsonConsole(out, Redactor()).report(ArchiveFinished("job", SETTLED, MISMATCH.fields()))
    error, archive = map(json.loads, out.getvalue().splitlines())
    assert (error["event"], error["job_id"], error["id"]) == ("error", "job", "hash-mismatch")
    assert (archive["event"], archive["job_id"], archive["problem"]["id"]) == ("archive", "job", "hash-mismatch")


def test_numbers_in_json_have_at_most_three_decimals() -> None:
    out = io.StringIO()
    JsonConsole(out, Redactor()).report(Downloaded("job", "a.tar.gz", 2048, "0" * 40, 0.1234567890123, 2048))
    assert json.loads(out.getvalue())["seconds"] == 0.123


def test_a_notice_about_no_job_has_no_job_id() -> None:
    out = io.StringIO()
    JsonConsole(out, Redactor()).report(Notice("info", "all is well"))
    assert "job_id" not in json.loads(out.getvalue())


def test_json_progress_is_limited_to_some_events() -> None:
    out = io.StringIO()
    console = JsonConsole(out, Redactor())
    for _ in range(50):
        console.report(Progress((progress("downloading"),)))
    assert len(out.getvalue().splitlines()) == 1


def test_secrets_and_control_characters_are_in_neither_format() -> None:
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


def test_plain_progress_is_a_line_per_active_archive_and_one_for_those_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bars, "_PLAIN_EVERY", 0.0)
    console, out, err = text_console(progress="plain")
    waiting = progress("waiting", file_name=None, delivery_status=None, expires_in=None)
    behind = progress("downloading", unpacked_bytes=1 << 18)
    rows = (behind, progress("hashing", total_bytes=None), waiting, progress("verified"))
    console.report(Progress(rows))
    console.close()
    assert [line[9:] for line in err.getvalue().splitlines()] == [
        "electron_0.tar.gz: downloading, 512.0 KiB of 1.0 MiB, 256.0 KiB/s, unpacked 25%",
        "electron_0.tar.gz: hashing, 512.0 KiB, 256.0 KiB/s",
        "waiting for 1 job: 1 not started",
        "total: 1 of 4 finished, 2.0 MiB so far, 256.0 KiB/s",
    ]
    assert not out.getvalue()


def test_plain_progress_is_written_every_30_seconds_and_not_at_every_tick() -> None:
    console, _, err = text_console(progress="plain")
    for _ in range(20):
        console.report(Progress((progress("downloading"),)))
    assert not err.getvalue()


def test_with_no_progress_no_progress_is_written() -> None:
    console, out, err = text_console(progress="none")
    console.report(Progress((progress("downloading"),)))
    console.close()
    assert (out.getvalue(), err.getvalue()) == ("", "")


def test_the_waiting_line_counts_statuses_and_shows_the_earliest_expiry() -> None:
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


def test_the_table_shows_the_directory_of_the_archives_once() -> None:
    table = closing_table(kept_at("/backup/restore/a.tar.gz"), kept_at("/backup/restore/b.tar.gz", name="b.tar.gz"))
    assert [line.split()[:2] for line in table[:-1]] == [
        ["In", "/backup/restore:"],
        ["verified", "a.tar.gz"],
        ["verified", "b.tar.gz"],
        ["2", "archives"],
    ]


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.UNPROVEN, 10), (Verdict.MISMATCH, 11)])
def test_a_file_without_its_final_name_is_shown_with_its_current_name(verdict: Verdict, code: int) -> None:
    name = "electron_0-1492528465-2c923b1e0fad9ff6f7c10fa6.tar.gz"
    table = closing_table(kept_at(f"/backup/restore/{name}.{verdict}", verdict, name, code), code=code)
    assert f"          kept as {name}.{verdict}" in table
    assert max(map(len, table)) <= 80


def test_archives_in_different_directories_are_shown_with_their_full_paths() -> None:
    table = closing_table(kept_at("/backup/one/a.tar.gz"), kept_at("/backup/two/a.tar.gz.unproven"))
    assert [line.strip() for line in table if line.startswith(" ")] == [
        "/backup/one/a.tar.gz",
        "/backup/two/a.tar.gz.unproven",
    ]


def test_archives_without_a_file_on_disk_have_no_directory() -> None:
    table = closing_table(kept_at(None, Verdict.FAILED, code=23), code=23)
    assert table[0].startswith("failed    a.tar.gz")


@pytest.mark.parametrize(("length", "lines"), [(57, 0), (58, 1), (70, 1), (71, 2), (255, 4)])
def test_a_name_that_is_shortened_in_its_row_is_shown_in_full_below_it(length: int, lines: int) -> None:
    name = ("replica_set_" * 30)[: length - 7] + ".tar.gz"
    table = closing_table(kept_at(f"/backup/restore/{name}", name=name))
    told = [line.strip() for line in table[2:-2]]
    assert (len(told), "".join(told)) == (lines, name if lines else "")
    assert max(map(len, table)) <= 80


def test_after_a_failure_the_last_line_counts_verified_archives() -> None:
    failed, good = kept_at(None, Verdict.FAILED, "a.tar.gz", 23), kept_at("/b/b.tar.gz", name="b.tar.gz")
    skipped = kept_at(None, Verdict.SKIPPED, "c.tar.gz")
    table = closing_table(failed, good, skipped, code=23)
    assert table[-3:-1] == ["1 of 2 archives verified.", "Exit code 23: downloads used up before an archive was whole."]


def test_after_a_failure_the_last_line_counts_archives_that_are_not_unpacked() -> None:
    table = closing_table(kept_at("/b/a.tar.gz"), kept_at("/b/b.tar.gz", code=13), code=13)
    assert "2 of 2 archives verified, 1 not unpacked." in table


def test_an_error_that_ends_a_run_repeats_its_next_step_at_the_end() -> None:
    console, out, _ = text_console()
    console.report(RunFailed(RedirectRefused("it redirects").fields()))
    console.report(RunFinished(receipt(code=32)))
    assert "Next: Give --url as the final address" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_the_next_step_of_an_error_belongs_to_its_own_exit_code() -> None:
    console, out, _ = text_console()
    console.report(RunFailed(RedirectRefused("it redirects").fields()))
    console.report(RunFinished(receipt(code=41)))
    assert "Give --url" not in out.getvalue()


@pytest.mark.parametrize("code", sorted(EXIT_CODES))
def test_every_outcome_has_its_exit_code_and_the_next_step(code: int) -> None:
    console, out, _ = text_console()
    console.report(RunFinished(receipt(code=code)))
    closing = out.getvalue().splitlines()
    if code == 2:
        assert closing == [], "a usage error has no result"
    elif code:
        assert f"xit code {code}" in "\n".join(closing)
        assert "Next:" in "\n".join(closing)
    assert all(len(line) <= 80 for line in closing)


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
            "1 archive verified. 1 unproven, accepted because of --allow-unproven.",
        ),
    ],
)
def test_a_success_counts_its_archives(records: list[Verdict], changed: bool, command: str, text: str) -> None:
    console, out, _ = text_console(command=command)
    console.report(RunFinished(receipt(*(long_record(verdict) for verdict in records), changed=changed)))
    last, *after = out.getvalue().splitlines()[len(records) * 2 + 1 :][-2 if changed or command == "verify" else -1 :]
    assert last == text
    assert [line.split(":")[0] for line in after] == (["Next"] if changed or command == "verify" else [])
