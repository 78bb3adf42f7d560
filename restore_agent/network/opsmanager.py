"""The API of Ops Manager: digest, pages, envelopes, error documents, and the server's clock.

Every call is one attempt. Whether to repeat it is decided by the caller, by the class of the error:
`TransientApiError` or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from .. import USER_AGENT
from ..core.clock import ServerClock, retry_after
from ..core.errors import (
    AccessRefused,
    AgentError,
    AnswerUnusable,
    CreationUnconfirmed,
    NotFound,
    OpsManagerError,
    RedirectRefused,
    RequestRefused,
    TlsError,
    TransientApiError,
    Unreachable,
)
from ..core.jobs import Job
from ..core.redaction import Redactor
from ..core.settings import API_PATH, Connection, Target
from ..core.untrusted import printable
from .digest import DigestAuth
from .documents import (
    Cluster,
    Snapshot,
    count_of,
    error_text,
    has_next_page,
    is_error_document,
    name_of,
    parse_answer,
    parse_cluster,
    parse_created_jobs,
    parse_job_document,
    parse_snapshot,
    part_sizes,
    results_of,
)
from .proxies import DEFAULT_PORTS, Proxies
from .tls import tls_context, tls_problem
from .transport import NEVER_SENT, BlockTransport, TlsPort, names_tls_port

PAGE_SIZE = 100  # supported by every version of Ops Manager; newer ones allow 500

_ANSWER_LIMIT = 4 << 20  # bytes of one answer; 500 jobs are about 1 MiB

_READING_LIMIT = 16 << 20  # bytes of all pages of a list

_MOST_PAGES = 100  # of 100 entries: far more than any cluster has, so the list does not end

ANSWER_TIMEOUT = 50.0

"""Seconds without a byte of an answer; within the minute for which most commands retry."""

# A complete call, with its challenge and however slowly it arrives, takes at most this many times ANSWER_TIMEOUT.
_SLOW_FACTOR = 6

_PROXY_HINT = "Set the user name and password of the proxy in https_proxy or http_proxy, percent-encoded."

_HTTPS_HINT = "Give --url with https:// instead of http://."


_Entry = TypeVar("_Entry", Job, Snapshot, Cluster)


class OpsManager:
    """Ops Manager's API. An async context manager.

    `origin` and `proxy` say how it is reached, `tls` is the context that is used. `server_version` is that of the last
    answer, None if it did not contain one. `unknown` holds an error for each job ID that the last reading did not find
    while it found others. `remarks` are sentences about entries of the last reading that were left out.

    Every method raises AccessRefused, NotFound, RedirectRefused, RequestRefused, TlsError, or a TransientApiError.
    The constructor raises UsageError.
    """

    def __init__(
        self, connection: Connection, clock: ServerClock, redactor: Redactor, answer_timeout: float = ANSWER_TIMEOUT
    ) -> None:
        redactor.learn(connection.private_key)
        self.clock = clock
        self._redactor = redactor
        self._base = connection.url + API_PATH
        self._time_limit = _SLOW_FACTOR * answer_timeout
        self.tls = tls_context(connection)
        self.unknown: dict[str, NotFound] = {}
        self.remarks: tuple[str, ...] = ()
        self.server_version: str | None = None
        self._sizes: dict[str, dict[Any, int | None]] = {}
        # one exchange after the other: each new challenge may invalidate the nonce of another one in progress
        self._turn = asyncio.Lock()
        proxies = Proxies(redactor)
        self.proxy = proxies.for_url(httpx.URL(connection.url))
        self._client = httpx.AsyncClient(
            auth=DigestAuth(connection, redactor),
            transport=BlockTransport(self.tls, answer_timeout, proxies, transfers=0),
            trust_env=False,
            timeout=answer_timeout,
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT},
        )

    @property
    def origin(self) -> str:
        """Scheme, host, and port."""
        parts = urlsplit(self._base)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}:{parts.port or DEFAULT_PORTS[parts.scheme]}"

    async def __aenter__(self) -> OpsManager:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    # ------------------------------------------------------------ restore jobs

    async def jobs(self, target: Target) -> list[Job]:
        """Return every job of the target's batch, with one call per page, or each of its job IDs that is known.

        Raises NotFound if there is no such batch, or none of the jobs.
        """
        self.remarks = ()
        if target.batch_id:
            return await self._batch(target, target.batch_id)
        found: list[Job] = []
        self.unknown = {}
        for job_id in target.job_ids:
            try:
                found.append(await self.job(target, job_id))
            except NotFound as error:
                self.unknown[job_id] = error.with_context(archive=job_id)
        return found

    async def job(self, target: Target, job_id: str) -> Job:
        """Return one restore job. Raises AnswerUnusable if the answer is about another one."""
        document = await self._get(f"{_jobs_path(target)}/{_part(job_id)}")
        job = parse_job_document(document)
        if job.id != job_id:
            raise AnswerUnusable(f"the API's answer for job {printable(job_id, 60)} is about {printable(job.id, 60)}")
        return _learned(job, self._redactor)

    async def recent_jobs(self, target: Target) -> list[Job]:
        """Return all restore jobs of the target's cluster or host, whatever their batch."""
        return [_learned(job, self._redactor) for job in await self._list(_jobs_path(target), {}, parse_job_document)]

    async def create_restore(
        self, target: Target, snapshot_id: str, *, max_downloads: int, expiration_hours: int
    ) -> list[Job]:
        """Request a restore by download of one snapshot, and return its jobs.

        Sends one POST, which is repeated after a challenge only. Raises CreationUnconfirmed if a restore may have been
        created although there is no usable answer.
        """
        delivery = {"methodName": "HTTP", "maxDownloads": max_downloads, "expirationHours": expiration_hours}
        body = {"snapshotId": snapshot_id, "delivery": delivery}
        try:
            answer = parse_answer(await self._exchange("POST", _jobs_path(target), {}, body))
            return [_learned(job, self._redactor) for job in parse_created_jobs(answer)]
        except TransientApiError as error:
            if isinstance(error.__cause__, NEVER_SENT):
                raise
            raise CreationUnconfirmed(f"{error.message}; a restore may have been created") from error

    async def _batch(self, target: Target, batch_id: str) -> list[Job]:
        found = await self._list(_jobs_path(target), {"batchId": batch_id}, parse_job_document)
        remarks = []
        for job in found:
            if job.batch_id != batch_id:  # a server may ignore the filter, and the delivery is not this restore's
                other = f"batch {printable(job.batch_id, 60)}" if job.batch_id else "no batch"
                remarks.append(f"Ops Manager listed job {printable(job.id, 60)} of {other}, which is not used")
        self.remarks = tuple(remarks)
        return [_learned(job, self._redactor) for job in found if job.batch_id == batch_id]

    # ------------------------------------------------------------ snapshots, cluster, project

    async def snapshots(self, target: Target) -> list[Snapshot]:
        """Return all snapshots of the target's cluster or host, also incomplete ones, in the server's order."""
        return await self._list(f"{_place(target)}/snapshots", {"completed": "all"}, parse_snapshot)

    async def snapshot(self, target: Target, snapshot_id: str) -> Snapshot:
        """Return one snapshot."""
        return parse_snapshot(await self._get(f"{_place(target)}/snapshots/{_part(snapshot_id)}"))

    async def largest_size(self, target: Target, snapshot_id: str, cluster_id: str | None) -> int | None:
        """Return an upper bound of an archive's size in bytes: the snapshot part's `fileSizeBytes` (uncompressed)."""
        if target.cluster_id is None:
            return None
        if snapshot_id not in self._sizes:  # the jobs of a batch share their snapshot
            document = await self._get(f"{_place(target)}/snapshots/{_part(snapshot_id)}")
            self._sizes[snapshot_id] = part_sizes(document.get("parts"))
        sizes = self._sizes[snapshot_id]
        return next(iter(sizes.values()), None) if cluster_id is None else sizes.get(cluster_id)

    async def root(self) -> None:
        """Ask for the API's root document, which every key may read."""
        await self._get("")

    async def group(self, target: Target) -> str | None:
        """Return the name of the target's project, None if it has none."""
        return name_of(await self._get(f"/groups/{_part(target.group_id)}"), "name")

    async def clusters(self, target: Target) -> list[Cluster]:
        """Return the clusters of the target's project, without the parts of sharded clusters."""
        found = await self._list(f"/groups/{_part(target.group_id)}/clusters", {}, parse_cluster)
        return [cluster for cluster in found if not cluster.is_part]

    async def cluster(self, target: Target) -> str | None:
        """Return the name of the target's cluster or host, None if it has none."""
        fields = ("clusterName", "shardName", "replicaSetName", "hostname")
        return name_of(await self._get(_place(target)), *fields)

    # ------------------------------------------------------------ calls

    async def _list(self, path: str, query: dict[str, str], parse: Callable[[Any], _Entry]) -> list[_Entry]:
        """Return the entries of all pages, each ID once. Raises Unreachable if there are fewer than `totalCount`.

        Links are not followed: whether `next` keeps the query is unknown, and it may lead to another host.
        """
        found: dict[str, _Entry] = {}
        size, total = 0, 0
        for page in range(1, _MOST_PAGES + 1):
            document, length = await self._page(path, {**query, "pageNum": str(page), "itemsPerPage": str(PAGE_SIZE)})
            if (size := size + length) > _READING_LIMIT:
                raise AnswerUnusable(f"the list is larger than {_READING_LIMIT >> 20} MiB")
            new = {one.id: one for entry in results_of(document) if (one := parse(entry)).id not in found}
            found |= new
            total = max(total, count_of(document.get("totalCount")) or 0)  # the last page may lack it
            if not new or not has_next_page(document, len(found)):
                if len(found) < total:
                    raise Unreachable(f"Ops Manager listed {len(found)} of {total} entries")
                return list(found.values())
        raise AnswerUnusable(f"the list does not end after {_MOST_PAGES} pages")

    async def _page(self, path: str, query: dict[str, str]) -> tuple[dict[str, Any], int]:
        """Return one page of a list and its size. Some servers answer 404 after the last page."""
        try:
            body = await self._exchange("GET", path, query, None)
        except NotFound:
            if query["pageNum"] == "1":
                raise
            return {"results": []}, 0
        return parse_answer(body), len(body)

    async def _get(self, path: str) -> dict[str, Any]:
        return parse_answer(await self._exchange("GET", path, {}, None))

    async def _exchange(self, method: str, path: str, query: dict[str, str], body: dict[str, Any] | None) -> bytes:
        """Send one request and return the body of a successful answer."""
        try:
            async with (
                self._turn,
                asyncio.timeout(self._time_limit),
                self._client.stream(method, self._base + path, params=query or None, json=body) as response,
            ):
                self.clock.observe(response.headers.get("Date"))
                self.server_version = printable(response.headers.get("X-MongoDB-Service-Version", ""), 60) or None
                content = await _body(response)
        except TimeoutError:
            raise Unreachable(f"Ops Manager did not finish its answer within {self._time_limit:.0f} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            raise api_error(error) from error  # OSError: a refused client certificate is a bare ssl.SSLError
        if response.status_code not in ((200,) if method == "GET" else (200, 201, 202)):
            raise _refusal(response, content, self.clock)
        return content


def _learned(job: Job, redactor: Redactor) -> Job:
    """Return the job after its secrets are known to the redactor."""
    if job.delivery_url:
        redactor.learn_url(job.delivery_url.url)
        if job.delivery_url.header:
            redactor.learn_header(job.delivery_url.header[1])
    return job


def _part(text: str) -> str:
    """Return an ID as one segment of a path."""
    return quote(text, safe="")


def _place(target: Target) -> str:
    kind, place = ("clusters", target.cluster_id) if target.cluster_id else ("hosts", target.host_id or "")
    return f"/groups/{_part(target.group_id)}/{kind}/{_part(place or '')}"


def _jobs_path(target: Target) -> str:
    return f"{_place(target)}/restoreJobs"


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
    """Return the error that an httpx exception of an API call stands for."""
    if problem := tls_problem(error):
        return TlsError(f"TLS to Ops Manager failed: {problem}")
    if getattr(error, "status", None) == 407:
        return RequestRefused(f"Ops Manager cannot be reached: {error}", hint=_PROXY_HINT)
    if isinstance(error, TlsPort):
        return RequestRefused(f"Ops Manager cannot be reached: {error}", hint=_HTTPS_HINT)
    kinds: list[tuple[type[Exception], str]] = [
        (httpx.ConnectTimeout, "no connection in time"),
        (httpx.TimeoutException, "no answer in time"),
        (httpx.ConnectError, "no connection"),
        (httpx.ProxyError, "the proxy refused"),
        (httpx.ProtocolError, "the connection broke or the answer is not HTTP"),
        (httpx.NetworkError, "the connection broke"),
    ]
    what = next((text for kind, text in kinds if isinstance(error, kind)), "the request failed")
    detail = printable(str(error), 120)
    scheme = "; if the port serves TLS, --url needs https://" if _broke_plain_http(error) else ""
    return Unreachable(f"Ops Manager cannot be reached: {what}" + (f" ({detail})" if detail else "") + scheme)


def _broke_plain_http(error: Exception) -> bool:
    """Return whether a connection that was made ended without an answer to plain HTTP, as many TLS ports do it."""
    request: httpx.Request | None = getattr(error, "_request", None)  # `request` raises if there is none
    made = isinstance(error, (httpx.ProtocolError, httpx.ReadError))
    return made and request is not None and request.url.scheme == "http"


def _refusal(response: httpx.Response, body: bytes, clock: ServerClock) -> OpsManagerError | TlsError:
    """Return the error that an unsuccessful answer stands for."""
    status, said = response.status_code, error_text(response.status_code, body)
    if b"SSL certificate" in body[:2000] and status in (400, 495, 496):
        return TlsError(f"Ops Manager requires another client certificate: {said}")
    if status == 400 and response.request.url.scheme == "http" and names_tls_port(body[:2000]):
        return RequestRefused("the port of --url expects https (HTTP 400)", hint=_HTTPS_HINT)
    if status == 407:
        return RequestRefused("the proxy requires a user name and a password (HTTP 407)", hint=_PROXY_HINT)
    if status in (401, 403):
        return AccessRefused(f"Ops Manager refused access: {said}")
    if 300 <= status < 400:
        return RedirectRefused(f"Ops Manager's API redirects ({status}), which is not followed")
    if status == 404:
        return NotFound(f"not found in Ops Manager: {said}")
    if status in (408, 421, 425, 429) or status >= 500:
        wait = retry_after(response.headers.get("Retry-After"), clock.now())
        return Unreachable(f"Ops Manager is not available: {said}", retry_after=wait)
    if status < 300:
        return AnswerUnusable(f"the API returned an unexpected status: HTTP {status}")
    if is_error_document(body) and status in (400, 409, 410, 422):
        return NotFound(
            f"Ops Manager refused the request: {said}", hint="Check the IDs: Ops Manager rejects one of them."
        )
    return RequestRefused(f"the request was refused: {said}")
