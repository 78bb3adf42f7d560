"""One attempt at one delivery URL: a checked answer and a stream of raw blocks.

The other border where httpx errors become ours. Bytes are taken as they are sent: identity is asked for, and
nothing is decoded, because the SHA1 that Ops Manager publishes is that of the `.tar.gz` itself.
"""

from __future__ import annotations

import re
import ssl
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import httpx

from .. import USER_AGENT
from ..core.clock import retry_after
from ..core.errors import (
    AgentError,
    AttemptFailed,
    ConnectFailed,
    DeliveryRefused,
    ResumeRefused,
    TlsError,
    TransferCut,
)
from ..core.jobs import DeliveryUrl
from ..core.redaction import Redactor
from ..core.untrusted import printable
from .client import client, tls_problem
from .transport import BLOCKS, BlockStream, BlockTransport

_MOST_REDIRECTS = 5

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.PoolTimeout, httpx.LocalProtocolError)


@dataclass(frozen=True)
class Resume:
    """From where to go on, and the validator that ties the rest to what is there."""

    offset: int
    validator: str
    total: int | None


class Body:
    """The answer to one GET, its head already checked.

    `offset` is where its first byte belongs: 0 unless a resume was honoured. `total` is the whole archive's size
    where the server told it.
    """

    def __init__(self, response: httpx.Response, offset: int, total: int | None) -> None:
        self.offset = offset
        self.total = total
        self.validator = _validator(response)
        self.content_type = printable(response.headers.get("Content-Type", "none"), 60)
        self._received = 0
        self._expected = None if total is None else total - offset
        blocks = response.extensions.get(BLOCKS)
        self._source = blocks if isinstance(blocks, BlockStream) else _Refilled(response)

    @property
    def fills_blocks(self) -> bool:
        """Whether a block, however large, is filled by the kernel alone."""
        return isinstance(self._source, BlockStream) and self._source.fills_blocks

    async def read(self, block: memoryview) -> int:
        """Fill `block` with the next raw bytes and return how many; 0 at the end. Raises TransferCut."""
        with _as_cut():
            return self._counted(await self._source.readinto(block))

    @property
    def has_own_thread(self) -> bool:
        """Whether the body is read in a thread of its own, so that `run` can be used."""
        return isinstance(self._source, BlockStream)

    async def run(self, work: Callable[[Callable[[memoryview], int]], None]) -> None:
        """Run `work` in the thread that reads. It gets a `readinto` that blocks and returns 0 at the end.

        Raises TransferCut, and whatever `work` raises. Only for a body that has a thread of its own.
        """
        if not isinstance(self._source, BlockStream):
            raise TypeError("this body has no thread of its own")
        with _as_cut():
            await self._source.run(lambda readinto: work(lambda block: self._counted(readinto(block))))

    def _counted(self, got: int) -> int:
        """Hold the bytes against what the head promised. Raises TransferCut."""
        self._received += got
        if self._expected is not None and self._received > self._expected:
            raise TransferCut("the body is longer than its head says", spent=True)
        if not got and self._expected is not None and self._received < self._expected:
            missing = self._expected - self._received
            raise TransferCut(f"the body ended {missing} bytes early", spent=True)
        return got


