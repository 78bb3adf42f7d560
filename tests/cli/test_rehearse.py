"""Drills: `rehearse` runs the real agent against the bundled simulator, `simulator` serves it to anybody."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from support.agents import PATIENCE, Json, Result, RunAgent, StartAgent, receipt_in, sha1_of

Rehearse = Callable[..., Result]


@pytest.fixture
def rehearse(run_agent: RunAgent, dest: Path, monkeypatch: pytest.MonkeyPatch) -> Rehearse:
    """`rehearse(*options)`: a small drill into `dest`, JSON output unless an option says otherwise."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")  # the drill sets them for its process; afterwards they are as they were

    def call(*options: object) -> Result:
        return run_agent(["rehearse", f"--dest={dest}", "--archive-size=64K", "--output=json", *options])

    return call


def test_a_practice_run_ends_with_every_archive_verified(rehearse: Rehearse, dest: Path) -> None:
    ended = rehearse()
    assert ended.code == 0
    assert ended.verdicts == ["verified"] * 3
    for record in receipt_in(dest)["archives"]:
        assert sha1_of(Path(record["path"])) == record["sha1"] == record["expected_sha1"]
    assert ended.result["ops_manager"].startswith("https://127.0.0.1:")


def test_the_text_of_a_practice_run_ends_with_the_table(rehearse: Rehearse, dest: Path) -> None:
    ended = rehearse("--output=text", "--shards=1")
    assert ended.code == 0
    assert [line.split()[0] for line in ended.out.splitlines() if not line.startswith(" ")] == ["verified"] * 2 + ["2"]
    assert str(dest) in ended.out


def test_a_practice_run_goes_from_a_snapshot_to_a_report(rehearse: Rehearse, dest: Path) -> None:
    ended = rehearse("--shards=1", f"--unpack={dest / 'data'}")
    assert ended.code == 0
    assert "requested the restore of snapshot" in ended.events("notice")[0]["message"]
    assert ended.result["receipt"] == str(dest / "receipt.json")
    assert ended.result["report"] == str(dest / "report.html")
    page = (dest / "report.html").read_text()
    assert "The batch is complete: all 2 archives are verified." in page
    assert all(Path(record["data_path"]).is_dir() for record in ended.result["archives"])
    text = rehearse("--output=text", "--shards=1").out.splitlines()
    assert text[-2:] == [f"  receipt  {dest / 'receipt.json'}", f"  report   {dest / 'report.html'}"]


def test_a_failed_practice_run_also_has_a_report(rehearse: Rehearse, dest: Path) -> None:
    assert rehearse("--shards=1", "--fault=broken@0").code == 21
    assert "The batch is not complete" in (dest / "report.html").read_text()


def test_a_report_that_cannot_be_written_changes_no_code(rehearse: Rehearse, dest: Path) -> None:
    (dest / "report.html").mkdir(parents=True)
    ended = rehearse("--shards=0")
    assert (ended.code, ended.result["report"]) == (0, None)
    assert "no report was written" in ended.events("notice")[-1]["message"]


def test_a_replica_set_has_no_batch(rehearse: Rehearse) -> None:
    ended = rehearse("--shards=0")
    assert (ended.code, ended.result["batch_id"], len(ended.verdicts)) == (0, None, 1)


def test_without_a_dest_a_new_directory_is_created_and_reported(
    run_agent: RunAgent, rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = run_agent(["rehearse", "--shards=0", "--archive-size=64K", "-o", "json"])
    assert ended.code == 0
    where = Path(ended.events("started")[0]["dest"])
    assert where.parent == tmp_path
    assert (where / "receipt.json").exists()
    assert f"{where}; this directory can be removed" in ended.events("notice")[0]["message"]
    assert ended.lines[-1]["event"] == "result"


@pytest.mark.parametrize(
    "option", ["--fault=no-such", "--shards=-1", "--parallel=0", "--archive-size=big", "--unpack="]
)
def test_without_a_dest_a_usage_error_leaves_no_directory(
    run_agent: RunAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run_agent(["rehearse", option]).code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        (["cut=60%", "max-downloads=3"], 0),
        (["range=honour", "reset=30%", "max-downloads=2"], 0),
        (["url-v2=only", "framing=chunked"], 0),
        (["hash=wrong"], 11),
        (["broken@0", "expired@1"], 12),
        (["broken"], 21),
        (["expired"], 22),
        (["cut=60%"], 23),
        (["no-batch"], 24),
        (["forbidden"], 30),
        (["wrong-host"], 31),
        (["api-redirect"], 32),
    ],
)
def test_a_practice_run_with_faults_has_the_exit_code_of_a_run(
    rehearse: Rehearse, faults: list[str], code: int
) -> None:
    ended = rehearse("--shards=1", *(f"--fault={fault}" for fault in faults))
    assert ended.code == code, ended.out
    assert ended.result["exit_code"] == code


def test_a_practice_run_into_the_dest_of_another_restore_is_refused(rehearse: Rehearse, dest: Path) -> None:
    assert rehearse("--shards=1").code == 0
    before = receipt_in(dest)
    assert rehearse("--shards=2").code == 42
    assert receipt_in(dest) == before


