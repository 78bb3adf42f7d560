"""TLS for the configured options: what is trusted, the same on every Python."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from restore_agent.core.errors import UsageError
from restore_agent.core.redaction import Secret
from restore_agent.core.settings import Connection
from restore_agent.network import tls
from restore_agent.network.tls import explain_rejection, system_store, tls_context, tls_problem, trust_store


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


# ---------------------------------------------------------------- the trust store of the host

PLAIN = Connection("https://localhost", "key", Secret("secret"))

LAYOUTS = {
    "debian": "etc/ssl/certs/ca-certificates.crt",
    "rhel": "etc/pki/tls/certs/ca-bundle.crt",
    "rhel7": "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "suse": "etc/ssl/ca-bundle.pem",
    "alpine": "etc/ssl/cert.pem",
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a host without a trust store, for which OpenSSL was not built."""
    root = tmp_path / "host"
    root.mkdir()
    monkeypatch.setattr(tls, "CA_FILES", tuple(f"{root}{path}" for path in tls.CA_FILES))
    monkeypatch.setattr(tls, "CA_DIRECTORIES", tuple(f"{root}{path}" for path in tls.CA_DIRECTORIES))
    nowhere = str(root / "openssl")
    built = ssl.DefaultVerifyPaths(None, None, "SSL_CERT_FILE", nowhere, "SSL_CERT_DIR", nowhere)  # type: ignore[call-arg]
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: built)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return root


def serving(authority: trustme.CA) -> ssl.SSLContext:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(served)
    return served


def written(authority: trustme.CA, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    authority.cert_pem.write_to_path(path)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_trust_store_of_each_distribution_is_found(host: Path, layout: str) -> None:
    authority = trustme.CA()
    path = written(authority, host / LAYOUTS[layout])
    context = tls_context(PLAIN)
    handshake(context, serving(authority))
    assert trust_store(PLAIN, context) == f"the system's trust store ({path}; 1 CA certificates loaded)"


def test_only_the_first_file_that_contains_certificates_is_loaded(host: Path) -> None:
    (host / "etc/ssl/certs").mkdir(parents=True)
    (host / LAYOUTS["debian"]).write_text("nothing")
    found, later = written(trustme.CA(), host / LAYOUTS["rhel"]), written(trustme.CA(), host / LAYOUTS["alpine"])
    assert system_store({}).files == (str(found),)
    found.unlink()
    assert system_store({}).files == (str(later),)


@pytest.mark.parametrize(("variable", "value"), [("SSL_CERT_FILE", "own/ca.pem"), ("SSL_CERT_DIR", "own")])
def test_a_variable_has_precedence_over_the_known_paths(
    host: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    system, own = trustme.CA(), trustme.CA()
    written(own, host / "own/ca.pem")
    monkeypatch.setenv(variable, str(host / value))
    handshake(tls_context(PLAIN), serving(own))
    path = "etc/ssl/ca-bundle.pem" if variable == "SSL_CERT_FILE" else "etc/pki/tls/certs/one.pem"
    written(system, host / path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tls_context(PLAIN), serving(system))


def test_certificates_in_directories_without_hashed_names_are_loaded(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = trustme.CA(), trustme.CA()
    directories = [
        written(first, host / "etc/pki/tls/certs/one.pem").parent,
        written(second, host / "b/two.pem").parent,
    ]
    (host / "b/notes.txt").write_text("nothing")
    handshake(tls_context(PLAIN), serving(first))
    monkeypatch.setenv("SSL_CERT_DIR", ":".join(map(str, directories)))
    for authority in (first, second):
        handshake(tls_context(PLAIN), serving(authority))


def test_a_directory_with_hashed_names_of_openssls_build_makes_the_bundle_unnecessary(host: Path) -> None:
    written(trustme.CA(), host / LAYOUTS["debian"])
    written(trustme.CA(), host / "openssl/12345678.0")
    assert system_store({}).places == (str(host / "openssl"),)


def test_without_a_trust_store_the_error_names_the_paths(host: Path) -> None:
    context = tls_context(PLAIN)
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        handshake(context, serving(trustme.CA()))
    explain_rejection(caught.value, context)
    problem = tls_problem(caught.value)
    assert problem
    assert "; this host has no trust store: no CA certificates in " in problem
    for place in (*tls.CA_FILES, *tls.CA_DIRECTORIES):
        assert place in problem


def test_with_a_trust_store_a_rejection_names_only_its_own_reason(host: Path) -> None:
    written(trustme.CA(), host / LAYOUTS["suse"])
    context = tls_context(PLAIN)
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        handshake(context, serving(trustme.CA()))
    explain_rejection(caught.value, context)
    assert "trust store" not in str(tls_problem(caught.value))
