"""Values of options: durations, sizes, numbers, IDs, and URLs."""

from collections.abc import Callable

import pytest
from support.settings import refusal

from restore_agent.cli.config import Values
from restore_agent.cli.options import OPTIONS
from restore_agent.cli.parsers import base_url, duration, identifier, positive_duration, size

# ---------------------------------------------------------------- durations, sizes, numbers, words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("0.5s", 0.5),
        ("15m", 900.0),
        ("6h", 21600.0),
        ("1d", 86400.0),
        ("1.5h", 5400.0),
        ("2h30m", 9000.0),
        ("1d 2h 3m 4s", 93784.0),
        (" 90 s ", 90.0),
        ("0", 0.0),
        ("365d", 365 * 86400.0),
    ],
)
def test_a_duration_is_parsed(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-1",
        "+5",
        "1e3",
        "5 minutes",
        "30m1h",
        "1h1h",
        "1h30",
        "6H",
        "1w",
        ".5",
        "5.",
        "1,5s",
        "inf",
        "nan",
        "366d",
        "9" * 400,
    ],
)
def test_a_text_that_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|year"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("65536", 65536),
        ("64K", 65536),
        ("64k", 65536),
        ("100M", 100 << 20),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
        ("1KiB", 1024),
        ("1 MB", 1 << 20),
        ("1", 1),
        ("9223372036854774784", 9223372036854774784),
    ],
)
def test_a_size_is_parsed(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "K", "-1", "0", "0.1", "1X", "1e6", "1.5.5M", "64 K M", "8388608T", "inf", "nan"])
def test_a_text_that_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|between"):
        size(text)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "T"])
def test_an_excessive_size_is_a_usage_error(text: str) -> None:
    values = Values({"limit_rate": text}, {})
    assert "8 EiB" in refusal(lambda: values.get("limit_rate"))


@pytest.mark.parametrize("name", ["poll_interval", "stall_timeout"])
def test_an_interval_of_zero_is_refused(name: str) -> None:
    assert "greater than zero" in refusal(lambda: Values({name: "0s"}, {}).get(name))
    assert positive_duration("0.001") == 0.001


@pytest.mark.parametrize("name", ["wait_timeout", "hash_timeout"])
def test_a_wait_of_zero_is_allowed(name: str) -> None:
    assert Values({name: "0"}, {}).get(name) == 0.0


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("retries", "-1", "from 0 to 1000"),
        ("retries", "1001", "from 0 to 1000"),
        ("retries", "2.5", "whole number"),
        ("retries", "many", "whole number"),
        ("parallel", "0", "from 1 to 64"),
        ("parallel", "65", "from 1 to 64"),
        ("expect_jobs", "0", "from 1"),
        ("expect_jobs", "9" * 30, "from 1"),
        ("output", "JSON", "text, json"),
        ("output", "yaml", "text, json"),
        ("progress", "bars", "auto, bar, plain, none"),
        ("wait_timeout", "soon", "write it like 90s"),
        ("limit_rate", "fast", "write it like 65536"),
        ("allow_unproven", "yes", "true or false"),
        ("public_key", "a\nb", "control characters"),
        ("group_id", "a/b", "not an ID"),
    ],
)
def test_an_invalid_value_is_refused_with_its_source(name: str, text: str, words: str) -> None:
    said = refusal(lambda: Values({name: text}, {}).get(name))
    assert said.startswith(f"{OPTIONS[name].flag} ")
    assert words in said


def test_an_error_names_the_source_of_the_invalid_value(config: Callable[[str], str]) -> None:
    path = config("retries = -1\nurl = 'nowhere'\n")
    environ = {"RESTORE_AGENT_OUTPUT": "xml"}
    values = Values({"config": path}, environ)
    assert refusal(lambda: values.get("retries")).startswith("retries in the configuration file '-1'")
    assert refusal(lambda: values.get("url")).startswith("url in the configuration file")
    assert refusal(lambda: values.get("output")).startswith("RESTORE_AGENT_OUTPUT 'xml'")


def test_an_invalid_value_is_shown_on_one_short_printable_line() -> None:
    said = refusal(lambda: Values({"output": "x\x1b[2J\n" + "y" * 10_000}, {}).get("output"))
    assert said.isprintable()
    assert len(said) < 250


# ---------------------------------------------------------------- ids and URLs


@pytest.mark.parametrize("text", ["5c9e3a1b8a0c2d0001a1b2c3", "a", "rs0", "host:27017", "a.b-c_d", "x" * 128])
def test_an_id_is_not_changed(text: str) -> None:
    assert identifier(text) == text


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a b", "a?b", "a#b", "a%2fb", "a\n", "é", "x" * 129, "{ID}"])
def test_a_text_that_would_change_the_path_of_a_request_is_not_an_id(text: str) -> None:
    with pytest.raises(ValueError, match="not an ID"):
        identifier(text)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://om.example.net", "https://om.example.net"),
        ("https://om.example.net/", "https://om.example.net"),
        ("https://om.example.net:8443//", "https://om.example.net:8443"),
        ("http://om:8080/api/public/v1.0", "http://om:8080"),
        ("http://om:8080/api/public/v1.0/", "http://om:8080"),
        ("https://om/prefix/api/public/v1.0/", "https://om/prefix"),
        ("https://om/prefix/", "https://om/prefix"),
        ("HTTPS://om", "https://om"),
        ("  https://om\n", "https://om"),
        ("https://[2001:db8::1]:8443/", "https://[2001:db8::1]:8443"),
        ("https://cloud.mongodb.com/api/public/v1.0", "https://cloud.mongodb.com"),
    ],
)
def test_a_base_url_loses_its_api_path_and_trailing_slashes(text: str, base: str) -> None:
    assert base_url(text) == base


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must begin with https://"),
        ("om.example.net", "must begin with https://"),
        ("om.example.net:8443", "must begin with https://"),
        ("//om.example.net", "must begin with https://"),
        ("ftp://om", "must begin with https://"),
        ("file:///etc/passwd", "must begin with https://"),
        ("https://", "must begin with https://"),
        ("https:///path", "must begin with https://"),
        ("https://:8443", "must begin with https://"),
        ("https://om:port", "not a URL"),
        ("https://om:99999", "not a URL"),
        ("https://[::1", "not a URL"),
        ("https://om?pretty=true", "without query"),
        ("https://om#top", "without query"),
        ("https://om/a b", "white space"),
        ("https://o\tm", "white space"),
        ("https://o\nm", "white space"),
        ("https://user@om", "credentials"),
        ("https://user:word@om", "credentials"),
        ("https://:word@om", "credentials"),
        ("https://@om", "credentials"),
    ],
)
def test_a_url_that_is_not_a_base_url_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        base_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://user:hunter2-hunter2@om",
        "https://user:hunter2-hunter2@om:port",
        "https://user:hunter2-hunter2/and-more@om",
        "https://user:hunter2-hunter2@om\u2100",
        "https://user:hunter2-hunter2@[om",
    ],
    ids=["plain", "wrong port", "with a slash in it", "wrong host", "wrong address"],
)
def test_credentials_in_a_url_are_refused_without_being_shown(text: str) -> None:
    said = refusal(lambda: Values({"url": text}, {}).get("url"))
    assert "--url" in said
    assert "hunter2" not in said
