# Copyright: the restore-agent developers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Rules about a batch that many hosts restore: each job on one host, verified there, and fetched by no other."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

from fnmatch import fnmatchcase


def _name(row):
    return row.get("file_name") or row.get("archive") or row["job_id"]


def _matches(row, select):
    """Whether globs of a host admit a job: the agent's own rule, over ids and archive name."""
    texts = [row.get(name) for name in ("job_id", "cluster_id", "host_id", "file_name", "archive")]
    return not select or any(fnmatchcase(text, glob) for glob in select for text in texts if text)


def _by_job(hosts, wanted):
    """Job id to the hosts (sorted) that have a row of it which `wanted(row, host)` takes."""
    found = {}
    for name in sorted(hosts):
        for row in hosts[name]["rows"]:
            if wanted(row, hosts[name]):
                found.setdefault(row["job_id"], []).append(name)
    return found


def _names(hosts):
    return {row["job_id"]: _name(row) for name in sorted(hosts) for row in hosts[name]["rows"]}


def batch_overlaps(hosts):
    """Jobs that more than one host would fetch, one sentence each.

    `hosts`: name to a dict with `rows` (the plan of that host) and `select`. A job whose archive has no name yet is
    passed over unless an id matches: the plan shows it to every host whose globs may still match.
    """
    claims = _by_job(hosts, lambda row, host: row.get("step") != "skip" and _matches(row, host.get("select")))
    names = _names(hosts)
    return [
        "%s: %s would each download it; give them a select that tells them apart"
        % (names[job], " and ".join(claims[job]))
        for job in sorted(claims, key=names.get)
        if len(claims[job]) > 1
    ]


def batch_problems(hosts, jobs, batch_id=None, allow_unproven=False):
    """What keeps a batch from being complete over all hosts, one sentence each; empty when it is.

    `hosts`: name to a dict with `rows` (the archives of its receipt), `select`, `batch_id` and `failure`, a text or
    None. `jobs`: every job of the batch, as a plan without select lists them.
    """
    problems = ["%s: %s" % (name, hosts[name]["failure"]) for name in sorted(hosts) if hosts[name].get("failure")]
    problems += _foreign_receipts(hosts, batch_id)
    wanted = {row["job_id"]: row for row in jobs if row.get("step") != "skip"}
    if not wanted:
        problems.append("the jobs of the batch could not be listed, so nothing says that it is complete")
    good = ("verified", "unproven") if allow_unproven else ("verified",)
    proven = _by_job(hosts, lambda row, host: row.get("verdict") in good)
    fetched = _by_job(hosts, lambda row, host: row.get("downloads_spent", 0) > 0)
    for job in sorted(wanted, key=lambda one: _name(wanted[one])):
        problems += _of_job(wanted[job], hosts, proven.get(job, []), fetched.get(job, []))
    return problems


def archive_line(row):
    """One archive of a receipt for people: its verdict, its SHA1, where it lies."""
    text = "%s %s" % (row.get("verdict"), row.get("path") or _name(row))
    return text + (" sha1 " + row["sha1"] if row.get("sha1") else "")


def _foreign_receipts(hosts, batch_id):
    foreign = [name for name in sorted(hosts) if batch_id and hosts[name].get("batch_id") not in (None, "", batch_id)]
    return ["%s: its receipt is of another batch, %s" % (name, hosts[name]["batch_id"]) for name in foreign]


def _of_job(job, hosts, proven, fetched):
    """The problems of one job."""
    name = _name(job)
    problems = []
    if not proven:
        seen = [
            "%s on %s" % (row.get("verdict") or row.get("reason"), host)
            for host in sorted(hosts)
            for row in hosts[host]["rows"]
            if row["job_id"] == job["job_id"]
        ]
        problems.append("%s: verified on no host (%s)" % (name, ", ".join(seen) or "no select asks for it"))
    if len(proven) > 1:
        problems.append("%s: on %s, and should be on one host" % (name, " and ".join(proven)))
    if len(fetched) > 1:
        problems.append("%s: downloaded by %s" % (name, " and ".join(fetched)))
    for host in proven:
        row = next(row for row in hosts[host]["rows"] if row["job_id"] == job["job_id"])
        if not _matches(row, hosts[host].get("select")):
            problems.append("%s: on %s, whose select does not ask for it" % (name, host))
    return problems


class FilterModule(object):
    """What Ansible loads."""

    def filters(self):
        """Name to function."""
        return {"archive_line": archive_line, "batch_overlaps": batch_overlaps, "batch_problems": batch_problems}
