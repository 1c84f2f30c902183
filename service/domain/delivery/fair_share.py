"""Decides whether an outbox's next attempt is a live one or a replayed one."""

from __future__ import annotations

from typing import Literal

Kind = Literal["live", "replayed"]

LIVE_IN_A_ROW = 3  # attempts before a replayed one
# one slot in this many is reserved: for replayed events while live ones wait, otherwise for live
# ones
SHARE = 4


class Mix:
    """Live attempts go first. While some wait, every fourth attempt is a replayed one, on at most a
    quarter of the slots; otherwise replays leave a quarter free for live events. With few slots
    each has at least one."""

    def __init__(self) -> None:
        self._live_in_a_row = 0

    def choose(self, slots: int, *, live: bool, replayed: bool, replayed_out: int) -> Kind | None:
        """The kind of the next attempt, None if none may begin. `slots` is the maximum number in
        flight, `replayed_out` the number of replayed ones in flight."""
        most = max(1, slots // SHARE) if live else max(1, slots - max(1, slots // SHARE))
        if replayed and replayed_out < most and (not live or self._live_in_a_row >= LIVE_IN_A_ROW):
            return "replayed"
        return "live" if live else None

    def begun(self, kind: Kind) -> None:
        """An attempt has begun."""
        self._live_in_a_row = self._live_in_a_row + 1 if kind == "live" else 0
