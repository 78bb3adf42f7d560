"""The request log: what arrived, in order, and what came of it; tests prove order and absence with it."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from typing import Literal

_TOKEN = re.compile(r"(/v2/pull/[^/]+/)[^/]+")

Kind = Literal["api", "delivery", "other"]


@dataclass
class Request:
    """One request. `time` is monotonic, in seconds; `path` is the raw target; names in `headers` are lower case.

    `auth` says what the request proved: for the API a verdict of `digest.py`, for a delivery `token`, `bearer` or
    `refused`. `status` is 0 while nothing was answered; `bytes_sent` counts the body's bytes given to the system;
    `completed`: all of a body that was not meant to end early.
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
        """The request in one line for people, its time counted from `since`; tokens in paths are left out."""
        path = _TOKEN.sub(r"\1…", self.path)
        end = "whole" if self.completed else "not whole"
        span = f" {self.range}" if self.range else ""
        outcome = f"{self.status} ({self.auth}), {self.bytes_sent} bytes, {end}"
        return f"{self.time - since:8.3f}s {self.method} {path}{span}: {outcome}"

    @property
    def range(self) -> str | None:
        """The Range header."""
        return self.headers.get("range")


class RequestLog:
    """Requests in order of arrival. `snapshot` is a copy that later requests do not change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []

    def add(self, request: Request) -> Request:
        """Take down a request that has just arrived."""
        with self._lock:
            self._requests.append(request)
        return request

    def snapshot(self) -> list[Request]:
        """The requests so far."""
        with self._lock:
            return list(self._requests)
