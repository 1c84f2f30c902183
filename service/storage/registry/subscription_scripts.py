"""The scripts that write subscriptions and read them all."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from service.domain.delivery.subscription import SubscriptionState
from service.storage.events.announcing import Announced
from service.storage.redis import keys
from service.storage.redis.keys import Key, QueueKeys, ScheduleKeys
from service.storage.redis.scripts import Script
from service.storage.registry.filters import RecordFilter


class WriteSubscription(Script[None]):
    """Stores a new or an edited subscription and increments the subscriptions' version.

    `read_up_to` is the position up to which a new outbox was filled from the log (start of an
    XRANGE). An encrypted value of None stays unchanged. Refuses with STALE (`as_read` is None for a
    new one), with FULL if there are `most`, and with BEHIND if the log has events that the outbox
    lacks. A new one `begins` at a time (epoch ms), None: now.
    """

    subscription: Key
    outbox: Key
    outbox_state: Key
    replayed: Key
    replay_queue: Key
    subscriptions: Key = keys.SUBSCRIPTIONS
    subscriptions_version: Key = keys.SUBSCRIPTIONS_VERSION
    log: Key = keys.EVENTS
    totals: Key = keys.TOTALS
    schedule: ScheduleKeys = keys.schedule("outboxes")
    id: str
    created_at: int
    as_read: bytes | None
    record: bytes
    secrets: bytes | None = None
    headers: bytes | None = None
    client_certificate: bytes | None = None
    without_certificate: bool = False
    state: SubscriptionState
    read_up_to: str | None
    begins: int | None
    most: int


class ResumeSubscription(Script[None]):
    """Makes a subscription active: updates its record, clears its outbox's failures and holds, and
    makes all retries due now. A running sender detects the random `resumed`.

    Refuses with STALE or SUBSCRIPTIONS. Announces `unparked` and `enabled`.
    """

    subscription: Key
    outbox_state: Key
    lease: Key
    live: QueueKeys
    replayed: QueueKeys
    replay_queue: Key
    announced: Announced
    id: str
    as_read: bytes
    record: bytes
    resumed: str


class DeleteSubscription(Script[None]):
    """Deletes a subscription with all its keys. Running work loses its lease. Refuses with GONE, or
    with STALE unless `as_read` is None."""

    subscription: Key
    outbox: Key
    outbox_state: Key
    outbox_dead: Key
    replays: Key
    lease: Key
    others: Sequence[Key]
    subscriptions: Key = keys.SUBSCRIPTIONS
    subscriptions_version: Key = keys.SUBSCRIPTIONS_VERSION
    totals: Key = keys.TOTALS
    schedule: ScheduleKeys = keys.schedule("outboxes")
    id: str
    as_read: bytes | None
    replay_prefix: str


class Snapshot(msgspec.Struct, frozen=True):
    """The records of all subscriptions and all API keys, as of one moment."""

    version: int
    subscriptions: list[bytes]
    api_keys: list[bytes]


class ReadSubscriptions(Script[Snapshot]):
    """Reads all subscriptions, the API keys that may own them, and their version. The prefixes
    precede an id in a key."""

    subscriptions_version: Key = keys.SUBSCRIPTIONS_VERSION
    subscriptions: Key = keys.SUBSCRIPTIONS
    api_keys: Key = keys.API_KEYS
    subscription_prefix: str = keys.subscription("")
    api_key_prefix: str = keys.api_key("")


class FindOwned(Script[list[bytes]]):
    """Reads the records of the subscriptions that may match a filter, and contain an owner's id,
    perhaps in another field. The prefix precedes an id in a key; `outbox_state` has a star in place
    of the id."""

    subscriptions: Key = keys.SUBSCRIPTIONS
    subscription_prefix: str = keys.subscription("")
    outbox_state: str = keys.outbox_state("*")
    owner: str
    filter: RecordFilter


class ListSubscriptions(Script[list[bytes | None]]):
    """Reads the records of subscriptions, None for a deleted one and for one that does not match
    the filter. The prefix precedes an id in a key; `outbox_state` has a star in place of the id."""

    subscription_prefix: str = keys.subscription("")
    outbox_state: str = keys.outbox_state("*")
    ids: Sequence[str]
    filter: RecordFilter
