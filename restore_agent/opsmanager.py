"""The API of Ops Manager: digest, pages, envelopes, error documents and the server's clock.

One of the two borders where httpx errors become ours. Every call is one attempt; whether and when to ask again is
decided elsewhere, by the class of the error (`PassingApiError` or not).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from . import USER_AGENT
from .documents import parse_document
from .errors import (
    AccessRefused,
    AgentError,
    AnswerUnusable,
    NotFound,
    OpsManagerError,
    RedirectRefused,
    TlsError,
    Unreachable,
)
from .jobs import Job, parse_job
from .pacing import ServerClock, retry_after
from .redaction import Redactor, printable
from .settings import Connection, Target
from .tls import tls_context, tls_problem
from .values import API_PATH
from .wire import client

PAGE_SIZE = 100  # what every version of Ops Manager serves; newer ones allow 500
_ANSWER_LIMIT = 4 << 20  # bytes of one answer; 500 jobs are about 1 MiB
_READING_LIMIT = 16 << 20  # bytes of all pages of a list
_REQUEST_TIME = 60.0  # seconds for one whole exchange, however slowly it drips
_MOST_PAGES = 100  # of 100 jobs: far above any cluster, so a list that goes on is not a batch
_MOST_CHALLENGES = 6
_TIMEOUT = httpx.Timeout(30.0, connect=15.0)


# ---------------------------------------------------------------- digest


class DigestAuth(httpx.Auth):
    """HTTP digest (RFC 7616 and, without `qop`, RFC 2069), as Ops Manager asks for it.

    httpx's own cannot be used: it fails on FIPS hosts, where MD5 must be asked for with `usedforsecurity=False`.
    A nonce is used until the server calls it stale; nothing but a digest is ever answered.
    """

    def __init__(self, connection: Connection, redactor: Redactor) -> None:
        self._connection = connection
        self._redactor = redactor
        self._challenge: _Challenge | None = None
        self._count = 0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send with the nonce at hand; on a new challenge again with that, until a fresh nonce is refused for good.

        More than one new nonce can be needed: requests share it, and a server may let each live for one of them.
        """
        fresh = False  # whether the nonce that was tried came in answer to this very request
        for _ in range(_MOST_CHALLENGES):
            if self._challenge:
                kept = [field for field in request.headers.raw if field[0].lower() != b"authorization"]
                request.headers = httpx.Headers([*kept, (b"Authorization", self._answer(request, self._challenge))])
            response = yield request
            if response.status_code != 401:
                return
            asked = [value for name, value in response.headers.raw if name.lower() == b"www-authenticate"]
            challenge = _challenge([_octets(value) for value in asked])
            if challenge is None or (fresh and not challenge.stale):
                return
            self._challenge, self._count, fresh = challenge, 0, True

    def _answer(self, request: httpx.Request, challenge: _Challenge) -> bytes:
        self._count += 1
        target, user = request.url.raw_path.decode("ascii"), _octets(self._connection.public_key.encode())
        secret = _octets(self._connection.private_key.reveal().encode())
        client, count = secrets.token_hex(8), f"{self._count:08x}"
        digest = challenge.hash
        first = digest(f"{user}:{challenge.realm}:{secret}")
        if challenge.session:
            first = digest(f"{first}:{challenge.nonce}:{client}")
        second = digest(f"{request.method}:{target}")
        middle = f"{challenge.nonce}:{count}:{client}:auth" if challenge.qop else challenge.nonce
        response = digest(f"{first}:{middle}:{second}")
        self._redactor.learn_passing(response)
        fields = {
            "username": user,
            "realm": challenge.realm,
            "nonce": challenge.nonce,
            "uri": target,
            "response": response,
        }
        if challenge.opaque:
            fields["opaque"] = challenge.opaque
        quoted = [f'{name}="{_escaped(value)}"' for name, value in fields.items()]
        bare = [f"algorithm={challenge.algorithm}"]
        if challenge.qop:
            bare += ["qop=auth", f"nc={count}", f'cnonce="{client}"']
        return b"Digest " + ", ".join(quoted + bare).encode("latin-1")


_ALGORITHMS = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}
_CHALLENGE_FIELD = re.compile(r'([A-Za-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')


@dataclass(frozen=True)
class _Challenge:
    realm: str
    nonce: str
    opaque: str
    algorithm: str
    qop: bool
    stale: bool

    @property
    def session(self) -> bool:
        return self.algorithm.upper().endswith("-SESS")

    def hash(self, text: str) -> str:
        name = _ALGORITHMS[self.algorithm.upper().removesuffix("-SESS")]
        return hashlib.new(name, text.encode("latin-1"), usedforsecurity=False).hexdigest()


