"""TLS context for the configured options, and the reason why TLS rejected a peer."""

from __future__ import annotations

import ssl

from ..core.errors import UsageError
from ..core.settings import Connection

# An interrupted connection, a closed session, and "not yet": a timeout while waiting for the peer has the last one in
# its context.
_NOT_A_REJECTION = (
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
    ssl.SSLSyscallError,
)


def tls_context(connection: Connection) -> ssl.SSLContext:
    """Return a context with the system's trust store or --ca-file, and the client certificate if one is configured.

    Raises UsageError if a file cannot be loaded.
    """
    try:
        context = ssl.create_default_context(cafile=str(connection.ca_file) if connection.ca_file else None)
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"--ca-file {connection.ca_file} contains no usable certificates ({error})") from None
    # As curl and OpenSSL do, and the same on every Python: a trusted intermediate is enough, and a certificate that
    # lacks optional extensions of RFC 5280 is accepted. Python 3.13 changed both defaults.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if connection.client_cert:
        try:
            context.load_cert_chain(connection.client_cert, connection.client_key, password=_no_password)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(f"--client-cert and --client-key cannot be used ({error})") from None
    return context


def trust_store(connection: Connection, context: ssl.SSLContext) -> str:
    """Return where trusted certificates come from, for people."""
    if connection.ca_file:
        return f"--ca-file {connection.ca_file}"
    paths = ssl.get_default_verify_paths()
    place = ", ".join(str(path) for path in (paths.cafile, paths.capath) if path) or "empty"
    count = context.cert_store_stats()["x509_ca"]
    return f"the system's trust store ({place}; {count} CA certificates loaded)"


def _no_password() -> str:
    raise UsageError("--client-key is encrypted; use a key without a pass phrase and protect it by its file mode")


def tls_problem(error: BaseException) -> str | None:
    """Return the reason why TLS rejected the peer, or None if the exception has another cause."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen.verify_message or "certificate verify failed"
        if isinstance(seen, ssl.SSLError) and not isinstance(seen, _NOT_A_REJECTION):
            return (seen.reason or "TLS failure").replace("_", " ").lower()
        seen = seen.__cause__ or seen.__context__
    return None
