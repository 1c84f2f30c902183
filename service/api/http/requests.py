"""Parses requests: JSON bodies, queries and headers, as the structs that handlers name."""

from __future__ import annotations

import codecs
from collections.abc import Generator, Mapping
from typing import Annotated, Any, cast
from urllib.parse import unquote_to_bytes

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.dto import AbstractDTO
from litestar.dto.data_structures import DTOFieldDefinition
from litestar.exceptions import ClientException, HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.spec import Reference
from litestar.params import FromPath
from litestar.plugins import SerializationPlugin
from litestar.status_codes import HTTP_415_UNSUPPORTED_MEDIA_TYPE
from litestar.typing import FieldDefinition
from msgspec import UNSET, Meta, UnsetType

from service.api.fields import samples
from service.api.fields.kinds import any_text, cursor, means, number_in_text
from service.api.fields.readers import Fields, fields_of, read_fields, read_query
from service.api.fields.refusals import FieldError, InvalidRequestError, Refusal, Refusals
from service.api.http import cursors
from service.bootstrap import Services
from service.domain.courses.received import LONGEST_ID_BYTES
from service.storage.redis.paging import IndexPosition
from service.storage.redis.scans import ScanCursor

AnyRequest = Request[Any, Any, State]
GivenServices = NamedDependency[Services]
GivenRefusals = NamedDependency[Refusals]
PathId = FromPath[str]

MAX_BODY_BYTES = 1_048_576
PAGE_SIZE = 50
MAX_PAGE_SIZE = 500
# The dependencies that hold the query and the headers of a request, as the struct that a handler
# names in its signature.
PARAMS = "params"  # of the query
SENT_HEADERS = "sent_headers"
_REFUSALS = "refusals"
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_IDENTITY = "identity"
_UNENCODED = frozenset({"", _IDENTITY})

_BEFORE = means("`next` of the previous response")
IndexCursor = Annotated[IndexPosition, cursor(cursors.read_index, "list")]
LogCursor = Annotated[str, cursor(cursors.read_log, "log")]
StartCursor = Annotated[str, cursor(cursors.read_start, "log")]
ScanPlace = Annotated[ScanCursor, cursor(cursors.read_scan, "scan")]
CourseId = Annotated[str, any_text(LONGEST_ID_BYTES), Meta(examples=[samples.COURSE])]


Limit = Annotated[
    int,
    number_in_text(1, MAX_PAGE_SIZE),
    means(f"the maximum number of items, {PAGE_SIZE} if left out"),
]


class IndexQuery(Fields, kw_only=True, frozen=True):
    """The query of a list whose cursors are positions in an index."""

    limit: Limit = PAGE_SIZE
    after: Annotated[IndexCursor | UnsetType, _BEFORE] = UNSET


class LogQuery(Fields, kw_only=True, frozen=True):
    """The query of a list whose cursors are positions in a log."""

    limit: Limit = PAGE_SIZE
    after: Annotated[LogCursor | UnsetType, _BEFORE] = UNSET


class ScanQuery(Fields, kw_only=True, frozen=True):
    """The query of a list whose cursors are positions in a scan."""

    limit: Limit = PAGE_SIZE
    after: Annotated[ScanPlace | UnsetType, _BEFORE] = UNSET


class FieldByField(AbstractDTO[Fields]):
    """Reads the JSON object in a body as the struct of a handler's `data`."""

    def decode_bytes(self, value: bytes) -> Fields:
        """The struct. Raises HTTPException or InvalidRequestError."""
        try:
            document = msgspec.json.decode(without_mark(value))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ClientException(f"the body is not valid JSON: {error}") from None
        if not isinstance(document, dict):
            raise ClientException("the body must be a JSON object")
        request = cast("AnyRequest", self.asgi_connection)
        data, errors = read_fields(body_of(_handler(request)), document)
        _note(request, document, errors)
        return data

    @classmethod
    def create_for_field_definition(cls, *_given: Any, **_more: Any) -> None:
        """A handler needs no generated DTO, because the struct declares everything."""

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Reference:
        """The document adds the struct's schema under its name."""
        return Reference(ref=f"#/components/schemas/{field_definition.annotation.__name__}")

    @classmethod
    def generate_field_definitions(
        cls, model_type: type[Any]
    ) -> Generator[DTOFieldDefinition, None, None]:
        """None: the framework's own reading of bodies is not used."""
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        """The framework's own reading of nested fields is not used."""
        return False


class JsonBodies(SerializationPlugin):
    """Makes `FieldByField` read every `data` that is a struct of fields."""

    def supports_type(self, field_definition: FieldDefinition) -> bool:
        """Whether `data` is a struct of fields."""
        return field_definition.is_subclass_of(Fields)

    def create_dto_for_type(self, field_definition: FieldDefinition) -> type[AbstractDTO[Any]]:
        """The reader of `data`."""
        return FieldByField


