"""The judgement over many receipts: exit code, sentence, problems, and order of rows."""

from __future__ import annotations

from typing import Any

import pytest

from restore_agent.ui.report import BatchReport, ReceiptsUnusable, judge
from restore_agent.ui.report.values import Standing
from tests.support.receipts import archive, failed, files, old, receipt
from tests.support.report_cases import CASES, EXPECTED_JOBS


def judged(*hosts: Any, expect: int | None = None) -> BatchReport:
    """Return the report on receipts, one for each list of archives."""
    return judge(files(*(receipt(*entries, host=f"host-{n}") for n, entries in enumerate(hosts))), expect)


EXPIRED, UNPUBLISHED = failed(1, 22, "delivery-expired"), failed(2, 10, "hash-not-published", "unproven")

NOT_UNPACKED = archive(3, exit_code=13, reason="no-space-to-unpack", data_path=None)


def test_a_batch_is_complete_if_every_job_is_verified_on_exactly_one_host() -> None:
    report = judged([archive(0)], [archive(1), archive(2)])
    assert (report.exit_code, report.complete, report.problems) == (0, True, ())
    assert report.sentence == "The batch is complete: all 3 archives are verified."


def test_a_single_archive_is_described_in_the_singular() -> None:
    assert judged([archive(0)]).sentence == "The batch is complete: its archive is verified."


def test_a_job_that_failed_on_one_host_and_is_verified_on_another_is_complete() -> None:
    report = judged([EXPIRED], [archive(1)])
    assert report.exit_code == 0
    assert [row.standing for row in report.rows] == [Standing.VERIFIED, Standing.ELSEWHERE]


def test_a_job_verified_on_two_hosts_is_42() -> None:
    report = judged([archive(0)], [archive(0), archive(1)])
    assert report.exit_code == 42
    assert (
        report.sentence
        == "The batch is not complete: 1 of 2 archives is verified, 1 is verified on more than one host."
    )
    assert [place for _, place in report.problems[0].archives] == [
        "host-0, /receipts/BATCH/00.json",
        "host-1, /receipts/BATCH/01.json",
    ]


def test_skipped_jobs_are_not_needed() -> None:
    report = judged([archive(0), failed(1, 0, "automated-restore", "skipped")])
    assert (report.exit_code, report.jobs) == (0, 1)
    assert report.rows[-1].standing is Standing.SKIPPED


def test_a_job_skipped_on_one_host_and_failed_on_another_keeps_the_batch_from_being_complete() -> None:
    assert judged([failed(1, 0, None, "skipped"), archive(0)], [EXPIRED]).exit_code == 22


@pytest.mark.parametrize("hosts", [[[]], [[failed(1, 0, "automated-restore", "skipped")]]])
def test_receipts_without_an_archive_to_download_are_never_complete(hosts: Any) -> None:
    report = judged(*hosts)
    assert report.exit_code == 24
    assert report.sentence.startswith("Nothing is verified")


def test_a_job_that_no_receipt_has_is_24_whatever_failed() -> None:
    report = judged([archive(0), EXPIRED], expect=4)
    assert report.exit_code == 24
    assert [problem.code for problem in report.problems] == [24, 22]
    assert report.problems[0].title == "2 of 4 restore jobs are in no receipt"


def test_skipped_jobs_count_as_listed() -> None:
    assert judged([archive(0), failed(1, 0, None, "skipped")], expect=2).exit_code == 0


def test_more_jobs_than_expected_are_not_a_problem() -> None:
    assert judged([archive(0), archive(1)], expect=1).exit_code == 0


def test_13_only_if_unpacking_alone_failed() -> None:
    report = judged([archive(0), NOT_UNPACKED])
    assert report.exit_code == 13
    assert report.sentence == "All 2 archives are verified, but 1 is not unpacked."
    assert judged([archive(0), NOT_UNPACKED, EXPIRED]).exit_code == 22


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([EXPIRED], 22),
        ([EXPIRED, failed(4, 22, "delivery-expired")], 22),
        ([EXPIRED, UNPUBLISHED], 12),
        ([UNPUBLISHED], 10),
        ([UNPUBLISHED | {"exit_code": 0, "reason": None}], 10),
        ([UNPUBLISHED | {"exit_code": 13, "reason": "cannot-unpack"}], 10),
        ([failed(1, 11, "hash-mismatch", "mismatch")], 11),
        ([failed(1, 0, None)], 12),
        ([failed(1, 0, None, None)], 12),
    ],
)
def test_failures_combine_as_those_of_one_run(entries: Any, code: int) -> None:
    report = judged([archive(0)], entries)
    assert report.exit_code == code
    assert report.sentence.startswith("The batch is not complete")
    assert report.next_steps


