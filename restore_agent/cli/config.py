"""What the operator asked for: flags over environment over file over defaults, merged once.

Every option stands in one table, `OPTIONS`; the command line, the environment, the configuration file and the
documentation test all read it. Values stay text until they are parsed here, so that the same mistake gives the
same message wherever it was made.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from ..core.redaction import Secret
from ..core.settings import Connection, RunLimits, Target
from ..core.untrusted import printable
from .options import DEFAULT_CONFIG, LIMITS, OPTIONS, Option

_KEY_FILE_LIMIT = 64 * 1024

_CONFIG_LIMIT = 1024 * 1024


@dataclass(frozen=True)
class _Found:
    text: str | tuple[str, ...]
    source: str
    rank: int  # 0 flag, 1 environment, 2 file, 3 default


class Values:
    """The options of one call, each with the place it came from; parsed when asked for."""

    def __init__(self, flags: Mapping[str, Any], environ: Mapping[str, str], *, config: bool = True) -> None:
        self._environ = environ
        self._found: dict[str, _Found] = {}
        file = _read_config(_config_path(flags, environ) if config else None)
        for name, option in OPTIONS.items():
            if (found := _look_up(option, flags, environ, file)) is not None:
                self._found[name] = found

    def get(self, name: str) -> Any:
        """The parsed value of an option, or None. Raises UsageError that names where the value came from."""
        option = OPTIONS[name]
        found = self._found.get(name)
        if found is None:
            return () if option.many else None
        try:
            if option.many:
                texts = (found.text,) if isinstance(found.text, str) else found.text
                return tuple(option.parse(text) for text in texts)
            if not isinstance(found.text, str):
                raise ValueError("takes one value, not a list")
            return option.parse(found.text)
        except ValueError as error:
            said = "" if name == "url" else f" {printable(str(found.text), 80)!r}"  # a URL may hold a password
            raise UsageError(f"{found.source}{said}: {error}") from None

    def need(self, name: str) -> Any:
        """Like `get`, but a missing value is a UsageError that says how to give it."""
        if name not in self._found:
            option = OPTIONS[name]
            where = f" or {option.env}" if option.env else ""
            raise UsageError(
                f"{option.flag} is missing: give {option.flag}{where}, or {name} in the configuration file"
            )
        return self.get(name)

    def either(self, one: str, other: str) -> str | None:
        """Which of two options that exclude each other holds; the stronger source wins, the same source is an error."""
        first, second = self._found.get(one), self._found.get(other)
        if first and second:
            if first.rank == second.rank:
                raise UsageError(
                    f"{OPTIONS[one].flag} and {OPTIONS[other].flag} contradict each other: give one of them"
                )
            return one if first.rank < second.rank else other
        return one if first else other if second else None

    def private_key(self) -> Secret:
        """The private key by the contract's precedence. Raises UsageError when it is missing or readable by others."""
        found = self._found.get("private_key_file")
        if found and found.rank < 2:
            return _key_from_file(Path(str(found.text)), found.source, guarded=True)
        if self._environ.get("RESTORE_AGENT_PRIVATE_KEY"):
            return _key(self._environ["RESTORE_AGENT_PRIVATE_KEY"], "RESTORE_AGENT_PRIVATE_KEY")
        if found:
            return _key_from_file(Path(str(found.text)), found.source, guarded=True)
        if self._environ.get("CREDENTIALS_DIRECTORY"):
            # systemd guards the directory itself and may grant a service user access by ACL, which shows as a group bit
            path = Path(self._environ["CREDENTIALS_DIRECTORY"]) / "private-key"
            return _key_from_file(path, "CREDENTIALS_DIRECTORY", guarded=False)
        raise UsageError(
            "the private key is missing: give --private-key-file, "
            "RESTORE_AGENT_PRIVATE_KEY_FILE or RESTORE_AGENT_PRIVATE_KEY"
        )


def connection(values: Values) -> Connection:
    """How to reach Ops Manager. Raises UsageError."""
    if values.get("client_key") and not values.get("client_cert"):
        raise UsageError("--client-key needs --client-cert")
    return Connection(
        url=values.need("url"),
        public_key=values.need("public_key"),
        private_key=values.private_key(),
        ca_file=values.get("ca_file"),
        client_cert=values.get("client_cert"),
        client_key=values.get("client_key"),
    )


