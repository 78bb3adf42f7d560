"""Settings of one run as parsed values: connection, restore jobs, limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .redaction import Secret


@dataclass(frozen=True)
class Connection:
    """How Ops Manager is reached. `url` has neither trailing slash nor API path."""

    url: str
    public_key: str
    private_key: Secret
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None


@dataclass(frozen=True)
class Target:
    """Which restore jobs, by batch or by id; exactly one of `batch_id` and `job_ids` is set."""

    group_id: str
    cluster_id: str | None = None
    host_id: str | None = None
    batch_id: str | None = None
    job_ids: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    expect_jobs: int | None = None


@dataclass(frozen=True)
class RunLimits:
    """Timeouts in seconds, attempts, width and rate (bytes per second)."""

    wait_timeout: float = 6 * 3600.0
    hash_timeout: float = 15 * 60.0
    poll_interval: float = 5.0
    stall_timeout: float = 60.0
    retries: int = 5
    parallel: int = 4
    limit_rate: int | None = None
    allow_unproven: bool = False


API_PATH = "/api/public/v1.0"
