"""What it means for an archive when Ops Manager has given its job up."""

from __future__ import annotations

from .errors import ArchiveError, DownloadsUsedUp, Expired, JobBroken, LinkUnusable
from .jobs import Decision, Job


def refusal(job: Job, decision: Decision, after: str = "") -> ArchiveError:
    """The error that a decision to fail stands for; `after` says what went wrong before, as the end of a sentence."""
    match decision.reason:
        case "delivery-expired":
            return Expired("the delivery expired before the archive was whole" + after)
        case "downloads-used-up":
            return DownloadsUsedUp("the downloads are used up before the archive was whole" + after)
        case "delivery-url-unusable":
            return LinkUnusable(f"the delivery URL cannot be used: {job.link_defect}")
        case _:
            said = f"the job {job.status or 'nothing'}, its delivery {job.delivery_status or 'nothing'}"
            return JobBroken(f"Ops Manager calls {said}")
