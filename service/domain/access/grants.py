"""Access: the rights of a token, and the events that it may see."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

COURSE_EVENT_PREFIX = "course."  # beginning of the types of course events
SUBSCRIPTION_EVENT_PREFIX = "subscription."  # beginning of the types of events about a subscription


class Scope(StrEnum):
    """The rights of a token."""

    ADMIN = "admin"
    SUBSCRIBER = "subscriber"
    READ = "read"
    METRICS = "metrics"


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """The integrations whose course events a token may see: the named ones, and those with all of
    `labels` (None: none by labels). The default grants nothing. `holder` is the API key, which may
    also see events about its own subscriptions; it is not stored.
    """

    integration_ids: tuple[str, ...] = ()
    labels: dict[str, str] | None = None
    holder: str | None = None

    def covers(self, integration_id: str, labels: Mapping[str, str]) -> bool:
        """Whether an integration with these labels is granted."""
        if integration_id in self.integration_ids:
            return True
        return bool(self.labels) and all(
            labels.get(name) == value for name, value in (self.labels or {}).items()
        )

    def shows(
        self,
        event_type: str,
        integration_id: str,
        labels: Mapping[str, str],
        owner: str | None = None,
    ) -> bool:
        """Whether an event may be seen; `owner` owns the subscription that it is about. Other
        events about the service are never visible."""
        if event_type.startswith(SUBSCRIPTION_EVENT_PREFIX):
            return owner is not None and owner == self.holder
        return event_type.startswith(COURSE_EVENT_PREFIX) and self.covers(integration_id, labels)


NOTHING = Grant()


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A token's record; only a hash of the token is stored, separately. `grant` is set for a
    subscriber, and None for the other scopes, which see every event or none. Times are epoch ms;
    `expires_at` is None if it never does.
    """

    id: str
    name: str
    scope: Scope
    created_at: int
    updated_at: int
    expires_at: int | None = None
    grant: Grant | None = None

    @property
    def visibility(self) -> Grant | None:
        """The grant with the key as its holder."""
        return None if self.grant is None else msgspec.structs.replace(self.grant, holder=self.id)

    def is_valid(self, now_ms: int) -> bool:
        """Whether the key is still valid."""
        return self.expires_at is None or now_ms < self.expires_at


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """The sender of a request: an API key, or a token of the settings (then `key_id` is None).
    `grant` limits the events that it sees; None: no limit. `expires_at` is when the token ends,
    epoch ms, None if never.
    """

    name: str
    scope: Scope
    key_id: str | None = None
    grant: Grant | None = None
    expires_at: int | None = None

    @property
    def owner(self) -> str | None:
        """The owner of subscriptions that the actor creates; None: the operator."""
        return self.key_id if self.scope is Scope.SUBSCRIBER else None

    def owns(self, owner: str | None) -> bool:
        """Whether the actor may know that a subscription of `owner` exists."""
        return self.scope is not Scope.SUBSCRIBER or owner == self.key_id
