"""What `remote_deleted_at` may hold, and what is made of it over whole polls."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from service.clock import now_ms
from service.domain.events.event import rfc3339
from service.domain.polling.integration import Baseline
from tests.integration.conftest import new_integration, set_polling_clock
from tests.integration.polling.raw_shelf import Shelf

DAY = 86_400_000
NONSENSE = [
    "",
    "0000-00-00 00:00:00",
    "0001-01-01T00:00:00Z",
    "1970-01-01T00:00:00.000Z",
    "false",
    "null",
    "0",
    "23.11.2026 08:00",
    0,
    1_795_161_600,
    False,
    True,
    {},
    [],
    {"$date": "2026-11-20T08:00:00Z"},
]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(300)


@pytest.fixture
async def registered(context, scripted, shelf):
    scripted.answer = shelf.answer
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    return integration


async def courses(integration) -> list[tuple[str, str]]:
    events = await integration.events()
    return [(one.type, one.course_id) for one in events if one.type.startswith("course.")]


async def listed(integration) -> dict[str, tuple[str, str | None]]:
    state = await integration.state()
    rows, _ = await integration.services.courses.page(integration.id, state.epoch, 10_000)
    return {one.id: (one.state, one.quarantine_reason) for one in rows if one.state != "live"}


@pytest.mark.parametrize("kind", ["full", "delta"])
async def test_a_mark_that_is_no_date_deletes_nothing_and_is_listed(registered, shelf, kind):
    marked = {f"c{number:03}": mark for number, mark in enumerate(NONSENSE)}
    for course_id, mark in marked.items():
        shelf.write(course_id, remote_deleted_at=mark)
    shelf.write("c020", remote_deleted_at="2026-11-20 08:00:00")

    for _ in range(2):
        poll = await registered.poll(kind)
        assert poll.state == "completed"
        assert poll.verdicts["quarantined"] == len(NONSENSE)
        assert await courses(registered) == [("course.deleted", "c020")]
    found = await listed(registered)
    assert {one for one, (state, _) in found.items() if state == "quarantined"} == marked.keys()
    assert all("remote_deleted_at" in found[course_id][1] for course_id in marked)
    assert (await registered.state()).course_count == 299

    shelf.heal(*marked)
    await registered.poll("full")
    assert (await listed(registered)).keys() == {"c020"}
    assert await courses(registered) == [("course.deleted", "c020")]


async def test_all_courses_marked_with_nonsense_at_once_delete_nothing(registered, shelf):
    for course_id in shelf.records:
        shelf.write(course_id, remote_deleted_at="0001-01-01T00:00:00Z")
    assert (await registered.poll("full")).verdicts == {"quarantined": 300}
    assert await courses(registered) == []
    assert (await registered.state()).course_count == 300


async def test_a_mark_of_nonsense_in_an_answer_to_ids_confirms_nothing(registered, shelf, scripted):
    """Neither that the course is gone, nor, of a control, that it is there."""
    shelf.hidden = {"c100", "c200"}
    marked: set[str] = set()

    async def answer(request):
        if "ids" not in request.query:
            return await shelf.answer(request)
        shelf.hidden = {"c200"}
        for course_id in marked:
            shelf.write(course_id, remote_deleted_at="")
        try:
            return await shelf.answer(request)
        finally:
            shelf.heal(*marked)
            shelf.hidden = {"c100", "c200"}

    scripted.answer = answer
    marked |= {"c100", "c000"}  # one that is missing, and one that the poll saw live
    await registered.poll("full")
    assert await courses(registered) == []
    marked -= {"c000"}
    await registered.poll("full")
    assert await courses(registered) == [("course.deleted", "c200")]


class Clock:
    """Lets everything that judges records believe that time has passed."""

    def __init__(self, monkeypatch) -> None:
        self.ahead = 0
        set_polling_clock(monkeypatch, self.now_ms)
        monkeypatch.setattr("workers.delivery.backfill_feed.now_ms", self.now_ms)

    def now_ms(self) -> int:
        return now_ms() + self.ahead


async def test_a_date_to_come_deletes_when_it_has_passed_though_the_bytes_stay(
    registered, shelf, monkeypatch
):
    clock = Clock(monkeypatch)
    shelf.write("c007", remote_deleted_at=rfc3339(now_ms() + DAY))
    shelf.write("c008", remote_deleted_at="9999-12-31T23:59:59Z")

    for kind in ("delta", "full", "full"):
        poll = await registered.poll(kind)
        assert (poll.state, poll.error) == ("completed", None)
    assert poll.verdicts == {"refreshed": 1, "unchanged": 299}
    shelf.write(
        "c007",
        remote_deleted_at=json.loads(shelf.records["c007"])["remote_deleted_at"],
        origin_id="x",
    )
    await registered.poll("delta")
    assert await courses(registered) == [("course.updated", "c007")]
    assert await listed(registered) == {}

    clock.ahead = DAY + 1000
    await registered.poll("full")

    assert await courses(registered) == [("course.updated", "c007"), ("course.deleted", "c007")]
    clock.ahead += DAY
    await registered.poll("full")
    assert len(await courses(registered)) == 2


async def test_a_course_first_seen_with_a_date_to_come_is_created_and_then_deleted(
    context, scripted, shelf, monkeypatch
):
    clock = Clock(monkeypatch)
    scripted.answer = shelf.answer
    integration = await new_integration(context, scripted.base_url, baseline=Baseline.EMIT)
    shelf.write("c007", remote_deleted_at=rfc3339(now_ms() + DAY))
    await integration.turn()
    assert Counter(kind for kind, _ in await courses(integration)) == {"course.created": 300}
    clock.ahead = 2 * DAY
    await integration.poll("full")
    assert (await courses(integration))[300:] == [("course.deleted", "c007")]


async def test_a_date_that_is_moved_or_taken_back_deletes_nothing(registered, shelf, monkeypatch):
    clock = Clock(monkeypatch)
    shelf.write("c007", remote_deleted_at=rfc3339(now_ms() + DAY))
    shelf.write("c008", remote_deleted_at=rfc3339(now_ms() + DAY))
    await registered.poll("full")
    shelf.write("c007", remote_deleted_at=rfc3339(now_ms() + 9 * DAY))
    shelf.heal("c008")
    clock.ahead = 2 * DAY
    await registered.poll("full")
    assert await courses(registered) == []


async def test_a_deletion_by_an_upstream_whose_clock_leads_is_found_at_once(
    registered, shelf, scripted
):
    async def ahead(request):
        answer = await shelf.answer(request)
        answer.headers["Date"] = "Thu, 01 Jan 2099 00:00:00 GMT"
        return answer

    shelf.write("c007", remote_deleted_at=rfc3339(now_ms() + 50 * 60_000))
    shelf.write("c008", remote_deleted_at=rfc3339(now_ms() + DAY))
    scripted.answer = ahead
    await registered.poll("full")
    assert await courses(registered) == [("course.deleted", "c007")]
