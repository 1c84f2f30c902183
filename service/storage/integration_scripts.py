"""The scripts that change registrations of integrations, or ask for their walks."""

from __future__ import annotations

from typing import Literal

from service.domain.integrations import WalkKind
from service.storage import keys
from service.storage.announcing import Announced
from service.storage.keys import EpochKeys, Key, ScheduleKeys
from service.storage.scripts import Script


class RegisterIntegration(Script[None]):
    """Registers an integration and makes its first walk due now unless it is paused. Refuses with
    STALE if its credential was edited, with EXISTS, and with FULL if there are `most`."""

    integration: Key
    credential: Key
    integrations: Key = keys.INTEGRATIONS
    upstreams: Key = keys.UPSTREAMS
    totals: Key = keys.TOTALS
    schedule: ScheduleKeys = keys.schedule("walks")
    id: str
    created_at: int
    record: bytes
    epoch: str
    upstream: str
    credential_as_read: bytes
    paused: bool
    most: int


class EditIntegration(Script[None]):
    """Stores an edited integration. `next_epoch` begins if it `moved` to another upstream, or if
    its baseline is not complete. `place` is what becomes of its place in the schedule.

    Refuses with STALE, SUBSCRIPTIONS or EXISTS. Announces `epoch`.
    """

    integration: Key
    credential_before: Key
    credential_after: Key
    kept: EpochKeys
    announced: Announced
    upstreams: Key = keys.UPSTREAMS
    completed_deltas: Key = keys.completed("delta")
    completed_sweeps: Key = keys.completed("sweep")
    schedule: ScheduleKeys = keys.schedule("walks")
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
    place: Literal["wake", "stop", "leave"]


class DeleteIntegration(Script[None]):
    """Deletes an integration with all that is kept of it. Work under way loses its lease. Refuses
    with STALE."""

    integration: Key
    credential: Key
    lease: Key
    walks: Key
    walk_order: Key
    kept: EpochKeys
    integrations: Key = keys.INTEGRATIONS
    upstreams: Key = keys.UPSTREAMS
    totals: Key = keys.TOTALS
    completed_deltas: Key = keys.completed("delta")
    completed_sweeps: Key = keys.completed("sweep")
    schedule: ScheduleKeys = keys.schedule("walks")
    id: str
    as_read: bytes
    epoch: str
    upstream: str
    credential_as_read: bytes


class RequestWalk(Script[None]):
    """Queues a walk that was asked for, or `joins` the one under way, and makes it due now. The
    walk after one that was joined follows it at once, for what it may have passed by already.

    Refuses with STALE unless `queued` is the id of the queued walk (None: there is none) and, where
    it does not join, unless a walk is `under_way` as it was read.
    """

    integration: Key
    walks: Key
    walk_order: Key
    schedule: ScheduleKeys = keys.schedule("walks")
    id: str
    queued: str | None
    under_way: bool
    joins: bool
    kind: WalkKind
    walk_id: str
    walk: bytes
