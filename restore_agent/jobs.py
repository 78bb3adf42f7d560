"""What Ops Manager says of a restore job, and the one table of what that means.

`parse_job` turns a document of the API page into a `Job`; it is tolerant (numbers as strings, missing or unknown
fields, unknown statuses), because a run must not break on a field nobody needs. `decide` is pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from urllib.parse import unquote, urlsplit

from .redaction import Secret, printable

_END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC).timestamp()  # what can still be shown as a date
_SHA1 = re.compile(r"[0-9a-fA-F]{40}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_HTTP_DELIVERIES = ("HTTP", "CLIENT_PIT_HTTP")


@dataclass(frozen=True)
class Link:
    """Where an archive can be fetched. Both the URL (its path holds a token) and the header value are secrets."""

    url: str = field(repr=False)
    file_name: str
    header: tuple[str, Secret] | None = None

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        host = parts.hostname or "?"
        host = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{printable(host)}{port}/…/{printable(self.file_name)}"


@dataclass(frozen=True)
class Job:
    """One restore job as last read. Times are seconds since the epoch on the server's clock."""

    id: str
    batch_id: str | None = None
    cluster_id: str | None = None
    host_id: str | None = None
    snapshot_id: str | None = None
    snapshot_timestamp: str | None = None
    status: str | None = None
    delivery_status: str | None = None
    method: str | None = None
    automated: bool = False
    link: Link | None = None
    link_defect: str | None = None
    expires: float | None = None
    max_downloads: int | None = None
    hashes: tuple[tuple[str, str], ...] = ()
    encryption_enabled: bool | None = None
    master_key_uuid: str | None = None
    point_in_time: bool | None = None
    oddities: tuple[str, ...] = ()

    def published_hash(self, file_name: str) -> str | None:
        """The SHA1 that Ops Manager published for this file, 40 lower-case hex digits, or None.

        A name that the URL percent-encodes may stand beside its hash either way.
        """
        for spell in (str, unquote):
            for name, digest in self.hashes:
                if _last_segment(spell(name)) == file_name:
                    return digest
        return None


class Step(Enum):
    """What a job's own words allow."""

    WAIT = "wait"
    DOWNLOAD = "download"
    SKIP = "skip"
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """A step and its reason, a stable kebab-case id."""

    step: Step
    reason: str


_BY_JOB_STATUS = {
    "BROKEN": Decision(Step.FAIL, "job-broken"),
    "KILLED": Decision(Step.FAIL, "job-killed"),
}
_BY_DELIVERY_STATUS = {
    "FAILED": Decision(Step.FAIL, "delivery-failed"),
    "INTERRUPTED": Decision(Step.FAIL, "delivery-interrupted"),
    "EXPIRED": Decision(Step.FAIL, "delivery-expired"),
    "MAX_DOWNLOADS_EXCEEDED": Decision(Step.FAIL, "downloads-used-up"),
}


def decide(job: Job) -> Decision:
    """What to do about a job: every rule of the contract's 5.1 and 5.2, in order of weight.

    `expires` plays no part: while Ops Manager says READY, its word stands. An unknown status means "not ready yet".
    """
    if job.automated:
        return Decision(Step.SKIP, "automated-restore")
    if job.method is not None and job.method not in _HTTP_DELIVERIES:
        return Decision(Step.SKIP, "not-delivered-over-http")
    verdict = _BY_JOB_STATUS.get(job.status or "") or _BY_DELIVERY_STATUS.get(job.delivery_status or "")
    if verdict:
        return verdict
    if job.delivery_status != "READY":
        return Decision(Step.WAIT, "not-ready")
    if job.link_defect:
        return Decision(Step.FAIL, "delivery-url-unusable")
    return Decision(Step.DOWNLOAD, "ready") if job.link else Decision(Step.WAIT, "no-url-yet")


# ---------------------------------------------------------------- reading documents


class _Reader:
    """Reads fields of one document leniently and remembers what was odd, for the log."""

    def __init__(self, document: Mapping[str, Any], path: str, oddities: list[str]) -> None:
        self._document, self._path, self._oddities = document, path, oddities

    def _odd(self, name: str, value: Any, wanted: str) -> None:
        self._oddities.append(f"{self._path}{name} is {_kind(value)}, not {wanted}")

    def text(self, name: str) -> str | None:
        value = self._document.get(name)
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
    """A `Job` from one entry of `results`, or from the job's own document.

    Raises ValueError when the entry cannot even be told apart: it is no object, or has no `id`.
    """
    if not isinstance(document, dict):
        raise ValueError(f"a restore job is {_kind(document) if document is not None else 'null'}, not an object")
    oddities: list[str] = []
    job = _Reader(document, "", oddities)
    if (job_id := job.text("id")) is None:
        raise ValueError("a restore job has no id")
    delivery = job.object("delivery")
    link, defect = _link(delivery)
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
        link=link,
        link_defect=defect,
        expires=delivery.moment("expires"),
        max_downloads=delivery.number("maxDownloads"),
        hashes=_hashes(job),
        encryption_enabled=job.truth("encryptionEnabled"),
        master_key_uuid=job.text("masterKeyUUID"),
        point_in_time=job.truth("pointInTime"),
        oddities=tuple(oddities),
    )


def _hashes(job: _Reader) -> tuple[tuple[str, str], ...]:
    found = []
    for entry in job.objects("hashes"):
        name, digest, kind = entry.text("fileName"), entry.text("hash"), entry.text("typeName")
        if name and digest and _SHA1.fullmatch(digest.strip()) and (kind or "SHA1").upper().replace("-", "") == "SHA1":
            found.append((_last_segment(name), digest.strip().lower()))
    return tuple(found)


def _last_segment(name: str) -> str:
    """What both a URL and a hash call the file, also where its percent-encoding hid a path."""
    return name.rsplit("/", 1)[-1]


def _link(delivery: _Reader) -> tuple[Link | None, str | None]:
    """The link to use and, when there is a URL but none can be used, why. `urlV2` with its header comes first."""
    newer, header = delivery.text("urlV2"), _authorization(delivery)
    older = delivery.text("url")
    if newer and (header or not older):
        link, defect = _checked(newer, header)
        if link or not older:
            return link, defect
    return _checked(older, None) if older else (None, None)


def _authorization(delivery: _Reader) -> tuple[str, Secret] | None:
    value = (delivery.text("authValue") or "").strip()
    if not value or not value.isascii() or not value.isprintable():
        return None
    name = delivery.text("authHeader") or "Authorization"
    bearer = (delivery.text("authBearer") or "Bearer").strip()
    whole = " " in value or not bearer.isalnum()  # some schemas put the whole header into the value
    return (name if _HEADER_NAME.fullmatch(name) else "Authorization", Secret(value if whole else f"{bearer} {value}"))


def _checked(url: str, header: tuple[str, Secret] | None) -> tuple[Link | None, str | None]:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None, "it does not parse"
    if parts.scheme not in ("http", "https") or not host:
        return None, "it is no http or https URL"
    if parts.username is not None or parts.password is not None:
        return None, "it holds a user name or password"
    if not url.isprintable() or " " in url:
        return None, "it holds control characters or white space"
    return Link(url, _last_segment(unquote(parts.path.rsplit("/", 1)[-1])), header), None
