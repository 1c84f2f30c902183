"""Changes as events: their stored form, and the bodies rendered from it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

import msgspec

from service.domain.access.grants import SUBSCRIPTION_EVENT_PREFIX, Grant
from service.domain.delivery.outbox_window import order_key
from service.domain.delivery.subscription import (
    Format,
    Matcher,
    Payload,
    Rendering,
    Subject,
    Subscription,
)
from service.domain.events.identifiers import position_ms

SCHEMA_VERSION = 1
MAX_BODY_BYTES = 262_144  # a larger body is sent without its course

Omission = Literal["thin", "size", "gone"]


class CourseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The stored facts of a course event, in addition to its position, order key and course."""

    integration_id: str
    upstream_id: str
    external_id: str | None
    labels: dict[str, str]
    course_id: str
    remote_id: str | None
    origin_id: str | None
    changed: tuple[str, ...]
    reason: str | None
    evidence: str | None
    initial: bool
    detected_by: str


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as the log holds it. `facts` is the JSON of `CourseFacts`, or of the data of an
    operational event (then `course_id` is empty and `sequence` 0)."""

    id: str
    position: str
    type: str
    integration_id: str
    course_id: str
    sequence: int
    previous_sequence: int | None
    facts: bytes
    course: bytes | None


class EventHead(msgspec.Struct, frozen=True):
    """An event without its body, for filters."""

    position: str
    type: str
    integration_id: str
    course_id: str
    facts: bytes


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The events that a reader requests, and may see by `grant`; None means all."""

    types: frozenset[str] | None = None
    integration_id: str | None = None
    course_id: str | None = None
    grant: Grant | None = None

    def takes(self, event: StoredEvent) -> bool:
        """Whether the event is requested and visible."""
        return (
            (self.types is None or event.type in self.types)
            and (self.integration_id is None or event.integration_id == self.integration_id)
            and (self.course_id is None or event.course_id == self.course_id)
            and is_shown(event, self.grant)
        )


class _Facts(msgspec.Struct, frozen=True):
    """The part of an event's facts that filters and grants use.

    `changed` of an operational event is something else: the number of courses by path.
    """

    labels: dict[str, str] = {}
    changed: tuple[str, ...] | dict[str, int] = ()
    subscription_id: str | None = None
    owner: str | None = None


class Selection:
    """The past events that a subscription requests, and may see by `grant` (None: all)."""

    def __init__(self, subscription: Subscription, grant: Grant | None) -> None:
        self._matcher = Matcher(0, [msgspec.structs.replace(subscription, owner=None)])
        self._grant = grant

    def takes(self, event: EventHead) -> bool:
        """Whether the subscription is sent the event."""
        facts = _decode_part(event.facts)
        wanted = self._matcher.outboxes(
            event_type=event.type,
            integration_id=event.integration_id,
            labels=facts.labels,
            changed=facts.changed if isinstance(facts.changed, tuple) else (),
            about=_subject(event.type, facts),
        )
        return bool(wanted) and is_shown(event, self._grant)


class CourseData(msgspec.Struct, kw_only=True):
    """`data` of a course event."""

    schema_version: int
    event_id: str
    integration_id: str
    upstream_id: str
    external_id: str | None
    labels: dict[str, str]
    course_id: str
    remote_id: str | None
    origin_id: str | None
    sequence: int
    previous_sequence: int | None
    changed: tuple[str, ...]
    reason: str | None
    evidence: str | None
    initial: bool
    detected_by: str
    course_omitted: Omission | None
    course: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Envelope(msgspec.Struct, kw_only=True):
    """The body of a push in our own form."""

    type: str
    timestamp: str
    data: CourseData | msgspec.Raw


