"""`/v1/events/{id}/redeliver`: sends one event to a subscription again."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, ClassVar

from litestar import Response, post
from litestar.params import JSONBody

from service.api.access.audit_trail import ACTION
from service.api.access.authentication import GivenActor, require_own
from service.api.access.route_guards import SUBSCRIBERS
from service.api.fields import samples
from service.api.fields.kinds import identifier, means
from service.api.fields.readers import Fields
from service.api.http.problem_types import EVENT_EXPIRED
from service.api.http.problems import PROBLEMS
from service.api.http.requests import GivenRefusals, GivenServices, PathId
from service.api.resources.replays import ReplayView, accepted
from service.bootstrap import Services
from service.domain.access.grants import Actor
from service.domain.errors import EventExpiredError, NotFoundError
from service.domain.events.event import StoredEvent, is_shown, order_key_of, rfc3339, subject_of
from service.domain.events.identifiers import (
    event_position,
    is_backfilled,
    position_ms,
    position_order,
)
from service.domain.replay.replay import Replay
from service.ids import new_id
from service.storage.events.announcing import RENDERINGS
from service.storage.events.event_log import not_there
from service.storage.replay.replays import Replayed


class Redelivery(Fields, frozen=True, kw_only=True):
    """The subscription that an event is sent to again."""

    examples: ClassVar = {"one": ("To one subscription", {"subscription_id": samples.SUBSCRIPTION})}
    subscription_id: Annotated[
        str, identifier("sub"), means("the subscription that receives the event again")
    ]


@post(
    "/events/{event_id:str}/redeliver",
    status_code=HTTPStatus.ACCEPTED,
    guards=[SUBSCRIBERS],
    operation_id="redeliverEvent",
    summary="Redeliver an event",
    opt={ACTION: "event.redelivered", PROBLEMS: (EVENT_EXPIRED,)},
    response_description="The replay that sends the event",
    tags=["Replays"],
)
async def redeliver(
    event_id: PathId,
    data: JSONBody[Redelivery],
    refusals: GivenRefusals,
    services: GivenServices,
    actor: GivenActor,
) -> Response[ReplayView]:
    """Sends an event to a subscription again, even if the filter of the subscription excludes the
    event. The redelivery is a replay of one event and does not wait for other replays. If another
    delivery of the event is pending, the first success completes both deliveries."""
    refusals.settle()
    await require_own(actor, services, data.subscription_id)
    subscription = await services.subscriptions.get(data.subscription_id)
    event = await _event(services, actor, event_id)
    subject = subject_of(event)
    if subject is not None and subject.subscription_id == subscription.id:
        refusals.refuse(
            "subscription_id",
            "is the subscription that the event is about",
            "send it to another subscription",
        )
        refusals.settle()
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
    return await accepted(services, replay)


async def _event(services: Services, actor: Actor, event_id: str) -> StoredEvent:
    """An event that the actor may see. Raises NotFoundError or EventExpiredError."""
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
