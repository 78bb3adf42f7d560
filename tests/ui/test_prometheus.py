"""The metrics file: what it tells during and after a run, that it is never half, and the alert rules on top of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.agents import Json, Restore, RunAgent, StartSimulator, meanwhile, wait_until

from restore_agent.core.clock import rfc3339
from restore_agent.core.events import ArchiveFinished, ArchiveProgress, JobSeen, Progress, RunFinished, RunStarted
from restore_agent.core.exit_codes import EXIT_CODES, codes
from restore_agent.core.receipt import ArchiveRecord, Receipt, Verdict
from restore_agent.core.redaction import Redactor
from restore_agent.ui import prometheus as metrics

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian: prometheus) is missing")
NOW = 1_700_000_000.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where node_exporter would look."""
    place = tmp_path / "textfile"
    place.mkdir()
    return place / "restore.prom"


def samples(text: str) -> dict[tuple[str, str], float]:
    """(name, its archive, state or verdict) to value."""
    return {
        (one.name, one.labels.get("verdict") or one.labels.get("state") or one.labels.get("archive", "")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def told(path: Path) -> dict[tuple[str, str], float]:
    return samples(path.read_text())


# ---------------------------------------------------------------- a run


def test_a_verified_run_writes_bytes_verdict_downloads_and_exit_code(
    simulator: StartSimulator, restore: Restore, file: Path
) -> None:
    ended = restore(simulator(), f"--metrics-file={file}")
    assert ended.code == 0
    name, seen = ended.archive["file_name"], told(file)
    assert seen["restore_agent_archive_bytes", name] == ended.archive["bytes"]
    assert seen["restore_agent_archive_downloads_spent", name] == 1
    assert seen["restore_agent_archive_bytes_per_second", name] == ended.archive["bytes_per_second"]
    assert seen["restore_agent_archive_verdict", "verified"] == 1
    assert seen["restore_agent_archive_verdict", "mismatch"] == 0
    assert seen["restore_agent_run_exit_code", ""] == 0
    assert seen["restore_agent_run_changed", ""] == 1
    assert seen["restore_agent_run_state", "finished"] == 1
    assert sum(value for (name, _), value in seen.items() if name == "restore_agent_run_state") == 1
    assert abs(seen["restore_agent_run_finished_timestamp_seconds", ""] - time.time()) < 60


def test_labels_name_batch_job_and_archive(simulator: StartSimulator, restore: Restore, file: Path) -> None:
    sim = simulator(shards=1)
    assert restore(sim, f"--metrics-file={file}").code == 0
    rows = [one for family in text_string_to_metric_families(file.read_text()) for one in family.samples]
    labels = [one.labels for one in rows if one.name == "restore_agent_archive_bytes"]
    assert {one["batch_id"] for one in labels} == {sim.hello["batch_id"]}
    assert {one["job_id"] for one in labels} == set(sim.hello["job_ids"])


def test_during_a_run_the_file_has_the_state_of_every_archive(
    simulator: StartSimulator, restore: Restore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_EVERY", 0.05)
    seen: list[dict[tuple[str, str], float]] = []

    def look() -> None:
        seen.append(wait_until(lambda: file.exists() and downloading(told(file)), "metrics of a download"))

    def downloading(now: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
        return now if now["restore_agent_run_state", "downloading"] else {}

    with meanwhile(look):
        assert restore(simulator("drip=64K", archive_size=1 << 16), f"--metrics-file={file}").code == 0
    (during,) = seen
    assert ("restore_agent_run_exit_code", "") not in during
    left = next(value for (name, _), value in during.items() if name == "restore_agent_archive_expires_in_seconds")
    assert 0 < left <= 48 * 3600


def test_a_finished_archive_has_no_time_to_expiry(simulator: StartSimulator, restore: Restore, file: Path) -> None:
    restore(simulator(), f"--metrics-file={file}")
    assert "restore_agent_archive_expires_in_seconds{" not in file.read_text()


@pytest.mark.parametrize(
    ("fault", "code", "verdict"),
    [("cut=50%", 23, "failed"), ("hash=wrong", 11, "mismatch"), ("hash=never", 10, "unproven")],
)
def test_a_failed_run_writes_its_verdict_and_exit_code(
    simulator: StartSimulator, restore: Restore, file: Path, fault: str, code: int, verdict: str
) -> None:
    ended = restore(simulator(fault), f"--metrics-file={file}", "--hash-timeout=0.2s")
    assert ended.code == code
    assert told(file)["restore_agent_run_exit_code", ""] == code
    assert told(file)["restore_agent_archive_verdict", verdict] == 1


def test_a_run_without_known_jobs_writes_its_exit_code(simulator: StartSimulator, restore: Restore, file: Path) -> None:
    assert restore(simulator("forbidden"), f"--metrics-file={file}").code == 30
    assert told(file)["restore_agent_run_exit_code", ""] == 30
    assert told(file)["restore_agent_run_state", "finished"] == 1


def test_a_mistake_in_the_call_is_reported_too(run_agent: RunAgent, file: Path) -> None:
    assert run_agent(["run", f"--metrics-file={file}"]).code == 2
    assert told(file)["restore_agent_run_exit_code", ""] == 2


def test_the_path_can_be_set_in_the_environment(simulator: StartSimulator, restore: Restore, file: Path) -> None:
    assert restore(simulator(), env={"RESTORE_AGENT_METRICS_FILE": str(file)}).code == 0
    assert told(file)["restore_agent_run_exit_code", ""] == 0


# ---------------------------------------------------------------- the file


def test_the_file_is_readable_by_node_exporter_and_the_only_one_in_its_directory(
    simulator: StartSimulator, restore: Restore, file: Path
) -> None:
    before = os.umask(0o077)
    try:
        assert restore(simulator(), f"--metrics-file={file}").code == 0
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_reader_never_reads_a_partial_file(file: Path) -> None:
    reporter = metrics.MetricsFile(file, "batch", print, Redactor())
    stop = threading.Event()
    broken: list[str] = []

    def read() -> None:
        while not stop.is_set():
            if file.exists() and not (text := file.read_text()).endswith("\n"):
                broken.append(text[-40:])

    with meanwhile(read):
        for number in range(50):
            rows = tuple(progress(f"job-{index}", bytes=number) for index in range(100))
            reporter._due = 0.0
            reporter.report(Progress(rows))
            reporter.close()
        stop.set()
    assert broken == []
    assert len(told(file)) > 100


def test_a_file_that_cannot_be_written_causes_one_warning_and_ends_no_run(
    simulator: StartSimulator, restore: Restore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metrics, "replace_file", fails)  # the disk, not our code
    ended = restore(simulator(), f"--metrics-file={file}")
    assert ended.code == 0
    warnings = [line["message"] for line in ended.events("notice") if "metrics" in line["message"]]
    assert warnings == [f"metrics file {file}: No space left on device"]
    assert ended.lines[-1]["event"] == "result"


@pytest.mark.parametrize("path", ["/no/such/directory/a.prom", "/tmp", ""])
def test_a_path_that_cannot_be_a_file_is_a_usage_error(simulator: StartSimulator, restore: Restore, path: str) -> None:
    ended = restore(simulator(), f"--metrics-file={path}")
    assert ended.code == 2
    assert "--metrics-file" in ended.events("error")[0]["message"]


def test_without_prometheus_client_the_option_is_a_usage_error_with_a_hint(tmp_path: Path) -> None:
    hidden = "import sys\nsys.modules['prometheus_client'] = None\n"
    script = hidden + "from restore_agent.cli.main import main\nmain(sys.argv[1:])\n"
    command = [sys.executable, "-c", script, "run", f"--metrics-file={tmp_path / 'a.prom'}", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    error = json.loads(done.stdout.splitlines()[0])
    assert done.returncode == 2
    assert "prometheus-client" in error["message"]
    assert "pip install prometheus-client" in error["hint"]


def test_no_secret_is_in_it(simulator: StartSimulator, restore: Restore, file: Path) -> None:
    sim = simulator("hash=wrong")
    restore(sim, f"--metrics-file={file}")
    assert not any(secret in file.read_text() for secret in sim.secrets)


def progress(job_id: str, **more: object) -> ArchiveProgress:
    values: Json = {"file_name": f"{job_id}.tar.gz", "state": "downloading", "bytes": 0, "total_bytes": None}
    values |= {"bytes_per_second": 0, "expires_at": None, "downloads_spent": 1, **more}
    return ArchiveProgress(job_id, **values)


def test_unknown_values_are_left_out_and_names_from_the_server_are_quoted(file: Path) -> None:
    reporter = metrics.MetricsFile(file, None, print, Redactor(), wall=lambda: NOW)
    reporter.report(RunStarted(None, "/restore"))
    reporter.report(JobSeen("1", None, None, None, "wait", "not ready", "no time at all"))
    reporter.close()
    reporter.report(Progress((progress("1", file_name='a"b\\c'), progress("2", state="hashing"))))
    reporter.close()
    text = file.read_text()
    assert r'archive="a\"b\\c"' in text
    assert "restore_agent_archive_total_bytes{" not in text
    assert "restore_agent_archive_expires_timestamp_seconds{" not in text
    assert told(file)["restore_agent_run_updated_timestamp_seconds", ""] == NOW


@pytest.mark.parametrize(
    ("states", "state"),
    [(("waiting", "verified"), "waiting"), (("hashing", "waiting"), "verifying"), (("verified",), "verifying")],
)
def test_the_run_is_where_its_busiest_archive_is(file: Path, states: tuple[str, ...], state: str) -> None:
    reporter = metrics.MetricsFile(file, "batch", print, Redactor())
    reporter.report(Progress(tuple(progress(f"job-{number}", state=one) for number, one in enumerate(states))))
    reporter.close()
    assert told(file)["restore_agent_run_state", state] == 1


# ---------------------------------------------------------------- the alert rules


@needs_promtool
def test_promtool_reports_no_problem_in_the_rules(run_agent: RunAgent, tmp_path: Path) -> None:
    rules = tmp_path / "alerts.yml"
    rules.write_text(run_agent(["alerts"]).out)
    done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "SUCCESS" in done.stdout


@needs_promtool
def test_promtool_reports_no_problem_in_the_metrics(simulator: StartSimulator, restore: Restore, file: Path) -> None:
    restore(simulator(shards=1), f"--metrics-file={file}")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=file.read_text(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def every_metric(file: Path) -> set[str]:
    """The names of all metrics there can be."""
    reporter = metrics.MetricsFile(file, "batch", print, Redactor())
    row = progress("1", total_bytes=9, expires_at=rfc3339(NOW), expires_in=5.0)
    reporter.report(Progress((row,)))
    settled = ArchiveRecord("2", file_name="b", bytes=1, verdict=Verdict.MISMATCH)
    reporter.report(ArchiveFinished("2", settled))
    reporter.report(RunFinished(Receipt(None, None, None, "batch", None, "", "", "failed", 11, True, (settled,))))
    return {one.name for family in text_string_to_metric_families(file.read_text()) for one in family.samples}


def test_the_rules_use_only_metrics_that_are_written(run_agent: RunAgent, file: Path) -> None:
    assert set(re.findall(r"restore_agent_\w+", run_agent(["alerts"]).out)) <= every_metric(file)


def test_the_documents_name_every_metric_and_no_other(file: Path) -> None:
    document = (Path(__file__).parents[2] / "restore_agent" / "share" / "doc" / "operating.md").read_text()
    text = document.partition("\n## Monitoring\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(restore_agent_\w+)`", text)) == every_metric(file)


CASES = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'restore_agent_run_exit_code{{batch_id="done",instance="a"}}', values: '0x20'}}
      - {{series: 'restore_agent_run_exit_code{{batch_id="bad",instance="a"}}', values: '23x20'}}
      - {{series: 'restore_agent_run_exit_code{{batch_id="away",instance="a"}}', values: '32x20'}}
    alert_rule_test:
      - eval_time: 1m
        alertname: RestoreFailed
        exp_alerts:
          - exp_labels: {{severity: page, batch_id: bad, instance: a}}
            exp_annotations:
              summary: Restore of batch bad on a ended with 23
              description: A further run does not resolve this. See `restore-agent explain 23` and the receipt.
      - eval_time: 1m
        alertname: RestoreNeedsRerun
        exp_alerts: []
      - eval_time: 10m
        alertname: RestoreNeedsRerun
        exp_alerts:
          - exp_labels: {{severity: warning, batch_id: away, instance: a}}
            exp_annotations:
              summary: Restore of batch away on a stopped with 32
              description: It has not been started again. `restore-agent run` resumes it.
  - interval: 1m
    input_series:
      - {{series: 'restore_agent_archive_total_bytes{{archive="slow",instance="a"}}', values: '1000000x20'}}
      - {{series: 'restore_agent_archive_bytes{{archive="slow",instance="a"}}', values: '0x20'}}
      - {{series: 'restore_agent_archive_bytes_per_second{{archive="slow",instance="a"}}', values: '100x20'}}
      - {{series: 'restore_agent_archive_expires_in_seconds{{archive="slow",instance="a"}}', values: '3600x20'}}
      - {{series: 'restore_agent_archive_total_bytes{{archive="quick",instance="a"}}', values: '1000000x20'}}
      - {{series: 'restore_agent_archive_bytes{{archive="quick",instance="a"}}', values: '0x20'}}
      - {{series: 'restore_agent_archive_bytes_per_second{{archive="quick",instance="a"}}', values: '1000x20'}}
      - {{series: 'restore_agent_archive_expires_in_seconds{{archive="quick",instance="a"}}', values: '3600x20'}}
    alert_rule_test:
      - eval_time: 5m
        alertname: RestoreWillExpire
        exp_alerts:
          - exp_labels: {{severity: page, archive: slow, instance: a}}
            exp_annotations:
              summary: slow on a needs longer than its delivery lasts
              description: At the current rate, it needs 2h 46m 40s more. Find the bottleneck, or create a new restore job.
      - eval_time: 5m
        alertname: RestoreDeliveryExpiresSoon
        exp_alerts: []
  - interval: 1m
    input_series:
      - {{series: 'restore_agent_run_updated_timestamp_seconds{{batch_id="gone",instance="a"}}', values: '0x20'}}
      - {{series: 'restore_agent_run_state{{batch_id="gone",instance="a",state="downloading"}}', values: '1x20'}}
      - {{series: 'restore_agent_run_updated_timestamp_seconds{{batch_id="done",instance="a"}}', values: '0x20'}}
      - {{series: 'restore_agent_run_state{{batch_id="done",instance="a",state="finished"}}', values: '1x20'}}
    alert_rule_test:
      - eval_time: 1m
        alertname: RestoreMetricsStale
        exp_alerts: []
      - eval_time: 3m
        alertname: RestoreMetricsStale
        exp_alerts:
          - exp_labels: {{severity: page, batch_id: gone, instance: a}}
            exp_annotations:
              summary: The restore on a has written no metrics for 3m 0s
              description: The process has ended or hangs. Check `restore-agent status`; `restore-agent run` resumes the restore.
  - interval: 1m
    input_series:
      - {{series: 'restore_agent_archive_verdict{{archive="x",instance="a",verdict="mismatch"}}', values: '1x5'}}
      - {{series: 'restore_agent_archive_verdict{{archive="y",instance="a",verdict="mismatch"}}', values: '0x5'}}
      - {{series: 'restore_agent_archive_downloads_spent{{archive="x",instance="a"}}', values: '2x5'}}
      - {{series: 'restore_agent_archive_downloads_spent{{archive="y",instance="a"}}', values: '1x5'}}
      - {{series: 'restore_agent_archive_expires_in_seconds{{archive="x",instance="a"}}', values: '600x5'}}
    alert_rule_test:
      - eval_time: 1m
        alertname: RestoreArchiveDiffers
        exp_alerts:
          - exp_labels: {{severity: page, archive: x, instance: a, verdict: mismatch}}
            exp_annotations:
              summary: x on a differs from its published hash or is damaged
              description: Do not use the quarantined file. Create a new restore job.
      - eval_time: 1m
        alertname: RestoreRepeatedDownloads
        exp_alerts:
          - exp_labels: {{severity: warning, archive: x, instance: a}}
            exp_annotations:
              summary: x on a has spent 2 downloads
              description: Transfers are interrupted. The job's maxDownloads may be used up.
      - eval_time: 1m
        alertname: RestoreDeliveryExpiresSoon
        exp_alerts:
          - exp_labels: {{severity: warning, archive: x, instance: a}}
            exp_annotations:
              summary: The delivery of x expires in 10m 0s
              description: The archive on a is not finished yet.
"""  # noqa: E501


@needs_promtool
def test_each_alert_fires_for_its_own_condition_only(run_agent: RunAgent, tmp_path: Path) -> None:
    rules, cases = tmp_path / "alerts.yml", tmp_path / "cases.yml"
    rules.write_text(run_agent(["alerts"]).out)
    cases.write_text(CASES.format(rules=rules))
    done = subprocess.run(["promtool", "test", "rules", cases], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = set(re.findall(r"- alert: (\w+)", rules.read_text()))
    assert alerts == set(re.findall(r"alertname: (\w+)", CASES))


def test_the_rules_alert_an_operator_for_the_codes_that_need_one(run_agent: RunAgent) -> None:
    again = {int(code) for code in re.findall(r"exit_code == (\d+)", run_agent(["alerts"]).out)}
    assert again == {code for code in codes() if EXIT_CODES[code].next_step in ("run again", "wait")}
