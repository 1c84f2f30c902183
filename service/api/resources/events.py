"""`/v1/events`: the event log, for clients that pull."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from litestar import Controller, MediaType, Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from msgspec import UNSET, UnsetType

from service.api.access.authentication import GivenActor
from service.api.access.route_guards import READERS_AND_SUBSCRIBERS
from service.api.access.visible_events import VisibleEvents
from service.api.fields import samples
from service.api.fields.kinds import Moment, Several, identifier, means, number_in_text, one_of
from service.api.fields.readers import Fields
from service.api.fields.refusals import FieldError
from service.api.fields.views import Page, Timestamp, View
from service.api.http import cursors
from service.api.http.problem_types import CURSOR_EXPIRED, TOO_MANY_LISTENERS
from service.api.http.problems import PROBLEMS
from service.api.http.requests import (
    PAGE_SIZE,
    AnyRequest,
    CourseId,
    GivenServices,
    Limit,
    PathId,
    StartCursor,
)
from service.api.http.size_limits import only_head
from service.bootstrap import Services
from service.domain.access.grants import Actor, Grant
from service.domain.delivery.event_types import EVENT_TYPES
from service.domain.delivery.subscription import Format, Payload, Rendering
from service.domain.errors import NotFoundError
from service.domain.events.event import EventFilter, StoredEvent, is_shown, render
from service.domain.events.identifiers import position_before, position_order
from service.storage.events.event_log import ReadPosition, not_there

MAX_PAGE_BYTES = 8_388_608  # a page ends early rather than exceed this
MAX_WAIT_SECONDS = 60
LONGEST_WAIT_SECONDS = 50  # many proxies time out after 60


class EventView(View, frozen=True, kw_only=True):
    """An event, byte for byte as it is pushed in the format standard."""

    example: ClassVar = {
        "type": "course.updated",
        "timestamp": samples.AT,
        "data": {
            "schema_version": 1,
            "event_id": samples.EVENT,
            "integration_id": samples.INTEGRATION,
            "upstream_id": samples.UPSTREAM,
            "external_id": "tenant-42",
            "labels": {"region": "eu"},
            "course_id": samples.COURSE,
            "remote_id": "32",
            "origin_id": None,
            "sequence": 1795424001123,
            "previous_sequence": 1795300000007,
            "changed": ["provider", "revisions.title"],
            "reason": None,
            "evidence": None,
            "initial": False,
            "detected_by": "delta",
            "course_omitted": "thin",
        },
    }
    type: Annotated[str, means("the event type")]
    timestamp: Annotated[Timestamp, means("when the change was detected")]
    data: Annotated[dict[str, Any], means("the fields of the event; see the webhook of this type")]


class EventList(Page, frozen=True, kw_only=True):
    """A page of the event log.

    `next` is the cursor of the next page, and null at the end of the log. `cursor` is the position
    to store. Every page has a `cursor`, even the last one and an empty one, except with order=desc.
    """

    items: Annotated[list[EventView], means("the page")]
    cursor: Annotated[
        str | None,
        means("pass it as `after` at any later time to get newer events; null with order=desc"),
    ]
    example: ClassVar = {"items": [EventView.example], "next": None, "cursor": samples.CURSOR}


class RenderingQuery(Fields, frozen=True, kw_only=True):
    """The rendering of events."""

    payload: Annotated[
        Payload,
        means(
            "full: with the course (default); thin: without it, as in subscriptions with "
            "payload thin"
        ),
    ] = Payload.FULL

    @property
    def rendering(self) -> Rendering:
        """The requested rendering."""
        return Rendering((self.payload, Format.STANDARD))


class FilterQuery(RenderingQuery, frozen=True, kw_only=True):
    """The filter of events."""

    type: Annotated[
        Several[Annotated[str, one_of(EVENT_TYPES)]] | UnsetType,
        means("only events of these types, separated by commas or given repeatedly"),
    ] = UNSET
    integration_id: Annotated[
        Annotated[str, identifier("int")] | UnsetType, means("only events of this integration")
    ] = UNSET
    course_id: Annotated[CourseId | UnsetType, means("only events of this course")] = UNSET

    def wanted(self, grant: Grant | None) -> EventFilter:
        """The requested events that the grant includes."""
        return EventFilter(
            types=None if self.type is UNSET else frozenset(self.type),
            integration_id=self.integration_id or None,
            course_id=self.course_id or None,
            grant=grant,
        )


class EventQuery(FilterQuery, frozen=True, kw_only=True):
    """The part of the log, and the direction."""

    since: Annotated[
        Moment | UnsetType, means("only events that happened at this time or later")
    ] = UNSET
    until: Annotated[Moment | UnsetType, means("only events that happened before this time")] = (
        UNSET
    )

    order: Annotated[
        Literal["asc", "desc"],
        means("asc: the oldest first; desc: the newest first"),
    ] = "asc"
    limit: Limit = PAGE_SIZE
    after: Annotated[
        StartCursor | UnsetType,
        means(
            "`next` or `cursor` of an earlier response, or the id of the last event that you "
            "received; `latest`: the end of the log; if left out, from the oldest event that is "
            "kept. With order=desc, the page contains the events before this position; if left "
            "out, from the newest event"
        ),
    ] = UNSET
    wait: Annotated[
        Annotated[int, number_in_text(0, MAX_WAIT_SECONDS)] | UnsetType,
        means(
            "with order=asc: how many seconds to wait if no event matches yet, 0 if left out. A "
            f"request waits at most {LONGEST_WAIT_SECONDS} seconds, because many proxies time out "
            "after 60"
        ),
    ] = UNSET

    def check(self) -> Iterable[FieldError]:
        """Only new events can be waited for; a time must lie between both."""
        if self.order == "desc" and self.wait is not UNSET:
            yield FieldError("wait", "goes with order=asc only", "leave out one of them")
        if self.until is not UNSET and self.wait is not UNSET:
            yield FieldError("wait", "does not go with until", "leave out one of them")
        if self.since and self.until is not UNSET and self.until <= self.since:
            yield FieldError("until", "is not after since", "send a later time, or leave it out")

    @property
    def before_since(self) -> str | None:
        """The position before the first event, None if `since` was left out."""
        return position_before(self.since) if self.since else None

    @property
    def last(self) -> str | None:
        """The position of the last possible event, None if `until` was left out."""
        return None if self.until is UNSET else position_before(self.until)

    @property
    def end(self) -> str | None:
        """The position before which `desc` starts, None: the end of the log."""
        ends = [] if not self.after or self.after == cursors.LATEST else [self.after]
        if self.until is not UNSET:
            ends.append(f"{self.until}-0")
        return min(ends, key=position_order, default=None)


class EventController(Controller):
    """Reads the event log."""

    path = "/events"
    tags = ["Events"]  # noqa: RUF012 - Litestar reads it as it is

    @get(
        guards=[READERS_AND_SUBSCRIBERS],
        operation_id="listEvents",
        summary="Read the event log",
        responses={
            200: ResponseSpec(
                data_container=EventList,
                generate_examples=False,
                description="A page of the event log",
            )
        },
        opt={PROBLEMS: (CURSOR_EXPIRED, TOO_MANY_LISTENERS)},
    )
    async def index(
        self,
        params: NamedDependency[EventQuery],
        request: AnyRequest,
        services: GivenServices,
        actor: GivenActor,
    ) -> Response[bytes]:
        """Returns the oldest event first unless `order` is desc. Each event has the same bytes as a
        push in the format standard. To miss no event, store the `cursor` of each page and pass it
        as `after`. A filtered page can contain few events, or none, although `next` is not
        null."""
        filters = params.wanted(actor.grant)
        if params.order == "desc":
            events, before = await services.events.read_back(
                params.end, params.limit, filters, after=params.before_since
            )
            bodies, cut = _bodies(events, params.rendering)
            return _page(bodies, cut or before, None)
        wait = 0 if only_head(request.scope) else params.wait or 0
        events, read_to = await _follow(services, params, actor, wait)
        bodies, cut = _bodies(events, params.rendering)
        if cut is not None:
            read_to = ReadPosition(cut, more=True)
        return _page(bodies, read_to.position if read_to.more else None, read_to.position)

    @get(
        "/{event_id:str}",
        guards=[READERS_AND_SUBSCRIBERS],
        operation_id="showEvent",
        summary="Show an event",
        responses={
            200: ResponseSpec(
                data_container=EventView, generate_examples=False, description="The event"
            )
        },
    )
    async def show(
        self,
        event_id: PathId,
        params: NamedDependency[RenderingQuery],
        services: GivenServices,
        actor: GivenActor,
    ) -> Response[bytes]:
        """Returns the same bytes as a push in the format standard."""
        event = await services.events.get(event_id)
        if not is_shown(event, actor.grant):
            raise NotFoundError(not_there(event_id))
        return Response(render(event, params.rendering), media_type=MediaType.JSON)


async def starting_place(services: Services, read_to: str | None) -> str | None:
    """The position to start after; None: the oldest event."""
    if read_to != cursors.LATEST:
        return read_to
    end, _ = await services.events.bounds()
    return end


async def _later(services: Services, start: str | None, since: str) -> str | None:
    """The later of two positions; None, the oldest event, if events after `since` were trimmed."""
    if start is None:
        start = await services.events.trimmed()
        return since if position_order(since) > position_order(start) else None
    return max(start, since, key=position_order)


async def _follow(
    services: Services, params: EventQuery, actor: Actor, wait: int
) -> tuple[list[StoredEvent], ReadPosition]:
    """The page after `after`, once it has an event or the wait has ended."""
    limit, filters = params.limit, params.wanted(actor.grant)
    start = await starting_place(services, params.after or None)
    if (since := params.before_since) is not None:
        start = await _later(services, start, since)
    events, read_to = await services.events.read(start, limit, filters, last=params.last)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(wait, LONGEST_WAIT_SECONDS)
    if events or read_to.more or deadline <= loop.time():
        return events, read_to
    services.tail.check_room()
    visible = VisibleEvents(actor, services, filters)
    with services.tail.listen() as listener:
        while not listener.ended and (left := deadline - loop.time()) > 0:
            await listener.wait(read_to.position, left)
            still = await visible.filter()
            if still is None:
                break
            events, read_to = await services.tail.read(read_to.position, limit, still)
            if events or read_to.more:
                break
    return events, read_to


def _bodies(events: list[StoredEvent], rendering: Rendering) -> tuple[list[bytes], str | None]:
    """As many bodies as fit on a page, and the position of the last one if more follow."""
    bodies: list[bytes] = []
    size = 0
    for event in events:
        body = render(event, rendering)
        size += len(body)
        if bodies and size > MAX_PAGE_BYTES:
            return bodies, events[len(bodies) - 1].position
        bodies.append(body)
    return bodies, None


def _page(bodies: list[bytes], more: str | None, cursor: str | None) -> Response[bytes]:
    page = b'{"items":[%s],"next":%s,"cursor":%s}' % (
        b",".join(bodies),
        msgspec.json.encode(cursors.write_log(more)),
        msgspec.json.encode(cursors.write_log(cursor)),
    )
    return Response(page, media_type=MediaType.JSON)
