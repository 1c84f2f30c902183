"""`/v1/events`: the event log, for those who would rather pull than be pushed to."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Controller, MediaType, Response, get
from litestar.openapi.datastructures import ResponseSpec

from service.api.access.authentication import FOR_SUBSCRIBERS, GivenActor
from service.api.access.visible_events import VisibleEvents
from service.api.http import cursors
from service.api.http.problems import CURSOR_EXPIRED, TOO_MANY_LISTENERS
from service.api.http.requests import (
    COURSE_ID,
    LIMIT,
    PAGE_SIZE,
    AnyRequest,
    GivenServices,
    PathId,
    after,
    query_form,
)
from service.api.http.size_limits import only_head
from service.api.schema.field_types import identifier, number_in_text, once, one_of, repeated
from service.api.schema.form import Field, Table
from service.api.schema.operations import problems, reads
from service.api.schema.schemas import EventList, EventView
from service.bootstrap import Services
from service.domain.access.grants import Actor, Grant
from service.domain.delivery.subscription import EVENT_TYPES, Format, Payload, Rendering
from service.domain.errors import NotFoundError
from service.domain.events.event import EventFilter, StoredEvent, is_shown, render
from service.storage.events.event_log import ReadPosition, not_there

MAX_PAGE_BYTES = 8_388_608  # a page ends early rather than grow beyond
MAX_WAIT_SECONDS = 60
LONGEST_WAIT_SECONDS = 50  # proxies give up on an answer after 60

FILTERS: Table = {
    "type": Field(
        parser=repeated(one_of(EVENT_TYPES)),
        meaning="only events of these types, separated by commas or given repeatedly",
    ),
    "integration_id": Field(
        parser=once(identifier("int")), meaning="only events of this integration"
    ),
    "course_id": msgspec.structs.replace(COURSE_ID, meaning="only events of this course"),
}
PAYLOAD = Field(
    parser=once(one_of(Payload)),
    meaning="full: with the course, if left out; thin: without it, as subscriptions may ask for",
)
QUERY: Table = {
    **FILTERS,
    "payload": PAYLOAD,
    "order": Field(
        parser=once(one_of(("asc", "desc"))),
        meaning="asc: the oldest first; desc: the newest first; asc if left out",
    ),
    "limit": LIMIT,
    "after": Field(
        parser=after(cursors.read_start).parser,
        meaning="`next` or `cursor` of an earlier answer, or the id of the last event seen; "
        "`latest`: the end of the log; if left out, from the oldest event that is kept. With "
        "desc the events before it follow",
    ),
    "wait": Field(
        parser=once(number_in_text(0, MAX_WAIT_SECONDS)),
        meaning="with asc: how many seconds to wait for an event where there is none yet, 0 if "
        f"left out. The answer comes after at most {LONGEST_WAIT_SECONDS} seconds, since many "
        "proxies give up after 60",
    ),
}
SHOW_QUERY: Table = {"payload": PAYLOAD}


def wanted(query: dict[str, Any], grant: Grant | None) -> EventFilter:
    """What the filters of a query ask for, as far as the grant goes."""
    types = query.get("type")
    return EventFilter(
        types=None if types is None else frozenset(types),
        integration_id=query.get("integration_id"),
        course_id=query.get("course_id"),
        grant=grant,
    )


def rendering(query: dict[str, Any]) -> Rendering:
    """The rendering that a query asks for."""
    return Rendering((Payload(query.get("payload", Payload.FULL)), Format.STANDARD))


class EventController(Controller):
    """Thin over the event log."""

    path = "/events"
    tags = ["Events"]  # noqa: RUF012 - Litestar reads it as it is

    @get(
        summary="Read the event log",
        opt={FOR_SUBSCRIBERS: True},
        operation_class=reads(query=QUERY),
        responses={
            200: ResponseSpec(
                data_container=EventList,
                generate_examples=False,
                description="A page of the event log",
            ),
            **problems(
                HTTPStatus.UNAUTHORIZED,
                CURSOR_EXPIRED,
                HTTPStatus.UNPROCESSABLE_ENTITY,
                TOO_MANY_LISTENERS,
            ),
        },
    )
    async def index(
        self, request: AnyRequest, services: GivenServices, actor: GivenActor
    ) -> Response[bytes]:
        """Oldest first unless `order` says otherwise, each event byte for byte as it is pushed.
        Whoever stores `cursor` after each page and passes it as `after` misses and repeats
        nothing. A filtered page may hold few events, or none, and still lead on."""
        form = query_form(request, QUERY)
        backwards = form.values.get("order") == "desc"
        if backwards and "wait" in form.values:
            form.refuse("wait", "goes with order=asc only", "leave out one of them")
        query = form.accept()
        if backwards:
            events, before = await services.events.read_back(
                None if query.get("after") == cursors.LATEST else query.get("after"),
                query.get("limit", PAGE_SIZE),
                wanted(query, actor.grant),
            )
            bodies, cut = _bodies(events, rendering(query))
            return _page(bodies, cut or before, None)
        if only_head(request.scope):
            query["wait"] = 0
        events, read_to = await _follow(services, query, actor)
        bodies, cut = _bodies(events, rendering(query))
        if cut is not None:
            read_to = ReadPosition(cut, more=True)
        return _page(bodies, read_to.position if read_to.more else None, read_to.position)

    @get(
        "/{event_id:str}",
        summary="Show an event",
        opt={FOR_SUBSCRIBERS: True},
        operation_class=reads(query=SHOW_QUERY),
        responses={
            200: ResponseSpec(
                data_container=EventView, generate_examples=False, description="The event"
            ),
            **problems(
                HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY
            ),
        },
    )
    async def show(
        self,
        request: AnyRequest,
        event_id: PathId,
        services: GivenServices,
        actor: GivenActor,
    ) -> Response[bytes]:
        """Byte for byte as it is pushed."""
        query = query_form(request, SHOW_QUERY).accept()
        event = await services.events.get(event_id)
        if not is_shown(event, actor.grant):
            raise NotFoundError(not_there(event_id))
        return Response(render(event, rendering(query)), media_type=MediaType.JSON)


async def starting_place(services: Services, read_to: str | None) -> str | None:
    """The position to begin behind; None: the oldest event."""
    if read_to != cursors.LATEST:
        return read_to
    end, _ = await services.events.bounds()
    return end


async def _follow(
    services: Services, query: dict[str, Any], actor: Actor
) -> tuple[list[StoredEvent], ReadPosition]:
    """The page behind `after`, once there is something on it or the wait is over."""
    limit, filters = query.get("limit", PAGE_SIZE), wanted(query, actor.grant)
    events, read_to = await services.events.read(
        await starting_place(services, query.get("after")), limit, filters
    )
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(query.get("wait", 0), LONGEST_WAIT_SECONDS)
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
    """As many bodies as a page may hold, and the position of the last one if that is not all."""
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
