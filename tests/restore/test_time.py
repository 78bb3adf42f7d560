"""Clocks that lie: deadlines are the monotonic clock's, and `expires` is the server's time."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from support.agents import Restore, StartSimulator, deliveries

from restore_agent.core.clock import SystemClock
from restore_agent.core.events import Event, Notice
from restore_agent.core.redaction import Redactor, Secret
from restore_agent.core.settings import Connection, RunLimits, RunSettings, Services, Target
from restore_agent.restore.run import Run
from restore_agent.simulator import Simulator

HOUR = 3600.0


class JumpingClock(SystemClock):
    """A host clock that is wrong by hours, another number of them each time it is asked."""

    def __init__(self) -> None:
        self._jumps = itertools.cycle([0.0, 9 * HOUR, -30 * HOUR, 24 * 365 * HOUR])

    def wall(self) -> float:
        return super().wall() + next(self._jumps)


class Kept:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event) -> None:
        self.events.append(event)


def agent_for(sim: Simulator, dest: Path, reporter: Kept, clock: SystemClock, **pace: float) -> Run:
    hello = sim.hello
    connection = Connection(hello["url"], hello["public_key"], Secret(hello["private_key"]))
    target = Target(hello["group_id"], hello["cluster_id"], job_ids=tuple(hello["job_ids"]))
    quick = RunLimits(wait_timeout=10, hash_timeout=3, poll_interval=0.05, stall_timeout=3)
    settings = RunSettings(connection, target, RunLimits(**{**vars(quick), **pace}), dest)
    return Run(settings, Services(reporter, clock, Redactor()))


@pytest.mark.parametrize("fault", ["hash=late:0.3", "no-date", "bad-date", "clock-skew=-90000", "ready-after=0.3"])
def test_a_host_clock_that_jumps_during_the_run_changes_nothing(
    simulator: StartSimulator, dest: Path, fault: str
) -> None:
    sim = simulator(fault)
    receipt = asyncio.run(agent_for(sim, dest, Kept(), JumpingClock()).run())
    assert receipt.outcome == "verified"
    assert len(deliveries(sim)) == 1


@pytest.mark.parametrize("skew", [-7 * HOUR, 7 * HOUR])
def test_the_clock_of_the_host_does_not_decide_whether_a_delivery_url_is_valid(
    simulator: StartSimulator, restore: Restore, skew: float
) -> None:
    """The server's clock is hours away from ours; READY is its word, and EXPIRED, too."""
    assert restore(simulator(f"clock-skew={skew:+.0f}", "expires-in=60")).code == 0
    expired = simulator(f"clock-skew={skew:+.0f}", "expired")
    assert restore(expired, to=Path(f"{expired.directory}/dest")).code == 22
    assert deliveries(expired) == []


def test_a_warning_with_figures_is_logged_if_the_rate_is_too_low_for_the_expiry(
    simulator: StartSimulator, dest: Path
) -> None:
    sim = simulator("expires-in=2", "drip=100000", archive_size=400_000)
    told = Kept()
    receipt = asyncio.run(agent_for(sim, dest, told, SystemClock()).run())
    warnings = [event.message for event in told.events if isinstance(event, Notice) and "expires in" in event.message]
    assert len(warnings) == 1, "once per archive"
    assert "bytes/s" in warnings[0]
    assert receipt.outcome == "verified", "a warning is no refusal: while the server sends, the agent takes"


def test_the_earliest_expiry_is_downloaded_first(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("expires-in=3600@0", "expires-in=60@1", "expires-in=600@2", shards=2)
    assert restore(sim, "--parallel=1").code == 0
    order = [request.job_id for request in deliveries(sim)]
    assert order == [sim.job(index).id for index in (1, 2, 0)]
