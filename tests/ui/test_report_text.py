"""The report as text: the judgement first, no line wider than asked for, nothing from outside unprinted."""

from __future__ import annotations

import unicodedata

import pytest

from restore_agent.ui.report import as_text, judge
from restore_agent.ui.report.wording import cut, labels, visible, width_of
from restore_agent.ui.wording import size_text
from tests.support.receipts import archive, files, old, receipt
from tests.support.report_cases import CASES, EXPECTED_JOBS


def text_of(case: str, width: int = 80) -> str:
    """Return the text of a case."""
    return as_text(judge(CASES[case](), EXPECTED_JOBS.get(case)), width)


@pytest.mark.parametrize("width", [40, 60, 80, 160])
@pytest.mark.parametrize("case", CASES)
def test_no_line_is_wider_than_the_terminal(case: str, width: int) -> None:
    assert [line for line in text_of(case, width).splitlines() if width_of(line) > width] == []


@pytest.mark.parametrize("case", CASES)
def test_no_invisible_character_is_printed(case: str) -> None:
    found = {unicodedata.category(char) for char in text_of(case).replace("\n", "")}
    assert not found & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_the_judgment_and_the_next_step_are_the_first_lines() -> None:
    lines = text_of("one-missing").splitlines()
    assert lines[0] == "The batch is not complete: 2 of 4 archives are verified, 1 is in no receipt, 1"
    assert lines[3] == "✗ 1 of 4 restore jobs is in no receipt (exit code 24)"
    assert lines[4].startswith("  Next: Find the host")


def test_a_row_has_the_facts_of_the_archive() -> None:
    text = text_of("success", 160)
    entry = archive(1)
    for fact in (
        entry["file_name"],
        entry["sha1"],
        entry["data_path"],
        entry["job_id"],
        "7.0.14",
        "189804324157 bytes",
    ):
        assert fact in text
    assert "  downloads     1 spent" in text
    assert f", {size_text(entry['bytes_per_second'])}/s" in text, "a resumed transfer has fewer bytes than the archive"
    assert "  published     the same" in text
    assert "  snapshot      2026-11-24 02:00:00" in text


def test_a_published_hash_that_differs_is_shown() -> None:
    report = judge(files(receipt(archive(0, verdict="mismatch", exit_code=11, expected_sha1="ab" * 20))))
    assert f"published     {'ab' * 20}" in as_text(report)


def test_a_path_stays_in_one_piece_on_80_columns() -> None:
    assert f"\n    {archive(0)['data_path']}\n" in text_of("success", 80)


def test_fields_that_an_older_agent_did_not_write_are_unknown() -> None:
    text = as_text(judge(files(receipt(old(0), host=...))))
    assert "host          unknown host (00.json)" in text
    assert "data path     unknown" in text
    assert "Unknown: the receipts are of a restore-agent that did not write it." in text


def test_the_timeline_has_a_row_for_each_archive() -> None:
    lanes = [line for line in text_of("success").splitlines() if line.startswith("…shard")]
    assert [lane.split()[-1] for lane in lanes] == ["41m30s", "44m00s", "46m30s"]
    assert all(sign in lanes[0] for sign in ".#~=")


def test_labels_leave_out_the_common_prefix_of_all_names() -> None:
    assert labels(["prod-shard0-1.tar.gz", "prod-shard1-1.tar.gz", "prod-config-1.tgz"]) == [
        "…shard0-1",
        "…shard1-1",
        "…config-1",
    ]
    assert labels(["a-b.tar"]) == ["a-b"]
    assert labels([]) == []


def test_a_shortened_text_keeps_both_ends() -> None:
    assert cut("abcdefghij", 7) == "abcd…ij"
    assert width_of(cut("漢字漢字漢字", 7)) <= 7


def test_invisible_characters_and_stacked_marks_are_escaped() -> None:
    assert visible("a\u202eb\u200bc\x1b\ud800") == "a\\u202eb\\u200bc\\x1b\\ud800"
    assert visible("e\u0301") == "e\u0301"
    assert visible("e" + "\u0301" * 3) == "e" + "\\u0301" * 3
    assert visible("x" * 500, 10) == "x" * 9 + "…"
