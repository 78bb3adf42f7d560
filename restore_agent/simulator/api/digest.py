"""Server side of HTTP digest authentication (RFC 7616 with MD5; RFC 2069 where no qop is offered)."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Literal

REALM = "MMS Public API"

NONCE_LIFE = 300.0
"""Seconds for which a nonce is valid, however often it is used."""

Verdict = Literal["none", "digest", "digest-stale", "digest-replay", "digest-refused", "not-digest"]

_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')

_QOP = {"auth": ', qop="auth"', "none": "", "op": ', op="auth"'}


@dataclass
class _Nonce:
    """Issued nonce: its time, the number of its uses, and their `nc` values."""

    issued: float
    uses: int = 0
    counts: set[str] = field(default_factory=set)


class DigestGuard:
    """Issues nonces and checks Authorization headers. Callers hold a lock."""

    def __init__(self, public_key: str, private_key: str) -> None:
        self._user = public_key
        self._ha1 = _md5(f"{public_key}:{REALM}:{private_key}")
        self._nonces: dict[str, _Nonce] = {}

    def challenge(self, now: float, *, stale: bool, qop: str, only: bool) -> str:
        """Return a new `WWW-Authenticate` value; `qop` is `auth`, `none`, or `op`, the misprint of the reference page.

        `only` makes every earlier nonce invalid.
        """
        if only:
            self._nonces.clear()
        nonce = secrets.token_urlsafe(24)
        self._nonces[nonce] = _Nonce(now)
        flag = "true" if stale else "false"
        return f'Digest realm="{REALM}", domain="", nonce="{nonce}", algorithm=MD5{_QOP[qop]}, stale={flag}'

    def check(self, header: str | None, method: str, target: str, now: float, *, uses: int | None) -> Verdict:
        """Return the verdict on an Authorization header; a nonce is valid for `uses` requests (None: any number)."""
        if header is None:
            return "none"
        scheme, _, rest = header.partition(" ")
        if scheme.lower() != "digest":
            return "not-digest"
        given = {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(rest)}
        nonce = self._nonces.get(given.get("nonce", ""))
        if not self._is_correct(given, method, target):
            return "digest-refused"
        if nonce is None or now - nonce.issued > NONCE_LIFE or (uses is not None and nonce.uses >= uses):
            return "digest-stale"
        count = given.get("nc", "")
        if count and count in nonce.counts:
            return "digest-replay"
        nonce.uses += 1
        nonce.counts.add(count)
        return "digest"

    def _is_correct(self, given: dict[str, str], method: str, target: str) -> bool:
        if given.get("username") != self._user or given.get("realm") != REALM or given.get("uri") != target:
            return False
        ha2 = _md5(f"{method}:{target}")
        middle = given.get("nonce", "")
        if "qop" in given:
            if given["qop"] != "auth" or not given.get("nc") or not given.get("cnonce"):
                return False
            middle += f":{given['nc']}:{given['cnonce']}:auth"
        expected = _md5(f"{self._ha1}:{middle}:{ha2}")
        return hmac.compare_digest(expected.encode(), given.get("response", "").lower().encode())


def challenges(kind: str, digest: str) -> list[str]:
    """Return the `WWW-Authenticate` headers of a 401; `kind` is a value of the `challenge` fault."""
    unknown = f'Digest realm="{REALM}", nonce="{secrets.token_urlsafe(24)}", algorithm=SHA3-512, qop="auth"'
    basic = 'Basic realm="x, y=\\"z\\""'
    return {
        "digest": [digest],
        "basic-after": [f"{digest}, {basic}"],
        "basic-first": [f"{basic}, {digest}"],
        "negotiate-first": [f"Negotiate, {digest}"],
        "separate": [basic, digest],
        "digest-after": [f"{digest}, {unknown}"],
        "digest-first": [unknown, digest],
    }[kind]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
