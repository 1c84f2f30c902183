"""Access: what the holder of a token may do, and which events it may see."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

COURSE_EVENT_PREFIX = "course."  # of the types of events that are about a course
SUBSCRIPTION_EVENT_PREFIX = "subscription."  # ... about a subscription


class Scope(StrEnum):
    """What a token opens."""

    ADMIN = "admin"
    SUBSCRIBER = "subscriber"
    READ = "read"
    METRICS = "metrics"


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """The integrations whose course events may be seen: those that are named, and those that
    carry all of `labels` (None: none because of its labels). As it stands, nothing.

    `holder` is the API key that it is granted to, which may also see what happens to its own
    subscriptions; it is not stored.
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
        """Whether an event may be seen; `owner` is that of the subscription that it is about.
        What is about the service itself otherwise never is."""
        if event_type.startswith(SUBSCRIPTION_EVENT_PREFIX):
            return owner is not None and owner == self.holder
        return event_type.startswith(COURSE_EVENT_PREFIX) and self.covers(integration_id, labels)


NOTHING = Grant()


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A token's record; of the token itself only a hash is kept, beside it.

    `grant` is that of a subscriber, None for the other scopes, which see every event or none.
    Times are epoch ms; `expires_at` is None if it never does.
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
        """The grant as one that knows whose it is."""
        return None if self.grant is None else msgspec.structs.replace(self.grant, holder=self.id)

    def is_valid(self, now_ms: int) -> bool:
        """Whether it still opens anything."""
        return self.expires_at is None or now_ms < self.expires_at


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking: an API key, or one of the tokens in the settings (`key_id` is None then).

    `grant` limits the events it sees; None: it does not. `expires_at` is when the token ends, epoch
    ms, None if never.
    """

    name: str
    scope: Scope
    key_id: str | None = None
    grant: Grant | None = None
    expires_at: int | None = None

    @property
    def owner(self) -> str | None:
        """Whose the subscriptions are that it creates; None: the operator's."""
        return self.key_id if self.scope is Scope.SUBSCRIBER else None

    def owns(self, owner: str | None) -> bool:
        """Whether a subscription of `owner` exists as far as this one may know."""
        return self.scope is not Scope.SUBSCRIBER or owner == self.key_id
