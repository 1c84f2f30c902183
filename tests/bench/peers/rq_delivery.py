"""One RQ job for each delivery, posted with httpx: what the stack gives by default."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
from standardwebhooks import Webhook

_client = httpx.Client(timeout=15)  # a forking worker makes it anew in each job's process


def deliver(url: str, secret: str, event_id: str, body: str) -> None:
    """Signs and posts one event; RQ would repeat a job that raises."""
    at = datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(event_id, at, body),
    }
    _client.post(url, content=body.encode(), headers=headers).raise_for_status()
