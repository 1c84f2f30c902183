"""`/v1/subscriptions`: who is told of changes, of which, and how."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Controller, Response, delete, get, patch, post

from service.api.access.audit_trail import ACTION
from service.api.access.authentication import FOR_SUBSCRIBERS, SHOWS_SECRETS, GivenActor
from service.api.http import cursors
from service.api.http.etags import HEADERS as IF_MATCH
from service.api.http.etags import precondition, tagged
from service.api.http.problems import CONFLICT, LIMIT_REACHED, PRECONDITION_FAILED
from service.api.http.requests import (
    PAGE_SIZE,
    AnyRequest,
    Document,
    GivenServices,
    PathId,
    document_or_empty,
    page_table,
    query_form,
)
from service.api.schema import views
from service.api.schema.client_certificates import client_certificate
from service.api.schema.field_types import (
    NOW,
    OLDEST,
    beginning,
    boolean,
    headers,
    identifier,
    labels,
    list_of,
    nullable,
    number,
    one_of,
    signing_secret,
    text,
    timestamp,
    url,
    whole_number,
)
from service.api.schema.filtering import filters, has_labels, is_named, page_through
from service.api.schema.form import Field, FieldError, Form, InvalidRequestError, Table
from service.api.schema.operations import problems, reads
from service.api.schema.schemas import (
    AttemptView,
    SecretView,
    SkippedView,
    SubscriptionList,
    SubscriptionView,
)
from service.api.schema.webhooks import TEST_EVENT
from service.bootstrap import Services
from service.clock import now_ms
from service.domain.access.grants import Actor
from service.domain.access.redaction import Redactor
from service.domain.access.signing import (
    MAX_IN_FORCE,
    MAX_SECRET_BYTES,
    MIN_SECRET_BYTES,
    Signature,
    Signer,
    SigningSecret,
    in_force,
    read_secret,
    rotated,
    signature_of,
)
from service.domain.courses.fingerprint import TRACKED_PATHS
from service.domain.delivery.retry import DEFAULT_SCHEDULE, JITTER
from service.domain.delivery.subscription import (
    EVENT_TYPES,
    OWNERS_EVENT_TYPES,
    Format,
    Payload,
    Subscription,
    SubscriptionState,
    state_of,
)
from service.domain.egress.certificates import CertificateFacts, ClientCertificate
from service.domain.errors import ConflictError
from service.domain.events.event import CONTENT_TYPES, StoredEvent, render
from service.domain.events.identifiers import event_id
from service.domain.polling.integration import Integration
from service.ids import event_suffixes, new_id
from service.storage.delivery.attempts import Attempt
from service.storage.redis.paging import IndexPosition
from service.storage.registry.subscriptions import new_secret

MAX_RETRIES = 20
MAX_RETRY_DELAY = 86_400
MAX_CONCURRENCY = 100
MIN_RATE = 0.001  # pushes per second: one in a quarter of an hour
MAX_RATE = 10_000
MAX_TIMEOUT_SECONDS = 60
SPARE_SECONDS = 3_600  # beyond all delays, for the attempts themselves and for queueing

MAX_OVERLAP_SECONDS = 604_800
OVERLAP_SECONDS = 86_400

ROTATE = "POST it to /v1/subscriptions/{id}/secret/rotate"
SECRET = Field(
    parser=signing_secret(),
    meaning="what pushes are signed with; one is made if it is left out. whsec_ and base64 of "
    f"{MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes for hmac; whsk_ and base64 of a private key's "
    "32-byte seed, or of seed and public half, for ed25519",
    fixed=ROTATE,
    write_only=True,
)
FIELDS: Table = {
    "url": Field(
        parser=url("https://example.com/webhooks"),
        meaning="where events are posted to",
        required=True,
    ),
    "description": Field(parser=nullable(text(1_000, lines=True)), meaning="what it is for"),
    "from": Field(
        parser=beginning(),
        meaning="where its outbox begins: now, if left out; oldest: with every event that is still "
        "kept and matches; or with those since a time. They come first, in their order",
        fixed="POST to /v1/subscriptions/{id}/replays for events of the past",
    ),
    "event_types": Field(
        parser=nullable(list_of(one_of(EVENT_TYPES), least=1, most=len(EVENT_TYPES))),
        meaning="null: every course.* event; operational events come only when named, "
        "and those about subscriptions whatever integrations are asked for",
    ),
    "integration_ids": Field(
        parser=nullable(list_of(identifier("int"), least=1, most=1_000)),
        meaning="null: events of all integrations",
    ),
    "labels": Field(
        parser=nullable(labels()),
        meaning="null: any; else only events of integrations that carry all of these labels",
    ),
    "changed": Field(
        parser=nullable(list_of(one_of(TRACKED_PATHS), least=1, most=len(TRACKED_PATHS))),
        meaning="null: any; else only course.updated events that name one of these paths, "
        "and all other events",
    ),
    "payload": Field(
        parser=one_of(Payload),
        meaning="full: with the course; thin: without it",
        default=str(Payload.FULL),
    ),
    "format": Field(
        parser=one_of(Format),
        meaning="standard: as documented under Webhooks; cloudevents: a structured CloudEvent 1.0 "
        "with the same data",
        default=str(Format.STANDARD),
    ),
    "headers": Field(
        parser=headers(),
        meaning="sent with every push; the values are encrypted and never returned",
        write_only=True,
    ),
    "client_certificate": Field(
        parser=nullable(client_certificate()),
        meaning="for receivers that demand one (mTLS), https alone: `certificate`, PEM, with its "
        "intermediates behind it, and `private_key`, PEM without a passphrase. Both are "
        "encrypted and never returned; null removes them",
        write_only=True,
    ),
    "signature": Field(
        parser=one_of(Signature),
        meaning="hmac: v1, with a secret that both sides know; ed25519: v1a, with a private key "
        "that never leaves the service and a public one for the receiver. Left out, it is what "
        "`secret` is for",
        fixed=ROTATE,
        default=str(Signature.HMAC),
    ),
    "secret": SECRET,
    "max_concurrency": Field(
        parser=whole_number(1, MAX_CONCURRENCY),
        meaning="how many pushes may be under way at once",
        default=8,
    ),
    "rate_per_second": Field(
        parser=nullable(number(MIN_RATE, MAX_RATE, "per second")),
        meaning="null: as fast as it takes them; else how many pushes may begin per second",
    ),
    "timeout_seconds": Field(
        parser=number(1, MAX_TIMEOUT_SECONDS, "seconds"),
        meaning="how long one attempt may take, the answer's body included",
        default=15,
    ),
    "retry_schedule_seconds": Field(
        parser=list_of(
            whole_number(1, MAX_RETRY_DELAY, "seconds"),
            least=0,
            most=MAX_RETRIES,
            distinct=False,
        ),
        meaning="from each failure to the next attempt, ±20 %; after the last the delivery is dead",
        default=list(DEFAULT_SCHEDULE),
    ),
    "paused": Field(
        parser=boolean(),
        meaning="whether nothing is sent; events are collected meanwhile",
        default=False,
    ),
}
REQUIRED = ("url",)
READ_ONLY = (
    *("id", "created_at", "updated_at", "public_key", "state", "disabled_reason"),
    *("pending", "dead", "oldest_pending_at", "owner"),
)
ROTATION: Table = {
    "overlap_seconds": Field(
        parser=whole_number(0, MAX_OVERLAP_SECONDS, "seconds"),
        meaning="how long the secrets in force until now go on signing beside the new one; 0 "
        "revokes them at once",
        default=OVERLAP_SECONDS,
    ),
    "secret": SECRET,
    "signature": Field(
        parser=one_of(Signature),
        meaning="hmac or ed25519, for a change from one to the other; left out, it is what "
        "`secret` is for, or stays",
    ),
}
SKIPPING: Table = {
    "until": Field(
        parser=nullable(timestamp()),
        meaning="skip events that happened up to this time; null, or left out: all there are",
    ),
}
FILTERS = filters(tuple(SubscriptionState), "their description or url")
PAGE = page_table(**FILTERS)


class SubscriptionController(Controller):
    """Thin over the subscription store."""

    path = "/subscriptions"
    tags = ["Subscriptions"]  # noqa: RUF012 - Litestar reads it as it is
    opt = {FOR_SUBSCRIBERS: True}  # noqa: RUF012 - likewise; one's own are seen to by `Access`

    @post(
        summary="Create a subscription",
        opt={ACTION: "subscription.created"},
        response_description="The new subscription, with its secret",
        operation_class=reads(body=FIELDS, required=REQUIRED),
        responses=problems(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            LIMIT_REACHED,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ),
    )
    async def create(
        self, document: Document, services: GivenServices, actor: GivenActor
    ) -> Response[SubscriptionView]:
        """Events from now on reach it, or from where `from` says. The answer carries its secret,
        or for ed25519 the public key; the private one is never returned."""
        form = Form(document, FIELDS, required=REQUIRED, read_only=READ_ONLY)
        await _check(form, services, actor)
        _check_secret(form)
        values = form.accept()
        begins = values.pop("from", NOW)
        secret = _take_secret(values, Signature.HMAC)
        extra = values.pop("headers", {})
        certificate, facts = values.pop("client_certificate", None) or (None, None)
        _check_scheme(values["url"], facts)
        now = now_ms()
        subscription = Subscription(
            id=new_id("sub"),
            created_at=now,
            updated_at=now,
            public_key=read_secret(secret).public_key,
            header_names=tuple(extra),
            client_certificate=facts,
            owner=actor.owner,
            **values,
        )
        if begins == NOW:
            await services.subscriptions.create(subscription, [secret], extra, certificate)
        else:
            since = None if begins == OLDEST else begins
            await services.backlog.create(
                subscription, [secret], extra, since, actor.grant, certificate
            )
        shown = await _shown(services, subscription, secret)
        shown.set_header("location", f"/v1/subscriptions/{subscription.id}")
        return shown

    @get(
        summary="List subscriptions",
        response_description="A page of subscriptions",
        operation_class=reads(query=PAGE),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY),
    )
    async def index(
        self, request: AnyRequest, services: GivenServices, actor: GivenActor
    ) -> SubscriptionList:
        """In the order of creation, which neither additions nor deletions disturb; to a
        subscriber, its own. `label` asks for those that ask for these labels."""
        query = query_form(request, PAGE).accept()
        limit, place = query.get("limit", PAGE_SIZE), query.get("after")
        read = services.subscriptions.page
        if actor.owner is not None:
            read = partial(services.subscriptions.page_owned, actor.owner)
        if query.keys().isdisjoint(FILTERS):
            found, position = await read(limit, place)
        else:
            found, position = await page_through(
                read, _wanted(query, services), _place_of, limit, place
            )
        depths = await services.outboxes.depth_many([one.id for one in found])
        return SubscriptionList(
            [views.subscription(one, depth) for one, depth in zip(found, depths, strict=True)],
            cursors.write_index(position),
        )

    @get(
        "/{subscription_id:str}",
        summary="Show a subscription",
        response_description="The subscription",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    )
    async def show(
        self, subscription_id: PathId, services: GivenServices
    ) -> Response[SubscriptionView]:
        """With how much it has not received."""
        subscription, depth = await services.summaries.get(subscription_id)
        return Response(views.subscription(subscription, depth), headers=tagged(subscription))

    @patch(
        "/{subscription_id:str}",
        summary="Change a subscription",
        opt={ACTION: "subscription.updated"},
        response_description="The changed subscription",
        operation_class=reads(body=FIELDS, editing=True, headers=IF_MATCH),
        responses=problems(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.NOT_FOUND,
            CONFLICT,
            PRECONDITION_FAILED,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ),
    )
    async def edit(
        self,
        subscription_id: PathId,
        document: Document,
        request: AnyRequest,
        services: GivenServices,
        actor: GivenActor,
    ) -> Response[SubscriptionView]:
        """Changes what is sent. Filters, `payload` and `format` hold for events from now on; where
        and how they are posted changes for pending ones too."""
        form = Form(document, FIELDS, editing=True, read_only=READ_ONLY)
        await _check(form, services, actor)
        values = form.accept()
        extra = values.pop("headers", None)
        if extra is not None:
            values["header_names"] = tuple(extra)
        certificate: ClientCertificate | msgspec.UnsetType | None = msgspec.UNSET
        if "client_certificate" in values:
            certificate, facts = values["client_certificate"] or (None, None)
            values["client_certificate"] = facts
        check = precondition(request)

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
        summary="Delete a subscription",
        opt={ACTION: "subscription.deleted"},
        response_description="It is deleted",
        operation_class=reads(headers=IF_MATCH),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, PRECONDITION_FAILED),
    )
    async def remove(
        self, subscription_id: PathId, request: AnyRequest, services: GivenServices
    ) -> None:
        """With everything that it has not received."""
        await services.subscriptions.delete(subscription_id, precondition(request))

    @get(
        "/{subscription_id:str}/secret",
        summary="Show a subscription's secret",
        opt={SHOWS_SECRETS: True},
        response_description="The secret, or the public key",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    )
    async def secret(self, subscription_id: PathId, services: GivenServices) -> SecretView:
        """What the receiver verifies signatures with, those of rotated secrets included as long
        as they overlap. The private keys of ed25519 are never returned."""
        secrets = await services.subscriptions.secrets(subscription_id)
        return views.secret(in_force(secrets, now_ms()))

    @post(
        "/{subscription_id:str}/secret/rotate",
        status_code=HTTPStatus.OK,
        summary="Rotate a subscription's secret",
        opt={ACTION: "subscription.secret_rotated"},
        response_description="The new secret, or its public key",
        operation_class=reads(body=ROTATION),
        responses=problems(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.NOT_FOUND,
            CONFLICT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ),
    )
    async def rotate(
        self, subscription_id: PathId, request: AnyRequest, services: GivenServices
    ) -> Response[SecretView]:
        """While the old secret overlaps, every push carries a signature of each, the newest
        first. The body may be left out."""
        form = Form(await document_or_empty(request), ROTATION)
        _check_secret(form)
        values = form.accept()
        overlap_ms = values.get("overlap_seconds", OVERLAP_SECONDS) * 1000

        def change(
            before: Subscription, secrets: list[SigningSecret]
        ) -> tuple[Subscription, list[SigningSecret]]:
            now = now_ms()
            new = _take_secret(dict(values), before.signature)
            if any(one.secret == new for one in in_force(secrets, now)):
                form.refuse("secret", "is in force already", "leave it out and another is made")
                form.accept()
            after = rotated(secrets, new, overlap_ms, now)
            if len(after) > MAX_IN_FORCE:
                raise ConflictError(
                    f"{MAX_IN_FORCE} secrets are in force; wait until one has ended, or send "
                    "overlap_seconds 0 to end them all"
                )
            subscription = msgspec.structs.replace(
                before,
                public_key=read_secret(new).public_key,
                updated_at=max(now, before.updated_at + 1),
            )
            return subscription, after

        subscription, secrets = await services.subscriptions.rotate(subscription_id, change)
        return Response(views.secret(secrets), headers=tagged(subscription))

    @post(
        "/{subscription_id:str}/resume",
        status_code=HTTPStatus.OK,
        summary="Resume a subscription",
        opt={ACTION: "subscription.resumed"},
        response_description="The subscription, active again",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, CONFLICT),
    )
    async def resume(
        self, subscription_id: PathId, services: GivenServices
    ) -> Response[SubscriptionView]:
        """Brings one that is paused, parked or disabled back to active. Whatever it has not
        received is due now, retries included; how often each was tried stays counted."""
        subscription = await services.subscriptions.resume(subscription_id, now_ms())
        return await _shown(services, subscription)

    @post(
        "/{subscription_id:str}/skip",
        status_code=HTTPStatus.OK,
        summary="Skip pending deliveries",
        opt={ACTION: "subscription.skipped"},
        response_description="How many were skipped",
        operation_class=reads(body=SKIPPING),
        responses=problems(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ),
    )
    async def skip(
        self, subscription_id: PathId, request: AnyRequest, services: GivenServices
    ) -> SkippedView:
        """Takes what has not been delivered off the outbox: all of it, or what happened up to
        `until`. It is not listed as dead; what an answer to an attempt under way says is no longer
        recorded. Replays are not touched. The body may be left out."""
        values = Form(await document_or_empty(request), SKIPPING).accept()
        subscription = await services.subscriptions.get(subscription_id)
        skipped = await services.outboxes.skip(subscription.id, values.get("until"))
        (depth,) = await services.outboxes.depth_many([subscription.id])
        return SkippedView(skipped=skipped, pending=depth.pending)

    @post(
        "/{subscription_id:str}/test",
        status_code=HTTPStatus.OK,
        summary="Send a test event",
        opt={ACTION: "subscription.tested"},
        response_description="The attempt",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    )
    async def test(self, subscription_id: PathId, services: GivenServices) -> AttemptView:
        """Posts a signed `coursewire.test` to the URL at once and returns the attempt, whatever
        the subscription's state and filters. It is neither stored nor retried."""
        subscription = await services.subscriptions.get(subscription_id)
        secrets = await services.subscriptions.secrets(subscription_id)
        extra = await services.subscriptions.headers(subscription_id)
        certificate = await services.subscriptions.certificate(subscription_id)
        attempt = await _send_test(services, subscription, secrets, extra, certificate)
        return views.attempt(attempt)


