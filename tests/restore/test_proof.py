"""The one rule of what a file in DEST is to its restore job, as a table and as properties over all of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restore_agent.core.errors import Finding
from restore_agent.dest.archive import Digest
from restore_agent.dest.journal import Entry
from restore_agent.dest.journal.facts import Identity
from restore_agent.restore.proof import Evidence, Kind, Standing, needs_structure, standing_of, trusted_bytes

MINE, OTHER, THIRD = "1" * 40, "2" * 40, "3" * 40
SIZE = 4096
NOW, BEFORE_POWER_LOSS = "this boot", "an earlier boot"
NONE = Entry()
SENT = Entry(attempts=1, boot=NOW)
"""A job that sent a request; no more is known of its bytes."""
WHOLE = Entry(attempts=1, boot=NOW, whole=MINE, total=SIZE)
"""A job whose part file arrived completely."""
ASIDE = Entry(attempts=1, set_aside=MINE)
PROVEN = Entry(attempts=1, proven=MINE)
PLACE = Identity(inode=7, size=SIZE, changed_ns=7)
"""The file that the agent promoted, as it was then."""


def standing(kind: Kind, entry: Entry, published: Sequence[str] = (), size: int = SIZE, **known: Any) -> Standing:
    """Return the standing of a file whose SHA1 is MINE."""
    return standing_of(Evidence(kind, Digest(MINE, size, 7), published, entry, boot=NOW, **known))


def shown(value: object) -> str:
    """Return what a table row differs in, as the name of its test."""
    if isinstance(value, Entry):
        return "+".join(f"{name}={known}"[:24] for name, known in vars(value).items() if known != getattr(NONE, name))
    return str(value)[:40]


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    "entry", [NONE, SENT, WHOLE, ASIDE, PROVEN, replace(WHOLE, resumed=True, hash_before=MINE)], ids=shown
)
@pytest.mark.parametrize("finding", [None, *Finding])
def test_a_published_hash_verifies_any_file(kind: Kind, entry: Entry, finding: Finding | None) -> None:
    """Also a foreign, truncated, or quarantined one: Ops Manager says that exactly these bytes are the archive."""
    assert standing(kind, entry, [OTHER, MINE], finding=finding) is Standing.VERIFIED


@pytest.mark.parametrize(
    ("entry", "published", "expected"),
    [
        (PROVEN, (), Standing.VERIFIED),
        (PROVEN, (OTHER,), Standing.VERIFIED),  # verified by the hash that was published before
        (replace(PROVEN, proven=OTHER, promoted=PLACE), (), Standing.ALTERED),
        (replace(PROVEN, proven=OTHER, promoted=PLACE), (THIRD,), Standing.ALTERED),
        (replace(PROVEN, proven=OTHER), (), Standing.FOREIGN),  # proven, but never renamed to this name by us
        (NONE, (), Standing.FOREIGN),
        (NONE, (OTHER,), Standing.FOREIGN),
        (SENT, (), Standing.FOREIGN),
        (WHOLE, (OTHER,), Standing.FOREIGN),
        (ASIDE, (), Standing.FOREIGN),
    ],
    ids=shown,
)
def test_a_file_at_the_final_name(entry: Entry, published: Sequence[str], expected: Standing) -> None:
    assert standing(Kind.FINAL, entry, published) is expected


@pytest.mark.parametrize(
    ("entry", "published", "expected"),
    [
        (ASIDE, (), Standing.AWAITS_HASH),
        (ASIDE, (OTHER,), Standing.MISMATCH),
        (replace(ASIDE, resumed=True), (OTHER,), Standing.RESUMED_DIFFERS),
        (replace(ASIDE, hash_before=OTHER), (OTHER,), Standing.AWAITS_HASH),
        (WHOLE, (), Standing.AWAITS_HASH),  # a crash came between the rename and the fact
        (replace(ASIDE, set_aside=OTHER), (), Standing.ALTERED),
        (replace(ASIDE, set_aside=OTHER), (THIRD,), Standing.ALTERED),
        (SENT, (), Standing.FOREIGN),
        (NONE, (OTHER,), Standing.FOREIGN),
    ],
    ids=shown,
)
def test_an_unproven_file(entry: Entry, published: Sequence[str], expected: Standing) -> None:
    assert standing(Kind.UNPROVEN, entry, published) is expected


@pytest.mark.parametrize(
    ("entry", "published", "expected"),
    [
        (NONE, (), Standing.FOREIGN),
        (NONE, (OTHER,), Standing.FOREIGN),
        (SENT, (), Standing.MISMATCH),
        (WHOLE, (OTHER,), Standing.MISMATCH),
        (replace(WHOLE, resumed=True), (OTHER,), Standing.MISMATCH),
    ],
    ids=shown,
)
def test_a_quarantined_file(entry: Entry, published: Sequence[str], expected: Standing) -> None:
    assert standing(Kind.MISMATCH, entry, published) is expected


@pytest.mark.parametrize("published", [(), (OTHER,)], ids=["no hash", "another hash"])
@pytest.mark.parametrize(
    ("entry", "size", "finding"),
    [
        (SENT, SIZE, None),
        (SENT, SIZE, Finding.TRUNCATED),
        (SENT, SIZE, Finding.DAMAGED),
        (replace(SENT, total=SIZE), SIZE - 1, None),
        (replace(SENT, total=SIZE), SIZE + 1, None),
        (replace(WHOLE, whole=OTHER, total=None), SIZE, None),
    ],
    ids=shown,
)
def test_a_part_file_without_evidence_that_it_is_complete(
    entry: Entry, size: int, finding: Finding | None, published: Sequence[str]
) -> None:
    for over in (False, True):
        known = {"finding": finding, "hash_time_over": over}
        assert standing(Kind.PART, entry, published, size, **known) is Standing.INCOMPLETE


@pytest.mark.parametrize(
    ("entry", "finding"),
    [
        (WHOLE, None),
        (replace(WHOLE, total=None), None),
        (replace(SENT, total=SIZE), None),
        (SENT, Finding.WHOLE),
    ],
    ids=["a transfer that ended well", "one of unknown length", "all announced bytes", "a complete structure"],
)
def test_a_complete_part_file_awaits_its_hash_and_is_decided_by_it(entry: Entry, finding: Finding | None) -> None:
    assert standing(Kind.PART, entry, finding=finding) is Standing.AWAITS_HASH
    assert standing(Kind.PART, entry, [OTHER], finding=finding) is Standing.MISMATCH
    assert standing(Kind.PART, replace(entry, resumed=True), [OTHER], finding=finding) is Standing.RESUMED_DIFFERS
    assert standing(Kind.PART, entry, [MINE], finding=finding) is Standing.VERIFIED


BEFORE = replace(WHOLE, hash_before=OTHER)


@pytest.mark.parametrize(
    ("entry", "published", "finding", "over", "expected"),
    [
        # a hash from before the download verifies, but a difference counts only once the time is over
        (BEFORE, (OTHER,), None, False, Standing.AWAITS_HASH),
        (BEFORE, (OTHER,), Finding.WHOLE, True, Standing.MISMATCH),
        (BEFORE, (OTHER, THIRD), None, False, Standing.MISMATCH),
        (replace(WHOLE, hash_before=f"{OTHER} {THIRD}"), (OTHER, THIRD), None, False, Standing.AWAITS_HASH),
        (BEFORE, (), None, False, Standing.AWAITS_HASH),
        # without any hash the structure is the evidence, and only once the time is over
        (WHOLE, (), Finding.WHOLE, True, Standing.AWAITS_HASH),
        (WHOLE, (), Finding.DAMAGED, False, Standing.AWAITS_HASH),
        (WHOLE, (), Finding.DAMAGED, True, Standing.MISMATCH),
        (replace(WHOLE, resumed=True), (), Finding.DAMAGED, True, Standing.RESUMED_DIFFERS),
        # a truncated archive is a transfer that ended early, unless its framing was complete and a hash may follow
        (WHOLE, (), Finding.TRUNCATED, False, Standing.AWAITS_HASH),
        (WHOLE, (), Finding.TRUNCATED, True, Standing.INCOMPLETE),
        (WHOLE, (OTHER,), Finding.TRUNCATED, False, Standing.INCOMPLETE),
        (replace(WHOLE, delimited=False), (), Finding.TRUNCATED, False, Standing.INCOMPLETE),
        (replace(WHOLE, delimited=False), (), None, False, Standing.AWAITS_HASH),
        (replace(WHOLE, delimited=False), (), Finding.WHOLE, True, Standing.AWAITS_HASH),
        # more was announced than arrived
        (replace(SENT, total=SIZE + 1), (), Finding.WHOLE, False, Standing.AWAITS_HASH),
        (replace(SENT, total=SIZE + 1), (), Finding.WHOLE, True, Standing.INCOMPLETE),
        (replace(SENT, total=SIZE + 1), (OTHER,), Finding.WHOLE, False, Standing.MISMATCH),
    ],
    ids=shown,
)
def test_a_complete_part_file_while_its_hash_is_awaited(
    entry: Entry, published: Sequence[str], finding: Finding | None, over: bool, expected: Standing
) -> None:
    assert standing(Kind.PART, entry, published, finding=finding, hash_time_over=over) is expected


# ---------------------------------------------------------------- properties

hashes = st.sampled_from([MINE, OTHER, THIRD])
maybe_hashes = st.none() | hashes
sizes = st.sampled_from([0, 1, SIZE - 1, SIZE, SIZE + 1])
entries = st.builds(
    Entry,
    attempts=st.integers(0, 2),
    hash_before=maybe_hashes,
    total=st.none() | sizes,
    resumed=st.booleans(),
    whole=maybe_hashes,
    delimited=st.booleans(),
    boot=st.sampled_from([NOW, BEFORE_POWER_LOSS, None]),
    synced=sizes,
    set_aside=maybe_hashes,
    proven=maybe_hashes,
)
evidence = st.builds(
    Evidence,
    kind=st.sampled_from(Kind),
    digest=st.builds(Digest, hashes, sizes, st.just(7)),
    published=st.lists(hashes, max_size=3, unique=True),
    entry=entries,
    finding=st.none() | st.sampled_from(Finding),
    hash_time_over=st.booleans(),
    boot=st.just(NOW),
)
complete_or_nearly = st.builds(
    Evidence,
    kind=st.sampled_from([Kind.PART, Kind.UNPROVEN]),
    digest=st.builds(Digest, st.just(MINE), sizes, st.just(7)),
    published=st.lists(st.sampled_from([OTHER, THIRD]), max_size=1),
    entry=entries.map(lambda entry: replace(entry, attempts=1)),
    finding=st.none() | st.sampled_from(Finding),
    hash_time_over=st.booleans(),
    boot=st.just(NOW),
)
many = hypothesis_settings(max_examples=150)


def is_published(found: Evidence) -> bool:
    return found.digest.sha1 in found.published


@many
@given(evidence)
def test_a_file_is_verified_only_if_its_hash_is_published_or_was_verified_under_the_final_name(
    found: Evidence,
) -> None:
    was_verified = found.kind is Kind.FINAL and found.digest.sha1 == found.entry.proven
    assert (standing_of(found) is Standing.VERIFIED) == (is_published(found) or was_verified)


@many
@given(evidence)
def test_a_file_without_a_journal_entry_is_used_only_if_it_matches_a_published_hash(found: Evidence) -> None:
    unknown = replace(found, entry=replace(found.entry, attempts=0, whole=None, proven=None, set_aside=None))
    assume(not is_published(unknown))
    assert standing_of(unknown) is Standing.FOREIGN


@many
@given(evidence)
def test_the_final_name_is_verified_altered_or_foreign(found: Evidence) -> None:
    seen = standing_of(replace(found, kind=Kind.FINAL))
    assert seen in (Standing.VERIFIED, Standing.ALTERED, Standing.FOREIGN)


@many
@given(evidence)
def test_a_resumed_file_is_downloaded_again_before_it_is_a_mismatch(found: Evidence) -> None:
    assume(found.kind is not Kind.MISMATCH)
    resumed = standing_of(replace(found, entry=replace(found.entry, resumed=True)))
    fresh = standing_of(replace(found, entry=replace(found.entry, resumed=False)))
    assert resumed is not Standing.MISMATCH
    assert fresh is not Standing.RESUMED_DIFFERS
    assert resumed is (Standing.RESUMED_DIFFERS if fresh is Standing.MISMATCH else fresh)


@many
@given(evidence)
def test_a_mismatch_needs_a_usable_hash_or_damage_after_the_hash_timeout(found: Evidence) -> None:
    assume(found.kind is not Kind.MISMATCH)
    if standing_of(found) in (Standing.MISMATCH, Standing.RESUMED_DIFFERS):
        newer = any(sha1 != found.entry.hash_before for sha1 in found.published)
        damaged = found.hash_time_over and found.finding is Finding.DAMAGED
        assert newer or damaged or (found.hash_time_over and found.published)
        assert found.finding is not Finding.TRUNCATED


@many
@given(complete_or_nearly)
def test_only_a_complete_file_awaits_its_hash(found: Evidence) -> None:
    if standing_of(found) is not Standing.AWAITS_HASH:
        return
    entry, sha1 = found.entry, found.digest.sha1
    assert sha1 in (entry.whole, entry.set_aside) or found.finding is Finding.WHOLE or found.digest.size == entry.total
    assert all(one == entry.hash_before for one in found.published)


@many
@given(complete_or_nearly)
def test_after_the_hash_timeout_an_unproven_file_is_complete_in_every_respect(found: Evidence) -> None:
    found = replace(found, hash_time_over=True)
    if standing_of(found) is not Standing.AWAITS_HASH:
        return
    assert found.finding in (None, Finding.WHOLE)
    assert found.entry.total in (None, found.digest.size)
    assert not found.published


@many
@given(evidence, hashes)
def test_a_further_hash_of_another_file_never_verifies(found: Evidence, more: str) -> None:
    assume(more != found.digest.sha1)
    further = replace(found, published=[*found.published, more])
    assert (standing_of(further) is Standing.VERIFIED) == (standing_of(found) is Standing.VERIFIED)


@many
@given(evidence)
def test_the_order_of_the_published_hashes_does_not_matter(found: Evidence) -> None:
    assert standing_of(replace(found, published=list(reversed(found.published)))) is standing_of(found)


@many
@given(evidence)
def test_without_a_hash_nothing_is_a_mismatch_while_one_may_still_be_published(found: Evidence) -> None:
    assume(found.kind is not Kind.MISMATCH)
    seen = standing_of(replace(found, published=(), hash_time_over=False))
    assert seen not in (Standing.MISMATCH, Standing.RESUMED_DIFFERS)


@many
@given(complete_or_nearly)
def test_bytes_that_a_power_loss_may_have_replaced_are_never_a_mismatch(found: Evidence) -> None:
    entry = replace(found.entry, whole=None, set_aside=None, boot=BEFORE_POWER_LOSS, synced=found.digest.size - 1)
    lost = replace(found, kind=Kind.PART, entry=entry)
    assert standing_of(lost) in (Standing.INCOMPLETE, Standing.AWAITS_HASH)
    assert standing_of(lost) is Standing.INCOMPLETE or lost.finding is Finding.WHOLE


# ---------------------------------------------------------------- whether the structure is read


@pytest.mark.parametrize(
    ("entry", "size", "needed"),
    [
        (SENT, SIZE, True),
        (SENT, 0, False),
        (replace(SENT, whole=MINE), SIZE, False),
        (replace(SENT, total=SIZE), SIZE, False),
        (replace(SENT, total=SIZE), SIZE + 1, False),
        (replace(SENT, total=SIZE), SIZE - 1, True),
        (replace(SENT, total=2 * SIZE), SIZE, True),
        (replace(SENT, total=2 * SIZE + 1), SIZE, False),
        (replace(SENT, total=1 << 40), SIZE, False),
        # after a power loss all announced bytes may be there, with zeros at the end
        (replace(SENT, total=SIZE, boot=BEFORE_POWER_LOSS, synced=SIZE - 1), SIZE, True),
        (replace(SENT, total=SIZE, boot=None, synced=0), SIZE, True),
        (replace(SENT, total=SIZE, boot=BEFORE_POWER_LOSS, synced=SIZE), SIZE, False),
        (replace(WHOLE, boot=BEFORE_POWER_LOSS), SIZE, False),
    ],
    ids=shown,
)
def test_the_structure_is_read_if_only_it_can_show_that_a_part_file_is_complete(
    entry: Entry, size: int, needed: bool
) -> None:
    assert needs_structure(entry, size, NOW) is needed


# ---------------------------------------------------------------- which bytes count


@pytest.mark.parametrize(
    ("entry", "trusted"),
    [
        (SENT, SIZE),
        (replace(SENT, boot=BEFORE_POWER_LOSS), 0),
        (replace(SENT, boot=BEFORE_POWER_LOSS, synced=512), 512),
        (replace(SENT, boot=BEFORE_POWER_LOSS, synced=2 * SIZE), SIZE),
        (replace(SENT, boot=None, synced=512), 512),
        (replace(WHOLE, boot=BEFORE_POWER_LOSS), SIZE),
    ],
    ids=shown,
)
def test_bytes_of_another_boot_count_as_far_as_they_were_synced(entry: Entry, trusted: int) -> None:
    assert trusted_bytes(entry, SIZE, NOW) == trusted


def test_without_a_boot_id_only_synced_bytes_count() -> None:
    assert trusted_bytes(replace(SENT, boot=None, synced=512), SIZE, None) == 512
