"""What is done every few minutes: retention, and putting right what an accident left."""

from __future__ import annotations

from service.clock import now_ms
from service.logs import get_logger
from workers.process import JobContext

INTERVAL_SECONDS = 300

_log = get_logger("maintenance")


async def run(context: JobContext) -> None:
    """Trims the log, attempts, lanes and dead deliveries to their retention, announces what
    has died, and reschedules."""
    services = context.services
    settings = services.settings
    now = now_ms()
    trimmed = await services.retention.trim(
        events_before=now - settings.event_retention_seconds * 1000,
        events_max_bytes=settings.event_log_max_bytes,
        attempts_before=now - settings.attempt_retention_seconds * 1000,
        dead_before=now - settings.dead_retention_seconds * 1000,
    )
    announced = await services.deaths.announce()
    if announced:
        await context.dispatcher.dispatch("lanes")
    rescheduled = await services.reconciliation.reconcile()
    _log.info("maintenance", **trimmed, announced=announced, rescheduled=rescheduled)
