# Copyright: the restore-agent developers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The restore-agent command line as a module sees it: options to arguments, JSON Lines to results."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

import json
import os

from ansible.module_utils.basic import env_fallback

TAIL = 20
"""So many lines of the agent's stderr are returned."""

NEXT = {
    1: "report it",
    2: "fix the call",
    10: "run `verify` later",
    11: "new restore job",
    12: "read the receipt",
    13: "mend the cause, run again: no download",
    20: "run again",
    21: "new restore job",
    22: "new restore job, longer expiry",
    23: "new restore job, more downloads",
    24: "check the ids",
    25: "look at Ops Manager",
    30: "key, role, access list",
    31: "CA file, client certificate",
    32: "run again",
    40: "free space",
    41: "host team",
    42: "look at DEST",
    50: "wait",
    129: "run again",
    130: "run again",
    143: "run again",
}
"""What to do by exit code, where the agent itself gave no hint. A test holds it to the agent's own table."""

ENVIRONMENT = {
    "url": "RESTORE_AGENT_URL",
    "public_key": "RESTORE_AGENT_PUBLIC_KEY",
    "private_key": "RESTORE_AGENT_PRIVATE_KEY",
    "private_key_file": "RESTORE_AGENT_PRIVATE_KEY_FILE",
    "group_id": "RESTORE_AGENT_GROUP_ID",
    "cluster_id": "RESTORE_AGENT_CLUSTER_ID",
    "batch_id": "RESTORE_AGENT_BATCH_ID",
    "dest": "RESTORE_AGENT_DEST",
    "ca_file": "RESTORE_AGENT_CA_FILE",
    "client_cert": "RESTORE_AGENT_CLIENT_CERT",
    "client_key": "RESTORE_AGENT_CLIENT_KEY",
    "config": "RESTORE_AGENT_CONFIG",
    "metrics_file": "RESTORE_AGENT_METRICS_FILE",
}

NOT_FLAGS = ("executable", "private_key")


def from_environment(name, **more):
    """An option that may also come from the variable that the agent itself reads."""
    return dict(more, fallback=(env_fallback, [ENVIRONMENT[name]]))


def flags(params, environ):
    """The options as arguments, sorted by name.

    A value that equals what the environment says is left to the agent, which reads the same variable: so an option
    of the task wins over a variable that excludes it, by the agent's own precedence.
    """
    found = []
    for name in sorted(params):
        value = params[name]
        if name in NOT_FLAGS or value is None or value is False or value == environ.get(ENVIRONMENT.get(name, "")):
            continue
        flag = "--" + name.replace("_", "-")
        if value is True:
            found.append(flag)
        else:
            found.extend("%s=%s" % (flag, one) for one in (value if isinstance(value, list) else [value]))
    return found


def secrets_for(params, environ):
    """The private key as an environment for the agent, never as an argument: arguments show in ps."""
    key = params.get("private_key")
    if not key or key == environ.get(ENVIRONMENT["private_key"]):
        return {}
    # a key of the task wins over a key file that only the environment names
    return {ENVIRONMENT["private_key"]: key, ENVIRONMENT["private_key_file"]: ""}


def parse_lines(text):
    """Standard output as a list of objects; lines that are none are passed over."""
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def tail(text):
    """The last lines of stderr."""
    return text.splitlines()[-TAIL:]


def command_of(module):
    """The agent's command, its program found on this host; ends the module when it is missing."""
    command = module.params["executable"]
    program = command[0] if command else ""
    found = program if "/" in program and os.access(program, os.X_OK) else None
    if "/" not in program:
        found = module.get_bin_path(program)
    if not found or not os.path.isfile(found):
        module.fail_json(
            msg="restore-agent is not on this host: %r is no program here. Next: install it (the role "
            "restore_agent.mongodb.restore does), or name it in the option executable." % program,
            reason="agent-missing",
            hint="Install restore-agent on this host, or name it in the option executable.",
        )
    return [found] + command[1:]


def call(module, arguments, environ=None):
    """Run the agent; (exit code, its lines of JSON, its stderr)."""
    code, out, err = module.run_command(command_of(module) + arguments, environ_update=environ or {})
    return code, parse_lines(out), err


def problems_in(lines):
    """What went wrong, as the agent told it: one dict each with id, message, archive, on_disk, download_spent, hint."""
    found = []
    for line in lines:
        if line.get("event") == "error":
            found.append({name: value for name, value in line.items() if name not in ("event", "time")})
        elif line.get("event") == "archive" and line.get("problem"):
            found.append(line["problem"])
    return found


def sentence(problem):
    """One problem in one line: what happened, to which archive, what is left, and what to do next."""
    text = problem.get("message") or "no message"
    if problem.get("archive"):
        text = "%s: %s" % (problem["archive"], text)
    text = "%s [%s]." % (text.rstrip("."), problem.get("id", "unknown"))
    if problem.get("on_disk"):
        text += " On disk: %s." % problem["on_disk"].rstrip(".")
    if problem.get("download_spent") is not None:
        text += " Download spent: %s." % ("yes" if problem["download_spent"] else "no")
    if problem.get("hint"):
        text += " Next: %s" % problem["hint"]
    return text