def _wanted(
    query: dict[str, Any], services: Services
) -> Callable[[list[Subscription]], Awaitable[list[bool]]]:
    """What the filters of a query let through."""

    async def takes_each(found: list[Subscription]) -> list[bool]:
        parked = [False] * len(found)
        if "state" in query:
            depths = await services.outboxes.depth_many([one.id for one in found])
            parked = [depth.parked for depth in depths]
        return [
            ("state" not in query or state_of(one, parked=held) in query["state"])
            and is_named(query.get("name"), one.description, one.url)
            and has_labels(one.labels, query.get("label", ()))
            for one, held in zip(found, parked, strict=True)
        ]

    return takes_each


def _place_of(subscription: Subscription) -> IndexPosition:
    return IndexPosition(subscription.created_at, subscription.id)


async def _send_test(
    services: Services,
    subscription: Subscription,
    secrets: list[SigningSecret],
    extra: dict[str, str],
    certificate: ClientCertificate | None,
) -> Attempt:
    now = now_ms()
    (suffix,) = event_suffixes(1)
    event = StoredEvent(
        id=event_id(f"{now}-0", suffix),
        position=f"{now}-0",
        type=TEST_EVENT,
        integration_id="",
        course_id="",
        sequence=0,
        previous_sequence=None,
        facts=msgspec.json.encode({"subscription_id": subscription.id}),
        course=None,
    )
    body = render(event, subscription.rendering)
    signed = Signer(secrets).headers(event.id, now, body)
    outcome = await services.receiver.post(
        subscription.url,
        {**extra, "content-type": CONTENT_TYPES[subscription.format], **signed},
        body,
        timeout=subscription.timeout_seconds,
        redactor=Redactor([*(one.secret for one in secrets), *extra.values()]),
        certificate=certificate,
    )
    return Attempt(
        event_id=event.id,
        number=1,
        at=now,
        outcome=outcome.kind,
        duration_ms=outcome.duration_ms,
        status=outcome.status,
        dns_ms=outcome.dns_ms,
        connect_ms=outcome.connect_ms,
        first_byte_ms=outcome.first_byte_ms,
        error=outcome.error,
        excerpt=outcome.excerpt.decode(errors="replace"),
    )


