"""Digest authentication as the RFCs define it, and the grammar of WWW-Authenticate."""

from __future__ import annotations

import hashlib
import re

import httpx
import pytest

from restore_agent.core.redaction import Redactor, Secret
from restore_agent.core.settings import Connection
from restore_agent.network.digest import DigestAuth


def answer_to(*challenges: str, path: str = "/a?b=c") -> dict[str, str] | None:
    """The fields of the Authorization header that a 401 with these challenges is answered with; None for no answer."""
    redactor = Redactor()
    flow = DigestAuth(Connection("http://h", 'us"er', Secret("key key")), redactor).auth_flow(
        request := httpx.Request("GET", f"http://h{path}")
    )
    assert "Authorization" not in next(flow).headers
    try:
        flow.send(httpx.Response(401, headers=[("WWW-Authenticate", text) for text in challenges]))
    except StopIteration:
        return None
    header = request.headers["Authorization"]
    scheme, _, rest = header.partition(" ")
    assert scheme == "Digest"
    found = re.findall(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))', rest)
    assert redactor.clean(header) != header
    return {name: re.sub(r"\\(.)", r"\1", quoted) or bare for name, quoted, bare in found}


def hashed(algorithm: str, *parts: str) -> str:
    return hashlib.new(algorithm, ":".join(parts).encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "algorithm", "session"),
    [
        ("MD5", "md5", False),
        ("md5", "md5", False),
        ("MD5-sess", "md5", True),
        ("SHA-256", "sha256", False),
        ("SHA-256-sess", "sha256", True),
        ("SHA-512-256", "sha512_256", False),
    ],
)
@pytest.mark.parametrize("qop", ['qop="auth"', 'qop="auth-int, auth"', "qop=auth", ""])
def test_the_response_is_that_of_the_rfc(name: str, algorithm: str, session: bool, qop: str) -> None:
    fields = [f'realm="a \\"b\\" c", nonce="n=1", opaque="o", algorithm={name}', qop]
    given = answer_to("Digest " + ", ".join(filter(None, fields)))
    assert given is not None
    assert given["username"] == 'us"er'
    assert given["realm"] == 'a "b" c'
    assert (given["uri"], given["nonce"], given["opaque"], given["algorithm"]) == ("/a?b=c", "n=1", "o", name)
    first = hashed(algorithm, 'us"er', 'a "b" c', "key key")
    if session and qop:
        first = hashed(algorithm, first, "n=1", given["cnonce"])
    if session and not qop:
        return  # RFC 2617 leaves it open which client nonce that would be
    middle = [given["nc"], given["cnonce"], "auth"] if qop else []
    assert given["response"] == hashed(algorithm, first, "n=1", *middle, hashed(algorithm, "GET", "/a?b=c"))


def test_a_name_or_a_challenge_beyond_ascii_is_answered_octet_by_octet() -> None:
    flow = DigestAuth(Connection("http://h", "jörg", Secret("schlüssel")), Redactor()).auth_flow(
        request := httpx.Request("GET", "http://h/a")
    )
    next(flow)
    flow.send(httpx.Response(401, headers=[(b"WWW-Authenticate", b'Digest realm="Publ\xefc", nonce="\xe9"')]))
    (sent,) = [value for name, value in request.headers.raw if name == b"Authorization"]
    assert b'username="j\xc3\xb6rg", realm="Publ\xefc", nonce="\xe9"' in sent
    first = hashlib.md5(b"j\xc3\xb6rg:Publ\xefc:schl\xc3\xbcssel").hexdigest()
    second = hashlib.md5(b"GET:/a").hexdigest()
    assert hashlib.md5(f"{first}:\xe9:{second}".encode("latin-1")).hexdigest().encode() in sent


def test_the_first_challenge_that_can_be_answered_is_taken() -> None:
    given = answer_to(
        'Basic realm="x"',
        'Digest realm="r", nonce="1", algorithm=UNKNOWN',
        'Digest realm="r", nonce="2", qop="auth-int"',
        'Digest realm="r"',
        'Digest realm="r", nonce="3", qop="auth"',
    )
    assert given is not None
    assert given["nonce"] == "3"


@pytest.mark.parametrize("challenges", [[], ["Basic realm=x"], ["Negotiate"], ["Digest"], ["Digest nonce"], ["\x01"]])
def test_a_challenge_that_is_not_digest_is_never_answered(challenges: list[str]) -> None:
    assert answer_to(*challenges) is None


GOOD = 'Digest realm="r", nonce="good", qop="auth"'


@pytest.mark.parametrize(
    "header",
    [
        f'{GOOD}, Basic realm="x"',
        f'Basic realm="x", {GOOD}',
        f'Basic realm="x, Digest nonce=bad", {GOOD}',
        f'Basic realm="x", charset="UTF-8", {GOOD}, Bearer',
        f"Negotiate, {GOOD}",
        f"Negotiate YII1234+/==, {GOOD}, NTLM",
        f"NTLM,{GOOD}",
        f", ,{GOOD} ,",
        f'{GOOD}, Digest realm="s", nonce="other", algorithm=SHA-256',
        f'{GOOD}, Digest realm="s", nonce="other", algorithm=UNKNOWN',
        f'Digest realm="s", nonce="other", algorithm=UNKNOWN, {GOOD}',
        f'Digest realm="s", nonce="other", qop="auth-int", {GOOD}',
        f'Digest realm="s", {GOOD}',
        'digest REALM="r",\tNonce = "good" , QOP="auth"',
        'Digest realm="r" nonce="good" qop="auth"',
        "DIGEST realm=r, nonce=good, qop=auth, stale=false",
        'Digest realm="r", nonce="good", qop="auth", nonce="twice"',
        'Digest username="u", realm="r", nonce="\\g\\o\\o\\d", qop="auth"',
        f'Basic realm="unfinished, {GOOD}',
    ],
)
def test_the_digest_challenge_is_found_among_others_in_one_header(header: str) -> None:
    given = answer_to(header)
    assert given is not None
    assert (given["realm"], given["nonce"], given.get("qop")) == ("r", "good", "auth")


@pytest.mark.parametrize(
    "header",
    [
        'Basic realm="Digest nonce=bad", nonce="bad"',
        'Bearer realm="digest", nonce="bad", qop="auth"',
        'NotDigest realm="r", nonce="bad"',
        'Digest realm="r", Basic nonce="bad"',
        "Digest bm9uY2U9YmFk==",
        '"Digest nonce=bad"',
        "=,=,=" * 1000,
        'Digest x="' + "y" * 100_000,
    ],
)
def test_a_nonce_of_another_scheme_is_not_used(header: str) -> None:
    assert answer_to(header) is None
