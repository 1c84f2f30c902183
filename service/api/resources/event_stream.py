"""`/v1/events/stream`: the event log as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Annotated

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.response import Stream
from msgspec import UNSET, UnsetType
from redis.exceptions import RedisError

from service.api.access.authentication import GivenActor
from service.api.access.route_guards import READERS_AND_SUBSCRIBERS
from service.api.access.visible_events import VisibleEvents
from service.api.fields.kinds import cursor, means
from service.api.fields.readers import Fields
from service.api.http import cursors
from service.api.http.problem_types import CURSOR_EXPIRED, TOO_MANY_LISTENERS
from service.api.http.problems import PROBLEMS, expired
from service.api.http.requests import GivenServices, StartCursor
from service.api.resources.events import FilterQuery, starting_place
from service.domain.delivery.subscription import Rendering
from service.domain.errors import EventsExpiredError
from service.domain.events.event import StoredEvent, render
from service.storage.events.body_cache import BodyCache
from service.storage.events.event_log import ReadPosition
from service.storage.events.log_follower import Tail

SSE = "text/event-stream"
HEARTBEAT_SECONDS = 15.0
RETRY_MS = 3_000  # after which a disconnected client reconnects
LAST_EVENT_ID = "Last-Event-ID"
_READ_AT_ONCE = 20  # events queued for one slow reader
_CHUNK_BYTES = 65_536  # maximum of one write, unless a single event is larger

_recent_frames: BodyCache[bytes] = BodyCache()  # that listeners at the same position share


class StreamQuery(FilterQuery, frozen=True, kw_only=True):
    """The filter of the events, and the position to start after."""

    after: Annotated[
        StartCursor | UnsetType,
        means(
            "the position to start after, as in GET /v1/events: a cursor or an event's id; "
            "`latest`: only new events; if left out, from the oldest event that is kept"
        ),
    ] = UNSET


def _read_last(sent: str) -> str:
    return cursors.read_log(sent) if sent else ""


class LastEvent(Fields, frozen=True, kw_only=True):
    """The position at which a client disconnected."""

    position: Annotated[
        Annotated[str, cursor(_read_last, "log")] | UnsetType,
        means(
            "the last `id` received, which browsers send automatically when they "
            "reconnect; it takes precedence over `after`"
        ),
    ] = msgspec.field(default=UNSET, name=LAST_EVENT_ID)


@get(
    "/events/stream",
    tags=["Events"],
    guards=[READERS_AND_SUBSCRIBERS],
    operation_id="streamEvents",
    summary="Follow the event log",
    responses={
        200: ResponseSpec(
            data_container=str,
            generate_examples=False,
            media_type=SSE,
            description="Server-sent events: `id` is the event's id, `event` its type, `data` the "
            "body of a push. An `id` alone is the position that the stream has reached in the log. "
            "`error` contains a problem and ends the stream",
        )
    },
    opt={PROBLEMS: (CURSOR_EXPIRED, TOO_MANY_LISTENERS)},
)
async def stream_events(
    params: NamedDependency[StreamQuery],
    sent_headers: NamedDependency[LastEvent],
    services: GivenServices,
    actor: GivenActor,
) -> Stream:
    """Sends the events of the log in order, then each new event. The stream sends a comment after
    15 seconds without an event. If the log loses events that the stream has not sent yet, the
    stream ends with an `error`. It also ends when the API key of the request is revoked or
    expires."""
    read_to = sent_headers.position or params.after or None
    services.tail.check_room()
    filters = params.wanted(actor.grant)
    first = await services.events.read(
        await starting_place(services, read_to), _READ_AT_ONCE, filters
    )
    return Stream(
        frames(services.tail, first, VisibleEvents(actor, services, filters), params.rendering),
        media_type=SSE,
        # A proxy would buffer events for minutes, or until it has enough to compress.
        headers={"cache-control": "no-store, no-transform", "x-accel-buffering": "no"},
    )


async def frames(
    tail: Tail,
    first: tuple[list[StoredEvent], ReadPosition],
    visible: VisibleEvents,
    rendering: Rendering,
) -> AsyncIterator[bytes]:
    """The stream after its first page, until the client disconnects or the log cannot be read."""
    loop = asyncio.get_running_loop()
    events, read_to = first
    # The position is sent at once, so that a client keeps it even if the connection breaks first.
    sent = None if events else read_to.position
    yield b"retry: %d\n%s\n" % (RETRY_MS, _id(read_to.position) if sent else b"")
    with tail.listen() as listener:
        spoken = loop.time()
        while not listener.ended:
            if events:
                for chunk in _chunks(events, rendering):
                    yield chunk
                sent, spoken = events[-1].position, loop.time()
            elif loop.time() - spoken >= HEARTBEAT_SECONDS:
                yield b":\n%s\n" % (_id(read_to.position) if read_to.position != sent else b"")
                sent, spoken = read_to.position, loop.time()
            try:
                if not read_to.more:
                    silence = loop.time() - spoken
                    await listener.wait(read_to.position, HEARTBEAT_SECONDS - silence)
                filters = await visible.filter()
                if filters is None:
                    return
                events, read_to = await tail.read(read_to.position, _READ_AT_ONCE, filters)
            except EventsExpiredError as error:
                yield b"event: error\ndata: %s\n\n" % msgspec.json.encode(expired(error))
                return
            except (RedisError, OSError):
                return  # the client reconnects at its position


def _id(position: str) -> bytes:
    return b"id: %s\n" % cursors.write_position(position).encode()


def _chunks(events: Iterable[StoredEvent], rendering: Rendering) -> Iterator[bytes]:
    """The frames of `events`, several in one where they are small."""
    chunk: list[bytes] = []
    size = 0
    for event in events:
        frame = _frame(event, rendering)
        if chunk and size + len(frame) > _CHUNK_BYTES:
            yield b"".join(chunk)
            chunk, size = [], 0
        chunk.append(frame)
        size += len(frame)
    yield b"".join(chunk)


def _frame(event: StoredEvent, rendering: Rendering) -> bytes:
    frame = _recent_frames.get((event.id, rendering))
    if frame is None:
        frame = _make_frame(event, rendering)
        _recent_frames.put([((event.id, rendering), frame, len(frame))])
    return frame


def _make_frame(event: StoredEvent, rendering: Rendering) -> bytes:
    # A line break can only stand between the tokens of the course's JSON; as the beginning of
    # another data line it arrives as a line break.
    data = b"\ndata: ".join(render(event, rendering).splitlines())
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event.id.encode(), event.type.encode(), data)
