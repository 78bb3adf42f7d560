"""Delivery URLs of a restore job."""

from __future__ import annotations

from urllib.parse import quote

from ..model import Job


def delivery_url(job: Job) -> str:
    """Return the URL with the token in its path (`url`)."""
    return _origin(job) + token_path(job)


def header_url(job: Job) -> str:
    """Return the URL that needs an Authorization header (`urlV2`)."""
    return f"{_origin(job)}/backup/restore/v3/pull/{job.id}/{_segment(job)}"


def token_path(job: Job) -> str:
    """Return the path of `url`, with its token, which may be in its query."""
    form = job.faults.token
    if form == "query":
        return f"/backup/restore/v2/pull/{job.id}/{_segment(job)}?token={quote(job.token, safe='')}"
    token = quote(job.token, safe="") if form == "encoded" else job.token
    return f"/backup/restore/v2/pull/{job.id}/{token}/{_segment(job)}"


def _origin(job: Job) -> str:
    return job.manager.second_origin if job.faults.other_origin else job.manager.origin


def _segment(job: Job) -> str:
    return quote(job.file_name, safe="")
