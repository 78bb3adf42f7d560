"""Secrets appear nowhere, and what a server writes cannot move the cursor."""

import base64
import json
import unicodedata
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restore_agent.core.redaction import HIDDEN, Redactor, Secret
from restore_agent.core.untrusted import printable

KEY = "pa+ss/word=with spaces&more?"


def redactor(*secrets: str) -> Redactor:
    made = Redactor()
    for secret in secrets:
        made.learn(secret)
    return made


# ---------------------------------------------------------------- secrets


def test_a_secret_shows_itself_to_reveal_only() -> None:
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>50}", repr([secret]), repr({1: secret})]
    assert not any(KEY in text for text in shown)


def test_a_secret_has_no_attributes_to_dump() -> None:
    with pytest.raises(TypeError):
        vars(Secret(KEY))
    with pytest.raises(TypeError):
        json.dumps(Secret(KEY))


def test_secrets_are_equal_if_their_values_are_equal() -> None:
    assert Secret(KEY) == Secret(KEY)
    assert hash(Secret(KEY)) == hash(Secret(KEY))
    assert Secret(KEY) != Secret("another")
    assert Secret(KEY) != KEY


# ---------------------------------------------------------------- redaction


def test_without_secrets_text_stays_as_it_is() -> None:
    assert Redactor().clean(f"says {KEY}") == f"says {KEY}"


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        quote(KEY),
        quote(KEY, safe=""),
        quote_plus(KEY),
        base64.b64encode(KEY.encode()).decode(),
        base64.b64encode(KEY.encode()).decode().rstrip("="),
    ],
    ids=["plain", "quoted", "quoted through", "form", "base64", "base64 without padding"],
)
def test_a_secret_is_hidden_in_every_form_it_may_be_met_in(form: str) -> None:
    assert redactor(KEY).clean(f"before {form} after") == f"before {HIDDEN} after"


def test_a_secret_is_hidden_at_every_position_and_every_time() -> None:
    assert redactor(KEY).clean(f"{KEY}{KEY}, x{KEY}x") == f"{HIDDEN}{HIDDEN}, x{HIDDEN}x"


def test_a_secret_is_hidden_in_text_of_many_lines() -> None:
    assert redactor(KEY).clean(f"Traceback:\n  {KEY}\nError: {KEY}") == f"Traceback:\n  {HIDDEN}\nError: {HIDDEN}"


def test_the_longer_of_two_secrets_is_hidden_completely() -> None:
    assert redactor("abcdef", "abcdef-ghijkl").clean("abcdef-ghijkl abcdef") == f"{HIDDEN} {HIDDEN}"


def test_a_secret_may_be_learned_as_a_secret_object() -> None:
    made = Redactor()
    made.learn(Secret(KEY))
    assert made.clean(KEY) == HIDDEN


def test_characters_of_a_secret_are_no_pattern() -> None:
    assert redactor("a.c+e*(g").clean("abccde*(g a.c+e*(g") == f"abccde*(g {HIDDEN}"


@pytest.mark.parametrize("secret", [None, "", "abcde"])
def test_a_text_that_is_too_short_for_a_secret_is_not_hidden(secret: str | None) -> None:
    made = Redactor()
    made.learn(secret)
    assert made.clean("abcde and so on") == "abcde and so on"


def test_a_secret_from_a_variable_that_is_no_utf_8_is_hidden_too() -> None:
    """os.environ holds bytes that do not decode as lone surrogates."""
    secret = "key-\udcff-bytes"
    made = redactor(secret)
    assert made.clean(f"it is {secret}") == f"it is {HIDDEN}"


@hypothesis_settings(deadline=None, max_examples=75)
@given(st.lists(st.text(min_size=6, max_size=12), min_size=1, max_size=4), st.text(max_size=10), st.data())
def test_no_secret_is_left_in_any_text(secrets: list[str], between: str, data: st.DataObject) -> None:
    made = redactor(*secrets)
    said = data.draw(st.lists(st.sampled_from([*secrets, quote(secrets[0], safe=""), between, " "]), max_size=6))
    between_marks = made.clean("".join(said)).split(HIDDEN)
    assert not any(secret in part for part in between_marks for secret in secrets)


