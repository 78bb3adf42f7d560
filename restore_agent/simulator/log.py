"""Log of requests and their outcomes, in order of arrival."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from typing import Literal

_TOKEN = re.compile(r"(/v2/pull/[^/]+/)[^/]+(?=/)|(\btoken=)[^&]+")

Kind = Literal["api", "delivery", "other"]


@dataclass
class Request:
    """One request. `time` is monotonic, in seconds; `path` is the raw target; names in `headers` are lower case.

    `auth` is the result of authentication: for the API a verdict of `digest.py`, for a delivery `token`, `bearer`, or
    `refused`. `status` is 0 until there is an answer. `bytes_sent` counts bytes of the body given to the system.
    `completed`: the whole body was sent, and it was not meant to end early.
    """

    method: str
    path: str
    headers: dict[str, str]
    kind: Kind
    job_id: str | None = None
    time: float = field(default_factory=time.monotonic)
    status: int = 0
    bytes_sent: int = 0
    completed: bool = False
    auth: str = "none"

    def line(self, since: float) -> str:
        """Return the request as one line, with its time since `since` and without the token in its path."""
        path = _TOKEN.sub(lambda found: f"{found[1] or found[2]}…", self.path)
        end = "complete" if self.completed else "incomplete"
        span = f" {self.range}" if self.range else ""
        outcome = f"{self.status} ({self.auth}), {self.bytes_sent} bytes, {end}"
        return f"{self.time - since:8.3f}s {self.method} {path}{span}: {outcome}"

    @property
    def range(self) -> str | None:
        """Range header."""
        return self.headers.get("range")


class RequestLog:
    """Requests in order of arrival. `snapshot` is a copy that later requests do not change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []

    def add(self, request: Request) -> Request:
        """Record a request that has just arrived."""
        with self._lock:
            self._requests.append(request)
        return request

    def snapshot(self) -> list[Request]:
        """Return the requests so far."""
        with self._lock:
            return list(self._requests)
