"""The query of a request for courses: the endpoint's parameters, validated, with its cursors. If
the endpoint's description is ambiguous, the stricter reading applies, so that a client which works
here works there:

- a parameter that the endpoint does not have, or one that is given twice, is refused;
- `updated_after` is exclusive, and a time without `Z` is UTC;
- an empty entry of `ids` or `remote_ids` matches nothing, so `ids=` matches nothing at all;
- a cursor is good only with the integration and the filters it was issued for; `page_size`
  may change from page to page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import struct
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec

MAX_PAGE_SIZE: Final = 250
DEFAULT_PAGE_SIZE: Final = 100
_PARAMETERS: Final = (
    "cursor", "page_size", "updated_after", "include_deleted", "ignore_unsupported_filters",
    "ids", "remote_ids",
)  # fmt: skip
_TIME = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:T(\d{2}):(\d{2}):(\d{2})(?:\.(\d+))?)?Z?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAC_LENGTH = 20
_POSITION = struct.Struct(">II")


class InvalidInputError(ValueError):
    """A parameter cannot be accepted; the message names it and the accepted values."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of one request. `updated_after` is in ms since 1970."""

    cursor: str | None = None
    page_size: int = DEFAULT_PAGE_SIZE
    updated_after: int | None = None
    include_deleted: bool = False
    ignore_unsupported_filters: bool = False
    ids: frozenset[str] | None = None
    remote_ids: frozenset[str] | None = None


def read_parameters(query_string: str) -> dict[str, str]:
    """The parameters of a query string, unconverted. Raises InvalidInputError for a parameter that
    is unknown or repeated."""
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query_string, keep_blank_values=True):
        if name not in _PARAMETERS:
            raise InvalidInputError(f"query.{name}: unknown parameter")
        if name in parameters:
            raise InvalidInputError(f"query.{name}: given more than once")
        parameters[name] = value
    return parameters


def parse_query(parameters: dict[str, str]) -> Query:
    """The query in `parameters`. Raises InvalidInputError."""
    return Query(
        cursor=parameters.get("cursor"),
        page_size=_page_size(parameters.get("page_size")),
        updated_after=_time(parameters.get("updated_after")),
        include_deleted=_boolean("include_deleted", parameters),
        ignore_unsupported_filters=_boolean("ignore_unsupported_filters", parameters),
        ids=_list(parameters.get("ids")),
        remote_ids=_list(parameters.get("remote_ids")),
    )


def _page_size(text: str | None) -> int:
    if text is None:
        return DEFAULT_PAGE_SIZE
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_PAGE_SIZE:
        raise InvalidInputError(f"query.page_size: must be an integer from 1 to {MAX_PAGE_SIZE}")
    return int(text)


def _time(text: str | None) -> int | None:
    if text is None:
        return None
    written = _TIME.fullmatch(text)
    if written is None:
        raise InvalidInputError("query.updated_after: must be like YYYY-MM-DDTHH:mm:ss.sssZ")
    *parts, fraction = written.groups()
    year, month, day, hour, minute, second = (int(part or 0) for part in parts)
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise InvalidInputError(f"query.updated_after: no such time: {error}") from error
    # Times of records are whole ms, so cutting off the rest loses nothing.
    return (moment - _EPOCH).days * 86_400_000 + (
        (moment - _EPOCH).seconds * 1000 + int(((fraction or "") + "000")[:3])
    )


def _boolean(name: str, parameters: dict[str, str]) -> bool:
    text = parameters.get(name, "false")
    if text not in {"true", "false"}:
        raise InvalidInputError(f"query.{name}: must be 'true' or 'false'")
    return text == "true"


def _list(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(text.split(","))


class PagePosition(NamedTuple):
    """The start of a page: after the record at position `after`, -1 for the beginning.

    `lap` counts how often paging restarted after the last page, which only a fault causes.
    """

    after: int = -1
    lap: int = 0


class Cursors:
    """Issues and reads cursors that cannot be forged.

    Identity: a cursor is the position where its page begins, with a keyed digest of that position,
    the integration and the filters. Two polls with the same filters at the same position therefore
    share a cursor.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, position: PagePosition, upstream_id: str, query: Query) -> str:
        """The cursor for the page at `position`. Like the upstream's own it is standard base64
        with padding, so a client has to percent-encode it.
        """
        packed = _POSITION.pack(position.lap, position.after + 1)
        return base64.b64encode(packed + self._mac(packed, upstream_id, query)).decode("ascii")

    def read(self, cursor: str, upstream_id: str, query: Query) -> PagePosition:
        """The position in `cursor`. Raises InvalidInputError for one that was tampered with, or
        was issued for another integration or with other filters.
        """
        refusal = "query.cursor: not a cursor of this integration with these filters"
        try:
            token = base64.b64decode(cursor, validate=True)
        except (ValueError, binascii.Error) as error:
            raise InvalidInputError(refusal) from error
        packed, mac = token[: _POSITION.size], token[_POSITION.size :]
        if not hmac.compare_digest(mac, self._mac(packed, upstream_id, query)):
            raise InvalidInputError(refusal)
        if base64.b64encode(token).decode("ascii") != cursor:
            raise InvalidInputError(refusal)
        lap, begin = _POSITION.unpack(packed)
        return PagePosition(begin - 1, lap)

    def _mac(self, packed: bytes, upstream_id: str, query: Query) -> bytes:
        filters = (
            query.updated_after,
            query.include_deleted,
            query.ignore_unsupported_filters,
            None if query.ids is None else sorted(query.ids),
            None if query.remote_ids is None else sorted(query.remote_ids),
        )
        text = msgspec.json.encode((upstream_id, filters))
        return hashlib.blake2b(packed + text, digest_size=_MAC_LENGTH, key=self._secret).digest()
