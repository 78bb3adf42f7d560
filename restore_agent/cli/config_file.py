"""The configuration file: TOML with the names of the options; paths in it are relative to its directory."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from ..core.untrusted import printable
from .options import OPTIONS

_LARGEST = 1024 * 1024
"""Bytes of a configuration file at most."""

KEYS = {name: option for option in OPTIONS.values() for name in (option.name, *option.aliases)}
"""Each key of the file and its option."""


def read_table(path: Path) -> dict[str, Any]:
    """Return the keys and values of a TOML file, unchecked. Raises UsageError if it cannot be read or parsed."""
    try:
        return tomllib.loads(read_text(path, _LARGEST).removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"configuration file {path}: not TOML ({printable(str(error))})") from None


def require_known_keys(path: Path, table: Mapping[str, Any]) -> None:
    """Raise UsageError if a file contains a key that is not an option, or a table instead of a value."""
    for key, value in table.items():
        if key == "private_key":
            raise UsageError(
                f"configuration file {path}: private_key is not allowed here; use private_key_file",
                hint="Write the key to a file with mode 0600, and set private_key_file to its path.",
            )
        if key not in KEYS:
            meant = did_you_mean(key.replace("-", "_"), KEYS)
            known = f"keys are {', '.join(sorted(KEYS))}"
            raise UsageError(f"configuration file {path}: unknown key {printable(key, 60)!r}{meant}; {known}")
        if isinstance(value, dict) or value is None:
            raise UsageError(f"configuration file {path}: {key} must be a plain value")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean NAME?` for the most similar known name, or an empty text."""
    similar = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {similar[0]}?" if similar else ""


def absolute_path(text: str, directory: Path, key: str) -> str:
    """Return a path of the file as an absolute one: `~` expanded, else relative to the file's directory.

    Raises UsageError if `~` or `~user` cannot be expanded. An empty text is returned unchanged.
    """
    return os.path.join(directory, expanded(text, f"{key} in the configuration file")) if text.strip() else text


def expanded(text: str, source: str) -> str:
    """Return a path with a leading `~` or `~user` expanded. Raises UsageError that names the source if it cannot be.

    A shell does not expand `~` in quotes, in `--dest=~/restore`, or in a file of variables.
    """
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise UsageError(f"{source} {printable(text, 80)!r}: there is no such home directory")
    return path


def read_text(path: Path, limit: int) -> str:
    """Return a UTF-8 file of at most `limit` bytes. Raises UsageError."""
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > limit:
        raise UsageError(f"{path} is larger than {limit} bytes, so it is not a file of the expected kind")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None
