"""The table of options: command line, environment, configuration file, help, and documentation use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..ui.console import FORMATS
from .help import GROUPS, GroupedOption
from .parsers import (
    base_url,
    before,
    choice,
    directory,
    duration,
    existing_file,
    file_to_write,
    identifier,
    output_file,
    owner_ids,
    plain_text,
    positive_duration,
    size,
    truth,
    whole,
    whole_hours,
)

DEFAULT_CONFIG = Path("/etc/restore-agent/config.toml")

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Option:
    """One option: its names, its group in the help, its parser, and its default.

    `default` is a text that `parse` accepts. `unset` describes in words what applies if there is no default value.
    """

    name: str
    group: str
    help: str
    parse: Callable[[str], Any]
    metavar: str
    default: str | None = None
    unset: str = ""
    many: bool = False
    aliases: tuple[str, ...] = ()
    short: str | None = None

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str:
        """The environment variable of the option."""
        return f"RESTORE_AGENT_{self.name.upper()}"

    @property
    def default_text(self) -> str:
        """The default as the help shows it, for example `default: 6h`; empty if the option has none."""
        if self.default is not None and self.metavar:
            return f"default: {self.default}"
        return f"default: {self.unset}" if self.unset else ""


OPTIONS: dict[str, Option] = {
    option.name: option
    for option in (
        Option("url", "connection", "Base URL of Ops Manager or Cloud Manager.", base_url, "URL"),
        Option("public_key", "connection", "API public key, or user name.", plain_text, "KEY"),
        Option(
            "private_key_file",
            "connection",
            "File with the API private key; must be readable by its owner only.",
            Path,
            "FILE",
            unset="$RESTORE_AGENT_PRIVATE_KEY or $CREDENTIALS_DIRECTORY/private-key",
        ),
        Option(
            "ca_file",
            "connection",
            "CA certificates (PEM) to trust.",
            existing_file,
            "FILE",
            unset="the system's trust store",
        ),
        Option("client_cert", "connection", "TLS client certificate (PEM).", existing_file, "FILE", unset="none"),
        Option(
            "client_key",
            "connection",
            "Key of the TLS client certificate (PEM).",
            existing_file,
            "FILE",
            unset="the key in --client-cert",
        ),
        Option("group_id", "target", "Project (group) ID.", identifier, "ID", aliases=("project_id",)),
        Option("cluster_id", "target", "Cluster ID.", identifier, "ID", unset="none"),
        Option(
            "host_id",
            "target",
            "Host ID of a mirrored (SCCC) config server, instead of a cluster.",
            identifier,
            "ID",
            unset="none",
        ),
        Option("batch_id", "target", "Batch of restore jobs (sharded cluster).", identifier, "ID", unset="none"),
        Option(
            "job_id",
            "target",
            "Restore job (replica set); repeatable.",
            identifier,
            "ID",
            unset="all jobs of the batch",
            many=True,
        ),
        Option(
            "select",
            "target",
            "Select only jobs whose job ID, cluster ID, host ID, or archive name matches; repeatable.",
            plain_text,
            "GLOB",
            unset="all jobs",
            many=True,
        ),
        Option(
            "expect_jobs",
            "target",
            "Number of jobs that the batch must list before it is complete.",
            whole(1, 100_000),
            "N",
            unset="not checked",
        ),
        Option(
            "snapshot",
            "request",
            "Snapshot to restore: its ID, or latest for the newest one that can be restored.",
            identifier,
            "ID|latest",
        ),
        Option(
            "before",
            "request",
            "With --snapshot latest: only snapshots that are not later than this RFC 3339 time, "
            "or than this duration back from now (6h).",
            before,
            "TIME",
            unset="now",
        ),
        Option(
            "allow_inconsistent",
            "request",
            "With the ID of a snapshot: restore it although it is possibly inconsistent or misses a shard.",
            truth,
            "",
            default="false",
            unset="off",
        ),
        Option(
            "max_downloads",
            "request",
            "Number of times that each archive may be downloaded.",
            whole(1, 999_999_999),
            "N",
            default="3",
        ),
        Option(
            "expires_in",
            "request",
            "Time after which the deliveries expire, in whole hours.",
            whole_hours,
            "TIME",
            default="12h",
        ),
        Option(
            "dry_run",
            "request",
            "Choose the snapshot, but request nothing.",
            truth,
            "",
            default="false",
            unset="off",
        ),
        Option("dest", "dest", "Directory for the archives; `run` creates it with mode 0700.", directory, "DIR"),
        Option(
            "unpack",
            "dest",
            "Also unpack each verified archive into a data path of its own in this directory.",
            directory,
            "DIR",
            unset="archives are not unpacked",
        ),
        Option(
            "owner",
            "dest",
            "Owner of what is unpacked, in a form of chown, such as mongod:mongod; needs root and --unpack.",
            owner_ids,
            "OWNER",
            unset="the user of this process",
        ),
        Option(
            "discard_archive",
            "dest",
            "Remove each archive once its data path is published; only with --unpack.",
            truth,
            "",
            default="false",
            unset="off",
        ),
        Option(
            "wait_timeout",
            "limits",
            "How long to wait for all selected jobs to become READY.",
            duration,
            "TIME",
            default="6h",
        ),
        Option(
            "hash_timeout",
            "limits",
            "How long to wait for hashes after the last download.",
            duration,
            "TIME",
            default="15m",
        ),
        Option(
            "poll_interval",
            "limits",
            "Initial poll interval; increases to at most 8 times this value.",
            positive_duration,
            "TIME",
            default="5s",
        ),
        Option(
            "stall_timeout",
            "limits",
            "Abort a transfer that receives no data for this long.",
            positive_duration,
            "TIME",
            default="60s",
        ),
        Option(
            "retries", "limits", "Maximum retries per archive after a failed attempt.", whole(0, 1000), "N", default="5"
        ),
        Option("parallel", "limits", "Number of archives to download in parallel.", whole(1, 64), "N", default="4"),
        Option(
            "limit_rate",
            "limits",
            "Limit the total download rate of all archives, in bytes per second.",
            size,
            "SIZE",
            unset="no limit",
        ),
        Option(
            "allow_unproven",
            "limits",
            "Exit 0 for a structurally complete archive even if no hash was published.",
            truth,
            "",
            default="false",
            unset="off",
        ),
        Option(
            "metrics_file",
            "output",
            "Write run metrics to this file in Prometheus text format for node_exporter; requires prometheus-client.",
            file_to_write,
            "FILE",
            unset="none",
        ),
        Option(
            "html",
            "output",
            "Write the report as one HTML page to this file; requires Jinja2.",
            output_file,
            "FILE",
            unset="the report is printed as text",
        ),
        Option(
            "output",
            "output",
            "Print results as text, or as JSON Lines on stdout.",
            choice(*FORMATS),
            "|".join(FORMATS),
            default="text",
            short="-o",
        ),
        Option(
            "progress",
            "output",
            "Show progress as bars, or as plain lines every 30 s; auto: bars if stderr is a terminal.",
            choice("auto", "bar", "plain", "none"),
            "auto|bar|plain|none",
            default="auto",
        ),
    )
}
"""Every option of `run`, `request`, and `report`; the other commands have some of them."""

CONNECTION = ("url", "public_key", "private_key_file", "ca_file", "client_cert", "client_key")

TARGET = ("group_id", "cluster_id", "host_id", "batch_id", "job_id", "select", "expect_jobs", "dest")
REQUEST = ("snapshot", "before", "allow_inconsistent", "max_downloads", "expires_in", "dry_run")

UNPACK = ("unpack", "owner", "discard_archive")

LIMITS = (
    "wait_timeout",
    "hash_timeout",
    "poll_interval",
    "stall_timeout",
    "retries",
    "parallel",
    "limit_rate",
    "allow_unproven",
)

METRICS_OPTIONS = ("metrics_file",)

OUTPUT_OPTIONS = ("output", "progress")

RUN_OPTIONS = (*CONNECTION, *TARGET, *UNPACK, *LIMITS, *METRICS_OPTIONS, *OUTPUT_OPTIONS)
"""The options of `run` and `plan`."""


def options(*names: str) -> Decorator:
    """Add options of the table to a command. Their values stay text until `Values` parses them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            function = _option(OPTIONS[name])(function)
        return function

    return decorate


