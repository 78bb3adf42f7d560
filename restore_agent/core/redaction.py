"""Removal of secrets from text, in every encoding in which a server or a library may repeat them."""

from __future__ import annotations

import base64
import re
from collections import deque
from collections.abc import Iterator
from html import escape, unescape
from itertools import pairwise
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

HIDDEN = "[hidden]"

_MOST_TRANSIENT = 64

_MOST_SECRETS = 8192  # a thousand restore jobs have about three each; with their index they take about 12 MiB

_ID = re.compile(r"[0-9a-f]{24}")  # an ID of Ops Manager, which is not a secret

_WORD = re.compile(r"[a-z]{1,15}|[A-Z]{1,15}|v?[0-9.]{1,4}")  # a path segment that is a word or a version

_NAMES_A_SECRET = re.compile(r"(?i)token|sig|key|auth|secret|pass|pw|cred|code|access|session|jwt|hash|hmac")
"""Name of a query parameter whose value is a secret even if it is a word."""

_MOST_DECODED = 3  # times that percent-encoding or HTML entities are undone to find a secret

_SHORTEST = 6  # characters; shorter strings would hide half of every sentence

_SHORTEST_TOKEN = 4  # of a URL or header; below _SHORTEST it is hidden only where no letter or digit adjoins it

_KEY = 4  # leading characters by which the forms of secrets are indexed

_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}  # keeps positions, unlike str.lower


_URL_SAFE = str.maketrans("+/", "-_")


class Secret:
    """A string that only `reveal()` returns: its repr, str, and format are a placeholder."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself, for the one place that sends it."""
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class Redactor:
    """Every secret of this process, and their removal from text, whatever its letter case.

    Secrets of delivery URLs can be renewed at each poll, so only the latest ones are remembered.
    """

    def __init__(self) -> None:
        self._kept: set[str] = set()
        self._secrets: dict[str, tuple[str, ...]] = {}  # each with its forms, the latest one last
        # forms by their first characters, each with the number of secrets that have it: tokens often begin alike
        self._index: dict[str, dict[str, int]] = {}
        self._transient: deque[str] = deque(maxlen=_MOST_TRANSIENT)

    def learn(self, secret: Secret | str | None) -> None:
        """Add a secret that stays one, and its encodings. A string below six characters is ignored."""
        value = secret.reveal() if isinstance(secret, Secret) else secret
        if value is not None and len(value) >= _SHORTEST:
            self._kept.add(value)
            self._add(value)

    def _add(self, value: str) -> None:
        forms = self._secrets.pop(value, None)
        if forms is None:
            forms = tuple({form.translate(_LOWER) for form in set(_forms(value))})
            for form in forms:
                alike = self._index.setdefault(form[:_KEY], {})
                alike[form] = alike.get(form, 0) + 1
        self._secrets[value] = forms
        if len(self._secrets) > _MOST_SECRETS:
            self._forget(next((known for known in self._secrets if known not in self._kept), value))

    def _forget(self, value: str) -> None:
        for form in self._secrets.pop(value):
            alike = self._index[form[:_KEY]]
            alike[form] -= 1
            if not alike[form]:
                del alike[form]
            if not alike:
                del self._index[form[:_KEY]]

    def learn_url(self, url: str) -> None:
        """Add the secrets of a delivery URL: the values in its query, and every path segment that may be a token."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return
        for secret in (parts.query, parts.password or ""):
            self._learn_token(secret)
        for name, _, value in (field.partition("=") for field in re.split("[&;]", parts.query)):
            self._learn_token(value, even_a_word=_NAMES_A_SECRET.search(name) is not None)
        *directories, _ = parts.path.split("/")
        for before, segment in pairwise(directories):
            if not _ID.fullmatch(segment):
                # the segment after a job's ID is the token, even if it looks like a word
                self._learn_token(segment, even_a_word=_ID.fullmatch(before) is not None)

    def learn_header(self, value: Secret) -> None:
        """Add the value of an Authorization header, and the token in it."""
        self._learn_token(value.reveal())
        self._learn_token(value.reveal().split(" ")[-1], even_a_word=True)

    def _learn_token(self, token: str, *, even_a_word: bool = False) -> None:
        """Add a secret that Ops Manager may renew at each poll."""
        if len(token) >= _SHORTEST_TOKEN and (even_a_word or not _WORD.fullmatch(token)):
            self._add(token)

    def learn_passing(self, secret: str) -> None:
        """Add a secret that is used for one request; only the latest of them are kept."""
        self._transient.append(secret)

    def clean(self, text: str) -> str:
        """Return `text` without any known secret. Text that is encoded to hide one is returned decoded."""
        for secret in self._transient:
            text = text.replace(secret, HIDDEN)
        if not self._index or len(text) < _KEY:
            return text
        text = self._decoded(text)
        kept, at = [], 0
        for start, end in self._found(text):
            kept += [text[at:start], HIDDEN]
            at = end
        return "".join([*kept, text[at:]])

    def _decoded(self, text: str) -> str:
        """Return text as far decoded as it must be for a secret to be found in it, else unchanged."""
        for decode, mark in ((unquote, "%"), (unescape, "&")):
            if mark not in text or any(self._found(text)):
                continue
            decoded = text
            for _ in range(_MOST_DECODED):
                decoded = decode(decoded)
                if any(self._found(decoded)):
                    return decoded
        return text

    def _found(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield start and end of every secret in a text; of several at one place, the longest."""
        lower = text.translate(_LOWER)
        at, last = 0, len(lower) - _KEY
        while at <= last:
            forms = self._index.get(lower[at : at + _KEY])
            longest = max((len(form) for form in forms if _stands_at(lower, form, at)), default=0) if forms else 0
            if longest:
                yield at, at + longest
            at += longest or 1


def _stands_at(text: str, form: str, at: int) -> bool:
    """Return whether a form stands at a position; a short one must not be part of a longer word."""
    if not text.startswith(form, at):
        return False
    end = at + len(form)
    return len(form) >= _SHORTEST or not (text[max(0, at - 1) : at].isalnum() or text[end : end + 1].isalnum())


def _forms(value: str) -> Iterator[str]:
    """Yield a secret as it is, decoded, and encoded."""
    yield value
    for plain in dict.fromkeys((value, unquote(value), unquote_plus(value))):
        if len(plain) < _SHORTEST_TOKEN:
            continue
        raw = _octets(plain)
        yield from (plain, quote(raw, safe=""), quote(raw), quote_plus(raw), escape(plain), raw.hex())
        yield from _base64_forms(raw)


def _octets(text: str) -> bytes:
    """Return text as UTF-8. Lone surrogates are bytes of a variable that are not UTF-8, or come from a document."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _base64_forms(raw: bytes) -> Iterator[str]:
    """Yield base64, ordinary and URL-safe, also without padding and as part of a longer text."""
    whole = base64.b64encode(raw).decode()
    found = [whole, whole.rstrip("=")]
    for before in range(3):  # characters that also encode adjoining bytes are left out
        inner = base64.b64encode(bytes(before) + raw[: len(raw) - (len(raw) + before) % 3]).decode()
        if len(part := inner[(0, 2, 3)[before] :]) >= _SHORTEST:
            found.append(part)
    for form in found:
        yield from (form, form.translate(_URL_SAFE))
