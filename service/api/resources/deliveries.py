"""`/v1/deliveries`: pushes to subscriptions and their responses."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, ClassVar, Literal

from litestar import get
from litestar.di import NamedDependency
from msgspec import UNSET, UnsetType

from service.api.access.authentication import GivenActor, require_own
from service.api.access.route_guards import READERS_AND_SUBSCRIBERS
from service.api.fields import samples
from service.api.fields.kinds import (
    Moment,
    Several,
    cursor,
    identifier,
    means,
    number_in_text,
    one_of,
)
from service.api.fields.readers import Fields, or_none
from service.api.fields.refusals import FieldError
from service.api.fields.views import Page, Timestamp, View
from service.api.http import cursors
from service.api.http.problem_types import NOT_FOUND
from service.api.http.problems import PROBLEMS
from service.api.http.requests import PAGE_SIZE, CourseId, GivenServices, Limit
from service.bootstrap import Services
from service.domain.access.grants import Actor, Grant
from service.domain.delivery.delivery_merge import Place
from service.domain.delivery.event_types import EVENT_TYPES
from service.domain.delivery.outcome import OutcomeClass
from service.domain.delivery.subscription import DeliveryState
from service.domain.events.event import EventFilter
from service.domain.events.identifiers import (
    event_position,
    first_number,
    number_before,
    position_number,
)
from service.storage.delivery.deliveries import Delivery, Wanted


class AttemptView(View, frozen=True, kw_only=True):
    """One HTTP POST and its response."""

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
    at: Annotated[Timestamp, means("when the attempt began")]
    outcome: Annotated[str, means("the outcome; `delivered` is the only success")]
    duration_ms: Annotated[int, means("the time until the response was read or abandoned")]
    status: Annotated[int | None, means("the receiver's HTTP status; null: no response")]
    dns_ms: Annotated[
        int | None, means("the time until the host name was resolved; null: it was not looked up")
    ]
    connect_ms: Annotated[
        int | None,
        means(
            "the time until the connection was established; 0: the connection was reused; null: no "
            "connection"
        ),
    ]
    first_byte_ms: Annotated[
        int | None, means("the time until the response began; null: no response")
    ]
    error: Annotated[str | None, means("a description of the failure; null: none")]
    excerpt: Annotated[str, means("the beginning of the response, at most 1,024 bytes")]
    next_attempt_at: Annotated[
        Timestamp | None, means("when the next attempt is due; null: there is none")
    ]
    counted: Annotated[
        bool,
        means(
            "false: the service's own network, forward proxy or machine caused the failure, so "
            "the attempt does not count as a retry"
        ),
    ]
    replay: Annotated[bool, means("whether the attempt belongs to a replay")]


class DeliveryView(View, frozen=True, kw_only=True):
    """One event for one subscription, with its attempts."""

    example: ClassVar = {
        "subscription_id": samples.SUBSCRIPTION,
        "event_id": samples.EVENT,
        "event_type": "course.updated",
        "integration_id": samples.INTEGRATION,
        "course_id": samples.COURSE,
        "state": "delivered",
        "reason": None,
        "next_attempt_at": None,
        "attempts": [AttemptView.example],
    }
    subscription_id: Annotated[str, means("the subscription that the event is for")]
    event_id: Annotated[str, means("the event")]
    event_type: Annotated[
        str | None,
        means(
            "the event's type; null, like `integration_id` and `course_id`, if the event is no "
            "longer kept, or if the token may not see the event"
        ),
    ]
    integration_id: Annotated[
        str | None, means("the integration that the event is about; null: the event is about none")
    ]
    course_id: Annotated[
        str | None, means("the course that the event is about; null: the event is about none")
    ]
    state: Annotated[
        DeliveryState,
        means(
            "pending: not attempted yet; retrying: an attempt failed, and another one "
            "follows; delivered; dead: not attempted again"
        ),
    ]
    reason: Annotated[str | None, means("why a dead delivery is not attempted again")]
    next_attempt_at: Annotated[
        Timestamp | None,
        means("when the next attempt of a retrying delivery is due; null in other states"),
    ]
    attempts: Annotated[list[AttemptView], means("the attempts, the first one first")]

    @classmethod
    def of(cls, one: Delivery) -> DeliveryView:
        """A delivery."""
        return cls.show(one, attempts=[AttemptView.show(made) for made in one.attempts])


class DeliveryList(Page, frozen=True, kw_only=True):
    """A page of deliveries in the order of their events. A filtered page can contain few
    deliveries, or none, although `next` is not null."""

    items: Annotated[list[DeliveryView], means("the page")]


class DeliveryQuery(Fields, frozen=True, kw_only=True):
    """The filters of deliveries."""

    subscription_id: Annotated[
        Annotated[str, identifier("sub")] | UnsetType, means("only deliveries to this subscription")
    ] = UNSET
    integration_id: Annotated[
        Annotated[str, identifier("int")] | UnsetType, means("only events of this integration")
    ] = UNSET
    course_id: Annotated[CourseId | UnsetType, means("only events of this course")] = UNSET
    event_id: Annotated[Annotated[str, identifier("evt")] | UnsetType, means("only this event")] = (
        UNSET
    )
    event_type: Annotated[
        Several[Annotated[str, one_of(EVENT_TYPES)]] | UnsetType,
        means("only events of these types, separated by commas or given repeatedly"),
    ] = UNSET
    state: Annotated[
        Several[DeliveryState] | UnsetType,
        means("only deliveries in one of these states, separated by commas or given repeatedly"),
    ] = UNSET
    outcome: Annotated[
        Several[OutcomeClass] | UnsetType,
        means(
            "only deliveries whose last attempt had one of these outcomes, separated by commas or "
            "given repeatedly"
        ),
    ] = UNSET
    status: Annotated[
        Annotated[int, number_in_text(100, 599)] | UnsetType,
        means("only deliveries whose last attempt received this HTTP status"),
    ] = UNSET
    since: Annotated[
        Moment | UnsetType, means("only events that happened at this time or later")
    ] = UNSET
    until: Annotated[Moment | UnsetType, means("only events that happened before this time")] = (
        UNSET
    )
    order: Annotated[
        Literal["asc", "desc"],
        means("desc: the newest event first; asc: the oldest event first; desc if left out"),
    ] = "desc"
    limit: Limit = PAGE_SIZE
    after: Annotated[
        Annotated[Place, cursor(cursors.read_place, "delivery")] | UnsetType,
        means("`next` of the previous response"),
    ] = UNSET

    def check(self) -> Iterable[FieldError]:
        """At least one time must lie between them."""
        if self.since and self.until and self.until <= self.since:
            yield FieldError("until", "is not after since", "send a later time, or leave it out")

    def wanted(self, grant: Grant | None) -> Wanted | None:
        """The filter of deliveries; None if the event does not exist."""
        span = {}
        if self.event_id:
            position = event_position(self.event_id)
            if position is None:
                return None
            span = dict.fromkeys(("first", "last"), position_number(position[0]))
        else:
            if self.since is not UNSET:
                span["first"] = first_number(self.since)
            if self.until is not UNSET:
                span["last"] = number_before(self.until)
        return Wanted(
            states=or_none(self.state),
            event_id=self.event_id or None,
            outcomes=or_none(self.outcome),
            status=or_none(self.status),
            events=EventFilter(
                types=None if self.event_type is UNSET else frozenset(self.event_type),
                integration_id=self.integration_id or None,
                course_id=self.course_id or None,
                grant=grant,
            ),
            **span,
        )


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
    """Lists the deliveries to all subscriptions, or to a subscriber's own, in the order of their
    events: a delivery keeps its place while it is retried. A `delivered` one is listed while one of
    its attempts is kept. Any other delivery is listed while its event or one of its attempts is
    kept. A filtered request examines about 2,000 deliveries, so the page can contain few
    deliveries, or none, although `next` is not null."""
    ids = await _subscription_ids(params, services, actor)
    wanted = params.wanted(actor.grant)
    if wanted is None:
        return DeliveryList(items=[], next=None)
    found, place = await services.deliveries.page(
        ids,
        wanted,
        limit=params.limit,
        newest_first=params.order == "desc",
        after=or_none(params.after),
    )
    return DeliveryList(
        items=[DeliveryView.of(one) for one in found], next=cursors.write_place(place)
    )


async def _subscription_ids(
    params: DeliveryQuery, services: Services, actor: Actor
) -> Collection[str]:
    """The subscriptions whose deliveries are listed. Raises NotFoundError."""
    if params.subscription_id:
        await require_own(actor, services, params.subscription_id)
        return [(await services.subscriptions.get(params.subscription_id)).id]
    return await services.subscriptions.ids(actor.owner)
