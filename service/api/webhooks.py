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

from service.domain.events import CourseData

TEST_EVENT = "coursewire.test"

_MEANINGS = {
    "course.created": "A course is new, or live again (`reason`: restored).",
    "course.updated": "Something tracked changed in a course; `changed` names the paths.",
    "course.deleted": "A course is gone; `evidence` says how that is known.",
    "integration.baseline_completed": "The first complete sweep of an epoch has ended.",
    TEST_EVENT: "Somebody asked for a test of the subscription.",
}
_HEADERS = {
    "webhook-id": "the event's id, the same on every attempt",
    "webhook-timestamp": "epoch seconds of the attempt",
    "webhook-signature": "v1 and base64 of the HMAC-SHA256 over id, timestamp and body, with dots "
    "between them; several, separated by blanks, while secrets overlap",
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
                required=True,
                description=text,
                schema=Schema(type=OpenAPIType.STRING),
            )
            for name, text in _HEADERS.items()
        ],
        request_body=RequestBody(
            required=True, content={"application/json": OpenAPIMediaType(schema=_body(event_type))}
        ),
        responses={"2XX": OpenAPIResponse(description="taken")},
    )


def _body(event_type: str) -> Schema:
    body = {
        "type": "object",
        "properties": {
            "type": {"const": event_type},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": _data(event_type),
        },
        "required": ["type", "timestamp", "data"],
    }
    # Litestar passes plain JSON through; its own class could not hold what msgspec generates.
    return cast("Schema", body)


def _data(event_type: str) -> dict[str, Any]:
    if event_type.startswith("course."):
        definitions = msgspec.json.schema(CourseData)["$defs"]
        return cast("dict[str, Any]", definitions[CourseData.__name__])
    return {
        "type": "object",
        "properties": {"schema_version": {"type": "integer"}, "event_id": {"type": "string"}},
        "required": ["schema_version", "event_id"],
    }
