"""Pages of filtered lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Protocol, TypeVar

from msgspec import UNSET, Meta, UnsetType

from service.api.fields.kinds import MAX_LABELS, means, text
from service.api.fields.refusals import Refusal
from service.api.http.requests import IndexQuery
from service.domain.delivery.subscription import Subscription
from service.domain.polling.integration import Integration
from service.storage.redis.paging import IndexPosition

READ_AT_ONCE = 500
MAX_EXAMINED = 10_000  # items that a filtered page looks through
_MAX_LABEL = 64 + 1 + 256  # characters of a name, the sign and a value

Item = TypeVar("Item", Integration, Subscription)
Place = IndexPosition | None


class ReadPage(Protocol[Item]):
    """Reads those of the next `limit` items that may be wanted, and returns the next position."""

    def __call__(self, limit: int, after: Place, /) -> Awaitable[tuple[list[Item], Place]]:
        """The items, and None after the last one."""
        ...


async def page_through(
    read: ReadPage[Item],
    takes: Callable[[Item], bool],
    limit: int,
    after: Place,
) -> tuple[list[Item], Place]:
    """At most `limit` items that `takes` accepts, and the next position. It looks through a
    bounded part of the list, so there may be fewer items, or none, although more follow."""
    found: list[Item] = []
    examined = 0
    while True:
        page, after = await read(READ_AT_ONCE, after)
        found += filter(takes, page)
        if len(found) > limit:
            last = found[limit - 1]
            return found[:limit], IndexPosition(last.created_at, last.id)
        examined += READ_AT_ONCE
        if after is None or examined >= MAX_EXAMINED:
            return found, after


def has_labels(labels: Mapping[str, str] | None, wanted: Sequence[tuple[str, str]]) -> bool:
    """Whether all requested labels are present."""
    return all((labels or {}).get(name) == value for name, value in wanted)


def is_named(name: str | None, *texts: str | None) -> bool:
    """Whether one of the texts contains the requested part of a name."""
    return name is None or any(name.casefold() in (one or "").casefold() for one in texts)


def _read_labels(values: list[str]) -> tuple[tuple[str, str], ...]:
    if len(values) > MAX_LABELS:
        raise Refusal(f"is given {len(values)} times", f"give it at most {MAX_LABELS} times")
    return tuple(_read_label(value) for value in values)


def _read_label(value: str) -> tuple[str, str]:
    name, sign, content = value.partition("=")
    if not name or not sign or len(value) > _MAX_LABEL:
        raise Refusal("is not a label", "send it as NAME=VALUE, for example region=eu")
    return name, content


_LABELS = {
    "type": "array",
    "items": {"type": "string", "pattern": "^[^=]+=", "maxLength": _MAX_LABEL},
    "minItems": 1,
    "maxItems": MAX_LABELS,
}


class ListQuery(IndexQuery, frozen=True, kw_only=True):
    """The query of a list that is filtered by labels, besides the list's own query."""

    label: Annotated[
        Annotated[
            tuple[tuple[str, str], ...],
            Meta(extra={"read": _read_labels}, extra_json_schema=_LABELS),
        ]
        | UnsetType,
        means("NAME=VALUE: only those with this label; if repeated, with all of these labels"),
    ] = UNSET


STATES = means("only those in one of these states, separated by commas or given repeatedly")


def named(in_what: str) -> Meta:
    """The meaning of a filter by name."""
    return means(f"only those with this text in {in_what}, in upper or lower case")


NamePart = Annotated[str, text(200)]
