"""TLS for the configured options: what is trusted, the same on every Python."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from restore_agent.core.errors import UsageError
from restore_agent.core.redaction import Secret
from restore_agent.core.settings import Connection
from restore_agent.network.tls import tls_context


def handshake(context: ssl.SSLContext, served: ssl.SSLContext, host: str = "localhost") -> None:
    """Shake hands in memory. Raises ssl.SSLError."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(back, there, server_hostname=host)
    server = served.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


def context_for(ca_file: Path) -> ssl.SSLContext:
    return tls_context(Connection("https://localhost", "key", Secret("secret"), ca_file=ca_file))


def test_an_intermediate_alone_is_enough_to_trust_what_it_signed(tmp_path: Path) -> None:
    root = trustme.CA()
    intermediate, other = root.create_child_ca(), root.create_child_ca()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    intermediate.issue_cert("localhost").configure_cert(served)
    for authority in (root, intermediate):
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        handshake(context_for(tmp_path / "ca.pem"), served)
    other.cert_pem.write_to_path(tmp_path / "ca.pem")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context_for(tmp_path / "ca.pem"), served)


def test_the_flags_are_those_of_curl_on_every_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    for context in (context_for(tmp_path / "ca.pem"), tls_context(Connection("https://h", "key", Secret("secret")))):
        assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_ca_file_without_certificates_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for path in (tmp_path / "ca.pem", tmp_path / "missing"):
        with pytest.raises(UsageError, match="contains no usable certificates"):
            context_for(path)
