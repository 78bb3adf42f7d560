"""Settings of one call: flags before environment before configuration file before defaults, merged once.

Values stay text until they are parsed here, so that the same mistake gives the same message wherever it was made.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from ..core.redaction import Secret
from ..core.settings import LATEST, Connection, RestoreOrder, RunLimits, RunSettings, Target, UnpackSettings
from ..core.untrusted import printable
from .config_file import absolute_path, did_you_mean, expanded, read_table, read_text, require_known_keys
from .options import CONNECTION, DEFAULT_CONFIG, LIMITS, OPTIONS, TARGET, Option

_LARGEST_KEY_FILE = 64 * 1024
"""Bytes of a key file at most."""

_PIPES_OF_SHELLS = (Path("/dev/fd"), Path("/proc/self/fd"))

_KEY_VARIABLE = "RESTORE_AGENT_PRIVATE_KEY"

_OTHER_VARIABLES = (_KEY_VARIABLE, "RESTORE_AGENT_CONFIG")

_ALTERNATIVES = {"cluster_id": "host_id", "batch_id": "job_id"}
"""Required options that another option can replace."""

_REQUIRED = ("url", "public_key", "private_key_file", "group_id", "cluster_id", "batch_id", "dest")


@dataclass(frozen=True)
class Found:
    """The text of an option and its source. `rank`: 0 flag, 1 environment, 2 file, 3 default."""

    text: str | tuple[str, ...]
    source: str
    rank: int


class Values:
    """The options of one call with their sources; parsed on access."""

    def __init__(self, flags: Mapping[str, Any], environ: Mapping[str, str], *, config: bool = True) -> None:
        """Read the configuration file if `config` is true. Raises UsageError if it is unusable."""
        self._environ = environ
        self._found: dict[str, Found] = {}
        self.config_path = _config_path(flags, environ) if config else None
        file: dict[str, Any] = {}
        if self.config_path is not None:
            file = read_table(self.config_path)
            require_known_keys(self.config_path, file)
        for name, option in OPTIONS.items():
            found = _from_flags(option, flags) or _from_environment(option, environ)
            found = found or _from_file(option, file, self.config_path)
            if found is None and option.default is not None:
                found = Found(option.default, option.flag, 3)
            if found is not None:
                self._found[name] = found

    def source(self, name: str) -> Found | None:
        """Return the text of an option and its source, or None if it is not set."""
        return self._found.get(name)

    def get(self, name: str) -> Any:
        """Return the parsed value of an option, or None. Raises UsageError that names the source of the value."""
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
            shown = "" if name == "url" else f" {printable(str(found.text), 80)!r}"  # a URL may contain a password
            raise UsageError(f"{found.source}{shown}: {error}") from None

    def require(self, *names: str) -> None:
        """Raise UsageError that names every required option that is missing."""
        missing = [name for name in names if not self._is_set(name)]
        if not missing:
            return
        flags = [_with_alternative(name) for name in missing]
        if len(missing) == 1:
            name = "private_key" if missing == ["private_key_file"] else missing[0]
            option = OPTIONS[missing[0]]
            where = f"{option.flag} or {option.env}, or {option.name} in the configuration file"
            more = f", or {_KEY_VARIABLE}" if name == "private_key" else ""
            raise UsageError(f"{flags[0]} is missing: set {where}{more}")
        text = f"{', '.join(flags[:-1])} and {flags[-1]} are missing: set them as options, as variables "
        raise UsageError(f"{text}({OPTIONS[missing[0]].env}, …), or in the configuration file")

    def _is_set(self, name: str) -> bool:
        if name == "private_key_file":
            return self.private_key_source() is not None
        return any(self.get(one) if OPTIONS[one].many else one in self._found for one in _alternatives(name))

    def either(self, one: str, other: str) -> str | None:
        """Return which of two options that exclude each other is set: the one with the stronger source.

        Raises UsageError if both have the same source.
        """
        first, second = self._found.get(one), self._found.get(other)
        if first and second:
            if first.rank == second.rank:
                raise UsageError(
                    f"{OPTIONS[one].flag} and {OPTIONS[other].flag} exclude each other: set only one of them"
                )
            return one if first.rank < second.rank else other
        return one if first else other if second else None

    def private_key_source(self) -> Found | None:
        """Return the strongest source of the private key, with the path of its file, or None. The key is not read."""
        found = self._found.get("private_key_file")
        if found and found.rank < 2:
            return found
        if self._environ.get(_KEY_VARIABLE):
            return Found("", _KEY_VARIABLE, 1)
        if found:
            return found
        if directory := self._environ.get("CREDENTIALS_DIRECTORY"):
            return Found(os.path.join(directory, "private-key"), "CREDENTIALS_DIRECTORY", 3)
        return None

    def private_key(self) -> Secret:
        """Return the private key. Raises UsageError if it is missing, or if group or others can read its file."""
        self.require("private_key_file")
        found = self.private_key_source()
        if found is None or found.source == _KEY_VARIABLE:
            return _key(self._environ[_KEY_VARIABLE], _KEY_VARIABLE)
        # systemd protects its directory and may grant a service user access by an ACL, which shows as a group bit
        guarded = found.source != "CREDENTIALS_DIRECTORY"
        return _key_from_file(Path(str(found.text)), found.source, guarded=guarded)


def run_settings(values: Values) -> RunSettings:
    """Return everything that a run needs. Raises UsageError that names all missing options at once."""
    values.require(*_REQUIRED)
    return RunSettings(connection(values), target(values), limits(values), dest(values), unpack(values))


def unpack(values: Values) -> UnpackSettings | None:
    """Return where and how to unpack, or None. Raises UsageError."""
    directory, owner, discard = values.get("unpack"), values.get("owner"), values.get("discard_archive")
    if directory is None:
        for name, given in (("owner", owner), ("discard_archive", discard)):
            if given:
                raise UsageError(f"{OPTIONS[name].flag} needs --unpack")
        return None
    uid, gid = owner or (-1, -1)
    return UnpackSettings(directory, uid, gid, discard)


def connection(values: Values) -> Connection:
    """Return how to reach Ops Manager. Raises UsageError."""
    values.require(*(name for name in CONNECTION if name in _REQUIRED))
    if values.get("client_key") and not values.get("client_cert"):
        raise UsageError("--client-key needs --client-cert")
    return Connection(
        url=values.get("url"),
        public_key=values.get("public_key"),
        private_key=values.private_key(),
        ca_file=values.get("ca_file"),
        client_cert=values.get("client_cert"),
        client_key=values.get("client_key"),
    )


def target(values: Values) -> Target:
    """Return which restore jobs are selected. Raises UsageError if IDs are missing or exclude each other."""
    values.require(*(name for name in TARGET if name in _REQUIRED and name != "dest"))
    place = values.either("cluster_id", "host_id")
    kind = values.either("batch_id", "job_id")
    return Target(
        group_id=values.get("group_id"),
        cluster_id=values.get("cluster_id") if place == "cluster_id" else None,
        host_id=values.get("host_id") if place == "host_id" else None,
        batch_id=values.get("batch_id") if kind == "batch_id" else None,
        job_ids=tuple(dict.fromkeys(values.get("job_id"))) if kind == "job_id" else (),
        select=values.get("select"),
        expect_jobs=values.get("expect_jobs"),
    )


def cluster(values: Values, *more: str) -> tuple[Connection, Target]:
    """Return how to reach Ops Manager, and a cluster or host. Raises UsageError, also if one of `more` is missing."""
    values.require(*(name for name in _REQUIRED if name not in ("batch_id", "dest")), *more)
    return connection(values), place(values)


def place(values: Values) -> Target:
    """Return the project and the cluster or host, as far as they are given. Raises UsageError."""
    kind = values.either("cluster_id", "host_id")
    if kind and not values.get("group_id"):
        raise UsageError(f"{OPTIONS[kind].flag} needs --group-id")
    return Target(
        group_id=values.get("group_id") or "",
        cluster_id=values.get("cluster_id") if kind == "cluster_id" else None,
        host_id=values.get("host_id") if kind == "host_id" else None,
    )


def order(values: Values) -> RestoreOrder:
    """Return the restore to request. Raises UsageError if options are missing or exclude each other."""
    snapshot, before = values.get("snapshot"), values.get("before")
    if before and snapshot != LATEST:
        raise UsageError("--before is only for --snapshot latest")
    if values.get("allow_inconsistent") and snapshot == LATEST:
        raise UsageError("--allow-inconsistent is only for a snapshot that is given by its ID")
    return RestoreOrder(
        snapshot=snapshot,
        before=before,
        max_downloads=values.get("max_downloads"),
        expiration_hours=values.get("expires_in"),
        allow_inconsistent=values.get("allow_inconsistent"),
        dry_run=values.get("dry_run"),
    )


def limits(values: Values) -> RunLimits:
    """Return timeouts, retries, parallelism, and rate. Raises UsageError."""
    return RunLimits(**{name: values.get(name) for name in LIMITS})


def dest(values: Values) -> Path:
    """Return the destination directory as an absolute path. Raises UsageError."""
    values.require("dest")
    path: Path = values.get("dest")
    return path


def output_form(flags: Mapping[str, Any], environ: Mapping[str, str], *, config: bool = True) -> str:
    """Return `json` or `text` for a call that is wrong, from every source that can still be read; never raises."""
    wanted = flags.get("output") or environ.get(OPTIONS["output"].env)
    try:
        if config and not wanted and (path := _config_path(flags, environ)) is not None:
            wanted = read_table(path).get("output")
    except (UsageError, ValueError):
        wanted = None
    return "json" if wanted == "json" else "text"


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a warning for each variable RESTORE_AGENT_* that no option reads."""
    known = {name for option in OPTIONS.values() for name in _variables(option)} | set(_OTHER_VARIABLES)
    unknown = sorted(name for name in environ if name.startswith("RESTORE_AGENT_") and name not in known)
    return [f"the variable {printable(name, 80)} is unknown and ignored{did_you_mean(name, known)}" for name in unknown]