def target(values: Values) -> Target:
    """Which restore jobs. Raises UsageError when ids are missing or contradict each other."""
    place = values.either("cluster_id", "host_id")
    if place is None:
        raise UsageError("--cluster-id is missing: give --cluster-id (or --host-id for a mirrored config server)")
    kind = values.either("batch_id", "job_id")
    if kind is None:
        raise UsageError(
            "neither --batch-id nor --job-id is given: name the batch of a sharded cluster, or the restore job"
        )
    return Target(
        group_id=values.need("group_id"),
        cluster_id=values.get("cluster_id") if place == "cluster_id" else None,
        host_id=values.get("host_id") if place == "host_id" else None,
        batch_id=values.get("batch_id") if kind == "batch_id" else None,
        job_ids=tuple(dict.fromkeys(values.get("job_id"))) if kind == "job_id" else (),
        select=values.get("select"),
        expect_jobs=values.get("expect_jobs"),
    )


def limits(values: Values) -> RunLimits:
    """Timeouts, attempts, width and rate. Raises UsageError."""
    return RunLimits(**{name: values.get(name) for name in LIMITS})


def dest(values: Values) -> Path:
    """The target directory as an absolute path. Raises UsageError."""
    path: Path = values.need("dest")
    return Path(os.path.abspath(path))


def _look_up(
    option: Option, flags: Mapping[str, Any], environ: Mapping[str, str], file: Mapping[str, Any]
) -> _Found | None:
    if (given := flags.get(option.name)) not in (None, (), False):  # an empty text was given, and is looked at
        return _Found(_as_text(given), option.flag, 0)
    if option.env and environ.get(option.env):
        return _Found(environ[option.env], option.env, 1)
    for name in (option.name, *option.aliases):
        if name in file and file[name] != []:
            return _Found(_as_text(file[name]), f"{name} in the configuration file", 2)
    return _Found(option.default, option.flag, 3) if option.default is not None else None


def _as_text(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return tuple(str(item) for item in value)
    return str(value)


def _config_path(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Path | None:
    named = flags.get("config") or environ.get("RESTORE_AGENT_CONFIG")
    if named:
        return Path(str(named))
    return DEFAULT_CONFIG if os.path.exists(DEFAULT_CONFIG) else None  # unlike Path.exists it never raises


def _read_config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}

    try:
        table = tomllib.loads(_read_text(path, _CONFIG_LIMIT))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"configuration file {path}: not TOML ({printable(str(error))})") from None
    known = set(OPTIONS) | {alias for option in OPTIONS.values() for alias in option.aliases}
    for key, value in table.items():
        if key == "private_key":
            raise UsageError(f"configuration file {path}: the key itself does not belong here; use private_key_file")
        if key not in known:
            raise UsageError(
                f"configuration file {path}: unknown key {printable(key, 60)!r}; keys are {', '.join(sorted(known))}"
            )
        if isinstance(value, dict) or value is None:
            raise UsageError(f"configuration file {path}: {key} must be a plain value")
    return table


def _read_text(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > limit:
        raise UsageError(f"{path} is larger than {limit} bytes: this is not the file that was meant")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None


def _key_from_file(path: Path, source: str, *, guarded: bool) -> Secret:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"{source}: {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{source}: the path holds a NUL character") from None
    if not stat.S_ISREG(mode):
        raise UsageError(f"{source}: {path} is not a regular file")
    if guarded and mode & 0o077:
        raise UsageError(f"{source}: {path} can be read by group or others; run: chmod 600 {path}")
    return _key(_read_text(path, _KEY_FILE_LIMIT), f"{source}: {path}")


def _key(text: str, source: str) -> Secret:
    key = text.rstrip("\r\n")
    if not key.strip():
        raise UsageError(f"{source} is empty: it must hold the private key")
    if not key.isprintable():
        raise UsageError(f"{source} holds more than one line or control characters: it must hold the private key alone")
    return Secret(key)
