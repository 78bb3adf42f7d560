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
from ..core.exit_codes import SIGNAL_CODES
from ..core.receipt import ArchiveRecord, Receipt, Verdict
from ..core.redaction import Redactor
from .files import replace_file

_EVERY = 5.0  # seconds between two files while bytes flow

_RUN_STATES = ("waiting", "downloading", "verifying", "unpacking", "finished", "interrupted")

_RUN_STATE_OF = {"downloading": "downloading", "hashing": "verifying", "waiting": "waiting", "unpacking": "unpacking"}

"""State of the run, by the first of these states that an archive is in."""


@dataclass(frozen=True)
class _Archive:
    """Metrics of one archive; None is left out."""

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
    """Metrics of the run."""

    batch_id: str
    state: str
    started: float
    exit_code: int | None = None
    finished: float | None = None
    changed: bool | None = None


class MetricsFile:
    """Reporter that replaces one file. If that fails, it warns once, and the run continues."""

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
        """Update the metrics from an event; write at most every few seconds, and at the end."""
        match event:
            case RunStarted():
                self._write_in_background()
            case JobSeen():
                archive = self._archives.get(event.job_id, _Archive(event.file_name or ""))
                self._archives[event.job_id] = replace(archive, expires=_seconds(event.expires_at))
            case Progress():
                self._take(event.archives)
            case ArchiveFinished():
                self._finish_archive(event.record)
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
            self._run, state=next((run for state, run in _RUN_STATE_OF.items() if state in states), "verifying")
        )
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _EVERY
            self._write_in_background()

    def _finish_archive(self, record: ArchiveRecord) -> None:
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
            self._finish_archive(record)
        self._run = replace(
            self._run,
            batch_id=receipt.batch_id or self._run.batch_id,
            state="interrupted" if receipt.exit_code in SIGNAL_CODES else "finished",
            exit_code=receipt.exit_code,
            finished=self._wall(),
            changed=receipt.changed,
        )
        self.close()
        self._write(self._text())

    def _write_in_background(self) -> None:
        """Write in a separate thread, because a slow disk must not delay the batch."""
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
        registry.register(_Snapshot(self._run, dict(self._archives), self._wall()))
        return self._redactor.clean(generate_latest(registry).decode()).encode()


class _Snapshot(Collector):
    """Metric families of one moment."""

    def __init__(self, run: _Run, archives: dict[str, _Archive], now: float) -> None:
        self._run, self._archives, self._now = run, archives, now

    def collect(self) -> Iterator[Metric]:
        """Yield each family with its samples."""
        yield InfoMetricFamily("restore_agent", "Version of the writer of this file.", {"version": __version__})
        yield from self._of_the_run()
        yield from self._of_the_archives()

    def _of_the_run(self) -> Iterator[Metric]:
        run = self._run
        state = GaugeMetricFamily(
            "restore_agent_run_state", "1 for the current state of the run.", labels=("batch_id", "state")
        )
        for name in _RUN_STATES:
            state.add_metric((run.batch_id, name), float(name == run.state))
        yield state
        for name, value, text in (
            ("started_timestamp_seconds", run.started, "Start of the run."),
            ("updated_timestamp_seconds", self._now, "Time of the last update of this file."),
            ("finished_timestamp_seconds", run.finished, "End of the run; missing until then."),
            ("exit_code", run.exit_code, "Exit code of the run; missing until it ends."),
            ("changed", run.changed, "1 if the run wrote an archive; missing until it ends."),
        ):
            if value is not None:
                family = GaugeMetricFamily(f"restore_agent_run_{name}", text, labels=("batch_id",))
                family.add_metric((run.batch_id,), float(value))
                yield family

    def _of_the_archives(self) -> Iterator[Metric]:
        values: tuple[tuple[str, Callable[[_Archive], float | None], str], ...] = (
            ("bytes", lambda one: one.bytes, "Bytes on disk."),
            (
                "total_bytes",
                lambda one: one.total_bytes,
                "Bytes of the complete archive, if announced.",
            ),
            (
                "bytes_per_second",
                lambda one: one.rate,
                "Current rate; average once the archive is finished.",
            ),
            ("downloads_spent", lambda one: one.spent, "Downloads that Ops Manager may have counted, over all runs."),
            (
                "expires_timestamp_seconds",
                lambda one: one.expires,
                "Expiry of the delivery by the server clock.",
            ),
            (
                "expires_in_seconds",
                self._expires_in,
                "Seconds to expiry by the server clock; negative after it.",
            ),
        )
        for name, value, text in values:
            yield self._family(name, value, text)
        verdict = GaugeMetricFamily(
            "restore_agent_archive_verdict",
            "1 for the verdict on a finished archive.",
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
        """Return the seconds to expiry, or None for a finished archive, which needs no delivery URL."""
        return archive.expires_in if archive.verdict is None else None


def _seconds(text: str | None) -> float | None:
    """Return seconds since the epoch from RFC 3339, or None."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None
