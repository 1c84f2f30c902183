"""Subscriptions in responses."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from service.api.fields import samples
from service.api.fields.kinds import means
from service.api.fields.views import Page, Timestamp, View
from service.api.resources.subscriptions.subscription_fields import (
    FORMAT,
    PAYLOAD,
    RETRY_SCHEDULE,
    Concurrency,
    Description,
    Paused,
    Rate,
    Timeout,
    Url,
    WantedChanges,
    WantedIntegrations,
    WantedLabels,
    WantedTypes,
)
from service.domain.delivery.subscription import Subscription, state_of
from service.domain.signatures.signing import Signature, signature_of
from service.storage.delivery.outboxes import OutboxDepth


class ClientCertificateView(View, frozen=True, kw_only=True):
    """The certificate that a subscription presents to its receiver. Neither the certificate nor its
    key is returned."""

    example: ClassVar = {
        "subject": "CN=coursewire,O=Example",
        "issuer": "CN=Example Clients",
        "serial": "4f1a09",
        "fingerprint_sha256": "9f86d081" * 8,
        "not_after": "2027-11-27T00:00:00.000Z",
    }
    subject: Annotated[str, means("the subject, in the notation of RFC 4514")]
    issuer: Annotated[str, means("the issuer, in the notation of RFC 4514")]
    serial: Annotated[str, means("its serial number, in hexadecimal")]
    fingerprint_sha256: Annotated[str, means("the SHA-256 of its DER form, in hexadecimal")]
    not_after: Annotated[Timestamp, means("when it expires")]


class SubscriptionView(View, frozen=True, kw_only=True):
    """A subscription. `headers` has the names of its headers with null values, because values are
    never returned; `secret` is present only in the response to its creation, and not for ed25519.
    """

    tagged: ClassVar = True
    example: ClassVar = {
        "id": samples.SUBSCRIPTION,
        "url": "https://example.com/webhooks",
        "description": "search index",
        "event_types": None,
        "integration_ids": None,
        "labels": {"region": "eu"},
        "changed": None,
        "payload": "full",
        "format": "standard",
        "signature": "hmac",
        "public_key": None,
        "headers": {"authorization": None},
        "client_certificate": ClientCertificateView.example,
        "max_concurrency": 8,
        "rate_per_second": None,
        "timeout_seconds": 15.0,
        "retry_schedule_seconds": [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400],
        "paused": False,
        "created_at": samples.EARLIER,
        "updated_at": samples.EARLIER,
        "owner": None,
        "state": "active",
        "disabled_reason": None,
        "pending": 3,
        "dead": 0,
        "oldest_pending_at": samples.AT,
    }
    id: Annotated[str, means("its id")]
    url: Url
    description: Description
    event_types: WantedTypes
    integration_ids: WantedIntegrations
    labels: WantedLabels
    changed: WantedChanges
    payload: Annotated[str, PAYLOAD]
    format: Annotated[str, FORMAT]
    signature: Annotated[str, means("hmac: signed as v1; ed25519: signed as v1a")]
    public_key: Annotated[
        str | None, means("the public key that verifies ed25519 signatures: whpk_ and base64")
    ]
    headers: Annotated[dict[str, None], means("the names of its headers, with null for each value")]
    client_certificate: Annotated[
        ClientCertificateView | None, means("the client certificate for receivers that require one")
    ]
    max_concurrency: Concurrency
    rate_per_second: Rate
    timeout_seconds: Timeout
    retry_schedule_seconds: Annotated[tuple[int, ...], RETRY_SCHEDULE]
    paused: Paused
    created_at: Annotated[Timestamp, means("when it was created")]
    updated_at: Annotated[Timestamp, means("when it was last changed")]
    state: Annotated[
        str,
        means(
            "active; paused by a person; parked: its receiver fails, and only probes are "
            "sent; disabled by the service until it is resumed"
        ),
    ]
    disabled_reason: Annotated[str | None, means("why it is disabled")]
    owner: Annotated[
        str | None, means("the API key with scope subscriber that owns it; null: the operator")
    ]
    pending: Annotated[int, means("events not yet delivered")]
    dead: Annotated[int, means("dead deliveries that are still listed")]
    oldest_pending_at: Annotated[Timestamp | None, means("when the oldest pending event happened")]
    secret: Annotated[
        str | msgspec.UnsetType,
        means(
            "the secret that signs hmac pushes; only in the response that creates the subscription"
        ),
    ] = msgspec.UNSET

    @classmethod
    def of(
        cls, one: Subscription, depth: OutboxDepth, secret: str | None = None
    ) -> SubscriptionView:
        """A subscription; with `secret` in the response to its creation."""
        certificate = one.client_certificate
        shown = None if secret is None else secret_to_show(secret)
        return cls.show(
            one,
            depth,
            headers=dict.fromkeys(one.header_names),
            client_certificate=certificate
            and ClientCertificateView.show(certificate, fingerprint_sha256=certificate.fingerprint),
            state=state_of(one, parked=depth.parked),
            secret=msgspec.UNSET if shown is None else shown,
        )


class SubscriptionList(Page, frozen=True, kw_only=True):
    """A page of subscriptions in the order of creation; `next` is the cursor of the next page."""

    items: Annotated[list[SubscriptionView], means("the page")]


def secret_to_show(secret: str) -> str | None:
    """None instead of a private key, which only the service needs."""
    return secret if signature_of(secret) is Signature.HMAC else None
