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
    "course.created": "A course is new, or exists again after its deletion (`reason`: restored). "
    "If `initial` is true, the course existed before, and a baseline or a backfill reports it.",
    "course.updated": "A tracked field of a course changed. `changed` lists the paths.",
    "course.deleted": "A course was deleted. `evidence` names the kind of evidence.",
    "integration.baseline_completed": "The first complete full poll of an epoch has ended.",
    "integration.epoch_started": "An integration starts again with a new baseline. Either it was "
    "connected to another learning system, or its `baseline` setting was changed before the "
    "baseline was complete. Coursewire sends "
    "no `course.deleted` for courses of the previous epoch. Sequences continue to increase. An "
    "earlier error of the integration no longer applies.",
    "integration.error": "Polls of an integration started failing in a way that needs an operator. "
    "Coursewire sends this event once until the failure clears.",
    "integration.recovered": "The failure that `integration.error` announced has cleared.",
    "integration.review_required": "Changes of an integration exceed its limits, so Coursewire "
    "holds them for review.",
    "subscription.deliveries_dead": "Deliveries became dead, because their last retry failed, the "
    "retention of their events ended, or the key may no longer see their events. For each "
    "subscription, Coursewire sends this event at most once in five minutes. The event counts the "
    "dead deliveries since the previous event of this type, except deliveries of events about "
    "subscriptions.",
    "subscription.disabled": "Coursewire disabled the subscription and sends nothing to it until "
    "a client resumes it.",
    "subscription.parked": "The receiver of a subscription keeps failing, so Coursewire sends only "
    "probes to the receiver.",
    "subscription.recovered": "Deliveries to a parked or disabled subscription have resumed.",
    TEST_EVENT: "A client requested a test of the subscription.",
}
_HEADERS = {
    "webhook-id": "the id of the event, the same for every attempt",
    "webhook-timestamp": "the time of the attempt, in seconds since 1970",
    "webhook-signature": "`v1,` and base64 of the HMAC-SHA256 over id, timestamp and body, joined "
    "with dots; or `v1a,` and base64 of the ed25519 signature over the same content. While an old "
    "and a new secret overlap, one signature for each secret, the newest first, separated by "
    "spaces",
    "coursewire-replay": "true if a replay or a redelivery sent the event, otherwise absent",
}
_OPTIONAL = ("coursewire-replay",)


_DATA = {
    "schema_version": "the version of these fields; changes if a field is removed or redefined",
    "event_id": "the id of the event, the same as `webhook-id`",
    "integration_id": "the id of the integration",
    "upstream_id": "the X-Integration-Id of the integration at the upstream",
    "external_id": "the `external_id` that you gave to the integration",
    "labels": "the labels that you gave to the integration",
    "course_id": "the id of the course at the upstream",
    "remote_id": "the id of the course in the learning system",
    "origin_id": "the id of the course in the system that the course comes from; null: the "
    "upstream does not send this id",
    "sequence": "increases with each event of the course; the values are not consecutive",
    "previous_sequence": "the sequence of the previous event of the course; null: no previous "
    "event exists",
    "changed": "the changed paths of a course.updated, such as `revisions.title`; otherwise empty",
    "reason": "restored: the course was deleted and exists again; null: any other event",
    "evidence": "the evidence of a course.deleted. tombstone: the upstream marks the course as "
    "deleted; absence: a complete full poll did not return the course, and a request for the "
    "course confirmed the absence; null: not a course.deleted",
    "initial": "true: the course existed before, and the first complete full poll or a backfill "
    "reports it",
    "detected_by": "delta or full: the kind of poll that detected the change; review: the change "
    "was held and then published; backfill: a backfill of the subscription sent the course",
    "course_omitted": (
        "why `course` is absent. thin: the `payload` of the subscription is thin; size: the "
        "body would exceed 256 KiB; gone: the record no longer exists; null: `course` is present"
    ),
    "course": "the record of the course as the upstream returned it",
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
        "the subscription that the event is about; this subscription never receives the event",
    ),
    "description": (_MAYBE_TEXT, "the description that you gave to the subscription"),
    "owner": (_MAYBE_TEXT, "the API key that owns the subscription; null: the operator"),
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
            "emit: Coursewire sent an event for each existing course; silent: no such events",
        ),
        "records": (_COUNT, "the number of records that the poll received"),
        "epoch": (_TEXT, "the epoch of the poll"),
        "previous_epoch": (_MAYBE_TEXT, "the previous epoch; null: this epoch is the first"),
    },
    "integration.epoch_started": {
        "epoch": (_TEXT, "the new epoch"),
        "previous_epoch": (_TEXT, "the previous epoch"),
        "reason": (
            {"type": "string", "enum": ["upstream", "baseline"]},
            (
                "upstream: the upstream_id or the base URL of the integration changed; baseline: "
                "its unfinished baseline was edited"
            ),
        ),
        "baseline": (
            _BASELINE,
            "emit: Coursewire will send an event for each existing course; silent: no such events",
        ),
    },
    "integration.error": {
        "code": (_TEXT, "the error code from the upstream or from Coursewire"),
        "message": (_TEXT, "a description of the failure"),
        "status": ({"type": ["integer", "null"]}, "the HTTP status; null: no response"),
        "log_url": (_MAYBE_TEXT, "the upstream's page about the request; null: none was sent"),
        "since": (_TIME, "when the first of the consecutive failures occurred"),
    },
    "integration.recovered": {
        "code": (_TEXT, "the code of the error that has cleared"),
        "since": (_TIME, "when the failures started"),
    },
    "integration.review_required": {
        "deleted": (_COUNT, "the number of held deletions"),
        "changed_counts": (_COUNTS, "the number of held changes of each path"),
    },
    "subscription.deliveries_dead": {
        "deliveries": (_COUNT, "the number of deliveries that became dead"),
        "reasons": (_REASONS, "the most frequent reasons, with the number of deliveries for each"),
        "first_event_at": (_TIME, "the time of the earliest event among these deliveries"),
        "last_event_at": (_TIME, "the time of the latest event among these deliveries"),
    },
    "subscription.disabled": {"reason": (_TEXT, "why Coursewire disabled the subscription")},
    "subscription.parked": {
        "failures": (_COUNT, "the number of consecutive failures"),
        "failing_since": (_TIME, "the time of the first of these failures"),
        "last_outcome": (_TEXT, "the class of the last failure, such as status or timeout"),
        "last_status": (
            {"type": ["integer", "null"]},
            "the HTTP status of the last failure; null: no response",
        ),
    },
    "subscription.recovered": {
        "was": ({"type": "string", "enum": ["parked", "disabled"]}, "the previous state"),
        "by": (
            {"type": "string", "enum": ["delivery", "resume"]},
            "delivery: an attempt succeeded; resume: a client resumed the subscription",
        ),
    },
    TEST_EVENT: {},
}


def webhooks() -> dict[str, PathItem]:
    """Every event type with its headers and body."""
    return {name: PathItem(post=_operation(name, text)) for name, text in _MEANINGS.items()}


def _operation(event_type: str, meaning: str) -> Operation:
    return Operation(
        tags=["Webhooks"],
        summary=event_type,
        description=f"{meaning} Answer with any 2xx once you have stored the event. After any "
        "other answer, Coursewire sends the event again.",
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
        "description": "when Coursewire detected the change",
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
                    "the path in the API of the resource that the event is about; without such a "
                    "resource, the path of the API"
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
