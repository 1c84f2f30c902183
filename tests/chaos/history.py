"""What was to be seen during a run: every state that the upstream had, every receipt."""

from __future__ import annotations

import gzip
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

_WRONG_CLOCKS = timedelta(hours=1)
_NOT_TRACKED = frozenset({"changed_at", "remote_data", "remote_deleted_at"})


class State(msgspec.Struct, frozen=True):
    """From `at` on, a course is as `content` says (a digest of it), or gone (None)."""

    upstream_id: str
    course_id: str
    at: float
    content: str | None


class Told(msgspec.Struct, frozen=True):
    """What one event says. `content` is a digest of the course that it carries."""

    id: str
    type: str
    upstream_id: str
    course_id: str
    sequence: int
    previous_sequence: int | None
    content: str | None


class Receipt(msgspec.Struct):
    """One push as it came in. `body` is a digest of its bytes; `acknowledged_at` is when the
    receiver answered 2xx, if it did, or what the sender may take for it."""

    subscriber: str
    at: float
    id: str
    body: str
    replay: bool = False
    verified: bool = True
    acknowledged_at: float | None = None


class History(msgspec.Struct):
    """A run. Times are seconds of one clock that never jumps.

    `subscribers` names the integrations that each is told of, by their ids at the upstream;
    `events` has what an event says by the digest of a body that said it; `log` lists the events
    of the log in the end; `cuts` are the times at which the server lost what it had written last.

    Of hostile peers: `struck` counts what they did, by letter and peer; `reused` the requests on
    connections that were known to carry what nobody had asked for, and `crossed` those that may
    have been on their way when it came; `refused` says in words which odd answers were not taken
    although they can be.
    """

    states: list[State] = []
    receipts: list[Receipt] = []
    events: dict[str, Told] = {}
    subscribers: dict[str, list[str]] = {}
    log: list[Told] = []
    cuts: list[float] = []
    dead: int = 0
    fenced: int = 0
    leaked: list[str] = []
    struck: dict[str, int] = {}
    reused: int = 0
    crossed: int = 0
    refused: list[str] = []

    def save(self, path: Path) -> None:
        """Writes it for `load`."""
        path.write_bytes(gzip.compress(msgspec.json.encode(self), mtime=0))

    @classmethod
    def load(cls, path: Path) -> History:
        """Reads what `save` has written."""
        return msgspec.json.decode(gzip.decompress(path.read_bytes()), type=cls)


def digest(body: bytes) -> str:
    """What stands for some bytes."""
    return hashlib.sha256(body).hexdigest()[:24]


def content_of(record: Any) -> str | None:
    """What stands for all of a course that a change is reported of; None for one that is gone."""
    if record is None or _has_passed(record["remote_deleted_at"]):
        return None
    return digest(_canonical(record).encode())


def _has_passed(mark: Any) -> bool:
    """Whether a mark of deletion counts: none does that is a date to come."""
    if mark is None:
        return False
    try:
        return datetime.fromisoformat(mark) < datetime.now(UTC) + _WRONG_CLOCKS
    except (TypeError, ValueError):
        return True


def told(body: bytes) -> Told:
    """What the body of a push says."""
    event = json.loads(body)
    data = event["data"]
    return Told(
        id=data["event_id"],
        type=event["type"],
        upstream_id=data["upstream_id"],
        course_id=data["course_id"],
        sequence=data["sequence"],
        previous_sequence=data["previous_sequence"],
        content=content_of(data.get("course")),
    )


def _canonical(value: Any) -> str:
    """The same text for what differs in the order of keys and items and in what is not tracked."""
    if isinstance(value, dict):
        fields = (
            f"{json.dumps(name)}:{_canonical(field)}"
            for name, field in sorted(value.items())
            if name not in _NOT_TRACKED
        )
        return f"{{{','.join(fields)}}}"
    if isinstance(value, list):
        return f"[{','.join(sorted(map(_canonical, value)))}]"
    return json.dumps(value)
