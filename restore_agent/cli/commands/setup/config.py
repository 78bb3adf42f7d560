"""The command `config`."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Mapping
from typing import Any

import click

from ....core.clock import rfc3339
from ....core.errors import UsageError
from ....core.untrusted import printable
from ....ui.terminal import output_width, write_lines
from ...config import Values
from ...help import GROUPS, Command
from ...options import OPTIONS, RUN_OPTIONS, Option, common, options
from ...session import Session, execute

_EXAMPLES = """
restore-agent config > restore.toml
restore-agent config --show --config restore.toml
"""

_INTRODUCTION = """\
# Configuration of restore-agent. Flags and environment variables take precedence over this file.
# Relative paths are relative to the directory of this file, and `~` is expanded. The private key
# itself is not allowed here.
"""

_WIDTH = 100

_NAME_WIDTH = max(map(len, OPTIONS))


@click.command(cls=Command, epilog=_EXAMPLES)
@click.option("--show", is_flag=True, help="Show the effective settings and their sources instead. [default: off]")
@options(*RUN_OPTIONS)
@common
def config(show: bool, **flags: Any) -> int:
    """Print an example configuration file, or the effective settings.

    With --show, each option is printed with its value and the source of the value: option, environment variable,
    configuration file, or default. The private key is never printed. Options are those of `run`.
    """
    return execute("config", flags, _show if show else lambda _: _example(), config=show)


def _example() -> int:
    lines = [_INTRODUCTION]
    for group, heading in GROUPS.items():
        lines.append(f"# {heading}\n")
        lines += [_entry(option) for option in OPTIONS.values() if option.group == group]
    write_lines("\n".join(lines).rstrip("\n"), sys.stdout)
    return 0


def _entry(option: Option) -> str:
    """Return the comment and the commented-out assignment of one option."""
    value = option.default if option.default is not None else option.metavar
    text = value if option.parse is OPTIONS["allow_unproven"].parse or value.isdigit() else f'"{value}"'
    notes = f" [{option.default_text}]" if option.default_text else ""
    wrapper = textwrap.TextWrapper(_WIDTH, "# ", "# ", break_on_hyphens=False, break_long_words=False)
    comment = wrapper.wrap(option.help + notes)
    return "\n".join([*comment, f"# {option.name} = {f'[{text}]' if option.many else text}\n"])


def _show(session: Session) -> int:
    rows = [_setting(session.values, option) for option in OPTIONS.values()]
    if session.values.get("output") == "json":
        moment = rfc3339(time.time())
        lines = [json.dumps({"event": "setting", "time": moment, **row}) for row in rows]
    else:
        path = session.values.config_path
        lines = [f"configuration file: {printable(str(path)) if path else 'none'}"]
        lines += [line for row in rows for line in _setting_lines(row, output_width(sys.stdout))]
    write_lines(session.redactor.clean("\n".join(lines)), sys.stdout)
    return 0


def _setting(values: Values, option: Option) -> dict[str, Any]:
    """Return the name, value, and source of an option. Raises UsageError if its value is invalid."""
    if option.name == "private_key_file":
        key = values.private_key_source()
        return {"name": "private_key", "value": None if key is None else "(hidden)", "source": _key_source(values)}
    value, found = values.get(option.name), values.source(option.name)
    if found is None:
        return {
            "name": option.name,
            "value": None,
            "source": (option.unset and f"default: {option.unset}") or "not set",
        }
    texts = found.text if option.name != "url" else str(value)  # without a path of the API
    shown = list(texts) if isinstance(texts, tuple) else texts
    return {"name": option.name, "value": shown, "source": "default" if found.rank == 3 else found.source}


def _setting_lines(row: Mapping[str, Any], width: int) -> list[str]:
    """Return one line, or two if the source does not fit."""
    line, source = f"{row['name']:<{_NAME_WIDTH}}  {_text(row['value'])}", f"({row['source']})"
    whole = f"{line}  {source}"
    return [whole] if len(whole) <= width else [line, f"{'':<{_NAME_WIDTH}}  {source}"]


def _key_source(values: Values) -> str:
    found = values.private_key_source()
    if found is None:
        return "not set"
    try:
        values.private_key()
    except UsageError as error:
        return f"unusable: {error.message}"
    return f"{found.source}: {found.text}" if found.text else found.source


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return printable(", ".join(value) if isinstance(value, list) else str(value), 200)