@contextmanager
def _as_cut() -> Iterator[None]:
    """What httpx raises inside a body, as TransferCut."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise TransferCut("the transfer stalled: no byte within --stall-timeout", spent=True) from error
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
        raise TransferCut(f"the connection broke ({_detail(error)})", spent=True) from error


class _Refilled:
    """Blocks out of httpx's stock transport, which hands out chunks of its own size."""

    def __init__(self, response: httpx.Response) -> None:
        self._chunks = response.aiter_raw()
        self._rest = memoryview(b"")

    async def readinto(self, block: memoryview) -> int:
        if not self._rest:
            self._rest = memoryview(await anext(self._chunks, b""))
        size = min(len(block), len(self._rest))
        block[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class DeliveryClient:
    """Opens delivery URLs. Never a HEAD, never a probe, never the API's credentials. An async context manager."""

    def __init__(self, context: ssl.SSLContext, stall_timeout: float, redactor: Redactor) -> None:
        self._redactor = redactor
        # an explicit transport would bypass the proxies that httpx reads from the environment
        proxied = any(scheme in urllib.request.getproxies() for scheme in ("http", "https", "all"))
        transport = None if proxied else BlockTransport(context, stall_timeout)
        timeout = httpx.Timeout(stall_timeout, connect=min(15.0, stall_timeout))
        self._client = client(verify=context, transport=transport, timeout=timeout)
        self._client.headers = httpx.Headers({"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": USER_AGENT})

    async def __aenter__(self) -> DeliveryClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def open(self, link: DeliveryUrl, resume: Resume | None, now: float) -> AsyncIterator[Body]:
        """Send one GET and check the head of its answer. `now` is the server's time, for Retry-After dates.

        Raises TlsError, or an AttemptFailed: ConnectFailed (nothing was sent), DeliveryRefused, ResumeRefused,
        TransferCut. A whole answer to a Range request is not refused: its body starts at 0.
        """
        response = await self._send(link, resume, now)
        try:
            body = _checked(response, resume, now)
            if body.validator and self._redactor.clean(body.validator) != body.validator:
                body.validator = None  # it holds the token, and would be journalled
            yield body
        finally:
            await response.aclose()

    async def _send(self, link: DeliveryUrl, resume: Resume | None, now: float) -> httpx.Response:
        try:
            request = self._request(httpx.URL(link.url), link, resume, with_token=True)
        except httpx.InvalidURL:
            raise DeliveryRefused("the delivery URL does not parse", spent=False) from None
        first = request.url
        for hop in range(_MOST_REDIRECTS + 1):
            try:
                response = await self._exchange(request)
            except AgentError as error:
                error.spent = error.spent or hop > 0  # the first host has seen a GET already
                raise
            if not response.has_redirect_location:
                return response
            target = _redirected(response)
            self._redactor.learn_url(str(target))
            await response.aclose()
            request = self._request(target, link, resume, with_token=_origin(target) == _origin(first))
        raise DeliveryRefused(f"the delivery URL redirects more than {_MOST_REDIRECTS} times", spent=True)

    def _request(self, url: httpx.URL, link: DeliveryUrl, resume: Resume | None, *, with_token: bool) -> httpx.Request:
        headers: dict[str, str] = {}
        if link.header and with_token:
            headers[link.header[0]] = link.header[1].reveal()
        if resume:
            headers["Range"] = f"bytes={resume.offset}-"
            headers["If-Range"] = resume.validator
        self._client.cookies.clear()  # each attempt stands alone; nothing is carried from one job to another
        return self._client.build_request("GET", url, headers=headers)

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise delivery_error(error) from error


def delivery_error(error: Exception) -> AgentError:
    """What an httpx exception before the head of a delivery's answer means."""
    if problem := tls_problem(error):
        return TlsError(f"TLS to the delivery host failed: {problem}", spent=not isinstance(error, _NEVER_SENT))
    if isinstance(error, _NEVER_SENT):
        return ConnectFailed(f"the delivery host cannot be reached ({_detail(error)})", spent=False)
    if isinstance(error, httpx.TimeoutException):
        return TransferCut("the delivery host did not answer within --stall-timeout", spent=True)
    return TransferCut(f"the connection broke before the answer ({_detail(error)})", spent=True)


def _detail(error: Exception) -> str:
    return printable(str(error), 100) or type(error).__name__


def _redirected(response: httpx.Response) -> httpx.URL:
    try:
        target = response.request.url.join(response.headers["Location"])
    except (httpx.InvalidURL, ValueError):
        raise DeliveryRefused("the delivery URL redirects to something that is no URL", spent=True) from None
    if target.scheme not in ("http", "https") or not target.host or (target.port or 0) > 65535:
        raise DeliveryRefused("the delivery URL redirects to something that is not http", spent=True)
    if response.request.url.scheme == "https" and target.scheme == "http":
        raise DeliveryRefused("the delivery URL redirects from https to http, which is not followed", spent=True)
    return target


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _checked(response: httpx.Response, resume: Resume | None, now: float) -> Body:
    """The body that an answer's head promises. Raises DeliveryRefused or ResumeRefused."""
    if response.status_code == 200:
        return Body(response, 0, _length(response))
    if response.status_code == 206 and resume:
        return _resumed(response, resume)
    if response.status_code == 416 and resume:
        raise ResumeRefused("the server does not take up the transfer where it was cut (HTTP 416)", spent=True)
    raise _refused(response, now)


def _refused(response: httpx.Response, now: float) -> AttemptFailed:
    status = response.status_code
    phrase = HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else "unknown status"
    refusal = DeliveryRefused(f"the delivery URL answered HTTP {status} {phrase}", spent=True)
    refusal.retry_after = retry_after(response.headers.get("Retry-After"), now)
    return refusal


def _resumed(response: httpx.Response, resume: Resume) -> Body:
    """The rest of an archive, if this answer proves that it is the rest of the same one (RFC 9110, 14.4 and 15.3.7)."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if not match or match[3] == "*":
        raise ResumeRefused("HTTP 206 without an exact Content-Range", spent=True)
    first, last, total = int(match[1]), int(match[2]), int(match[3])
    if first != resume.offset or last != total - 1 or (resume.total is not None and total != resume.total):
        raise ResumeRefused("HTTP 206 for another range than the one that was asked for", spent=True)
    if (seen := _validator(response)) is not None and seen != resume.validator:
        raise ResumeRefused("HTTP 206 of another version of the archive", spent=True)
    length = _length(response)
    if length is not None and length != last - first + 1:
        raise ResumeRefused("HTTP 206 whose length contradicts its Content-Range", spent=True)
    return Body(response, first, total)


def _length(response: httpx.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    chunked = "Transfer-Encoding" in response.headers
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 and not chunked else None


def _validator(response: httpx.Response) -> str | None:
    """What If-Range may carry: a strong ETag, else Last-Modified (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag")
    if etag is not None:
        return etag if re.fullmatch(r'"[\x21\x23-\x7e]{0,200}"', etag) else None
    modified = response.headers.get("Last-Modified", "")
    return modified if re.fullmatch(r"[A-Za-z0-9,: +-]{1,60}", modified) else None
