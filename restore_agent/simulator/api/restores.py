"""Creation of restore jobs by POST."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from ..model.manager import Order
from .answers import Document, Refused


def json_object(body: bytes) -> Document:
    """Return the object in a request body. Raises Refused."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise Refused(400, "INVALID_JSON", f"Received JSON is malformed: {error}.") from error
    if not isinstance(value, dict):
        raise Refused(400, "INVALID_JSON", "Received JSON is not an object.")
    return value


def delivery_order(document: Document) -> Order:
    """Return the delivery that a POST asks for; old servers accepted a `snapshotId` alone. Raises Refused."""
    delivery = document.get("delivery", {})
    if not isinstance(delivery, dict) or delivery.get("methodName", "HTTP") != "HTTP":
        raise Refused(400, "INVALID_DELIVERY_METHOD", "Only delivery by HTTP is simulated.")
    try:
        wanted: dict[str, Any] = {}
        if "maxDownloads" in delivery:
            wanted["max_downloads"] = max(1, int(delivery["maxDownloads"]))
        if "expirationHours" in delivery:
            wanted["hours"] = float(delivery["expirationHours"])
        if "expires" in delivery:
            wanted["expires"] = datetime.fromisoformat(delivery["expires"]).timestamp()
    except (TypeError, ValueError) as error:
        raise Refused(400, "INVALID_ATTRIBUTE", f"Invalid attribute in delivery: {error}.") from error
    return Order(**wanted)
