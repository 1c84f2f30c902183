"""One push as it came, and what the listener reads of its body."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec


class EventData(msgspec.Struct, frozen=True, kw_only=True):
    """What the listener reads of `data`; operational events have none of it but their id."""

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
    """A verified body, as far as the listener reads it. `timestamp` is the detection."""

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
    """One POST as it came.

    `refusal` says why it was refused; `event` is there where it was not. `times` counts how
    often its id has been verified, this time included; `altered` says that an earlier one of
    the same id had other bytes, which no sender may do. `replay`: the sender says that it was asked
    to send this event again, so that it is no duplicate.
    """

    at: datetime
    id: str | None
    body: bytes
    event: Event | None = None
    refusal: str | None = None
    times: int = 1
    altered: bool = False
    replay: bool = False
