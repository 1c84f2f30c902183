"""The fields of subscriptions in requests."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from msgspec import UNSET, UnsetType

from service.api.fields.kinds import (
    Moment,
    Several,
    identifier,
    means,
)
from service.api.fields.readers import Fields
from service.api.resources.filtering import STATES, ListQuery, NamePart, named
from service.api.resources.subscriptions.certificates import GivenCertificate
from service.api.resources.subscriptions.push_headers import PushHeaders
from service.api.resources.subscriptions.subscription_fields import (
    NOW,
    OVERLAP_SECONDS,
    Beginning,
    Concurrency,
    Description,
    Overlap,
    Paused,
    Rate,
    RetrySchedule,
    Secret,
    Timeout,
    Url,
    WantedChanges,
    WantedFormat,
    WantedIntegrations,
    WantedLabels,
    WantedPayload,
    WantedTypes,
)
from service.api.resources.subscriptions.subscription_views import SubscriptionView
from service.domain.delivery.subscription import (
    Subscription,
    SubscriptionState,
)
from service.domain.signatures.signing import Signature

_ROTATE = "POST it to /v1/subscriptions/{id}/secret/rotate"


class SubscriptionChange(Fields, frozen=True, kw_only=True):
    """The changed fields of a subscription."""

    shown: ClassVar = SubscriptionView
    fixed: ClassVar = {
        "from": "POST to /v1/subscriptions/{id}/replays for events of the past",
        "signature": _ROTATE,
        "secret": _ROTATE,
    }
    examples: ClassVar = {
        "pause": ("Queue events and send nothing", {"paused": True}),
        "slow": ("At most two pushes per second", {"rate_per_second": 2}),
    }
    url: Url | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    event_types: WantedTypes | UnsetType = UNSET
    integration_ids: WantedIntegrations | UnsetType = UNSET
    labels: WantedLabels | UnsetType = UNSET
    changed: WantedChanges | UnsetType = UNSET
    payload: WantedPayload | UnsetType = UNSET
    format: WantedFormat | UnsetType = UNSET
    headers: Annotated[
        PushHeaders | UnsetType,
        means("sent with every push; the values are encrypted and never returned", writeOnly=True),
    ] = UNSET
    client_certificate: Annotated[
        GivenCertificate | UnsetType | None,
        means(
            (
                "for receivers that require one (mTLS), only with https: `certificate`, PEM, "
                "with its intermediates behind it, and `private_key`, PEM without a "
                "passphrase. Both are encrypted and never returned; null removes them"
            ),
            writeOnly=True,
        ),
    ] = UNSET
    max_concurrency: Concurrency | UnsetType = UNSET
    rate_per_second: Rate | UnsetType = UNSET
    timeout_seconds: Timeout | UnsetType = UNSET
    retry_schedule_seconds: RetrySchedule | UnsetType = UNSET
    paused: Paused | UnsetType = UNSET
    owner: Annotated[
        Annotated[str, identifier("key")] | UnsetType | None,
        means(
            "only an admin can set it: the API key of scope subscriber that the subscription "
            "belongs to and whose grant limits it; null: it belongs to the operator"
        ),
    ] = UNSET


class SubscriptionCreate(SubscriptionChange, frozen=True, kw_only=True):
    """A new subscription."""

    fixed: ClassVar = {}
    defaults: ClassVar = Subscription
    examples: ClassVar = {
        "simple": ("Every course event", {"url": "https://example.com/webhooks"}),
        "narrow": (
            "Titles of European courses, from the past on",
            {
                "url": "https://example.com/webhooks",
                "description": "search index",
                "event_types": ["course.created", "course.updated", "course.deleted"],
                "labels": {"region": "eu"},
                "changed": ["revisions.title"],
                "payload": "thin",
                "headers": {"authorization": "Bearer ..."},
                "from": "oldest",
            },
        ),
    }
    url: Url
    begins: Beginning = msgspec.field(default=NOW, name="from")
    signature: Annotated[
        Signature | UnsetType,
        means(
            (
                "hmac: v1, with a shared secret; ed25519: v1a, with a private key that never "
                "leaves the service and a public one for the receiver. If left out, it follows "
                "from the kind of `secret`"
            ),
            default=str(Signature.HMAC),
        ),
    ] = UNSET
    secret: Secret | UnsetType = UNSET


class SecretRotation(Fields, frozen=True, kw_only=True):
    """How a secret is replaced."""

    examples: ClassVar = {"hour": ("The old one signs for another hour", {"overlap_seconds": 3600})}
    overlap_seconds: Overlap = OVERLAP_SECONDS
    secret: Secret | UnsetType = UNSET
    signature: Annotated[
        Signature | UnsetType,
        means(
            "hmac or ed25519, for a change from one to the other; if left out, it follows "
            "from the kind of `secret`, or stays"
        ),
    ] = UNSET


class Skipping(Fields, frozen=True, kw_only=True):
    """The events to skip."""

    examples: ClassVar = {"until": ("Events up to a time", {"until": "2026-11-23T09:30:00Z"})}
    until: Annotated[
        Moment | UnsetType | None,
        means("skip events that happened up to this time; null, or left out: all of them"),
    ] = UNSET


class SubscriptionQuery(ListQuery, frozen=True, kw_only=True):
    """The filters of subscriptions."""

    state: Annotated[Several[SubscriptionState] | UnsetType, STATES] = UNSET
    name: Annotated[NamePart | UnsetType, named("their description or url")] = UNSET
