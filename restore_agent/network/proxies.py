"""Proxies from the usual environment variables, with NO_PROXY as curl reads it.

httpx reads the same variables, but one entry of NO_PROXY that it cannot parse ends the program, it knows no ranges,
and its errors contain parts of a password.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import httpx

from ..core.errors import UsageError
from ..core.redaction import Redactor, Secret

DEFAULT_PORTS = {"http": 80, "https": 443}

_URL = re.compile(r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?(?:(?P<user>.*)@)?(?P<place>[^@]*)", re.DOTALL)

_PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s/?#:\[\]\\]+)(?::(?P<port>[0-9]{0,5}))?(?:[/?#].*)?")

_ENTRY = re.compile(r"(?:(?P<scheme>[A-Za-z]+)://)?(?P<host>\[[^\]]*\](?:/[0-9]+)?|[^\[\]]*?)(?::(?P<port>[0-9]+))?/?")


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy. `secure` is whether the connection to it uses TLS."""

    secure: bool
    host: str
    port: int
    authorization: Secret | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"


class Proxies:
    """The proxies for http and https, and the hosts that are reached without one.

    `environment` is for tests. Raises UsageError if a variable that would be used is not the URL of an HTTP proxy.
    """

    def __init__(self, redactor: Redactor, environment: Mapping[str, str] | None = None) -> None:
        found = urllib.request.getproxies_environment() if environment is None else environment
        self._excluded = found.get("no", "").replace(",", " ").split()
        self._by_scheme: dict[str, Proxy] = {}
        for scheme in DEFAULT_PORTS:
            name = scheme if found.get(scheme) else "all"
            if found.get(name) and "*" not in self._excluded:
                self._by_scheme[scheme] = _parsed(f"{name}_proxy", found[name], redactor)

    def for_url(self, url: httpx.URL) -> Proxy | None:
        """Return the proxy for a URL, or None if its host is reached directly."""
        proxy, port = self._by_scheme.get(url.scheme), url.port or DEFAULT_PORTS.get(url.scheme, 0)
        if proxy is None or any(_matches(entry, url.scheme, url.host, port) for entry in self._excluded):
            return None
        return proxy


def _parsed(variable: str, text: str, redactor: Redactor) -> Proxy:
    """Return the proxy that a variable names. No message contains the text, because it may hold a password."""
    parts = _URL.fullmatch(text.strip())
    assert parts is not None  # noqa: S101  # the pattern matches every text
    scheme, user = (parts["scheme"] or "http").lower(), parts["user"]
    if user is not None:
        redactor.learn(user)
        redactor.learn(user.partition(":")[2])
    if scheme not in DEFAULT_PORTS:
        raise UsageError(f"{variable} does not name an HTTP proxy; SOCKS proxies are not supported")
    if user is not None and re.search(r"[/?#\s\\]", user):
        raise UsageError(f"{variable}: a special character in its user name or password must be percent-encoded")
    place = _PLACE.fullmatch(parts["place"])
    if not place or int(place["port"] or 1) not in range(1, 65536):
        raise UsageError(f"{variable} is not the URL of a proxy, such as http://proxy.example.com:3128")
    port = int(place["port"] or DEFAULT_PORTS[scheme])
    return Proxy(scheme == "https", place["host"].strip("[]"), port, _authorization(user, redactor))


def _authorization(user: str | None, redactor: Redactor) -> Secret | None:
    """Return the value of Proxy-Authorization (RFC 7617) for `name:password`, percent-encoded."""
    if not user:
        return None
    name, _, password = user.partition(":")
    plain = f"{unquote(name)}:{unquote(password)}"
    encoded = base64.b64encode(plain.encode("utf-8", "surrogateescape")).decode()
    for secret in (unquote(password), plain, encoded):
        redactor.learn(secret)
    return Secret(f"Basic {encoded}")


def _matches(entry: str, scheme: str, host: str, port: int) -> bool:
    """Return whether an entry of NO_PROXY covers a host: a name with its subdomains, an address or a range."""
    parts = _ENTRY.fullmatch(entry)
    bare = _network(entry)  # an IPv6 address without brackets looks like a host with a port
    if bare is None and parts and (parts["scheme"] or scheme) not in (scheme, "all"):
        return False
    if bare is None and parts and parts["port"] and int(parts["port"]) != port:
        return False
    covered = entry if bare is not None or not parts else parts["host"]
    if (address := _address(host)) is not None:
        network = _network(covered)
        return network is not None and address in network
    wanted = covered.lower().removeprefix("*").strip(".")
    name = host.lower().rstrip(".")
    return bool(wanted) and (name == wanted or name.endswith(f".{wanted}"))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return an address or a range; the brackets of IPv6 may enclose the address or the whole range."""
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](/[0-9]+)?", text)
    try:
        return ipaddress.ip_network(bracketed[1] + (bracketed[2] or "") if bracketed else text, strict=False)
    except ValueError:
        return None
