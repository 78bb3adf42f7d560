"""One attempt at one delivery URL: a checked answer and a stream of raw blocks.

The bytes are taken as they are sent: `identity` is requested and nothing is decoded, because Ops Manager publishes the
SHA1 of the `.tar.gz` itself.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

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
from .proxies import DEFAULT_PORTS, Proxies
from .tls import tls_problem
from .transport import BLOCKS, NEVER_SENT, BlockStream, BlockTransport, TlsPort, names_tls_port, status_line

_MOST_REDIRECTS = 5

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")

_PROXY_HINT = "Set the user name and password of the proxy in https_proxy or http_proxy, percent-encoded."


@dataclass(frozen=True)
class Resume:
    """Offset at which to continue, and the validator that ties the rest to the bytes on disk."""

    offset: int
    validator: str
    total: int | None


class Body:
    """The answer to one GET, with a checked head.

    `offset` is the position of its first byte in the archive: 0 unless a resume was honored. `total` is the size of the
    archive if it is announced. `content_type` and `validator` contain no secret.
    """

    def __init__(self, response: httpx.Response, offset: int, total: int | None, redactor: Redactor) -> None:
        self.offset = offset
        self.is_delimited = total is not None or "Transfer-Encoding" in response.headers
        self.total = total
        self.validator = _validator(response)
        if self.validator and redactor.clean(self.validator) != self.validator:
            self.validator = None  # it echoes the token, and would be written to the journal
        self.content_type = printable(redactor.clean(response.headers.get("Content-Type", "none")), 60)
        self._received = 0
        self._expected = None if total is None else total - offset
        self._source = _stream_of(response)

    @property
    def fills_blocks(self) -> bool:
        """Whether one system call fills a block, however large."""
        return self._source.fills_blocks

    async def read(self, block: memoryview) -> int:
        """Fill `block` with the next raw bytes and return the count; 0 at the end. Raises TransferCut."""
        with _as_cut():
            return self._counted(await self._source.readinto(block))

    async def run(self, work: Callable[[Callable[[memoryview], int]], None]) -> None:
        """Run `work` in the thread that reads. It gets a `readinto` that blocks and returns 0 at the end.

        Raises TransferCut, and whatever `work` raises.
        """
        with _as_cut():
            await self._source.run(lambda readinto: work(lambda block: self._counted(readinto(block))))

    def _counted(self, got: int) -> int:
        """Compare the bytes received so far with the announced length. Raises TransferCut."""
        self._received += got
        if self._expected is not None and self._received > self._expected:
            raise TransferCut("the body is longer than announced", spent=True)
        if not got and self._expected is not None and self._received < self._expected:
            missing = self._expected - self._received
            raise TransferCut(f"the body ended {missing} bytes early", spent=True)
        return got


@contextmanager
def _as_cut() -> Iterator[None]:
    """Raise httpx's exceptions inside a body as TransferCut."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise TransferCut("the transfer stalled: no byte within --stall-timeout", spent=True) from error
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
        raise TransferCut(f"the connection broke ({_detail(error)})", spent=True) from error


class DeliveryClient:
    """Requests delivery URLs, up to `transfers` in parallel. An async context manager.

    It never sends HEAD, a probe, or the API's credentials.
    """

    def __init__(self, context: ssl.SSLContext, stall_timeout: float, redactor: Redactor, transfers: int = 1) -> None:
        self._redactor = redactor
        transport = BlockTransport(context, stall_timeout, Proxies(redactor), transfers=transfers)
        self._client = httpx.AsyncClient(transport=transport, trust_env=False, timeout=stall_timeout)
        self._client.headers = httpx.Headers({"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": USER_AGENT})

    async def __aenter__(self) -> DeliveryClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def open(self, delivery_url: DeliveryUrl, resume: Resume | None, now: float) -> AsyncIterator[Body]:
        """Send one GET and check the head of its answer. `now` is the server's time, for Retry-After dates.

        Raises TlsError, or an AttemptFailed: ConnectFailed (nothing was sent), DeliveryRefused, ResumeRefused,
        TransferCut. A complete answer to a Range request is accepted: its body starts at 0.
        """
        self._learn(delivery_url)
        response = await self._send(delivery_url, resume, now)
        try:
            yield await self._checked(response, resume, now)
        finally:
            await response.aclose()

    def _learn(self, delivery_url: DeliveryUrl) -> None:
        """Register the secrets of a URL with the redactor. They may be older than those of the latest poll result."""
        self._redactor.learn_url(delivery_url.url)
        if delivery_url.header:
            self._redactor.learn_header(delivery_url.header[1])

    async def _send(self, delivery_url: DeliveryUrl, resume: Resume | None, now: float) -> httpx.Response:
        try:
            request = self._request(httpx.URL(delivery_url.url), delivery_url, resume, with_token=True)
        except httpx.InvalidURL:
            raise DeliveryRefused("the delivery URL does not parse", spent=False) from None
        first = request.url
        for hop in range(_MOST_REDIRECTS + 1):
            try:
                response = await self._client.send(request, stream=True)
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                raise delivery_error(error, redirected=hop > 0) from error
            if not response.has_redirect_location:
                return response
            target = _redirected(response)
            self._redactor.learn_url(str(target))
            await response.aclose()
            request = self._request(target, delivery_url, resume, with_token=_origin(target) == _origin(first))
        raise DeliveryRefused(f"the delivery URL redirects more than {_MOST_REDIRECTS} times", spent=True)

    def _request(
        self, url: httpx.URL, delivery_url: DeliveryUrl, resume: Resume | None, *, with_token: bool
    ) -> httpx.Request:
        headers: dict[str, str] = {}
        if delivery_url.header and with_token:
            headers[delivery_url.header[0]] = delivery_url.header[1].reveal()
        if resume:
            headers["Range"] = f"bytes={resume.offset}-"
            headers["If-Range"] = resume.validator
        self._client.cookies.clear()  # attempts are independent; nothing is carried from one job to another
        return self._client.build_request("GET", url, headers=headers)

    async def _checked(self, response: httpx.Response, resume: Resume | None, now: float) -> Body:
        """Return the body that the head of an answer announces. Raises DeliveryRefused or ResumeRefused."""
        if response.status_code in (200, 203):
            return Body(response, 0, _stream_of(response).length, self._redactor)
        if not resume and (total := _whole_range(response)) is not None:
            return Body(response, 0, total, self._redactor)
        if response.status_code == 206 and resume:
            return Body(response, resume.offset, _resumed_total(response, resume), self._redactor)
        if response.status_code == 416 and resume:
            complete = response.headers.get("Content-Range", "").strip() == f"bytes */{resume.offset}"
            text = "the server does not continue the transfer where it was interrupted (HTTP 416)"
            raise ResumeRefused(text, complete=complete, spent=True)
        raise await _refused(response, now)


