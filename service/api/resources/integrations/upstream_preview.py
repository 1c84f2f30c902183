"""The current upstream state of courses whose changes are held."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Annotated, Any, ClassVar

import msgspec

from service.api.fields.kinds import means
from service.api.fields.views import View
from service.api.resources.integrations.upstream_check import CheckResult, failed
from service.bootstrap import Services
from service.clients.upstream import PageQuery
from service.clock import now_ms
from service.domain.courses.deletion_mark import Deletion, judging_time
from service.domain.courses.received import ReceivedRecord, identify_records
from service.domain.courses.salvage import UNREADABLE
from service.domain.errors import UpstreamError, UpstreamRateLimitedError
from service.domain.events.event import MAX_BODY_BYTES
from service.domain.polling.id_requests import can_be_asked, fitting
from service.domain.polling.integration import Integration
from service.storage.polling.budgets import DEFAULT_HOLD_SECONDS

MAX_PREVIEWED = 20  # courses of one request
_STATES = {
    Deletion.NONE: "live",
    Deletion.DUE: "live",
    Deletion.DONE: "deleted",
    Deletion.UNCLEAR: "unreadable",
}


class UpstreamCourse(View, frozen=True, kw_only=True):
    """The current upstream state of a course."""

    example: ClassVar = {"state": "deleted", "record": {"id": "3h1cCYHrT8JvFmBgdRzWqNyP"}}
    state: Annotated[
        str,
        means(
            "live; deleted: it has a tombstone; absent: the response does not contain it; "
            "unreadable; not_requested: a request by ids cannot carry its id"
        ),
    ]
    record: Annotated[
        dict[str, Any] | None,
        means("the record; null: none, unreadable, or larger than the maximum size of an event"),
    ] = None


class Preview(msgspec.Struct, frozen=True):
    """The result of one request: the courses by id, or the failure."""

    courses: dict[str, UpstreamCourse]
    outcome: CheckResult | None


async def preview(
    services: Services, integration: Integration, course_ids: Sequence[str]
) -> Preview:
    """Requests the courses by id, in one request and within the credential's budget."""
    asked = fitting(one for one in course_ids if can_be_asked(one))
    courses = dict.fromkeys(course_ids, UpstreamCourse(state="not_requested"))
    if not asked:
        return Preview(courses, CheckResult(ok=True, records_seen=0))
    try:
        found = await _request(services, integration, asked)
    except UpstreamError as error:
        return Preview({}, failed(error))
    courses |= dict.fromkeys(asked, UpstreamCourse(state="absent"))
    courses |= {one.course_id: _shown(one) for one in found if one.course_id in courses}
    return Preview(courses, CheckResult(ok=True, records_seen=len(found)))


async def _request(
    services: Services, integration: Integration, course_ids: Sequence[str]
) -> list[ReceivedRecord]:
    credential_id = integration.credential_id
    credential = await services.credentials.decrypt(credential_id)
    if wait_ms := await services.budgets.spend_now(credential_id):
        raise UpstreamRateLimitedError(
            f"the credential's rate limit allows no request for {ceil(wait_ms / 1000)} s",
            code="PLATFORM.RATE_LIMIT_EXCEEDED",
        )
    try:
        page = await services.upstream.fetch_page(
            credential,
            integration.upstream_id,
            PageQuery(ids=tuple(course_ids), include_deleted=True),
        )
    except UpstreamRateLimitedError as error:
        seconds = error.retry_after or DEFAULT_HOLD_SECONDS
        await services.budgets.hold(credential_id, "full", seconds)
        raise
    await services.budgets.note(
        credential_id,
        limit=page.rate.limit,
        remaining=page.rate.remaining,
        reset_seconds=page.rate.reset_seconds,
    )
    received, _ = identify_records(page.results, judging_time(now_ms(), page.date_ms))
    return received


def _shown(received: ReceivedRecord) -> UpstreamCourse:
    if received.problem is not None:
        return UpstreamCourse(state="unreadable")
    record = None
    if len(bytes(received.record)) <= MAX_BODY_BYTES:
        try:
            record = msgspec.json.decode(received.record)
        except UNREADABLE:
            return UpstreamCourse(state="unreadable")
    return UpstreamCourse(state=_STATES[received.deletion], record=record)
