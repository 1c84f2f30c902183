"""Completes the OpenAPI document with facts that operations share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import getdoc
from typing import Any, Final, cast

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from service.api.access.idempotency import HEADER as IDEMPOTENCY_KEY
from service.api.access.idempotency import MAX_LENGTH
from service.api.access.route_guards import guard_of
from service.api.fields.readers import object_schema
from service.api.fields.refusals import FieldError
from service.api.fields.views import Page, View
from service.api.http.problem_types import (
    CATALOGUE,
    FORBIDDEN,
    HEADERS_TOO_LARGE,
    IDEMPOTENCY_MISMATCH,
    INTERNAL,
    MALFORMED,
    NOT_FOUND,
    PRECONDITION_FAILED,
    REQUEST_RUNNING,
    REQUEST_TIMEOUT,
    STORAGE_UNAVAILABLE,
    TOO_LARGE,
    TOO_MANY_FAILURES,
    TYPE_PREFIX,
    UNAUTHORIZED,
    UNSUPPORTED_MEDIA_TYPE,
    URI_TOO_LONG,
    VALIDATION,
    ProblemType,
)
from service.api.http.problems import MEDIA_TYPE, PROBLEMS, ProblemDocument
from service.api.http.requests import PARAMS, SENT_HEADERS, body_of, struct_of
from service.api.schema.event_examples import EVENTS
from service.domain.delivery.subscription import Format
from service.domain.events.event import CONTENT_TYPES

Json = dict[str, Any]


class Contract:
    """The document of one application, generated at the first request."""

    app: Litestar

    def __init__(self) -> None:
        self._made: Json | None = None

    def of(self, generated: Json) -> Json:
        """The published form of Litestar's document."""
        if self._made is None:
            self._made = published(self.app, generated)
        return self._made


SECURITY: Final[list[dict[str, list[str]]]] = [{"bearer": []}]
_PUBLIC: Final[list[Json]] = [{}]  # the security of operations that need no token
_REPEATABLE = (
    "a unique value for each request, such as a UUID. For a day, a repeated "
    "request with this key returns the stored response, with "
    "`Idempotency-Replayed: true`, and changes nothing. API keys do not share "
    "idempotency keys. A response with the status 401, 403, 429, or 500 and above is not stored"
)
_IDEMPOTENCY: Final[Json] = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_LENGTH,
        "pattern": "^[\\x21-\\x7e]+$",
    },
    "description": _REPEATABLE,
    "required": False,
}
_REFERENCE: Final = "#/components/schemas/{name}"
METHODS: Final = ("get", "post", "put", "patch", "delete")
# Litestar writes them where they are false
_NOISE = ("deprecated", "allowEmptyValue", "allowReserved")
_PARAMETERS: Final[dict[str, tuple[str, str]]] = {  # path parameters: their meaning and form
    "credential_id": ("the credential's id", "cred_[0-9a-z]{1,64}"),
    "integration_id": ("the integration's id", "int_[0-9a-z]{1,64}"),
    "poll_id": ("the poll's id", "poll_[0-9a-z]{1,64}"),
    "course_id": ("the course's id at the upstream", ""),
    "subscription_id": ("the subscription's id", "sub_[0-9a-z]{1,64}"),
    "replay_id": ("the replay's id", "rpl_[0-9a-z]{1,64}"),
    "event_id": ("the event's id", "evt_[0-9a-z]{1,64}"),
    "key_id": ("the API key's id", "key_[0-9a-z]{1,64}"),
}
_HEADERS: Final[dict[str, str]] = {
    "x-request-id": "the id of the request in the log and, for a change, in the audit trail",
    "location": "the path of the created resource",
    "etag": (
        "the version of the resource: send it as `If-Match` with a change that is "
        "based on this response"
    ),
    "www-authenticate": "the authentication scheme",
    "retry-after": "the number of seconds to wait before the next attempt",
}


