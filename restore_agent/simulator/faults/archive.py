"""Faults of the bytes that deliveries send."""

from __future__ import annotations

from dataclasses import dataclass

from .rows import fault, flag
from .syntax import COUNT, TIMES, choice
from .values import ALWAYS, MEMBER_KINDS


@dataclass(frozen=True, kw_only=True)
class ArchiveFaults:
    """Bodies of deliveries."""

    # Bodies that are not the archive
    html_body: float = fault(0, TIMES.optional(ALWAYS), "200 with an HTML page (N times)")
    json_body: float = fault(0, TIMES.optional(ALWAYS), "200 with a JSON document (N times)")
    empty_body: float = fault(0, TIMES.optional(ALWAYS), "200 with an empty body (N times)")
    damaged: float = fault(0, TIMES.optional(ALWAYS), "one byte in the middle differs from the hashed bytes (N times)")
    trailing_garbage: bool = flag("bytes after the archive that its hash does not include")
    different_bytes: bool = flag("each GET sends another archive; the hash is that of the last complete one")
    content_encoding_gzip: bool = flag("Content-Encoding: gzip, although the archive is not encoded")

    # The archive itself; its hash matches
    plain_tar: bool = flag(".tar instead of .tar.gz")
    gzip_members: bool = flag("a gzip of several members, one per file")
    damaged_gzip: bool = flag("archive with an invalid checksum")
    damaged_inside: str | None = fault(
        None,
        choice("header", "tar-end", "gzip-end", "no-members"),
        "archive with an invalid header, without the end of its tar, without the end of its gzip, or without members",
    )
    bomb: bool = flag("a small gzip that inflates to gigabytes")
    top: str = fault(
        "one", choice("one", "none", "several"), "top directory: one, none (files at the top), or several entries"
    )
    small_files: int = fault(0, COUNT, "N more small files")
    member: tuple[str, ...] = fault(
        (),
        choice(*MEMBER_KINDS),
        "one more member; from long-name to sparse-pax they are harmless, the others must be refused",
        many=True,
    )
    restore_info: str | None = fault(
        None,
        choice("replica-set", "cluster-id", "group-id", "missing", "huge", "binary"),
        "restoreInfo.txt has another Replica Set, Cluster ID, or Group ID, is missing, huge, or not text",
    )
