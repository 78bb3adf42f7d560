"""What an archive may end with: a pure function of the drawn behaviour and of what the simulator's log says happened.

An end is right for one of two reasons. Either the log shows it (EXPIRED was the last word, so 22), or the behaviour
leaves no other: where a patient agent must have won, nothing but the win is right. Codes are the contract's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from restore_agent.simulator import Faults

MATCHES, DIFFERS, MISSING = "matches", "differs", "missing"
_RIGHT_HASHES = ("ready", "late", "early", "early-wrong", "upper")
_TRAPS_OF_TIME = ("expired", "expires_in", "expires_cut", "broken", "killed", "delivery_failed", "interrupted")
_NOT_READY = ("never_ready", "unknown_status", "ready_without_url")
DISHONEST_RANGES = ("wrong-offset", "wrong-total", "wrong-bytes", "416")

API_REFUSALS: dict[str, frozenset[int]] = {
    "unauthorized": frozenset({30}),
    "unauthorized=empty": frozenset({30}),
    "forbidden": frozenset({30}),
    "not-in-group": frozenset({30}),
    "api-429=always": frozenset({32}),
    "api-500=always": frozenset({32}),
    "api-503=always": frozenset({32}),
    "api-reset=always": frozenset({32}),
    "api-redirect": frozenset({32}),
    "not-json": frozenset({32}),
    "json-array": frozenset({32}),
    "null-results": frozenset({24, 32, 0}),  # a list of nothing is 24 or no list at all, 32; one job has no list: 0
    "endless-header": frozenset({32}),
    "endless-pages": frozenset({32, 0}),  # runs for single jobs read no list
    "no-batch": frozenset({24}),
    "wrong-count=1": frozenset({20, 24, 32, 0}),
    "wrong-host": frozenset({31}),
    "expired-cert": frozenset({31}),
}
"""A server's behaviour that ends every run alike, and the codes it may end with."""


@dataclass(frozen=True)
class GetStory:
    """One GET as the log has it. `whole`: every byte of an archive went out, and they were its own (`sound`)."""

    whole: bool
    sound: bool
    disturbed: bool
    resumed: bool = False


@dataclass(frozen=True)
class JobStory:
    """What happened to one job until a run ended by itself.

    `tries` counts the GETs of that run (redirects are part of their GET), `disturbances` every kill, signal and full
    disk of the round so far. `starved`: the disk was too small in this run.
    """

    faults: Faults
    published: bool
    last_status: str
    ever_ready: bool
    max_downloads: int
    gets: tuple[GetStory, ...]
    tries: int
    retries: int
    disturbances: int
    starved: bool
    allow_unproven: bool

    @property
    def hash_kind(self) -> str:
        """Whether the published hash, if any comes, matches a whole body of this server."""
        if self.faults.digest_none or self.faults.hash.kind == "never":
            return MISSING
        if self.faults.hash.kind in ("other-name", "null"):
            return MISSING if self.faults.hash_entries == 1 else DIFFERS  # the other entries have this name
        return MATCHES if self.faults.hash.kind in _RIGHT_HASHES else DIFFERS


def allowed_codes(story: JobStory) -> frozenset[int]:
    """The exit codes that the archive may have in the receipt; whether a 0 is true is checked against its bytes."""
    faults = story.faults
    if not is_delivered(faults):
        return frozenset({0})
    whole = [get for get in story.gets if get.whole and get.sound and not get.disturbed]
    if whole or must_win(story):
        # a hash that differs may be from before the download, and then it says no more than none
        undecided = not story.published or story.hash_kind == DIFFERS
        refused = {22, 23, 25} if faults.wrong_length and undecided else set()
        if whole and all(get.resumed for get in whole) and story.hash_kind == DIFFERS:
            refused |= {25, *_codes_of_the_last_word(story)}  # to be downloaded from the start before it is a mismatch
        return _codes_of_a_whole_body(story) | refused | ({40} if story.starved else set())
    codes = {0, *_codes_of_a_whole_body(story)} if _may_be_whole(story) else {0}
    codes |= _codes_of_the_last_word(story)
    if is_bent(faults):
        codes.add(11)  # damage shows before the end of a body, too
    if story.tries > story.retries or _link_is_unusable(faults):
        codes.add(25)
    if story.starved:
        codes.add(40)
    return frozenset(codes)