def test_a_job_that_fails_for_two_reasons_on_two_hosts_is_12() -> None:
    assert judged([EXPIRED], [failed(1, 40, "no-space")]).exit_code == 12


def test_a_receipt_that_contradicts_itself_verifies_no_job() -> None:
    report = judged([archive(0, expected_sha1="0" * 40)])
    assert report.exit_code == 11
    assert "its two hashes differ" in report.problems[0].archives[0][1]


def test_either_case_of_a_hash_is_equal() -> None:
    assert judged([archive(0, expected_sha1=archive(0)["sha1"].upper())]).exit_code == 0


def test_rows_begin_with_what_is_not_verified() -> None:
    report = judge(CASES["large"]())
    assert report.exit_code == 12
    assert [row.standing for row in report.rows[:6]] == [
        Standing.MISMATCH,
        Standing.FAILED,
        Standing.FAILED,
        Standing.UNPROVEN,
        Standing.NOT_UNPACKED,
        Standing.VERIFIED,
    ]
    assert (report.verified, report.jobs, len(report.hosts)) == (35, 39, 12)


def test_one_file_given_twice_counts_once() -> None:
    given = files(receipt(archive(0)))
    assert judge(given * 2).exit_code == 0
    assert len(judge(given * 2).hosts) == 1


def test_two_files_are_two_hosts_even_if_an_older_agent_wrote_no_host_name() -> None:
    one = receipt(old(0), host=...)
    report = judge(files(one, one))
    assert report.exit_code == 42
    assert {row.archive.host.label for row in report.rows} == {"unknown host (00.json)", "unknown host (01.json)"}


def test_receipts_of_different_batches_are_refused() -> None:
    with pytest.raises(
        ReceiptsUnusable, match=r"different restores: .*00\.json \(batch b1\).*01\.json \(batch b2\)"
    ) as it:
        judge(files(receipt(archive(0), batch_id="b1"), receipt(archive(1), batch_id="b2")))
    assert it.value.exit_code == 2


def test_a_batch_and_a_single_job_are_different_restores() -> None:
    with pytest.raises(ReceiptsUnusable, match="single restore jobs"):
        judge(files(receipt(archive(0)), receipt(archive(0), batch_id=None)))


def test_single_jobs_belong_together_if_their_receipts_have_a_job_in_common() -> None:
    chain = [[archive(0)], [EXPIRED, archive(2)], [failed(0, 22, "x"), archive(1)]]
    assert judge(files(*(receipt(*entries, batch_id=None) for entries in chain))).exit_code == 0
    with pytest.raises(ReceiptsUnusable, match="different restores"):
        judge(files(receipt(archive(0), batch_id=None), receipt(archive(1), batch_id=None)))


def test_no_receipt_is_refused() -> None:
    with pytest.raises(ReceiptsUnusable, match="no receipt"):
        judge([])


def test_different_snapshot_times_are_noted() -> None:
    assert judged([archive(0), archive(1)]).notes == ()
    report = judged([archive(0), archive(1, snapshot_timestamp="2026-11-23T02:00:00Z")])
    assert report.exit_code == 0
    assert report.notes[0].startswith("The archives have different snapshot times.")


def test_an_encrypted_or_point_in_time_snapshot_is_noted() -> None:
    report = judged([archive(0, encryption_enabled=True, master_key_uuid="key-7", point_in_time=True)])
    assert [note.split(":")[0] for note in report.notes] == ["Point-in-time restore", "The snapshot is encrypted"]
    assert "(key-7)" in report.notes[1]


@pytest.mark.parametrize("case", CASES)
def test_a_report_that_is_not_complete_has_a_next_step(case: str) -> None:
    report = judge(CASES[case](), EXPECTED_JOBS.get(case))
    assert bool(report.next_steps) == bool(report.exit_code)
