"""restore-agent downloads and verifies MongoDB Ops Manager backups.

    cli/        the command line: options, configuration, commands, exit codes
    restore/    the main job: run, plan, verify; job/ is one restore job
    network/    Ops Manager's API and delivery URLs
    dest/       the destination directory: lock, journal, status file, archives
    unpack/     from an archive on disk to a data path
    ui/         output: text, bars, JSON Lines, metrics, report
    core/       values and rules without I/O
    simulator/  a simulated Ops Manager on real sockets
    share/      files that are shipped: documents, man pages, units, the Ansible collection

Imports go one way: cli → restore → {network, dest, unpack} → core; ui → core; only cli uses ui.
"""

__version__ = "0.1.0"
USER_AGENT = f"restore-agent/{__version__}"
