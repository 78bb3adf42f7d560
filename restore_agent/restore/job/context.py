"""Services and state that all restore jobs of a run share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ...core.clock import Clock, ServerClock
from ...core.events import Reporter
from ...core.settings import RunLimits
from ...dest.directory import Directory
from ...dest.journal import Journal
from ...dest.space import DiskSpace
from ...network.delivery import DeliveryClient
from ...network.opsmanager import OpsManager
from ..poller import JobPoller
from ..transfer.rate import RateLimit
from ..unpacking.data_place import DataPlace

_READ_AT_ONCE = 4  # files that are hashed or checked at the same time, each with a block of its own


@dataclass
class RunContext:
    """Made once per run, and passed to each job. `file_readers` bounds the memory of hashing."""

    directory: Directory
    space: DiskSpace
    journal: Journal
    api: OpsManager
    poller: JobPoller
    deliveries: DeliveryClient
    limits: RunLimits
    limit: RateLimit
    clock: Clock
    server_clock: ServerClock
    reporter: Reporter
    data_place: DataPlace | None = None
    hash_time_over: asyncio.Event = field(default_factory=asyncio.Event)
    file_readers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_READ_AT_ONCE))
