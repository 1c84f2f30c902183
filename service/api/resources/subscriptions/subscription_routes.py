"""`/v1/subscriptions`: receivers of events, their filters and settings."""

from __future__ import annotations

import math
from functools import partial
from http import HTTPStatus
from typing import Annotated, ClassVar

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET, UnsetType

from service.api.access.audit_trail import ACTION
from service.api.access.authentication import GivenActor
from service.api.access.route_guards import READERS_AND_SUBSCRIBERS, SUBSCRIBERS
from service.api.fields.kinds import means
from service.api.fields.readers import given, or_none
from service.api.fields.refusals import FieldError, InvalidRequestError, Refusals
from service.api.fields.views import View
from service.api.http import cursors
from service.api.http.etags import GivenIfMatch, precondition, tagged
from service.api.http.problem_types import CONFLICT, LIMIT_REACHED
from service.api.http.problems import PROBLEMS
from service.api.http.requests import GivenRefusals, GivenServices, PathId
from service.api.resources.filtering import has_labels, is_named, page_through
from service.api.resources.subscriptions.secrets import check_secret, take_secret
from service.api.resources.subscriptions.subscription_bodies import (
    Skipping,
    SubscriptionChange,
    SubscriptionCreate,
    SubscriptionQuery,
)
from service.api.resources.subscriptions.subscription_fields import NOW, OLDEST, SPARE_SECONDS
from service.api.resources.subscriptions.subscription_views import (
    SubscriptionList,
    SubscriptionView,
)
from service.bootstrap import Services
from service.clock import now_ms
from service.domain.access.grants import Actor, Scope
from service.domain.delivery.event_types import OWNERS_EVENT_TYPES, includes
from service.domain.delivery.retry_schedule import JITTER
from service.domain.delivery.subscription import Subscription
from service.domain.egress.certificates import CertificateFacts, ClientCertificate
from service.domain.polling.integration import Integration
from service.domain.signatures.signing import Signature, read_secret
from service.ids import new_id
from service.storage.registry.filters import RecordFilter


class SkippedView(View, frozen=True, kw_only=True):
    """The number of skipped deliveries."""

    example: ClassVar = {"skipped": 12, "pending": 0}
    skipped: Annotated[int, means("how many events were removed from the outbox")]
    pending: Annotated[int, means("how many events are on the outbox now")]


_ALL = Skipping()  # for an empty body


