"""What every restore job of a run shares."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from .delivery import Deliveries
from .events import Reporter
from .files import Directory
from .journal import Journal
from .opsmanager import OpsManager
from .pacing import Clock, RateLimit, ServerClock
from .room import Room
from .settings import Pace
from .watch import Watch

_READ_AT_ONCE = 4  # files that are hashed or checked at the same time, each with a block of its own


@dataclass
class Surroundings:
    """Made once per run by the agent, and handed to each job. `reading` bounds the memory of proofs."""

    directory: Directory
    room: Room
    journal: Journal
    api: OpsManager
    watch: Watch
    deliveries: Deliveries
    pace: Pace
    limit: RateLimit
    clock: Clock
    server_clock: ServerClock
    reporter: Reporter
    hash_time_over: asyncio.Event = field(default_factory=asyncio.Event)
    reading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_READ_AT_ONCE))
