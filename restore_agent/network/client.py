"""httpx clients and TLS contexts for the configured options."""

from __future__ import annotations

import ssl
import sys
from typing import Any

import httpx

from ..core.errors import UsageError
from ..core.settings import Connection
from ..core.untrusted import printable


def client(**options: Any) -> httpx.AsyncClient:
    """An httpx client. Raises UsageError when a proxy variable names what cannot be used as a proxy."""
    try:
        return httpx.AsyncClient(follow_redirects=False, **options)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        detail = printable(str(error), 120)
        raise UsageError(f"the proxy variables (https_proxy, all_proxy, …) cannot be used: {detail}") from None


def tls_context(connection: Connection) -> ssl.SSLContext:
    """TLS as the operator wants it: the system's trust store, or --ca-file; a client certificate if given.

    Raises UsageError when a file cannot be loaded.
    """
    try:
        context = ssl.create_default_context(cafile=str(connection.ca_file)) if connection.ca_file else _OnDemand()
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"--ca-file {connection.ca_file} holds no usable certificates ({error})") from None
    if connection.client_cert:
        try:
            context.load_cert_chain(connection.client_cert, connection.client_key, password=_no_password)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(f"--client-cert and --client-key cannot be used ({error})") from None
    return context


# a cut, a closed session, and "not yet": a timeout while waiting for the peer has the last one in its context
_NO_COMPLAINT = (
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
    ssl.SSLSyscallError,
)


class _OnDemand(ssl.SSLContext):
    """What `ssl.create_default_context` makes, but the system's trust store is loaded with the first connection.

    Loading it took 50 of the 300 ms of a short run, and over http, or with --ca-file, nobody asks it.
    """

    def __new__(cls) -> _OnDemand:
        """As `ssl.create_default_context` of this Python would have it; it cannot make a subclass."""
        context = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        if sys.version_info >= (3, 13):
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
        return context

    def __init__(self) -> None:
        self._loaded = False

    def wrap_bio(self, *arguments: Any, **more: Any) -> ssl.SSLObject:
        """Every connection of ours, and of httpx's stock transport, comes by here."""
        self._load()
        return super().wrap_bio(*arguments, **more)

    def wrap_socket(self, *arguments: Any, **more: Any) -> ssl.SSLSocket:
        """For who does without asyncio."""
        self._load()
        return super().wrap_socket(*arguments, **more)

    def _load(self) -> None:
        if not self._loaded:
            self.load_default_certs(ssl.Purpose.SERVER_AUTH)
            self._loaded = True


def _no_password() -> str:
    raise UsageError("--client-key is encrypted; give a key without a pass phrase, guarded by its file mode")


def tls_problem(error: BaseException) -> str | None:
    """What TLS had against the peer, if that is what is behind an exception; None for mere cuts."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen.verify_message or "certificate verify failed"
        if isinstance(seen, ssl.SSLError) and not isinstance(seen, _NO_COMPLAINT):
            return (seen.reason or "TLS failure").replace("_", " ").lower()
        seen = seen.__cause__ or seen.__context__
    return None
