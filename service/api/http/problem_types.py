"""The types of problems: title, condition and remedy of each."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

TYPE_PREFIX = "urn:coursewire:problem:"


class ProblemType(msgspec.Struct, frozen=True):
    """One type of problem: the last part of its type URI, its status, its title, and its condition
    with the remedy."""

    name: str
    status: HTTPStatus
    title: str
    meaning: str

    def example(self) -> dict[str, Any]:
        """A document of this type."""
        shown = {"detail": self.meaning, **_EXAMPLES.get(self.name, {})}
        return {
            "type": TYPE_PREFIX + self.name,
            "title": self.title,
            "status": self.status.value,
            **shown,
        }


_EXAMPLES: dict[str, dict[str, Any]] = {
    "validation": {
        "detail": "these fields cannot be accepted: max_concurrency, colour",
        "errors": [
            {
                "field": "max_concurrency",
                "message": "0 is out of range",
                "remedy": "send a whole number from 1 to 100",
            },
            {"field": "colour", "message": "is not known", "remedy": "known are url, description"},
        ],
    },
    "integration-exists": {"existing_id": "int_8k2m4x7q9v3t5z"},
    "credential-in-use": {
        "integration_count": 1,
        "integrations": [{"id": "int_8k2m4x7q9v3t5z", "name": "Workday of Acme"}],
    },
    "cursor-expired": {"oldest_cursor": "MTc5NTQyNDAwMTEyMy0w"},
}

MALFORMED = ProblemType(
    "malformed",
    HTTPStatus.BAD_REQUEST,
    "The request cannot be read",
    "The request is not valid HTTP, or its body is not a JSON object in UTF-8.",
)
UNAUTHORIZED = ProblemType(
    "unauthorized",
    HTTPStatus.UNAUTHORIZED,
    "Authentication required",
    "The token is missing, unknown, expired or revoked. Send `Authorization: Bearer TOKEN`.",
)
FORBIDDEN = ProblemType(
    "forbidden",
    HTTPStatus.FORBIDDEN,
    "Insufficient scope",
    "The scope of the token does not include this operation. Use another token.",
)
TOO_MANY_FAILURES = ProblemType(
    "too-many-failures",
    HTTPStatus.TOO_MANY_REQUESTS,
    "Too many failed authentication attempts",
    "Within a minute, the API process received more than 20 requests with a wrong token from the "
    "address of the client. All addresses of an IPv6 /64 network count as one address. Wait for "
    "the time in `Retry-After`. The API still accepts a valid token.",
)
NOT_FOUND = ProblemType(
    "not-found",
    HTTPStatus.NOT_FOUND,
    "Not found",
    "The path is unknown, the resource does not exist, or the token has no access to the resource.",
)
METHOD_NOT_ALLOWED = ProblemType(
    "method-not-allowed",
    HTTPStatus.METHOD_NOT_ALLOWED,
    "Method not allowed",
    "The path does not accept the method of the request. The header `Allow` of the response lists "
    "the methods that the path accepts.",
)
CONFLICT = ProblemType(
    "conflict",
    HTTPStatus.CONFLICT,
    "The request conflicts with the stored state",
    "Another request has changed a resource that the operation uses, or the state of the resource "
    "does not allow the operation. Get the resource again before you retry.",
)
INTEGRATION_EXISTS = ProblemType(
    "integration-exists",
    HTTPStatus.CONFLICT,
    "The upstream integration is already registered",
    "Another integration has the same `upstream_id` and base URL. `existing_id` is the id of "
    "this integration. Change this integration instead.",
)
CREDENTIAL_IN_USE = ProblemType(
    "credential-in-use",
    HTTPStatus.CONFLICT,
    "The credential is in use by integrations",
    "Before you delete the credential, delete the integrations that use it, or assign another "
    "credential to these integrations.",
)
LIMIT_REACHED = ProblemType(
    "limit-reached",
    HTTPStatus.CONFLICT,
    "Limit reached",
    (
        "The number of integrations or subscriptions has reached `COURSEWIRE_MAX_INTEGRATIONS` or "
        "`COURSEWIRE_MAX_SUBSCRIPTIONS`. Delete a resource, or ask the operator to raise the limit."
    ),
)
REQUEST_RUNNING = ProblemType(
    "request-running",
    HTTPStatus.CONFLICT,
    "The same request is still running",
    "An earlier request with this `Idempotency-Key` is still running. Send the request again "
    "after the time in `Retry-After`.",
)
IDEMPOTENCY_MISMATCH = ProblemType(
    "idempotency-mismatch",
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "The Idempotency-Key belongs to another request",
    "This `Idempotency-Key` was used with another path, query or body within the last day. Use a "
    "new key.",
)
PRECONDITION_FAILED = ProblemType(
    "precondition-failed",
    HTTPStatus.PRECONDITION_FAILED,
    "Precondition failed: the resource has changed",
    "The ETag in `If-Match` is not the current ETag. Get the resource again before you retry.",
)
PRECONDITION_REQUIRED = ProblemType(
    "precondition-required",
    HTTPStatus.PRECONDITION_REQUIRED,
    "Precondition required",
    "A decision on a review requires the header `If-Match`. Send the ETag of the review in this "
    "header.",
)
REQUEST_TIMEOUT = ProblemType(
    "request-timeout",
    HTTPStatus.REQUEST_TIMEOUT,
    "The request took too long to arrive",
    "The head of the request did not arrive within 10 seconds, or its body within 30 seconds. The "
    "API closes the connection.",
)
TOO_LARGE = ProblemType(
    "too-large",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "The request is too large",
    "The maximum size of a request body is 1 MiB.",
)
URI_TOO_LONG = ProblemType(
    "uri-too-long",
    HTTPStatus.REQUEST_URI_TOO_LONG,
    "The URL is too long",
    "The maximum size of the path and the query together is 8 KiB.",
)
UNSUPPORTED_MEDIA_TYPE = ProblemType(
    "unsupported-media-type",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "Unsupported media type",
    "Send a JSON object in UTF-8 with `Content-Type: application/json` and without "
    "`Content-Encoding`.",
)
VALIDATION = ProblemType(
    "validation",
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "Invalid fields",
    "`errors` lists the invalid fields, parameters or headers. Each entry has `field`, `message` "
    "and `remedy`.",
)
HEADERS_TOO_LARGE = ProblemType(
    "headers-too-large",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "The headers are too large",
    "The maximum size of all headers together is 16 KiB.",
)
CURSOR_EXPIRED = ProblemType(
    "cursor-expired",
    HTTPStatus.GONE,
    "Cursor expired: events after it are no longer retained",
    "Some events after the cursor were removed before you read them. Request a backfill, and "
    "continue from `oldest_cursor`.",
)
EVENT_EXPIRED = ProblemType(
    "event-expired",
    HTTPStatus.GONE,
    "Event expired",
    "The event is no longer in the event log and cannot be sent again.",
)
TOO_MANY_LISTENERS = ProblemType(
    "too-many-listeners",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Too many requests are waiting for events",
    "The API process has reached its limit of streams and long polls. Try again after the time "
    "in `Retry-After`.",
)
OVERLOADED = ProblemType(
    "overloaded",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Too many connections are open",
    "The API process has reached its limit of connections. Try again after the time in "
    "`Retry-After`.",
)
INTERNAL = ProblemType(
    "internal",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "Internal error",
    "An unexpected error occurred, usually because of a defect in Coursewire. Search the log for "
    "the `X-Request-ID` of the response.",
)
SECRET_UNREADABLE = ProblemType(
    "secret-unreadable",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "A stored secret cannot be decrypted",
    "No key in `COURSEWIRE_ENCRYPTION_KEYS` decrypts the secret. Add the missing key after the "
    "first key, or store the secret again.",
)
STOPPING = ProblemType(
    "stopping",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "This process is stopping",
    "Only `/readyz` returns this problem. The API process received a signal to stop and still "
    "serves requests. Send new requests to another API process.",
)
STORAGE_UNAVAILABLE = ProblemType(
    "storage-unavailable",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Redis is unavailable",
    "Redis does not answer, is full, rejects writes, or denies access. Try again after the time in "
    "`Retry-After`.",
)

CATALOGUE = (
    MALFORMED,
    UNAUTHORIZED,
    FORBIDDEN,
    TOO_MANY_FAILURES,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    CONFLICT,
    INTEGRATION_EXISTS,
    CREDENTIAL_IN_USE,
    LIMIT_REACHED,
    REQUEST_RUNNING,
    IDEMPOTENCY_MISMATCH,
    PRECONDITION_FAILED,
    PRECONDITION_REQUIRED,
    REQUEST_TIMEOUT,
    TOO_LARGE,
    URI_TOO_LONG,
    UNSUPPORTED_MEDIA_TYPE,
    VALIDATION,
    HEADERS_TOO_LARGE,
    CURSOR_EXPIRED,
    EVENT_EXPIRED,
    TOO_MANY_LISTENERS,
    OVERLOADED,
    INTERNAL,
    SECRET_UNREADABLE,
    STOPPING,
    STORAGE_UNAVAILABLE,
)
