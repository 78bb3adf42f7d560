"""Choice of a snapshot: which ones can be restored, and why the others cannot. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from ...core.clock import rfc3339_seconds
from ...core.errors import NoSnapshot, SnapshotNotRestorable
from ...core.events import SnapshotListed
from ...core.untrusted import printable
from ...network.documents import Snapshot


def newest_first(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    """Return the snapshots by their time of creation; those without one come last."""
    return sorted(snapshots, key=lambda one: one.created or 0.0, reverse=True)


def latest(snapshots: Iterable[Snapshot], before: float | None = None) -> Snapshot:
    """Return the newest snapshot that can be restored and, if `before` is given, is not later than that.

    `before` is in seconds since the epoch. Raises NoSnapshot.
    """
    ordered = newest_first(snapshots)
    early = ordered if before is None else [one for one in ordered if _is_until(one, before)]
    found = next((one for one in early if one.restorable), None)
    if found is None:
        until = "" if before is None else f" until {rfc3339_seconds(before)}"
        reason = f"of {len(early)} snapshots{until}, none can be restored" if early else f"there is none{until}"
        raise NoSnapshot(f"no snapshot to restore: {reason}")
    return found


def _is_until(snapshot: Snapshot, before: float) -> bool:
    return snapshot.created is not None and snapshot.created <= before


def require_restorable(snapshot: Snapshot, *, allow_inconsistent: bool) -> None:
    """Raise SnapshotNotRestorable for an incomplete snapshot and, unless allowed, for an inconsistent one."""
    problems = defects(snapshot)
    if not problems or (snapshot.complete and allow_inconsistent):
        return
    hint = (
        "Choose another snapshot, or add --allow-inconsistent if this one must be used." if snapshot.complete else None
    )
    raise SnapshotNotRestorable(f"snapshot {printable(snapshot.id, 60)} {' and '.join(problems)}", hint=hint)


def defects(snapshot: Snapshot) -> list[str]:
    """Return what keeps a snapshot from being restored, as parts of a sentence."""
    shards = ", ".join(printable(shard, 60) for shard in snapshot.missing_shards)
    found = {
        "is not complete": not snapshot.complete,
        "is possibly inconsistent": snapshot.possibly_inconsistent,
        f"misses {'shard' if len(snapshot.missing_shards) == 1 else 'shards'} {shards}": bool(shards),
    }
    return [text for text, applies in found.items() if applies]


def listed(snapshot: Snapshot) -> SnapshotListed:
    """Return the event of one snapshot."""
    return SnapshotListed(
        snapshot_id=snapshot.id,
        created=moment(snapshot.created),
        complete=snapshot.complete,
        possibly_inconsistent=snapshot.possibly_inconsistent,
        missing_shards=snapshot.missing_shards,
        restorable=snapshot.restorable,
        bytes=snapshot.size,
        mongodb_version=snapshot.mongodb_version,
        expires=moment(snapshot.expires),
    )


def moment(epoch: float | None) -> str | None:
    """Return a time of Ops Manager as RFC 3339, or None."""
    return None if epoch is None else rfc3339_seconds(epoch)