def _from_flags(option: Option, flags: Mapping[str, Any]) -> Found | None:
    given = flags.get(option.name)
    if given in (None, (), False):  # an empty text was given, and is reported by its parser
        return None
    return Found(_expanded(option, _as_text(given), option.flag), option.flag, 0)


def _from_environment(option: Option, environ: Mapping[str, str]) -> Found | None:
    for variable in _variables(option):
        if text := environ.get(variable):
            parts = tuple(part.strip() for part in text.split(",") if part.strip())
            return Found(parts if option.many else _expanded(option, text, variable), variable, 1)
    return None


def _expanded(option: Option, text: str | tuple[str, ...], source: str) -> str | tuple[str, ...]:
    return expanded(text, source) if _is_path(option) and isinstance(text, str) else text


def _is_path(option: Option) -> bool:
    return option.metavar in ("FILE", "DIR")


def _from_file(option: Option, file: Mapping[str, Any], path: Path | None) -> Found | None:
    for name in (option.name, *option.aliases):
        if path is None or name not in file or file[name] == []:
            continue
        text = _as_text(file[name])
        if _is_path(option) and isinstance(text, str):
            text = absolute_path(text, path.absolute().parent, name)
        return Found(text, f"{name} in the configuration file", 2)
    return None


def _variables(option: Option) -> list[str]:
    return [option.env, *(f"RESTORE_AGENT_{alias.upper()}" for alias in option.aliases)]


