"""TLS as the operator wants it, and what it had against a peer."""

from __future__ import annotations

import ssl

from .errors import UsageError
from .settings import Connection


def tls_context(connection: Connection) -> ssl.SSLContext:
    """TLS as the operator wants it: the system's trust store, or --ca-file; a client certificate if given.

    Raises UsageError when a file cannot be loaded.
    """
    try:
        context = ssl.create_default_context(cafile=str(connection.ca_file) if connection.ca_file else None)
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