def _challenge(headers: list[str]) -> _Challenge | None:
    """The first digest challenge that can be answered."""
    for header in headers:
        found = re.search(r"(?i)\bdigest\s+(.*)", header[:4096])
        if not found:
            continue
        fields = {
            m[1].lower(): re.sub(r"\\(.)", r"\1", m[2]) if m[2] is not None else m[3]
            for m in _CHALLENGE_FIELD.finditer(found[1])
        }
        algorithm = fields.get("algorithm", "MD5")
        offered = [item.strip().lower() for item in fields.get("qop", "").split(",") if item.strip()]
        if "nonce" not in fields or algorithm.upper().removesuffix("-SESS") not in _ALGORITHMS:
            continue
        if offered and "auth" not in offered:
            continue
        stale = fields.get("stale", "").lower() == "true"
        return _Challenge(
            fields.get("realm", ""), fields["nonce"], fields.get("opaque", ""), algorithm, bool(offered), stale
        )
    return None


def _octets(raw: bytes) -> str:
    """Bytes as text of one character each: what a server sent is given back to it byte for byte."""
    return raw.decode("latin-1")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


# ---------------------------------------------------------------- the client


class OpsManager:
    """Ops Manager's restore jobs. Use as an async context manager. `origin` and `tls` tell how it is reached.

    `unknown` holds an error for each job id of the last reading that Ops Manager does not know, while it knows others.
    Every method raises AccessRefused, NotFound, RedirectRefused, TlsError, or a PassingApiError.
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
        self.unknown: tuple[NotFound, ...] = ()
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
        found, unknown = [], []
        for job_id in target.job_ids:
            try:
                found.append(await self.job(target, job_id))
            except NotFound as error:
                error.archive = job_id
                unknown.append(error)
        self.unknown = tuple(unknown)
        if unknown and not found:
            raise unknown[0]
        return found

    async def job(self, target: Target, job_id: str) -> Job:
        """One restore job by its id."""
        document = await self._get(f"{_place(target)}/restoreJobs/{quote(job_id)}", {})
        return self._learnt(_job(document))

    async def largest_size(self, target: Target, snapshot_id: str, cluster_id: str | None) -> int | None:
        """An upper bound of an archive's size in bytes: the snapshot part's `fileSizeBytes` (uncompressed)."""
        if target.cluster_id is None:
            return None
        if snapshot_id not in self._sizes:  # a batch shares its snapshot
            document = await self._get(f"{_place(target)}/snapshots/{quote(snapshot_id)}", {})
            self._sizes[snapshot_id] = _part_sizes(document.get("parts"))
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
            new = {job.id: job for entry in _results(document) if (job := _job(entry)).id not in found}
            found |= new
            if not new or not _goes_on(document, len(found)):
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
        if job.link:
            self._redactor.learn_url(job.link.url)
            if job.link.header:
                value = job.link.header[1].reveal()
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
        return _document(body)


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


def _document(body: bytes) -> dict[str, Any]:
    """The JSON object in a body, out of its envelope. Raises AnswerUnusable."""
    try:
        document = parse_document(body)
    except ValueError:
        start = printable(body[:60].decode("utf-8", "replace"))
        raise AnswerUnusable(f"the API's answer is not JSON; it begins with {start!r}") from None
    if not isinstance(document, dict):
        raise AnswerUnusable("the API's answer is JSON, but no object")
    if "status" in document and isinstance(document.get("content"), dict):
        return dict(document["content"])
    return document


def _results(document: dict[str, Any]) -> list[Any]:
    results = document.get("results")
    if not isinstance(results, list):
        raise AnswerUnusable("the API's answer has no list of results")
    return results


def _job(entry: Any) -> Job:
    try:
        return parse_job(entry)
    except ValueError as error:
        raise AnswerUnusable(f"the API's answer is unusable: {error}") from None


def _count(value: Any) -> int | None:
    """A whole number that a server may have sent as a string or a float; None for anything else."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 62:
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _part_sizes(parts: Any) -> dict[Any, int | None]:
    """Cluster id to `fileSizeBytes` of a snapshot's parts."""
    known = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return {str(part.get("clusterId")): _count(part.get("fileSizeBytes")) for part in known}


def _goes_on(document: dict[str, Any], so_far: int) -> bool:
    """Whether another page is worth asking for: `totalCount` or a `next` link says so, or neither tells the end."""
    total, links = _count(document.get("totalCount")), document.get("links")
    if isinstance(links, list) and any(isinstance(link, dict) and link.get("rel") == "next" for link in links):
        return True
    return total is None or total > so_far


# ---------------------------------------------------------------- errors


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
    status, said = response.status_code, _error_text(response.status_code, body)
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


def _error_text(status: int, body: bytes) -> str:
    """`HTTP 403 IP_ADDRESS_NOT_ON_ACCESS_LIST: detail`, as far as the error document goes."""
    code = detail = ""
    try:
        document = parse_document(body[:65536])
        code, detail = (str(document.get(name) or "") for name in ("errorCode", "detail"))
        detail = detail or str(document.get("reason") or "")
    except (ValueError, AttributeError):
        pass
    text = f"HTTP {status} {printable(code, 80)}".rstrip()
    return f"{text}: {printable(detail, 300)}" if detail else text
