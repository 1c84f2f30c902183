"""`/v1/me`: the rights of the request's token, and the integrations granted to it."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar

from litestar import Controller, get
from litestar.di import NamedDependency

from service.api.access.authentication import GivenActor
from service.api.access.route_guards import EVERY_SCOPE, READERS_AND_SUBSCRIBERS
from service.api.fields import samples
from service.api.fields.kinds import means
from service.api.fields.views import Page, Timestamp, View
from service.api.http import cursors
from service.api.http.requests import GivenServices, IndexQuery
from service.api.resources.filtering import page_through
from service.clock import now_ms
from service.domain.access.grants import NOTHING, Grant
from service.domain.polling.integration import Integration, state_of
from service.storage.registry.filters import EVERYTHING
from service.storage.registry.integrations import Stored


class MeView(View, frozen=True, kw_only=True):
    """The rights of a token."""

    example: ClassVar = {
        "id": samples.KEY,
        "name": "search team",
        "scope": "subscriber",
        "integration_ids": None,
        "labels": {"region": "eu"},
        "expires_at": None,
        "owner": samples.KEY,
    }
    id: Annotated[str | None, means("the API key; null: a token of the service's settings")]
    name: Annotated[str, means("a name for people")]
    scope: Annotated[str, means("admin, subscriber, read or metrics")]
    integration_ids: Annotated[
        tuple[str, ...] | None, means("of a subscriber: integrations granted by id; null: none")
    ]
    labels: Annotated[
        dict[str, str] | None,
        means("of a subscriber: integrations with all of these labels are granted; null: none"),
    ]
    expires_at: Annotated[
        Timestamp | None, means("when this token expires, or ends after a rotation; null: never")
    ]
    owner: Annotated[
        str | None,
        means("the owner of the subscriptions that it creates; null: the service's operator"),
    ]


class GrantedIntegration(View, frozen=True, kw_only=True):
    """The state of an integration, for receivers of its events."""

    example: ClassVar = {
        "id": samples.INTEGRATION,
        "name": "Workday of Acme",
        "upstream_id": samples.UPSTREAM,
        "external_id": "tenant-42",
        "labels": {"region": "eu"},
        "state": "active",
        "last_completed_at": samples.AT,
        "behind_seconds": 41.5,
        "delta_interval_seconds": 60,
    }
    id: Annotated[str, means("its id")]
    name: Annotated[str, means("a name for people")]
    upstream_id: Annotated[str, means("its X-Integration-Id at the upstream")]
    external_id: Annotated[str | None, means("the operator's own name for it")]
    labels: Annotated[dict[str, str], means("its labels")]
    state: Annotated[
        str,
        means(
            "the first that applies: paused; error: the operator must act; review: changes are "
            "held for a decision; pending: its first full poll is not complete; active"
        ),
    ]
    last_completed_at: Annotated[
        Timestamp | None, means("when a poll last completed; null: none has")
    ]
    behind_seconds: Annotated[
        float | None,
        means(
            "the time since `last_completed_at`: later changes may not be detected yet; null: no "
            "poll has completed"
        ),
    ]
    delta_interval_seconds: Annotated[
        int, means("the time between polls that succeed; a full poll can be due earlier")
    ]

    @classmethod
    def of(cls, stored: Stored, now: int) -> GrantedIntegration:
        """An integration."""
        integration, polling = stored
        completed = max(polling.last_delta_at or 0, polling.last_full_at or 0) or None
        return cls.show(
            integration,
            state=state_of(integration, polling),
            last_completed_at=completed,
            behind_seconds=None if completed is None else max(0, now - completed) / 1000,
        )


class GrantedIntegrations(Page, frozen=True, kw_only=True):
    """A page of integrations in the order of creation; `next` is the cursor of the next page."""

    items: Annotated[list[GrantedIntegration], means("the page")]


class MeController(Controller):
    """Information about the client itself."""

    path = "/me"
    tags = ["Access"]  # noqa: RUF012 - Litestar reads it as it is

    @get(
        guards=[EVERY_SCOPE],
        operation_id="showMe",
        summary="Show the rights of this token",
        response_description="The token's rights",
    )
    async def show(self, actor: GivenActor, services: GivenServices) -> MeView:
        """Accepts a token of any scope."""
        grant = actor.grant or NOTHING
        name = actor.name
        if actor.key_id is not None:
            name = (await services.api_keys.get(actor.key_id)).key.name
        return MeView.show(
            actor,
            id=actor.key_id,
            name=name,
            integration_ids=grant.integration_ids or None,
            labels=grant.labels,
        )

    @get(
        "/integrations",
        guards=[READERS_AND_SUBSCRIBERS],
        operation_id="listMyIntegrations",
        summary="List the integrations granted to this token",
        response_description="A page of integrations",
    )
    async def integrations(
        self, params: NamedDependency[IndexQuery], actor: GivenActor, services: GivenServices
    ) -> GrantedIntegrations:
        """Returns the state of each integration, and how late it is. Tokens with the scope admin or
        read get all integrations. A page examines at most 10,000 integrations, so it can contain
        few integrations, or none, although `next` is not null."""
        granted, position = await page_through(
            partial(services.integrations.search, EVERYTHING),
            partial(_covered, actor.grant),
            params.limit,
            params.after or None,
        )
        found = await services.integrations.get_many([one.id for one in granted])
        now = now_ms()
        return GrantedIntegrations(
            items=[GrantedIntegration.of(one, now) for one in found if one is not None],
            next=cursors.write_index(position),
        )


def _covered(grant: Grant | None, one: Integration) -> bool:
    return grant is None or grant.covers(one.id, one.labels)
