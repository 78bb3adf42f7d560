"""Proxies from the environment, NO_PROXY as curl reads it, and whole runs through a proxy."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from support.agents import Restore, StartSimulator, sha1_of
from support.servers import ForwardProxy

from restore_agent.core.errors import UsageError
from restore_agent.core.redaction import Redactor
from restore_agent.network.proxies import Proxies


@pytest.fixture
def proxy() -> Iterator[Callable[..., ForwardProxy]]:
    """Start a forward proxy."""
    running: list[ForwardProxy] = []

    def start(refusal: bytes | None = None) -> ForwardProxy:
        running.append(ForwardProxy(refusal))
        return running[-1]

    yield start
    for one in running:
        one.close()


# ---------------------------------------------------------------- whole runs over both transports


WAYS = pytest.mark.parametrize("way", ["direct", "proxy"])


def _environment(way: str, proxy: Callable[..., ForwardProxy]) -> dict[str, str]:
    return {"ALL_PROXY": proxy().url} if way == "proxy" else {}


@WAYS
@pytest.mark.parametrize(
    ("faults", "code"),
    [
        (["framing=length"], 0),
        (["framing=chunked"], 0),
        (["framing=close"], 0),
        (["framing=close", "cut=60%"], 23),
        (["framing=chunked", "cut=60%", "max-downloads=2"], 0),
        (["framing=length", "reset=60%", "max-downloads=2"], 0),
        (["framing=length", "stall=60%", "max-downloads=2"], 0),
        (["cut=60%", "max-downloads=2", "range=honour"], 0),
        (["content-encoding-gzip"], 0),
        (["header-noise", "url-v2", "redirect=3"], 0),
        (["other-origin", "redirect-other-origin"], 0),
        (["html-body=always"], 23),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_a_run_has_the_same_result_directly_and_through_a_proxy(
    faults: list[str],
    code: int,
    way: str,
    proxy: Callable[..., ForwardProxy],
    simulator: StartSimulator,
    restore: Restore,
    dest: Path,
) -> None:
    sim = simulator(*faults, tls="cut=60%" in faults or len(faults) == 1)
    ended = restore(sim, "--stall-timeout=0.3s", env=_environment(way, proxy))
    assert ended.code == code, ended.out
    assert (dest / sim.job(0).file_name).exists() == (code == 0)
    if code == 0:
        assert sha1_of(dest / sim.job(0).file_name) == sim.job(0).archive().sha1
    assert ended.archive["resumed"] is ("range=honour" in faults)


@WAYS
def test_large_archives_arrive_complete_either_way(
    way: str, proxy: Callable[..., ForwardProxy], simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("framing=chunked@0", "framing=close@1", shards=2, archive_size=5 << 20)
    assert restore(sim, env=_environment(way, proxy)).code == 0
    for index in range(3):
        assert sha1_of(dest / sim.job(index).file_name) == sim.job(index).archive().sha1


@pytest.mark.parametrize(("tls", "variable"), [(False, "HTTP_PROXY"), (True, "HTTPS_PROXY"), (True, "ALL_PROXY")])
def test_the_usual_variables_send_every_request_through_a_proxy(
    tls: bool,
    variable: str,
    simulator: StartSimulator,
    restore: Restore,
    proxy: Callable[..., ForwardProxy],
    dest: Path,
) -> None:
    sim, through = simulator("other-origin", tls=tls), proxy()
    assert restore(sim, env={variable: through.url}).code == 0
    asked = b" ".join(through.targets).decode()
    for origin in (sim.manager.origin, sim.manager.second_origin):
        assert origin.split("//")[1] in asked
    assert sha1_of(dest / sim.job(0).file_name) == sim.job(0).archive().sha1


def test_no_proxy_excludes_a_host(
    simulator: StartSimulator, restore: Restore, proxy: Callable[..., ForwardProxy]
) -> None:
    through = proxy()
    env = {"HTTP_PROXY": through.url, "NO_PROXY": "127.0.0.1"}
    assert restore(simulator(), env=env).code == 0
    assert through.targets == []


def test_a_proxy_that_requires_credentials_ends_the_run_with_32_and_that_hint(
    simulator: StartSimulator, restore: Restore, proxy: Callable[..., ForwardProxy]
) -> None:
    through = proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    sim = simulator(tls=True)
    ended = restore(sim, "--wait-timeout=0.2s", "--hash-timeout=0.2s", env={"HTTPS_PROXY": through.url})
    assert ended.code == 32
    error = ended.events("error")[0]
    assert error["id"] == "api-request-refused"
    assert "user name and password of the proxy" in error["hint"]
    assert sim.requests == []


# ---------------------------------------------------------------- the variables


def proxy_for(url: str, **environment: str) -> str | None:
    """The proxy for a URL under these variables, without their `_proxy`."""
    found = Proxies(Redactor(), environment).for_url(httpx.URL(url))
    return str(found) if found else None


@pytest.mark.parametrize(
    ("value", "proxy"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("http://proxy.example:3128/", "http://proxy.example:3128"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("HTTP://proxy.example", "http://proxy.example:80"),
        ("https://proxy.example", "https://proxy.example:443"),
        ("http://user:pa%23ss@[::1]:8080", "http://[::1]:8080"),
        ("http://user@domain:p@ss@proxy.example:1", "http://proxy.example:1"),
    ],
)
def test_the_url_of_a_proxy_is_read_as_curl_reads_it(value: str, proxy: str) -> None:
    assert proxy_for("https://ops/", https=value) == proxy
    assert proxy_for("http://ops/", all=value) == proxy


@pytest.mark.parametrize(
    "value",
    [
        "http://user:hush#hush-hush@proxy.example:3128",
        "http://user:hush/hush-hush@proxy.example:3128",
        "http://user:hush?hush-hush@proxy.example:3128",
        "http://user:hush-hush-hush@proxy.example:99999",
        "http://user:hush-hush-hush@proxy.example:0",
        "http://user:hush-hush-hush@proxy.example:port",
        "http://user:hush-hush-hush@",
        "http://user:hush-hush-hush@two words",
        "http://user:hush-hush-hush@[::1",
        "socks5://user:hush-hush-hush@proxy.example:1080",
        "quic://user:hush-hush-hush@proxy.example",
    ],
)
def test_a_proxy_that_cannot_be_used_is_a_usage_error_without_its_password(value: str) -> None:
    redactor = Redactor()
    with pytest.raises(UsageError) as error:
        Proxies(redactor, {"https": value})
    assert "hush" not in error.value.message
    assert "hush" not in redactor.clean(value)


def test_a_bad_proxy_ends_a_run_with_2_and_shows_no_part_of_the_password(
    simulator: StartSimulator, restore: Restore
) -> None:
    for value in ("http://user:hush#hush/hush@127.0.0.1:1", "http://user:hushhush@127.0.0.1:99999"):
        ended = restore(simulator(), env={"HTTP_PROXY": value})
        assert ended.code == 2
        assert "hush" not in ended.out + ended.err


def test_an_invalid_variable_that_no_url_needs_ends_no_run() -> None:
    known = {"http": "http://p:1", "https": "http://p:2"}
    assert proxy_for("https://ops/", all="socks://p:3", **known) == "http://p:2"
    assert proxy_for("https://ops/", all="socks://p:3", no="*") is None


def test_credentials_of_a_proxy_are_sent_decoded_and_never_to_the_host(
    simulator: StartSimulator, restore: Restore, proxy: Callable[..., ForwardProxy]
) -> None:
    through = proxy()
    sim = simulator()
    address = through.url.replace("http://", "http://us%40er:pa%23ss%2Fword@")
    ended = restore(sim, env={"HTTP_PROXY": address})
    assert ended.code == 0
    expected = b"Proxy-Authorization: Basic " + base64.b64encode(b"us@er:pa#ss/word")
    assert all(expected in head for head in through.heads)
    secure = simulator(tls=True)
    assert restore(secure, env={"HTTPS_PROXY": address}).code == 0
    assert all(expected in head for head in through.heads)
    assert not any("proxy-authorization" in request.headers for request in secure.requests)


# ---------------------------------------------------------------- NO_PROXY


@pytest.mark.parametrize(
    ("entries", "host"),
    [
        ("example.com", "example.com"),
        ("example.com", "www.example.com"),
        (".example.com", "example.com"),
        (".example.com", "a.b.example.com"),
        ("*.example.com", "www.example.com"),
        ("Example.COM.", "www.example.com"),
        ("example.com", "EXAMPLE.com."),
        ("other, example.com", "example.com"),
        ("other example.com", "example.com"),
        ("example.com:443", "example.com"),
        ("https://example.com", "example.com"),
        ("*", "anything"),
        ("127.0.0.1", "127.0.0.1"),
        ("10.0.0.0/8", "10.200.3.4"),
        ("10.1.2.3/8", "10.200.3.4"),
        ("10.0.0.1:443", "10.0.0.1"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("[::1]:443", "[::1]"),
        ("0:0:0:0:0:0:0:1", "[::1]"),
        ("fd00::/8", "[fd12::1]"),
        ("[fd00::]/8", "[fd12::1]"),
        ("[fd00::/8]", "[fd12::1]"),
        ("[[[,]:,10.0.0.0/99,::/200,:8,*x*,http://,example.com", "example.com"),
    ],
)
def test_an_entry_of_no_proxy_covers_a_host(entries: str, host: str) -> None:
    assert proxy_for(f"https://{host}/a", https="http://p:1", no=entries) is None


@pytest.mark.parametrize(
    ("entries", "host"),
    [
        ("example.com", "nonexample.com"),
        ("www.example.com", "example.com"),
        ("example.com:80", "example.com"),
        ("http://example.com", "example.com"),
        ("10.0.0.0/8", "11.0.0.1"),
        ("10.0.0.0/8", "10.example.com"),
        ("0.0.0.1", "10.0.0.1"),
        ("::1", "[::2]"),
        ("[::1]:80", "[::1]"),
        ("fd00::/8", "[fe80::1]"),
        ("fd00::/8", "10.0.0.1"),
        ("", "example.com"),
        (", .", "example.com"),
        ("[[[ [::1 10.0.0.0/99 ::/200 :8 a:b:c 2001:db8:::1 fe80::1%eth0/64", "example.com"),
    ],
)
def test_an_entry_of_no_proxy_covers_no_other_host_and_is_never_an_error(entries: str, host: str) -> None:
    assert proxy_for(f"https://{host}/a", https="http://p:1", no=entries) == "http://p:1"


def test_an_entry_of_no_proxy_that_does_not_parse_ends_no_run(simulator: StartSimulator, restore: Restore) -> None:
    assert restore(simulator(), env={"NO_PROXY": "[::1, fe80::/10, ::1, [[, http://[, 10.0.0.0/8"}).code == 0
