"""Examples of what the API takes and answers with, for its documentation."""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]

_CREDENTIAL: Final = "cred_7h3k9w2m4x8q5v6t2z1y"
_INTEGRATION: Final = "int_8k2m4x7q9v3t5z6w1y2h"
_SUBSCRIPTION: Final = "sub_4x8q5v6t2z1y7h3k9w2m"
_REPLAY: Final = "rpl_9v3t5z6w1y2h8k2m4x7q"
_KEY: Final = "key_2z1y7h3k9w2m4x8q5v6t"
_POLL: Final = "poll_6w1y2h8k2m4x7q9v3t5z"
_EVENT: Final = "evt_01kc8d1kqv5t00002h8k2m4x7q9v"
_COURSE: Final = "26vafvWSRmbhNcxJYqjCzuJg"
_EARLIER: Final = "2026-11-20T08:00:00.000Z"
_AT: Final = "2026-11-23T09:30:00.000Z"
_LATER: Final = "2026-11-23T09:30:01.250Z"
_CURSOR: Final = "MTc5NTQyNDAwMTEyMy0w"
_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - nobody's, out of the specification

_POLL_VIEW: Final[Json] = {
    "id": _POLL,
    "kind": "delta",
    "state": "completed",
    "requested_at": None,
    "started_at": _AT,
    "finished_at": _LATER,
    "duration_seconds": 1.25,
    "pages": 1,
    "records": 12,
    "verdicts": {"unchanged": 9, "updated": 3},
    "changes": 3,
    "error": None,
}
_PROBLEM: Final[Json] = {
    "code": "PLATFORM.INTEGRATION_NOT_FOUND",
    "message": "the upstream does not know the integration",
    "remedy": "correct upstream_id, or connect the learning system again",
    "since": _AT,
    "attention": True,
    "status": 404,
    "log_url": None,
}
_ATTEMPT: Final[Json] = {
    "event_id": _EVENT,
    "number": 1,
    "at": _AT,
    "outcome": "delivered",
    "duration_ms": 48,
    "status": 204,
    "dns_ms": 3,
    "connect_ms": 12,
    "first_byte_ms": 47,
    "error": None,
    "excerpt": "",
    "next_attempt_at": None,
    "counted": True,
    "replay": False,
}
_CLIENT_CERTIFICATE: Final[Json] = {
    "subject": "CN=coursewire,O=Example",
    "issuer": "CN=Example Clients",
    "serial": "4f1a09",
    "fingerprint_sha256": "9f86d081" * 8,
    "not_after": "2027-11-27T00:00:00.000Z",
}
_COURSE_EVENT: Final[Json] = {
    "type": "course.updated",
    "timestamp": _AT,
    "data": {
        "schema_version": 1,
        "event_id": _EVENT,
        "integration_id": _INTEGRATION,
        "upstream_id": "workday:HWUTwvyx2wLoSUHphiWVrp28",
        "external_id": "tenant-42",
        "labels": {"region": "eu"},
        "course_id": _COURSE,
        "remote_id": "32",
        "origin_id": None,
        "sequence": 1795424001123,
        "previous_sequence": 1795300000007,
        "changed": ["provider", "revisions.title"],
        "reason": None,
        "evidence": None,
        "initial": False,
        "detected_by": "delta",
        "course_omitted": "thin",
    },
}
_WORK: Final[Json] = {"due": 0, "claimed": 3, "leased": 2, "oldest_due_at": None}
_REDIS: Final[Json] = {
    "up": True,
    "server": "valkey",
    "version": "9.1.0",
    "uptime_seconds": 86400,
    "memory_used_bytes": 268435456,
    "memory_limit_bytes": 1073741824,
    "memory_share": 0.25,
    "eviction_policy": "noeviction",
    "persistence": "aof",
    "aof_enabled": True,
    "aof_ok": True,
}
_SCHEDULER: Final[Json] = {"name": "scheduler-1", "last_turn_at": _AT}
_WORKER: Final[Json] = {
    "name": "worker-1",
    "state": "busy",
    "queues": ["coursewire-poll", "coursewire-deliver"],
    "host": "host-1",
    "pid": 4711,
    "last_heartbeat_at": _AT,
}
_QUEUE: Final[Json] = {"name": "coursewire-poll", "queued": 1, "started": 2, "failed": 0}
_STATES: Final[Json] = {"active": 12, "pending": 1, "paused": 0, "error": 1, "review": 0}
_TOTALS: Final[Json] = {
    "credentials": 2,
    "integrations": 14,
    "subscriptions": 5,
    "courses": 8400,
    "quarantined": 1,
    "held": 0,
    "events": 1250,
    "pending": 3,
    "dead": 0,
}
_HELD: Final[Json] = {
    "course_id": _COURSE,
    "kind": "deleted",
    "evidence": "tombstone",
    "changed": [],
}
_ENDING: Final[Json] = {
    "signature": "hmac",
    "secret": _SECRET,
    "public_key": None,
    "expires_at": "2026-11-24T09:30:00.000Z",
}
_FIELD_ERROR: Final[Json] = {
    "field": "max_concurrency",
    "message": "0 is out of range",
    "remedy": "send a whole number from 1 to 100",
}
_ITEMS: Final[dict[str, Json]] = {
    "CredentialView": {
        "id": _CREDENTIAL,
        "name": "Acme",
        "base_url": "https://api.kombo.dev/v1",
        "created_at": _EARLIER,
        "updated_at": _EARLIER,
    },
    "IntegrationView": {
        "id": _INTEGRATION,
        "name": "Workday of Acme",
        "upstream_id": "workday:HWUTwvyx2wLoSUHphiWVrp28",
        "credential_id": _CREDENTIAL,
        "external_id": "tenant-42",
        "labels": {"region": "eu"},
        "delta_interval_seconds": 60,
        "full_interval_seconds": 21600,
        "baseline": "silent",
        "ignore_paths": [],
        "track_remote_data": False,
        "guards": {
            "deleted_count": 10,
            "deleted_share": 0.15,
            "deleted_share_max": 0.5,
            "changed_count": 200,
            "changed_share": 0.5,
        },
        "paused": False,
        "created_at": _EARLIER,
        "updated_at": _EARLIER,
        "state": "active",
        "epoch": "ep_3t5z6w1y2h8k2m4x7q9v",
        "held": 0,
        "course_count": 600,
        "quarantined": 0,
        "clock_skew_seconds": None,
        "last_poll": _POLL_VIEW,
        "next_poll_at": "2026-11-23T09:31:00.000Z",
        "error": None,
        "notices": [],
    },
    "PollView": _POLL_VIEW,
    "CourseView": {
        "course_id": _COURSE,
        "remote_id": "32",
        "origin_id": None,
        "state": "live",
        "reason": None,
        "sequence": 1795424001123,
        "last_event_id": _EVENT,
    },
    "ClientCertificateView": _CLIENT_CERTIFICATE,
    "SubscriptionView": {
        "id": _SUBSCRIPTION,
        "url": "https://example.com/webhooks",
        "description": "search index",
        "event_types": None,
        "integration_ids": None,
        "labels": {"region": "eu"},
        "changed": None,
        "payload": "full",
        "format": "standard",
        "signature": "hmac",
        "public_key": None,
        "headers": {"authorization": None},
        "client_certificate": _CLIENT_CERTIFICATE,
        "max_concurrency": 8,
        "rate_per_second": None,
        "timeout_seconds": 15.0,
        "retry_schedule_seconds": [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400],
        "paused": False,
        "created_at": _EARLIER,
        "updated_at": _EARLIER,
        "owner": None,
        "state": "active",
        "disabled_reason": None,
        "pending": 3,
        "dead": 0,
        "oldest_pending_at": _AT,
    },
    "ReplayView": {
        "id": _REPLAY,
        "subscription_id": _SUBSCRIPTION,
        "which": "missing",
        "since": _EARLIER,
        "until": None,
        "event_types": None,
        "event_id": None,
        "state": "running",
        "scanned": 400,
        "queued": 12,
        "left_out": 0,
        "delivered": 9,
        "dead": 0,
        "reached_at": _AT,
        "created_at": _AT,
        "started_at": _LATER,
        "finished_at": None,
        "error": None,
    },
    "DeliveryView": {
        "subscription_id": _SUBSCRIPTION,
        "event_id": _EVENT,
        "state": "delivered",
        "reason": None,
        "attempts": [_ATTEMPT],
    },
    "ApiKeyView": {
        "id": _KEY,
        "name": "search team",
        "prefix": "cw_2z1y7h3k",
        "scope": "subscriber",
        "integration_ids": None,
        "labels": {"region": "eu"},
        "created_at": _EARLIER,
        "updated_at": _EARLIER,
        "expires_at": None,
        "last_used_at": _AT,
    },
    "AuditView": {
        "at": _AT,
        "actor": _KEY,
        "action": "subscription.updated",
        "object_id": _SUBSCRIPTION,
        "fields": ["paused"],
        "request_id": "req_fgf4xy2sd4zj8pf5nw4m",
        "address": "192.0.2.7",
    },
}

