"""Options as click wants them, made from the table in `settings`; and commands whose help ends with examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from .parsers import (
    base_url,
    choice,
    directory,
    duration,
    existing_file,
    file_to_write,
    identifier,
    plain_text,
    positive_duration,
    size,
    truth,
    whole,
)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def options(*names: str) -> Decorator:
    """Options of the table, as click wants them; values stay text until settings parse them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            function = _option(name)(function)
        return function

    return decorate


def _option(name: str) -> Decorator:
    option = OPTIONS[name]
    flags = [option.flag, *("--" + alias.replace("_", "-") for alias in option.aliases)]
    notes = [f"${option.env}"] if option.env else []
    if option.default is not None and option.metavar:
        notes.append(f"default {option.default}")
    text = option.help + (f" [{'; '.join(notes)}]" if notes else "")
    if not option.metavar:
        return click.option(*flags, name, is_flag=True, help=text)
    short = [option.short] if option.short else []
    given: dict[str, Any] = {"metavar": option.metavar, "multiple": option.many, "shell_complete": _completes(option)}
    return click.option(*short, *flags, name, help=text, **given)


def _completes(option: Option) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """What the shell offers for a value, by its kind: paths, one of a few words, or nothing."""
    kinds = {"FILE": "file", "DIR": "dir"}

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if option.metavar in kinds:
            return [CompletionItem(incomplete, type=kinds[option.metavar])]
        words = option.metavar.split("|") if "|" in option.metavar else []
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]

    return complete


def common(function: Callable[..., Any] | None = None, *, config: bool = True) -> Callable[..., Any]:
    """`--debug` and, unless told otherwise, `--config`: for every command."""

    def decorate(decorated: Callable[..., Any]) -> Callable[..., Any]:
        debug = "Show a traceback (secrets hidden) when something fails."
        decorated = click.option("--debug", is_flag=True, help=debug)(decorated)
        text = "TOML file with the same names, underscores for dashes. [$RESTORE_AGENT_CONFIG; default {}]"
        if config:
            path = click.Path()  # for the shell; whether it can be read, settings tell
            decorated = click.option("--config", metavar="FILE", type=path, help=text.format(DEFAULT_CONFIG))(decorated)
        return decorated

    return decorate(function) if function else decorate


class Examples(click.Command):
    """A command whose help ends with examples, kept line by line."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they stand."""
        if self.epilog:
            with formatter.section("Examples"):
                formatter.write_paragraph()
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"  {line}\n")


DEFAULT_CONFIG = Path("/etc/restore-agent/config.toml")


@dataclass(frozen=True)
class Option:
    """One option: its names, where it may come from, how it parses and what it is when nobody says."""

    name: str
    help: str
    parse: Callable[[str], Any]
    env: str | None = None
    default: str | None = None
    many: bool = False
    metavar: str = "TEXT"
    aliases: tuple[str, ...] = ()
    short: str | None = None

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return "--" + self.name.replace("_", "-")


OPTIONS: dict[str, Option] = {
    option.name: option
    for option in (
        Option("url", "Ops Manager or Cloud Manager base URL.", base_url, "RESTORE_AGENT_URL", metavar="URL"),
        Option("public_key", "API public key (or user name).", plain_text, "RESTORE_AGENT_PUBLIC_KEY", metavar="KEY"),
        Option(
            "private_key_file",
            "File holding the API private key; only its owner may be able to read it.",
            Path,
            "RESTORE_AGENT_PRIVATE_KEY_FILE",
            metavar="FILE",
        ),
        Option(
            "group_id",
            "Project (group) id.",
            identifier,
            "RESTORE_AGENT_GROUP_ID",
            metavar="ID",
            aliases=("project_id",),
        ),
        Option("cluster_id", "Cluster id.", identifier, "RESTORE_AGENT_CLUSTER_ID", metavar="ID"),
        Option("host_id", "Mirrored (SCCC) config server's host id, instead of a cluster.", identifier, metavar="ID"),
        Option(
            "batch_id", "Batch of restore jobs (sharded cluster).", identifier, "RESTORE_AGENT_BATCH_ID", metavar="ID"
        ),
        Option("job_id", "Restore job (replica set); repeatable.", identifier, many=True, metavar="ID"),
        Option(
            "select",
            "Only jobs of which job id, cluster id, host id or archive name matches; repeatable.",
            plain_text,
            many=True,
            metavar="GLOB",
        ),
        Option("expect_jobs", "The batch is complete only once N jobs are listed.", whole(1, 100_000), metavar="N"),
        Option(
            "dest",
            "Directory for the archives; created with mode 0700.",
            directory,
            "RESTORE_AGENT_DEST",
            metavar="DIR",
        ),
        Option(
            "wait_timeout", "How long to wait for all jobs to become READY.", duration, default="6h", metavar="TIME"
        ),
        Option(
            "hash_timeout",
            "How long to wait for hashes after the last download.",
            duration,
            default="15m",
            metavar="TIME",
        ),
        Option(
            "poll_interval",
            "First poll interval; backs off up to 8 times it.",
            positive_duration,
            default="5s",
            metavar="TIME",
        ),
        Option(
            "stall_timeout",
            "Cut a transfer without a byte for this long.",
            positive_duration,
            default="60s",
            metavar="TIME",
        ),
        Option("retries", "Fresh attempts per archive after a failed one.", whole(0, 1000), default="5", metavar="N"),
        Option("parallel", "Archives at once.", whole(1, 64), default="4", metavar="N"),
        Option("limit_rate", "Bytes per second, all archives together.", size, metavar="SIZE"),
        Option(
            "allow_unproven",
            "Exit 0 for a whole archive although no hash was published.",
            truth,
            default="false",
            metavar="",
        ),
        Option(
            "ca_file",
            "CA certificates (PEM) instead of the system's.",
            existing_file,
            "RESTORE_AGENT_CA_FILE",
            metavar="FILE",
        ),
        Option(
            "client_cert", "TLS client certificate (PEM).", existing_file, "RESTORE_AGENT_CLIENT_CERT", metavar="FILE"
        ),
        Option("client_key", "TLS client key (PEM).", existing_file, "RESTORE_AGENT_CLIENT_KEY", metavar="FILE"),
        Option(
            "metrics_file",
            "Keep metrics of the run here, as Prometheus text for node_exporter; needs prometheus-client.",
            file_to_write,
            "RESTORE_AGENT_METRICS_FILE",
            metavar="FILE",
        ),
        Option(
            "output",
            "Results as text, or JSON Lines on stdout.",
            choice("text", "json"),
            "RESTORE_AGENT_OUTPUT",
            default="text",
            metavar="text|json",
            short="-o",
        ),
        Option(
            "progress",
            "Bars on a terminal, else a plain line every 30 s.",
            choice("auto", "bar", "plain", "none"),
            default="auto",
            metavar="auto|bar|plain|none",
        ),
    )
}

"""Every option of `run`; the other commands take some of them."""

CONNECTION = ("url", "public_key", "private_key_file", "ca_file", "client_cert", "client_key")

TARGET = ("group_id", "cluster_id", "host_id", "batch_id", "job_id", "select", "expect_jobs", "dest")

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
