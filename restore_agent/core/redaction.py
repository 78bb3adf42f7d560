"""What must never be shown, and how text from outside is made harmless before it is.

Two different things can go wrong with a string on its way to a terminal or a log: it can hold a secret, and it
can hold control characters that a server put there. Both are mended here, once, at the last door.
"""

from __future__ import annotations

import base64
import re
from collections import deque
from urllib.parse import quote, quote_plus, urlsplit

HIDDEN = "[hidden]"

_MOST_PASSING = 64

_ID = re.compile(r"[0-9a-f]{24}")  # as Ops Manager's ids are; they are no secrets

_LONGEST_WORD = 15  # characters of a path segment that is a word and no token

_SHORTEST = 6  # shorter strings would hide half of every sentence and are no secrets worth the name


class Secret:
    """A string that shows itself only to `reveal()`: its repr, str and format are a placeholder."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, for the one place that sends it."""
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class Redactor:
    """Knows every secret of this process and takes them out of text, in each encoding they may be met in."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._passing: deque[str] = deque(maxlen=_MOST_PASSING)
        self._pattern: re.Pattern[str] | None = None

    def learn(self, secret: Secret | str | None) -> None:
        """Add a secret; plain, URL-quoted and base64 forms are hidden from now on."""
        value = secret.reveal() if isinstance(secret, Secret) else secret
        if value is None or len(value) < _SHORTEST or value in self._known:
            return
        raw = value.encode("utf-8", "surrogateescape")  # what a variable that is no UTF-8 was before Python read it
        encoded = base64.b64encode(raw).decode()
        self._known |= {value, quote(raw, safe=""), quote(raw), quote_plus(raw), encoded, encoded.rstrip("=")}
        self._pattern = None  # made anew when it is needed

    def learn_url(self, url: str) -> None:
        """Add a delivery URL: as a whole, its query, and what in its path may be a token and is no id."""
        parts = urlsplit(url)
        self.learn(url)
        self.learn(parts.query)
        for segment in parts.path.split("/")[:-1]:
            if len(segment) > _LONGEST_WORD and not _ID.fullmatch(segment):
                self.learn(segment)

    def learn_passing(self, secret: str) -> None:
        """Add a secret that is good for one request; only the latest of them are remembered."""
        self._passing.append(secret)

    def clean(self, text: str) -> str:
        """`text` without any known secret."""
        for secret in self._passing:
            text = text.replace(secret, HIDDEN)
        if self._pattern is None and self._known:
            longest_first = sorted(self._known, key=len, reverse=True)
            self._pattern = re.compile("|".join(re.escape(form) for form in longest_first))
        return self._pattern.sub(HIDDEN, text) if self._pattern else text
