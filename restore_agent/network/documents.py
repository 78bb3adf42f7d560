"""Parser for the documents of Ops Manager's API. It returns values of core, and its own `Snapshot`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from ..core.errors import AnswerUnusable
from ..core.jobs import DeliveryUrl, Job, last_segment
from ..core.redaction import Secret
from ..core.untrusted import parse_document, printable

_END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC).timestamp()  # what can still be shown as a date

_SHA1 = re.compile(r"[0-9a-fA-F]{40}")

_SURROGATE = re.compile("[\ud800-\udfff]")

_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")


class _Reader:
    """Lenient access to the fields of one document. Unexpected values are noted in `oddities`, for the log."""

    def __init__(self, document: Mapping[str, Any], path: str, oddities: list[str]) -> None:
        self._document, self._path, self._oddities = document, path, oddities

    def _odd(self, name: str, value: Any, wanted: str) -> None:
        self._oddities.append(f"{self._path}{name} is {_kind(value)}, not {wanted}")

    def text(self, name: str) -> str | None:
        value = self._document.get(name)
        if isinstance(value, str) and _SURROGATE.search(value):
            self._odd(name, value, "valid Unicode")
            value = _SURROGATE.sub("\ufffd", value)  # could be neither written nor sent
        if value is None or isinstance(value, str):
            return value or None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        self._odd(name, value, "a string")
        return None

    def number(self, name: str) -> int | None:
        value = self._document.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value.strip()):
            return int(value)
        self._odd(name, value, "a number")
        return None

    def truth(self, name: str) -> bool | None:
        value = self._document.get(name)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        self._odd(name, value, "a boolean")
        return None

    def moment(self, name: str) -> float | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            parsed = datetime.fromisoformat(text)
            moment = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            moment = -1.0
        if 0 <= moment < _END_OF_TIME:
            return moment
        self._odd(name, text, "a time")
        return None

    def object(self, name: str) -> _Reader:
        value = self._document.get(name)
        if value is not None and not isinstance(value, dict):
            self._odd(name, value, "an object")
        return _Reader(value if isinstance(value, dict) else {}, f"{self._path}{name}.", self._oddities)

    def objects(self, name: str) -> list[_Reader]:
        value = self._document.get(name)
        if value is not None and not isinstance(value, list):
            self._odd(name, value, "a list")
        items = value if isinstance(value, list) else []
        return [_Reader(item, f"{self._path}{name}[].", self._oddities) for item in items if isinstance(item, dict)]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "the string " + repr(printable(str(value), 40)), bool: "a boolean"}
    return names.get(type(value), "a number")


def parse_job(document: Any) -> Job:
    """Return a `Job` from one entry of `results`, or from the job's own document.

    Raises ValueError if the entry is not an object or has no `id`.
    """
    if not isinstance(document, dict):
        raise ValueError(f"a restore job is {_kind(document) if document is not None else 'null'}, not an object")
    oddities: list[str] = []
    job = _Reader(document, "", oddities)
    if (job_id := job.text("id")) is None:
        raise ValueError("a restore job has no id")
    delivery = job.object("delivery")
    delivery_url, defect = _delivery_url(delivery)
    return Job(
        id=job_id,
        batch_id=job.text("batchId"),
        cluster_id=job.text("clusterId"),
        host_id=job.text("hostId"),
        snapshot_id=job.text("snapshotId"),
        snapshot_timestamp=job.object("timestamp").text("date"),
        status=job.text("statusName"),
        delivery_status=delivery.text("statusName"),
        method=delivery.text("methodName"),
        automated=bool(delivery.text("targetClusterId") or delivery.text("targetGroupId")),
        delivery_url=delivery_url,
        delivery_url_defect=defect,
        expires=delivery.moment("expires"),
        max_downloads=delivery.number("maxDownloads"),
        hashes=_hashes(job),
        encryption_enabled=job.truth("encryptionEnabled"),
        master_key_uuid=job.text("masterKeyUUID"),
        point_in_time=job.truth("pointInTime"),
        created=job.moment("created"),
        oddities=tuple(oddities),
    )


def _hashes(job: _Reader) -> tuple[tuple[str, str], ...]:
    found = []
    for entry in job.objects("hashes"):
        name, digest, kind = entry.text("fileName"), entry.text("hash"), entry.text("typeName")
        if name and digest and _SHA1.fullmatch(digest.strip()) and (kind or "SHA1").upper().replace("-", "") == "SHA1":
            found.append((last_segment(name), digest.strip().lower()))
    return tuple(found)


def _delivery_url(delivery: _Reader) -> tuple[DeliveryUrl | None, str | None]:
    """Return the delivery URL or, if no URL can be used, the reason. `urlV2` with its header comes first."""
    newer, header = delivery.text("urlV2"), _authorization(delivery)
    older = delivery.text("url")
    if newer and (header or not older):
        found, defect = _checked(newer, header)
        if found or not older:
            return found, defect
    return _checked(older, None) if older else (None, None)


def _authorization(delivery: _Reader) -> tuple[str, Secret] | None:
    value = (delivery.text("authValue") or "").strip()
    if not value or not value.isascii() or not value.isprintable():
        return None
    name = delivery.text("authHeader") or "Authorization"
    bearer = (delivery.text("authBearer") or "Bearer").strip()
    whole = " " in value or not bearer.isalnum()  # in some schemas the value is the whole header
    return (name if _HEADER_NAME.fullmatch(name) else "Authorization", Secret(value if whole else f"{bearer} {value}"))


def _checked(url: str, header: tuple[str, Secret] | None) -> tuple[DeliveryUrl | None, str | None]:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None, "it does not parse"
    if parts.scheme not in ("http", "https") or not host:
        return None, "it is not an http or https URL"
    if parts.username is not None or parts.password is not None:
        return None, "it contains a user name or a password"
    if not url.isprintable() or " " in url or "\ufffd" in url:
        return None, "it contains control characters or white space"
    return DeliveryUrl(url, last_segment(unquote(parts.path.rsplit("/", 1)[-1])), header), None


def parse_answer(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body, without its envelope. Raises AnswerUnusable."""
    try:
        document = parse_document(body)
    except ValueError:
        kind = "an HTML page" if body.lstrip()[:1] == b"<" else "not JSON"  # no part of it, which may echo a secret
        raise AnswerUnusable(f"the API's answer is {kind}") from None
    if not isinstance(document, dict):
        raise AnswerUnusable("the API's answer is JSON, but not an object")
    if "status" in document and isinstance(document.get("content"), dict):
        return dict(document["content"])
    return document