SCHEMAS: Final[dict[str, Json]] = {
    **_ITEMS,
    **{
        f"{name.removesuffix('View')}List": {"items": [item], "next": None}
        for name, item in _ITEMS.items()
    },
    "EventView": _COURSE_EVENT,
    "EventList": {"items": [_COURSE_EVENT], "next": None, "cursor": _CURSOR},
    "AttemptView": _ATTEMPT,
    "IntegrationProblem": _PROBLEM,
    "IntegrationNotice": {
        "code": "flapping_path",
        "message": "`revisions.remote_url` changed again and again in mostly the same courses: in "
        "3 polls in a row, the last of which changed it in 50 courses. If the change carries no "
        "meaning, for example a signed URL, add the path to ignore_paths.",
        "since": _EARLIER,
    },
    "HeldChangeView": _HELD,
    "ReviewView": {
        "integration_id": _INTEGRATION,
        "state": "open",
        "since": _AT,
        "deleted": 1,
        "changed": {},
        "items": [_HELD],
        "next": None,
    },
    "CheckResult": {"ok": True, "records_seen": 1},
    "SkippedView": {"skipped": 12, "pending": 0},
    "EndingSecretView": _ENDING,
    "SecretView": {
        "signature": "hmac",
        "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "public_key": None,
        "previous": [_ENDING],
    },
    "Health": {"status": "ok"},
    "FieldError": _FIELD_ERROR,
    "ProblemDocument": {
        "type": "urn:coursewire:problem:validation",
        "title": "Some fields cannot be accepted",
        "status": 422,
        "detail": "these fields cannot be accepted: max_concurrency",
        "errors": [_FIELD_ERROR],
    },
    "RedisStatus": _REDIS,
    "SchedulerStatus": _SCHEDULER,
    "WorkerStatus": _WORKER,
    "QueueStatus": _QUEUE,
    "WorkStatus": _WORK,
    "Paused": {"polling": _AT, "delivery": None},
    "IntegrationStates": _STATES,
    "Totals": _TOTALS,
    "SystemStatus": {
        "status": "ok",
        "reasons": [],
        "version": "0.1.0",
        "time": _AT,
        "redis": _REDIS,
        "schedulers": [_SCHEDULER],
        "workers": [_WORKER],
        "queues": [_QUEUE],
        "polls": _WORK,
        "outboxes": _WORK,
        "paused": {"polling": None, "delivery": None},
        "integrations": _STATES,
        "totals": _TOTALS,
    },
}


