"""`/v1/events`: the event log, for those who would rather pull than be pushed to."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from litestar import Controller, MediaType, Response, get
from litestar.openapi.datastructures import ResponseSpec

from service.api import cursors
from service.api.forms import Field, Table
from service.api.openapi import problems, reads
from service.api.parsers import identifier, once, one_of, repeated, visible
from service.api.requests import (
    LIMIT,
    PAGE_SIZE,
    AnyRequest,
    GivenServices,
    PathId,
    after,
    query_form,
)
from service.api.schemas import EventList, EventView
from service.domain.events import render
from service.domain.subscriptions import EVENT_TYPES, Rendering

MAX_PAGE_BYTES = 8_388_608  # a page ends early rather than grow beyond

QUERY: Table = {
    "type": Field(parser=repeated(one_of(EVENT_TYPES)), meaning="only events of these types"),
    "integration_id": Field(
        parser=once(identifier("int")), meaning="only events of this integration"
    ),
    "course_id": Field(
        parser=once(visible(200, "26vafvWSRmbhNcxJYqjCzuJg")), meaning="only events of this course"
    ),
    "order": Field(
        parser=once(one_of(("asc", "desc"))),
        meaning="asc: the oldest first; desc: the newest first; asc if left out",
    ),
    "limit": LIMIT,
    "after": Field(
        parser=after(cursors.read_log).parser,
        meaning="`next` of the answer before, or the id of the last event seen; with desc the "
        "events before it follow",
    ),
}


class EventController(Controller):
    """Thin over the event log."""

    path = "/events"
    tags = ["Events"]  # noqa: RUF012 - Litestar reads it as it is

    @get(
        summary="Read the event log",
        operation_class=reads(query=QUERY),
        responses={
            200: ResponseSpec(
                data_container=EventList,
                generate_examples=False,
                description="A page of the event log",
            ),
            **problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY),
        },
    )
    async def index(self, request: AnyRequest, services: GivenServices) -> Response[bytes]:
        """Oldest first unless `order` says otherwise, each event byte for byte as it is pushed.
        A filtered page may hold few events, or none, and still lead on."""
        query = query_form(request, QUERY).accept()
        events, position = await services.events.read(
            query.get("after"),
            query.get("limit", PAGE_SIZE),
            newest_first=query.get("order") == "desc",
            event_types=query.get("type"),
            integration_id=query.get("integration_id"),
            course_id=query.get("course_id"),
        )
        bodies: list[bytes] = []
        size = 0
        for event in events:
            body = render(event, Rendering.FULL)
            size += len(body)
            if bodies and size > MAX_PAGE_BYTES:
                position = events[len(bodies) - 1].position
                break
            bodies.append(body)
        page = b'{"items":[%s],"next":%s}' % (
            b",".join(bodies),
            msgspec.json.encode(cursors.write_log(position)),
        )
        return Response(page, media_type=MediaType.JSON)

    @get(
        "/{event_id:str}",
        summary="Show an event",
        operation_class=reads(),
        responses={
            200: ResponseSpec(
                data_container=EventView, generate_examples=False, description="The event"
            ),
            **problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
        },
    )
    async def show(self, event_id: PathId, services: GivenServices) -> Response[bytes]:
        """Byte for byte as it is pushed, with the course."""
        event = await services.events.get(event_id)
        return Response(render(event, Rendering.FULL), media_type=MediaType.JSON)
