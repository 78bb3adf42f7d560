# Copyright: the restore-agent developers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Rules for a batch on many hosts: each job is verified on one host, and no other host downloads it."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

import base64
import json
from fnmatch import fnmatchcase


def _name(row):
    return row.get("file_name") or row["job_id"]


def _matches(row, select):
    """Return whether the globs of a host match a job, by the rule of the agent: IDs and archive name."""
    texts = [row.get(name) for name in ("job_id", "cluster_id", "host_id", "file_name", "archive")]
    return not select or any(fnmatchcase(text, glob) for glob in select for text in texts if text)


def _by_job(hosts, wanted):
    """Return a dict of job ID to the sorted hosts that have a row of the job for which `wanted(row, host)` is true."""
    found = {}
    for name in sorted(hosts):
        for row in hosts[name]["rows"]:
            if wanted(row, hosts[name]):
                found.setdefault(row["job_id"], []).append(name)
    return found


def _names(hosts):
    return {row["job_id"]: _name(row) for name in sorted(hosts) for row in hosts[name]["rows"]}


def batch_overlaps(hosts):
    """Return one sentence for each job that more than one host would download.

    `hosts`: name to a dict with `rows` (the plan of that host) and `select`. A job whose archive has no name yet is
    ignored unless an ID matches: the plan lists it on every host whose globs may still match.
    """
    claims = _by_job(hosts, lambda row, host: row.get("step") != "skip" and _matches(row, host.get("select")))
    names = _names(hosts)
    return [
        "%s: %s would each download it; change select on these hosts so that only one of them matches"
        % (names[job], " and ".join(claims[job]))
        for job in sorted(claims, key=names.get)
        if len(claims[job]) > 1
    ]


def batch_problems(hosts, jobs, batch_id=None, allow_unproven=False):
    """Return the reasons why a batch is not complete on all hosts, one sentence each. Empty if it is complete.

    `hosts`: name to a dict with `rows` (the archives of its receipt), `select`, `batch_id`, `unpack` (whether its
    archives must be unpacked), and `failure`, a text or None. `jobs`: every job of the batch, as listed by a plan
    without select.
    """
    problems = ["%s: %s" % (name, hosts[name]["failure"]) for name in sorted(hosts) if hosts[name].get("failure")]
    problems += _foreign_receipts(hosts, batch_id)
    wanted = {row["job_id"]: row for row in jobs if row.get("step") != "skip"}
    if not wanted:
        problems.append("the jobs of the batch could not be listed, so it cannot be checked for completeness")
    good = ("verified", "unproven") if allow_unproven else ("verified",)
    verified_on = _by_job(hosts, lambda row, host: row.get("verdict") in good)
    downloaded_by = _by_job(hosts, lambda row, host: row.get("downloads_spent", 0) > 0)
    for job in sorted(wanted, key=lambda one: _name(wanted[one])):
        problems += _of_job(wanted[job], hosts, verified_on.get(job, []), downloaded_by.get(job, []))
    return problems


def request_host(records):
    """Return the host that requests a restore, or that continues the request of an earlier play.

    `records`: host name, in the order of the play, to the content of its record in base64, to an empty text, or to None
    if the host has failed. It is the host with the newest record; one that cannot be read counts as the newest, since
    the module then reports it. Without records, it is the first host that has not failed.
    """
    working = {name: record for name, record in records.items() if record is not None}
    return max(working, key=lambda name: _age(working[name]))


def archive_line(row):
    """Return one archive of a receipt as a line of text: verdict, path, SHA1, and data path."""
    text = "%s %s" % (row.get("verdict"), row.get("path") or _name(row))
    text += " sha1 " + row["sha1"] if row.get("sha1") else ""
    return text + (" data path " + row["data_path"] if row.get("data_path") else "")


def _age(text):
    """Return the time of a record for comparisons."""
    if not text:
        return (0, "")
    try:
        return (1, str(json.loads(base64.b64decode(text).decode("utf-8"))["requested_at"]))
    except (ValueError, KeyError, TypeError):
        return (2, "")


def _foreign_receipts(hosts, batch_id):
    foreign = [name for name in sorted(hosts) if batch_id and hosts[name].get("batch_id") not in (None, "", batch_id)]
    return ["%s: its receipt belongs to another batch, %s" % (name, hosts[name]["batch_id"]) for name in foreign]


def _of_job(job, hosts, verified_on, downloaded_by):
    """Return the problems of one job."""
    name = _name(job)
    problems = []
    if not verified_on:
        seen = [
            "%s on %s" % (row.get("verdict") or row.get("reason"), host)
            for host in sorted(hosts)
            for row in hosts[host]["rows"]
            if row["job_id"] == job["job_id"]
        ]
        problems.append("%s: verified on no host (%s)" % (name, ", ".join(seen) or _absence(job, hosts)))
    if len(verified_on) > 1:
        problems.append("%s: verified on %s, but must be on exactly one host" % (name, " and ".join(verified_on)))
    if len(downloaded_by) > 1:
        problems.append("%s: downloaded by %s" % (name, " and ".join(downloaded_by)))
    for host in verified_on:
        row = next(row for row in hosts[host]["rows"] if row["job_id"] == job["job_id"])
        if not _matches(row, hosts[host].get("select")):
            problems.append("%s: verified on %s, whose select does not match it" % (name, host))
        if hosts[host].get("unpack") and not _is_unpacked(row):
            problems.append(
                "%s: verified on %s, but not unpacked (%s)" % (name, host, row.get("reason") or "no data path")
            )
    return problems


def _absence(job, hosts):
    """Return why no receipt has a job: hosts whose select matches it do not have it, or none matches it."""
    asking = [name for name in sorted(hosts) if _matches(job, hosts[name].get("select"))]
    return "not in the receipt of %s" % ", ".join(asking) if asking else "no select matches it"


def _is_unpacked(row):
    """Return whether an archive has the data path that the last run was asked for."""
    return bool(row.get("data_path")) and not row.get("exit_code")


class FilterModule(object):
    """Filters of the collection."""

    def filters(self):
        """Return the filters by name."""
        return {
            "archive_line": archive_line,
            "batch_overlaps": batch_overlaps,
            "batch_problems": batch_problems,
            "request_host": request_host,
        }