def published(app: Litestar, generated: Json) -> Json:
    """The published document, based on Litestar's document of an application."""
    document: Json = msgspec.json.decode(msgspec.json.encode(generated))
    components = document["components"]
    schemas = components["schemas"]
    schemas |= msgspec.json.schema_components([ProblemDocument], ref_template=_REFERENCE)[1]
    _add_examples(schemas)
    schemas["ProblemDocument"]["properties"]["type"]["enum"] = [
        TYPE_PREFIX + problem.name for problem in CATALOGUE
    ]
    components["headers"] = {
        name: {"description": text, "schema": {"type": "string"}, "required": True}
        for name, text in _HEADERS.items()
    }
    components["responses"] = {}
    known = {(path, method): handler for path, method, handler in handlers(app)}
    for path, method, operation in _operations(document):
        handler = known[path, method]
        _add_requests(operation, handler, schemas)
        _add_access(operation, handler, method)
        _complete(operation, handler, components["responses"], of_service=path.startswith("/v1"))
    _link(document)
    for name, item in document["webhooks"].items():
        content = item["post"]["requestBody"]["content"][CONTENT_TYPES[Format.STANDARD]]
        content["examples"] = {"pushed": {"summary": "As it is pushed", "value": EVENTS[name]}}
    for _, _, operation in _operations(document):
        _quieten(operation)
    return document


def catalogue_table() -> str:
    """Every type of problem, as a Markdown table."""
    rows = [
        f"| `{problem.name}` | {problem.status.value} | {problem.title} | {problem.meaning} |"
        for problem in CATALOGUE
    ]
    return "\n".join(
        ["| type | status | title | when, and what to do |", "|---|---|---|---|", *rows]
    )


def _operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def handlers(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    """The operations that are documented."""
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            if handler.resolve_include_in_schema():
                (method,) = handler.http_methods
                yield route.path_format, method.lower(), handler


def _subclasses(of: type[View]) -> Iterator[type[View]]:
    for one in of.__subclasses__():
        yield one
        yield from _subclasses(one)


def _add_examples(schemas: Json) -> None:
    """Adds to each response object its example; the example of a page is one of its items."""
    for view in _subclasses(View):
        if view.__name__ in schemas:
            of_page = issubclass(view, Page) and "example" not in vars(view)
            example = cast("type[Page]", view).of_one() if of_page else view.example
            schemas[view.__name__]["examples"] = [example]
    schemas[FieldError.__name__]["examples"] = [FieldError.example]


def _add_requests(operation: Json, handler: HTTPRouteHandler, schemas: Json) -> None:
    """Adds the body, query and headers that a handler reads as structs."""
    if handler.parsed_data_field is not None:
        body = body_of(handler)
        examples = {
            name: {"summary": summary, "value": value}
            for name, (summary, value) in body.examples.items()
        }
        schemas[body.__name__] = {
            "description": getdoc(body),
            **object_schema(body),
            "examples": [example["value"] for example in examples.values()],
        }
        operation["requestBody"]["required"] = not handler.parsed_data_field.has_default
        operation["requestBody"]["content"]["application/json"]["examples"] = examples
    for dependency, place in ((PARAMS, "query"), (SENT_HEADERS, "header")):
        if dependency in handler.parsed_fn_signature.parameters:
            fields = object_schema(struct_of(handler, dependency))
            operation.setdefault("parameters", []).extend(
                {
                    "name": name,
                    "in": place,
                    "schema": {key: one for key, one in schema.items() if key != "description"},
                    "description": schema["description"],
                    "required": name in fields.get("required", ()),
                }
                for name, schema in fields["properties"].items()
            )


def _add_access(operation: Json, handler: HTTPRouteHandler, method: str) -> None:
    """Adds the scopes, one of which is sufficient, and that a `POST` may be repeated."""
    if handler.resolve_security() == SECURITY:
        operation["security"] = [{"bearer": [str(one)]} for one in guard_of(handler).scopes]
        if method == "post":
            operation.setdefault("parameters", []).append(_IDEMPOTENCY)


def _complete(
    operation: Json, handler: HTTPRouteHandler, shared: Json, *, of_service: bool
) -> None:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            text, form = _PARAMETERS[parameter["name"]]
            parameter["description"] = text
            if form:
                parameter["schema"]["pattern"] = f"^{form}$"
    kinds = {*handler.opt.get(PROBLEMS, ()), *_problems_of(operation)}
    if of_service:
        kinds |= {INTERNAL, STORAGE_UNAVAILABLE}
    responses: Json = {
        status: response
        for status, response in operation["responses"].items()
        if status.startswith("2")
    }
    for response in responses.values():
        _add_headers(response)
    found = [problem for problem in CATALOGUE if problem in kinds]
    for status in sorted({problem.status.value for problem in found}):
        of_status = [problem for problem in found if problem.status == status]
        name = "-or-".join(problem.name for problem in of_status)
        shared.setdefault(name, _response(of_status))
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    operation["responses"] = dict(sorted(responses.items()))


def _problems_of(operation: Json) -> Iterator[ProblemType]:
    """Adds the problems that follow from the input of an operation."""
    parameters = operation.get("parameters", ())
    places = {parameter["in"] for parameter in parameters}
    names = {parameter["name"] for parameter in parameters}
    if "requestBody" in operation:
        yield from (MALFORMED, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, REQUEST_TIMEOUT, VALIDATION)
    if "path" in places:
        yield from (NOT_FOUND, URI_TOO_LONG)
    if "query" in places:
        yield from (VALIDATION, URI_TOO_LONG)
    if "header" in places:
        yield HEADERS_TOO_LARGE
    if "If-Match" in names:
        yield PRECONDITION_FAILED
    if IDEMPOTENCY_KEY in names:
        yield from (REQUEST_RUNNING, IDEMPOTENCY_MISMATCH, VALIDATION)
    if operation.get("security", _PUBLIC) != _PUBLIC:
        yield from (UNAUTHORIZED, FORBIDDEN, TOO_MANY_FAILURES)


def _response(problems: list[ProblemType]) -> Json:
    status = problems[0].status
    headers = ["x-request-id"]
    headers += {401: ["www-authenticate"], 429: ["retry-after"], 503: ["retry-after"]}.get(
        status, []
    )
    return {
        "description": "; ".join(problem.title for problem in problems),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/ProblemDocument"},
                "examples": {
                    problem.name: {"summary": problem.meaning, "value": problem.example()}
                    for problem in problems
                },
            }
        },
    }