async def _check(form: Form, services: Services, actor: Actor) -> None:
    form.check_target("url", services.guard.check_url)
    begins = form.values.get("from", NOW)
    if isinstance(begins, int) and begins > now_ms():
        form.refuse("from", "is in the future", "leave it out to begin now")
    _check_retries(form, services)
    ids = form.values.get("integration_ids") or ()
    found = await services.integrations.get_many(ids)
    for index, (integration_id, stored) in enumerate(zip(ids, found, strict=True)):
        if stored is None or not _is_known(actor, stored[0]):
            form.refuse(
                f"integration_ids[{index}]",
                f"there is no integration {integration_id}",
                "register it first, or leave it out",
            )
    if actor.owner is not None:
        for index, event_type in enumerate(form.values.get("event_types") or ()):
            if event_type not in OWNERS_EVENT_TYPES:
                form.refuse(
                    f"event_types[{index}]",
                    f"{event_type} is about the service, which is its operator's to know",
                    f"leave it out; yours are {', '.join(OWNERS_EVENT_TYPES)}",
                )


def _is_known(actor: Actor, integration: Integration) -> bool:
    """Whether someone may know that an integration is there."""
    return actor.grant is None or actor.grant.covers(integration.id, integration.labels)


def _check_scheme(url: str, certificate: CertificateFacts | None) -> None:
    """A client certificate is shown in handshakes, which http has none of."""
    if certificate is not None and not url.lower().startswith("https:"):
        raise InvalidRequestError(
            [
                FieldError(
                    "client_certificate",
                    "cannot be shown to an http URL",
                    "send a url that begins with https://, or client_certificate null",
                )
            ]
        )