class SubscriptionController(Controller):
    """Calls the subscription store."""

    path = "/subscriptions"
    tags = ["Subscriptions"]  # noqa: RUF012 - Litestar reads it as it is

    @post(
        guards=[SUBSCRIBERS],
        operation_id="createSubscription",
        summary="Create a subscription",
        opt={ACTION: "subscription.created", PROBLEMS: (LIMIT_REACHED,)},
        response_description="The new subscription, with its secret",
    )
    async def create(
        self,
        data: JSONBody[SubscriptionCreate],
        refusals: GivenRefusals,
        services: GivenServices,
        actor: GivenActor,
    ) -> Response[SubscriptionView]:
        """The subscription receives events from now on, or from the time in `from`. The response
        contains its secret, or the public key of ed25519. The private key is never returned."""
        if isinstance(data.begins, int) and data.begins > now_ms():
            refusals.refuse("from", "is in the future", "leave it out to begin now")
        await _check(data, refusals, services, actor)
        check_secret(data.secret, data.signature, refusals)
        refusals.settle()
        secret = take_secret(data.secret, data.signature or Signature.HMAC)
        values = given(data)
        for name in ("begins", "secret", "signature"):
            values.pop(name, None)
        extra = values.pop("headers", {})
        certificate, facts = values.pop("client_certificate", None) or (None, None)
        _check_scheme(data.url, facts)
        now = now_ms()
        subscription = Subscription(
            id=new_id("sub"),
            created_at=now,
            updated_at=now,
            public_key=read_secret(secret).public_key,
            header_names=tuple(extra),
            client_certificate=facts,
            **{"owner": actor.owner, **values},
        )
        if data.begins == NOW:
            await services.subscriptions.create(subscription, [secret], extra, certificate)
        else:
            since = None if data.begins == OLDEST else int(data.begins)
            await services.backlog.create(
                subscription,
                [secret],
                extra,
                since,
                await services.api_keys.grant_of(subscription.owner),
                certificate,
            )
        shown = await _shown(services, subscription, secret)
        shown.set_header("location", f"/v1/subscriptions/{subscription.id}")
        return shown

    @get(
        guards=[READERS_AND_SUBSCRIBERS],
        operation_id="listSubscriptions",
        summary="List subscriptions",
        response_description="A page of subscriptions",
    )
    async def index(
        self, params: NamedDependency[SubscriptionQuery], services: GivenServices, actor: GivenActor
    ) -> SubscriptionList:
        """Lists the subscriptions in the order of creation. A subscriber gets its own. `label`
        selects subscriptions that filter by these labels. A filtered page examines at most 10,000
        subscriptions, so it can contain few subscriptions, or none, although `next` is not
        null."""
        limit, place = params.limit, params.after or None
        wanted = RecordFilter.of(params.state or None, params.name or None)
        read = partial(services.subscriptions.search, wanted)
        if actor.owner is not None:
            read = partial(services.subscriptions.page_owned, actor.owner, wanted)
        if params.state or params.name or params.label:
            found, position = await page_through(read, partial(_takes, params), limit, place)
        else:
            found, position = await read(limit, place)
        depths = await services.outboxes.depth_many([one.id for one in found])
        return SubscriptionList(
            items=[
                SubscriptionView.of(one, depth) for one, depth in zip(found, depths, strict=True)
            ],
            next=cursors.write_index(position),
        )

    @get(
        "/{subscription_id:str}",
        guards=[READERS_AND_SUBSCRIBERS],
        operation_id="showSubscription",
        summary="Show a subscription",
        response_description="The subscription",
    )
    async def show(
        self, subscription_id: PathId, services: GivenServices
    ) -> Response[SubscriptionView]:
        """Includes the numbers of its pending and dead deliveries."""
        subscription, depth = await services.summaries.get(subscription_id)
        return Response(SubscriptionView.of(subscription, depth), headers=tagged(subscription))

    @patch(
        "/{subscription_id:str}",
        guards=[SUBSCRIBERS],
        operation_id="changeSubscription",
        summary="Change a subscription",
        opt={ACTION: "subscription.updated", PROBLEMS: (CONFLICT,)},
        response_description="The changed subscription",
    )
    async def edit(
        self,
        subscription_id: PathId,
        data: JSONBody[SubscriptionChange],
        refusals: GivenRefusals,
        sent_headers: GivenIfMatch,
        services: GivenServices,
        actor: GivenActor,
    ) -> Response[SubscriptionView]:
        """Changes the fields in the body. Filters, `payload` and `format` apply to new events. The
        URL, headers and other settings of the request apply to pending deliveries too. A new
        `owner` gets only the events that its key may see: other pending deliveries become dead when
        they are due."""
        await _check(data, refusals, services, actor)
        refusals.settle()
        values = given(data)
        extra = values.pop("headers", None)
        if extra is not None:
            values["header_names"] = tuple(extra)
        certificate: ClientCertificate | msgspec.UnsetType | None = msgspec.UNSET
        if "client_certificate" in values:
            certificate, facts = values["client_certificate"] or (None, None)
            values["client_certificate"] = facts
        check = precondition(sent_headers)

        def change(before: Subscription) -> Subscription:
            check(before)
            at = max(now_ms(), before.updated_at + 1)
            after = msgspec.structs.replace(before, updated_at=at, **values)
            _check_scheme(after.url, after.client_certificate)
            return after

        subscription = await services.subscriptions.update(
            subscription_id, change, extra, certificate
        )
        return await _shown(services, subscription)

    @delete(
        "/{subscription_id:str}",
        guards=[SUBSCRIBERS],
        operation_id="deleteSubscription",
        summary="Delete a subscription",
        opt={ACTION: "subscription.deleted"},
        response_description="The subscription is deleted",
    )
    async def remove(
        self, subscription_id: PathId, sent_headers: GivenIfMatch, services: GivenServices
    ) -> None:
        """Also deletes the pending and dead deliveries of the subscription."""
        await services.subscriptions.delete(subscription_id, precondition(sent_headers))

    @post(
        "/{subscription_id:str}/resume",
        status_code=HTTPStatus.OK,
        guards=[SUBSCRIBERS],
        operation_id="resumeSubscription",
        summary="Resume a subscription",
        opt={ACTION: "subscription.resumed", PROBLEMS: (CONFLICT,)},
        response_description="The subscription, active again",
    )
    async def resume(
        self, subscription_id: PathId, services: GivenServices
    ) -> Response[SubscriptionView]:
        """Makes a paused, parked or disabled subscription active. All its pending deliveries are
        due now, including retries. Their earlier attempts still count."""
        subscription = await services.subscriptions.resume(subscription_id, now_ms())
        return await _shown(services, subscription)

    @post(
        "/{subscription_id:str}/skip",
        status_code=HTTPStatus.OK,
        guards=[SUBSCRIBERS],
        operation_id="skipPendingDeliveries",
        summary="Skip pending deliveries",
        opt={ACTION: "subscription.skipped"},
        response_description="How many were skipped",
    )
    async def skip(
        self, subscription_id: PathId, services: GivenServices, data: JSONBody[Skipping] = _ALL
    ) -> SkippedView:
        """Removes pending events from the outbox: all of them, or those that happened up to
        `until`. Skipped deliveries are not listed as dead. The response to an attempt in progress
        is not recorded. Replays are not changed. The body is optional."""
        subscription = await services.subscriptions.get(subscription_id)
        skipped = await services.outboxes.skip(subscription.id, or_none(data.until))
        (depth,) = await services.outboxes.depth_many([subscription.id])
        return SkippedView(skipped=skipped, pending=depth.pending)


