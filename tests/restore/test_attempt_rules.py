"""Where an attempt continues a part file, as a table and as properties."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restore_agent.dest.journal import Entry
from restore_agent.restore.job.attempt import resume_offset

NOW, BEFORE = "this boot", "an earlier boot"
ENTRY = Entry(attempts=1, validator='"v1"', total=4096, boot=NOW, synced=512)


@pytest.mark.parametrize(
    ("entry", "on_disk", "hashed", "offset"),
    [
        # bytes of this boot: the kernel has them, synced or not
        (ENTRY, 1000, 0, 1000),
        (ENTRY, 0, 0, 0),
        # bytes of another boot: only what was synced
        (replace(ENTRY, boot=BEFORE), 1000, 0, 512),
        (replace(ENTRY, boot=BEFORE), 100, 0, 100),
        (replace(ENTRY, boot=BEFORE, synced=0), 1000, 0, 0),
        (replace(ENTRY, boot=None), 1000, 0, 512),
        # also if this process has hashed them since
        (replace(ENTRY, boot=BEFORE), 1000, 1000, 512),
        (replace(ENTRY, boot=None, synced=0), 1000, 700, 0),
        # bytes that this process wrote count without a look at the file
        (ENTRY, 1000, 700, 700),
        # a complete, synced file
        (replace(ENTRY, boot=BEFORE, whole="1" * 40), 1000, 0, 1000),
        # no validator: the server cannot prove that it is the same archive
        (replace(ENTRY, validator=None), 1000, 1000, 0),
        (replace(ENTRY, validator=""), 1000, 0, 0),
        # all announced bytes, or more: it is complete or wrong
        (ENTRY, 4095, 0, 4095),
        (ENTRY, 4096, 0, 0),
        (ENTRY, 5000, 0, 0),
        (ENTRY, 5000, 4096, 0),
        (replace(ENTRY, boot=BEFORE), 5000, 0, 512),
        # unknown length
        (replace(ENTRY, total=None), 1 << 40, 0, 1 << 40),
        (Entry(), 1000, 0, 0),
    ],
    ids=lambda value: "entry" if isinstance(value, Entry) else str(value),
)
def test_where_an_attempt_continues(entry: Entry, on_disk: int, hashed: int, offset: int) -> None:
    assert resume_offset(entry, on_disk, hashed, NOW) == offset


def test_on_a_host_without_a_boot_id_only_synced_bytes_count() -> None:
    assert resume_offset(replace(ENTRY, boot=None), 1000, 0, None) == 512
    assert resume_offset(ENTRY, 1000, 0, None) == 512


sizes = st.integers(0, 10_000)
entries = st.builds(
    Entry,
    validator=st.sampled_from([None, '"v1"']),
    total=st.none() | sizes,
    boot=st.sampled_from([None, NOW, BEFORE]),
    synced=sizes,
)
many = hypothesis_settings(max_examples=300, deadline=None)


@many
@given(entries, sizes, sizes)
def test_an_attempt_continues_only_after_bytes_that_are_on_disk_and_trusted(
    entry: Entry, on_disk: int, hashed: int
) -> None:
    assume(hashed <= on_disk)
    offset = resume_offset(entry, on_disk, hashed, NOW)
    assert 0 <= offset <= on_disk
    assert not offset or entry.validator
    assert not offset or entry.total is None or offset < entry.total
    if entry.boot != NOW:
        assert offset <= entry.synced


@many
@given(entries, sizes)
def test_bytes_of_this_boot_are_all_continued_or_not_at_all(entry: Entry, hashed: int) -> None:
    assert resume_offset(replace(entry, boot=NOW), hashed, hashed, NOW) in (0, hashed)