def test_the_same_practice_run_again_continues_and_downloads_nothing(rehearse: Rehearse) -> None:
    assert rehearse("--shards=1").code == 0
    again = rehearse("--shards=1")
    assert (again.code, again.result["changed"]) == (0, False)
    assert not again.events("download-started")


def test_parallel_1_downloads_one_archive_at_a_time(rehearse: Rehearse) -> None:
    ended = rehearse("--parallel=1")
    order = [line["event"] for line in ended.lines if line["event"] in ("download-started", "downloaded")]
    assert order == ["download-started", "downloaded"] * 3


@pytest.mark.parametrize("command", ["rehearse", "simulator"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("clean-cutt=5%", "did you mean clean-cut"),
        ("max-download=3", "max-downloads"),
        ("qqqq", "--list-faults"),
        ("cut=120%", "between 0 and 100"),
        ("cut", "needs a value"),
    ],
)
def test_an_unknown_fault_is_2_and_the_error_names_similar_faults(
    run_agent: RunAgent, command: str, fault: str, said: str, dest: Path
) -> None:
    ended = run_agent([command, f"--fault={fault}", *([f"--dest={dest}"] if command == "rehearse" else [])])
    assert ended.code == 2
    assert said in ended.err
    assert not dest.exists()


@pytest.mark.parametrize("option", ["--shards=many", "--shards=-1", "--archive-size=big", "--parallel=0"])
def test_a_practice_run_with_an_invalid_option_is_2_and_names_the_option(rehearse: Rehearse, option: str) -> None:
    ended = rehearse(option)
    assert ended.code == 2
    assert option.split("=")[0] in ended.events("error")[0]["message"]


def test_every_fault_is_listed_with_what_it_does(run_agent: RunAgent) -> None:
    ended = run_agent(["simulator", "--list-faults"])
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert "cut=PERCENT%|BYTES[xTIMES]" in lines
    assert any(line.startswith("url-v2[=") for line in lines)
    assert all(line.startswith("    ") for line in lines[1::2])
    assert not any(line.startswith(" ") for line in lines[::2])


# The simulator as a command


def hello_of(process: subprocess.Popen[str]) -> Json:
    assert process.stdout
    hello: Json = json.loads(process.stdout.readline())
    return hello


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_simulator_prints_one_line_serves_and_ends_with_0(start_agent: StartAgent, number: signal.Signals) -> None:
    process = start_agent(["simulator", "--archive-size=64K", "--shards=1"])
    hello = hello_of(process)
    assert list(hello) == [
        "url",
        "group_id",
        "cluster_id",
        "batch_id",
        "job_ids",
        "public_key",
        "private_key",
        "ca_file",
    ]
    assert hello["ca_file"] is None
    assert len(hello["job_ids"]) == 2
    auth = httpx.DigestAuth(hello["public_key"], hello["private_key"])
    place = f"{hello['url']}/api/public/v1.0/groups/{hello['group_id']}/clusters/{hello['cluster_id']}"
    assert httpx.get(place, auth=auth, timeout=PATIENCE, verify=False).status_code == 200
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "", "")


def test_run_against_simulator_in_another_shell(
    start_agent: StartAgent, run_agent: RunAgent, dest: Path, tmp_path: Path
) -> None:
    process = start_agent(["simulator", "--tls", "--archive-size=64K", "--fault=hash=late:0.1"])
    hello = hello_of(process)
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text(hello["private_key"] + "\n")
    names = ("url", "public_key", "group_id", "cluster_id", "batch_id", "ca_file")
    args = [f"--{name.replace('_', '-')}={hello[name]}" for name in names]
    ended = run_agent(["run", *args, f"--private-key-file={key}", f"--dest={dest}", "--poll-interval=0.1", "-ojson"])
    assert ended.code == 0, ended.out
    assert ended.verdicts == ["verified"] * 3
    again = run_agent(["run", *args, f"--private-key-file={key}", f"--dest={dest}", "--poll-interval=0.1"])
    assert again.out.splitlines()[-1] == "3 archives verified. Nothing had to be done."


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("tls", [False, True])
def test_curl_with_digest_can_talk_to_the_simulator(start_agent: StartAgent, tmp_path: Path, tls: bool) -> None:
    process = start_agent(["simulator", "--archive-size=64K", *(["--tls"] if tls else [])])
    hello = hello_of(process)
    user = ["--user", f"{hello['public_key']}:{hello['private_key']}", "--digest"]
    ca = ["--cacert", hello["ca_file"]] if tls else []
    place = f"{hello['url']}/api/public/v1.0/groups/{hello['group_id']}/clusters/{hello['cluster_id']}/restoreJobs"
    curl = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", *ca]
    listed = subprocess.run(
        [*curl, *user, f"{place}?batchId={hello['batch_id']}"], capture_output=True, text=True, check=True
    )
    jobs = json.loads(listed.stdout)["results"]
    assert {job["id"] for job in jobs} == set(hello["job_ids"])
    url = jobs[0]["delivery"]["url"]
    archive = tmp_path / "archive"
    subprocess.run([*curl, "--output", archive, url], check=True, capture_output=True)
    read = subprocess.run([*curl, *user, f"{place}/{jobs[0]['id']}"], capture_output=True, text=True, check=True)
    assert json.loads(read.stdout)["hashes"][0]["hash"] == sha1_of(archive)
