"""ETags of what can be edited, and requests that hold only for what was shown with one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import msgspec

from service.api.forms import Field, Table
from service.api.parsers import text
from service.api.requests import AnyRequest
from service.domain.errors import PreconditionFailedError

IF_MATCH = "If-Match"
_LENGTH = 32  # hex digits
_TAG = re.compile(r'(?:W/)?"[^"]*"')

HEADERS: Table = {
    IF_MATCH: Field(
        parser=text(1_000),
        meaning="the ETag with which it was shown: if it has changed since, nothing is done; left "
        "out, or *, it is done however it is now",
    )
}


def etag(record: msgspec.Struct) -> str:
    """The ETag of a record: of everything that edits change, and of nothing that counts."""
    return f'"{hashlib.sha256(msgspec.json.encode(record)).hexdigest()[:_LENGTH]}"'


def tagged(record: msgspec.Struct) -> dict[str, str]:
    """The header that shows a record's ETag."""
    return {"etag": etag(record)}


def precondition(request: AnyRequest) -> Callable[[msgspec.Struct], None]:
    """What a request asks of the record that it changes.

    It raises PreconditionFailedError. The stores call it with the record that their script then
    finds unchanged, so nothing comes in between.
    """
    sent = request.headers.get(IF_MATCH)
    wanted = None if sent is None or sent.strip() == "*" else _TAG.findall(sent)

    def check(record: msgspec.Struct) -> None:
        if wanted is not None and etag(record) not in wanted:
            raise PreconditionFailedError(
                "it has changed since it was shown with that ETag; look at it again"
            )

    return check
