#!/usr/bin/python
# Copyright: the restore-agent developers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Ansible module: download and verify the archives of Ops Manager restore jobs with restore-agent."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
module: restore
short_description: Download and verify the archives of MongoDB Ops Manager restore jobs
version_added: 1.0.0
description:
  - Calls C(restore-agent run) on the host. It waits for the restore jobs of a batch and downloads each archive once. An
    archive gets its final name only after Ops Manager has published the same SHA1.
  - A further run after any outcome resumes. After success, it changes nothing and requests no delivery URL.
  - Options that are not set fall back to the agent's environment variables, then to its configuration file (O(config)).
    Therefore, no option is required here. The agent reports missing options.
  - A restore can take hours. Run it with C(async), or use the role P(restore_agent.mongodb.restore#role), which also
    shows the progress.
author:
  - The restore-agent developers (@restore-agent)
extends_documentation_fragment:
  - restore_agent.mongodb.connection
requirements:
  - restore-agent on the host. It needs Python 3.11 or newer, which can differ from Ansible's interpreter.
attributes:
  check_mode:
    support: full
    description: Calls C(restore-agent plan), which writes nothing and never requests a delivery URL.
  diff_mode:
    support: partial
    description: Shows the verdict of each archive before and after, if O(dest) is set as an option or variable.
options:
  batch_id:
    description: Batch of restore jobs (sharded cluster). Falls back to C(RESTORE_AGENT_BATCH_ID). Excludes O(job_id).
    type: str
  job_id:
    description: Restore jobs, instead of a batch.
    type: list
    elements: str
    aliases: [job_ids]
  select:
    description: Select only jobs whose job ID, cluster ID, host ID, or archive name matches one of these globs.
    type: list
    elements: str
  expect_jobs:
    description: Number of jobs that the batch must list before it is complete.
    type: int
  dest:
    description: Directory for the archives, created with mode 0700. Falls back to C(RESTORE_AGENT_DEST).
    type: path
  wait_timeout:
    description: How long to wait for all selected jobs to become READY. The agent's default is V(6h).
    type: str
  hash_timeout:
    description: How long to wait for hashes after the last download. The agent's default is V(15m).
    type: str
  poll_interval:
    description: Initial poll interval. It increases to at most 8 times this value. The agent's default is V(5s).
    type: str
  stall_timeout:
    description: Abort a transfer that receives no data for this long. The agent's default is V(60s).
    type: str
  retries:
    description: Maximum retries per archive after a failed attempt. The agent's default is V(5).
    type: int
  parallel:
    description: Number of archives to download in parallel. The agent's default is V(4).
    type: int
  limit_rate:
    description: Limit the total download rate of all archives, in bytes per second, such as V(100M).
      Off by default.
    type: str
  allow_unproven:
    description: Accept a structurally complete archive even if no hash was published. It stays C(.unproven).
    type: bool
    default: false
  unpack:
    description:
      - Also unpack each verified archive into a data path of its own in this directory on the host, which is created if
        it is missing. Falls back to C(RESTORE_AGENT_UNPACK).
      - If an archive is verified but cannot be unpacked, the module fails with exit code 13. A further run unpacks from
        disk, without a download.
    type: path
    version_added: 1.1.0
  owner:
    description: Owner of the data paths, in a form of C(chown), such as V(mongod:mongod). It needs root and O(unpack).
      By default, the user that runs the agent.
    type: str
    version_added: 1.1.0
  discard_archive:
    description: Remove each archive after its data path is published. It needs O(unpack).
    type: bool
    default: false
    version_added: 1.1.0
  metrics_file:
    description: Write run metrics to this file on the host, in Prometheus text format. It requires
      prometheus-client, which the zipapp contains. Falls back to C(RESTORE_AGENT_METRICS_FILE). Nothing is written in
      check mode.
    type: path
notes:
  - The module sets or leaves out the options C(--output), C(--progress), and C(--debug). They cannot be changed.
seealso:
  - module: restore_agent.mongodb.restore_info
  - module: restore_agent.mongodb.restore_request
"""

EXAMPLES = r"""
- name: Do a dry run (check mode calls restore-agent plan)
  restore_agent.mongodb.restore:
    config: /etc/restore-agent/config.toml
    batch_id: 5fc4f7c1b2e4a1000155b8dd
  check_mode: true
  register: restore_plan

- name: Download the shard of this host
  restore_agent.mongodb.restore:
    url: https://opsmanager.example.net:8443
    public_key: abcdefgh
    private_key: "{{ vault_ops_manager_private_key }}"
    group_id: 5fc4f5a8b2e4a1000155b6aa
    cluster_id: 5fc4f6b2b2e4a1000155b7cc
    batch_id: 5fc4f7c1b2e4a1000155b8dd
    select: ["{{ mongodb_shard }}-*"]
    expect_jobs: 3
    dest: /backup/restore
  async: 43200
  poll: 30
  register: restored

- name: Download the shard of this host and unpack it, ready for mongod
  restore_agent.mongodb.restore:
    config: /etc/restore-agent/config.toml
    batch_id: 5fc4f7c1b2e4a1000155b8dd
    select: ["{{ mongodb_shard }}-*"]
    dest: /backup/restore
    unpack: /data/restore
    owner: mongod:mongod
  async: 43200
  poll: 30
  register: unpacked

- name: Restore a replica set, with the private key from a variable
  restore_agent.mongodb.restore:
    config: /etc/restore-agent/config.toml
    job_id: 5fc4f7c1b2e4a1000155b8ee
  environment:
    RESTORE_AGENT_PRIVATE_KEY: "{{ vault_ops_manager_private_key }}"
"""

RETURN = r"""
receipt:
  description: The receipt, as C(restore-agent man json) documents it. In check mode, the expected result of a run.
  returned: if the agent could be called
  type: dict
  contains:
    outcome:
      description: One of V(verified), V(unproven), V(failed), for the selected archives.
      type: str
      returned: always
    changed:
      description: Whether the run changed anything in O(dest) or O(unpack).
      type: bool
      returned: always
    batch_id:
      description: The batch.
      type: str
      returned: always
    archives:
      description:
        - One dict each with C(job_id), C(file_name), C(path), C(bytes), C(sha1), C(expected_sha1), C(verdict),
          C(reason), C(downloads_spent) and more.
        - With O(unpack), also C(data_path), C(data_files), C(data_bytes), C(restore_info), and C(archive_kept). An
          archive that is verified but not unpacked has the C(exit_code) 13.
      type: list
      elements: dict
      returned: always
exit_code:
  description: Exit code of the agent. C(restore-agent explain) explains each code.
  returned: always, unless the agent is missing
  type: int
  sample: 21
reason:
  description: A stable ID of the error, or null.
  returned: always
  type: str
  sample: job-broken
hint:
  description: Next step, or null.
  returned: always
  type: str
  sample: Create a new restore job; see the snapshot and the backup log in Ops Manager.
problems:
  description: All errors, with id, message, archive, on_disk, download_spent, and hint.
  returned: always, unless the agent is missing
  type: list
  elements: dict
plan:
  description: One dict for each job with job_id, file_name, step, reason, exit_code, data_path, to_unpack, and more.
  returned: in check mode
  type: list
  elements: dict
stderr_tail:
  description: The last lines of the agent's stderr.
  returned: always, unless the agent is missing
  type: list
  elements: str
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.restore_agent.mongodb.plugins.module_utils.agent_cli import (
    call,
    connection_spec,
    ending_of,
    flags,
    from_environment,
    message_of,
    problem_of,
    problems_in,
    secrets_for,
    tail,
)


def argument_spec():
    """Return the options of `run`. The agent, which knows their sources, checks which exclude each other."""
    texts = ("wait_timeout", "hash_timeout", "poll_interval", "stall_timeout", "limit_rate", "owner")
    spec = connection_spec()
    spec.update((name, dict(type="str")) for name in texts)
    spec.update((name, dict(type="int")) for name in ("expect_jobs", "retries", "parallel"))
    spec.update((name, from_environment(name, type="path")) for name in ("dest", "unpack", "metrics_file"))
    spec.update(
        batch_id=from_environment("batch_id", type="str"),
        job_id=dict(type="list", elements="str", aliases=["job_ids"]),
        select=dict(type="list", elements="str"),
        allow_unproven=dict(type="bool", default=False),
        discard_archive=dict(type="bool", default=False),
    )
    return spec


def verdicts(archives):
    """Return one line for each archive with its verdict, for the diff."""
    rows = ("%s: %s\n" % (one.get("file_name") or one["job_id"], one.get("verdict")) for one in archives)
    return "".join(sorted(rows))


def verdicts_in(dest):
    """Return the verdicts of the receipt in DEST, or an empty text. None if DEST is not known here."""
    if dest is None:
        return None
    try:
        with open(os.path.join(dest, "receipt.json"), "rb") as file:
            return verdicts(json.loads(file.read().decode("utf-8"))["archives"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # no receipt yet, or a damaged one, which the agent reports


def planned(row):
    """Return a row of a plan as the archive that a run would produce."""
    verdict = {"fail": "failed", "skip": "skipped"}.get(row.get("step"), "verified")
    return {"file_name": row.get("file_name"), "job_id": row["job_id"], "verdict": verdict}


def would_change(rows):
    """Return whether a run would change anything for the jobs of a plan."""
    return any(row.get("step") in ("wait", "download", "prove") or row.get("to_unpack") for row in rows)


def result_of(module, code, lines, err):
    """Return the result of the module."""
    ending = ending_of(lines)
    receipt = {name: value for name, value in ending.items() if name != "plan"}
    problems = problems_in(lines)
    failed = [one for one in receipt.get("archives", []) if one.get("exit_code")]
    reason, hint = problem_of(code, problems, failed)
    result = dict(receipt=receipt, exit_code=code, reason=reason, hint=hint, problems=problems, stderr_tail=tail(err))
    result["changed"] = bool(receipt.get("changed"))
    if module.check_mode:
        result["plan"] = ending.get("plan") or []
        result["changed"] = would_change(result["plan"])
    if code != 0 or not ending:
        result.update(failed=True, msg=message_of(code, problems, err, failed))
    return result


def diff_of(module, before, result):
    """Return the verdicts before and after."""
    if module.check_mode:
        after = verdicts(planned(row) for row in result["plan"])
    else:
        after = verdicts_in(module.params["dest"])
    return dict(before_header="verdicts", after_header="verdicts", before=before, after=after)


def main():
    """Run the module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    before = verdicts_in(module.params["dest"])
    command = ["plan" if module.check_mode else "run", "--output=json", "--progress=none"]
    arguments = command + flags(module.params, os.environ)
    code, lines, err = call(module, arguments, secrets_for(module.params, os.environ))
    result = result_of(module, code, lines, err)
    if before is not None:
        result["diff"] = diff_of(module, before, result)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
