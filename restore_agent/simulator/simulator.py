"""The simulator as a whole: a manager, its archives on disk, its origins; started and stopped as a context."""

from __future__ import annotations

import json
import signal
import ssl
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from .api.api import Api
from .api.documents import Document, job_document
from .archives import Archive, Recipe, make_archive
from .clock import Clock
from .faults.faults import Faults
from .log import Request, RequestLog
from .model import Job, Manager
from .server.certificates import Authority, Certificate
from .server.server import Listener

DEFAULT_SEED = "restore-agent"


class Simulator:
    """A simulated Ops Manager on real sockets. Ids and archives follow from seed, shards and size; secrets do not.

    `shards`: shards of the cluster, each with a job, plus one for the config server; 0 is a replica set, whose job has
    no batch. `archive_size`: bytes of each archive as sent, about. `faults`: `NAME[=VALUE][@JOB]`, see `describe()`.
    ValueError for faults that are not known and numbers out of range, OSError when the port cannot be had.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: bool = False,
        shards: int = 2,
        archive_size: int = 1 << 20,
        faults: Iterable[str] = (),
        seed: str = DEFAULT_SEED,
    ) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is not between 0 and 65535")
        if shards < 0 or archive_size < 0:
            raise ValueError("shards and archive size must not be negative")
        self._host, self._port = host, port
        self.manager = Manager(shards=shards, archive_size=archive_size, faults=Faults.parse(faults), seed=seed)
        self._api = Api(self.manager)
        self._log = RequestLog()
        self._listeners: list[Listener] = []
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._archives: dict[Recipe, Archive] = {}
        self._authority = Authority() if tls else None

    def __enter__(self) -> Simulator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make the archives, open the ports, serve."""
        self._directory = tempfile.TemporaryDirectory(prefix="restore-agent-simulator-")
        try:
            self.manager.archive_source = self._archive
            for job in self.manager.jobs:
                job.archive()
            context = self._tls_context(self._authority) if self._authority else None
            self._listen(self._port, context)
            self._listen(0, context)
        except BaseException:
            self.stop()
            raise
        self.manager.origin, self.manager.second_origin = (listener.origin for listener in self._listeners)

    def _listen(self, port: int, context: ssl.SSLContext | None) -> None:
        listener = Listener(self._host, port, context, self.manager, self._api, self._log)
        self._listeners.append(listener)
        listener.start()

    def stop(self) -> None:
        """Close every connection, end the threads, remove the temporary files. May be called again."""
        for listener in self._listeners:
            listener.stop()
        self._listeners.clear()
        self._archives.clear()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    @property
    def directory(self) -> Path:
        """Where the temporary files are, while it runs."""
        if self._directory is None:
            raise RuntimeError("the simulator is not running")
        return Path(self._directory.name)

    @property
    def hello(self) -> dict[str, Any]:
        """What a client needs to know: addresses, ids, credentials, and the CA's file (None without TLS)."""
        manager = self.manager
        first = [job for job in manager.jobs if job.batch_id == manager.jobs[0].batch_id]
        return {
            "url": manager.origin,
            "group_id": manager.group_id,
            "cluster_id": manager.cluster_id,
            "batch_id": manager.jobs[0].batch_id,
            "job_ids": [job.id for job in first],
            "public_key": manager.public_key,
            "private_key": manager.private_key,
            "ca_file": str(self.directory / "ca.pem") if self._authority else None,
        }

    @property
    def requests(self) -> list[Request]:
        """The requests so far, in order of arrival."""
        return self._log.snapshot()

    def dump(self) -> str:
        """Jobs and requests as text for people, without secrets: what to print when a test fails."""
        requests = self.requests
        since = requests[0].time if requests else 0.0
        with self.lock:
            jobs = [
                f"job {job.index} {job.id}: {job.status}, {job.delivery_status}, "
                f"{job.downloads}/{job.max_downloads} downloads, {job.completed} whole"
                for job in self.jobs
            ]
        return "\n".join([*jobs, *(request.line(since) for request in requests)])

    @property
    def jobs(self) -> list[Job]:
        """The live jobs, in order of creation; change them under `lock`."""
        return self.manager.jobs

    def job(self, index: int) -> Job:
        """One live job."""
        return self.manager.jobs[index]

    def document(self, index: int) -> Document:
        """A job's document as the API shows it now."""
        with self.manager.lock:
            return job_document(self.manager.jobs[index])

    @property
    def lock(self) -> threading.RLock:
        """Hold it to change several things at once: no request is answered meanwhile."""
        return self.manager.lock

    @property
    def clock(self) -> Clock:
        """The server's clock."""
        return self.manager.clock

    @property
    def secrets(self) -> list[str]:
        """Every secret there is: the private key, the tokens in URLs, the bearer tokens."""
        return self.manager.secrets

    def set_faults(self, *faults: str) -> None:
        """Behave differently from now on. Faults that shape jobs and archives at their creation stay as they were."""
        with self.manager.lock:
            self.manager.faults = Faults.parse(faults)

    def client_certificate(self, name: str = "agent") -> tuple[Path, Path]:
        """A certificate and a key (files, PEM) that the `client-cert` fault asks clients for."""
        if self._authority is None:
            raise RuntimeError("client certificates need tls=True")
        return self._write_pair("client", self._authority.client(name))

    def _write_pair(self, stem: str, pair: Certificate) -> tuple[Path, Path]:
        certificate, key = self.directory / f"{stem}.pem", self.directory / f"{stem}.key"
        certificate.write_text(pair.certificate)
        key.touch(mode=0o600)
        key.write_text(pair.key)
        return certificate, key

    def _tls_context(self, authority: Authority) -> ssl.SSLContext:
        faults = self.manager.faults
        ca_file = self.directory / "ca.pem"
        ca_file.write_text(authority.certificate)
        hosts = ["elsewhere.example"] if faults.wrong_host else ["localhost", "127.0.0.1", "::1", self._host]
        pair = authority.server(list(dict.fromkeys(hosts)), expired=faults.expired_cert)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._write_pair("server", pair))
        if faults.client_cert:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(ca_file)
        return context

    def _archive(self, job: Job, variant: int) -> Archive:
        recipe = job.recipe(variant)
        if recipe not in self._archives:
            self._archives[recipe] = make_archive(self.directory / f"archive-{len(self._archives)}", recipe)
        return self._archives[recipe]


def serve(host: str, port: int, tls: bool, shards: int, archive_size: int, faults: Iterable[str]) -> int:
    """Serve until SIGTERM or SIGINT, having printed one line of JSON (see `Simulator.hello`); the exit code, 0.

    To be called in the main thread, since it handles signals. ValueError and OSError as `Simulator` raises them.
    """
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with Simulator(
            host=host, port=port, tls=tls, shards=shards, archive_size=archive_size, faults=faults
        ) as simulator:
            print(json.dumps(simulator.hello), flush=True)
            threading.Event().wait()
    except _Stopped:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


class _Stopped(BaseException):
    """A signal asked for the end, maybe while large archives were still being made."""


def _stop(*_: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the cleaning up
    raise _Stopped
