"""Records that do not decode: counted, listed, looked at again, and never in the way."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from service.domain.polling.integration import Baseline
from service.storage.redis import keys

EVERYTHING = 10_000


class Watched:
    """A baselined integration and the courses that are broken in it."""

    def __init__(self, integration, sandbox) -> None:
        self.integration = integration
        self.sandbox = sandbox

    async def poll(self, kind: str):
        poll = await self.integration.poll(kind)
        assert (poll.state, poll.error) == ("completed", None)
        return poll

    async def broken(self, *course_ids: str, path: str = "revisions") -> None:
        await self.sandbox.heal()
        if course_ids:
            await self.sandbox.fault("wrong_types", share=0, course_ids=list(course_ids), path=path)

    async def listed(self) -> dict[str, str]:
        """The quarantined courses with their reasons, checked against all counts."""
        services, state = self.integration.services, await self.integration.state()
        rows, _ = await services.courses.page(self.integration.id, state.epoch, EVERYTHING)
        found = {row.id: row.quarantine_reason for row in rows if row.quarantine_reason is not None}
        assert {row.id for row in rows if row.state == "quarantined"} == found.keys()
        assert state.quarantined == len(found)
        totals = await services.redis.hgetall(keys.TOTALS)
        assert int(totals.get(b"quarantined", 0)) == len(found)
        assert int(totals[b"courses"]) == state.course_count
        return found

    async def types(self) -> Counter[str]:
        found = Counter(event.type for event in await self.integration.events())
        del found["integration.baseline_completed"]
        return found

    async def count(self) -> int:
        return (await self.integration.state()).course_count


@pytest.fixture
async def watched(register, sandbox):
    integration = await register()
    await integration.turn()
    assert (await integration.state()).baselined
    return Watched(integration, sandbox)


async def some(sandbox, count: int, begin: int = 0) -> list[str]:
    return [one["id"] for one in (await sandbox.courses())[begin : begin + count]]


async def test_a_known_course_that_breaks_is_kept_as_seen_and_listed(watched, sandbox):
    course_ids = await some(sandbox, 3)
    await watched.broken(*course_ids)

    poll = await watched.poll("full")

    listed = await watched.listed()
    assert listed.keys() == set(course_ids)
    assert all("revisions" in reason for reason in listed.values())
    assert poll.verdicts == {"quarantined": 3, "unchanged": 597}
    assert await watched.count() == 600
    assert await watched.types() == {}


async def test_broken_again_and_again_it_is_counted_once(watched, sandbox):
    await watched.broken(*await some(sandbox, 2))
    for kind in ("full", "delta", "full"):
        await watched.poll(kind)
    assert len(await watched.listed()) == 2
    assert await watched.types() == {}


async def test_the_reason_follows_the_record(watched, sandbox):
    (course_id,) = await some(sandbox, 1)
    await watched.broken(course_id)
    await watched.poll("full")
    await watched.broken(course_id, path="remote_id")
    await watched.poll("full")
    assert "remote_id" in (await watched.listed())[course_id]


async def test_back_with_the_bytes_from_before_it_leaves_without_an_event(watched, sandbox):
    await watched.broken(*await some(sandbox, 2))
    await watched.poll("full")
    await watched.broken()
    await watched.poll("full")
    assert await watched.listed() == {}
    assert await watched.types() == {}


async def test_what_changed_while_it_was_broken_is_reported_once_it_decodes(watched, sandbox):
    (course_id,) = await some(sandbox, 1)
    await watched.broken(course_id)
    await sandbox.change({"op": "edit", "course_id": course_id})
    await watched.poll("delta")
    assert (await watched.listed()).keys() == {course_id}
    assert await watched.types() == {}
    await sandbox.change({"op": "edit", "course_id": course_id})
    await watched.poll("delta")
    assert await watched.types() == {}

    await watched.broken()
    await watched.poll("delta")

    assert await watched.listed() == {}
    assert await watched.types() == {"course.updated": 1}


async def test_a_new_course_that_is_broken_is_created_once_it_decodes(watched, sandbox):
    (new,) = await sandbox.change({"op": "create", "count": 1})
    await watched.broken(new["course_id"])
    await watched.poll("delta")
    assert (await watched.listed()).keys() == {new["course_id"]}
    assert await watched.count() == 600

    await watched.broken()
    await watched.poll("delta")

    assert await watched.listed() == {}
    assert await watched.count() == 601
    assert await watched.types() == {"course.created": 1}


async def test_a_new_one_that_vanishes_for_good_leaves_the_list_with_the_next_full_poll(
    watched, sandbox
):
    new = await sandbox.change({"op": "create", "count": 2})
    gone, stays = (one["course_id"] for one in new)
    await watched.broken(gone, stays)
    await watched.poll("delta")
    await sandbox.change({"op": "vanish", "course_id": gone})
    await watched.poll("delta")
    assert len(await watched.listed()) == 2  # a delta shows no absence

    await watched.poll("full")

    assert (await watched.listed()).keys() == {stays}
    assert await watched.types() == {}


async def test_a_full_poll_that_shows_nothing_or_breaks_off_clears_no_list(watched, sandbox):
    (new,) = await sandbox.change({"op": "create", "count": 1})
    await watched.broken(new["course_id"])
    await watched.poll("delta")
    await sandbox.heal()
    await sandbox.fault("empty", on="walk")
    await watched.integration.poll("full")
    await sandbox.heal()
    await sandbox.fault("repeat_cursor", on="later")
    assert (await watched.integration.poll("full")).state == "failed"
    assert (await watched.listed()).keys() == {new["course_id"]}


async def test_a_known_one_that_vanishes_is_reported_deleted(watched, sandbox):
    (course_id,) = await some(sandbox, 1)
    await watched.broken(course_id)
    await watched.poll("full")
    await sandbox.change({"op": "vanish", "course_id": course_id})

    await watched.poll("full")

    assert await watched.types() == {"course.deleted": 1}
    assert await watched.listed() == {}
    assert await watched.count() == 599


async def test_a_broken_one_with_a_tombstone_is_reported_deleted(watched, sandbox):
    known, *_ = await some(sandbox, 1)
    (new,) = await sandbox.change({"op": "create", "count": 1})
    await watched.broken(known, new["course_id"])
    await watched.poll("full")
    await sandbox.change(
        {"op": "delete", "course_id": known}, {"op": "delete", "course_id": new["course_id"]}
    )

    await watched.poll("delta")

    deleted = [one for one in await watched.integration.events() if one.type == "course.deleted"]
    assert [one.course_id for one in deleted] == [known]  # nobody knew of the other
    assert await watched.listed() == {}


async def test_a_broken_one_is_never_absent_even_if_its_tombstone_cannot_be_read(watched, sandbox):
    (course_id,) = await some(sandbox, 1)
    await watched.broken(course_id, path="remote_deleted_at")
    await watched.poll("full")
    assert (await watched.listed()).keys() == {course_id}
    assert await watched.count() == 600
    assert await watched.types() == {}


async def test_all_of_them_broken_at_once_deletes_nothing_and_stops_nothing(watched, sandbox):
    await sandbox.fault("wrong_types", share=1)
    poll = await watched.poll("full")
    assert poll.verdicts == {"quarantined": 600}
    assert len(await watched.listed()) == 600
    assert await watched.types() == {}
    await watched.broken()
    await watched.poll("full")
    assert await watched.listed() == {}
    assert await watched.types() == {}


async def test_a_baseline_completes_with_some_broken_and_reports_them_later(register, sandbox):
    integration = await register(baseline=Baseline.EMIT)
    watched = Watched(integration, sandbox)
    await watched.broken(*await some(sandbox, 5))
    await integration.turn()
    assert (await integration.state()).baselined
    assert len(await watched.listed()) == 5
    assert await watched.types() == {"course.created": 595}
    await watched.broken()
    await watched.poll("full")
    assert await watched.types() == {"course.created": 600}
    assert await watched.listed() == {}


async def test_absences_are_found_beside_broken_records(watched, sandbox):
    """However many records are broken, courses that are gone do not hide behind them."""
    new = await sandbox.change({"op": "create", "count": 20})
    await watched.broken(*(one["course_id"] for one in new), *await some(sandbox, 20))
    await watched.poll("full")
    gone = await some(sandbox, 3, begin=100)
    await sandbox.change(*({"op": "vanish", "course_id": course_id} for course_id in gone))
    await watched.poll("full")
    assert await watched.types() == {"course.deleted": 3}
    assert len(await watched.listed()) == 40


async def test_records_without_an_id_are_counted_and_hide_no_absence(
    watched, sandbox, context, monkeypatch
):
    (gone,) = [one["course_id"] for one in await sandbox.change({"op": "vanish", "count": 1})]
    upstream = context.services.upstream
    fetch = upstream.fetch_page

    async def with_nameless(*arguments):
        page = await fetch(*arguments)
        if arguments[2].ids:
            return page
        nameless = [msgspec.Raw(b'{"title":"x"}')] * 2
        # Fewer records than asked for, so that the page is no larger than it may be.
        return msgspec.structs.replace(page, results=[*page.results[:248], *nameless])

    monkeypatch.setattr(upstream, "fetch_page", with_nameless)
    monkeypatch.setattr("workers.polling.page_reading.PAGE_SIZE", 300)

    poll = await watched.integration.poll("full")

    assert poll.verdicts["quarantined"] == 6
    assert poll.error == "6 records without an id were skipped"
    (notice,) = (await watched.integration.shown()).notices
    assert notice.code == "records_without_id"
    assert "6 records" in notice.message
    deleted = [one for one in await watched.integration.events() if one.type == "course.deleted"]
    assert [one.course_id for one in deleted] == [gone]
    assert await watched.listed() == {}
