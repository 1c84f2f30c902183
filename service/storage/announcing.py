"""New events as scripts are told of them: with the lanes that they go to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from service.domain.announcements import Announcement
from service.domain.subscriptions import Lane, Matcher, Rendering
from service.storage import keys
from service.storage.ids import event_suffixes

RENDERINGS: Final[dict[Rendering, str]] = {  # one letter each, for every lane entry carries it
    Rendering.FULL: "f",
    Rendering.THIN: "t",
    Rendering.FULL_CLOUDEVENT: "c",
    Rendering.THIN_CLOUDEVENT: "d",
}


class LaneTable:
    """The lanes that one script call names, numbered from 1."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}
        self._wakeable: list[str] = []

    def targets(self, lanes: Sequence[Lane]) -> str:
        """How a script is told the lanes of one event."""
        named = []
        for lane in lanes:
            index = self._index.get(lane.subscription_id)
            if index is None:
                index = self._index[lane.subscription_id] = len(self._index) + 1
                self._wakeable.append("1" if lane.active else "0")
            named.append(f"{index}{RENDERINGS[lane.rendering]}")
        return ",".join(named)

    def keys(self) -> list[str]:
        """The lanes' keys, in their numbering."""
        return [keys.lane(subscription_id) for subscription_id in self._index]

    def arguments(self) -> list[str]:
        """Each lane's id and whether it may be woken."""
        return [
            argument for pair in zip(self._index, self._wakeable, strict=True) for argument in pair
        ]


class Notices(msgspec.Struct, frozen=True):
    """What a script may announce, and the snapshot that says to whom."""

    matcher: Matcher
    announcements: Sequence[Announcement]

    def arguments(self, lanes: LaneTable) -> list[str | bytes]:
        """As `announce` in _announcing.lua reads them."""
        return [*self._arguments(lanes, iter(event_suffixes(len(self.announcements))))]

    def _arguments(self, lanes: LaneTable, suffixes: Iterator[str]) -> Iterator[str | bytes]:
        for one in self.announcements:
            targets = lanes.targets(one.lanes(self.matcher))
            yield from (one.type, next(suffixes), one.facts, one.order_key, targets)
            yield from (one.integration_id, one.when.value)


NOTICE_LENGTH: Final = 7  # arguments of one announcement
