#!/usr/bin/python
# Copyright: the restore-agent developers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Ansible module: request the restore of a snapshot from Ops Manager with restore-agent."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
module: restore_request
short_description: Request the restore of a MongoDB Ops Manager snapshot
version_added: 1.2.0
description:
  - Calls C(restore-agent request) on the host. It chooses a snapshot of the cluster and asks Ops Manager for its
    restore.
    The module M(restore_agent.mongodb.restore) then downloads the archives of the batch that was created.
  - The request is sent only once. If its answer is lost, the module fails with
    C(exit_code=32) and C(reason=creation-unconfirmed), because a restore may have been created.
  - Without O(record), each call requests a restore. With O(record), a further call for the same snapshot returns the
    jobs
    of the first, and requests nothing.
author:
  - The restore-agent developers (@restore-agent)
extends_documentation_fragment:
  - restore_agent.mongodb.connection
requirements:
  - restore-agent on the host. If it is not the executable, it needs Python 3.11 or newer, which can differ from
    Ansible's interpreter.
attributes:
  check_mode:
    support: full
    description: Calls C(restore-agent request --dry-run), which chooses the snapshot and requests nothing.
  diff_mode:
    support: none
    description: Nothing on the host is changed, except O(record).
options:
  snapshot:
    description: ID of the snapshot, or V(latest) for the newest one that is complete, is not possibly inconsistent, and
      misses no shard.
    type: str
    required: true
  before:
    description: With O(snapshot=latest), only snapshots that are not later than this RFC 3339 time, or than this
      duration
      back from now, such as V(6h).
    type: str
  allow_inconsistent:
    description: With the ID of a snapshot, restore it although it is possibly inconsistent or misses a shard.
    type: bool
    default: false
  max_downloads:
    description: Number of times that each archive may be downloaded. The agent's default is V(3).
    type: int
  expires_in:
    description: Time after which the deliveries expire, in whole hours. The agent's default is V(12h).
    type: str
  record:
    description:
      - File on the host in which the request is recorded, with mode 0600. Its directory is created with mode 0700 if it
        is missing.
      - If the file has a request with the same O(url), O(group_id), O(cluster_id), O(host_id), O(snapshot), and
        O(before), or with O(snapshot) as its snapshot, that request is returned and nothing is requested.
      - The file is written before the request is sent. If the answer is lost or the host fails meanwhile, the module
        fails at each further call until the file is removed, so that no second restore is created by mistake.
    type: path
seealso:
  - module: restore_agent.mongodb.restore
"""

EXAMPLES = r"""
- name: Show which snapshot would be restored (check mode requests nothing)
  restore_agent.mongodb.restore_request:
    config: /etc/restore-agent/config.toml
    snapshot: latest
  check_mode: true
  register: restore_choice

- name: Request the newest snapshot from before the damage, once
  restore_agent.mongodb.restore_request:
    config: /etc/restore-agent/config.toml
    snapshot: latest
    before: "2026-11-26T03:00:00Z"
    record: /backup/restore/request.json
  register: requested

- name: Download and unpack its archives
  restore_agent.mongodb.restore:
    config: /etc/restore-agent/config.toml
    batch_id: "{{ requested.batch_id }}"
    expect_jobs: "{{ requested.jobs | length }}"
    dest: /backup/restore
    unpack: /data/restore
"""

RETURN = r"""
snapshot_id:
  description: ID of the snapshot that was chosen, or null.
  returned: if the agent could be called
  type: str
  sample: 5fc4f7c1b2e4a1000155b8aa
snapshot_timestamp:
  description: Time of the snapshot (RFC 3339), or null.
  returned: if the agent could be called
  type: str
  sample: "2026-11-26T02:00:00Z"
batch_id:
  description: Batch of the restore jobs. Null for a replica set, whose only job has no batch, and if nothing was
    requested.
  returned: if the agent could be called
  type: str
  sample: 5fc4f7c1b2e4a1000155b8dd
jobs:
  description: One dict for each restore job with job_id, cluster_id, and status at the time of the request. Empty if
    nothing
    was requested.
  returned: if the agent could be called
  type: list
  elements: dict
found:
  description: Whether this request was found in O(record), so that nothing was requested by this call.
  returned: always, unless the agent is missing
  type: bool
