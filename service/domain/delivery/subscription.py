"""Subscriptions: their settings, and the events that match them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, StrEnum
from typing import Literal

import msgspec

from service.domain.access.grants import NOTHING, ApiKey
from service.domain.delivery.event_types import includes
from service.domain.delivery.retry_schedule import DEFAULT_SCHEDULE
from service.domain.egress.certificates import CertificateFacts
from service.domain.signatures.signing import Signature


class Payload(StrEnum):
    """Whether the body carries the course."""

    FULL = "full"
    THIN = "thin"


class Format(StrEnum):
    """The format of the body: our own envelope, or a CloudEvent."""

    STANDARD = "standard"
    CLOUDEVENTS = "cloudevents"


class Rendering(Enum):
    """The rendering of an event's body: the same event and rendering give the same bytes."""

    FULL = (Payload.FULL, Format.STANDARD)
    THIN = (Payload.THIN, Format.STANDARD)
    FULL_CLOUDEVENT = (Payload.FULL, Format.CLOUDEVENTS)
    THIN_CLOUDEVENT = (Payload.THIN, Format.CLOUDEVENTS)

    __hash__ = object.__hash__  # Enum hashes the name in Python, at each of an event's lookups

    @property
    def payload(self) -> Payload:
        """Whether the body carries the course."""
        return self.value[0]

    @property
    def format(self) -> Format:
        """The format of the body."""
        return self.value[1]


class SubscriptionState(StrEnum):
    """Active, or the reason why nothing is sent."""

    ACTIVE = "active"
    PAUSED = "paused"  # over the API
    PARKED = "parked"  # by the circuit breaker: only probes are sent
    DISABLED = "disabled"  # by the service, until it is resumed


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A URL, a filter, a rendering and limits; secrets are kept encrypted beside it.

    `public_key` is that of an ed25519 subscription's newest secret. The script that stores a secret
    also stores the public key, so both are always of one kind. `owner` is the API key that created
    it and whose grant limits its events, None for the operator's.

    `None` filters mean all: every `course.*` event, every integration, any labels, any changed
    path. `event_types` holds types and patterns as given; operational events must be included in
    them. Times are epoch ms.
    """

    id: str
    url: str
    created_at: int
    updated_at: int
    description: str | None = None
    event_types: tuple[str, ...] | None = None
    integration_ids: tuple[str, ...] | None = None
    labels: dict[str, str] | None = None
    changed: tuple[str, ...] | None = None
    payload: Payload = Payload.FULL
    format: Format = Format.STANDARD
    public_key: str | None = None
    header_names: tuple[str, ...] = ()
    client_certificate: CertificateFacts | None = None
    max_concurrency: int = 8
    timeout_seconds: float = 15.0
    retry_schedule_seconds: tuple[int, ...] = DEFAULT_SCHEDULE
    rate_per_second: float | None = None
    paused: bool = False
    disabled_reason: str | None = None
    owner: str | None = None

    @property
    def signature(self) -> Signature:
        """How pushes are signed."""
        return Signature.HMAC if self.public_key is None else Signature.ED25519

    @property
    def rendering(self) -> Rendering:
        """The rendering of events that match from now on."""
        return Rendering((self.payload, self.format))


def state_of(subscription: Subscription, *, parked: bool = False) -> SubscriptionState:
    """The state in responses; `parked` is whether its outbox is parked. A parked outbox is in the
    schedule like an active one."""
    if subscription.disabled_reason is not None:
        return SubscriptionState.DISABLED
    if subscription.paused:
        return SubscriptionState.PAUSED
    return SubscriptionState.PARKED if parked else SubscriptionState.ACTIVE


class Outbox(msgspec.Struct, frozen=True):
    """The target of matching events: a subscription's outbox and the rendering fixed on entry.
    `active` is whether the outbox is sent at present; it keeps queueing events in any case."""

    subscription_id: str
    rendering: Rendering
    active: bool = True


class Subject(msgspec.Struct, frozen=True):
    """The subscription that an operational event is about, and its owner."""

    subscription_id: str
    owner: str | None


class Matcher:
    """A snapshot of all subscriptions and of the API keys that own some, queried once per event.

    Subscriptions are first narrowed by integration and type, which a whole page shares, so an event
    costs only the subscriptions that may match it.
    """

    def __init__(
        self,
        version: int,
        subscriptions: Iterable[Subscription],
        api_keys: Iterable[ApiKey] = (),
        now_ms: int = 0,
    ) -> None:
        self.version = version
        self._subscriptions = tuple(subscriptions)
        valid = [key for key in api_keys if key.is_valid(now_ms)]
        self._grants = {key.id: key.visibility or NOTHING for key in valid}
        self._expires_at = min((key.expires_at for key in valid if key.expires_at), default=None)
        self._narrowed: dict[
            tuple[str, str, frozenset[tuple[str, str]]],
            tuple[tuple[Outbox, frozenset[str] | None], ...],
        ] = {}

    def has_expired(self, now_ms: int) -> bool:
        """Whether one of the valid keys has expired since."""
        return self._expires_at is not None and now_ms >= self._expires_at

    def outboxes(
        self,
        *,
        event_type: str,
        integration_id: str,
        labels: Mapping[str, str],
        changed: Iterable[str],
        about: Subject | None = None,
    ) -> tuple[Outbox, ...]:
        """The outboxes that receive one event.

        An event that is `about` a subscription belongs to no integration, so filters by integration
        ignore it. It never goes to that subscription itself.
        """
        if about is not None:
            return tuple(
                _outbox_of(subscription)
                for subscription in self._subscriptions
                if subscription.id != about.subscription_id
                and includes(subscription.event_types or (), event_type)
                and self._may_get(subscription, event_type, "", {}, about.owner)
            )
        key = (integration_id, event_type, frozenset(labels.items()))
        candidates = self._narrowed.get(key)
        if candidates is None:
            candidates = self._narrowed[key] = tuple(
                (
                    _outbox_of(subscription),
                    frozenset(subscription.changed) if subscription.changed is not None else None,
                )
                for subscription in self._subscriptions
                if _wants(subscription, event_type, integration_id, labels)
                and self._may_get(subscription, event_type, integration_id, labels)
            )
        if event_type != "course.updated":
            return tuple(outbox for outbox, _ in candidates)
        paths = frozenset(changed)
        return tuple(outbox for outbox, wanted in candidates if wanted is None or wanted & paths)

    def _may_get(
        self,
        subscription: Subscription,
        event_type: str,
        integration_id: str,
        labels: Mapping[str, str],
        owner: str | None = None,
    ) -> bool:
        if subscription.owner is None:
            return True
        grant = self._grants.get(subscription.owner, NOTHING)
        return grant.shows(event_type, integration_id, labels, owner)


def _outbox_of(subscription: Subscription) -> Outbox:
    active = state_of(subscription) is SubscriptionState.ACTIVE
    return Outbox(subscription.id, subscription.rendering, active)


def _wants(
    subscription: Subscription, event_type: str, integration_id: str, labels: Mapping[str, str]
) -> bool:
    wanted = ("course.*",) if subscription.event_types is None else subscription.event_types
    if not includes(wanted, event_type):
        return False
    if (
        subscription.integration_ids is not None
        and integration_id not in subscription.integration_ids
    ):
        return False
    return subscription.labels is None or all(
        labels.get(name) == value for name, value in subscription.labels.items()
    )


DeliveryState = Literal["pending", "retrying", "delivered", "dead"]