def results_of(document: dict[str, Any]) -> list[Any]:
    """Return the entries of one page of a list. Raises AnswerUnusable."""
    results = document.get("results")
    if not isinstance(results, list):
        raise AnswerUnusable("the API's answer has no list of results")
    return results


def parse_job_document(entry: Any) -> Job:
    """Return a `Job` as `parse_job` does. Raises AnswerUnusable."""
    try:
        return parse_job(entry)
    except ValueError as error:
        raise AnswerUnusable(f"the API's answer is unusable: {error}") from None


def count_of(value: Any) -> int | None:
    """Return a whole number, which a server may send as a string or a float; None for anything else."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 62:
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def part_sizes(parts: Any) -> dict[Any, int | None]:
    """Return the `fileSizeBytes` of a snapshot's parts by cluster ID."""
    known = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return {str(part.get("clusterId")): count_of(part.get("fileSizeBytes")) for part in known}


def has_next_page(document: dict[str, Any], so_far: int) -> bool:
    """Return whether to request another page: `totalCount` or a `next` link requires it, or neither marks the end."""
    total, links = count_of(document.get("totalCount")), document.get("links")
    if isinstance(links, list) and any(isinstance(link, dict) and link.get("rel") == "next" for link in links):
        return True
    return total is None or total > so_far