def _check_secret(form: Form) -> None:
    """A secret must be one for the signature that is asked for beside it."""
    secret, signature = form.values.get("secret"), form.values.get("signature")
    if secret and signature and signature_of(secret) != signature:
        form.refuse(
            "secret",
            f"is one for {signature_of(secret)}",
            f"leave it out and one for {signature} is made, or leave out signature",
        )


def _take_secret(values: dict[str, Any], present: Signature) -> str:
    """The secret given, or a new one for the signature given, or else for the present one."""
    signature = Signature(values.pop("signature", present))
    given: str | None = values.pop("secret", None)
    return given or new_secret(signature)


def _check_retries(form: Form, services: Services) -> None:
    """Retries must end before the event's body is gone."""
    schedule = form.values.get("retry_schedule_seconds", ())
    span = math.ceil(sum(schedule) * (1 + JITTER)) + SPARE_SECONDS
    retention = services.settings.event_retention_seconds
    if schedule and span > retention:
        form.refuse(
            "retry_schedule_seconds",
            f"takes up to {span} seconds, longer than events are kept ({retention})",
            "shorten it, or raise COURSEWIRE_EVENT_RETENTION_SECONDS",
        )


async def _shown(
    services: Services, subscription: Subscription, secret: str | None = None
) -> Response[SubscriptionView]:
    (depth,) = await services.outboxes.depth_many([subscription.id])
    return Response(views.subscription(subscription, depth, secret), headers=tagged(subscription))