def _takes(params: SubscriptionQuery, one: Subscription) -> bool:
    """The condition of a query's filters, without the states."""
    return is_named(params.name or None, one.description, one.url) and has_labels(
        one.labels, params.label or ()
    )


async def _check(
    data: SubscriptionChange, refusals: Refusals, services: Services, actor: Actor
) -> None:
    refusals.check_target("url", data.url, services.guard.check_url)
    _check_retries(data, refusals, services)
    ids = data.integration_ids or ()
    found = await services.integrations.get_many(ids)
    for index, (integration_id, stored) in enumerate(zip(ids, found, strict=True)):
        if stored is None or not _is_known(actor, stored[0]):
            refusals.refuse(
                f"integration_ids[{index}]",
                f"there is no integration {integration_id}",
                "register it first, or leave it out",
            )
    await _check_owner(data.owner, refusals, services, actor)
    if data.owner or actor.owner is not None:
        for index, event_type in enumerate(data.event_types or ()):
            if not any(includes([event_type], one) for one in OWNERS_EVENT_TYPES):
                refusals.refuse(
                    f"event_types[{index}]",
                    f"{event_type} is about the service, and only its operator can receive it",
                    f"leave it out; yours are {', '.join(OWNERS_EVENT_TYPES)}",
                )


async def _check_owner(
    owner: str | UnsetType | None, refusals: Refusals, services: Services, actor: Actor
) -> None:
    """Only an admin may set the owner, because the owner can read the secret."""
    if owner is not UNSET and actor.scope is not Scope.ADMIN:
        refusals.refuse("owner", "can be set only by an admin", "leave it out")
    elif owner:
        key = await services.api_keys.current(owner)
        if key is None:
            refusals.refuse("owner", f"there is no valid API key {owner}", "create it first")
        elif key.scope is not Scope.SUBSCRIBER:
            refusals.refuse(
                "owner", f"has the scope {key.scope}", f"name a key of scope {Scope.SUBSCRIBER}"
            )


def _is_known(actor: Actor, integration: Integration) -> bool:
    """Whether the actor may know that an integration exists."""
    return actor.grant is None or actor.grant.covers(integration.id, integration.labels)


def _check_scheme(url: str, certificate: CertificateFacts | None) -> None:
    """A client certificate needs https, because http has no handshake."""
    if certificate is not None and not url.lower().startswith("https:"):
        raise InvalidRequestError(
            [
                FieldError(
                    "client_certificate",
                    "cannot be presented to an http URL",
                    "send a url that begins with https://, or client_certificate null",
                )
            ]
        )


def _check_retries(data: SubscriptionChange, refusals: Refusals, services: Services) -> None:
    """Retries must end before the event's body expires."""
    schedule = data.retry_schedule_seconds or ()
    span = math.ceil(sum(schedule) * (1 + JITTER)) + SPARE_SECONDS
    retention = services.settings.event_retention_seconds
    if schedule and span > retention:
        refusals.refuse(
            "retry_schedule_seconds",
            f"takes up to {span} seconds, longer than events are kept ({retention})",
            "shorten it, or raise COURSEWIRE_EVENT_RETENTION_SECONDS",
        )


async def _shown(
    services: Services, subscription: Subscription, secret: str | None = None
) -> Response[SubscriptionView]:
    (depth,) = await services.outboxes.depth_many([subscription.id])
    return Response(SubscriptionView.of(subscription, depth, secret), headers=tagged(subscription))
