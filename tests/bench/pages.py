"""Pages of courses that need no network: made in advance, or as they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import httpx
from msgspec.structs import replace

from service.clients.upstream import Page, PageQuery, UpstreamClient
from service.clock import now_ms
from service.domain.access.upstream_credential import UpstreamCredential
from service.sandbox.answers import date_header, page_body
from service.sandbox.content import ContentSource, Course, encode_course

PAGE_SIZE = 250
ID_CHARACTERS = 24
_SEED = 7
_DESCRIPTION = 120  # characters that are left of one, for records of some 1.2 kB

Body = Callable[[int], bytes]  # the page of this number, from 0, as the upstream would send it
Shape = Callable[[Course], Course]  # makes a record of the catalogue from one of the sandbox


def serve(upstream: UpstreamClient, body: Body) -> None:
    """Has `upstream` take its pages from `body`: all of it but the network and HTTP still runs."""
    answer = httpx.Response(200)

    async def fetch_page(
        credential: UpstreamCredential, _upstream_id: str, query: PageQuery
    ) -> Page:
        if query.ids:
            raise AssertionError("asked for courses by id, though none is absent")
        if query.cursor is None:
            answer.headers["date"] = date_header(now_ms())
        content = body(int(query.cursor or 0))
        return upstream.page_of(answer, content, credential.api_key)

    upstream.fetch_page = fetch_page


def prepared(courses: int, shape: Shape) -> list[bytes]:
    """All pages of a catalogue, each course different."""
    source = ContentSource("workday:bench", _SEED)
    return [
        _page(
            [
                encode_course(shape(source.course(number)))
                for number in range(start, min(start + PAGE_SIZE, courses))
            ],
            start,
            courses,
        )
        for start in range(0, courses, PAGE_SIZE)
    ]


class Generated:
    """The pages of a catalogue of any size, of which nothing is held but one page's records: their
    ids are replaced, those of the courses (24 characters) and the remote ids (8 to 24). Courses
    whose numbers are in `absent` are on no page."""

    def __init__(self, courses: int) -> None:
        self.absent: set[int] = set()
        self._courses = courses
        source = ContentSource("workday:bench", _SEED)
        self._templates = [
            (
                encode_course(course),
                course.id.encode(),
                f'"remote_id":"{course.remote_id}"'.encode(),
            )
            for course in (shortened(source.course(number)) for number in range(PAGE_SIZE))
        ]

    def __call__(self, page: int) -> bytes:
        """The page of this number."""
        start = page * PAGE_SIZE
        numbers = range(start, min(start + PAGE_SIZE, self._courses))
        records = [self._record(one) for one in numbers if one not in self.absent]
        return _page(records, start, self._courses)

    def ends(self) -> bytes:
        """A page with the first and the last course: the answer to a request for these two and for
        absent ones."""
        return page_body([self._record(0), self._record(self._courses - 1)], None)

    def _record(self, number: int) -> bytes:
        record, course_id, remote_id = self._templates[number % PAGE_SIZE]
        # The first `remote_id` of a record is the course's own.
        return record.replace(course_id, course_id_of(number)).replace(
            remote_id, b'"remote_id":"%b"' % _remote_id(number), 1
        )


def course_id_of(number: int) -> bytes:
    """The id of the generated course of this number."""
    return blake2b(b"%d" % number, digest_size=ID_CHARACTERS // 2).hexdigest().encode()


def _remote_id(number: int) -> bytes:
    return (b"%d" % number).rjust(8 + number % 17, b"0")


def _page(records: list[bytes], start: int, courses: int) -> bytes:
    more = start + PAGE_SIZE < courses
    return page_body(records, str(start // PAGE_SIZE + 1) if more else None)


def uncut(course: Course) -> Course:
    """The course as it is, with several revisions and long descriptions: a record of some 2.8
    kB."""
    return course


def shortened(course: Course) -> Course:
    """The course with one revision and little text: a record of some 1.2 kB."""
    revision = course.revisions[-1]
    description = revision.description and revision.description[:_DESCRIPTION]
    return replace(
        course,
        revisions=(replace(revision, description=description, integration_fields=()),),
    )
