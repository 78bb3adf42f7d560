"""restore-agent: brings MongoDB Ops Manager backups home, proven."""

__version__ = "0.1.0"
