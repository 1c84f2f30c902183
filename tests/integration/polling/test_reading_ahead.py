"""After a page that mostly changed, the next one is read while Redis writes those changes."""

from __future__ import annotations

import asyncio
import gc
import json

import pytest
from aiohttp import web

from service.domain.errors import LeaseLostError
from service.domain.observability.metrics import UPSTREAM_REQUEST, observed
from service.domain.review.guards import Guards
from service.storage.redis.counters import Counters
from tests.integration.conftest import new_integration
from tests.integration.scripted import course, refuses
from workers.polling.page_fetch import Fetcher
from workers.polling.page_reading import PageReader


class Catalogue:
    """Pages of courses by title; `failing` are the pages that the upstream refuses."""

    def __init__(self, *pages: dict[str, str]) -> None:
        self.pages = list(pages)
        self.failing: set[int] = set()
        self.asked = [asyncio.Event() for _ in pages]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        number = int(request.query.get("cursor", 0))
        self.asked[number].set()
        if number in self.failing:
            return await refuses(500, None)(request)
        records = [
            {**course(course_id), "custom_fields": {"title": title}}
            for course_id, title in self.pages[number].items()
        ]
        following = str(number + 1) if number + 1 < len(self.pages) else None
        body = {"status": "success", "data": {"next": following, "results": records}}
        return web.Response(text=json.dumps(body), content_type="application/json")


OLD = ({"a": "1", "b": "1"}, {"c": "1", "d": "1"})


@pytest.fixture
async def polled(context, scripted):
    """An integration with a silent baseline of OLD."""
    scripted.answer = Catalogue(*OLD).answer
    integration = await new_integration(context, scripted.base_url, guards=Guards(changed_share=1))
    await integration.poll("full")
    return integration


async def changes(integration) -> list[tuple[str, str, str]]:
    """The course, title and type of each course event."""
    found = []
    for event in await integration.events():
        if event.type.startswith("course."):
            title = json.loads(event.course)["custom_fields"]["title"]
            found.append((event.course_id, title, event.type.removeprefix("course.")))
    return found


def before_commits(context, act) -> None:
    """Acts before each commit of changes."""
    commit = context.services.catalogue.commit

    async def act_then_commit(*arguments, **named):
        if named["batch"].changes:
            await act()
        return await commit(*arguments, **named)

    context.services.catalogue.commit = act_then_commit


def after_call(monkeypatch, of: type, name: str, number: int) -> asyncio.Event:
    """Set when a method has been called so often, and has ended."""
    method, ended, calls = getattr(of, name), asyncio.Event(), 0

    async def call(*arguments):
        nonlocal calls
        calls += 1
        last = calls == number
        try:
            return await method(*arguments)
        finally:
            if last:
                asyncio.get_running_loop().call_soon(ended.set)

    monkeypatch.setattr(of, name, call)
    return ended


async def test_the_next_page_is_requested_before_the_changes_are_written(polled, context, scripted):
    catalogue = Catalogue({"a": "2", "b": "2"}, {"c": "2", "d": "1"})
    scripted.answer = catalogue.answer
    before_commits(context, lambda: asyncio.wait_for(catalogue.asked[1].wait(), 10))
    assert (await polled.poll("full")).state == "completed"
    assert await changes(polled) == [(name, "2", "updated") for name in "abc"]


async def test_a_page_is_read_when_the_last_one_is_written_unless_that_one_mostly_changed(
    polled, context, scripted
):
    catalogue = Catalogue({"a": "2", "b": "1"}, *OLD[1:])
    scripted.answer = catalogue.answer
    asked = []

    async def note() -> None:
        asked.append(catalogue.asked[1].is_set())

    before_commits(context, note)
    await polled.poll("full")
    assert not asked[0]
    assert await changes(polled) == [("a", "2", "updated")]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"a": "2", "c": "2"}, ["a2", "b2", "c2"]),
        ({"a": "3", "c": "2"}, ["a2", "b2", "a3", "c2"]),
        ({"a": "1", "c": "2"}, ["a2", "b2", "a1", "c2"]),
    ],
)
async def test_a_course_on_both_pages_is_compared_with_what_the_first_one_said(
    polled, context, scripted, monkeypatch, second, expected
):
    scripted.answer = Catalogue({"a": "2", "b": "2"}, second | {"d": "1"}).answer
    compared = after_call(monkeypatch, PageReader, "judge", 2)
    before_commits(context, lambda: asyncio.wait_for(compared.wait(), 10))
    await polled.poll("full")
    assert [name + title for name, title, _ in await changes(polled)] == expected


async def test_a_next_page_that_fails_takes_nothing_from_the_page_before(polled, scripted):
    catalogue = Catalogue({"a": "2", "b": "2"}, {"c": "2", "d": "2"})
    catalogue.failing.add(1)
    scripted.answer = catalogue.answer
    poll = await polled.poll("full")
    assert (poll.state, poll.pages) == ("running", 1)
    assert await changes(polled) == [("a", "2", "updated"), ("b", "2", "updated")]

    catalogue.failing.clear()
    await polled.turn()
    assert await changes(polled) == [(name, "2", "updated") for name in "abcd"]


async def test_a_commit_and_the_next_page_may_both_fail(polled, context, scripted, monkeypatch):
    catalogue = Catalogue({"a": "2", "b": "2"}, {"c": "2", "d": "2"})
    catalogue.failing.add(1)
    scripted.answer = catalogue.answer
    unhandled: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, found: unhandled.append(found))

    refused = after_call(monkeypatch, Fetcher, "page", 2)

    async def lose_the_lease() -> None:
        await asyncio.wait_for(refused.wait(), 10)
        raise LeaseLostError

    before_commits(context, lose_the_lease)
    await polled.turn()
    gc.collect()
    assert unhandled == []
    assert await changes(polled) == []


async def test_every_request_is_counted(polled, services, scripted):
    async def requests() -> int:
        stored = await services.redis.hgetall(await Counters(services.redis).key())
        found = observed(UPSTREAM_REQUEST, {name.decode(): int(stored[name]) for name in stored})
        return found[()].buckets[-1][1]

    before = await requests()
    scripted.answer = Catalogue({"a": "2", "b": "2"}, {"c": "2", "d": "2"}).answer
    await polled.poll("full")
    assert await requests() == before + 2
