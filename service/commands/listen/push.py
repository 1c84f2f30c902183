"""One push as received, and the parts of its body that the listener reads."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec


class EventData(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of `data` that the listener reads; operational events have only their id."""

    event_id: str | None = None
    course_id: str | None = None
    integration_id: str | None = None
    sequence: int | None = None
    previous_sequence: int | None = None
    changed: tuple[str, ...] = ()
    reason: str | None = None
    evidence: str | None = None
    initial: bool = False
    detected_by: str | None = None
    course: dict[str, Any] | None = None

    @property
    def title(self) -> str | None:
        """The title of the course's first revision that has one."""
        revisions = (self.course or {}).get("revisions")
        for revision in revisions if isinstance(revisions, list) else ():
            title = revision.get("title") if isinstance(revision, dict) else None
            if isinstance(title, str) and title:
                return title
        return None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a verified body that the listener reads. `timestamp` is the detection."""

    type: str
    timestamp: datetime
    data: EventData


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A verified body that is a CloudEvent."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    time: datetime
    data: EventData


class Push(msgspec.Struct, frozen=True, kw_only=True):
    """One POST as received. `refusal` is the reason why it was refused; otherwise `event` is set.
    `times` counts the verified pushes with its id, this one included; `altered` means that an
    earlier one had other bytes, which a sender must never do. `replay` means that the sender marks
    the event as replayed, so it is not a duplicate.
    """

    at: datetime
    id: str | None
    body: bytes
    event: Event | None = None
    refusal: str | None = None
    times: int = 1
    altered: bool = False
    replay: bool = False
