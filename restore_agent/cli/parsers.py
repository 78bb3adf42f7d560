"""Parsers of option values: durations, sizes, URLs, IDs. Each raises ValueError with the reason."""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from ..core.settings import API_PATH, Before

_NUMBER = r"(\d+(?:\.\d+)?)"

_DURATION = re.compile("".join(rf"(?:{_NUMBER}\s*{unit}\s*)?" for unit in "dhms"))

_SIZE = re.compile(_NUMBER + r"\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")

_SECONDS = (86400, 3600, 60, 1)

_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def duration(text: str) -> float:
    """Return seconds from `90`, `90s`, `0.5s`, `15m`, `2h30m`, or `1d`; at most 365 days."""
    stripped = text.strip()
    match = _DURATION.fullmatch(f"{stripped}s" if re.fullmatch(_NUMBER, stripped) else stripped)
    if not match or not stripped:
        raise ValueError("not a duration; write it like 90s, 15m, 2h30m, or 1d")
    seconds = sum(float(count) * unit for count, unit in zip(match.groups(), _SECONDS, strict=True) if count)
    if seconds > 365 * 86400:
        raise ValueError("longer than a year")
    return seconds


def positive_duration(text: str) -> float:
    """Return a duration above zero, in seconds."""
    if (seconds := duration(text)) <= 0:
        raise ValueError("must be greater than zero")
    return seconds


def before(text: str) -> Before:
    """Return a moment from RFC 3339 text with its time zone, or from a duration back from now."""
    stripped = text.strip()
    if _MOMENT.fullmatch(stripped):
        try:
            return Before(moment=datetime.fromisoformat(stripped.upper()).timestamp())
        except (ValueError, OverflowError):
            raise ValueError("is not a time that exists") from None
    if not stripped or not _DURATION.fullmatch(f"{stripped}s" if re.fullmatch(_NUMBER, stripped) else stripped):
        raise ValueError("is neither a time such as 2026-11-25T03:00:00Z nor a duration back from now such as 6h")
    return Before(ago=duration(stripped))


def whole_hours(text: str) -> int:
    """Return a duration of at least one whole hour, in hours."""
    hours, rest = divmod(duration(text), 3600)
    if rest or hours < 1:
        raise ValueError("must be in whole hours, such as 12h or 1d")
    return int(hours)


def size(text: str) -> int:
    """Return bytes from `65536`, `64K`, `100M` or `1.5G` (powers of 1024); at least 1, at most 8 EiB."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError("not a size; write it like 65536, 64K, 100M or 1.5G")
    value = float(match[1]) * _BYTES[match[2].upper()]
    if not 1 <= value < 1 << 63:
        raise ValueError("must be between 1 byte and 8 EiB")
    return int(value)


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of whole numbers in a range."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text.strip()) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    """Return a parser of one of a few words."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError("must be one of " + ", ".join(allowed))
        return text

    return parse


def base_url(text: str) -> str:
    """Return the base URL of Ops Manager without a trailing slash and without the API path."""
    try:
        parts = urlsplit(text.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("not a URL: host or port is invalid") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("contains credentials; use --public-key and --private-key-file instead")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(
            "must begin with https:// or http:// and contain a host, for example https://opsmanager.example.net:8443"
        )
    if found := re.match(r"/v2/(?:group/)?([0-9a-f]{24})", parts.path):
        raise ValueError(
            f"is a page of the web interface; use {parts.scheme}://{parts.netloc}, and {found[1]} as --group-id"
        )
    if parts.path.rstrip("/") in ("", "/v2", "/user") and parts.fragment.startswith("/"):
        raise ValueError(f"is a page of the web interface; use {parts.scheme}://{parts.netloc}")
    if parts.query or parts.fragment or re.search(r"[\s\x00-\x1f]", text.strip()):
        raise ValueError("must be a base URL without query, fragment, or white space")
    path = parts.path.partition(f"{API_PATH}/")[0].rstrip("/").removesuffix(API_PATH).rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def identifier(text: str) -> str:
    """Return an ID as used in URLs of Ops Manager. Characters that would change the path are refused."""
    if not _IDENTIFIER.fullmatch(text) or text in (".", ".."):
        raise ValueError("is not an ID of Ops Manager (usually 24 hex digits)")
    return text


def plain_text(text: str) -> str:
    """Return printable text that is not empty."""
    if not text or not text.isprintable():
        raise ValueError("is empty or contains control characters")
    return text


def truth(text: str) -> bool:
    """Return a boolean from `true` or `false`."""
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


def existing_file(text: str) -> Path:
    """Return the path of a readable file."""
    path = Path(text)
    if not os.path.isfile(path) or not os.access(path, os.R_OK):  # unlike Path.is_file it never raises
        raise ValueError("is not a readable file")
    return path


def file_to_write(text: str) -> Path:
    """Return the path of a file, which need not exist, in a directory that must exist."""
    path = absolute(text)
    if not text or "\x00" in text or os.path.isdir(path) or not os.path.isdir(path.parent):
        raise ValueError("is not a file in an existing directory")
    return path


def output_file(text: str) -> Path:
    """Return the absolute path of a file to write; whether it can be written shows when it is."""
    if not text or "\x00" in text:
        raise ValueError("contains a NUL character" if text else "is empty")
    return Path(os.path.abspath(text))


def directory(text: str) -> Path:
    """Return the absolute path of a directory, which need not exist."""
    if not text.strip():
        raise ValueError("is empty")
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("contains a control character, such as a line end; give the path without it")
    return absolute(text)


def absolute(text: str) -> Path:
    """Return a path as an absolute one. Raises ValueError if the current directory was removed."""
    try:
        return Path(os.path.abspath(text))
    except FileNotFoundError:
        raise ValueError("is relative, and the current directory does not exist; give an absolute path") from None


def owner_ids(text: str) -> tuple[int, int]:
    """Return user ID and group ID (-1: as it is) of an owner in the forms of chown(1).

    `user:` means the login group of the user. Raises ValueError: unknown names, or not root.
    """
    if os.geteuid() != 0:
        raise ValueError("needs root: only root may give files away")
    user, colon, group = text.partition(":")
    try:
        uid = _id_of(user, lambda name: pwd.getpwnam(name).pw_uid) if user else -1
        gid = _id_of(group, lambda name: grp.getgrnam(name).gr_gid) if group else -1
        if colon and user and not group:
            gid = pwd.getpwuid(uid).pw_gid
    except KeyError:
        raise ValueError("there is no such user or group on this host") from None
    if uid < 0 and gid < 0:
        raise ValueError("names neither a user nor a group")
    return uid, gid


def _id_of(name: str, look_up: Callable[[str], int]) -> int:
    """Return the number of a name, or a number as it is. Raises KeyError."""
    try:
        return look_up(name)
    except KeyError:
        if name.isascii() and name.isdigit() and int(name) < 2**32 - 1:
            return int(name)
        raise