def _add_headers(response: Json) -> None:
    """Adds the headers that every response has, and those of its kind."""
    contents = response.get("content", {}).values()
    view = next((_name(content["schema"]) for content in contents if content["schema"]), "")
    tagged = view in {one.__name__ for one in _subclasses(View) if one.tagged}
    names = ["x-request-id", *(["etag"] if tagged else [])]
    headers = response.setdefault("headers", {})
    headers.update({name: {"$ref": f"#/components/headers/{name}"} for name in names})


def _name(schema: Json) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _link(document: Json) -> None:
    """Describes which operations use the id that an operation returns."""
    for path, method, operation in _operations(document):
        for status in ("201", "202"):
            made = operation["responses"].get(status)
            if method == "post" and made is not None:
                links = dict(_links(document, path))
                if links:
                    made["links"] = links
                    made["headers"]["location"] = {"$ref": "#/components/headers/location"}


def _links(document: Json, collection: str) -> Iterator[tuple[str, Json]]:
    item = re.compile(re.escape(collection) + r"/\{(\w+)\}(/[^{}]*)?")
    for path, _, operation in _operations(document):
        found = item.fullmatch(path)
        if found is not None:
            outer = re.findall(r"\{(\w+)\}", collection)
            parameters = {name: f"$request.path.{name}" for name in outer}
            parameters[found[1]] = "$response.body#/id"
            yield (
                operation["operationId"],
                {"operationId": operation["operationId"], "parameters": parameters},
            )


def _quieten(found: Any) -> None:
    """Removes empty members."""
    if isinstance(found, dict):
        for name in _NOISE:
            if found.get(name) is False:
                del found[name]
        for one in found.values():
            _quieten(one)
    elif isinstance(found, list):
        for one in found:
            _quieten(one)