def error_text(status: int, body: bytes) -> str:
    """Return `HTTP 403 IP_ADDRESS_NOT_ON_ACCESS_LIST: detail` as far as the error document has these fields."""
    code = detail = ""
    try:
        document = parse_document(body[:65536])
        code, detail = (str(document.get(name) or "") for name in ("errorCode", "detail"))
        detail = detail or str(document.get("reason") or "")
    except (ValueError, AttributeError):
        pass
    text = f"HTTP {status} {printable(code, 80)}".rstrip()
    return f"{text}: {printable(detail, 300)}" if detail else text


@dataclass(frozen=True)
class Snapshot:
    """One snapshot. Times are in seconds since the epoch; `size` is the sum of its parts' `fileSizeBytes`."""

    id: str
    cluster_id: str | None
    created: float | None
    expires: float | None
    complete: bool
    possibly_inconsistent: bool
    missing_shards: tuple[str, ...]
    size: int | None
    mongodb_version: str | None

    @property
    def restorable(self) -> bool:
        """Whether it is complete, not possibly inconsistent, and misses no shard."""
        return self.complete and not self.possibly_inconsistent and not self.missing_shards


def parse_snapshot(document: Any) -> Snapshot:
    """Return a `Snapshot` from one entry of `results`, or from the snapshot's own document. Raises AnswerUnusable."""
    reader = _Reader(document if isinstance(document, dict) else {}, "", [])
    if (snapshot_id := reader.text("id")) is None:
        raise AnswerUnusable("the API's answer is unusable: a snapshot has no id")
    parts = reader.objects("parts")
    sizes = [size for part in parts if (size := part.number("fileSizeBytes")) is not None]
    versions = dict.fromkeys(version for part in parts if (version := part.text("mongodVersion")))
    return Snapshot(
        id=snapshot_id,
        cluster_id=reader.text("clusterId"),
        created=reader.object("created").moment("date"),
        expires=reader.moment("expires"),
        complete=reader.truth("complete") is not False,  # a server may list complete snapshots without the field
        possibly_inconsistent=bool(reader.truth("isPossiblyInconsistent")),
        missing_shards=tuple(_shard_name(shard) for shard in _list_of(document, "missingShards")),
        size=sum(sizes) if sizes else None,
        mongodb_version=", ".join(versions) or None,
    )


def _list_of(document: Any, name: str) -> list[Any]:
    value = document.get(name)
    return value if isinstance(value, list) else []


def _shard_name(shard: Any) -> str:
    """Return the name of a missing shard, which is listed as a string or as an object."""
    if isinstance(shard, dict):
        shard = next((shard[key] for key in ("shardName", "replicaSetName", "groupId", "id") if shard.get(key)), "?")
    return _SURROGATE.sub("\ufffd", str(shard))


def parse_created_jobs(document: dict[str, Any]) -> list[Job]:
    """Return the jobs in the answer to a request for a restore: a list, or a single job. Raises AnswerUnusable."""
    entries = document["results"] if isinstance(document.get("results"), list) else [document]
    return [parse_job_document(entry) for entry in entries]


@dataclass(frozen=True)
class Cluster:
    """A cluster of a project. `is_part`: a shard or the config servers of a sharded cluster."""

    id: str
    name: str | None
    is_part: bool


def parse_cluster(document: Any) -> Cluster:
    """Return a `Cluster` from one entry of `results`. Raises AnswerUnusable."""
    fields = document if isinstance(document, dict) else {}
    reader = _Reader(fields, "", [])
    if (cluster_id := reader.text("id")) is None:
        raise AnswerUnusable("the API's answer is unusable: a cluster has no id")
    is_part = bool(reader.text("shardName")) or (reader.text("typeName") or "").startswith("CONFIG_SERVER")
    return Cluster(cluster_id, name_of(fields, "clusterName", "replicaSetName"), is_part)


def name_of(document: dict[str, Any], *fields: str) -> str | None:
    """Return the first of the fields that is there, as text on one line."""
    reader = _Reader(document, "", [])
    found = next((value for field in fields if (value := reader.text(field))), None)
    return None if found is None else printable(found, 100)


def is_error_document(body: bytes) -> bool:
    """Return whether a body is an error document of Ops Manager."""
    try:
        document = parse_document(body[:65536])
    except ValueError:
        return False
    return isinstance(document, dict) and "errorCode" in document
