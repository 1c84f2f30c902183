"""The scripts that change registrations of integrations, or request polls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from service.domain.polling.integration import PollKind
from service.storage.events.announcing import Announced
from service.storage.redis import keys
from service.storage.redis.keys import EpochKeys, Key, ScheduleKeys
from service.storage.redis.scripts import Script
from service.storage.registry.filters import RecordFilter


class MadeCredential(msgspec.Struct, frozen=True, kw_only=True):
    """A credential that is stored with its integration. `mark` is that of its key, which together
    with `base_url` identifies it."""

    id: str
    record: bytes
    api_key: bytes
    mark: str
    base_url: str


class RegisterIntegration(Script[None]):
    """Registers an integration, with the credential that was `made` for it, and makes its first
    poll due now unless it is paused. Refuses with STALE if its credential was edited or created
    meanwhile, with EXISTS, and with FULL if there are `most`."""

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
    """Stores an edited integration. `next_epoch` starts if it `moved` to another upstream, or if
    its baseline is not complete. `place` is the change of its place in the schedule. The previous
    credential is deleted if it `is_inline` and this was its last integration.

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
    """Deletes an integration with all its keys, and its credential if that `is_inline` and has no
    other integration. Running work loses its lease. Refuses with STALE."""

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
    """Queues a requested poll, or `joins` the running one, and makes it due now. After a poll that
    was joined, another follows at once to cover the pages it may have passed. Refuses with STALE
    unless `queued` is the id of the queued poll (None: there is none) and, if it does not join,
    unless `under_way` still states whether a poll is running.
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


class ListIntegrations(Script[list[bytes]]):
    """Reads the records of integrations that may match a filter, without deleted ones. The prefix
    precedes an id in a key."""

    integration_prefix: str = keys.integration("")
    ids: Sequence[str]
    filter: RecordFilter
