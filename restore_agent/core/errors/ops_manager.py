"""Errors of Ops Manager's API, of TLS, and of the batch."""

from __future__ import annotations

from .base import AGAIN, AgentError


class OpsManagerError(AgentError):
    """Ops Manager's API answered in a way that stops the run."""


class AccessRefused(OpsManagerError, id="api-access-refused", exit_code=30):
    """401 or 403 from the API."""

    hint = "Check the key pair, its project role (Project Read Only is enough), and the API access list."


class NotFound(OpsManagerError, id="not-found", exit_code=24):
    """404 from the API: no such group, cluster, host, batch, or job."""

    hint = "Check --group-id, --cluster-id or --host-id, and --batch-id or --job-id."


class RedirectRefused(OpsManagerError, id="api-redirect", exit_code=32):
    """The API answered with a redirect; credentials are sent to no other address."""

    hint = "Give --url as the final address of Ops Manager (its central URL, scheme and port included)."


class RequestRefused(OpsManagerError, id="api-request-refused", exit_code=32):
    """A 4xx answer that is about the request itself, from Ops Manager or a proxy, or a port that expects TLS."""

    hint = "Check that --url is the address of Ops Manager, and check the proxy variables."


class CreationUnconfirmed(OpsManagerError, id="creation-unconfirmed", exit_code=32):
    """The answer to the request for a restore was lost, or is 429 or 5xx: a restore may have been created."""

    hint = "Check with `restore-agent jobs` whether a restore was created, before you request another one."


class NoSnapshot(OpsManagerError, id="no-snapshot", exit_code=24):
    """The cluster has no snapshot that `latest` may choose."""

    hint = "See `restore-agent snapshots`; give a later --before, or one snapshot by its ID."


class SnapshotNotRestorable(OpsManagerError, id="snapshot-not-restorable", exit_code=24):
    """The snapshot is incomplete, possibly inconsistent, or misses a shard."""

    hint = "Choose another snapshot: see `restore-agent snapshots`."


class TransientApiError(OpsManagerError, exit_code=32):
    """An API error that another poll may not meet. `retry_after` is in seconds, if the server named it."""

    hint = AGAIN

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class Unreachable(TransientApiError, id="ops-manager-unreachable"):
    """No connection, a reset, a timeout, 429, or 5xx."""


class AnswerUnusable(TransientApiError, id="api-answer-unusable"):
    """The API answered 200, but not with the expected document."""

    hint = "Check that --url is Ops Manager itself, not the page of a proxy or portal; then run again."


class TlsError(AgentError, id="tls", exit_code=31):
    """The certificate of the server is not trusted or is for another host, or ours was refused."""

    hint = "Check --ca-file (the CA that signed the server's certificate), --client-cert, and --client-key."


class BatchError(AgentError, exit_code=24):
    """Ops Manager does not list the restore jobs that were asked for."""


class NothingListed(BatchError, id="batch-empty"):
    """The batch listed no job for three polls."""

    hint = "Check --batch-id, and that --cluster-id is the sharded cluster that it was created for."


class FewerJobs(BatchError, id="fewer-jobs-than-expected"):
    """The batch listed fewer jobs than --expect-jobs asked for."""

    hint = "Check --expect-jobs and --batch-id; a batch lists one job per shard and one for the config server."


class NothingSelected(BatchError, id="nothing-selected"):
    """No job of the batch matches --select."""

    hint = "Check --select: it is compared with job ID, cluster ID, host ID, and archive name."


class NothingDelivered(BatchError, id="no-http-delivery"):
    """Every selected job is an automated restore, so there is nothing to download."""

    hint = "Create the restore job with delivery method HTTP; MongoDB Agents perform automated restores."
