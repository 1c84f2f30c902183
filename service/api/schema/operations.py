"""Documents the operations in OpenAPI, from the same tables that read the requests."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any, cast

from litestar import Litestar
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
    Server,
    Tag,
)
from litestar.routes import HTTPRoute

from service.api.access.authentication import allowed
from service.api.http.idempotency import HEADER as IDEMPOTENCY_KEY
from service.api.http.idempotency import MAX_LENGTH
from service.api.http.problems import (
    CATALOGUE,
    FORBIDDEN,
    IDEMPOTENCY_MISMATCH,
    MEDIA_TYPE,
    REQUEST_RUNNING,
    TOO_MANY_FAILURES,
    ProblemDocument,
    ProblemType,
)
from service.api.schema.document import Contract
from service.api.schema.form import Field, Table
from service.api.schema.reference_page import DocumentPlugin, ReferencePlugin, schema_router
from service.api.schema.webhooks import webhooks
from service.domain.access.grants import Scope
from service.settings import Settings

SECURITY: list[dict[str, list[str]]] = [{"bearer": []}]

_SCHEME = (
    "The admin token, the metrics token, or that of an API key. Each operation names the scopes of "
    "which any one opens it. `admin`: everything. `subscriber`: its own subscriptions, their "
    "deliveries, and the course events granted to it; what is not its own is not found. `read`: "
    "reads everything but secrets and the audit trail. `metrics`: `/metrics` alone."
)
_REPEATABLE = (
    "a text of your own, such as a UUID, that is new for each request: for a day, repeating the "
    "request with it gives the same answer again, with `Idempotency-Replayed: true`, and does "
    "nothing. It is yours alone. Answers of 500 and more are not kept"
)
_IDEMPOTENCY = Parameter(
    name=IDEMPOTENCY_KEY,
    param_in="header",
    description=_REPEATABLE,
    required=False,
    schema=Schema(
        type=OpenAPIType.STRING, min_length=1, max_length=MAX_LENGTH, pattern="^[\\x21-\\x7e]+$"
    ),
)
_TAGS = (
    ("Credentials", "Base URLs of the upstream and the API keys that open them."),
    ("Integrations", "Connected learning systems, how they are polled and what is known of them."),
    ("Subscriptions", "Who is told of changes, of which, and how."),
    ("Replays", "Events of the past that are sent once more."),
    ("Deliveries", "What was sent, and what came back."),
    ("Events", "The event log: every change, in order."),
    ("Webhooks", "What subscribers are sent, after Standard Webhooks."),
    ("Access", "Who may do what."),
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


def complete(app: Litestar) -> None:
    """Adds what the operations behind `Access` have in common, which none of them says itself: the
    scopes that open it, the problems of access, and of a `POST` that it may be repeated."""
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            if SECURITY[0] in handler.resolve_security():
                (method,) = handler.http_methods
                scopes = [scope for scope in Scope if allowed(scope, handler, method)]
                completed = _completed(handler.operation_class, scopes, repeatable=method == "POST")
                handler.operation_class = cast("type[Operation]", completed)  # it is only called


def _completed(
    documented: Callable[..., Operation], scopes: list[Scope], *, repeatable: bool
) -> Callable[..., Operation]:
    """Makes the documentation of an operation, with what it shares with others."""

    def complete_one(**given: Any) -> Operation:
        operation = documented(**given)
        # One of them suffices.
        operation.security = [{"bearer": [str(scope)]} for scope in scopes]
        shared = [FORBIDDEN, TOO_MANY_FAILURES]
        if repeatable:
            shared += [REQUEST_RUNNING, IDEMPOTENCY_MISMATCH]
            operation.parameters = [*(operation.parameters or ()), _IDEMPOTENCY]
        responses = {**(operation.responses or {})}
        for problem in shared:
            _add(responses, problem)
        operation.responses = dict(sorted(responses.items()))
        return operation

    return complete_one


def _add(responses: dict[str, OpenAPIResponse | Reference], problem: ProblemType) -> None:
    """Adds a problem to those that are documented, which 401 always is."""
    like = cast("OpenAPIResponse", responses["401"])
    known = responses.get(str(problem.status.value))
    before = f"{known.description}; " if isinstance(known, OpenAPIResponse) else ""
    responses[str(problem.status.value)] = replace(like, description=f"{before}{problem.title}")


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
    contract = Contract()
    return OpenAPIConfig(
        title="Coursewire",
        version=version(),
        description=(
            "Tells downstream applications that a course changed. Times are RFC 3339 in UTC, "
            "durations are seconds, lists are pages that `next` leads on from. Every answer has an "
            "`X-Request-ID`, under which the log and the audit trail speak of the request."
        ),
        use_handler_docstrings=True,
        servers=[Server(url=settings.root_path or "/")],
        tags=[Tag(name=name, description=text) for name, text in _TAGS],
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer", description=_SCHEME)
            }
        ),
        webhooks=dict(webhooks()),
        render_plugins=[ReferencePlugin(), DocumentPlugin(contract)],
        openapi_router=schema_router(public=settings.public_docs),
    )
