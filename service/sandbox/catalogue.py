"""The state of one sandbox integration: its courses, its changes, and the results of queries. Pure:
the time is passed in. Courses are kept as served bytes, in the order of their creation, which is
the order of the pages. The cost of a page follows its size, and a poll reads each course once.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from service.sandbox import edits
from service.sandbox.changes import (
    ALLOWED_FROM,
    RENAME_PROVIDER,
    UNSEEN_BY_UPDATED_AFTER,
    Change,
    ChangeRequest,
    ChangesRefusedError,
    Operation,
    State,
)
from service.sandbox.content import (
    ContentSource,
    Course,
    decode_course,
    encode_anonymised,
    encode_course,
    format_time,
    parse_time,
)
from service.sandbox.edits import USUAL_PATHS, InapplicableError, Stroke
from service.sandbox.presentation import Presentation
from service.sandbox.query import Query

LOG_LENGTH: Final = 500_000
"""Changes in the log of one integration; older ones are removed."""

FilterName = Literal["updated_after", "ids", "remote_ids"]


class CourseSummary(msgspec.Struct, frozen=True):
    """A course in the control API; `updated_at` is the time that `updated_after` is compared
    with."""

    id: str
    remote_id: str | None
    state: State
    updated_at: str


class Selection(msgspec.Struct, frozen=True):
    """The records of one page, and the position to continue after, or None at the end."""

    records: list[bytes]
    next_after: int | None


class _Row(msgspec.Struct, gc=False):
    position: int
    course_id: str
    remote_id: str | None
    body: bytes
    """The record in the connected system."""
    served: bytes
    """The served record: the same bytes, unless fields are off."""
    updated_at: int
    state: State = State.LIVE


class _Moment(NamedTuple):
    """A true time, and how far the clock of the records is ahead of it (ms)."""

    now: int
    skew: int


class Catalogue:
    """The courses of one integration. Not for use by more than one thread."""

    def __init__(
        self,
        upstream_id: str,
        *,
        courses: int,
        seed: int,
        unsupported_filters: frozenset[FilterName] = frozenset(),
        null_lists: bool = False,
    ) -> None:
        self.upstream_id = upstream_id
        self.seed = seed
        self.unsupported_filters = unsupported_filters
        self._presentation = Presentation(null_lists=null_lists)
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

    # --- reads -----------------------------------------------------------------------------

    @property
    def changes(self) -> int:
        """The number of changes, which is the number of the last one."""
        return self._changes

    @property
    def size(self) -> int:
        """The number of courses that ever existed."""
        return len(self._rows)

    @property
    def live(self) -> int:
        """The number of live courses."""
        return len(self._rows) - len(self._last_live)

    def courses(self, limit: int | None = None) -> list[CourseSummary]:
        """The first `limit` courses in the order of the pages, vanished ones included."""
        return [
            CourseSummary(row.course_id, row.remote_id, row.state, format_time(row.updated_at))
            for row in self._rows[:limit]
        ]

    def record(self, course_id: str) -> bytes | None:
        """The course as served, or None if it is not served."""
        row = self._by_id.get(course_id)
        return None if row is None or row.state is State.VANISHED else row.served

    def log(self, after: int = 0) -> list[Change]:
        """The changes with a number above `after` that are still kept."""
        skip = max(0, after - (self._changes - len(self._log)))
        return list(islice(self._log, skip, None))

    def select(
        self,
        query: Query,
        after: int = -1,
        hidden: Callable[[str], bool] | None = None,
        shift: int = 0,
    ) -> Selection:
        """The page of `query` after position `after`, without `hidden` courses. It begins `shift`
        of its records later, or earlier for a negative `shift`."""
        records: list[bytes] = []
        last = after
        for row in self._shifted(query, after, hidden, shift):
            if len(records) == query.page_size:
                return Selection(records, last)
            records.append(row.served)
            last = row.position
        return Selection(records, None)

    def _shifted(
        self, query: Query, after: int, hidden: Callable[[str], bool] | None, shift: int
    ) -> Iterator[_Row]:
        begin = after if shift >= 0 else -1
        rows = self._matching(query, begin)
        if hidden is not None:
            rows = (row for row in rows if not hidden(row.course_id))
        if shift >= 0:
            yield from islice(rows, shift, None)
            return
        again: deque[_Row] = deque(maxlen=-shift)
        for row in rows:
            if row.position > after:
                yield from again
                again.clear()
                yield row
            else:
                again.append(row)
        yield from again

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

    # --- changes ---------------------------------------------------------------------------

    def apply(self, requests: list[ChangeRequest], now: int, skew: int = 0) -> list[Change]:
        """Make the changes in order, at `now` (ms) or just after the previous change.

        Randomly drawn courses are distinct within one call, and differ from those that the call
        names. Times rise by at least 1 ms from change to change; records carry them `skew` (ms)
        later, unless the request sets the time. Raises ChangesRefusedError at the first change that
        cannot be made.
        """
        moment = _Moment(now, skew)
        applied: list[Change] = []
        used = {request.course_id for request in requests if request.course_id is not None}
        try:
            for request in requests:
                if request.op in {"field_off", "field_on"}:
                    applied.extend(self._switch(request, moment))
                    continue
                for row in self._subjects(request, used):
                    done = self._apply_one(request, row, moment)
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
        if request.all:
            return [
                row
                for row in self._rows
                if row.state in ALLOWED_FROM[request.op] and _is_applicable(request, row)
            ]
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
        if row.state not in ALLOWED_FROM[op]:
            raise InapplicableError(f"{course_id} is {row.state}: cannot {op} it")
        return row

    def _drawn_gone(self, op: Operation, count: int, used: set[str]) -> list[_Row]:
        """Courses to restore or, of the tombstones, to anonymise."""
        if op not in {"restore", "anonymise"}:
            return []
        allowed = (State.DELETED,) if op == "anonymise" else ALLOWED_FROM[op]
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
        # Random guesses are cheap while most courses fit; all courses are checked only if few do.
        for _ in range(5 * count + 20 if self._rows else 0):
            row = self._random.choice(self._rows)
            if fits(row):
                chosen[row.position] = row
                if len(chosen) == count:
                    return list(chosen.values())
        fitting = [row for row in self._rows if fits(row)]
        wanting = min(count - len(chosen), len(fitting))
        return [*chosen.values(), *self._random.sample(fitting, wanting)]

    def _apply_one(self, request: ChangeRequest, row: _Row | None, moment: _Moment) -> list[Change]:
        if request.op == "provider" and request.path == RENAME_PROVIDER and row is not None:
            return self._rename_provider(row, moment)
        stroke = self._stroke(request, moment)
        if row is None:
            row = self._append(self._content.course(len(self._rows), stroke.at))
            return [self._logged(stroke, "create", row)]
        paths = self._alter(request, row, stroke)
        return [self._logged(stroke, request.op, row, paths)]

    def _stroke(self, request: ChangeRequest, moment: _Moment) -> Stroke:
        self._clock = max(moment.now, self._clock + 1)
        at = self._clock + moment.skew
        if request.updated_at is not None:
            at = parse_time(request.updated_at)
        return Stroke(self._changes + 1, at, self._clock, self._content)

    def _logged(
        self, stroke: Stroke, op: Operation, row: _Row, paths: tuple[str, ...] = ()
    ) -> Change:
        self._changes = stroke.number
        made_at = format_time(stroke.made_at)
        change = Change(stroke.number, made_at, op, row.course_id, paths)
        self._log.append(change)
        return change

    def _alter(self, request: ChangeRequest, row: _Row, stroke: Stroke) -> tuple[str, ...]:
        """Change `row` and return the changed paths."""
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
        if request.op not in UNSEEN_BY_UPDATED_AFTER:
            row.updated_at = stroke.at
        return self._touched(course, after)

    def _touched(self, before: Course, after: Course) -> tuple[str, ...]:
        """The paths in which two served states of a course differ."""
        return edits.touched_paths(
            self._presentation.shown(before), self._presentation.shown(after)
        )

    def _switch(self, request: ChangeRequest, moment: _Moment) -> list[Change]:
        """Switch a field off or on in all records; changed live records are updated."""
        path = request.path or ""
        before = self._presentation
        self._presentation = before.switched(path, on=request.op == "field_on")
        changes = []
        for row in self._rows:
            if row.state not in {State.LIVE, State.DELETED}:
                continue
            course = decode_course(row.body)
            shown, showing = before.shown(course), self._presentation.shown(course)
            if shown == showing:
                continue
            if row.state is State.DELETED:
                self._store(row, course)
                continue
            stroke = self._stroke(request, moment)
            self._store(row, edits.stamp(course, path, stroke))
            row.updated_at = stroke.at
            paths = edits.touched_paths(shown, showing)
            changes.append(self._logged(stroke, request.op, row, paths))
        return changes

    def _remove(self, request: ChangeRequest, row: _Row, stroke: Stroke) -> None:
        if row.state is State.LIVE:
            self._last_live[row.course_id] = row.body
        row.updated_at = stroke.at
        if request.op == "vanish":
            row.state = State.VANISHED
        elif request.op == "delete":
            row.state = State.DELETED
            course = decode_course(row.body)
            self._store(row, replace(course, remote_deleted_at=stroke.time, changed_at=stroke.time))
        else:
            deleted_at = (
                decode_course(row.body).remote_deleted_at
                if row.state is State.DELETED
                else stroke.time
            )
            row.state = State.ANONYMISED
            row.body = row.served = encode_anonymised(
                row.course_id, deleted_at if request.keep_deleted_at else None
            )
            self._forget_remote_id(row)

    def _as_now(self, course: Course) -> Course:
        """A restored course, with its provider's current name."""
        today = {provider.id: provider for provider in self._content.providers}
        return replace(course, provider=today.get(course.provider_id or ""))

    def _rename_provider(self, row: _Row, moment: _Moment) -> list[Change]:
        provider = decode_course(row.body).provider
        if provider is None:
            raise InapplicableError(f"{row.course_id} has no provider to rename")
        number = self._changes + 1
        renamed = replace(provider, name=f"{(provider.name or '').partition(' (')[0]} ({number})")
        self._content.providers = tuple(
            renamed if known.id == provider.id else known for known in self._content.providers
        )
        request = ChangeRequest(op="provider", path=RENAME_PROVIDER)
        changes = []
        mark = provider.id.encode("ascii")
        for sharing in self._rows:
            if sharing.state is not State.LIVE or mark not in sharing.body:
                continue
            course = decode_course(sharing.body)
            if course.provider_id != provider.id:
                continue
            after = replace(course, provider=renamed)
            self._store(sharing, after)
            stroke = self._stroke(request, moment)
            changes.append(self._logged(stroke, "provider", sharing, self._touched(course, after)))
        return changes

    # --- the stored form -------------------------------------------------------------------

    def _append(self, course: Course) -> _Row:
        row = _Row(len(self._rows), course.id, None, b"", b"", 0)
        # A seeded course was last updated when its newest part was.
        stamps = [course.changed_at, *(revision.changed_at for revision in course.revisions)]
        row.updated_at = parse_time(max(stamps))
        self._rows.append(row)
        self._by_id[course.id] = row
        self._store(row, course)
        return row

    def _store(self, row: _Row, course: Course) -> None:
        row.body = encode_course(course)
        row.served = row.body if self._presentation.plain else self._presentation.encode(course)
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
