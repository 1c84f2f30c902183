"""`/v1/subscriptions/{id}/retry`: makes waiting retries due now."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, ClassVar

from litestar import post
from litestar.params import JSONBody
from msgspec import UNSET, UnsetType

from service.api.access.audit_trail import ACTION
from service.api.access.route_guards import SUBSCRIBERS
from service.api.fields import samples
from service.api.fields.kinds import identifier, means
from service.api.fields.readers import Fields, or_none
from service.api.fields.views import View
from service.api.http.problem_types import CONFLICT
from service.api.http.problems import PROBLEMS
from service.api.http.requests import GivenServices, PathId
from service.domain.delivery.subscription import SubscriptionState, state_of
from service.domain.errors import ConflictError


class RetriedView(View, frozen=True, kw_only=True):
    """The number of retries that are due now."""

    example: ClassVar = {"retried": 3, "pending": 12}
    retried: Annotated[int, means("how many scheduled retries are due now")]
    pending: Annotated[int, means("how many deliveries are pending, first attempts included")]


class Retry(Fields, frozen=True, kw_only=True):
    """The delivery to retry."""

    examples: ClassVar = {"one": ("One delivery", {"event_id": samples.EVENT})}
    event_id: Annotated[
        Annotated[str, identifier("evt")] | UnsetType | None,
        means(
            "retry the delivery of this event, after any earlier event of its course that "
            "waits for a retry. null, or left out: all deliveries that wait for a retry"
        ),
    ] = UNSET


_ALL = Retry()  # for an empty body


@post(
    "/subscriptions/{subscription_id:str}/retry",
    tags=["Subscriptions"],
    status_code=HTTPStatus.OK,
    guards=[SUBSCRIBERS],
    operation_id="retryPendingDeliveries",
    summary="Retry pending deliveries now",
    opt={ACTION: "subscription.retried", PROBLEMS: (CONFLICT,)},
    response_description="How many retries are due now",
)
async def retry_deliveries(
    subscription_id: PathId, services: GivenServices, data: JSONBody[Retry] = _ALL
) -> RetriedView:
    """Makes all retries due now, or only the retry of one event, and ends a wait that the receiver
    requested with `Retry-After`. Each attempt counts, and events keep their order. A parked
    subscription gets a probe at once, and its other events when the probe succeeds. If the
    subscription is paused or disabled, resume it instead. The body is optional."""
    subscription = await services.subscriptions.get(subscription_id)
    state = state_of(subscription)
    if state is not SubscriptionState.ACTIVE:
        raise ConflictError(
            f"the subscription is {state}, so nothing is sent: resume it, which makes all of its "
            "retries due now"
        )
    retried = await services.retries.retry(subscription.id, or_none(data.event_id))
    (depth,) = await services.outboxes.depth_many([subscription.id])
    return RetriedView(retried=retried, pending=depth.pending)