def _one(summary: str, value: Json) -> Json:
    return {"summary": summary, "value": value}


BODIES: Final[dict[str, dict[str, Json]]] = {
    "createCredential": {
        "kombo": _one(
            "An account of Kombo",
            {"name": "Acme", "base_url": "https://api.kombo.dev/v1", "api_key": "KEY"},
        )
    },
    "changeCredential": {"key": _one("A new API key", {"api_key": "ANOTHER_KEY"})},
    "tryValues": {
        "inline": _one(
            "Before there is a credential",
            {
                "base_url": "https://api.kombo.dev/v1",
                "api_key": "KEY",
                "upstream_id": "workday:HWUTwvyx2wLoSUHphiWVrp28",
            },
        )
    },
    "registerIntegration": {
        "inline": _one(
            "With a credential of its own",
            {
                "name": "Workday of Acme",
                "base_url": "https://api.kombo.dev/v1",
                "api_key": "KEY",
                "upstream_id": "workday:HWUTwvyx2wLoSUHphiWVrp28",
                "external_id": "tenant-42",
                "labels": {"region": "eu"},
            },
        ),
        "shared": _one(
            "With a credential that others share",
            {
                "name": "Moodle of Acme",
                "credential_id": _CREDENTIAL,
                "upstream_id": "moodle:3xQv7WmXk2Yc8RtLbN5pZsHd",
                "baseline": "emit",
            },
        ),
    },
    "changeIntegration": {
        "guards": _one("Another limit for deletions", {"guards": {"deleted_share": 0.3}}),
        "pause": _one("Stop polling it", {"paused": True}),
    },
    "requestPoll": {"full": _one("Look at all courses", {"kind": "full"})},
    "decideReview": {"apply": _one("It is right", {"decision": "apply"})},
    "createSubscription": {
        "simple": _one("Every course event", {"url": "https://example.com/webhooks"}),
        "narrow": _one(
            "Titles of European courses, from the past on",
            {
                "url": "https://example.com/webhooks",
                "description": "search index",
                "event_types": ["course.created", "course.updated", "course.deleted"],
                "labels": {"region": "eu"},
                "changed": ["revisions.title"],
                "payload": "thin",
                "headers": {"authorization": "Bearer ..."},
                "from": "oldest",
            },
        ),
    },
    "changeSubscription": {
        "pause": _one("Collect, and send nothing", {"paused": True}),
        "slow": _one("At most two pushes per second", {"rate_per_second": 2}),
    },
    "rotateSubscriptionSecret": {
        "hour": _one("The old one signs for another hour", {"overlap_seconds": 3600})
    },
    "skipPendingDeliveries": {
        "until": _one("What is older", {"until": "2026-11-23T09:30:00Z"}),
    },
    "replayEvents": {
        "missing": _one(
            "What was missed since Friday",
            {"which": "missing", "since": "2026-11-20T00:00:00Z"},
        )
    },
    "redeliverEvent": {"one": _one("To one subscription", {"subscription_id": _SUBSCRIPTION})},
    "pause": {"polling": _one("Leave the upstream alone", {"what": "polling"})},
    "resume": {"polling": _one("Go on", {"what": "polling"})},
    "createAPIKey": {
        "subscriber": _one(
            "For a team",
            {"name": "search team", "scope": "subscriber", "labels": {"region": "eu"}},
        )
    },
    "changeAPIKey": {"name": _one("Another name", {"name": "search and catalogue team"})},
}

