"""Examples of pushes."""

from __future__ import annotations

from typing import Any, Final

from service.api.fields import samples

Json = dict[str, Any]

_OF_INTEGRATION: Final[Json] = {
    "schema_version": 1,
    "event_id": samples.EVENT,
    "integration_id": samples.INTEGRATION,
    "upstream_id": samples.UPSTREAM,
    "external_id": "tenant-42",
    "labels": {"region": "eu"},
}
_OF_SUBSCRIPTION: Final[Json] = {
    "schema_version": 1,
    "event_id": samples.EVENT,
    "subscription_id": samples.SUBSCRIPTION,
    "description": "search index",
    "owner": None,
}
_OF_COURSE: Final[Json] = {
    **_OF_INTEGRATION,
    "course_id": samples.COURSE,
    "remote_id": "32",
    "origin_id": None,
    "sequence": 1795424001123,
    "previous_sequence": 1795300000007,
    "changed": [],
    "reason": None,
    "evidence": None,
    "initial": False,
    "detected_by": "delta",
    "course_omitted": None,
}
_RECORD: Final[Json] = {
    "id": samples.COURSE,
    "remote_id": "32",
    "revisions": [{"id": "5nq1bXkRmz", "title": "Fire safety", "skill_assignments": []}],
}
_EPOCH: Final = "ep_3t5z6w1y2h8k2m4x7q9v"
_EVENT_DATA: Final[dict[str, Json]] = {
    "course.created": {**_OF_COURSE, "previous_sequence": None, "course": _RECORD},
    "course.updated": {**_OF_COURSE, "changed": ["revisions.title"], "course": _RECORD},
    "course.deleted": {**_OF_COURSE, "evidence": "tombstone", "course_omitted": "gone"},
    "integration.baseline_completed": {
        **_OF_INTEGRATION,
        "baseline": "silent",
        "records": 600,
        "epoch": _EPOCH,
        "previous_epoch": None,
    },
    "integration.epoch_started": {
        **_OF_INTEGRATION,
        "epoch": _EPOCH,
        "previous_epoch": "ep_7q9v3t5z6w1y2h8k2m4x",
        "reason": "upstream",
        "baseline": "silent",
    },
    "integration.error": {
        **_OF_INTEGRATION,
        "code": "PLATFORM.UNAUTHORIZED",
        "message": "the upstream refused the API key",
        "status": 401,
        "log_url": None,
        "since": samples.AT,
    },
    "integration.recovered": {
        **_OF_INTEGRATION,
        "code": "PLATFORM.UNAUTHORIZED",
        "since": samples.EARLIER,
    },
    "integration.review_required": {
        **_OF_INTEGRATION,
        "deleted": 120,
        "changed_counts": {"revisions.title": 410},
    },
    "subscription.deliveries_dead": {
        **_OF_SUBSCRIPTION,
        "deliveries": 7,
        "reasons": [{"reason": "10 attempts failed, the last with status 503", "deliveries": 7}],
        "first_event_at": samples.EARLIER,
        "last_event_at": samples.EARLIER,
    },
    "subscription.disabled": {**_OF_SUBSCRIPTION, "reason": "the receiver answered 410 Gone"},
    "subscription.parked": {
        **_OF_SUBSCRIPTION,
        "failures": 10,
        "failing_since": samples.EARLIER,
        "last_outcome": "status",
        "last_status": 503,
    },
    "subscription.recovered": {**_OF_SUBSCRIPTION, "was": "parked", "by": "delivery"},
    "coursewire.test": {
        "schema_version": 1,
        "event_id": samples.EVENT,
        "subscription_id": samples.SUBSCRIPTION,
    },
}
EVENTS: Final[dict[str, Json]] = {
    name: {"type": name, "timestamp": samples.AT, "data": data}
    for name, data in _EVENT_DATA.items()
}
