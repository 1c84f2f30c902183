"""Documents the operations in OpenAPI, from the same tables that read the requests."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
    SecurityScheme,
    Tag,
)

from service.api.docs import DocsPlugin, schema_router
from service.api.forms import Field, Table
from service.api.problems import CATALOGUE, MEDIA_TYPE, ProblemDocument, ProblemType
from service.api.webhooks import webhooks
from service.settings import Settings

SECURITY: list[dict[str, list[str]]] = [{"bearer": []}]

_TAGS = (
    ("Credentials", "Base URLs of the upstream and the API keys that open them."),
    ("Integrations", "Connected learning systems, how they are walked and what is known of them."),
    ("Subscriptions", "Who is told of changes, of which, and how."),
    ("Replays", "Events of the past that are sent once more."),
    ("Deliveries", "What was sent, and what came back."),
    ("Events", "The event log: every change, in order."),
    ("Webhooks", "What subscribers are sent, after Standard Webhooks."),
    ("System", "How the service itself is doing."),
)


def version() -> str:
    """The version of this installation."""
    try:
        return installed_version("coursewire")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


def problems(*kinds: HTTPStatus | ProblemType) -> dict[int, ResponseSpec]:
    """The documentation of the problems that an operation answers with: single ones, or all of
    a status."""
    found = [one for one in CATALOGUE if one in kinds or one.status in kinds]
    return {
        int(status): ResponseSpec(
            data_container=ProblemDocument,
            generate_examples=False,
            media_type=MEDIA_TYPE,
            description="; ".join(one.title for one in found if one.status == status),
        )
        for status in dict.fromkeys(one.status for one in found)
    }


def reads(
    *,
    body: Table | None = None,
    required: Collection[str] = (),
    editing: bool = False,
    query: Table | None = None,
    headers: Table | None = None,
) -> type[Operation]:
    """The documentation of an operation whose body, query or headers are read by tables."""

    @dataclass
    class Documented(Operation):
        def __post_init__(self) -> None:
            # Litestar documents a validation error of its own, which never happens here.
            self.responses = {
                status: response
                for status, response in (self.responses or {}).items()
                if status != "400" or MEDIA_TYPE in (getattr(response, "content", None) or {})
            }
            if body is not None:
                self.request_body = _request_body(body, required, editing=editing)
            for place, table in (("query", query), ("header", headers)):
                self.parameters = [
                    *(self.parameters or ()),
                    *(_parameter(place, name, field) for name, field in (table or {}).items()),
                ]

    return Documented


def _request_body(table: Table, required: Collection[str], *, editing: bool) -> RequestBody:
    schema = Schema(
        type=OpenAPIType.OBJECT,
        properties={
            name: _documented(field, editing=editing)
            for name, field in table.items()
            if not (editing and field.fixed)
        },
        required=list(required) or None,
        additional_properties=False,
    )
    return RequestBody(
        required=editing or bool(required),
        content={"application/json": OpenAPIMediaType(schema=schema)},
    )


def _documented(field: Field, *, editing: bool) -> Schema:
    return replace(
        field.parser.schema,
        description=field.meaning,
        default=None if editing else field.default,
        write_only=field.write_only or None,
    )


def _parameter(place: str, name: str, field: Field) -> Parameter:
    return Parameter(
        name=name,
        param_in=place,
        description=field.meaning,
        required=field.required,
        schema=field.parser.schema,
    )


def config(settings: Settings) -> OpenAPIConfig:
    """The document's head, and where it and its page are served."""
    page = DocsPlugin(path="/")
    return OpenAPIConfig(
        title="Coursewire",
        version=version(),
        description=(
            "Tells downstream applications that a course changed. Times are RFC 3339 in UTC, "
            "durations are seconds, lists are pages that `next` leads on from."
        ),
        use_handler_docstrings=True,
        tags=[Tag(name=name, description=text) for name, text in _TAGS],
        components=Components(
            security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}
        ),
        webhooks=dict(webhooks()),
        render_plugins=[page],
        openapi_router=schema_router(public=settings.public_docs),
    )
