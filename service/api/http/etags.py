"""ETags of what can be edited, and requests that hold only for what was shown with one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import msgspec

from service.api.http.requests import AnyRequest
from service.api.schema.field_types import text
from service.api.schema.form import Field, Table
from service.domain.errors import PreconditionFailedError

IF_MATCH = "If-Match"
ANY = "*"
_LENGTH = 32  # hex digits
# A tag as proxies make it of ours when they compress: weak, with the coding behind it.
_TAG = re.compile(
    r"""(?:W/)? "? (?P<tag>[^"]*?)
        (?:[-;:]{1,2} (?:x-)? (?:gzip|br|zstd|deflate|compress|df))* "?""",
    re.IGNORECASE | re.VERBOSE,
)

HEADERS: Table = {
    IF_MATCH: Field(
        parser=text(1_000),
        meaning="the ETag with which it was shown: if it has changed since, nothing is done; left "
        "out, or *, it is done however it is now. `W/` before it and the name of a coding behind "
        'it, such as `"...-gzip"`, which proxies add, are ignored',
    )
}


def etag(record: msgspec.Struct) -> str:
    """The ETag of a record: of everything that edits change, and of nothing that counts."""
    return f'"{_digest(record)}"'


def tagged(record: msgspec.Struct) -> dict[str, str]:
    """The header that shows a record's ETag."""
    return {"etag": etag(record)}


def given_tags(request: AnyRequest) -> list[str] | None:
    """What `If-Match` names, without quotes and what proxies add; None if it is not sent."""
    sent = request.headers.getall(IF_MATCH, None)
    if sent is None:
        return None
    found = (_TAG.fullmatch(one.strip()) for value in sent for one in value.split(","))
    return [one["tag"] for one in found if one is not None]


def precondition(request: AnyRequest) -> Callable[[msgspec.Struct], None]:
    """What a request asks of the record that it changes.

    It raises PreconditionFailedError. The stores call it with the record that their script then
    finds unchanged, so nothing comes in between.
    """
    wanted = given_tags(request)

    def check(record: msgspec.Struct) -> None:
        if wanted is not None and ANY not in wanted and _digest(record) not in wanted:
            raise PreconditionFailedError(
                "it has changed since it was shown with that ETag; look at it again"
            )

    return check


def _digest(record: msgspec.Struct) -> str:
    return hashlib.sha256(msgspec.json.encode(record)).hexdigest()[:_LENGTH]
