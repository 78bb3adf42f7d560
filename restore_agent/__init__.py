"""restore-agent: brings MongoDB Ops Manager backups home, proven."""

__version__ = "0.1.0"
USER_AGENT = f"restore-agent/{__version__}"
