#!/usr/bin/python
# Copyright: the restore-agent developers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Ansible module: report on a batch from the receipts of many hosts with restore-agent."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
module: restore_report
short_description: Report on a batch from the receipts of many hosts
version_added: 1.2.0
description:
  - Calls C(restore-agent report) on the host with receipts that the task provides, for example those that were
    collected
    on the control node. It accesses neither Ops Manager nor archives, and leaves no file on the host.
  - The module returns the report, and does not fail if the batch is not complete. Check C(exit_code).
author:
  - The restore-agent developers (@restore-agent)
requirements:
  - restore-agent on the host. The report as a page requires Jinja2, which the executable and the zipapp contain.
attributes:
  check_mode:
    support: full
    description: The module changes nothing in any mode.
  diff_mode:
    support: none
    description: The module changes nothing.
options:
  receipts:
    description: The receipts. Host name to the content of its C(receipt.json).
    type: dict
    required: true
  expect_jobs:
    description: Number of restore jobs that the receipts must have.
    type: int
  executable:
    description: Command that starts the agent, including an interpreter or wrapper if needed.
    type: list
    elements: str
    default: [restore-agent]
seealso:
  - module: restore_agent.mongodb.restore
"""

EXAMPLES = r"""
- name: Make the report of two hosts
  restore_agent.mongodb.restore_report:
    receipts:
      shard0: "{{ lookup('ansible.builtin.file', 'receipts/shard0.json') }}"
      shard1: "{{ lookup('ansible.builtin.file', 'receipts/shard1.json') }}"
    expect_jobs: 2
  register: restore_report

- name: Store it on the control node
  ansible.builtin.copy:
    content: "{{ restore_report.html }}"
    dest: receipts/report.html
    mode: "0600"
  delegate_to: localhost
"""

RETURN = r"""
html:
  description: The report as one page, or null if Jinja2 is missing on the host.
  returned: if the receipts can be used
  type: str
text:
  description: The report as text if there is no page, else null.
  returned: if the receipts can be used
  type: str
sentence:
  description: The verdict on the batch.
  returned: if the receipts can be used
  type: str
  sample: "The batch is complete: all 3 archives are verified."
exit_code:
  description: 0 if the batch is complete, else the code that says why. C(restore-agent explain) explains each code.
  returned: if the agent was called
  type: int
reason:
  description: A stable ID of the error if the module fails, or null.
  returned: always
  type: str
hint:
  description: Next step if the module fails, or null.
  returned: always
  type: str
problems:
  description: Errors that kept the agent from making the report, or from making it as a page.
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
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.restore_agent.mongodb.plugins.module_utils.agent_cli import (
    AGAIN,
    call,
    command_of,
    ending_of,
    message_of,
    problem_of,
    problems_in,
    tail,
)


def write_receipts(receipts, directory):
    """Write the receipts, and return their paths."""
    paths = []
    for name in sorted(receipts):
        path = os.path.join(directory, name.replace("/", "_") + ".json")
        content = receipts[name]
        with open(path, "wb") as file:
            file.write((content if isinstance(content, str) else json.dumps(content)).encode("utf-8"))
        paths.append(path)
    return paths


def report(module, directory):
    """Call the agent, and return the result of the module."""
    page = os.path.join(directory, "report.html")
    arguments = ["report"] + write_receipts(module.params["receipts"], directory)
    if module.params["expect_jobs"] is not None:
        arguments.append("--expect-jobs=%d" % module.params["expect_jobs"])
    code, lines, err = call(module, arguments + ["--output=json", "--html=" + page])
    result = dict(changed=False, exit_code=code, html=None, text=None, problems=problems_in(lines))
    result.update(sentence=ending_of(lines).get("sentence"), stderr_tail=tail(err), reason=None, hint=None)
    if os.path.exists(page):
        with open(page, "rb") as file:
            result["html"] = file.read().decode("utf-8")
        return result
    code, text = as_text(module, arguments)
    if text:
        result.update(exit_code=code, text=text, sentence=text.splitlines()[0])
        return result
    reason, hint = problem_of(code, result["problems"], killed=AGAIN)
    msg = message_of(code, result["problems"], err, killed=AGAIN)
    return dict(result, failed=True, msg=msg, reason=reason, hint=hint)


def as_text(module, arguments):
    """Return the exit code and the report as text, which requires nothing but the agent."""
    return module.run_command(command_of(module) + arguments + ["--output=text"])[:2]


def without(directory, text):
    """Return a report whose receipts have names relative to its own directory."""
    return text.replace(os.path.realpath(directory) + "/", "") if text else text


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec=dict(
            receipts=dict(type="dict", required=True),
            expect_jobs=dict(type="int"),
            executable=dict(type="list", elements="str", default=["restore-agent"]),
        ),
        supports_check_mode=True,
    )
    command_of(module)
    directory = tempfile.mkdtemp(prefix="restore-agent-report-", dir=module.tmpdir)
    try:
        result = report(module, directory)
    except (OSError, ValueError) as error:
        result = dict(failed=True, msg="cannot make the report: %s" % error, reason="cannot-report", hint=None)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if result.get("failed"):
        module.fail_json(**result)
    for name in ("html", "text"):
        result[name] = without(directory, result[name])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
