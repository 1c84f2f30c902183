"""The event types of subscriptions: course events and operational events."""

from __future__ import annotations

from collections.abc import Collection

from service.domain.access.grants import SUBSCRIPTION_EVENT_PREFIX

COURSE_EVENT_TYPES = ("course.created", "course.updated", "course.deleted")
OPERATIONAL_EVENT_TYPES = (
    "integration.baseline_completed",
    "integration.epoch_started",
    "integration.error",
    "integration.recovered",
    "integration.review_required",
    "subscription.deliveries_dead",
    "subscription.disabled",
    "subscription.parked",
    "subscription.recovered",
)
# Patterns for all types, or for all about one subject, later releases included.
EVENT_TYPE_PATTERNS = ("*", "course.*", "integration.*", "subscription.*")
EVENT_TYPES = COURSE_EVENT_TYPES + OPERATIONAL_EVENT_TYPES
OWNERS_EVENT_TYPES = COURSE_EVENT_TYPES + tuple(  # types that subscriptions of an API key may name
    name for name in OPERATIONAL_EVENT_TYPES if name.startswith(SUBSCRIPTION_EVENT_PREFIX)
)


def includes(wanted: Collection[str], event_type: str) -> bool:
    """Whether an event type matches one of the types and patterns in `wanted`."""
    return event_type in wanted or "*" in wanted or f"{event_type.partition('.')[0]}.*" in wanted
