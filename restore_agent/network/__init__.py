"""Ops Manager's API and delivery URLs. Errors of httpx become errors of restore-agent here."""
