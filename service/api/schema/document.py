"""Completes the OpenAPI document with what operations share, which no handler says itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from service.api.http.problems import (
    CATALOGUE,
    HEADERS_TOO_LARGE,
    INTERNAL,
    MALFORMED,
    MEDIA_TYPE,
    REQUEST_TIMEOUT,
    STORAGE_UNAVAILABLE,
    TOO_LARGE,
    TYPE_PREFIX,
    UNSUPPORTED_MEDIA_TYPE,
    URI_TOO_LONG,
    ProblemType,
)
from service.api.schema.examples import BODIES, EVENTS, SCHEMAS
from service.domain.delivery.subscription import Format
from service.domain.events.event import CONTENT_TYPES

Json = dict[str, Any]


class Contract:
    """The document of one application, made when it is first asked for."""

    def __init__(self) -> None:
        self._made: Json | None = None

    def of(self, generated: Json) -> Json:
        """The published form of what Litestar generated."""
        if self._made is None:
            self._made = published(generated)
        return self._made


METHODS: Final = ("get", "post", "put", "patch", "delete")
_BY_TITLE = {problem.title: problem for problem in CATALOGUE}
_LITTLE_WORDS = frozenset({"a", "an", "the"})
_OPERATION_IDS: Final[dict[str, str]] = {  # where the summary makes no name
    "List the courses of an integration": "listCourses",
    "Try values before registering them": "tryValues",
    "Try an integration's values": "tryIntegration",
    "Poll an integration now": "requestPoll",
    "List recent polls": "listPolls",
    "Show what is held for review": "showReview",
    "Decide on what is held": "decideReview",
    "List deliveries with their attempts": "listDeliveries",
    "Read the event log": "listEvents",
    "Follow the event log": "streamEvents",
    "Show the state of the system": "showStatus",
    "Stop polling or delivery": "pause",
    "Start polling or delivery again": "resume",
    "List who changed what": "listAuditEntries",
    "Whether this process lives": "healthz",
    "Whether this process can serve": "readyz",
    "Metrics for Prometheus": "metrics",
}
_NOISE = ("deprecated", "allowEmptyValue", "allowReserved")  # false wherever Litestar writes them
_TAGGED = frozenset({"CredentialView", "IntegrationView", "SubscriptionView", "ReviewView"})
_PARAMETERS: Final[dict[str, tuple[str, str]]] = {  # of paths: what they are, and their form
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
    "x-request-id": "under which the log and the audit trail speak of the request",
    "location": "the path of what was made",
    "etag": "to be sent as `If-Match` with a change that builds on this answer",
    "www-authenticate": "how to send a token",
    "retry-after": "after how many seconds to try again",
}


def published(generated: Json) -> Json:
    """The document as it is published, made of what Litestar generated."""
    document: Json = msgspec.json.decode(msgspec.json.encode(generated))
    schemas = document["components"]["schemas"]
    for name, example in SCHEMAS.items():
        if name in schemas:
            schemas[name]["examples"] = [example]
    schemas["ProblemDocument"]["properties"]["type"]["enum"] = [
        TYPE_PREFIX + problem.name for problem in CATALOGUE
    ]
    components = document["components"]
    components["headers"] = {
        name: {"description": text, "schema": {"type": "string"}, "required": True}
        for name, text in _HEADERS.items()
    }
    components["responses"] = {}
    for path, _, operation in _operations(document):
        _complete(operation, components["responses"], of_service=path.startswith("/v1"))
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


def _complete(operation: Json, shared: Json, *, of_service: bool) -> None:
    operation["operationId"] = _operation_id(operation["summary"])
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            text, form = _PARAMETERS[parameter["name"]]
            parameter["description"] = text
            if form:
                parameter["schema"]["pattern"] = f"^{form}$"
    takes_body = "requestBody" in operation
    if takes_body and (example := BODIES.get(operation["operationId"])):
        operation["requestBody"]["content"]["application/json"]["examples"] = example
    kinds = {problem.name for problem in _problems(operation)}
    if of_service:
        kinds |= {INTERNAL.name, STORAGE_UNAVAILABLE.name}
    if takes_body:
        kinds |= {MALFORMED.name, TOO_LARGE.name, UNSUPPORTED_MEDIA_TYPE.name}
        kinds |= {REQUEST_TIMEOUT.name}
    places = {parameter["in"] for parameter in operation.get("parameters", ())}
    if places & {"path", "query"}:
        kinds |= {URI_TOO_LONG.name}
    if "header" in places:
        kinds |= {HEADERS_TOO_LARGE.name}
    responses: Json = {
        status: response
        for status, response in operation["responses"].items()
        if MEDIA_TYPE not in response.get("content", {})
    }
    for response in responses.values():
        _add_headers(response)
    found = [problem for problem in CATALOGUE if problem.name in kinds]
    for status in sorted({problem.status.value for problem in found}):
        of_status = [problem for problem in found if problem.status == status]
        name = "-or-".join(problem.name for problem in of_status)
        shared.setdefault(name, _response(of_status))
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    operation["responses"] = dict(sorted(responses.items()))


def _problems(operation: Json) -> Iterator[ProblemType]:
    """The problems that an operation is documented with, told by their titles."""
    for response in operation["responses"].values():
        if MEDIA_TYPE in response.get("content", {}):
            for title in response["description"].split("; "):
                yield _BY_TITLE[title]


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
    """What every answer has, and what those of this kind have."""
    contents = response.get("content", {}).values()
    view = next((_name(content["schema"]) for content in contents if content["schema"]), "")
    names = ["x-request-id", *(["etag"] if view in _TAGGED else [])]
    headers = response.setdefault("headers", {})
    headers.update({name: {"$ref": f"#/components/headers/{name}"} for name in names})


def _name(schema: Json) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _link(document: Json) -> None:
    """Says how what one operation makes is used by others: its id in their paths."""
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


def _operation_id(summary: str) -> str:
    """`Show a subscription's secret` as `showSubscriptionSecret`, a name for generated clients."""
    if summary in _OPERATION_IDS:
        return _OPERATION_IDS[summary]
    words: list[str] = [
        word
        for word in re.findall(r"[A-Za-z]+", summary.replace("'s", ""))
        if word.lower() not in _LITTLE_WORDS
    ]
    first, *others = words
    return first.lower() + "".join(word[0].upper() + word[1:] for word in others)


def _quieten(found: Any) -> None:
    """Leaves out what says nothing."""
    if isinstance(found, dict):
        for name in _NOISE:
            if found.get(name) is False:
                del found[name]
        for one in found.values():
            _quieten(one)
    elif isinstance(found, list):
        for one in found:
            _quieten(one)
