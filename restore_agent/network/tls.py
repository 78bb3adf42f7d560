"""TLS context for the configured options, and the reason why TLS rejected a peer."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import UsageError
from ..core.settings import Connection
from ..core.untrusted import printable

# The places where Go looks, in its order. OpenSSL alone looks only where it was built to.
CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Gentoo; Alpine with ca-certificates
    "/etc/pki/tls/certs/ca-bundle.crt",  # RHEL, Fedora, Amazon Linux
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/tls/cacert.pem",  # OpenELEC
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # RHEL 7 and newer
    "/etc/ssl/cert.pem",  # Alpine without ca-certificates
)
CA_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")

_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # a name that OpenSSL computes from a certificate

_LARGEST_FILE = 16 << 20  # bytes; a bundle has about 250 KiB

# An interrupted connection, a closed session, and "not yet": a timeout while waiting for the peer has the last one in
# its context.
_NOT_A_REJECTION = (
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
    ssl.SSLSyscallError,
)


@dataclass(frozen=True)
class SystemStore:
    """The trust store of this host.

    `files` contain certificates, `directories` have hashed names that OpenSSL looks up on demand, and `searched` are
    all places in which certificates were looked for.
    """

    files: tuple[str, ...]
    directories: tuple[str, ...]
    searched: tuple[str, ...]

    @property
    def places(self) -> tuple[str, ...]:
        """Files and directories; empty if the host has no trust store."""
        return self.files + self.directories

    @property
    def problem(self) -> str | None:
        """The reason why no server can be trusted, or None if there is a trust store."""
        if self.places:
            return None
        return f"this host has no trust store: no CA certificates in {', '.join(map(printable, self.searched))}"


def system_store(environ: Mapping[str, str]) -> SystemStore:
    """Find the trust store of this host.

    SSL_CERT_FILE replaces the known files, and SSL_CERT_DIR the known directories, as with OpenSSL and Go. The places
    for which OpenSSL was built precede the other known places.
    """
    built = ssl.get_default_verify_paths()
    named_file, named_directories = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    directories = named_directories.split(":") if named_directories else [built.openssl_capath, *CA_DIRECTORIES]
    hashed = [directory for directory in _distinct(directories) if _has_hashed_names(directory)]
    files = [named_file] if named_file else [built.openssl_cafile, *CA_FILES]
    if not named_file and built.openssl_capath in hashed:
        files = [built.openssl_cafile]  # loading the same certificates from a bundle takes 80 ms (2026-11-26, 144 CAs)
    found = [file for file in files if _holds_certificates(file)][:1]
    if named_directories or not (found or hashed):
        found += [file for name in directories if name not in hashed for file in _plain_files(name)]
    return SystemStore(tuple(found), tuple(hashed), (*files, *directories))


def _distinct(directories: Iterable[str]) -> Iterator[str]:
    """Yield each directory once; on many hosts one is a symbolic link to another."""
    return iter({os.path.realpath(directory): directory for directory in reversed([*directories])}.values())


def _has_hashed_names(directory: str) -> bool:
    with suppress(OSError), os.scandir(directory) as entries:
        return any(_HASHED.fullmatch(entry.name) for entry in entries)
    return False


def _plain_files(directory: str) -> list[str]:
    with suppress(OSError):
        return [str(path) for path in sorted(Path(directory).iterdir()) if _holds_certificates(str(path))]
    return []


def _holds_certificates(path: str) -> bool:
    with suppress(OSError, ValueError):
        file = Path(path)
        return file.is_file() and file.stat().st_size <= _LARGEST_FILE and b"CERTIFICATE-----" in file.read_bytes()
    return False


def tls_context(connection: Connection) -> ssl.SSLContext:
    """Return a context with the system's trust store or --ca-file, and the client certificate if one is configured.

    Raises UsageError if a file that an option names cannot be loaded. A host without a trust store is not an error
    here, because a run over HTTP does not need one; `explain_rejection` reports it.
    """
    context = _with_ca_file(connection) if connection.ca_file else _with_system_store()
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


def _with_ca_file(connection: Connection) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(connection.ca_file))
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"--ca-file {connection.ca_file} contains no usable certificates ({error})") from None


def _with_system_store() -> ssl.SSLContext:
    store = system_store(os.environ)
    # with any directory given, the defaults of OpenSSL's build are not loaded in addition
    context = ssl.create_default_context(capath=(store.directories or CA_DIRECTORIES)[0])
    for directory in store.directories[1:]:
        context.load_verify_locations(capath=directory)
    for file in store.files:
        with suppress(ssl.SSLError, OSError):  # one unusable file does not spoil the others
            context.load_verify_locations(cafile=file)
    return context


def trust_store(connection: Connection, context: ssl.SSLContext) -> str:
    """Return where trusted certificates come from, for people."""
    if connection.ca_file:
        return f"--ca-file {connection.ca_file}"
    place = ", ".join(map(printable, system_store(os.environ).places)) or "empty"
    count = context.cert_store_stats()["x509_ca"]
    return f"the system's trust store ({place}; {count} CA certificates loaded)"


def explain_rejection(error: ssl.SSLError, context: ssl.SSLContext) -> None:
    """Add to the error that the host has no trust store, if that is the reason."""
    if isinstance(error, ssl.SSLCertVerificationError) and not context.cert_store_stats()["x509"]:
        problem = system_store(os.environ).problem
        if problem:
            error.add_note(problem)


def _no_password() -> str:
    raise UsageError("--client-key is encrypted; use a key without a pass phrase and protect it by its file mode")


def tls_problem(error: BaseException) -> str | None:
    """Return the reason why TLS rejected the peer, or None if the exception has another cause."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            notes = getattr(seen, "__notes__", [])
            return "; ".join([seen.verify_message or "certificate verify failed", *notes])
        if isinstance(seen, ssl.SSLError) and not isinstance(seen, _NOT_A_REJECTION):
            return (seen.reason or "TLS failure").replace("_", " ").lower()
        seen = seen.__cause__ or seen.__context__
    return None