def own_option(*flags: str, group: str, **more: Any) -> Decorator:
    """Add an option that only this command has, under the heading of a group."""
    return click.option(*flags, cls=GroupedOption, heading=GROUPS[group], **more)


def _option(option: Option) -> Decorator:
    flags = [option.flag, *("--" + alias.replace("_", "-") for alias in option.aliases)]
    notes = "; ".join(note for note in (f"${option.env}", option.default_text) if note)
    text = f"{option.help} [{notes}]"
    if not option.metavar:
        return own_option(*flags, option.name, group=option.group, is_flag=True, help=text)
    short = [option.short] if option.short else []
    given: dict[str, Any] = {"metavar": option.metavar, "multiple": option.many, "shell_complete": _completer(option)}
    return own_option(*short, *flags, option.name, group=option.group, help=text, **given)


def _completer(option: Option) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return the shell completion of an option: paths, one of a few words, or nothing."""
    kinds = {"FILE": "file", "DIR": "dir"}

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if option.metavar in kinds:
            return [CompletionItem(incomplete, type=kinds[option.metavar])]
        words = option.metavar.split("|") if "|" in option.metavar else []
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]

    return complete


def common(function: Callable[..., Any] | None = None, *, config: bool = True) -> Callable[..., Any]:
    """Add `--debug` and, unless `config` is false, `--config` to a command."""

    def decorate(decorated: Callable[..., Any]) -> Callable[..., Any]:
        debug = "Print a traceback, with secrets hidden, if the command fails. [default: off]"
        decorated = click.option("--debug", is_flag=True, help=debug)(decorated)
        if config:
            text = (
                "TOML file that sets options by their names, with underscores instead of dashes. "
                f"[$RESTORE_AGENT_CONFIG; default: {DEFAULT_CONFIG}, if it exists]"
            )
            path = click.Path()  # only for shell completion; `Values` reports a file that cannot be read
            decorated = click.option("--config", metavar="FILE", type=path, help=text)(decorated)
        return decorated

    return decorate(function) if function else decorate