request:
  description: The content of O(record). Null without O(record), in check mode if there is none yet, and after a
    failure.
  returned: if the agent could be called
  type: dict
  contains:
    asked:
      description: The options that identify the request.
      type: dict
      returned: always
    requested_at:
      description: Time of the request (UTC, by the host's clock).
      type: str
      returned: always
    state:
      description: V(requested), or V(unconfirmed) while no answer is known.
      type: str
      returned: always
exit_code:
  description: Exit code of the agent, 0 for a request that was found in O(record). C(restore-agent explain) explains
    each
    code.
  returned: if the agent was called, or the request was found
  type: int
  sample: 24
reason:
  description: A stable ID of the error, or null.
  returned: always
  type: str
  sample: no-snapshot
hint:
  description: Next step, or null.
  returned: always
  type: str
problems:
  description: All errors, with id, message, and hint.
  returned: if the agent was called
  type: list
  elements: dict
stderr_tail:
  description: The last lines of the agent's stderr.
  returned: if the agent was called
  type: list
  elements: str
"""

import json
import os
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.restore_agent.mongodb.plugins.module_utils.agent_cli import (
    AGAIN,
    call,
    command_of,
    connection_spec,
    ending_of,
    flags,
    message_of,
    problem_of,
    problems_in,
    secrets_for,
    tail,
)

CREATED = ("snapshot_id", "snapshot_timestamp", "batch_id", "jobs")
"""Fields of the agent's result that are returned and recorded."""

_IDENTITY = ("url", "group_id", "cluster_id", "host_id", "snapshot", "before")
_REFUSED = (2, 24, 30, 31, 32)
"""Exit codes after which no restore was created, unless the error is `creation-unconfirmed`."""
_KILLED = "a restore may have been created; check with `restore-agent jobs` before you run the play again"
"""Next step after the agent was killed: it is not known whether the request was sent."""


def argument_spec():
    """Return the options of `request`, and `record`."""
    spec = connection_spec()
    spec.update(
        snapshot=dict(type="str", required=True),
        before=dict(type="str"),
        allow_inconsistent=dict(type="bool", default=False),
        max_downloads=dict(type="int"),
        expires_in=dict(type="str"),
        record=dict(type="path"),
    )
    return spec


def asked(params):
    """Return the options that identify a request."""
    return {name: params[name] for name in _IDENTITY if params[name] is not None}


def is_same(params, earlier):
    """Return whether a recorded request is for the same snapshot of the same cluster."""
    now, then = asked(params), dict(earlier["asked"])
    if params["snapshot"] == earlier.get("snapshot_id"):
        then = dict(then, snapshot=params["snapshot"])
        then.pop("before", None)
    return now == then


def read_record(module):
    """Return the recorded request, or None if there is none. Fails the module if the record cannot be used."""
    path = module.params["record"]
    if path is None or not os.path.lexists(path):
        return None
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read().decode("utf-8"))
        usable = isinstance(found["asked"], dict) and found["state"] in ("requested", "unconfirmed")
    except (OSError, ValueError, KeyError, TypeError) as error:
        usable, found = False, repr(error)
    if not usable:
        stop(
            module,
            "record-unusable",
            "%s is not the record of a request (%s). Nothing was requested." % (path, found),
            "Check with `restore-agent jobs` whether a restore exists, and remove %s to request one." % path,
        )
    return found


def write_record(module, document):
    """Write the record durably and atomically. Fails the module if it cannot be written."""
    path = module.params["record"]
    if path is None:
        return
    directory = os.path.dirname(path) or "."
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".request-", dir=directory)  # mode 0600
        with os.fdopen(handle, "wb") as file:
            file.write((json.dumps(document, indent=4, sort_keys=True) + "\n").encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
        sync_directory(directory)
    except OSError as error:
        made = document.get("batch_id") or ", ".join(one["job_id"] for one in document.get("jobs", []))
        text = "The restore %s was requested, but" % made if made else "Nothing was requested:"
        message = "%s %s cannot be written: %s." % (text, path, error)
        stop(module, "record-unwritable", message, "Check its directory.", **document)


def sync_directory(path):
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def stop(module, reason, message, hint, **more):
    """Fail the module with a problem that the agent does not know."""
    known = {name: more[name] for name in CREATED if name in more}
    module.fail_json(msg="%s Next: %s" % (message, hint), reason=reason, hint=hint, found=False, **known)


def recorded(module, earlier):
    """End the module with a recorded request."""
    if earlier["state"] == "unconfirmed":
        stop(
            module,
            "creation-unconfirmed",
            "A request of %s for snapshot %s got no answer: a restore may have been created. Nothing was requested."
            % (earlier.get("requested_at"), earlier["asked"].get("snapshot")),
            "Check with `restore-agent jobs` whether it was. If so, continue with its batch ID; otherwise, remove %s."
            % module.params["record"],
        )
    known = {name: earlier.get(name) for name in CREATED}
    module.exit_json(changed=False, found=True, request=earlier, exit_code=0, reason=None, hint=None, **known)


def request(module):
    """Call the agent, and return the result of the module. The record is written before and after the call."""
    arguments = ["request", "--output=json"] + flags(module.params, os.environ)
    if module.check_mode:
        code, lines, err = call(module, arguments + ["--dry-run"], secrets_for(module.params, os.environ))
        return result_of(code, lines, err, AGAIN)
    command_of(module)  # a missing agent fails the module before there is a record
    document = dict(asked=asked(module.params), state="unconfirmed")
    document["requested_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_record(module, document)
    code, lines, err = call(module, arguments, secrets_for(module.params, os.environ))
    result = result_of(code, lines, err, _KILLED)
    if result["jobs"]:
        document.update((name, result[name]) for name in CREATED)
        document["state"] = "requested"
        write_record(module, document)
        result["request"] = document if module.params["record"] else None
    elif was_refused(result) and module.params["record"]:
        os.unlink(module.params["record"])
    return result


def was_refused(result):
    """Return whether it is certain that no restore was created."""
    unconfirmed = any(one.get("id") == "creation-unconfirmed" for one in result["problems"])
    return result["exit_code"] in _REFUSED and not unconfirmed


def result_of(code, lines, err, killed):
    """Return the result of a call; `killed` is the next step if the agent was killed."""
    ending, problems = ending_of(lines), problems_in(lines)
    reason, hint = problem_of(code, problems, killed=killed)
    result = dict(exit_code=code, reason=reason, hint=hint, problems=problems, stderr_tail=tail(err))
    result.update((name, ending.get(name)) for name in CREATED)
    result.update(jobs=result["jobs"] or [], found=False, request=None)
    result["changed"] = bool(ending.get("changed"))
    if code != 0 or not ending:
        result.update(failed=True, msg=message_of(code, problems, err, killed=killed))
    return result


def main():
    """Run the module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    earlier = read_record(module)
    if earlier is not None and is_same(module.params, earlier):
        recorded(module, earlier)
    result = request(module)
    if result.get("failed"):
        module.fail_json(**result)
    if module.check_mode:
        result["changed"] = True
    module.exit_json(**result)


if __name__ == "__main__":
    main()
