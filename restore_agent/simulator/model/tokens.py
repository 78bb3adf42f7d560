"""Secrets of the simulated server: API key and tokens of delivery URLs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import uuid


class Secrets:
    """API key and tokens, random at each start. A token is the same for the same purpose."""

    def __init__(self) -> None:
        self.public_key = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(8))
        self.private_key = str(uuid.uuid4())
        self._key = secrets.token_bytes(16)
        self._tokens: dict[str, str] = {}

    def token(self, purpose: str, form: str = "base64") -> str:
        """Return the token for a purpose, in a form of the `token` fault."""
        if purpose not in self._tokens:
            self._tokens[purpose] = _token(hmac.new(self._key, purpose.encode(), hashlib.sha256), form)
        return self._tokens[purpose]

    def is_issued(self, prefix: str, token: str) -> bool:
        """Return whether a token was issued for a purpose that starts with `prefix`."""
        return any(issued == token for purpose, issued in self._tokens.items() if purpose.startswith(prefix))

    def all(self) -> list[str]:
        """Return the private key and every token made so far."""
        return [self.private_key, *self._tokens.values()]


def _token(digest: hmac.HMAC, form: str) -> str:
    text = digest.hexdigest()[:32]
    if form == "hex":
        return text
    if form == "short":
        return text[:6]
    if form == "encoded":
        return f"+/{text}=="
    return base64.b64encode(text.encode()).decode()