_OF_INTEGRATION: Final[Json] = {
    "schema_version": 1,
    "event_id": _EVENT,
    "integration_id": _INTEGRATION,
    "upstream_id": "workday:HWUTwvyx2wLoSUHphiWVrp28",
    "external_id": "tenant-42",
    "labels": {"region": "eu"},
}
_OF_SUBSCRIPTION: Final[Json] = {
    "schema_version": 1,
    "event_id": _EVENT,
    "subscription_id": _SUBSCRIPTION,
    "description": "search index",
    "owner": None,
}
_OF_COURSE: Final[Json] = {
    **_OF_INTEGRATION,
    "course_id": _COURSE,
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
    "id": _COURSE,
    "remote_id": "32",
    "revisions": [{"id": "5nq1bXkRmz", "title": "Fire safety", "skills": []}],
}
_EPOCH: Final = "ep_3t5z6w1y2h8k2m4x7q9v"
_EVENT_DATA: Final[dict[str, Json]] = {
    "course.created": {**_OF_COURSE, "previous_sequence": None, "course": _RECORD},
    "course.updated": {**_OF_COURSE, "changed": ["revisions.title"], "course": _RECORD},
    "course.deleted": {
        **_OF_COURSE,
        "evidence": "tombstone",
        "course_omitted": "gone",
    },
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
        "since": _AT,
    },
    "integration.recovered": {
        **_OF_INTEGRATION,
        "code": "PLATFORM.UNAUTHORIZED",
        "since": _EARLIER,
    },
    "integration.review_required": {
        **_OF_INTEGRATION,
        "deleted": 120,
        "changed": {"revisions.title": 410},
    },
    "subscription.deliveries_dead": {
        **_OF_SUBSCRIPTION,
        "deliveries": 7,
        "reasons": [{"reason": "10 attempts failed, the last with status 503", "deliveries": 7}],
        "first_event_at": _EARLIER,
        "last_event_at": _AT,
    },
    "subscription.disabled": {**_OF_SUBSCRIPTION, "reason": "the receiver answered 410 Gone"},
    "subscription.parked": {
        **_OF_SUBSCRIPTION,
        "failures": 10,
        "failing_since": _AT,
        "last_outcome": "status",
        "last_status": 503,
    },
    "subscription.recovered": {**_OF_SUBSCRIPTION, "was": "parked", "by": "delivery"},
    "coursewire.test": {"schema_version": 1, "event_id": _EVENT},
}
EVENTS: Final[dict[str, Json]] = {
    name: {"type": name, "timestamp": _AT, "data": data} for name, data in _EVENT_DATA.items()
}
