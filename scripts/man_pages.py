"""Write the manual pages in man(7), made from the help of the commands: man_pages.py DIRECTORY."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import click

from restore_agent import __version__
from restore_agent.cli.options import DEFAULT_CONFIG, OPTIONS
from restore_agent.core.exit_codes import EXIT_CODES

_PROGRAM = "restore-agent"

_PAGE_DATE = "2026-11-24"

"""When the pages last changed in substance; a date of the build would make each build another one."""

_LINE = 78
"""Bytes of an input line; mandoc's lint accepts 80."""

_CONFIG_FILE = ((str(DEFAULT_CONFIG), "Configuration file, unless --config or RESTORE_AGENT_CONFIG sets another one."),)

_DEST_FILES = (
    ("DEST/<archive>", "A verified archive."),
    ("DEST/<archive>.part, .unproven, .mismatch", "Incomplete; complete, but without a published hash; quarantined."),
    ("DEST/SHA1SUMS, DEST/receipt.json", "Verified archives; the completion marker, written last."),
    ("DEST/.restore-agent/", "Lock, journal, and status file."),
)

_VARIABLES = (
    ("RESTORE_AGENT_PRIVATE_KEY", "The API private key itself; there is no option for it."),
    ("RESTORE_AGENT_CONFIG", "Path of the configuration file."),
    ("CREDENTIALS_DIRECTORY", "Set by systemd; its file private-key is used if no other key is set."),
    ("HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "Proxies."),
    ("NO_COLOR", "Disables color if it is set."),
)

_RUN_COMMANDS = ("run", "plan", "verify", "rehearse", "status", "report")

_API_COMMANDS = ("check", "jobs", "snapshots", "request")


def page_names(group: click.Group) -> list[str]:
    """Return the names of the pages: of the program, and of each command."""
    return [_PROGRAM, *(f"{_PROGRAM}-{name}" for name in group.list_commands(click.Context(group)))]


def page(group: click.Group, name: str) -> str:
    """Return one manual page by its name. Raises KeyError if there is none of that name."""
    root = click.Context(group, info_name=_PROGRAM, **group.context_settings)
    if name == _PROGRAM:
        return _lines(_program_page(group, root))
    command = group.get_command(root, name.removeprefix(f"{_PROGRAM}-"))
    if command is None:
        raise KeyError(name)
    return _lines(_command_page(command, click.Context(command, info_name=command.name, parent=root)))


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _head(name: str, purpose: str) -> list[str]:
    title = f'.TH "{name.upper()}" "1" "{_PAGE_DATE}" "{_PROGRAM} {__version__}" "User Commands"'
    return [title, ".nh", ".ad l", ".SH NAME", f"{_text(name)} \\-", *_filled(purpose.rstrip("."))]


def _program_page(group: click.Group, root: click.Context) -> Iterable[str]:
    yield from _head(_PROGRAM, "download and verify MongoDB Ops Manager backups")
    yield from (".SH SYNOPSIS", f".B {_text(_PROGRAM)}", ".I command", "[options]", ".SH DESCRIPTION")
    yield from _paragraphs(group.help or "")
    yield ".SH COMMANDS"
    for name in group.list_commands(root):
        command = group.get_command(root, name)
        assert command is not None  # the group has just listed it
        yield from _item(f"{_PROGRAM} {name}", _first_sentence(command))
    yield from (".SH OPTIONS", *_options(group, root))
    yield from _exit_status()
    yield from _environment(list(OPTIONS), root_page=True)
    yield from _files((*_CONFIG_FILE, *_DEST_FILES))
    others = [name for name in page_names(group) if name != _PROGRAM]
    yield from (".SH SEE ALSO", *_references(others))


def _command_page(command: click.Command, ctx: click.Context) -> Iterable[str]:
    name = command.name or ""
    yield from _head(f"{_PROGRAM}-{name}", _first_sentence(command))
    usage = " ".join(command.collect_usage_pieces(ctx))
    yield from (".SH SYNOPSIS", f".B {_text(f'{_PROGRAM} {name}')}", _text(usage), ".SH DESCRIPTION")
    yield from _paragraphs(command.help or "")
    yield from (".SH OPTIONS", *_options(command, ctx))
    if command.epilog:
        yield from (".SH EXAMPLES", ".nf")
        yield from (_text(line) for line in command.epilog.strip().splitlines())
        yield ".fi"
    names = [parameter.name or "" for parameter in command.params]
    long = name in (*_RUN_COMMANDS, *_API_COMMANDS)
    yield from _exit_status() if long else _short_exit_status()
    if "config" in names:
        yield from _environment([one for one in names if one in OPTIONS], root_page="public_key" in names)
        yield from _files((*_CONFIG_FILE, *(_DEST_FILES if name in _RUN_COMMANDS else ())))
    yield from (".SH SEE ALSO", *_references([_PROGRAM]))


def _exit_status() -> Iterable[str]:
    yield ".SH EXIT STATUS"
    for code, row in EXIT_CODES.items():
        yield from _item(str(code), f"{row.meaning}. Next: {row.next_step}.".replace("`", ""))


def _short_exit_status() -> Iterable[str]:
    yield from (".SH EXIT STATUS", *_item("0", "Success."), *_item("2", "Usage or configuration error."))
    yield from _filled("Other codes are described in restore-agent(1).")


def _environment(names: list[str], *, root_page: bool) -> Iterable[str]:
    """List the variables of options and, with `root_page`, those that are not options."""
    yield ".SH ENVIRONMENT"
    for name in names:
        option = OPTIONS[name]
        many = " Several values are separated by commas." if option.many else ""
        yield from _item(option.env, f"Sets {option.flag}.{many}")
    for variable, text in _VARIABLES if root_page else _VARIABLES[1:2]:
        yield from _item(variable, text)


def _files(rows: Iterable[tuple[str, str]]) -> Iterable[str]:
    yield ".SH FILES"
    for path, meaning in rows:
        yield from _item(path, meaning)


def _options(command: click.Command, ctx: click.Context) -> Iterable[str]:
    for parameter in command.get_params(ctx):
        if (record := parameter.get_help_record(ctx)) and record[1]:
            yield from _item(*record)


def _item(term: str, text: str) -> list[str]:
    return [".TP", f".B {_text(term)}", *_filled(text)]


def _references(names: list[str]) -> Iterable[str]:
    for name in names:
        yield f".BR {_text(name)} (1)" + ("," if name != names[-1] else "")


def _paragraphs(text: str) -> Iterable[str]:
    paragraphs = [" ".join(part.split()) for part in text.replace("\b", "").split("\n\n")]
    for number, part in enumerate(part for part in paragraphs if part):
        yield from ([".PP"] if number else []) + _filled(part)


def _first_sentence(command: click.Command) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split())


def _filled(text: str) -> list[str]:
    """Return text that roff fills, in input lines of ordinary length."""
    lines = textwrap.wrap(_escaped(text), _LINE, break_long_words=False, break_on_hyphens=False)
    return [_no_request(line) for line in lines]


def _text(text: str) -> str:
    """Return text that roff prints unchanged: no escapes, no requests, dashes that can be copied into a shell."""
    return _no_request(_escaped(text))


def _escaped(text: str) -> str:
    for plain, set_as in (("\\", "\\e"), ("-", "\\-"), ("…", "..."), ("–", "\\(en"), ("`", "\\(ga"), ("'", "\\(aq")):
        text = text.replace(plain, set_as)
    return text


def _no_request(text: str) -> str:
    return "\\&" + text if text[:1] in (".", "'") else text


def main() -> None:
    """Write all pages into the directory that the command line names."""
    from restore_agent.cli.main import cli

    for name in page_names(cli):
        Path(sys.argv[1], f"{name}.1").write_text(page(cli, name), encoding="utf-8")


if __name__ == "__main__":
    main()
