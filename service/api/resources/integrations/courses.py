"""`/v1/integrations/{id}/courses`: the stored state of each course."""

from __future__ import annotations

from typing import Annotated, ClassVar

from litestar import Controller, get
from litestar.di import NamedDependency
from msgspec import UNSET, UnsetType

from service.api.access.route_guards import READERS
from service.api.fields import samples
from service.api.fields.kinds import Several, means
from service.api.fields.readers import or_none
from service.api.fields.views import Page, View
from service.api.http import cursors
from service.api.http.requests import (
    AnyRequest,
    CourseId,
    GivenServices,
    PathId,
    ScanQuery,
    rest_of_path,
)
from service.api.resources.filtering import STATES, NamePart, named
from service.storage.polling.courses import CourseRow, CourseState, WantedCourses


class CourseView(View, frozen=True, kw_only=True):
    """The stored state of a course. `state` is live, deleted, held (a change waits for a decision)
    or quarantined (`reason` contains the cause); `sequence` and `last_event_id` are null
    before its first event."""

    example: ClassVar = {
        "course_id": samples.COURSE,
        "remote_id": "32",
        "origin_id": None,
        "state": "live",
        "reason": None,
        "sequence": 1795424001123,
        "last_event_id": samples.EVENT,
    }
    course_id: Annotated[str, means("its id at the upstream")]
    remote_id: Annotated[str | None, means("its id in the learning system")]
    origin_id: Annotated[
        str | None, means("its id in the system it came from, if the learning system has it")
    ]
    state: Annotated[CourseState, means("live, deleted, held or quarantined")]
    reason: Annotated[str | None, means("why it is quarantined")]
    sequence: Annotated[int | None, means("the number of its last event")]
    last_event_id: Annotated[str | None, means("the id of its last event")]

    @classmethod
    def of(cls, row: CourseRow) -> CourseView:
        """A course."""
        return cls.show(row, course_id=row.id, reason=row.quarantine_reason)


class CourseList(Page, frozen=True, kw_only=True):
    """At most `limit` courses in no order; `next` is the cursor of the next page."""

    items: Annotated[list[CourseView], means("the page")]


class CourseQuery(ScanQuery, frozen=True, kw_only=True):
    """The filters of courses."""

    course_id: Annotated[
        CourseId | UnsetType, means("only this course, whatever characters its id has")
    ] = UNSET
    remote_id: Annotated[
        CourseId | UnsetType, means("only courses with this id in the learning system")
    ] = UNSET
    origin_id: Annotated[
        CourseId | UnsetType, means("only courses with this id in the system they came from")
    ] = UNSET
    search: Annotated[NamePart | UnsetType, named("one of their ids")] = UNSET
    state: Annotated[Several[CourseState] | UnsetType, STATES] = UNSET


class CourseController(Controller):
    """Reads the catalogue."""

    path = "/integrations/{integration_id:str}/courses"
    tags = ["Integrations"]  # noqa: RUF012 - Litestar reads it as it is

    @get(
        guards=[READERS],
        operation_id="listCourses",
        summary="List the courses of an integration",
        response_description="A page of courses",
    )
    async def courses(
        self, integration_id: PathId, params: NamedDependency[CourseQuery], services: GivenServices
    ) -> CourseList:
        """Lists the stored states of courses, in no order. A page can contain few courses, or none,
        although `next` is not null. There is no index for `remote_id`, `origin_id`, `search` and
        `state`: a request with one of them examines about 10,000 courses and returns the matches
        and `next`. Only `state=quarantined` has an index. Deleted courses are listed until the
        epoch ends."""
        _, state = await services.integrations.get(integration_id)
        wanted = WantedCourses(
            remote_id=or_none(params.remote_id),
            origin_id=or_none(params.origin_id),
            part=or_none(params.search),
            states=or_none(params.state),
        )
        if params.course_id is not UNSET:
            row = await services.courses.find(integration_id, state.epoch, params.course_id, wanted)
            return CourseList(items=[CourseView.of(row)] if row else [], next=None)
        rows, place = await services.courses.page(
            integration_id, state.epoch, params.limit, or_none(params.after), wanted
        )
        return CourseList(
            items=[CourseView.of(row) for row in rows], next=cursors.write_scan(place)
        )

    @get(
        "/{course_id:path}",
        guards=[READERS],
        operation_id="showCourse",
        summary="Show a course",
        response_description="The course",
    )
    async def course(
        self,
        integration_id: PathId,
        course_id: PathId,
        request: AnyRequest,
        services: GivenServices,
    ) -> CourseView:
        """Returns the stored state of the course, not its content. Percent-encode the id. Some
        clients and proxies rewrite `..` and `//` in a path. For an id that contains either, use the
        `course_id` filter of the list."""
        _, state = await services.integrations.get(integration_id)
        course_id = rest_of_path(request, f"/{integration_id}/courses/", course_id)
        return CourseView.of(await services.courses.get(integration_id, state.epoch, course_id))
