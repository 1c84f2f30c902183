"""`/v1/subscriptions/{id}/test`: one push of a test event, at once."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from litestar import post

from service.api.access.audit_trail import ACTION
from service.api.access.route_guards import SUBSCRIBERS
from service.api.http.requests import GivenServices, PathId
from service.api.resources.deliveries import AttemptView
from service.api.schema.webhooks import TEST_EVENT
from service.bootstrap import Services
from service.clock import now_ms
from service.domain.access.redaction import Redactor
from service.domain.delivery.subscription import Subscription
from service.domain.egress.certificates import ClientCertificate
from service.domain.events.event import CONTENT_TYPES, StoredEvent, render
from service.domain.events.identifiers import event_id
from service.domain.signatures.signing import Signer, SigningSecret
from service.ids import event_suffixes
from service.storage.delivery.attempts import Attempt


@post(
    "/subscriptions/{subscription_id:str}/test",
    tags=["Subscriptions"],
    status_code=HTTPStatus.OK,
    guards=[SUBSCRIBERS],
    operation_id="sendTestEvent",
    summary="Send a test event",
    opt={ACTION: "subscription.tested"},
    response_description="The attempt",
)
async def send_test(subscription_id: PathId, services: GivenServices) -> AttemptView:
    """Posts a signed `coursewire.test` event to the URL at once and returns the attempt. The state
    and the filters of the subscription do not matter. The event is neither stored nor retried."""
    subscription = await services.subscriptions.get(subscription_id)
    secrets = await services.subscriptions.secrets(subscription_id)
    extra = await services.subscriptions.headers(subscription_id)
    certificate = await services.subscriptions.certificate(subscription_id)
    attempt = await _send_test(services, subscription, secrets, extra, certificate)
    return AttemptView.show(attempt)


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
    return Attempt.of(outcome, event_id=event.id, at=now)