def body_of(handler: HTTPRouteHandler) -> type[Fields]:
    """The struct of a handler's body."""
    field = handler.parsed_data_field
    assert field is not None  # noqa: S101 - asked of handlers that take one
    return cast("type[Fields]", field.annotation)


def struct_of(handler: HTTPRouteHandler, dependency: str) -> type[Fields]:
    """The struct that a handler names for a dependency."""
    return cast("type[Fields]", handler.parsed_fn_signature.parameters[dependency].annotation)


async def check_json(request: AnyRequest) -> None:
    """Raises HTTPException unless the request declares a body, if the handler takes one, as JSON in
    UTF-8."""
    field = _handler(request).parsed_data_field
    if field is None:
        return
    body = await request.body()
    if body or not field.has_default:
        _check_encoding(request)
    if not body and not field.has_default:
        raise ClientException("the body is not valid JSON: Input data was truncated")


# They depend on `services`, so that the framework provides them one after the other: it provides
# independent ones in tasks, which take longer than the reading itself.


async def provide_params(request: AnyRequest, services: GivenServices) -> Fields:
    """The query, as the struct that the handler names."""
    sent = request.query_params.dict()
    params, errors = read_query(struct_of(_handler(request), PARAMS), sent)
    _note(request, sent, errors)
    return params


async def provide_sent_headers(request: AnyRequest, services: GivenServices) -> Fields:
    """Headers, as the struct that the handler names. Omitted ones are UNSET, even required ones."""
    of = struct_of(_handler(request), SENT_HEADERS)
    values: dict[str, Any] = {}
    for name, field in fields_of(of).items():
        sent = request.headers.getall(name, None)
        try:
            values[field.attribute] = UNSET if sent is None else field.reader.read(", ".join(sent))
        except Refusal as refusal:
            raise InvalidRequestError(refusal.below(name)) from None
    return of(**values)


async def provide_refusals(request: AnyRequest, services: GivenServices) -> Refusals:
    """The errors found so far."""
    refusals: Refusals = request.scope["state"].setdefault(_REFUSALS, Refusals())
    return refusals


async def provide_services(state: State) -> Services:
    """The services of this process."""
    services: Services = state.services
    return services


def _handler(request: AnyRequest) -> HTTPRouteHandler:
    return cast("HTTPRouteHandler", request.scope["route_handler"])


def _note(request: AnyRequest, sent: Mapping[str, Any], errors: list[FieldError]) -> None:
    """Keeps the errors for a handler that may add to them; raises them otherwise."""
    refusals = Refusals(sent, errors)
    if _REFUSALS in _handler(request).parsed_fn_signature.parameters:
        request.scope["state"][_REFUSALS] = refusals
    else:
        refusals.settle()


def rest_of_path(request: AnyRequest, before: str, decoded: str) -> str:
    """The last parameter of a path as it was sent: the percent-decoded text after `before`.

    The router's own value has lost double slashes and those at the ends. `decoded` is used if the
    server does not report the raw path, or it is not UTF-8.
    """
    raw = request.scope.get("raw_path", b"")
    _, found, rest = raw.partition(before.encode())
    if not found:
        return decoded.removeprefix("/")
    try:
        return unquote_to_bytes(rest).decode()
    except UnicodeDecodeError:
        return decoded.removeprefix("/")


def without_mark(body: bytes) -> bytes:
    """A body without the byte order mark that some clients write before UTF-8."""
    return body.removeprefix(codecs.BOM_UTF8)


def _check_encoding(request: AnyRequest) -> None:
    """Raises HTTPException unless a body is declared as JSON in UTF-8 without a coding."""
    sent = request.headers.get("content-type", "")
    media_type, *parameters = (part.strip().lower() for part in sent.split(";"))
    if media_type != "application/json":
        found = f"not {media_type[:100]!r}" if media_type else "the request has no Content-Type"
        raise _unsupported(f"send a JSON object with `Content-Type: application/json`; {found}")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        charset = value.strip().strip("\"'")
        if name.strip() == "charset" and charset not in _CHARSETS:
            raise _unsupported(f"send the body in UTF-8, not with the charset {charset[:100]!r}")
    codings = request.headers.get("content-encoding", "").strip().lower()
    if codings not in _UNENCODED:
        raise _unsupported(
            f"send the body without `Content-Encoding: {codings[:100]}`",
            {"accept-encoding": _IDENTITY},
        )


def _unsupported(detail: str, headers: dict[str, str] | None = None) -> HTTPException:
    return HTTPException(detail, status_code=HTTP_415_UNSUPPORTED_MEDIA_TYPE, headers=headers)
