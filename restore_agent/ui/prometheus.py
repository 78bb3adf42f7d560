"""Metrics of a run as a Prometheus text file, for node_exporter's textfile collector.

Sizes are bytes, times seconds, timestamps seconds since the epoch, as Prometheus names them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from .. import __version__
from ..core.events import ArchiveFinished, ArchiveProgress, Event, JobSeen, Progress, RunFinished, RunStarted
from ..core.receipt import ArchiveRecord, Receipt, Verdict
from ..core.redaction import Redactor
from .files import replace_file

_EVERY = 5.0  # seconds between two files while bytes flow

_RUN_STATES = ("waiting", "downloading", "verifying", "finished", "interrupted")

_TOLD = {"downloading": "downloading", "hashing": "verifying", "waiting": "waiting"}

"""What the run does, by the first of these states that an archive is in."""

_STOPPED = (130, 143)


@dataclass(frozen=True)
class _Archive:
    """What is told of one archive; None is left out."""

    name: str
    bytes: int | None = None
    total_bytes: int | None = None
    rate: float | None = None
    expires: float | None = None
    expires_in: float | None = None
    spent: int = 0
    verdict: Verdict | None = None


@dataclass(frozen=True)
class _Run:
    """What is told of the run."""

    batch_id: str
    state: str
    started: float
    exit_code: int | None = None
    finished: float | None = None
    changed: bool | None = None


class MetricsFile:
    """A reporter that replaces one file. When that fails it warns, once; it ends no run."""

    def __init__(
        self,
        path: Path,
        batch_id: str | None,
        warn: Callable[[str], None],
        redactor: Redactor,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._warn, self._redactor, self._wall = path, warn, redactor, wall
        self._run = _Run(batch_id or "", "waiting", wall())
        self._archives: dict[str, _Archive] = {}
        self._due = 0.0
        self._writing: threading.Thread | None = None
        self._problem: OSError | None = None
        self._warned = False

    def report(self, event: Event) -> None:
        """Take up what an event tells; write at most every few seconds, and at the end."""
        match event:
            case RunStarted():
                self._write_beside()
            case JobSeen():
                archive = self._archives.get(event.job_id, _Archive(event.archive or ""))
                self._archives[event.job_id] = replace(archive, expires=_seconds(event.expires_at))
            case Progress():
                self._take(event.archives)
            case ArchiveFinished():
                self._settle(event.record)
            case RunFinished():
                self._finish(event.receipt)
        if self._problem and not self._warned:
            self._warned = True
            self._warn(f"metrics file {self._path}: {self._problem.strerror}")

    def close(self) -> None:
        """Wait for a file that is being written."""
        if self._writing:
            self._writing.join()

    def _take(self, rows: tuple[ArchiveProgress, ...]) -> None:
        for row in rows:
            before = self._archives.get(row.job_id, _Archive(""))
            self._archives[row.job_id] = replace(
                before,
                name=row.file_name or before.name,
                bytes=row.bytes,
                total_bytes=row.total_bytes,
                rate=row.bytes_per_second,
                expires=_seconds(row.expires_at),
                expires_in=row.expires_in,
                spent=row.downloads_spent,
            )
        states = {row.state for row in rows}
        self._run = replace(
            self._run, state=next((told for state, told in _TOLD.items() if state in states), "verifying")
        )
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _EVERY
            self._write_beside()

    def _settle(self, record: ArchiveRecord) -> None:
        before = self._archives.get(record.job_id, _Archive(""))
        self._archives[record.job_id] = replace(
            before,
            name=record.file_name or before.name,
            bytes=record.bytes,
            rate=record.bytes_per_second,
            spent=record.downloads_spent,
            verdict=record.verdict,
        )

    def _finish(self, receipt: Receipt) -> None:
        for record in receipt.archives:
            self._settle(record)
        self._run = replace(
            self._run,
            batch_id=receipt.batch_id or self._run.batch_id,
            state="interrupted" if receipt.exit_code in _STOPPED else "finished",
            exit_code=receipt.exit_code,
            finished=self._wall(),
            changed=receipt.changed,
        )
        self.close()
        self._write(self._text())

    def _write_beside(self) -> None:
        """Write in a thread of its own: a slow disk must not hold up the batch."""
        if self._writing is None or not self._writing.is_alive():
            self._writing = threading.Thread(target=self._write, args=(self._text(),), name="metrics", daemon=True)
            self._writing.start()

    def _write(self, text: bytes) -> None:
        try:
            replace_file(self._path, text)
        except OSError as error:
            self._problem = error

    def _text(self) -> bytes:
        registry = CollectorRegistry()
        registry.register(_Told(self._run, dict(self._archives), self._wall()))
        return self._redactor.clean(generate_latest(registry).decode()).encode()


class _Told(Collector):
    """The metric families of one moment."""

    def __init__(self, run: _Run, archives: dict[str, _Archive], now: float) -> None:
        self._run, self._archives, self._now = run, archives, now

    def collect(self) -> Iterator[Metric]:
        """Each family with its samples."""
        yield InfoMetricFamily("restore_agent", "The agent that wrote this.", {"version": __version__})
        yield from self._of_the_run()
        yield from self._of_the_archives()

    def _of_the_run(self) -> Iterator[Metric]:
        run = self._run
        state = GaugeMetricFamily(
            "restore_agent_run_state", "1 for the state the run is in.", labels=("batch_id", "state")
        )
        for name in _RUN_STATES:
            state.add_metric((run.batch_id, name), float(name == run.state))
        yield state
        for name, value, text in (
            ("started_timestamp_seconds", run.started, "When the run began."),
            ("updated_timestamp_seconds", self._now, "When this file was written."),
            ("finished_timestamp_seconds", run.finished, "When the run ended; missing until then."),
            ("exit_code", run.exit_code, "The run's exit code; missing until it ended."),
            ("changed", run.changed, "1 if the run wrote an archive; missing until it ended."),
        ):
            if value is not None:
                family = GaugeMetricFamily(f"restore_agent_run_{name}", text, labels=("batch_id",))
                family.add_metric((run.batch_id,), float(value))
                yield family

    def _of_the_archives(self) -> Iterator[Metric]:
        values: tuple[tuple[str, Callable[[_Archive], float | None], str], ...] = (
            ("bytes", lambda one: one.bytes, "Bytes on disk."),
            ("total_bytes", lambda one: one.total_bytes, "Bytes of the whole archive, where the server told."),
            ("bytes_per_second", lambda one: one.rate, "Rate now; of the whole transfer once it is settled."),
            ("downloads_spent", lambda one: one.spent, "GETs that the server may have counted, over all runs."),
            ("expires_timestamp_seconds", lambda one: one.expires, "When the delivery expires, by the server."),
            ("expires_in_seconds", self._expires_in, "Seconds to expiry by the server's clock; negative after it."),
        )
        for name, value, text in values:
            yield self._family(name, value, text)
        verdict = GaugeMetricFamily(
            "restore_agent_archive_verdict",
            "1 for the verdict on a settled archive.",
            labels=("batch_id", "job_id", "archive", "verdict"),
        )
        for job_id, archive in self._archives.items():
            for name in Verdict if archive.verdict else ():
                verdict.add_metric((*self._labels(job_id, archive), name), float(name == archive.verdict))
        yield verdict

    def _family(self, name: str, value: Callable[[_Archive], float | None], text: str) -> Metric:
        family = GaugeMetricFamily(f"restore_agent_archive_{name}", text, labels=("batch_id", "job_id", "archive"))
        for job_id, archive in self._archives.items():
            if (number := value(archive)) is not None:
                family.add_metric(self._labels(job_id, archive), float(number))
        return family

    def _labels(self, job_id: str, archive: _Archive) -> tuple[str, str, str]:
        return self._run.batch_id, job_id, archive.name

    def _expires_in(self, archive: _Archive) -> float | None:
        """For an archive that is still to be had: one that is settled needs no link."""
        return archive.expires_in if archive.verdict is None else None


def _seconds(text: str | None) -> float | None:
    """Seconds since the epoch from RFC 3339, or None."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None
