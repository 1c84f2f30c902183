"""The faults that can be injected, and the requests that they strike; the endpoint carries them
out. A fault acts at one of three stages: it replaces the response, it changes the page or the next
cursor, or it changes the transmission of the response. Faults of different kinds combine; of two
that replace the response, the one added first wins.
"""

from __future__ import annotations

import random
import zlib
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from service.sandbox.content import Course

Share = Annotated[float, Meta(ge=0, le=1)]
Status = Annotated[int, Meta(ge=200, le=599)]
Scope = Literal["any", "walk", "first", "later", "ids"]

RECORD_FIELDS: Final = Course.__struct_fields__
"""The top level fields of a record."""


class Fault(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True
):
    """The common part of all faults: the requests that they strike, and how often.

    `upstream_id` limits a fault to one integration. `on` limits it to requests without `ids` and
    `remote_ids` (`walk`), to the first page of such a poll (`first`), to the pages after it
    (`later`), or to requests for given ids (`ids`). Of the matching requests `probability` are
    struck, until `times` were; without `times`, until the fault is removed.
    """

    upstream_id: str | None = None
    on: Scope = "any"
    times: Annotated[int, Meta(ge=1)] | None = None
    probability: Annotated[float, Meta(gt=0, le=1)] = 1.0


class ErrorFault(Fault, frozen=True, kw_only=True, tag="error"):
    """An error response. The status defaults to that of `code`."""

    code: str | None = "PLATFORM.UNKNOWN_ERROR"
    status: Status | None = None
    message: str = "Injected by the sandbox."
    retry_after: Annotated[int, Meta(ge=0)] | None = None
    """Seconds, for the `Retry-After` header."""


class HtmlFault(Fault, frozen=True, kw_only=True, tag="html"):
    """A load balancer's page in place of the API's response."""

    status: Status = 502


class DelayFault(Fault, frozen=True, kw_only=True, tag="delay"):
    """The response comes `seconds` late."""

    seconds: Annotated[float, Meta(ge=0, le=3600)]


class DropFault(Fault, frozen=True, kw_only=True, tag="drop"):
    """The connection closes after this share of the body."""

    after: Share = 0.5


class TruncateFault(Fault, frozen=True, kw_only=True, tag="truncate"):
    """The body ends after this share, and the response declares it as complete."""

    after: Share = 0.5


class EmptyFault(Fault, frozen=True, kw_only=True, tag="empty"):
    """A success without records and without a next page."""


class EndEarlyFault(Fault, frozen=True, kw_only=True, tag="end_early"):
    """The page declares itself the last one."""


class VanishFault(Fault, frozen=True, kw_only=True, tag="vanish"):
    """Some courses are missing from the response: `course_ids`, and this share of all others
    (always the same ones)."""

    share: Share = 0.0
    course_ids: frozenset[str] = frozenset()

    def hides(self, course_id: str) -> bool:
        """Whether the course is missing."""
        return _is_chosen(course_id, self.course_ids, self.share)


class ShiftFault(Fault, frozen=True, kw_only=True, tag="shift"):
    """The page begins `by` records after its cursor's position, so that these are skipped, or
    earlier for a negative `by`, so that these are repeated: the rows before it changed while a
    client was paging by offset. Meant for `on: later`.
    """

    by: int


class RepeatCursorFault(Fault, frozen=True, kw_only=True, tag="repeat_cursor"):
    """The next page is the same page again, under its own cursor; after a first page it is the
    first page again."""


class EndlessFault(Fault, frozen=True, kw_only=True, tag="endless"):
    """After the last page the first one follows, under new cursors: paging never ends."""


class WrongTypesFault(Fault, frozen=True, kw_only=True, tag="wrong_types"):
    """Values of a wrong type.

    With `where: records` the top level field `path` is a string where a list or an object belongs,
    and a number where a string does, in `course_ids` and in this share of all other records (always
    the same ones). With `where: page` the page's `results` is an object.
    """

    where: Literal["records", "page"] = "records"
    share: Share = 1.0
    course_ids: frozenset[str] = frozenset()
    path: str = "revisions"

    def __post_init__(self) -> None:
        """Refuse a field that no record has."""
        if self.path not in RECORD_FIELDS:
            raise ValueError(f"path: must be one of {', '.join(RECORD_FIELDS)}")

    def spoils(self, course_id: str) -> bool:
        """Whether the record of the course is one of those with a wrong type."""
        return self.where == "records" and _is_chosen(course_id, self.course_ids, self.share)


class DripFault(Fault, frozen=True, kw_only=True, tag="drip"):
    """The body comes slowly, in at most some twenty pieces a second."""

    bytes_per_second: Annotated[float, Meta(gt=0)]


class BombFault(Fault, frozen=True, kw_only=True, tag="bomb"):
    """The response is gzip, a kilobyte for each MB of its content: the beginning of a page, and
    blanks."""

    megabytes: Annotated[int, Meta(ge=1, le=1024)] = 256


class BloatFault(Fault, frozen=True, kw_only=True, tag="bloat"):
    """Blanks follow the body, up to this many MB in all."""

    megabytes: Annotated[int, Meta(ge=1, le=4096)] = 80


def _is_chosen(course_id: str, course_ids: frozenset[str], share: float) -> bool:
    return course_id in course_ids or zlib.crc32(course_id.encode()) < share * 2**32


AnyFault = (
    ErrorFault
    | HtmlFault
    | DelayFault
    | DropFault
    | TruncateFault
    | EmptyFault
    | EndEarlyFault
    | VanishFault
    | ShiftFault
    | RepeatCursorFault
    | EndlessFault
    | WrongTypesFault
    | DripFault
    | BombFault
    | BloatFault
)


class Target(msgspec.Struct, frozen=True):
    """The parts of a request that decide whether a fault strikes it."""

    upstream_id: str | None
    has_cursor: bool
    has_ids: bool


class ActiveFault(msgspec.Struct):
    """A fault with its number, and how often it has struck and still will."""

    id: int
    struck: int
    remaining: int | None
    fault: AnyFault


class FaultBoard:
    """The faults in force."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._active: list[ActiveFault] = []
        self._count = 0

    def add(self, fault: AnyFault) -> ActiveFault:
        """Put a fault in force."""
        self._count += 1
        active = ActiveFault(self._count, 0, fault.times, fault)
        self._active.append(active)
        return active

    def active(self) -> list[ActiveFault]:
        """The faults that can still strike, in the order they were added."""
        return list(self._active)

    def remove(self, fault_id: int) -> bool:
        """End one fault. False if it is not in force."""
        before = len(self._active)
        self._active = [active for active in self._active if active.id != fault_id]
        return len(self._active) < before

    def clear(self) -> None:
        """End all faults."""
        self._active.clear()

    def draw(self, target: Target) -> list[AnyFault]:
        """The faults that strike this request; each is counted as having struck."""
        struck = []
        for active in self._active:
            fault = active.fault
            if not _matches(fault, target) or self._random.random() >= fault.probability:
                continue
            active.struck += 1
            if active.remaining is not None:
                active.remaining -= 1
            struck.append(fault)
        self._active = [active for active in self._active if active.remaining != 0]
        return struck


def _matches(fault: Fault, target: Target) -> bool:
    if fault.upstream_id not in {None, target.upstream_id}:
        return False
    match fault.on:
        case "any":
            return True
        case "ids":
            return target.has_ids
        case "walk":
            return not target.has_ids
        case "first":
            return not target.has_ids and not target.has_cursor
        case "later":
            return not target.has_ids and target.has_cursor
