"""New events in the form that scripts take: with the outboxes that receive them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from service.domain.delivery.subscription import Matcher, Outbox, Rendering
from service.domain.events.operational import Announcement, When
from service.ids import event_suffixes
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from service.storage.redis.keys import Key, ScheduleKeys

RENDERINGS: Final[dict[Rendering, str]] = {  # one letter each, because every outbox entry has it
    Rendering.FULL: "f",
    Rendering.THIN: "t",
    Rendering.FULL_CLOUDEVENT: "c",
    Rendering.THIN_CLOUDEVENT: "d",
}


class OutboxArgument(msgspec.Struct, frozen=True):
    """An outbox that a script call names."""

    key: Key
    id: str
    wakeable: bool


class EventArgument(msgspec.Struct, frozen=True, kw_only=True):
    """An operational event to append if the change `when` occurs; `targets` names its outboxes."""

    type: str
    suffix: str
    facts: bytes
    order_key: str
    targets: str
    integration_id: str
    when: When


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """The events that a script may announce. `version` is that of the subscriptions that they were
    matched with."""

    version: int
    outboxes: Sequence[OutboxArgument]
    events: Sequence[EventArgument]
    counters: Key
    log: Key = keys.EVENTS
    subscriptions_version: Key = keys.SUBSCRIPTIONS_VERSION
    totals: Key = keys.TOTALS
    schedule: ScheduleKeys = keys.schedule("outboxes")


class OutboxTable:
    """The outboxes that one script call names, numbered from 1."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}
        self.outboxes: list[OutboxArgument] = []

    def targets(self, outboxes: Sequence[Outbox]) -> str:
        """The outboxes of one event in the form that scripts take."""
        named = []
        for outbox in outboxes:
            index = self._index.get(outbox.subscription_id)
            if index is None:
                index = self._index[outbox.subscription_id] = len(self._index) + 1
                key = keys.outbox(outbox.subscription_id)
                self.outboxes.append(OutboxArgument(key, outbox.subscription_id, outbox.active))
            named.append(f"{index}{RENDERINGS[outbox.rendering]}")
        return ",".join(named)


class Notices(msgspec.Struct, frozen=True):
    """The events that a script may announce, and the snapshot that selects their outboxes."""

    matcher: Matcher
    announcements: Sequence[Announcement]


async def announced(notices: Notices | None, counters: Counters) -> Announced:
    """The announcements in the form that scripts take."""
    if notices is None:
        return Announced(version=0, outboxes=(), events=(), counters=await counters.key())
    table = OutboxTable()
    announcements = notices.announcements
    events = [
        EventArgument(
            type=one.type,
            suffix=suffix,
            facts=one.facts,
            order_key=one.order_key,
            targets=table.targets(one.outboxes(notices.matcher)),
            integration_id=one.integration_id,
            when=one.when,
        )
        for one, suffix in zip(announcements, event_suffixes(len(announcements)), strict=True)
    ]
    return Announced(
        version=notices.matcher.version,
        outboxes=table.outboxes,
        events=events,
        counters=await counters.key(),
    )
