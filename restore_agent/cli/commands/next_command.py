"""The command that follows a request for a restore, quoted for a shell."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from ..config import Values
from ..options import CONNECTION, DEFAULT_CONFIG, OPTIONS

_SHOWN = (*CONNECTION, "group_id", "cluster_id", "host_id", "dest", "unpack", "owner")

_FILE_RANK = 2


def run_command(values: Values, batch_id: str | None, job_ids: Sequence[str]) -> str:
    """Return the `run` command for the jobs of a request, on one line. It never contains the private key.

    Values of the configuration file are not repeated: the command names the file.
    """
    words = ["restore-agent", "run"]
    if values.config_path and values.config_path != DEFAULT_CONFIG:
        words += ["--config", os.path.abspath(values.config_path)]
    for name in _SHOWN:
        found = values.source(name)
        if found and found.rank < _FILE_RANK and isinstance(found.text, str):
            words += [OPTIONS[name].flag, _value(values, name, found.text)]
    if batch_id:
        words += ["--batch-id", batch_id, "--expect-jobs", str(len(job_ids))]
    else:
        words += [word for job_id in job_ids for word in ("--job-id", job_id)]
    if values.source("dest") is None:
        words += ["--dest", f"restore-{batch_id or job_ids[0]}"]
    return shlex.join(words)


def _value(values: Values, name: str, text: str) -> str:
    """Return the value of an option as it is also right in another directory."""
    if name == "url":
        return str(values.get(name))
    return os.path.abspath(text) if OPTIONS[name].metavar in ("FILE", "DIR") else text
