"""Configuration file for a restore from the running simulator."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FIRST_LINE = "# Written by the simulated Ops Manager, which overwrites it at its next start.\n"


def write_config(path: Path, hello: Mapping[str, Any]) -> None:
    """Write a TOML file for `run --config`, and the private key (mode 0600) next to it in `path` + `.key`.

    `hello` is that of the simulator. Raises OSError, also if one of the files exists and is not from a simulator.
    """
    path = path.absolute()
    key = path.with_name(path.name + ".key")
    if not _is_ours(path):
        for file in (path, key):
            if os.path.lexists(file):
                raise FileExistsError(f"{file} exists and was not written by the simulator; it is not overwritten")
    _write(key, f"{hello['private_key']}\n")
    _write(path, _FIRST_LINE + _toml(path, key, hello))


def _toml(path: Path, key: Path, hello: Mapping[str, Any]) -> str:
    values: dict[str, Any] = {
        "url": hello["url"],
        "public_key": hello["public_key"],
        "private_key_file": str(key),
        "group_id": hello["group_id"],
        "cluster_id": hello["cluster_id"],
    }
    if hello["batch_id"]:
        values["batch_id"] = hello["batch_id"]
    else:
        values["job_id"] = hello["job_ids"]
    if hello["ca_file"]:
        values["ca_file"] = hello["ca_file"]
    values["dest"] = str(path.parent / "restore")
    # a JSON string or array of strings without surrogates is one in TOML, too
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())


def _is_ours(path: Path) -> bool:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8") as file:
            return file.readline() == _FIRST_LINE
    except (OSError, UnicodeDecodeError):
        return False


def _write(path: Path, text: str) -> None:
    """Write a new file with mode 0600 in place of an old one of a simulator."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
