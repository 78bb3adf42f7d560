"""Faults of the bytes that deliveries send."""

from __future__ import annotations

from dataclasses import dataclass

from .rows import fault, flag
from .syntax import TIMES
from .values import ALWAYS


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
    damaged_gzip: bool = flag("archive with an invalid checksum")
    bomb: bool = flag("a small gzip that inflates to gigabytes")