def test_the_latest_tokens_and_always_the_key_are_kept() -> None:
    made = redactor(KEY)
    tokens = [f"token-{number:06}-{number * 7919:012x}" for number in range(9000)]
    for token in tokens:
        made.learn_header(Secret(f"Bearer {token}"))
    assert made.clean(f"{KEY} {tokens[-1]} {tokens[-2000]}") == f"{HIDDEN} {HIDDEN} {HIDDEN}"
    assert made.clean(tokens[0]) == tokens[0]
    made.learn_header(Secret(f"Bearer {tokens[-4000]}"))  # used again, so the latest once more
    for token in tokens[:3000]:
        made.learn_header(Secret(f"Bearer {token}"))
    assert made.clean(tokens[-4000]) == HIDDEN


def test_words_and_ids_in_a_url_stay_readable() -> None:
    made = Redactor()
    made.learn_url(f"https://user:hush-word@om/backup/restore/v3/pull/{'5' * 24}/a-1.tar.gz?format=gzip&x=1&key=Zq8")
    text = f"GET https://om/backup/restore/v3/pull/{'5' * 24}/a-1.tar.gz gzip format"
    assert made.clean(text) == text
    assert "hush" not in made.clean("hush-word")


@pytest.mark.parametrize("name", ["sig", "X-Amz-Signature", "access_token", "Key"])
def test_a_word_is_a_secret_in_a_query_parameter_with_a_secret_name(name: str) -> None:
    made = Redactor()
    made.learn_url(f"https://om/pull/a.tar.gz?format=gzipped&{name}=hushhush")
    assert made.clean("gzipped hushhush HUSHHUSH") == f"gzipped {HIDDEN} {HIDDEN}"


def test_a_bearer_token_is_a_secret_even_if_it_is_a_word() -> None:
    made = Redactor()
    made.learn_header(Secret("Bearer hushhush"))
    assert made.clean("text/html; t=hushhush") == f"text/html; t={HIDDEN}"


@pytest.mark.parametrize("value", ["to%2Fken%2Bx%3D1", "to/ken+x=1", "to%2fken%2bx%3d1"])
def test_the_value_of_a_query_parameter_is_hidden_as_the_url_has_it_and_decoded(value: str) -> None:
    made = Redactor()
    made.learn_url("https://om/pull/a.tar.gz?sig=to%2Fken%2Bx%3D1")
    for form in (value, quote(value, safe=""), quote(quote(value, safe=""), safe="")):
        assert HIDDEN in made.clean(f"HTTP/1.1 503 {form}"), form
    for form in (b"to%2Fken%2Bx%3D1", b"to/ken+x=1"):
        assert made.clean(form.hex()) == HIDDEN
        assert made.clean(base64.b64encode(form).decode()) == HIDDEN


# ---------------------------------------------------------------- printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rs0-1492636465.tar.gz", "rs0-1492636465.tar.gz"),
        ("größe 測試 😀", "größe 測試 😀"),
        ("two\nlines\r\n", "two\\nlines\\r\\n"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("nul\x00 bell\x07 del\x7f csi\x9b", "nul\\x00 bell\\x07 del\\x7f csi\\x9b"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("gz.\u202erat", "gz.\\u202erat"),
        ("a\u2066b\u2069", "a\\u2066b\\u2069"),
        ("a\u200fb", "a\\u200fb"),
        ("lone \udcff", "lone \\udcff"),
        ("", ""),
    ],
)
def test_text_from_outside_is_shown_on_one_line_without_control_characters(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_character_that_changes_the_text_direction_is_shown() -> None:
    turning = [c for c in map(chr, range(0x10000)) if unicodedata.bidirectional(c) in _TURNING or ord(c) in _MARKS]
    assert len(turning) == 12
    assert [hex(ord(char)) for char in turning if char in printable(char)] == []


_TURNING = ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
_MARKS = (0x061C, 0x200E, 0x200F)


def test_long_text_is_cut_with_a_mark() -> None:
    assert printable("x" * 10, limit=10) == "x" * 10
    assert printable("x" * 11, limit=10) == "x" * 9 + "…"


@hypothesis_settings(deadline=None, max_examples=75)
@given(st.text(st.characters(exclude_categories=()), max_size=50), st.integers(1, 60))
def test_any_text_becomes_one_short_line_that_can_be_written(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in shown)
    assert shown.encode().decode() == shown
    if len(shown) < limit and not any(unicodedata.category(char)[0] in "CZ" for char in text):
        assert shown == text
