"""Maintenance every few minutes: retention, and repairs of the schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.clock import now_ms
from service.logs import get_logger

if TYPE_CHECKING:
    from service.settings import Settings
    from service.storage.upkeep.retention import Retention
    from workers.context import JobContext

INTERVAL_SECONDS = 300

_log = get_logger("maintenance")


async def run(context: JobContext) -> None:
    """Trims the log, attempts, outboxes and dead deliveries to their retention, announces dead
    letters, and repairs the schedule."""
    services = context.services
    trimmed = await trim(services.retention, services.settings)
    announced = await services.dead_letter_notices.announce()
    if announced:
        await context.dispatcher.dispatch("outboxes")
    rescheduled = await services.reconciliation.reconcile()
    _log.info("maintenance", **trimmed, announced=announced, rescheduled=rescheduled)


async def trim(retention: Retention, settings: Settings) -> dict[str, int]:
    """Trims everything to its retention, and returns the removed numbers. Needs no free memory."""
    now = now_ms()
    return await retention.trim(
        events_before=now - settings.event_retention_seconds * 1000,
        events_max_bytes=settings.event_log_max_bytes,
        attempts_before=now - settings.attempt_retention_seconds * 1000,
        dead_before=now - settings.dead_retention_seconds * 1000,
    )