def delivery_error(error: Exception, *, redirected: bool = False) -> AgentError:
    """Return the error that an httpx exception before the head of a delivery's answer stands for.

    `redirected` is whether another host has already answered a GET.
    """
    if problem := tls_problem(error):
        spent = redirected or not isinstance(error, NEVER_SENT)
        return TlsError(f"TLS to the delivery host failed: {problem}", spent=spent)
    if isinstance(error, NEVER_SENT):
        hint = _PROXY_HINT if getattr(error, "status", None) == 407 else None
        message = f"the delivery host cannot be reached ({_detail(error)})"
        return ConnectFailed(message, spent=redirected, hint=hint)
    if isinstance(error, TlsPort):
        return DeliveryRefused("the delivery URL starts with http, but its port expects https", spent=redirected)
    if isinstance(error, httpx.TimeoutException):
        return TransferCut("the delivery host did not answer within --stall-timeout", spent=True)
    return TransferCut(f"the connection broke before the answer ({_detail(error)})", spent=True)


def _detail(error: Exception) -> str:
    return printable(str(error), 100) or type(error).__name__


def _stream_of(response: httpx.Response) -> BlockStream:
    stream = response.extensions[BLOCKS]
    assert isinstance(stream, BlockStream)  # noqa: S101  # the transport puts it there
    return stream


def _redirected(response: httpx.Response) -> httpx.URL:
    try:
        target = response.request.url.join(response.headers["Location"])
    except (httpx.InvalidURL, ValueError):
        raise DeliveryRefused("the delivery URL redirects to an invalid URL", spent=True) from None
    if target.scheme not in ("http", "https") or not target.host or (target.port or 0) > 65535:
        raise DeliveryRefused("the delivery URL redirects to a URL that is not http or https", spent=True)
    if response.request.url.scheme == "https" and target.scheme == "http":
        raise DeliveryRefused("the delivery URL redirects from https to http, which is not followed", spent=True)
    return target


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or DEFAULT_PORTS[url.scheme]


async def _refused(response: httpx.Response, now: float) -> AttemptFailed:
    status = response.status_code
    if status == 407:
        return ConnectFailed("the proxy requires a user name and a password (HTTP 407)", spent=False, hint=_PROXY_HINT)
    if status == 400 and response.request.url.scheme == "http" and names_tls_port(await _beginning(response)):
        return DeliveryRefused("the delivery URL starts with http, but its port expects https (HTTP 400)", spent=False)
    wait = retry_after(response.headers.get("Retry-After"), now)
    return DeliveryRefused(f"the delivery URL answered {status_line(status)}", spent=True, retry_after=wait)


async def _beginning(response: httpx.Response) -> bytes:
    """Return the first bytes of a refusal's body, or nothing if it cannot be read."""
    block = memoryview(bytearray(2000))
    try:
        return bytes(block[: await _stream_of(response).readinto(block)])
    except httpx.HTTPError:
        return b""


def _whole_range(response: httpx.Response) -> int | None:
    """Return the size of the archive if an answer 206 to a request for all of it says that it has all of it."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if response.status_code != 206 or not match or match[1] != "0" or match[3] != str(int(match[2]) + 1):
        return None
    return int(match[3])


def _resumed_total(response: httpx.Response, resume: Resume) -> int:
    """Return the size of the archive if the answer is the rest of the same one (RFC 9110, 14.4 and 15.3.7)."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if not match or match[3] == "*":
        raise ResumeRefused("HTTP 206 without an exact Content-Range", spent=True)
    first, last, total = int(match[1]), int(match[2]), int(match[3])
    if first != resume.offset or last != total - 1 or (resume.total is not None and total != resume.total):
        raise ResumeRefused("HTTP 206 for a range that was not requested", spent=True)
    if (seen := _validator(response)) is not None and seen != resume.validator:
        raise ResumeRefused("HTTP 206 of another version of the archive", spent=True)
    length = _stream_of(response).length
    if length is not None and length != last - first + 1:
        raise ResumeRefused("HTTP 206 whose length contradicts its Content-Range", spent=True)
    return total


def _validator(response: httpx.Response) -> str | None:
    """Return a value for If-Range: a strong ETag, else Last-Modified (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag")
    if etag is not None:
        return etag if re.fullmatch(r'"[\x21\x23-\x7e]{0,200}"', etag) else None
    modified = response.headers.get("Last-Modified", "")
    return modified if re.fullmatch(r"[A-Za-z0-9,: +-]{1,60}", modified) else None
