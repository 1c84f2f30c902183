"""The types of events that a subscription may ask for: of courses, and operational ones."""

from __future__ import annotations

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
EVENT_TYPES = COURSE_EVENT_TYPES + OPERATIONAL_EVENT_TYPES
OWNERS_EVENT_TYPES = COURSE_EVENT_TYPES + tuple(  # what the subscriptions of an API key may name
    name for name in OPERATIONAL_EVENT_TYPES if name.startswith(SUBSCRIPTION_EVENT_PREFIX)
)
