"""`report`: which receipts it reads, where the page goes, and how it ends."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from support.agents import RunAgent, StartSimulator, connection_args
from support.receipts import Json, archive, failed, receipt


def written(path: Path, *archives: Json, **changes: object) -> Path:
    """A receipt on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(receipt(*archives, **changes)))
    return path


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return written(tmp_path / "a" / "receipt.json", archive(0), archive(1))


# ---------------------------------------------------------------- receipts


def test_the_text_begins_with_the_verdict_and_fits_80_columns(run_agent: RunAgent, one: Path) -> None:
    ended = run_agent(["report", one])
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "The batch is complete: all 2 archives are verified."
    assert max(map(len, lines)) <= 80
    assert ended.out.endswith("\n") and not ended.out.endswith("\n\n")


def test_the_default_is_the_receipt_in_dest(run_agent: RunAgent, one: Path) -> None:
    expected = run_agent(["report", one]).out
    assert run_agent(["report", "--dest", one.parent]).out == expected
    assert run_agent(["report"], {"RESTORE_AGENT_DEST": str(one.parent)}).out == expected
    assert run_agent(["report", one.parent]).out == expected


def test_neither_receipt_nor_dest_is_2(run_agent: RunAgent) -> None:
    ended = run_agent(["report"])
    assert (ended.code, ended.out) == (2, "")
    assert "no receipt is given" in ended.err
    assert "restore-agent report --help" in ended.err


def test_one_file_given_twice_counts_once(run_agent: RunAgent, one: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(one)
    other = one.parent / ".." / "a" / one.name
    assert run_agent(["report", one, one, link, other, one.parent]).code == 0
    copy = tmp_path / "copy.json"
    copy.write_bytes(one.read_bytes())
    ended = run_agent(["report", one, copy])
    assert ended.code == 42
    assert "more than one host" in " ".join(ended.out.split())


def test_a_receipt_may_be_read_from_a_pipe(run_agent: RunAgent, one: Path) -> None:
    end, start = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(start, one.read_bytes()), os.close(start)))
    writer.start()
    ended = run_agent(["report", f"/dev/fd/{end}"])
    writer.join()
    os.close(end)
    assert ended.code == 0
    assert ended.out.startswith("The batch is complete")


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"schema": "other"}', "\x00", "x" * 100])
def test_a_file_that_is_not_a_receipt_is_2_and_named(
    run_agent: RunAgent, tmp_path: Path, one: Path, content: str | None
) -> None:
    path = tmp_path / "odd.json"
    if content is not None:
        path.write_text(content)
    ended = run_agent(["report", one, path])
    assert (ended.code, ended.out) == (2, "")
    assert str(path) in ended.err.replace("\n", "")


def test_receipts_of_different_batches_are_2(run_agent: RunAgent, tmp_path: Path, one: Path) -> None:
    other = written(tmp_path / "b.json", archive(5), batch_id="0" * 24)
    ended = run_agent(["report", one, other])
    assert ended.code == 2
    assert "different restores" in ended.err


# ---------------------------------------------------------------- the exit code


def test_the_code_is_the_reason_why_the_batch_is_not_complete(run_agent: RunAgent, tmp_path: Path, one: Path) -> None:
    broken = written(tmp_path / "b.json", failed(3, 22, "delivery-expired"), exit_code=22)
    assert run_agent(["report", one, broken]).code == 22
    missing = run_agent(["report", one, "--expect-jobs=3"])
    assert missing.code == 24
    assert missing.out.startswith("The batch is not complete: 2 of 3")
    assert run_agent(["report", one, "--expect-jobs=0"]).code == 2


def test_as_json_the_result_has_the_verdict(run_agent: RunAgent, tmp_path: Path, one: Path) -> None:
    page = tmp_path / "page.html"
    for options, path in (([], None), (["--html", page], str(page))):
        ended = run_agent(["report", one, "--expect-jobs=3", *options, "-o", "json"])
        assert (ended.code, [line["event"] for line in ended.lines]) == (24, ["result"])
        result = ended.result
        assert (result["exit_code"], result["outcome"], result["report"]) == (24, "failed", path)
        assert result["sentence"].startswith("The batch is not complete")
        assert result["batch_id"] == json.loads(one.read_text())["batch_id"]
        assert len(result["problems"]) == 1


# ---------------------------------------------------------------- the page


def test_the_page_is_one_file_and_the_output_names_it(run_agent: RunAgent, one: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("old")
    ended = run_agent(["report", one, "--html", page])
    assert ended.code == 0
    assert ended.out == f"The batch is complete: all 2 archives are verified.\nReport: {page}\n"
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "report.html"]


def test_a_page_that_cannot_be_written_is_41(run_agent: RunAgent, one: Path, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    for place in (tmp_path / "no" / "such.html", tmp_path / "directory", "/dev/full", tmp_path / ("x" * 300)):
        ended = run_agent(["report", one, "--html", place, "-o", "json"])
        assert (ended.code, ended.result["exit_code"]) == (41, 41), place
        assert "cannot be written" in ended.events("error")[0]["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "directory"]


def test_a_page_can_be_written_through_a_symbolic_link_and_into_a_pipe(
    run_agent: RunAgent, one: Path, tmp_path: Path
) -> None:
    link, target = tmp_path / "link.html", tmp_path / "target.html"
    link.symlink_to(target)
    assert run_agent(["report", one, "--html", link]).code == 0
    assert link.is_symlink() and target.read_text().startswith("<!DOCTYPE html>")
    end, start = os.pipe()
    read: list[bytes] = []
    file = os.fdopen(end, "rb")
    reader = threading.Thread(target=lambda: read.append(file.read()))
    reader.start()
    assert run_agent(["report", one, "--html", f"/dev/fd/{start}"]).code == 0
    os.close(start)
    reader.join()
    file.close()
    assert read[0].startswith(b"<!DOCTYPE html>")


def test_a_secret_in_a_receipt_is_not_printed(run_agent: RunAgent, tmp_path: Path) -> None:
    key = "3f6b7653-786f-4dbf-b1af-acdb0bc2b1e0"
    one = written(tmp_path / "receipt.json", archive(0, restore_info={"Replica Set": key}, master_key_uuid=key))
    page = tmp_path / "page.html"
    for options in ([], ["--html", page]):
        ended = run_agent(["report", one, *options], {"RESTORE_AGENT_PRIVATE_KEY": key})
        assert key not in ended.out + ended.err
    assert key not in page.read_text()


def test_a_real_run_is_reported(run_agent: RunAgent, simulator: StartSimulator, dest: Path) -> None:
    sim = simulator("hash=wrong@0", shards=1)
    args = ["run", *connection_args(sim), f"--dest={dest}", "--poll-interval=0.05", "--hash-timeout=2s"]
    assert run_agent(args).code == 11
    ended = run_agent(["report", "--dest", dest])
    assert ended.code == 11
    assert ended.out.startswith("The batch is not complete: 1 of 2 archives is verified")
    assert [secret for secret in sim.secrets if secret in ended.out] == []
