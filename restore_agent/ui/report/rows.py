"""Cells of a row, a host, and the heading, as text that both pages use."""

from __future__ import annotations

from collections.abc import Iterator

from ..wording import size_text, time_text
from .values import Archive, BatchReport, Host, Row, Standing
from .wording import UNKNOWN, counted, moment, rewritten

PROOF = (
    "Ops Manager publishes the SHA1 of an archive after it has been downloaded.",
    "restore-agent computes the SHA1 of the bytes that it writes to disk; it calls an archive verified, and gives "
    "it its final name, only if that SHA1 equals the published one.",
    "To check again, run `sha1sum -c SHA1SUMS` or `restore-agent verify` in the destination directory of a host.",
)
"""Description of the proof, in three sentences."""

MARKS = {
    Standing.MISMATCH: "✗",
    Standing.FAILED: "✗",
    Standing.UNPROVEN: "?",
    Standing.TWICE: "!",
    Standing.NOT_UNPACKED: "!",
    Standing.VERIFIED: "✓",
    Standing.ELSEWHERE: "–",
    Standing.SKIPPED: "–",
}
"""Mark of each standing, so that it is readable without color."""

WORDS = {Standing.UNPROVEN: "not verified", Standing.ELSEWHERE: "not needed", Standing.NOT_UNPACKED: "verified"}
"""Words of a standing where they are not its value."""


def standing_text(row: Row) -> str:
    """Return the verdict of a row in words."""
    return WORDS.get(row.standing, row.standing.value)


def why(row: Row) -> str | None:
    """Return what keeps the row from being verified and unpacked, in words with the reason of the receipt, or None."""
    words = {
        Standing.MISMATCH: "not the published archive",
        Standing.UNPROVEN: "complete, no published hash",
        Standing.NOT_UNPACKED: "not unpacked",
        Standing.ELSEWHERE: "verified on another host",
        Standing.SKIPPED: None if row.archive.reason else "automated restore",
        Standing.TWICE: "also verified on another host",
    }
    if row.archive.contradicts:
        return "the receipt calls it verified, but its two hashes differ"
    parts = [words.get(row.standing), row.archive.reason, f"exit code {row.code}" if row.code else None]
    return ", ".join(part for part in parts if part) or None


def size(archive: Archive) -> str:
    """Return the size for people and in bytes."""
    if archive.size is None:
        return "size unknown"
    exact = f"{archive.size:,} bytes".replace(",", "\u202f")  # a narrow no-break space
    return exact if archive.size < 1024 else f"{size_text(archive.size)} ({exact})"


def published(archive: Archive) -> str:
    """Return how the published hash compares with the one on disk."""
    if archive.published is None:
        return "no hash published"
    return "the same" if archive.equal else archive.published


def facts(row: Row) -> Iterator[tuple[str, str]]:
    """Yield (name, value) for the facts of an archive, after its name, host, verdict, and size."""
    archive = row.archive
    yield "SHA1", archive.sha1 or UNKNOWN
    yield "published", published(archive)
    yield "data path", _data_path(archive)
    yield from _kept(archive)
    yield "downloads", UNKNOWN if archive.downloads_spent is None else f"{archive.downloads_spent} spent"
    if archive.seconds:
        rate = f", {size_text(archive.rate)}/s" if archive.rate else ""
        yield "transfer", time_text(archive.seconds) + rate
    yield "snapshot", _snapshot(archive)
    yield "MongoDB", archive.mongodb_version or UNKNOWN
    yield "verified at", moment(archive.moments.verified)
    yield "job", archive.job_id
    yield "agent", archive.host.agent_version or UNKNOWN


def _kept(archive: Archive) -> Iterator[tuple[str, str]]:
    """Yield where the archive is: its directory is enough where the file has the name of the archive."""
    if archive.kept is False:
        yield "archive", "discarded after unpacking"
    elif archive.path and archive.file_name and archive.path.endswith(f"/{archive.file_name}"):
        yield "kept in", archive.path.removesuffix(archive.file_name)
    elif archive.path:
        yield "kept as", archive.path


def _data_path(archive: Archive) -> str:
    if archive.data_path is None:
        return "none" if archive.unpack_known else UNKNOWN
    parts = [counted(archive.data_files, "file")] if archive.data_files is not None else []
    parts += [size_text(archive.data_size)] if archive.data_size is not None else []
    return archive.data_path + (f" ({', '.join(parts)})" if parts else "")


def _snapshot(archive: Archive) -> str:
    if archive.snapshot_time:
        return rewritten(archive.snapshot_time)
    return f"{UNKNOWN} time, {archive.snapshot_id}" if archive.snapshot_id else UNKNOWN


def heading(report: BatchReport) -> list[tuple[str, str]]:
    """Return (name, value) for the identity of the restore; unknown ones are left out."""
    batch = report.batch
    pairs = [
        ("Batch", batch.batch_id or "single restore job"),
        ("Cluster", batch.cluster_id),
        ("Project", batch.group_id),
        ("Ops Manager", batch.ops_manager),
        ("Started", rewritten(batch.started_at)),
        ("Finished", rewritten(batch.finished_at)),
    ]
    return [(name, value) for name, value in pairs if value and value != UNKNOWN]


def host_cells(host: Host) -> tuple[str, str, str, str, str, str]:
    """Return host, version, archives, exit code, times, and receipt of one host."""
    times = f"{rewritten(host.started_at)} – {rewritten(host.finished_at)}"
    ended = f"{host.outcome or UNKNOWN} ({host.exit_code})"
    return host.label, host.agent_version or UNKNOWN, str(host.archives), ended, times, host.source
