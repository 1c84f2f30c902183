"""The state of one sandbox integration: its courses, what changed, and what a query finds.

Pure: the time is passed in. Courses are kept as the bytes they are served as, in the order
they were made, which is the order of the pages; a page costs what it holds, and a walk reads
each course once.
"""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Final, Literal

import msgspec
from msgspec.structs import replace

from service.sandbox import edits
from service.sandbox.content import (
    ContentSource,
    Course,
    decode_course,
    encode_anonymised,
    encode_course,
    format_time,
    parse_time,
)
from service.sandbox.edits import EDITABLE_PATHS, USUAL_PATHS, InapplicableError, Stroke
from service.sandbox.query import Query

LOG_LENGTH: Final = 500_000
"""Changes that the log of one integration keeps; older ones leave it."""

RENAME_PROVIDER: Final = "provider.name"

Operation = Literal[
    "create", "edit", "delete", "vanish", "restore", "anonymise", "provider", "skill",
    "revision_add", "revision_remove",
]  # fmt: skip
FilterName = Literal["updated_after", "ids", "remote_ids"]


class State(enum.StrEnum):
    """Where a course stands."""

    LIVE = "live"
    DELETED = "deleted"
    """A tombstone: still there with `include_deleted`, `remote_deleted_at` set."""
    ANONYMISED = "anonymised"
    """A tombstone that lost everything but its id, perhaps the date too."""
    VANISHED = "vanished"
    """Gone without a tombstone: no query finds it."""


_ALLOWED_FROM: Final[dict[Operation, tuple[State, ...]]] = {
    "edit": (State.LIVE,),
    "delete": (State.LIVE,),
    "vanish": (State.LIVE, State.DELETED, State.ANONYMISED),
    "restore": (State.DELETED, State.ANONYMISED, State.VANISHED),
    "anonymise": (State.LIVE, State.DELETED),
    "provider": (State.LIVE,),
    "skill": (State.LIVE,),
    "revision_add": (State.LIVE,),
    "revision_remove": (State.LIVE,),
}


_UNSEEN_BY_UPDATED_AFTER: Final[frozenset[Operation]] = frozenset({"provider", "skill"})


class ChangeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One operation on the given course, or on `count` courses drawn from those it fits.

    `path` names the field of an `edit` (one of EDITABLE_PATHS; drawn when absent). For
    `provider` it may be `provider.name`, which renames the provider of the course for every
    course that shares it; otherwise the course moves to another provider.
    `keep_deleted_at` says whether the tombstone's date survives `anonymise`.
    """

    op: Operation
    course_id: str | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    path: str | None = None
    keep_deleted_at: bool = True

    def __post_init__(self) -> None:
        """Refuse what no course could satisfy."""
        if self.course_id is not None and (self.op == "create" or self.count != 1):
            raise ValueError("course_id: only for a single course, and not for create")
        fitting: tuple[str, ...] = ()
        if self.op == "edit":
            fitting = EDITABLE_PATHS
        elif self.op == "provider":
            fitting = ("provider", RENAME_PROVIDER)
        if self.path is not None and self.path not in fitting:
            raise ValueError(f"path: {self.op} takes {', '.join(fitting) or 'none'}")


class Change(msgspec.Struct, frozen=True):
    """One change of one course: its number, from 1, its time, and the fields it touched.

    `paths` is empty where the whole record came, went or was emptied.
    """

    n: int
    at: str
    op: Operation
    course_id: str
    paths: tuple[str, ...] = ()


class CourseSummary(msgspec.Struct, frozen=True):
    """A course as the control API lists it; `updated_at` is what `updated_after` looks at."""

    id: str
    remote_id: str | None
    state: State
    updated_at: str


class Selection(msgspec.Struct, frozen=True):
    """The records of one page, and the position to go on after, or None at the end."""

    records: list[bytes]
    next_after: int | None


class ChangesRefusedError(Exception):
    """A change could not be made; those before it were, and stay."""

    def __init__(self, reason: str, applied: list[Change]) -> None:
        super().__init__(reason)
        self.applied = applied


class _Row(msgspec.Struct, gc=False):
    position: int
    course_id: str
    remote_id: str | None
    body: bytes
    updated_at: int
    state: State = State.LIVE


class Catalogue:
    """The courses of one integration. Not for use by more than one thread."""

    def __init__(
        self,
        upstream_id: str,
        *,
        courses: int,
        seed: int,
        unsupported_filters: frozenset[FilterName] = frozenset(),
    ) -> None:
        self.upstream_id = upstream_id
        self.seed = seed
        self.unsupported_filters = unsupported_filters
        self._content = ContentSource(upstream_id, seed)
        self._random = random.Random(f"{seed}\n{upstream_id}")
        self._rows: list[_Row] = []
        self._by_id: dict[str, _Row] = {}
        self._by_remote_id: dict[str, _Row] = {}
        self._last_live: dict[str, bytes] = {}
        self._log: deque[Change] = deque(maxlen=LOG_LENGTH)
        self._changes = 0
        self._clock = 0
        for number in range(courses):
            self._append(self._content.course(number))

    # --- what can be read ------------------------------------------------------------------

    @property
    def changes(self) -> int:
        """How many changes there have been; the number of the last one."""
        return self._changes

    @property
    def size(self) -> int:
        """How many courses there ever were."""
        return len(self._rows)

    @property
    def live(self) -> int:
        """How many courses are live."""
        return len(self._rows) - len(self._last_live)

    def courses(self, limit: int | None = None) -> list[CourseSummary]:
        """The first `limit` courses in the order of the pages, vanished ones included."""
        return [
            CourseSummary(row.course_id, row.remote_id, row.state, format_time(row.updated_at))
            for row in self._rows[:limit]
        ]

    def record(self, course_id: str) -> bytes | None:
        """The course as it would be served, or None where there is none to serve."""
        row = self._by_id.get(course_id)
        return None if row is None or row.state is State.VANISHED else row.body

    def log(self, after: int = 0) -> list[Change]:
        """The changes with a number above `after`, as far as they are still kept."""
        skip = max(0, after - (self._changes - len(self._log)))
        return list(islice(self._log, skip, None))

    def select(
        self,
        query: Query,
        after: int = -1,
        hidden: Callable[[str], bool] | None = None,
    ) -> Selection:
        """The page of `query` that begins after position `after`, without `hidden` courses."""
        records: list[bytes] = []
        last = after
        for row in self._matching(query, after):
            if hidden is not None and hidden(row.course_id):
                continue
            if len(records) == query.page_size:
                return Selection(records, last)
            records.append(row.body)
            last = row.position
        return Selection(records, None)

    def _matching(self, query: Query, after: int) -> Iterator[_Row]:
        updated_after, ids, remote_ids = query.updated_after, query.ids, query.remote_ids
        for name in self.unsupported_filters:
            if getattr(query, name) is None:
                continue
            if not query.ignore_unsupported_filters:
                return
            updated_after = None if name == "updated_after" else updated_after
            ids = None if name == "ids" else ids
            remote_ids = None if name == "remote_ids" else remote_ids
        threshold = -1 if updated_after is None else updated_after
        for row in self._candidates(ids, remote_ids, after):
            if row.updated_at <= threshold:
                continue
            if row.state is State.LIVE or (
                query.include_deleted and row.state is not State.VANISHED
            ):
                yield row

    def _candidates(
        self, ids: frozenset[str] | None, remote_ids: frozenset[str] | None, after: int
    ) -> Iterator[_Row]:
        if ids is None and remote_ids is None:
            rows = self._rows
            for position in range(after + 1, len(rows)):
                yield rows[position]
            return
        if ids is not None:
            found = [self._by_id[key] for key in ids if key in self._by_id]
            if remote_ids is not None:
                found = [row for row in found if row.remote_id in remote_ids]
        else:
            found = [
                self._by_remote_id[key] for key in remote_ids or () if key in self._by_remote_id
            ]
        found.sort(key=lambda row: row.position)
        yield from (row for row in found if row.position > after)

    # --- what can be changed ---------------------------------------------------------------

    def apply(self, requests: list[ChangeRequest], now: int) -> list[Change]:
        """Make the changes in order, at `now` (ms) or just after the change before.

        Courses that are drawn are distinct within one call, and none that the call names.
        Times rise by at least 1 ms from change to change. Raises ChangesRefusedError at the
        first change that cannot be made.
        """
        applied: list[Change] = []
        used = {request.course_id for request in requests if request.course_id is not None}
        try:
            for request in requests:
                for row in self._subjects(request, used):
                    done = self._apply_one(request, row, now)
                    used.update(change.course_id for change in done)
                    applied.extend(done)
        except InapplicableError as error:
            raise ChangesRefusedError(str(error), applied) from error
        return applied

    def _subjects(self, request: ChangeRequest, used: set[str]) -> Sequence[_Row | None]:
        """The courses to `request`; None for one to create."""
        if request.op == "create":
            return [None] * request.count
        if request.course_id is not None:
            return [self._named(request.op, request.course_id)]
        rows = self._drawn_gone(request.op, request.count, used)
        rows += self._drawn_live(request, request.count - len(rows), used)
        if len(rows) < request.count:
            raise InapplicableError(
                f"only {len(rows)} of {request.count} courses are left to {request.op}"
            )
        return rows

    def _named(self, op: Operation, course_id: str) -> _Row:
        row = self._by_id.get(course_id)
        if row is None:
            raise InapplicableError(f"there is no course {course_id}")
        if row.state not in _ALLOWED_FROM[op]:
            raise InapplicableError(f"{course_id} is {row.state}: cannot {op} it")
        return row

    def _drawn_gone(self, op: Operation, count: int, used: set[str]) -> list[_Row]:
        """Courses to bring back or, of the tombstones, to anonymise."""
        if op not in {"restore", "anonymise"}:
            return []
        allowed = (State.DELETED,) if op == "anonymise" else _ALLOWED_FROM[op]
        gone = [
            row
            for row in map(self._by_id.__getitem__, self._last_live)
            if row.state in allowed and row.course_id not in used
        ]
        return self._random.sample(gone, min(count, len(gone)))

    def _drawn_live(self, request: ChangeRequest, count: int, used: set[str]) -> list[_Row]:
        if request.op == "restore" or count == 0:
            return []

        def fits(row: _Row) -> bool:
            return (
                row.state is State.LIVE
                and row.course_id not in used
                and row.position not in chosen
                and _is_applicable(request, row)
            )

        chosen: dict[int, _Row] = {}
        # Guessing is cheap while most courses fit; only where few do are all looked at.
        for _ in range(5 * count + 20 if self._rows else 0):
            row = self._random.choice(self._rows)
            if fits(row):
                chosen[row.position] = row
                if len(chosen) == count:
                    return list(chosen.values())
        fitting = [row for row in self._rows if fits(row)]
        wanting = min(count - len(chosen), len(fitting))
        return [*chosen.values(), *self._random.sample(fitting, wanting)]

    def _apply_one(self, request: ChangeRequest, row: _Row | None, now: int) -> list[Change]:
        if row is None:
            stroke = self._stroke(now)
            row = self._append(self._content.course(len(self._rows), stroke.at))
            return [self._logged(stroke, "create", row)]
        if request.op == "provider" and request.path == RENAME_PROVIDER:
            return self._rename_provider(row, now)
        stroke = self._stroke(now)
        paths = self._alter(request, row, stroke)
        return [self._logged(stroke, request.op, row, paths)]

    def _stroke(self, now: int) -> Stroke:
        self._clock = max(now, self._clock + 1)
        return Stroke(self._changes + 1, self._clock, self._content)

    def _logged(
        self, stroke: Stroke, op: Operation, row: _Row, paths: tuple[str, ...] = ()
    ) -> Change:
        self._changes = stroke.number
        change = Change(stroke.number, stroke.time, op, row.course_id, paths)
        self._log.append(change)
        return change

    def _alter(self, request: ChangeRequest, row: _Row, stroke: Stroke) -> tuple[str, ...]:
        """Change `row` and return the paths that were touched."""
        match request.op:
            case "delete" | "vanish" | "anonymise":
                self._remove(request, row, stroke)
                return ()
            case "restore":
                course = self._as_now(decode_course(self._last_live.pop(row.course_id)))
                self._store(row, replace(course, changed_at=stroke.time))
                row.state = State.LIVE
                row.updated_at = stroke.at
                return ()
        course = decode_course(row.body)
        match request.op:
            case "edit":
                path = request.path or self._random.choice(USUAL_PATHS)
                after = edits.edit(course, path, stroke)
            case "revision_add":
                after = edits.add_revision(course, stroke)
            case "revision_remove":
                after = edits.remove_revision(course)
            case "provider":
                after = edits.reassign_provider(course, stroke)
            case _:
                after = edits.change_skills(course, stroke)
        self._store(row, after)
        if request.op not in _UNSEEN_BY_UPDATED_AFTER:
            row.updated_at = stroke.at
        return edits.touched_paths(course, after)

    def _remove(self, request: ChangeRequest, row: _Row, stroke: Stroke) -> None:
        if row.state is State.LIVE:
            self._last_live[row.course_id] = row.body
        row.updated_at = stroke.at
        if request.op == "vanish":
            row.state = State.VANISHED
        elif request.op == "delete":
            row.state = State.DELETED
            course = decode_course(row.body)
            row.body = encode_course(
                replace(course, remote_deleted_at=stroke.time, changed_at=stroke.time)
            )
        else:
            deleted_at = (
                decode_course(row.body).remote_deleted_at
                if row.state is State.DELETED
                else stroke.time
            )
            row.state = State.ANONYMISED
            row.body = encode_anonymised(
                row.course_id, deleted_at if request.keep_deleted_at else None
            )
            self._forget_remote_id(row)

    def _as_now(self, course: Course) -> Course:
        """A course that was away, under the name its provider has today."""
        today = {provider.id: provider for provider in self._content.providers}
        return replace(course, provider=today.get(course.provider_id or ""))

    def _rename_provider(self, row: _Row, now: int) -> list[Change]:
        provider = decode_course(row.body).provider
        if provider is None:
            raise InapplicableError(f"{row.course_id} has no provider to rename")
        stroke = self._stroke(now)
        renamed = replace(
            provider, name=f"{(provider.name or '').partition(' (')[0]} ({stroke.number})"
        )
        self._content.providers = tuple(
            renamed if known.id == provider.id else known for known in self._content.providers
        )
        changes = []
        mark = provider.id.encode("ascii")
        for sharing in self._rows:
            if sharing.state is not State.LIVE or mark not in sharing.body:
                continue
            course = decode_course(sharing.body)
            if course.provider_id != provider.id:
                continue
            self._store(sharing, replace(course, provider=renamed))
            changes.append(self._logged(stroke, "provider", sharing, ("provider",)))
            stroke = self._stroke(now)
        return changes

    # --- how it is kept --------------------------------------------------------------------

    def _append(self, course: Course) -> _Row:
        row = _Row(len(self._rows), course.id, None, b"", 0)
        # A seeded course was last updated when its youngest part was.
        stamps = [course.changed_at, *(revision.changed_at for revision in course.revisions)]
        row.updated_at = parse_time(max(stamps))
        self._rows.append(row)
        self._by_id[course.id] = row
        self._store(row, course)
        return row

    def _store(self, row: _Row, course: Course) -> None:
        row.body = encode_course(course)
        if row.remote_id != course.remote_id:
            self._forget_remote_id(row)
            row.remote_id = course.remote_id
            self._by_remote_id[course.remote_id] = row

    def _forget_remote_id(self, row: _Row) -> None:
        if row.remote_id is not None:
            del self._by_remote_id[row.remote_id]
            row.remote_id = None


def _is_applicable(request: ChangeRequest, row: _Row) -> bool:
    if request.op == "revision_remove":
        return len(decode_course(row.body).revisions) > 1
    if request.path == RENAME_PROVIDER:
        return decode_course(row.body).provider is not None
    return True
