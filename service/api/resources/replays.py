"""`/v1/subscriptions/{id}/replays` and the redelivery of one event: what is sent once more."""

from __future__ import annotations

from http import HTTPStatus

from litestar import Controller, Response, delete, get, post

from service.api.access.audit_trail import ACTION
from service.api.access.authentication import FOR_SUBSCRIBERS, GivenActor, require_own
from service.api.http import cursors
from service.api.http.problems import CONFLICT, EVENT_EXPIRED
from service.api.http.requests import (
    PAGE_SIZE,
    AnyRequest,
    Document,
    GivenServices,
    PathId,
    page_table,
    query_form,
)
from service.api.schema import views
from service.api.schema.field_types import identifier, list_of, nullable, one_of, timestamp
from service.api.schema.form import Field, Form, Table
from service.api.schema.operations import problems, reads
from service.api.schema.schemas import ReplayList, ReplayView
from service.bootstrap import Services
from service.clock import now_ms
from service.domain.access.grants import Actor
from service.domain.delivery.subscription import EVENT_TYPES, Subscription
from service.domain.errors import ConflictError, EventExpiredError, NotFoundError
from service.domain.events.event import StoredEvent, is_shown, order_key_of, rfc3339, subject_of
from service.domain.events.identifiers import (
    event_position,
    is_backfilled,
    position_ms,
    position_order,
)
from service.domain.replay.backfill import EVENT_TYPE as BACKFILL_TYPE
from service.domain.replay.replay import REQUESTED, Replay
from service.ids import new_id
from service.storage.delivery.replays import Replayed
from service.storage.events.event_log import START, not_there
from service.storage.events.operational import RENDERINGS

REQUEST: Table = {
    "which": Field(
        parser=one_of(REQUESTED),
        meaning="all: every event that matches the subscription now; dead: deliveries that were "
        "given up; missing: events that match and were neither delivered, as far as attempts are "
        "on record, nor are pending; backfill: every live course of the integrations that match, "
        "fetched anew and sent as course.created with initial true",
        required=True,
    ),
    "since": Field(
        parser=nullable(timestamp()),
        meaning="events that happened at this time or later; null, or left out: all that are kept. "
        "Not for a backfill, which is of the present",
    ),
    "until": Field(
        parser=nullable(timestamp()),
        meaning="events that happened before this time; null, or left out: up to now. Not for a "
        "backfill",
    ),
    "event_types": Field(
        parser=nullable(list_of(one_of(EVENT_TYPES), least=1, most=len(EVENT_TYPES))),
        meaning="null: whatever the subscription's filter says; else only these. A backfill "
        "sends course.created alone",
    ),
}
REDELIVERY: Table = {
    "subscription_id": Field(
        parser=identifier("sub"), meaning="who is sent the event again", required=True
    ),
}
PAGE = page_table()


class ReplayController(Controller):
    """Thin over the replay store."""

    path = "/subscriptions/{subscription_id:str}/replays"
    tags = ["Replays"]  # noqa: RUF012 - Litestar reads it as it is
    opt = {FOR_SUBSCRIBERS: True}  # noqa: RUF012 - likewise; one's own are seen to by `Access`

    @post(
        status_code=HTTPStatus.ACCEPTED,
        summary="Replay events",
        opt={ACTION: "subscription.replay_requested"},
        response_description="The replay, queued",
        operation_class=reads(body=REQUEST, required=("which",)),
        responses=problems(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.NOT_FOUND,
            CONFLICT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ),
    )
    async def create(
        self, subscription_id: PathId, document: Document, services: GivenServices
    ) -> Response[ReplayView]:
        """Sends events of the past once more, under their ids and marked with
        `coursewire-replay: true`. Those of a course keep their order among themselves, new events
        go first, and replays of a subscription follow each other. What happens after the request
        is no part of it.

        A backfill asks the upstream for every live course and makes an event of each, for this
        subscription alone: it is in no log, and kept until it is delivered or dead. It has the
        course's present `sequence`, or 1 if nothing has been reported of it yet, so it never hides
        a later change."""
        form = Form(document, REQUEST, required=("which",))
        values = form.values
        subscription = await services.subscriptions.get(subscription_id)
        end, trimmed = await services.events.bounds()
        backfill = values.get("which") == "backfill"
        if backfill:
            _check_backfill(form, subscription)
        else:
            await _check_since(form, services, subscription, trimmed)
        since, until = values.get("since"), values.get("until")
        if not backfill and since is not None and until is not None and until <= since:
            form.refuse("until", "is not after since", "send a later time, or leave it out")
        form.accept()
        if backfill and (other := await services.replays.unfinished(subscription.id, "backfill")):
            raise ConflictError(
                f"backfill {other} of this subscription has not ended: wait for it, or cancel it"
            )
        if until is not None:
            end = min(end, f"{max(until - 1, 0)}-{2**64 - 1}", key=position_order)
        replay = Replay(
            id=new_id("rpl"),
            subscription_id=subscription.id,
            start="-" if since is None else str(since),
            end=end,
            **values,
        )
        await services.replays.create(replay)
        return await _accepted(services, replay)

    @get(
        summary="List replays",
        response_description="A page of replays",
        operation_class=reads(query=PAGE),
        responses=problems(
            HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY
        ),
    )
    async def index(
        self, subscription_id: PathId, request: AnyRequest, services: GivenServices
    ) -> ReplayList:
        """In the order in which they were asked for: all that have not ended, and the latest that
        have."""
        query = query_form(request, PAGE).accept()
        subscription = await services.subscriptions.get(subscription_id)
        found, position = await services.replays.page(
            subscription.id, query.get("limit", PAGE_SIZE), query.get("after")
        )
        return ReplayList(
            [views.replay(replay, progress) for replay, progress in found],
            cursors.write_index(position),
        )

    @get(
        "/{replay_id:str}",
        summary="Show a replay",
        response_description="The replay",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    )
    async def show(
        self, subscription_id: PathId, replay_id: PathId, services: GivenServices
    ) -> ReplayView:
        """With how far it has come."""
        return views.replay(*await services.replays.get(subscription_id, replay_id))

    @delete(
        "/{replay_id:str}",
        summary="Cancel a replay",
        opt={ACTION: "subscription.replay_cancelled"},
        response_description="It is cancelled",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, CONFLICT),
    )
    async def cancel(
        self, subscription_id: PathId, replay_id: PathId, services: GivenServices
    ) -> None:
        """Whatever of it has not been delivered is dropped, but for attempts under way."""
        await services.replays.cancel(subscription_id, replay_id)


