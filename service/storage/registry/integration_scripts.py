"""The scripts that change registrations of integrations, or ask for their polls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from service.domain.polling.integration import PollKind
from service.storage.events.announcing import Announced
from service.storage.redis import keys
from service.storage.redis.keys import EpochKeys, Key, ScheduleKeys
from service.storage.redis.scripts import Script


class MadeCredential(msgspec.Struct, frozen=True, kw_only=True):
    """A credential that is stored with the integration that brings its values along. `mark` is that
    of its key, by which it is found together with `base_url`."""

    id: str
    record: bytes
    api_key: bytes
    mark: str
    base_url: str


class RegisterIntegration(Script[None]):
    """Registers an integration, with the credential that was `made` for it, and makes its first
    poll due now unless it is paused. Refuses with STALE if its credential was edited, or made by
    others meanwhile, with EXISTS, and with FULL if there are `most`."""

    integration: Key
    credential: Key
    credentials: Key = keys.CREDENTIALS
    by_values: Key = keys.CREDENTIALS_BY_VALUES
    integrations: Key = keys.INTEGRATIONS
    upstreams: Key = keys.UPSTREAMS
    totals: Key = keys.TOTALS
    schedule: ScheduleKeys = keys.schedule("polls")
    id: str
    created_at: int
    record: bytes
    epoch: str
    upstream: str
    credential_as_read: bytes | None
    made: MadeCredential | None
    paused: bool
    most: int


class EditIntegration(Script[None]):
    """Stores an edited integration. `next_epoch` begins if it `moved` to another upstream, or if
    its baseline is not complete. `place` is what becomes of its place in the schedule. The
    credential until now goes if it `is_inline` and this was its last integration.

    Refuses with STALE, SUBSCRIPTIONS or EXISTS. Announces `epoch`.
    """

    integration: Key
    credential_before: Key
    credential_after: Key
    credentials: Key = keys.CREDENTIALS
    by_values: Key = keys.CREDENTIALS_BY_VALUES
    kept: EpochKeys
    announced: Announced
    upstreams: Key = keys.UPSTREAMS
    completed_deltas: Key = keys.completed("delta")
    completed_full_polls: Key = keys.completed("full")
    schedule: ScheduleKeys = keys.schedule("polls")
    id: str
    as_read: bytes
    record: bytes
    epoch: str
    next_epoch: str | None
    moved: bool
    upstream_before: str
    upstream_after: str
    credential_before_as_read: bytes
    credential_after_as_read: bytes
    credential_before_id: str
    is_inline: bool
    place: Literal["wake", "stop", "leave"]


class DeleteIntegration(Script[None]):
    """Deletes an integration with all that is kept of it, and its credential if that `is_inline`
    and has no other integration. Work under way loses its lease. Refuses with STALE."""

    integration: Key
    credential: Key
    credentials: Key = keys.CREDENTIALS
    by_values: Key = keys.CREDENTIALS_BY_VALUES
    lease: Key
    polls: Key
    poll_order: Key
    kept: EpochKeys
    integrations: Key = keys.INTEGRATIONS
    upstreams: Key = keys.UPSTREAMS
    totals: Key = keys.TOTALS
    completed_deltas: Key = keys.completed("delta")
    completed_full_polls: Key = keys.completed("full")
    schedule: ScheduleKeys = keys.schedule("polls")
    id: str
    as_read: bytes
    epoch: str
    upstream: str
    credential_as_read: bytes
    credential_id: str
    is_inline: bool


class RequestPoll(Script[None]):
    """Queues a poll that was asked for, or `joins` the one under way, and makes it due now. The
    poll after one that was joined follows it at once, for what it may have passed by already.

    Refuses with STALE unless `queued` is the id of the queued poll (None: there is none) and, where
    it does not join, unless a poll is `under_way` as it was read.
    """

    integration: Key
    polls: Key
    poll_order: Key
    schedule: ScheduleKeys = keys.schedule("polls")
    id: str
    queued: str | None
    under_way: bool
    joins: bool
    kind: PollKind
    poll_id: str
    poll: bytes


class ListedIntegration(msgspec.Struct, frozen=True):
    """What lists are filtered by."""

    record: bytes
    state: str


class ListIntegrations(Script[list[ListedIntegration]]):
    """Reads the records and the states of integrations; those that are gone are left out. The
    prefix is what precedes an id in a key."""

    integration_prefix: str = keys.integration("")
    ids: Sequence[str]
