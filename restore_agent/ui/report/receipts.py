"""Receipt documents of many hosts as typed values. Everything in them is untrusted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...core.errors import UsageError
from ...core.exit_codes import EXIT_CODES
from ...core.receipt import SCHEMA
from ...core.untrusted import parse_document, printable
from .values import Archive, Host, Moments
from .wording import epoch

_LARGEST = 2**63 - 1

_LONGEST = 10_000  # characters of one text; a path has at most 4096 bytes

_VERDICTS = frozenset({"verified", "unproven", "mismatch", "failed", "skipped"})

_MOST_INFO = 500  # lines of restoreInfo.txt that are kept


class ReceiptsUnusable(UsageError, ValueError):
    """A file is not a receipt, or receipts do not belong to one restore."""

    hint = "Give the receipt.json files of one batch: restore-agent report RECEIPT…"


@dataclass(frozen=True)
class ReceiptFile:
    """One receipt: where it was read from (the real path, so that one file counts once), and its JSON value."""

    path: str
    document: Any


@dataclass(frozen=True)
class Receipt:
    """One receipt with checked types."""

    host: Host
    batch_id: str | None
    cluster_id: str | None
    group_id: str | None
    ops_manager: str | None
    archives: tuple[Archive, ...]


def receipt_file(path: str, raw: bytes) -> ReceiptFile:
    """Return the content of a file as a receipt that is still to be checked. Raises ReceiptsUnusable: not JSON."""
    try:
        return ReceiptFile(path, parse_document(raw))
    except ValueError:
        raise ReceiptsUnusable(f"{printable(path, 200)} is not a receipt of restore-agent: it is not JSON") from None


def read_receipts(files: Iterable[ReceiptFile]) -> tuple[Receipt, ...]:
    """Return each receipt once, in the given order. Raises ReceiptsUnusable."""
    once = {one.path: one for one in files}
    return tuple(_receipt(one) for one in once.values())


def _receipt(file: ReceiptFile) -> Receipt:
    try:
        return _parsed(file.path, file.document)
    except _Wrong as wrong:
        name = printable(file.path, 200)
        raise ReceiptsUnusable(f"{name} is not a receipt of restore-agent: {wrong}") from None


class _Wrong(ValueError):
    """A field has a value that no receipt has."""


def _parsed(path: str, document: Any) -> Receipt:
    fields = _object(document, "the document")
    if fields.get("schema") != SCHEMA:
        raise _Wrong(f"its schema is {printable(str(fields.get('schema'))[:80], 80)!r}, not {SCHEMA!r}")
    entries = fields.get("archives")
    if not isinstance(entries, list):
        raise _Wrong("archives is not a list")
    host = _host(path, fields, len(entries))
    archives = tuple(_archive(_object(entry, "an archive"), host) for entry in entries)
    if len({archive.job_id for archive in archives}) != len(archives):
        raise _Wrong("it names a job twice")
    batch, cluster, group = (_text(fields, name) for name in ("batch_id", "cluster_id", "group_id"))
    return Receipt(host, batch, cluster, group, _text(fields, "ops_manager"), archives)


def _host(path: str, fields: Mapping[str, Any], archives: int) -> Host:
    started = _text(fields, "started_at")
    return Host(
        source=path,
        name=_text(fields, "hostname"),
        agent_version=_text(fields, "agent_version"),
        outcome=_text(fields, "outcome"),
        exit_code=_code(fields),
        started_at=started,
        finished_at=_text(fields, "finished_at"),
        started=epoch(started),
        archives=archives,
    )


def _archive(fields: Mapping[str, Any], host: Host) -> Archive:
    job_id, verdict = _text(fields, "job_id"), _text(fields, "verdict")
    if job_id is None:
        raise _Wrong("an archive has no job_id")
    if verdict is not None and verdict not in _VERDICTS:
        raise _Wrong(f"verdict is {printable(verdict, 60)!r}")
    return Archive(
        job_id=job_id,
        host=host,
        verdict=verdict,
        exit_code=_code(fields),
        reason=_text(fields, "reason"),
        file_name=_text(fields, "file_name"),
        path=_text(fields, "path"),
        size=_count(fields, "bytes"),
        sha1=_text(fields, "sha1"),
        published=_text(fields, "expected_sha1"),
        downloads_spent=_count(fields, "downloads_spent"),
        seconds=_seconds(fields),
        rate=_count(fields, "bytes_per_second"),
        cluster_id=_text(fields, "cluster_id"),
        snapshot_id=_text(fields, "snapshot_id"),
        snapshot_time=_text(fields, "snapshot_timestamp"),
        unpack_known="data_path" in fields,
        data_path=_text(fields, "data_path"),
        data_files=_count(fields, "data_files"),
        data_size=_count(fields, "data_bytes"),
        kept=_flag(fields, "archive_kept"),
        encrypted=_flag(fields, "encryption_enabled"),
        master_key=_text(fields, "master_key_uuid"),
        point_in_time=_flag(fields, "point_in_time"),
        restore_info=_info(fields),
        moments=_moments(fields),
    )


def _moments(fields: Mapping[str, Any]) -> Moments:
    names = ("ready_at", "download_started_at", "downloaded_at", "verified_at", "unpacked_at")
    return Moments(*(epoch(_text(fields, name)) for name in names))


def _info(fields: Mapping[str, Any]) -> dict[str, str]:
    value = fields.get("restore_info")
    pairs = {} if value is None else _object(value, "restore_info")
    if not all(isinstance(text, str) for text in pairs.values()):
        raise _Wrong("restore_info holds a value that is not text")
    return dict(list(pairs.items())[:_MOST_INFO])


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _Wrong(f"{name} is not an object")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise _Wrong(f"{name} is not text")
    if value is not None and len(value) > _LONGEST:
        raise _Wrong(f"{name} has more than {_LONGEST} characters")
    return value or None


def _count(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
        raise _Wrong(f"{name} is not a count")
    return value


def _code(fields: Mapping[str, Any]) -> int:
    value = _count(fields, "exit_code") or 0
    if value not in EXIT_CODES and value != 13:
        raise _Wrong(f"exit_code is {value}")
    return value


def _seconds(fields: Mapping[str, Any]) -> float | None:
    value = fields.get("seconds")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise _Wrong("seconds is not a time")
    return float(value)


def _flag(fields: Mapping[str, Any], name: str) -> bool | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise _Wrong(f"{name} is not true or false")
    return value
