"""`/v1/deliveries`: what was sent to a subscription, and what came back."""

from __future__ import annotations

from http import HTTPStatus
from typing import get_args

from litestar import Controller, get

from service.api.access.authentication import FOR_SUBSCRIBERS, GivenActor, require_own
from service.api.http import cursors
from service.api.http.requests import LIMIT, PAGE_SIZE, AnyRequest, GivenServices, after, query_form
from service.api.schema import views
from service.api.schema.field_types import identifier, once, one_of
from service.api.schema.form import Field, Table
from service.api.schema.operations import problems, reads
from service.api.schema.schemas import DeliveryList
from service.domain.delivery.subscription import DeliveryState

QUERY: Table = {
    "subscription_id": Field(
        parser=once(identifier("sub")), meaning="whose deliveries", required=True
    ),
    "event_id": Field(parser=once(identifier("evt")), meaning="only this event"),
    "state": Field(
        parser=once(one_of(get_args(DeliveryState))), meaning="only deliveries in this state"
    ),
    "limit": LIMIT,
    "after": after(cursors.read_log),
}


class DeliveryController(Controller):
    """Thin over the attempt records."""

    path = "/deliveries"
    tags = ["Deliveries"]  # noqa: RUF012 - Litestar reads it as it is
    opt = {FOR_SUBSCRIBERS: True}  # noqa: RUF012 - likewise

    @get(
        summary="List deliveries with their attempts",
        response_description="A page of deliveries",
        operation_class=reads(query=QUERY),
        responses=problems(
            HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY
        ),
    )
    async def index(
        self, request: AnyRequest, services: GivenServices, actor: GivenActor
    ) -> DeliveryList:
        """The oldest event first. Delivered ones are listed for as long as their attempts are
        kept."""
        query = query_form(request, QUERY).accept()
        await require_own(actor, services, query["subscription_id"])
        subscription = await services.subscriptions.get(query["subscription_id"])
        found, position = await services.attempts.deliveries(
            subscription.id,
            event_id=query.get("event_id"),
            state=query.get("state"),
            limit=query.get("limit", PAGE_SIZE),
            after=query.get("after"),
        )
        return DeliveryList([views.delivery(one) for one in found], cursors.write_log(position))
