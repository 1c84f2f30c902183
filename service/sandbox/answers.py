"""The bodies and headers of the endpoint's responses."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any, Final

import msgspec

from service.sandbox.rate import Allowance

LOG_URL: Final = "https://logs.sandbox.example/interactions/"

_KNOWN: Final[dict[str, tuple[int, str]]] = {
    "PLATFORM.AUTHENTICATION_INVALID": (401, "The API key is not valid."),
    "PLATFORM.IP_NOT_WHITELISTED": (403, "This address may not use the API."),
    "PLATFORM.INTEGRATION_NOT_FOUND": (404, "There is no such integration."),
    "PLATFORM.INPUT_INVALID": (400, "The request is not valid."),
    "PLATFORM.RATE_LIMIT_EXCEEDED": (429, "Too many requests."),
    "PLATFORM.CONCURRENCY_LIMIT_EXCEEDED": (429, "Too many requests at the same time."),
    "PLATFORM.TASK_TIMED_OUT": (504, "The request took too long."),
    "PLATFORM.UNKNOWN_ERROR": (500, "Something went wrong."),
    "REMOTE.RATE_LIMIT_EXCEEDED": (429, "The connected system limits requests."),
    "REMOTE.SERVICE_UNAVAILABLE": (503, "The connected system is not available."),
    "INTEGRATION.SETUP_INCOMPLETE": (409, "The integration is not set up."),
    "INTEGRATION.SETUP_SYNC_PENDING": (409, "The first sync is not finished."),
    "INTEGRATION.QA_FAILED": (409, "The integration did not pass its checks."),
    "INTEGRATION.MODEL_NOT_AVAILABLE": (400, "The integration has no such model."),
}


class ErrorDetail(msgspec.Struct, frozen=True):
    """The `error` of an error response."""

    code: str | None
    title: str | None
    message: str
    log_url: str | None


class _Identified(msgspec.Struct, frozen=True):
    id: Any


_CONTAINERS: Final = frozenset(
    {"remote_data", "custom_fields", "integration_fields", "provider", "revisions"}
)
"""The fields of a record that are lists or objects."""


class _ErrorBody(msgspec.Struct, frozen=True, tag_field="status", tag="error"):
    error: ErrorDetail


def status_of(code: str | None) -> int:
    """The HTTP status of an error code; 500 for an unknown code."""
    return _KNOWN.get(code or "", (500, ""))[0]


def error_body(code: str | None, message: str, interaction: int) -> bytes:
    """An error response; `interaction` is the number of the request in the log of requests."""
    title = _KNOWN[code][1] if code in _KNOWN else None
    return msgspec.json.encode(
        _ErrorBody(ErrorDetail(code, title, message, f"{LOG_URL}{interaction}"))
    )


def page_body(records: list[bytes], next_cursor: str | None) -> bytes:
    """One page of encoded records."""
    cursor = msgspec.json.encode(next_cursor)
    results = b",".join(records)
    return b'{"status":"success","data":{"next":%b,"results":[%b]}}' % (cursor, results)


def page_with_object(records: list[bytes], next_cursor: str | None) -> bytes:
    """A page whose `results` is an object, its records under their numbers."""
    cursor = msgspec.json.encode(next_cursor)
    results = b",".join(b'"%d":%b' % entry for entry in enumerate(records))
    return b'{"status":"success","data":{"next":%b,"results":{%b}}}' % (cursor, results)


_decode_id = msgspec.json.Decoder(_Identified).decode


def record_id(record: bytes) -> str:
    """The `id` of an encoded record; empty if it is not a string."""
    found = _decode_id(record).id
    return found if isinstance(found, str) else ""


def with_wrong_type(record: bytes, field: str) -> bytes:
    """An encoded record whose `field` has a wrong type: a string in place of a list or an object, a
    number in place of a string."""
    value: int | str = "not of this type" if field in _CONTAINERS else 42
    return msgspec.json.encode(msgspec.json.decode(record, type=dict[str, Any]) | {field: value})


HTML_BODY: Final = (
    b"<!DOCTYPE html>\n<html><head><title>Bad gateway</title></head>\n"
    b"<body><center><h1>Bad gateway</h1></center><hr></body></html>\n"
)
"""A load balancer's response in place of the API's."""


def date_header(now: int) -> str:
    """The `Date` of a response at `now` (ms)."""
    return formatdate(now / 1000, usegmt=True)


def rate_headers(allowance: Allowance) -> dict[str, str]:
    """The `ratelimit-*` headers, and `Retry-After` if the budget is spent."""
    headers = {
        "ratelimit-limit": str(allowance.limit),
        "ratelimit-remaining": str(allowance.remaining),
        "ratelimit-reset": str(allowance.reset_seconds),
    }
    if not allowance.granted:
        headers["retry-after"] = str(allowance.reset_seconds)
    return headers
