# Copyright: the restore-agent developers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Interface to the restore-agent command line: options to arguments, JSON Lines to results."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

import json
import os

from ansible.module_utils.basic import env_fallback

TAIL = 20
"""Number of lines of stderr that are returned."""

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
"""Next step by exit code, for errors without a hint. A test compares it with the table of the agent."""

AGAIN = "run the play again"
CONTINUES = "run the play again; it continues from the files on disk"
"""Next steps after the agent was killed: any command, and a run."""

ENVIRONMENT = {
    "url": "RESTORE_AGENT_URL",
    "public_key": "RESTORE_AGENT_PUBLIC_KEY",
    "private_key": "RESTORE_AGENT_PRIVATE_KEY",
    "private_key_file": "RESTORE_AGENT_PRIVATE_KEY_FILE",
    "group_id": "RESTORE_AGENT_GROUP_ID",
    "cluster_id": "RESTORE_AGENT_CLUSTER_ID",
    "batch_id": "RESTORE_AGENT_BATCH_ID",
    "dest": "RESTORE_AGENT_DEST",
    "unpack": "RESTORE_AGENT_UNPACK",
    "ca_file": "RESTORE_AGENT_CA_FILE",
    "client_cert": "RESTORE_AGENT_CLIENT_CERT",
    "client_key": "RESTORE_AGENT_CLIENT_KEY",
    "config": "RESTORE_AGENT_CONFIG",
    "metrics_file": "RESTORE_AGENT_METRICS_FILE",
}

NOT_FLAGS = ("executable", "private_key", "record")


def from_environment(name, **more):
    """Return the specification of an option that falls back to the environment variable of the agent."""
    return dict(more, fallback=(env_fallback, [ENVIRONMENT[name]]))


def connection_spec():
    """Return the options of the connection, of the cluster, and of the command, as in the fragment `connection`."""
    spec = {name: from_environment(name, type="str") for name in ("url", "cluster_id")}
    spec.update((name, from_environment(name, type="path")) for name in ("ca_file", "client_cert", "config"))
    spec.update(
        public_key=from_environment("public_key", type="str", no_log=False),
        private_key=from_environment("private_key", type="str", no_log=True),
        # these two are paths, not keys
        private_key_file=from_environment("private_key_file", type="path", no_log=False),
        client_key=from_environment("client_key", type="path", no_log=False),
        group_id=from_environment("group_id", type="str", aliases=["project_id"]),
        host_id=dict(type="str"),
        executable=dict(type="list", elements="str", default=["restore-agent"]),
    )
    return spec


def flags(params, environ):
    """Return the options as arguments, sorted by name.

    A value that equals its environment variable is omitted, because the agent reads the same variable. An option of the
    task then takes precedence over a variable that excludes it.
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
    """Return the private key as environment variables for the agent. ps would show an argument."""
    key = params.get("private_key")
    if not key or key == environ.get(ENVIRONMENT["private_key"]):
        return {}
    # a key of the task takes precedence over a key file from the environment
    return {ENVIRONMENT["private_key"]: key, ENVIRONMENT["private_key_file"]: ""}


def parse_lines(text):
    """Return the JSON objects in stdout. Other lines are ignored."""
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
    """Return the last lines of stderr."""
    return text.splitlines()[-TAIL:]


def command_of(module):
    """Return the command with the path of its program. Fails the module if the program is missing."""
    command = module.params["executable"]
    program = command[0] if command else ""
    found = program if "/" in program and os.access(program, os.X_OK) else None
    if "/" not in program:
        found = module.get_bin_path(program)
    if not found or not os.path.isfile(found):
        module.fail_json(
            msg="restore-agent is not installed on this host: %r is not an executable file. Next: install it (for "
            "example with the role restore_agent.mongodb.restore), or set the option executable." % program,
            reason="agent-missing",
            hint="Install restore-agent on this host, or set the option executable.",
        )
    return [found] + command[1:]


def call(module, arguments, environ=None):
    """Run the agent, and return its exit code, its JSON objects, and its stderr."""
    code, out, err = module.run_command(command_of(module) + arguments, environ_update=environ or {})
    return code, parse_lines(out), err


def problems_in(lines):
    """Return the reported errors, each a dict with id, message, archive, on_disk, download_spent, and hint."""
    found = []
    for line in lines:
        if line.get("event") == "error":
            found.append({name: value for name, value in line.items() if name not in ("event", "time")})
    return found


def sentence(problem):
    """Return a problem as one line: archive, message, files on disk, download spent, and next step."""
    text = problem.get("message") or "no message"
    if problem.get("file_name"):
        text = "%s: %s" % (problem["file_name"], text)
    text = "%s [%s]." % (text.rstrip("."), problem.get("id", "unknown"))
    if problem.get("on_disk"):
        text += " On disk: %s." % problem["on_disk"].rstrip(".")
    if problem.get("download_spent") is not None:
        text += " Download spent: %s." % ("yes" if problem["download_spent"] else "no")
    if problem.get("hint"):
        text += " Next: %s" % problem["hint"]
    return text


def ending_of(lines):
    """Return the result event without its envelope, or an empty dict if the agent wrote none."""
    ending = lines[-1] if lines and lines[-1].get("event") == "result" else {}
    return {name: value for name, value in ending.items() if name not in ("event", "time")}


def problem_of(code, problems, failed=(), killed=CONTINUES):
    """Return reason and hint of a call.

    `failed`: the archives with an exit code, for a call without problems. `killed`: the next step after a kill.
    """
    if code == 0:
        return None, None
    reasons = [one.get("id") for one in problems] or [one.get("reason") for one in failed]
    hints = [one["hint"] for one in problems if one.get("hint")]
    return (reasons[0] if reasons else None), " ".join(dict.fromkeys(hints)) or (killed if code < 0 else NEXT.get(code))


def message_of(code, problems, err, failed=(), killed=CONTINUES):
    """Return the message of a failed call. `failed` and `killed` as for `problem_of`."""
    if problems:
        return " ".join(sentence(one) for one in problems)
    if failed:
        told = ", ".join("%s: %s" % (one.get("file_name") or one["job_id"], one.get("reason")) for one in failed)
        return "%s. Next: %s." % (told, NEXT.get(code, "see restore-agent explain %d" % code))
    last = (tail(err) or ["nothing on stderr"])[-1]
    if code < 0:
        return "restore-agent was killed by signal %d: %s. Next: %s." % (-code, last, killed)
    return "restore-agent ended with %d: %s. Next: %s." % (code, last, NEXT.get(code, "see stderr_tail"))
