"""TLS of the simulated server: files of certificates, contexts, and the handshake."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

from ..faults.faults import Faults
from .certificates import Authority, Certificate

_HANDSHAKE_TIMEOUT = 10.0

_HANDSHAKE_RECORD = b"\x16"

_PLAIN_400 = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 48\r\n\r\n"
    b"Client sent an HTTP request to an HTTPS server.\n"
)


class TlsFiles:
    """Certificate authority of one simulator and its files in `directory`."""

    def __init__(self, authority: Authority, directory: Path) -> None:
        self._authority, self._directory = authority, directory
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_text(authority.certificate)

    def server_context(self, host: str, faults: Faults) -> ssl.SSLContext:
        """Return the context of a server at `host`."""
        hosts = ["elsewhere.example"] if faults.wrong_host else ["localhost", "127.0.0.1", "::1", host]
        pair = self._authority.server(list(dict.fromkeys(hosts)), expired=faults.expired_cert)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._write_pair("server", pair))
        if faults.client_cert:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca_file)
        return context

    def client_pair(self, name: str) -> tuple[Path, Path]:
        """Return the files of a client certificate and its key."""
        return self._write_pair("client", self._authority.client(name))

    def _write_pair(self, stem: str, pair: Certificate) -> tuple[Path, Path]:
        certificate, key = self._directory / f"{stem}.pem", self._directory / f"{stem}.key"
        certificate.write_text(pair.certificate)
        key.touch(mode=0o600)
        key.write_text(pair.key)
        return certificate, key


def handshake(connection: ssl.SSLSocket, plain_400: bool) -> None:
    """Do the server's part of the TLS handshake, in the thread of the connection.

    `plain_400`: answer plain HTTP with 400 instead of closing. Raises OSError if there is no TLS.
    """
    connection.settimeout(_HANDSHAKE_TIMEOUT)
    # recv of the plain socket: that of SSLSocket accepts no flags, and reads through TLS
    if plain_400 and socket.socket.recv(connection, 1, socket.MSG_PEEK)[:1] not in (_HANDSHAKE_RECORD, b""):
        socket.socket.send(connection, _PLAIN_400)
        _deliver_alert(connection)
        raise ConnectionAbortedError
    try:
        connection.do_handshake()
    except ssl.SSLError:
        _deliver_alert(connection)
        raise
    connection.settimeout(None)


def _deliver_alert(connection: ssl.SSLSocket) -> None:
    """Read what the client still sends: closing with unread data sends RST, which overtakes the alert."""
    connection.settimeout(0.5)
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_WR)
        while socket.socket.recv(connection, 65536):
            pass
