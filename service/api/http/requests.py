"""Takes requests apart: JSON bodies, queries, and what handlers are given with them."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.exceptions import ClientException, HTTPException
from litestar.params import FromPath
from litestar.status_codes import HTTP_415_UNSUPPORTED_MEDIA_TYPE

from service.api.http import cursors
from service.api.schema.field_types import any_text, cursor, number_in_text, once
from service.api.schema.form import Field, Form, Table
from service.bootstrap import Services
from service.domain.courses.received import LONGEST_ID_BYTES

AnyRequest = Request[Any, Any, State]
Document = NamedDependency[dict[str, Any]]  # the JSON object in the body
GivenServices = NamedDependency[Services]
PathId = FromPath[str]

MAX_BODY_BYTES = 1_048_576
PAGE_SIZE = 50
_CURSORS: dict[Callable[[str], Any], str] = {  # of which list
    cursors.read_index: "list",
    cursors.read_scan: "scan",
    cursors.read_log: "log",
    cursors.read_start: "log",
}
MAX_PAGE_SIZE = 500
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_IDENTITY = "identity"
_UNENCODED = frozenset({"", _IDENTITY})


def page_table(**filters: Field) -> Table:
    """The query of a list whose cursors are places in an index."""
    return {**filters, "limit": LIMIT, "after": after(cursors.read_index)}


LIMIT = Field(
    parser=once(number_in_text(1, MAX_PAGE_SIZE)),
    meaning=f"how many items at most, {PAGE_SIZE} if left out",
)


COURSE_ID = Field(
    parser=once(any_text(LONGEST_ID_BYTES, "26vafvWSRmbhNcxJYqjCzuJg")),
    meaning="only this course, whatever characters its id has",
)


def after(read: Callable[[str], Any]) -> Field:
    """The query parameter that a list goes on from."""
    return Field(parser=once(cursor(read, _CURSORS[read])), meaning="`next` of the answer before")


def rest_of_path(request: AnyRequest, before: str, decoded: str) -> str:
    """A path's last parameter as it was sent: what stands behind `before`, percent-decoded.

    The router's own value has lost slashes at the ends and double ones. `decoded` is taken where
    the server does not say what was sent, or it is not UTF-8.
    """
    raw = request.scope.get("raw_path", b"")
    _, found, rest = raw.partition(before.encode())
    if not found:
        return decoded.removeprefix("/")
    try:
        return unquote_to_bytes(rest).decode()
    except UnicodeDecodeError:
        return decoded.removeprefix("/")


async def provide_services(state: State) -> Services:
    """The services of this process."""
    services: Services = state.services
    return services


async def provide_document(request: AnyRequest) -> dict[str, Any]:
    """The JSON object in a request's body. Raises HTTPException."""
    _check_encoding(request)
    try:
        document = msgspec.json.decode(without_mark(await request.body()))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClientException(f"the body is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise ClientException("the body must be a JSON object")
    return document


def without_mark(body: bytes) -> bytes:
    """A body without the byte order mark that some clients write before UTF-8."""
    return body.removeprefix(codecs.BOM_UTF8)


def _check_encoding(request: AnyRequest) -> None:
    """Raises HTTPException if a body is not said to be JSON in UTF-8 as it is."""
    sent = request.headers.get("content-type", "")
    media_type, *parameters = (part.strip().lower() for part in sent.split(";"))
    if media_type != "application/json":
        found = f"not {media_type[:100]!r}" if media_type else "the request names no type"
        raise _unsupported(f"send a JSON object with `Content-Type: application/json`; {found}")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        charset = value.strip().strip("\"'")
        if name.strip() == "charset" and charset not in _CHARSETS:
            raise _unsupported(f"send the body in UTF-8, not with the charset {charset[:100]!r}")
    codings = request.headers.get("content-encoding", "").strip().lower()
    if codings not in _UNENCODED:
        raise _unsupported(
            f"send the body as it is, not with `Content-Encoding: {codings[:100]}`",
            {"accept-encoding": _IDENTITY},
        )


def _unsupported(detail: str, headers: dict[str, str] | None = None) -> HTTPException:
    return HTTPException(detail, status_code=HTTP_415_UNSUPPORTED_MEDIA_TYPE, headers=headers)


async def document_or_empty(request: AnyRequest) -> dict[str, Any]:
    """The JSON object in a request's body; no body is an empty one. Raises HTTPException."""
    return await provide_document(request) if await request.body() else {}


def query_form(request: AnyRequest, table: Table) -> Form:
    """The query of a request, read by `table`."""
    sent: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        sent.setdefault(name, []).append(value)
    required = [name for name, field in table.items() if field.required]
    return Form(sent, table, required=required)