@post(
    "/events/{event_id:str}/redeliver",
    status_code=HTTPStatus.ACCEPTED,
    summary="Redeliver an event",
    opt={FOR_SUBSCRIBERS: True, ACTION: "event.redelivered"},
    response_description="The replay that this is",
    tags=["Replays"],
    operation_class=reads(body=REDELIVERY, required=("subscription_id",)),
    responses=problems(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.NOT_FOUND,
        EVENT_EXPIRED,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    ),
)
async def redeliver(
    event_id: PathId, document: Document, services: GivenServices, actor: GivenActor
) -> Response[ReplayView]:
    """Sends a subscription one event once more, whether or not it matches the filter. It is a
    replay of one, and does not wait for others to be read."""
    form = Form(document, REDELIVERY, required=("subscription_id",))
    values = form.accept()
    await require_own(actor, services, values["subscription_id"])
    subscription = await services.subscriptions.get(values["subscription_id"])
    event = await _event(services, actor, event_id)
    subject = subject_of(event)
    if subject is not None and subject.subscription_id == subscription.id:
        form.refuse(
            "subscription_id", "is what the event is about", "send it to another subscription"
        )
        form.accept()
    (dead,) = await services.dead.get_many(subscription.id, [event.position])
    replay = Replay(
        id=new_id("rpl"),
        subscription_id=subscription.id,
        which="event",
        event_id=event.id,
        start=event.position,
        end=event.position,
    )
    only = Replayed(
        order_key_of(event),
        RENDERINGS[subscription.rendering] if dead is None else dead.rendering,
        event.position,
    )
    await services.replays.create(replay, only)
    return await _accepted(services, replay)


async def _event(services: Services, actor: Actor, event_id: str) -> StoredEvent:
    """An event that this one may see. Raises NotFoundError or EventExpiredError."""
    try:
        event = await services.events.get(event_id)
    except NotFoundError:
        place, (_, trimmed) = event_position(event_id), await services.events.bounds()
        if (
            place is None
            or is_backfilled(place[0])
            or position_order(place[0]) > position_order(trimmed)
        ):
            raise
        raise EventExpiredError(
            f"the log no longer holds event {event_id}; it holds what happened after "
            f"{rfc3339(position_ms(trimmed))}"
        ) from None
    if not is_shown(event, actor.grant):
        raise NotFoundError(not_there(event_id))
    return event


async def _check_since(
    form: Form, services: Services, subscription: Subscription, trimmed: str
) -> None:
    """Nothing is left out silently: what is no longer known is refused."""
    since: int | None = form.values.get("since")
    kept_from = 0 if trimmed == START else position_ms(trimmed) + 1
    if since is not None and since < kept_from:
        form.refuse(
            "since",
            f"is before what the log holds: events are kept from {rfc3339(kept_from)} on",
            "send that time or a later one, or leave it out for all that are kept",
        )
        return
    if since is not None and since > now_ms():
        form.refuse("since", "is in the future", "send a time in the past")
        return
    if form.values.get("which") != "missing":
        return
    reach = await services.attempts.reach(subscription.id)
    if reach is not None and (since or kept_from) < reach:
        form.refuse(
            "since",
            f"is before what is on record: attempts are from {rfc3339(reach)} on, so it is not "
            "known what was delivered of earlier events",
            f"send {rfc3339(reach)} or a later time, or replay all instead of missing",
        )


def _check_backfill(form: Form, subscription: Subscription) -> None:
    """A backfill is of the present, and of one type of event."""
    for name in ("since", "until"):
        if form.values.get(name) is not None:
            form.refuse(
                name,
                "means nothing to a backfill, which sends every live course as it is now",
                "leave it out, or replay all events of that time",
            )
    wanted = form.values.get("event_types")
    if wanted is not None and BACKFILL_TYPE not in wanted:
        form.refuse(
            "event_types",
            f"leaves out {BACKFILL_TYPE}, which is all that a backfill sends",
            f"leave it out, or name {BACKFILL_TYPE}",
        )
    if subscription.event_types is not None and BACKFILL_TYPE not in subscription.event_types:
        form.refuse(
            "which",
            f"is backfill, which sends {BACKFILL_TYPE}, and the subscription does not take that",
            f"add {BACKFILL_TYPE} to the event_types of the subscription",
        )


async def _accepted(services: Services, replay: Replay) -> Response[ReplayView]:
    shown = views.replay(*await services.replays.get(replay.subscription_id, replay.id))
    location = f"/v1/subscriptions/{replay.subscription_id}/replays/{replay.id}"
    return Response(shown, status_code=HTTPStatus.ACCEPTED, headers={"location": location})