def _alternatives(name: str) -> list[str]:
    return [name, *([_ALTERNATIVES[name]] if name in _ALTERNATIVES else [])]


def _with_alternative(name: str) -> str:
    flag, *others = (OPTIONS[one].flag for one in _alternatives(name))
    return f"{flag} (or {others[0]})" if others else flag


def _as_text(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return tuple(str(item) for item in value)
    return str(value)


def _config_path(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Path | None:
    named = flags.get("config") or environ.get("RESTORE_AGENT_CONFIG")
    if named:
        return Path(expanded(str(named), "--config or RESTORE_AGENT_CONFIG"))
    return DEFAULT_CONFIG if os.path.exists(DEFAULT_CONFIG) else None  # unlike Path.exists it never raises


def _key_from_file(path: Path, source: str, *, guarded: bool) -> Secret:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"{source}: {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{source}: the path contains a NUL character") from None
    from_shell = stat.S_ISFIFO(mode) and path.parent in _PIPES_OF_SHELLS  # <(command): a pipe that has a writer
    if not (stat.S_ISREG(mode) or from_shell):
        raise UsageError(f"{source}: {path} is not a regular file")
    if guarded and mode & 0o077:
        hint = f"Run: chmod 600 {path}"
        raise UsageError(f"{source}: {path} can be read by group or others; run: chmod 600 {path}", hint=hint)
    return _key(read_text(path, _LARGEST_KEY_FILE), f"{source}: {path}")


def _key(text: str, source: str) -> Secret:
    key = text.rstrip("\r\n")
    if not key.strip():
        raise UsageError(f"{source} is empty: it must contain the private key")
    if not key.isprintable():
        raise UsageError(
            f"{source} contains more than one line or control characters: it must contain only the private key"
        )
    return Secret(key)
