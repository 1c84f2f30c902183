"""One Celery task for each delivery, posted with requests over a kept-alive session."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import requests
from celery import Celery
from standardwebhooks import Webhook

app = Celery("bench", broker=os.environ.get("BENCH_BROKER", "redis://127.0.0.1:1/0"))
app.conf.task_ignore_result = True
app.conf.worker_hijack_root_logger = False

_session = requests.Session()


@app.task
def deliver(url: str, secret: str, event_id: str, body: str) -> None:
    """Signs and posts one event; Celery would repeat a task that raises."""
    at = datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(event_id, at, body),
    }
    _session.post(url, data=body.encode(), headers=headers, timeout=15).raise_for_status()
