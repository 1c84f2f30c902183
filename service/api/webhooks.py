"""Documents what subscribers are sent, as the OpenAPI document's webhooks."""

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

from service.domain.events import CONTENT_TYPES, CourseData
from service.domain.subscriptions import Format

TEST_EVENT = "coursewire.test"

_MEANINGS = {
    "course.created": "A course is new, or live again (`reason`: restored).",
    "course.updated": "Something tracked changed in a course; `changed` names the paths.",
    "course.deleted": "A course is gone; `evidence` says how that is known.",
    "integration.baseline_completed": "The first complete sweep of an epoch has ended.",
    "integration.review_required": "Changes are held because they are too many to be believed; "
    "somebody must decide on them.",
    TEST_EVENT: "Somebody asked for a test of the subscription.",
}
_HEADERS = {
    "webhook-id": "the event's id, the same on every attempt",
    "webhook-timestamp": "epoch seconds of the attempt",
    "webhook-signature": "v1, a comma and base64 of the HMAC-SHA256 over id, timestamp and body "
    "with dots between them, or v1a, a comma and base64 of their ed25519 signature; while rotated "
    "secrets overlap one of each secret, the newest first, with blanks between them",
    "coursewire-replay": "true on what is sent once more, by a replay; else it is not there",
}
_OPTIONAL = ("coursewire-replay",)


_DATA = {
    "schema_version": "the version of this shape",
    "event_id": "the event's id, the same as in `webhook-id`",
    "integration_id": "the integration",
    "upstream_id": "its X-Integration-Id at the upstream",
    "external_id": "your own name for the integration",
    "labels": "your own labels of the integration",
    "course_id": "the course's id at the upstream",
    "remote_id": "its id in the learning system",
    "origin_id": "its id where it came from, if the learning system says so",
    "sequence": "the event's number among those of the course, which only grows",
    "previous_sequence": "the number of the course's event before; null: there is none",
    "changed": "the paths that changed, of a course.updated",
    "reason": "what kind of change it is, where the type does not say",
    "evidence": "how it is known that a course is gone",
    "initial": "whether the first complete sweep found the course",
    "detected_by": "delta or sweep: the kind of walk that found the change; review: it was "
    "held and applied by a decision",
    "course_omitted": "why `course` is not there; null: it is",
    "course": "the course as the upstream gives it",
}


def webhooks() -> dict[str, PathItem]:
    """Every event type with its headers and body."""
    return {name: PathItem(post=_operation(name, text)) for name, text in _MEANINGS.items()}


def _operation(event_type: str, meaning: str) -> Operation:
    return Operation(
        tags=["Webhooks"],
        summary=event_type,
        description=f"{meaning} Answer with any 2xx once you have taken it; every other answer "
        "is a failure and is tried again.",
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
    found = {"type": "string", "format": "date-time", "description": "when the change was found"}
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
                "description": "the path of the integration in the API, or of the API itself",
            },
            "type": named,
            "subject": {"type": "string", "description": _DATA["course_id"]},
            "time": found,
            "datacontenttype": {"const": "application/json", "description": "what `data` is"},
        }
        if not of_course:
            del properties["subject"]
    properties["data"] = _data(event_type)
    body = {"type": "object", "properties": properties, "required": list(properties)}
    # Litestar passes plain JSON through; its own class could not hold what msgspec generates.
    return cast("Schema", body)


def _data(event_type: str) -> dict[str, Any]:
    if event_type.startswith("course."):
        schema = msgspec.json.schema(CourseData)["$defs"][CourseData.__name__]
        described = {
            name: {**one, "description": _DATA[name]} for name, one in schema["properties"].items()
        }
        return {**schema, "properties": described}
    return {
        "type": "object",
        "properties": {
            "schema_version": {"type": "integer", "description": _DATA["schema_version"]},
            "event_id": {"type": "string", "description": _DATA["event_id"]},
        },
        "required": ["schema_version", "event_id"],
    }
