"""The simulator: a manager, its archives on disk, and its listeners, started and stopped as a context."""

from __future__ import annotations

import ssl
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from .api.answers import Document
from .api.api import Api
from .api.documents import job_document
from .archives import ArchiveStore
from .clock import Clock
from .faults.faults import Faults
from .log import Request, RequestLog
from .model import Job, Manager
from .server.certificates import Authority
from .server.handler import Service
from .server.server import Listener
from .server.tls import TlsFiles

DEFAULT_SEED = "restore-agent"


class Simulator:
    """Simulated Ops Manager on real sockets. IDs and archives depend only on seed, shards, and size; secrets do not.

    `shards`: shards of the cluster, each with a job, plus one for the config server; 0 is a replica set, whose job has
    no batch. `archive_size`: approximate bytes of each archive as sent. `faults`: `NAME[=VALUE][@N]`, see `describe()`.
    `archives`: files or directories that the jobs send, in turn, instead of simulated archives; a directory is packed.
    Raises ValueError for unknown faults and numbers out of range, OSError if the port cannot be opened.
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
        archives: Iterable[str | Path] = (),
    ) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is not between 0 and 65535")
        if shards < 0 or archive_size < 0:
            raise ValueError("shards and archive size must not be negative")
        self._host, self._port, self._tls = host, port, tls
        parsed = Faults.parse(faults, jobs=shards + 1 if shards else 1)
        sources = [Path(path) for path in archives]
        for path in sources:
            if not path.exists():
                raise ValueError(f"archive {path} does not exist")
        self.manager = Manager(shards=shards, archive_size=archive_size, faults=parsed, seed=seed, sources=sources)
        self._api = Api(self.manager)
        self._log = RequestLog()
        self._listeners: list[Listener] = []
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._tls_files: TlsFiles | None = None

    def __enter__(self) -> Simulator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make the archives, open the ports, and serve."""
        self._directory = tempfile.TemporaryDirectory(prefix="restore-agent-simulator-")
        try:
            self.manager.archives = ArchiveStore(self.directory)
            for job in self.manager.jobs:
                job.archive()
            context = self._tls_context()
            self._listen(self._port, context)
            self._listen(0, context)
        except BaseException:
            self.stop()
            raise
        self.manager.origin, self.manager.second_origin = (listener.origin for listener in self._listeners)

    def _tls_context(self) -> ssl.SSLContext | None:
        if not self._tls:
            return None
        self._tls_files = TlsFiles(Authority(), self.directory)
        return self._tls_files.server_context(self._host, self.manager.faults)

    def _listen(self, port: int, context: ssl.SSLContext | None) -> None:
        listener = Listener(self._host, port, context, Service(self.manager, self._api, self._log))
        self._listeners.append(listener)
        listener.start()

    def stop(self) -> None:
        """Close every connection, end the threads, and remove the temporary files. May be called again."""
        for listener in self._listeners:
            listener.stop()
        self._listeners.clear()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    @property
    def directory(self) -> Path:
        """Directory of the temporary files. Raises RuntimeError if the simulator is not running."""
        if self._directory is None:
            raise RuntimeError("the simulator is not running")
        return Path(self._directory.name)

    @property
    def hello(self) -> dict[str, Any]:
        """Facts that a client needs: address, IDs, credentials, and the CA file (None without TLS)."""
        manager = self.manager
        first = [job for job in manager.jobs if job.batch_id == manager.jobs[0].batch_id]
        return {
            "url": manager.origin,
            "group_id": manager.deployment.group_id,
            "cluster_id": manager.deployment.cluster_id,
            "batch_id": manager.jobs[0].batch_id,
            "job_ids": [job.id for job in first],
            "public_key": manager.keys.public_key,
            "private_key": manager.keys.private_key,
            "ca_file": str(self._tls_files.ca_file) if self._tls_files else None,
        }

    @property
    def requests(self) -> list[Request]:
        """Requests so far, in order of arrival."""
        return self._log.snapshot()

    def dump(self) -> str:
        """Return jobs and requests as text without secrets, for the output of a failed test."""
        requests = self.requests
        since = requests[0].time if requests else 0.0
        with self.lock:
            jobs = [
                f"job {job.index} {job.id}: {job.status}, {job.delivery_status}, "
                f"{job.downloads}/{job.max_downloads} downloads, {job.completed} complete"
                for job in self.jobs
            ]
        return "\n".join([*jobs, *(request.line(since) for request in requests)])

    @property
    def jobs(self) -> list[Job]:
        """Live jobs, in order of creation; hold `lock` to change them."""
        return self.manager.jobs

    def job(self, index: int) -> Job:
        """Return one live job."""
        return self.manager.jobs[index]

    def document(self, index: int) -> Document:
        """Return the document of a job as the API shows it now."""
        with self.manager.lock:
            return job_document(self.manager.jobs[index])

    @property
    def lock(self) -> threading.RLock:
        """Lock for changing several things in one step; no request is answered while it is held."""
        return self.manager.lock

    @property
    def clock(self) -> Clock:
        """Clock of the server."""
        return self.manager.clock

    @property
    def secrets(self) -> list[str]:
        """All secrets: the private key, the tokens in URLs, and the bearer tokens."""
        return self.manager.secrets

    def set_faults(self, *faults: str) -> None:
        """Replace the faults. Faults that affect the creation of jobs and archives do not change existing ones."""
        with self.manager.lock:
            self.manager.faults = Faults.parse(faults, jobs=len(self.manager.deployment.members))

    def client_certificate(self, name: str = "agent") -> tuple[Path, Path]:
        """Return the files (PEM) of a certificate and key that the `client-cert` fault requires of clients."""
        if self._tls_files is None:
            raise RuntimeError("client certificates need tls=True")
        return self._tls_files.client_pair(name)
