"""`/v1/deliveries`: what was sent to a subscription, and what came back."""

from __future__ import annotations

from typing import Annotated, ClassVar

from litestar import get
from litestar.di import NamedDependency
from msgspec import UNSET, UnsetType

from service.api.access.authentication import GivenActor, require_own
from service.api.access.route_guards import READERS_AND_SUBSCRIBERS
from service.api.fields import samples
from service.api.fields.kinds import identifier, means
from service.api.fields.views import Page, Timestamp, View
from service.api.http import cursors
from service.api.http.problem_types import NOT_FOUND
from service.api.http.problems import PROBLEMS
from service.api.http.requests import GivenServices, LogQuery
from service.domain.delivery.subscription import DeliveryState
from service.storage.delivery.attempts import Delivery


class AttemptView(View, frozen=True, kw_only=True):
    """One HTTP POST and what came back. `excerpt` is the beginning of the answer."""

    example: ClassVar = {
        "event_id": samples.EVENT,
        "number": 1,
        "at": samples.AT,
        "outcome": "delivered",
        "duration_ms": 48,
        "status": 204,
        "dns_ms": 3,
        "connect_ms": 12,
        "first_byte_ms": 47,
        "error": None,
        "excerpt": "",
        "next_attempt_at": None,
        "counted": True,
        "replay": False,
    }
    event_id: Annotated[str, means("the event that was posted")]
    number: Annotated[int, means("the first attempt is 1")]
    at: Annotated[Timestamp, means("when it began")]
    outcome: Annotated[str, means("what it came to; `delivered` is the only success")]
    duration_ms: Annotated[int, means("until the answer was read, or given up")]
    status: Annotated[int | None, means("the receiver's HTTP status; null: it did not answer")]
    dns_ms: Annotated[
        int | None, means("until the host's address was known; null: it was known before")
    ]
    connect_ms: Annotated[int | None, means("until the connection stood")]
    first_byte_ms: Annotated[int | None, means("until the answer began")]
    error: Annotated[str | None, means("what went wrong, in words")]
    excerpt: Annotated[str, means("the beginning of the answer")]
    next_attempt_at: Annotated[
        Timestamp | None, means("when the next one is due; null: there is none")
    ]
    counted: Annotated[
        bool,
        means(
            "false: the service's own network failed, or its machine was short of something; the "
            "attempt used up no retry"
        ),
    ]
    replay: Annotated[bool, means("whether it was made for a replay")]


class DeliveryView(View, frozen=True, kw_only=True):
    """One event for one subscription, with its attempts; `reason` says why a dead one is."""

    example: ClassVar = {
        "subscription_id": samples.SUBSCRIPTION,
        "event_id": samples.EVENT,
        "state": "delivered",
        "reason": None,
        "attempts": [AttemptView.example],
    }
    subscription_id: Annotated[str, means("who it is for")]
    event_id: Annotated[str, means("the event")]
    state: Annotated[DeliveryState, means("pending, delivered or dead")]
    reason: Annotated[str | None, means("why a dead one is dead")]
    attempts: Annotated[list[AttemptView], means("its attempts, the first one first")]

    @classmethod
    def of(cls, one: Delivery) -> DeliveryView:
        """A delivery."""
        return cls.show(one, attempts=[AttemptView.show(made) for made in one.attempts])


class DeliveryList(Page, frozen=True, kw_only=True):
    """A page of deliveries in the order of their events; `next` leads on."""

    items: Annotated[list[DeliveryView], means("the page")]


class DeliveryQuery(LogQuery, frozen=True, kw_only=True):
    """Which deliveries are listed."""

    subscription_id: Annotated[str, identifier("sub"), means("whose deliveries")]
    event_id: Annotated[Annotated[str, identifier("evt")] | UnsetType, means("only this event")] = (
        UNSET
    )
    state: Annotated[DeliveryState | UnsetType, means("only deliveries in this state")] = UNSET


@get(
    "/deliveries",
    operation_id="listDeliveries",
    summary="List deliveries with their attempts",
    response_description="A page of deliveries",
    tags=["Deliveries"],
    guards=[READERS_AND_SUBSCRIBERS],
    opt={PROBLEMS: (NOT_FOUND,)},
)
async def list_deliveries(
    params: NamedDependency[DeliveryQuery], services: GivenServices, actor: GivenActor
) -> DeliveryList:
    """The oldest event first. Delivered ones are listed for as long as their attempts are kept."""
    await require_own(actor, services, params.subscription_id)
    subscription = await services.subscriptions.get(params.subscription_id)
    found, position = await services.attempts.deliveries(
        subscription.id,
        event_id=params.event_id or None,
        state=params.state or None,
        limit=params.limit,
        after=params.after or None,
    )
    return DeliveryList(
        items=[DeliveryView.of(one) for one in found], next=cursors.write_log(position)
    )
