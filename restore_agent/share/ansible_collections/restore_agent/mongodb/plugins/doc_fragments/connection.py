# Copyright: the restore-agent developers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Documentation of the options that the modules for Ops Manager share."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type


class ModuleDocFragment(object):
    """Options of the connection to Ops Manager, of the cluster, and of the command."""

    DOCUMENTATION = r"""
options:
  url:
    description: Base URL of Ops Manager or Cloud Manager. Falls back to C(RESTORE_AGENT_URL).
    type: str
  public_key:
    description: API public key, or user name. Falls back to C(RESTORE_AGENT_PUBLIC_KEY).
    type: str
  private_key:
    description:
      - The API private key itself. It is passed to the agent in its environment, never as an argument.
      - Falls back to C(RESTORE_AGENT_PRIVATE_KEY). Excludes O(private_key_file).
    type: str
  private_key_file:
    description: File on the host with the private key, mode 0600. Falls back to C(RESTORE_AGENT_PRIVATE_KEY_FILE).
    type: path
  group_id:
    description: Project (group) ID. Falls back to C(RESTORE_AGENT_GROUP_ID).
    type: str
    aliases: [project_id]
  cluster_id:
    description: Cluster ID. Falls back to C(RESTORE_AGENT_CLUSTER_ID). Excludes O(host_id).
    type: str
  host_id:
    description: Host ID of a mirrored (SCCC) config server, instead of a cluster.
    type: str
  ca_file:
    description: CA certificates (PEM) on the host. Falls back to C(RESTORE_AGENT_CA_FILE), then the system's.
    type: path
  client_cert:
    description: TLS client certificate (PEM) on the host. Falls back to C(RESTORE_AGENT_CLIENT_CERT).
    type: path
  client_key:
    description: File with the TLS client key (PEM) on the host. Falls back to C(RESTORE_AGENT_CLIENT_KEY).
    type: path
  config:
    description: The agent's configuration file on the host. Falls back to C(RESTORE_AGENT_CONFIG), then
      C(/etc/restore-agent/config.toml) if it exists.
    type: path
  executable:
    description: Command that starts the agent, including an interpreter or wrapper if needed.
    type: list
    elements: str
    default: [restore-agent]
"""
