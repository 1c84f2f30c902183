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
    "With `initial`, the course existed before: a baseline or a backfill reports it.",
    "course.updated": "A tracked field of a course changed. `changed` lists the paths.",
    "course.deleted": "A course was deleted. `evidence` names the proof.",
    "integration.baseline_completed": "The first complete full poll of an epoch has ended.",
    "integration.epoch_started": "An integration starts again with a new baseline, because it is "
    "connected to something else or its unfinished baseline was edited. Courses of the previous "
    "epoch get no `course.deleted`, and sequences continue to grow. An earlier error of the "
    "integration is no longer current.",
    "integration.error": "Polls of an integration started failing in a way that needs an operator. "
    "Sent once until the failure clears.",
    "integration.recovered": "The failure that `integration.error` announced has cleared.",
    "integration.review_required": "Changes exceed the configured limits and are held for review.",
    "subscription.deliveries_dead": "Deliveries became dead letters, because their attempts were "
    "used up or their events outlived the retention. Sent at most once in five minutes for each "
    "subscription, with the number since the last event. Events about subscriptions are not "
    "counted.",
    "subscription.disabled": "Nothing is sent to the subscription until it is resumed.",
    "subscription.parked": "A subscriber keeps failing, so only probes are sent to it.",
    "subscription.recovered": "Deliveries to a parked or disabled subscription have resumed.",
    TEST_EVENT: "A test of the subscription was requested.",
}
_HEADERS = {
    "webhook-id": "the id of the event, the same on every attempt",
    "webhook-timestamp": "the time of the attempt, in seconds since 1970",
    "webhook-signature": "v1, a comma and base64 of the HMAC-SHA256 over id, timestamp and body "
    "joined with dots, or v1a, a comma and base64 of their ed25519 signature; while rotated "
    "secrets overlap, one signature of each secret, the newest first, separated by spaces",
    "coursewire-replay": "true if a replay sent the event, otherwise absent",
}
_OPTIONAL = ("coursewire-replay",)


_DATA = {
    "schema_version": "the version of these fields; changes if one is removed or redefined",
    "event_id": "the id of the event, the same as `webhook-id`",
    "integration_id": "the id of the integration",
    "upstream_id": "the X-Integration-Id of the integration at the upstream",
    "external_id": "your own name of the integration",
    "labels": "your own labels of the integration",
    "course_id": "the id of the course at the upstream",
    "remote_id": "the id of the course in the learning system",
    "origin_id": "the id of the course in the system it came from, if the learning system has it",
    "sequence": "grows with each event of the course; the values are not consecutive",
    "previous_sequence": ("the sequence of the previous event of the course; null: there is none"),
    "changed": "the changed paths of a course.updated, such as `revisions.title`",
    "reason": "restored: the course was deleted and exists again; null: none of these",
    "evidence": "of a course.deleted: tombstone: the upstream marks the course as deleted; "
    "absence: a complete full poll did not show it, and a request for it confirmed that",
    "initial": "whether the course existed before: the first complete full poll or a backfill "
    "reports it",
    "detected_by": "delta or full: the kind of poll that detected the change; review: the change "
    "was held and then published; backfill: the subscription requested all courses",
    "course_omitted": (
        "why `course` is absent: thin: the subscription asks for that; size: the body "
        "would exceed 256 KiB; gone: the record no longer exists; null: it is present"
    ),
    "course": "the course as the upstream returns it",
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
        ("the subscription that the event is about, never the one that receives it"),
    ),
    "description": (_MAYBE_TEXT, "your own description of it"),
    "owner": (_MAYBE_TEXT, "the API key that owns it; null: the operator"),
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
        "baseline": (_BASELINE, "whether its courses were reported"),
        "records": (_COUNT, "how many records the poll received"),
        "epoch": (_TEXT, "the epoch of the poll"),
        "previous_epoch": (_MAYBE_TEXT, "the previous epoch; null: there was none"),
    },
    "integration.epoch_started": {
        "epoch": (_TEXT, "the new epoch"),
        "previous_epoch": (_TEXT, "the previous epoch"),
        "reason": (
            {"type": "string", "enum": ["upstream", "baseline"]},
            (
                "upstream: its upstream_id or base URL changed; baseline: its unfinished "
                "baseline was edited"
            ),
        ),
        "baseline": (_BASELINE, "whether existing courses will be reported"),
    },
    "integration.error": {
        "code": (_TEXT, "the error code of the upstream, or of Coursewire"),
        "message": (_TEXT, "a description of the failure"),
        "status": ({"type": ["integer", "null"]}, "the HTTP status, if there was a response"),
        "log_url": (_MAYBE_TEXT, "the upstream's page about the request"),
        "since": (_TIME, "when the first of the consecutive failures occurred"),
    },
    "integration.recovered": {
        "code": (_TEXT, "the code of the error that has cleared"),
        "since": (_TIME, "when the failures started"),
    },
    "integration.review_required": {
        "deleted": (_COUNT, "how many deletions are held"),
        "changed_counts": (_COUNTS, "how many changes are held, by path"),
    },
    "subscription.deliveries_dead": {
        "deliveries": (_COUNT, "how many"),
        "reasons": (_REASONS, "the reasons, the most frequent first"),
        "first_event_at": (_TIME, "when the earliest of their events happened"),
        "last_event_at": (_TIME, "when the latest of their events happened"),
    },
    "subscription.disabled": {"reason": (_TEXT, "why")},
    "subscription.parked": {
        "failures": (_COUNT, "consecutive failures"),
        "failing_since": (_TIME, "since when"),
        "last_outcome": (_TEXT, "the class of the last outcome"),
        "last_status": ({"type": ["integer", "null"]}, "its HTTP status, if there was a response"),
    },
    "subscription.recovered": {
        "was": ({"type": "string", "enum": ["parked", "disabled"]}, "the previous state"),
        "by": (
            {"type": "string", "enum": ["delivery", "resume"]},
            ("the cause of the resumption: a successful attempt, or a person"),
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
        description=f"{meaning} Answer with any 2xx once you have stored the event. Any "
        "other answer is a failure, and the event is sent again.",
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
        responses={"2XX": OpenAPIResponse(description="taken")},
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
                    "the path in the API of the resource that the event is about, or of the API "
                    "itself"
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
