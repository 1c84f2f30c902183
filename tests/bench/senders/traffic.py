"""What is sent: events that carry a mark, and what publisher and receiver note of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from service.sandbox.content import ContentSource, encode_course
from tests.bench import pages

T = TypeVar("T")
Mark = tuple[int, int]
"""The object of an event and the event's number: numbers of one object rise in the order in which
they are accepted."""

OBJECTS = 2_000  # that events are of, at most
MARK_BEGIN, MARK_LENGTH = b"mark:", 13
_TITLE = "mark:000000.000000"
_FACTS = (
    b'{"type":"course.updated","timestamp":"2026-01-01T00:00:00.000Z","data":{"schema_version":1,'
    b'"event_id":"evt_01kg000000000000000000000","integration_id":"int_00000000000000000000",'
    b'"upstream_id":"workday:bench","external_id":null,"labels":{},"course_id":"%b",'
    b'"remote_id":"1000","origin_id":null,"sequence":%d,"previous_sequence":null,'
    b'"changed":["revisions","revisions.title"],"reason":null,"evidence":null,"initial":false,'
    b'"detected_by":"delta","course_omitted":null,"course":%b}}'
)


class Receipt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request that a receiver got. `detected` is what the body gives as its time."""

    at: float
    host: int
    mark: Mark
    id: str
    accepted: bool  # answered with 204
    detected: float = 0.0


class Publication(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event that a publisher sent until it was accepted. `acknowledged` is when it was,
    `status` what with: an error's if the sender said that it had stored the event before."""

    mark: Mark
    sent: float
    acknowledged: float
    status: int
    tries: int


class Records:
    """Courses whose titles carry the marks."""

    def __init__(self) -> None:
        source = ContentSource("workday:bench", 7)
        self._templates = []
        for number in range(pages.PAGE_SIZE):
            course = pages.shortened(source.course(number))
            revision = msgspec.structs.replace(course.revisions[0], title=_TITLE)
            record = encode_course(msgspec.structs.replace(course, revisions=(revision,)))
            self._templates.append((record, course.id.encode()))

    def record(self, mark: Mark) -> bytes:
        """The course in the state that the mark names."""
        template, course_id = self._templates[mark[0] % len(self._templates)]
        own = pages.course_id_of(mark[0])
        return template.replace(course_id, own).replace(_TITLE.encode(), _written(mark))

    def payload(self, mark: Mark) -> bytes:
        """An event as Coursewire sends it, for senders that send a payload as it is."""
        return _FACTS % (pages.course_id_of(mark[0]), mark[1], self.record(mark))


def mark_in(body: bytes) -> Mark:
    """The mark of an event. Raises ValueError if the body has none."""
    at = body.index(MARK_BEGIN) + len(MARK_BEGIN)
    number, _, count = body[at : at + MARK_LENGTH].partition(b".")
    return int(number), int(count)


def batches(events: int, size: int) -> list[list[Mark]]:
    """So many events in batches of at most so many objects, a new number for each batch."""
    size = min(size, OBJECTS)
    return [
        [(number, batch) for number in range(min(size, events - start))]
        for batch, start in enumerate(range(0, events, size), start=1)
    ]


def _written(mark: Mark) -> bytes:
    return b"mark:%06d.%06d" % mark


def write(path: str, values: Sequence[Receipt] | Sequence[Publication]) -> None:
    """Leaves what a child noted in a file: it is too much for a line."""
    Path(path).write_bytes(msgspec.msgpack.encode(values))


def read(path: Path, kind: type[T]) -> list[T]:
    """What `write` left."""
    return msgspec.msgpack.decode(path.read_bytes(), type=list[kind])  # type: ignore[valid-type]
