"""Operational events: reports about an integration or a subscription.

`domain/delivery/event_types.py` lists their types.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

import msgspec

from service.domain.delivery.subscription import Matcher, Outbox, Subject, Subscription
from service.domain.polling.integration import Integration


class When(StrEnum):
    """The change that an event announces: the script that makes the change knows whether it
    occurred."""

    ALWAYS = ""
    EPOCH = "epoch"  # another epoch started
    TROUBLED = "troubled"  # an integration started to need an operator
    UNTROUBLED = "untroubled"  # ... and no longer does
    PARKED = "parked"
    UNPARKED = "unparked"
    DISABLED = "disabled"
    ENABLED = "enabled"


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """An operational event that is not in the log yet.

    `facts` is the JSON of its data. The script that makes the change `when` appends the event if
    that change occurs.
    """

    type: str
    facts: bytes
    order_key: str
    when: When = When.ALWAYS
    integration_id: str = ""
    labels: Mapping[str, str] = {}
    about: Subject | None = None

    def outboxes(self, matcher: Matcher) -> tuple[Outbox, ...]:
        """The outboxes that receive it."""
        return matcher.outboxes(
            event_type=self.type,
            integration_id=self.integration_id,
            labels=self.labels,
            changed=(),
            about=self.about,
        )


def of_integration(
    integration: Integration, event_type: str, said: Mapping[str, Any], when: When = When.ALWAYS
) -> Announcement:
    """An event about an integration."""
    facts = {
        "integration_id": integration.id,
        "upstream_id": integration.upstream_id,
        "external_id": integration.external_id,
        "labels": integration.labels,
        **said,
    }
    return Announcement(
        type=event_type,
        facts=msgspec.json.encode(facts),
        order_key=integration.id,
        when=when,
        integration_id=integration.id,
        labels=integration.labels,
    )


def of_subscription(
    subscription: Subscription, event_type: str, said: Mapping[str, Any], when: When = When.ALWAYS
) -> Announcement:
    """An event about a subscription. Its URL is left out, because it may contain a secret."""
    facts = {
        "subscription_id": subscription.id,
        "description": subscription.description,
        "owner": subscription.owner,
        **said,
    }
    return Announcement(
        type=event_type,
        facts=msgspec.json.encode(facts),
        order_key=subscription.id,
        when=when,
        about=Subject(subscription.id, subscription.owner),
    )


def of_epoch(
    integration: Integration,
    epoch: str,
    previous_epoch: str,
    reason: Literal["upstream", "baseline"],
) -> Announcement:
    """The event for a new epoch of an integration, because it has another `upstream`, or another
    unfinished `baseline`."""
    said = {
        "epoch": epoch,
        "previous_epoch": previous_epoch,
        "reason": reason,
        "baseline": integration.baseline.value,
    }
    return of_integration(integration, "integration.epoch_started", said, When.EPOCH)
