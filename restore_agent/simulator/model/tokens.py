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

    def token(self, purpose: str) -> str:
        """Return the token for a purpose."""
        if purpose not in self._tokens:
            digest = hmac.new(self._key, purpose.encode(), hashlib.sha256).hexdigest()[:32]
            self._tokens[purpose] = base64.b64encode(digest.encode()).decode()
        return self._tokens[purpose]

    def all(self) -> list[str]:
        """Return the private key and every token made so far."""
        return [self.private_key, *self._tokens.values()]
