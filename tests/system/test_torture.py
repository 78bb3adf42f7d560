"""The torture itself: what it draws, how it judges, and a few of its rounds; `scripts/torture` plays hundreds."""

from __future__ import annotations

import dataclasses

import pytest
from torture import draw, oracle, rounds
from torture.oracle import GetStory, JobStory

from restore_agent.simulator import Faults

WHOLE = GetStory(whole=True, sound=True, disturbed=False)
CUT = GetStory(whole=False, sound=False, disturbed=False)
STORY = JobStory(
    faults=Faults(),
    published=True,
    last_status="READY",
    ever_ready=True,
    max_downloads=1,
    gets=(WHOLE,),
    tries=1,
    retries=5,
    disturbances=0,
    starved=False,
    allow_unproven=False,
)


def story(*faults: str, **changes: object) -> JobStory:
    return dataclasses.replace(STORY, faults=Faults.parse(faults), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "right"),
    [
        (story(), {0}),
        (story("hash=never", published=False), {10}),
        (story("hash=never", published=False, allow_unproven=True), {0}),
        (story("hash=wrong"), {11}),
        (story("hash=other-name", published=False), {10}),
        (story("hash=other-name", "hash-entries=2"), {11}),
        (story("cut=50%", gets=(CUT,), last_status="MAX_DOWNLOADS_EXCEEDED", published=False), {0, 23}),
        (story("cut=50%", "max-downloads=2", max_downloads=2, gets=(CUT, WHOLE)), {0}),
        (story("expires-in=1", gets=(CUT,), last_status="EXPIRED", published=False), {0, 22}),
        (story("never-ready", gets=(), ever_ready=False, last_status="IN_PROGRESS", published=False), {0, 20}),
        (story("automated", gets=()), {0}),
        (story("redirect-loop", gets=(CUT,), published=False), {0, 25}),
    ],
)
def test_the_oracle_allows_only_the_correct_exit_codes(told: JobStory, right: set[int]) -> None:
    assert oracle.allowed_codes(told) == right


def test_the_same_seed_draws_the_same_round() -> None:
    assert [draw.draw(seed) for seed in range(50)] == [draw.draw(seed) for seed in range(50)]


def test_every_drawn_behavior_can_be_simulated() -> None:
    for seed in range(500):
        Faults.parse(draw.draw(seed).faults)


def test_half_of_the_rounds_use_tls_and_every_fate_is_drawn() -> None:
    drawn = [draw.draw(seed) for seed in range(300)]
    assert sum(each.tls for each in drawn) == 150
    assert {each.fate.kind for each in drawn} == {
        "through",
        "pieces",
        "sigterm",
        "sigint",
        "sighup",
        "kill",
        "full-disk",
        "second-agent",
    }


@pytest.mark.parametrize("seed", (2, 4, 7, 11))
def test_a_round_violates_no_invariant(seed: int) -> None:
    outcome = rounds.play(seed)
    assert not outcome.violations, f"{outcome.drawn}\n{outcome.violations}\n{outcome.evidence}"