class CloudEvent(msgspec.Struct, kw_only=True):
    """The body of a push as a structured CloudEvent 1.0, with the same `data`."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    subject: str | msgspec.UnsetType = msgspec.UNSET
    time: str
    datacontenttype: Literal["application/json"] = "application/json"
    data: CourseData | msgspec.Raw


CONTENT_TYPES: Mapping[Format, str] = {  # of the bodies
    Format.STANDARD: "application/json",
    Format.CLOUDEVENTS: "application/cloudevents+json; charset=utf-8",
}

_encode = msgspec.json.encode
_decode_facts = msgspec.json.Decoder(CourseFacts).decode
_decode_part = msgspec.json.Decoder(_Facts).decode


def is_shown(event: StoredEvent | EventHead, grant: Grant | None) -> bool:
    """Whether a grant makes an event visible, by the labels of the event; None: it does."""
    if grant is None:
        return True
    if event.type.startswith(SUBSCRIPTION_EVENT_PREFIX):
        return grant.shows(event.type, "", {}, _decode_part(event.facts).owner)
    labels = _decode_part(event.facts).labels if grant.labels else {}
    return grant.shows(event.type, event.integration_id, labels)


def subject_of(event: StoredEvent | EventHead) -> Subject | None:
    """The subscription that an event is about, None if there is none."""
    if not event.type.startswith(SUBSCRIPTION_EVENT_PREFIX):
        return None
    return _subject(event.type, _decode_part(event.facts))


def order_key_of(event: StoredEvent | EventHead) -> str:
    """The order key of an event on its outboxes."""
    subject = subject_of(event)
    if subject is not None:
        return subject.subscription_id
    return order_key(event.integration_id, event.course_id)


def _subject(event_type: str, facts: _Facts) -> Subject | None:
    if not event_type.startswith(SUBSCRIPTION_EVENT_PREFIX) or facts.subscription_id is None:
        return None
    return Subject(facts.subscription_id, facts.owner)


@lru_cache(maxsize=1024)  # events committed together share their time
def rfc3339(milliseconds: int) -> str:
    """Epoch ms as RFC 3339 in UTC, with milliseconds."""
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def render(event: StoredEvent, rendering: Rendering) -> bytes:
    """The body of `event`. The same event and rendering always give the same bytes."""
    if not event.course_id:
        data = b'{"schema_version":%d,"event_id":"%s",%s' % (
            SCHEMA_VERSION,
            event.id.encode(),
            event.facts[1:],
        )
        return _enclose(event, msgspec.Raw(data), rendering.format)
    data_of_course = _data_of_course(event)
    if event.course is None:
        # The log does not store a record that is too large to be sent.
        data_of_course.course_omitted = "gone" if event.type == "course.deleted" else "size"
    elif rendering.payload is Payload.THIN:
        data_of_course.course_omitted = "thin"
    else:
        data_of_course.course = msgspec.Raw(event.course)
        body = _enclose(event, data_of_course, rendering.format)
        if len(body) <= MAX_BODY_BYTES:
            return body
        data_of_course.course = msgspec.UNSET
        data_of_course.course_omitted = "size"
    return _enclose(event, data_of_course, rendering.format)


def _data_of_course(event: StoredEvent) -> CourseData:
    facts = _decode_facts(event.facts)
    return CourseData(
        schema_version=SCHEMA_VERSION,
        event_id=event.id,
        integration_id=facts.integration_id,
        upstream_id=facts.upstream_id,
        external_id=facts.external_id,
        labels=facts.labels,
        course_id=facts.course_id,
        remote_id=facts.remote_id,
        origin_id=facts.origin_id,
        sequence=event.sequence,
        previous_sequence=event.previous_sequence,
        changed=facts.changed,
        reason=facts.reason,
        evidence=facts.evidence,
        initial=facts.initial,
        detected_by=facts.detected_by,
        course_omitted=None,
    )


def _enclose(event: StoredEvent, data: CourseData | msgspec.Raw, wanted: Format) -> bytes:
    timestamp = rfc3339(position_ms(event.position))
    if wanted is Format.STANDARD:
        return _encode(Envelope(type=event.type, timestamp=timestamp, data=data))
    # The API's path of the event's subject, or of the API itself.
    subject = subject_of(event)
    source = "/v1"
    if subject is not None:
        source = f"/v1/subscriptions/{subject.subscription_id}"
    elif event.integration_id:
        source = f"/v1/integrations/{event.integration_id}"
    return _encode(
        CloudEvent(
            id=event.id,
            source=source,
            type=event.type,
            subject=event.course_id or msgspec.UNSET,
            time=timestamp,
            data=data,
        )
    )
