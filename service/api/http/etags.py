"""ETags of resources, and requests that apply only to the version with a given ETag."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from msgspec import UNSET, Meta, UnsetType

from service.api.fields.kinds import means, text
from service.api.fields.readers import Fields
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


def read_tags(sent: str) -> str:
    """The tags in `If-Match`, without quotes and additions of proxies."""
    found = (_TAG.fullmatch(one.strip()) for one in sent.split(","))
    return ",".join(one["tag"] for one in found if one is not None)


class IfMatch(Fields, kw_only=True, frozen=True):
    """The condition of a change."""

    tags: Annotated[
        Annotated[str, text(1_000), Meta(extra={"read": read_tags})] | UnsetType,
        means(
            "the ETag of the response that the change is based on: if the resource has "
            "changed since, the request fails and changes nothing. Without this header, or "
            "with *, the request applies to the current state. A `W/` prefix and the name "
            'of a content coding at the end, such as `"...-gzip"`, are ignored, because '
            "proxies add them"
        ),
    ] = msgspec.field(default=UNSET, name=IF_MATCH)


GivenIfMatch = NamedDependency[IfMatch]


def etag(record: msgspec.Struct) -> str:
    """The ETag of a record: it covers everything that edits change, and no counters."""
    return f'"{_digest(record)}"'


def tagged(record: msgspec.Struct) -> dict[str, str]:
    """The ETag header of a record."""
    return {"etag": etag(record)}


def precondition(condition: IfMatch) -> Callable[[msgspec.Struct], None]:
    """The condition that a request puts on the record that it changes.

    It raises PreconditionFailedError. The stores call it with the record that their script then
    finds unchanged, so no other change comes in between.
    """
    wanted = None if condition.tags is UNSET else condition.tags.split(",")

    def check(record: msgspec.Struct) -> None:
        if wanted is not None and ANY not in wanted and _digest(record) not in wanted:
            raise PreconditionFailedError(
                "the resource has changed since that ETag was returned; get the resource again"
            )

    return check


def _digest(record: msgspec.Struct) -> str:
    return hashlib.sha256(msgspec.json.encode(record)).hexdigest()[:_LENGTH]
