"""HTTP digest authentication (RFC 7616) for httpx."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import httpx

from ..core.redaction import Redactor
from ..core.settings import Connection

_MOST_CHALLENGES = 6


class DigestAuth(httpx.Auth):
    """HTTP digest (RFC 7616 and, without `qop`, RFC 2069), as Ops Manager requires it.

    httpx's own class cannot be used: it fails on FIPS hosts, where MD5 must be requested with `usedforsecurity=False`,
    and it does not parse several challenges in one header. A nonce is used until the server reports it as stale. No
    other scheme is ever answered.
    """

    def __init__(self, connection: Connection, redactor: Redactor) -> None:
        self._connection = connection
        self._redactor = redactor
        self._challenge: _Challenge | None = None
        self._count = 0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send with the known nonce, and again with each new challenge, until a fresh nonce is refused.

        More than one new nonce can be needed: requests share it, and a server may accept each only once.
        """
        fresh = False  # whether the last nonce came in answer to this request
        for _ in range(_MOST_CHALLENGES):
            if self._challenge:
                kept = [field for field in request.headers.raw if field[0].lower() != b"authorization"]
                request.headers = httpx.Headers([*kept, (b"Authorization", self._answer(request, self._challenge))])
            response = yield request
            if response.status_code != 401:
                return
            asked = [value for name, value in response.headers.raw if name.lower() == b"www-authenticate"]
            challenge = _challenge([_octets(value) for value in asked])
            if challenge is None or (fresh and not challenge.stale):
                return
            self._challenge, self._count, fresh = challenge, 0, True

    def _answer(self, request: httpx.Request, challenge: _Challenge) -> bytes:
        self._count += 1
        target, user = request.url.raw_path.decode("ascii"), _octets(self._connection.public_key.encode())
        secret = _octets(self._connection.private_key.reveal().encode())
        client, count = secrets.token_hex(8), f"{self._count:08x}"
        digest = challenge.hash
        first = digest(f"{user}:{challenge.realm}:{secret}")
        if challenge.session:
            first = digest(f"{first}:{challenge.nonce}:{client}")
        second = digest(f"{request.method}:{target}")
        middle = f"{challenge.nonce}:{count}:{client}:auth" if challenge.qop else challenge.nonce
        response = digest(f"{first}:{middle}:{second}")
        self._redactor.learn_passing(response)
        fields = {
            "username": user,
            "realm": challenge.realm,
            "nonce": challenge.nonce,
            "uri": target,
            "response": response,
        }
        if challenge.opaque:
            fields["opaque"] = challenge.opaque
        quoted = [f'{name}="{_escaped(value)}"' for name, value in fields.items()]
        bare = [f"algorithm={challenge.algorithm}"]
        if challenge.qop:
            bare += ["qop=auth", f"nc={count}", f'cnonce="{client}"']
        return b"Digest " + ", ".join(quoted + bare).encode("latin-1")


_ALGORITHMS = {"MD5": "md5", "SHA-256": "sha256"}
if "sha512_256" in hashlib.algorithms_available:  # an OpenSSL of a reduced build lacks it
    _ALGORITHMS["SHA-512-256"] = "sha512_256"

_LONGEST_HEADER = 16 << 10  # characters of one WWW-Authenticate header

# One element of the lists in WWW-Authenticate (RFC 9110, 11.6.1): a parameter, or a scheme that may have a token68.
# White space may stand in for a comma.
_ELEMENT = re.compile(
    r"""(?P<name>[^\s,="]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s,"]+))(?=[\s,]|$)
    |(?P<scheme>[^\s,="]+)(?:[ \t]+[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$)))?(?=[\s,]|$)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class _Challenge:
    realm: str
    nonce: str
    opaque: str
    algorithm: str
    qop: bool
    stale: bool

    @property
    def session(self) -> bool:
        return self.algorithm.upper().endswith("-SESS")

    def hash(self, text: str) -> str:
        name = _ALGORITHMS[self.algorithm.upper().removesuffix("-SESS")]
        return hashlib.new(name, text.encode("latin-1"), usedforsecurity=False).hexdigest()


def _challenge(headers: list[str]) -> _Challenge | None:
    """Return the first digest challenge that can be answered."""
    for header in headers:
        for scheme, fields in _challenges(header[:_LONGEST_HEADER]):
            if scheme == "digest" and (found := _answerable(fields)):
                return found
    return None


def _challenges(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield scheme and parameters of each challenge in a header. Parts that do not parse are skipped."""
    scheme, fields, at = "", dict[str, str](), 0
    while at < len(header):
        element = _ELEMENT.match(header, at)
        if not element:
            at += 1
            continue
        at = element.end()
        if element["scheme"]:
            if scheme:
                yield scheme, fields
            scheme, fields = element["scheme"].lower(), {}
        else:
            quoted = element["quoted"]
            value = element["bare"] if quoted is None else re.sub(r"(?s)\\(.)", r"\1", quoted)
            fields.setdefault(element["name"].lower(), value)
    if scheme:
        yield scheme, fields


def _answerable(fields: dict[str, str]) -> _Challenge | None:
    algorithm = fields.get("algorithm", "MD5")
    offered = [item.strip().lower() for item in fields.get("qop", "").split(",") if item.strip()]
    if "nonce" not in fields or algorithm.upper().removesuffix("-SESS") not in _ALGORITHMS:
        return None
    if offered and "auth" not in offered:
        return None
    stale = fields.get("stale", "").lower() == "true"
    return _Challenge(
        fields.get("realm", ""), fields["nonce"], fields.get("opaque", ""), algorithm, bool(offered), stale
    )


def _octets(raw: bytes) -> str:
    """Return bytes as text of one character each, so that a value from the server is returned byte for byte."""
    return raw.decode("latin-1")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
