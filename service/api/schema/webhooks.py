"""Documents pushes as the webhooks of the OpenAPI document."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Parameter,
    PathItem,
    RequestBody,
    Schema,
)
from litestar.openapi.spec.enums import OpenAPIType

from service.domain.delivery.subscription import Format
from service.domain.events.event import CONTENT_TYPES, CourseData
from service.domain.polling.integration import Baseline

TEST_EVENT = "coursewire.test"

_MEANINGS = {
    "course.created": "A course is new to Coursewire, or a deleted course exists again (`reason` "
    "is `restored`). A baseline or a backfill also sends this event for an existing course "
    "(`initial` is true).",
    "course.updated": "A course changed. `changed` lists the paths that changed.",
    "course.deleted": "A course was deleted. `evidence` shows how Coursewire detected the "
    "deletion.",
    "integration.baseline_completed": "The baseline of an integration is complete. The "
    "baseline is the first complete full poll of an epoch.",
    "integration.epoch_started": "A new epoch of an integration began. `reason` contains the "
    "cause. The first complete full poll of the new epoch is a new baseline. Coursewire creates no "
    "`course.deleted` for courses of the previous epoch, and discards changes that were held for "
    "review. The `sequence` of a course continues to increase. An earlier `integration.error` no "
    "longer applies.",
    "integration.error": "An integration needs the attention of an operator. Its polls fail, or "
    "its full polls repeatedly find changes that Coursewire cannot confirm. Coursewire sends no "
    "other `integration.error` for this integration until the error clears.",
    "integration.recovered": "The error that `integration.error` reported has cleared.",
    "integration.review_required": "A review of an integration started. Coursewire holds changes "
    "that exceed the limits of the integration. Coursewire also holds deletions that an operator "
    "decided to publish but that Coursewire could not confirm.",
    "subscription.deliveries_dead": "Deliveries of a subscription became dead. `reasons` lists the "
    "most frequent causes. While deliveries become dead, Coursewire sends this event about every "
    "five minutes. The event counts the deliveries that became dead since the previous "
    "`subscription.deliveries_dead`, except deliveries of `subscription.*` events.",
    "subscription.disabled": "Coursewire disabled a subscription. Until a client resumes the "
    "subscription, Coursewire sends only test events to the receiver.",
    "subscription.parked": "The receiver of a subscription failed repeatedly. Coursewire now sends "
    "one delivery at a time, as a probe.",
    "subscription.recovered": "A subscription is no longer parked or disabled.",
    TEST_EVENT: "A client requested a test event for the subscription.",
}
_HEADERS = {
    "webhook-id": "the id of the event; all attempts of the event send the same id",
    "webhook-timestamp": "the time of the attempt, in seconds since 1970",
    "webhook-signature": "`v1,` and an HMAC-SHA256 in base64, or `v1a,` and an ed25519 signature "
    "in base64. The signed content consists of `webhook-id`, `webhook-timestamp` and the raw body, "
    "joined with dots. After a rotation, the header contains one signature for each valid secret. "
    "Spaces separate the signatures",
    "coursewire-replay": "`true` if a replay, a backfill or a redelivery sent the event; otherwise "
    "absent",
}
_OPTIONAL = ("coursewire-replay",)
_ANSWER = (
    "Answer with any 2xx once you have stored the event. After any other answer, Coursewire "
    "retries the event."
)
_ANSWER_TO_TEST = "Answer with any 2xx. Coursewire does not retry a test event."


_DATA = {
    "schema_version": "the version of the fields of `data`; a release that removes or redefines a "
    "field changes the version",
    "event_id": "the id of the event, which is also in the header `webhook-id`",
    "integration_id": "the id of the integration in Coursewire",
    "upstream_id": "the id of the integration at the upstream, such as `workday:...`",
    "external_id": "the `external_id` of the integration; null: the integration has no "
    "`external_id`",
    "labels": "the labels of the integration",
    "course_id": "the id of the course at the upstream",
    "remote_id": "the id of the course in the learning system; null: the upstream sends no "
    "`remote_id`",
    "origin_id": "the id of the course in the system that the course comes from; null: the "
    "upstream sends no `origin_id`",
    "sequence": "a number that increases with each event of the course, except events of a "
    "backfill. The values are not consecutive. A backfill repeats the `sequence` of the course's "
    "last event, or sends 1 if the course has no event",
    "previous_sequence": "the `sequence` of the previous event of the course; null: the course has "
    "no earlier event in the current epoch, or a backfill sends the course",
    "changed": "the paths that changed in a `course.updated`, such as `revisions.title`; empty in "
    "other events",
    "reason": "restored: the course was deleted and exists again; null: any other event",
    "evidence": "how Coursewire detected a deletion. tombstone: the upstream marks the course as "
    "deleted; absence: the upstream no longer returns the course, and a request for the course "
    "confirmed the absence; null: the event is not a `course.deleted`",
    "initial": "true: a baseline or a backfill reports an existing course; false: any other event",
    "detected_by": "delta or full: the kind of poll that detected the change; review: the change "
    "was published after a review; backfill: a backfill sent the course",
    "course_omitted": (
        "why `course` is absent. thin: the `payload` of the subscription is `thin`; size: with "
        "`course`, the body would exceed 256 KiB; gone: the course was deleted; null: `course` is "
        "present"
    ),
    "course": "the record of the course as the upstream returned it; absent if `course_omitted` "
    "is not null",
}
_TEXT: dict[str, Any] = {"type": "string"}
_MAYBE_TEXT: dict[str, Any] = {"type": ["string", "null"]}
_COUNT: dict[str, Any] = {"type": "integer"}
_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
_Fields = dict[str, tuple[dict[str, Any], str]]  # the schema of each field, and its meaning
_OF_EVERY_EVENT: _Fields = {
    "schema_version": (_COUNT, _DATA["schema_version"]),
    "event_id": (_TEXT, _DATA["event_id"]),
}
_OF_AN_INTEGRATION: _Fields = {
    "integration_id": (_TEXT, _DATA["integration_id"]),
    "upstream_id": (_TEXT, _DATA["upstream_id"]),
    "external_id": (_MAYBE_TEXT, _DATA["external_id"]),
    "labels": ({"type": "object", "additionalProperties": _TEXT}, _DATA["labels"]),
}
_OF_A_SUBSCRIPTION: _Fields = {
    "subscription_id": (
        _TEXT,
        (
            "the id of the subscription that the event is about; Coursewire does not send the "
            "event to this subscription"
        ),
    ),
    "description": (
        _MAYBE_TEXT,
        "the description of the subscription; null: the subscription has no description",
    ),
    "owner": (
        _MAYBE_TEXT,
        (
            "the id of the API key that owns the subscription; null: the operator owns the "
            "subscription"
        ),
    ),
}
_BASELINE = {"type": "string", "enum": [one.value for one in Baseline]}
_COUNTS = {"type": "object", "additionalProperties": _COUNT}
_REASONS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"reason": _TEXT, "deliveries": _COUNT},
        "required": ["reason", "deliveries"],
    },
}
_SAID: dict[str, _Fields] = {
    "integration.baseline_completed": {
        "baseline": (
            _BASELINE,
            (
                "emit: Coursewire created an event for each existing course in the baseline; "
                "silent: Coursewire created no events for the baseline"
            ),
        ),
        "records": (
            _COUNT,
            "the number of course records that Coursewire received in the baseline",
        ),
        "epoch": (_TEXT, "the id of the epoch of the baseline"),
        "previous_epoch": (
            _MAYBE_TEXT,
            "the id of the previous epoch; null: the integration had no earlier epoch",
        ),
    },
    "integration.epoch_started": {
        "epoch": (_TEXT, "the id of the new epoch"),
        "previous_epoch": (_TEXT, "the id of the previous epoch"),
        "reason": (
            {"type": "string", "enum": ["upstream", "baseline"]},
            (
                "upstream: the `upstream_id` or the base URL changed; baseline: the `baseline` "
                "setting changed before the baseline was complete"
            ),
        ),
        "baseline": (
            _BASELINE,
            (
                "emit: Coursewire will create an event for each existing course in the new "
                "baseline; silent: Coursewire will create no events for the new baseline"
            ),
        ),
    },
    "integration.error": {
        "code": (_TEXT, "the error code from the upstream or from Coursewire"),
        "message": (_TEXT, "a description of the error"),
        "status": (
            {"type": ["integer", "null"]},
            "the HTTP status of the upstream's response; null: the error has no HTTP status",
        ),
        "log_url": (
            _MAYBE_TEXT,
            (
                "the URL of the upstream's page about the failed request; null: the upstream sent "
                "no URL"
            ),
        ),
        "since": (
            _TIME,
            (
                "the start of the error: the time of the first failure, or of the first full poll "
                "that found unconfirmed changes"
            ),
        ),
    },
    "integration.recovered": {
        "code": (_TEXT, "the last `code` of the error that cleared"),
        "since": (_TIME, "the `since` of the error that cleared"),
    },
    "integration.review_required": {
        "deleted": (_COUNT, "the number of held deletions when the review started"),
        "changed_counts": (
            _COUNTS,
            (
                "for each path whose changes exceed the limit: the number of courses in which the "
                "path changed"
            ),
        ),
    },
    "subscription.deliveries_dead": {
        "deliveries": (_COUNT, "the number of deliveries that became dead"),
        "reasons": (
            _REASONS,
            "the most frequent reasons, at most 20, with the number of deliveries for each reason",
        ),
        "first_event_at": (_TIME, "the time of the earliest event whose delivery became dead"),
        "last_event_at": (_TIME, "the time of the latest event whose delivery became dead"),
    },
    "subscription.disabled": {"reason": (_TEXT, "why Coursewire disabled the subscription")},
    "subscription.parked": {
        "failures": (_COUNT, "the number of consecutive failures of the receiver"),
        "failing_since": (_TIME, "the time of the first of the consecutive failures"),
        "last_outcome": (_TEXT, "the kind of the last failure, such as `status` or `timeout`"),
        "last_status": (
            {"type": ["integer", "null"]},
            "the HTTP status of the last failed response; null: no valid status arrived",
        ),
    },
    "subscription.recovered": {
        "was": (
            {"type": "string", "enum": ["parked", "disabled"]},
            "the state of the subscription before the recovery",
        ),
        "by": (
            {"type": "string", "enum": ["delivery", "resume"]},
            "delivery: a delivery succeeded; resume: a client resumed the subscription",
        ),
    },
    TEST_EVENT: {
        "subscription_id": (_TEXT, "the id of the subscription that receives the test event")
    },
}


def webhooks() -> dict[str, PathItem]:
    """Every event type with its headers and body."""
    return {name: PathItem(post=_operation(name, text)) for name, text in _MEANINGS.items()}


def _operation(event_type: str, meaning: str) -> Operation:
    return Operation(
        tags=["Webhooks"],
        summary=event_type,
        description=f"{meaning} {_ANSWER_TO_TEST if event_type == TEST_EVENT else _ANSWER}",
        operation_id=event_type,
        parameters=[
            Parameter(
                name=name,
                param_in="header",
                required=name not in _OPTIONAL,
                description=text,
                schema=Schema(type=OpenAPIType.STRING),
            )
            for name, text in _HEADERS.items()
        ],
        request_body=RequestBody(
            required=True,
            content={
                CONTENT_TYPES[wanted]: OpenAPIMediaType(schema=_body(event_type, wanted))
                for wanted in Format
            },
        ),
        responses={"2XX": OpenAPIResponse(description="accepted")},
    )


def _body(event_type: str, wanted: Format) -> Schema:
    of_course = event_type.startswith("course.")
    named = {"const": event_type, "description": "the event type"}
    found = {
        "type": "string",
        "format": "date-time",
        "description": "when Coursewire created the event",
    }
    properties: dict[str, Any]
    if wanted is Format.STANDARD:
        properties = {"type": named, "timestamp": found}
    else:
        properties = {
            "specversion": {"const": "1.0", "description": "the version of CloudEvents"},
            "id": {"type": "string", "description": _DATA["event_id"]},
            "source": {
                "type": "string",
                "format": "uri-reference",
                "description": (
                    "the path in the API of the integration or subscription that the event is "
                    "about; in other events, the path of the API"
                ),
            },
            "type": named,
            "subject": {"type": "string", "description": _DATA["course_id"]},
            "time": found,
            "datacontenttype": {
                "const": "application/json",
                "description": "the media type of `data`",
            },
        }
        if not of_course:
            del properties["subject"]
    properties["data"] = _data(event_type)
    body = {"type": "object", "properties": properties, "required": list(properties)}
    # Litestar passes plain JSON through; its own class cannot hold all that msgspec generates.
    return cast("Schema", body)


def _data(event_type: str) -> dict[str, Any]:
    if event_type.startswith("course."):
        schema = msgspec.json.schema(CourseData)["$defs"][CourseData.__name__]
        described = {
            name: {**one, "description": _DATA[name]} for name, one in schema["properties"].items()
        }
        return {**schema, "properties": described}
    about: _Fields = {}
    if event_type.startswith("integration."):
        about = _OF_AN_INTEGRATION
    elif event_type.startswith("subscription."):
        about = _OF_A_SUBSCRIPTION
    fields = {**_OF_EVERY_EVENT, **about, **_SAID[event_type]}
    return {
        "type": "object",
        "properties": {
            name: {**schema, "description": meaning} for name, (schema, meaning) in fields.items()
        },
        "required": list(fields),
    }
