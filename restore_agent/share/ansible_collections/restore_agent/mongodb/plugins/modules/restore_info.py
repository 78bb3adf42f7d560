#!/usr/bin/python
# Copyright: the restore-agent developers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Ansible module: status of a restore-agent run in DEST."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
module: restore_info
short_description: Return the status of a restore-agent run
version_added: 1.0.0
description:
  - Calls C(restore-agent status), which reads the status file in O(dest). It accesses neither Ops Manager nor archives.
  - With O(wait), it returns when the run has ended, or after that time. A playbook can then show the progress.
author:
  - The restore-agent developers (@restore-agent)
attributes:
  check_mode:
    support: full
    description: The module changes nothing in any mode.
  diff_mode:
    support: none
    description: The module changes nothing.
options:
  dest:
    description: Directory with the archives.
    type: path
    required: true
  wait:
    description: Maximum number of seconds to wait for the run to end.
    type: float
    default: 0
  executable:
    description: Command that starts the agent, including an interpreter or wrapper if needed.
    type: list
    elements: str
    default: [restore-agent]
seealso:
  - module: restore_agent.mongodb.restore
"""

EXAMPLES = r"""
- name: Get the status of the restore on this host
  restore_agent.mongodb.restore_info:
    dest: /backup/restore
  register: restore_status

- name: Show the status
  ansible.builtin.debug:
    msg: "{{ restore_status.lines }}"
"""

RETURN = r"""
status:
  description: The status file, as C(restore-agent man json) documents it. Empty if no run was started in O(dest).
  returned: always
  type: dict
  sample: {"state": "downloading", "exit_code": null, "archives": []}
lines:
  description: The status as text, with one line for the state and one line for each archive.
  returned: always
  type: list
  elements: str
  sample: ["downloading", "electron_0-1492528465.tar.gz: downloading, 22.0 of 48.1 MiB, 23.5 MiB/s"]
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.restore_agent.mongodb.plugins.module_utils.agent_cli import call

_MIB = 1024.0 * 1024.0
_ENDS = ("finished", "interrupted")


def read_status(module):
    """Return the status document, or an empty one if there is none yet."""
    arguments = ["status", "--dest=" + module.params["dest"], "--output=json"]
    code, lines, _err = call(module, arguments)
    documents = [line for line in lines if str(line.get("schema", "")).startswith("restore-agent/status/")]
    return documents[-1] if code == 0 and documents else {}


def wait_for_end(module, seconds):
    """Return the status when the run has ended, or after `seconds`.

    The first check follows a pause, because the status of an earlier run may still be in the file.
    """
    end = time.time() + seconds
    pause = 1.0
    while True:
        time.sleep(max(0.0, min(pause, end - time.time())))
        status = read_status(module)
        if status.get("state") in _ENDS or time.time() >= end:
            return status
        pause = min(5.0, pause * 2)  # each check starts a process; frequent checks would keep a core busy


def line_of(archive):
    """Return one archive as a line of text."""
    text = "%s: %s" % (archive.get("file_name") or archive.get("job_id"), archive.get("state"))
    if archive.get("bytes"):
        total = archive.get("total_bytes")
        text += ", %.1f%s MiB" % (archive["bytes"] / _MIB, " of %.1f" % (total / _MIB) if total else "")
    if archive.get("state") == "downloading":
        text += ", %.1f MiB/s" % ((archive.get("bytes_per_second") or 0) / _MIB)
    if archive.get("state") in ("waiting", "downloading") and archive.get("expires_at"):
        text += ", expires %s" % archive["expires_at"]
    return text


def lines_of(status):
    """Return a status document as lines of text."""
    if not status:
        return ["no run was started here yet"]
    return [str(status.get("state"))] + [line_of(archive) for archive in status.get("archives", [])]


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec=dict(
            dest=dict(type="path", required=True),
            wait=dict(type="float", default=0),
            executable=dict(type="list", elements="str", default=["restore-agent"]),
        ),
        supports_check_mode=True,
    )
    status = wait_for_end(module, module.params["wait"])
    module.exit_json(changed=False, status=status, lines=lines_of(status))


if __name__ == "__main__":
    main()
