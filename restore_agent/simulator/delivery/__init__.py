"""Delivery URLs: the planned answer to each request."""
