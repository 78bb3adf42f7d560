"""The API of Ops Manager: digest, pages, envelopes, error documents and the server's clock.

One of the two borders where httpx errors become ours. Every call is one attempt; whether and when to ask again is
decided elsewhere, by the class of the error (`TransientApiError` or not).
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from .. import USER_AGENT
from ..core.clock import ServerClock, retry_after
from ..core.errors import (
    AccessRefused,
    AgentError,
    AnswerUnusable,
    NotFound,
    OpsManagerError,
    RedirectRefused,
    TlsError,
    Unreachable,
)
from ..core.jobs import Job
from ..core.redaction import Redactor
from ..core.settings import API_PATH, Connection, Target
from ..core.untrusted import printable
from .client import client, tls_context, tls_problem
from .digest import DigestAuth
from .documents import error_text, has_next_page, parse_answer, parse_job_document, part_sizes, results_of

PAGE_SIZE = 100  # what every version of Ops Manager serves; newer ones allow 500

_ANSWER_LIMIT = 4 << 20  # bytes of one answer; 500 jobs are about 1 MiB

_READING_LIMIT = 16 << 20  # bytes of all pages of a list

_REQUEST_TIME = 60.0  # seconds for one whole exchange, however slowly it drips

_MOST_PAGES = 100  # of 100 jobs: far above any cluster, so a list that goes on is not a batch

_TIMEOUT = httpx.Timeout(30.0, connect=15.0)


class OpsManager:
    """Ops Manager's restore jobs. Use as an async context manager. `origin` and `tls` tell how it is reached.

    `unknown` holds an error for each job id of the last reading that Ops Manager does not know, while it knows others.
    Every method raises AccessRefused, NotFound, RedirectRefused, TlsError, or a TransientApiError.
    """

    def __init__(self, connection: Connection, clock: ServerClock, redactor: Redactor) -> None:
        redactor.learn(connection.private_key)
        self.clock = clock
        self._redactor = redactor
        self._base = connection.url + API_PATH
        parts = urlsplit(connection.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        self.origin = f"{parts.scheme}://{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        self.tls = tls_context(connection)
        self.unknown: dict[str, NotFound] = {}
        self._sizes: dict[str, dict[Any, int | None]] = {}
        self._bytes_read = 0
        # one exchange after the other: each new challenge may spoil the nonce of another one that is under way
        self._turn = asyncio.Lock()
        self._client = client(
            auth=DigestAuth(connection, redactor),
            verify=self.tls,
            timeout=_TIMEOUT,
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT},
        )

    async def __aenter__(self) -> OpsManager:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def jobs(self, target: Target) -> list[Job]:
        """Every job of the target's batch in one list call per page, or each of its job ids that is known.

        Raises NotFound when there is no such batch, or none of the jobs.
        """
        if target.batch_id:
            return await self._batch(target)
        found: list[Job] = []
        self.unknown = {}
        for job_id in target.job_ids:
            try:
                found.append(await self.job(target, job_id))
            except NotFound as error:
                self.unknown[job_id] = error.with_context(archive=job_id)
        return found

    async def job(self, target: Target, job_id: str) -> Job:
        """One restore job by its id."""
        document = await self._get(f"{_place(target)}/restoreJobs/{quote(job_id)}", {})
        return self._learnt(parse_job_document(document))

    async def largest_size(self, target: Target, snapshot_id: str, cluster_id: str | None) -> int | None:
        """An upper bound of an archive's size in bytes: the snapshot part's `fileSizeBytes` (uncompressed)."""
        if target.cluster_id is None:
            return None
        if snapshot_id not in self._sizes:  # a batch shares its snapshot
            document = await self._get(f"{_place(target)}/snapshots/{quote(snapshot_id)}", {})
            self._sizes[snapshot_id] = part_sizes(document.get("parts"))
        sizes = self._sizes[snapshot_id]
        return next(iter(sizes.values()), None) if cluster_id is None else sizes.get(cluster_id)

    async def _batch(self, target: Target) -> list[Job]:
        """All pages. Links are not followed: whether `next` keeps `batchId` is unknown, and it may lead elsewhere."""
        found: dict[str, Job] = {}
        before = self._bytes_read
        for page in range(1, _MOST_PAGES + 1):
            document = await self._page(target, page)
            if self._bytes_read - before > _READING_LIMIT:
                raise AnswerUnusable(f"the list of jobs is larger than {_READING_LIMIT >> 20} MiB")
            new = {job.id: job for entry in results_of(document) if (job := parse_job_document(entry)).id not in found}
            found |= new
            if not new or not has_next_page(document, len(found)):
                mine = (None, target.batch_id)  # a server may ignore the filter
                return [self._learnt(job) for job in found.values() if job.batch_id in mine]
        raise AnswerUnusable(f"the list of jobs does not end after {_MOST_PAGES} pages")

    async def _page(self, target: Target, page: int) -> dict[str, Any]:
        """One page of the list. Behind the last one, which not every server marks, some know nothing."""
        query = {"batchId": target.batch_id or "", "pageNum": str(page), "itemsPerPage": str(PAGE_SIZE)}
        try:
            return await self._get(f"{_place(target)}/restoreJobs", query)
        except NotFound:
            if page == 1:
                raise
            return {"results": []}

    def _learnt(self, job: Job) -> Job:
        """The job, after its secrets are known to whoever hides them."""
        if job.delivery_url:
            self._redactor.learn_url(job.delivery_url.url)
            if job.delivery_url.header:
                value = job.delivery_url.header[1].reveal()
                self._redactor.learn(value)
                self._redactor.learn(value.split(" ")[-1])
        return job

    async def _get(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        try:
            async with (
                self._turn,
                asyncio.timeout(_REQUEST_TIME),
                self._client.stream("GET", self._base + path, params=query or None) as response,
            ):
                self.clock.observe(response.headers.get("Date"))
                body = await _body(response)
                self._bytes_read += len(body)
        except TimeoutError:
            raise Unreachable(f"Ops Manager did not finish its answer within {_REQUEST_TIME:.0f} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            raise api_error(error) from error  # OSError: a refused client certificate comes as a bare ssl.SSLError
        if response.status_code != 200:
            raise _refusal(response, body, self.clock)
        return parse_answer(body)


def _place(target: Target) -> str:
    kind, place = ("clusters", target.cluster_id) if target.cluster_id else ("hosts", target.host_id or "")
    return f"/groups/{quote(target.group_id)}/{kind}/{quote(place or '')}"


async def _body(response: httpx.Response) -> bytes:
    if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
        raise AnswerUnusable("the API's answer is compressed although identity was asked for")
    collected = bytearray()
    async for chunk in response.aiter_raw():
        collected += chunk
        if len(collected) > _ANSWER_LIMIT:
            raise AnswerUnusable(f"the API's answer is larger than {_ANSWER_LIMIT >> 20} MiB")
    return bytes(collected)


def api_error(error: Exception) -> AgentError:
    """What an httpx exception of an API call means."""
    if problem := tls_problem(error):
        return TlsError(f"TLS to Ops Manager failed: {problem}")
    kinds: list[tuple[type[Exception], str]] = [
        (httpx.ConnectTimeout, "no connection in time"),
        (httpx.TimeoutException, "no answer in time"),
        (httpx.ConnectError, "no connection"),
        (httpx.ProxyError, "the proxy refused"),
        (httpx.ProtocolError, "the connection broke or the answer is no HTTP"),
        (httpx.NetworkError, "the connection broke"),
    ]
    what = next((text for kind, text in kinds if isinstance(error, kind)), "the request failed")
    detail = printable(str(error), 120)
    return Unreachable(f"Ops Manager cannot be reached: {what}" + (f" ({detail})" if detail else ""))


def _refusal(response: httpx.Response, body: bytes, clock: ServerClock) -> OpsManagerError | TlsError:
    """What an answer other than 200 means."""
    status, said = response.status_code, error_text(response.status_code, body)
    if b"SSL certificate" in body[:2000] and status in (400, 495, 496):
        return TlsError(f"Ops Manager wants another client certificate: {said}")
    if status in (401, 403):
        return AccessRefused(f"Ops Manager refused access: {said}")
    if 300 <= status < 400:
        return RedirectRefused(f"Ops Manager's API redirects ({status}), which is not followed")
    if status == 404:
        return NotFound(f"Ops Manager does not know it: {said}")
    if status in (408, 421, 425, 429) or status >= 500:
        passing = Unreachable(f"Ops Manager is not serving: {said}")
        passing.retry_after = retry_after(response.headers.get("Retry-After"), clock.now())
        return passing
    if status < 300:
        return AnswerUnusable(f"the API answered {status}, which is none of its answers to a GET")
    return NotFound(
        f"Ops Manager refused the request: {said}", hint="Check the ids: Ops Manager does not take one of them."
    )