def is_delivered(faults: Faults) -> bool:
    """Whether the agent gets a delivery over HTTP at all; of another one it touches nothing in DEST."""
    return not faults.automated and faults.method == "HTTP"


def must_win(story: JobStory) -> bool:
    """Whether the behaviour leaves a way that a patient agent cannot miss, even when all its luck is bad.

    Counted pessimistically: each disturbance spoils an attempt, and each resume that a lying server spoils costs one.
    """
    faults = story.faults
    trapped = any(getattr(faults, name) not in (None, False) for name in _TRAPS_OF_TIME)
    hidden = faults.never_ready or math.isinf(faults.unknown_status) or math.isinf(faults.ready_without_url)
    if trapped or hidden or is_bent(faults) or story.starved or _link_is_unusable(faults):
        return False
    needed = spoilt_attempts(faults) + story.disturbances + 1
    if math.isinf(needed) or needed > story.retries + 1:
        return False
    # where only whole answers count, a lying answer to a Range request is still a whole one
    counted = story.disturbances + _lies(faults) + 1 if faults.count == "end" else needed
    return counted <= story.max_downloads


def spoilt_attempts(faults: Faults) -> float:
    """How many attempts the server spoils at most before one goes well."""
    cuts = sum(step.times for step in faults.attempts)
    return cuts + _lies(faults) + max(faults.html_body, faults.json_body, faults.empty_body)


def _lies(faults: Faults) -> float:
    """How many resumes a lying server can spoil: one after each cut, since it is not believed twice in a row."""
    cuts = sum(step.times for step in faults.attempts if step.kind != "refuse")
    return cuts if faults.range in DISHONEST_RANGES else 0


def _may_be_whole(story: JobStory) -> bool:
    """Whether a whole body may have come: one that the log shows, or one that a server ended without owning to it."""
    return any(get.whole for get in story.gets) or _ends_at_the_end(story.faults)


def comes_and_goes(faults: Iterable[str]) -> bool:
    """Whether jobs may be unknown for a while, so that a run may end with 24."""
    return any(fault.startswith(("appears-after", "job-unlisted", "job-404", "short-list")) for fault in faults)


def is_bent(faults: Faults) -> bool:
    """Whether bodies may differ from the archive, or the archive is damaged itself."""
    return bool(faults.damaged or faults.damaged_gzip or faults.damaged_inside or faults.trailing_garbage)


def _ends_at_the_end(faults: Faults) -> bool:
    """Whether an attempt "ends early" so late that all of the archive may have come."""
    return any(step.kind != "refuse" and step.at.of(1000) >= 980 for step in faults.attempts)


def _codes_of_a_whole_body(story: JobStory) -> frozenset[int]:
    faults = story.faults
    damaged = is_bent(faults)
    unproven = 0 if story.allow_unproven else 10
    # an attempt that "ends early" after its last byte is whole here, but the server never publishes a hash for it
    unowned = {unproven} if not story.published else set()
    if story.hash_kind == DIFFERS:
        return frozenset({11, *unowned})
    if story.hash_kind == MATCHES:
        # a wrong hash that no whole download puts right, or that replaces the right one of a download before a kill,
        # is a mismatch
        never_right = faults.hash.kind == "early-wrong" and (_ends_at_the_end(faults) or bool(story.disturbances))
        bent = faults.damaged or faults.trailing_garbage or never_right
        return frozenset({0, *unowned, *({11} if bent or (damaged and unowned) else ())})
    return frozenset({11, unproven} if damaged else {unproven})


def _codes_of_the_last_word(story: JobStory) -> set[int]:
    """What Ops Manager's own last word makes right."""
    faults = story.faults
    codes = {"EXPIRED": {22}, "MAX_DOWNLOADS_EXCEEDED": {23}, "FAILED": {21}, "INTERRUPTED": {21}}
    found = set(codes.get(story.last_status, set()))
    if faults.broken is not None or faults.killed is not None:
        found.add(21)
    if not story.ever_ready and any(getattr(faults, name) for name in _NOT_READY):
        found.add(20)
    return found


def _link_is_unusable(faults: Faults) -> bool:
    """Whether the link can be at fault whatever the body: it loops, leads too far, or is renewed under the agent."""
    renewed = faults.renew_url is not None or faults.renew_token == "revoke"
    return faults.redirect_loop or faults.redirect > 5 or renewed or faults.wrong_length is not None
