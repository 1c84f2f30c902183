"""Pages that are broken in one place: what it costs, and who is told."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from service.clock import now_ms
from service.domain.delivery.subscription import Rendering
from service.domain.events.event import render
from service.domain.polling.integration import Baseline
from tests.integration.conftest import new_integration
from tests.integration.polling.raw_shelf import Shelf

MINUTE = 60_000
TOKENS = [
    b"NaN",
    b"-Infinity",
    b'"a\tb"',
    b'"\\x41"',
    b'"\\ud83d"',
    b'"\\u12"',
    b'"\xff"',
    b"[1,]",
    b"1e999",
    b"9" * 5_000,
    b"[" * 50_000 + b"]" * 50_000,
    b"undefined",
]


def types(events) -> Counter[str]:
    found = Counter(event.type for event in events)
    del found["integration.baseline_completed"]
    return found


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(600)


@pytest.fixture
async def registered(context, scripted, shelf):
    scripted.answer = shelf.answer
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    assert (await integration.state()).course_count == 600
    return integration


async def reasons(integration) -> dict[str, str]:
    state = await integration.state()
    rows, _ = await integration.services.courses.page(integration.id, state.epoch, 10_000)
    return {one.id: one.quarantine_reason for one in rows if one.quarantine_reason is not None}


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: repr(token[:12]))
@pytest.mark.parametrize("field", ["remote_data", "revisions", "origin_id", "a_new_one"])
async def test_the_others_of_its_page_are_compared_and_it_is_listed(
    registered, shelf, token, field
):
    shelf.break_off("c296", field, token)
    shelf.write("c001", origin_id="before it")
    shelf.write("c297", origin_id="behind it")
    shelf.write("c599", origin_id="pages behind it")

    poll = await registered.poll("full")

    assert (poll.state, poll.error) == ("completed", None)
    assert poll.verdicts == {"updated": 3, "quarantined": 1, "unchanged": 596}
    assert (await reasons(registered)).keys() == {"c296"}
    assert (await registered.shown()).error is None
    events = await registered.events()
    assert types(events) == {"course.updated": 3}
    for event in events:
        json.loads(render(event, Rendering.FULL).decode(), parse_constant=pytest.fail)

    shelf.heal("c296")
    await registered.poll("full")
    assert await reasons(registered) == {}
    assert types(await registered.events()) == {"course.updated": 3}


@pytest.mark.parametrize("token", [one for one in TOKENS if len(one) < 50])
async def test_a_record_whose_id_is_broken_is_counted_and_its_course_is_not_absent(
    registered, shelf, token
):
    shelf.break_off("c296", "id", token)
    shelf.hidden = {"c010"}

    poll = await registered.poll("full")

    assert poll.state == "completed"
    assert poll.verdicts["quarantined"] == 1
    # The answer to the missing ids shows a record without a name: it might be any of them.
    assert types(await registered.events()) == {}
    assert (await registered.state()).course_count == 600

    shelf.heal("c296")
    await registered.poll("full")
    deleted = [one for one in await registered.events() if one.type == "course.deleted"]
    assert [one.course_id for one in deleted] == ["c010"]


async def test_courses_that_a_broken_record_swallows_are_not_absent(registered, shelf, scripted):
    """A quote too many in two records makes one of all that is between them."""
    for course_id in ("c100", "c103"):
        shelf.break_off(course_id, "origin_id", b'"12" wide"')
    shelf.hidden = {"c500"}

    async def in_order_and_one_more(request):
        if "ids" in request.query:
            ids = ",".join(sorted({*request.query["ids"].split(","), "c100"}))
            request = request.clone(rel_url=request.rel_url.update_query(ids=ids))
        return await shelf.answer(request)

    scripted.answer = in_order_and_one_more

    poll = await registered.poll("full")

    assert poll.state == "completed"
    found = [one for one in await registered.events() if one.type.startswith("course.")]
    assert [(one.type, one.course_id) for one in found] == [("course.deleted", "c500")]
    assert (await reasons(registered)).keys() == {"c100"}


async def test_a_broken_record_does_not_stop_a_baseline(context, scripted, shelf):
    scripted.answer = shelf.answer
    integration = await new_integration(context, scripted.base_url, baseline=Baseline.EMIT)
    shelf.break_off("c005", "remote_data", b"NaN")

    await integration.turn()

    assert (await integration.state()).baselined
    assert types(await integration.events()) == {"course.created": 599}
    shelf.heal()
    await integration.poll("full")
    assert types(await integration.events()) == {"course.created": 600}


async def test_every_record_may_be_broken(registered, shelf):
    for number, course_id in enumerate(shelf.records):
        shelf.break_off(course_id, "remote_data", TOKENS[number % 10])
    poll = await registered.poll("full")
    assert poll.verdicts == {"quarantined": 600}
    assert types(await registered.events()) == {}
    shelf.heal()
    assert (await registered.poll("full")).verdicts == {"refreshed": 600}
    assert types(await registered.events()) == {}


# --- a page that cannot be read at all -------------------------------------------------------

UNREADABLE = [b'"a', b"{", b"]", b"[1}"]  # as values, these leave nothing behind them readable


class Clock:
    """Lets the polls believe that time has passed."""

    def __init__(self, monkeypatch) -> None:
        self.ahead = 0
        monkeypatch.setattr("workers.polling.poll.now_ms", lambda: now_ms() + self.ahead)

    def pass_minutes(self, minutes: float) -> None:
        self.ahead += int(minutes * MINUTE)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


async def operational(integration) -> list[str]:
    events = await integration.events()
    return [
        one.type for one in events if one.type in ("integration.error", "integration.recovered")
    ]


@pytest.mark.parametrize("kind", ["delta", "full"])
@pytest.mark.parametrize("token", UNREADABLE)
async def test_a_page_that_cannot_be_read_is_told_after_minutes_and_once(
    registered, shelf, clock, token, kind
):
    shelf.break_off("c296", "remote_data", token)
    await registered.services.integrations.request_poll(registered.id, kind, now_ms())
    for _ in range(5):
        await registered.turn()
        clock.pass_minutes(1.5)
        shown = await registered.shown()
        assert (shown.state, shown.error.code, shown.error.attention) == (
            "active",
            "UpstreamPage",
            False,
        )
        assert await operational(registered) == []
    assert "cannot be read" in shown.error.message
    assert "operators" in shown.error.remedy

    clock.pass_minutes(3)
    await registered.turn()

    shown = await registered.shown()
    assert (shown.state, shown.error.attention) == ("error", True)
    assert await operational(registered) == ["integration.error"]
    clock.pass_minutes(2)
    await registered.turn()
    assert await operational(registered) == ["integration.error"]
    assert types(await registered.events()) == {"integration.error": 1}

    shelf.heal()
    await registered.poll("full")
    await registered.turn()  # a delta may have been under way
    assert (await registered.shown()).error is None
    assert await operational(registered) == ["integration.error", "integration.recovered"]


async def test_a_full_poll_that_cannot_be_read_lets_deltas_go_on_and_stays_told(
    registered, shelf, scripted, clock
):
    async def only_deltas(request):
        sound = Shelf(600) if "updated_after" in request.query else shelf
        return await sound.answer(request)

    scripted.answer = only_deltas
    shelf.followings["c296"] = b"NaN"
    await registered.services.integrations.request_poll(registered.id, "full", now_ms())
    await registered.turn()
    clock.pass_minutes(11)
    await registered.turn()
    assert (await registered.shown()).error.attention
    assert (await registered.polls())[0].state == "failed"

    delta = await registered.poll("delta")

    assert (delta.kind, delta.state) == ("delta", "completed")
    assert (await registered.shown()).error.attention, "full polls fail still"
    assert await operational(registered) == ["integration.error"]
    shelf.followings.clear()
    await registered.poll("full")
    assert (await registered.shown()).error is None
    assert await operational(registered) == ["integration.error", "integration.recovered"]


async def test_failures_of_other_kinds_are_not_told_so(registered, shelf, clock, scripted):
    sound = scripted.answer

    async def away(request):
        request.transport.abort()
        return await sound(request)

    scripted.answer = away
    await registered.services.integrations.request_poll(registered.id, "delta", now_ms())
    for _ in range(3):
        await registered.turn()
        clock.pass_minutes(6)
    assert not (await registered.shown()).error.attention
    shelf.break_off("c296", "remote_data", b"{")
    scripted.answer = sound
    await registered.turn()
    assert not (await registered.shown()).error.attention, "this one is the first of its kind"


async def test_the_wait_until_it_is_told_is_no_longer_for_a_backoff(
    registered, shelf, clock, monkeypatch
):
    monkeypatch.setattr("workers.polling.poll.random.random", lambda: 1.0)
    shelf.break_off("c296", "remote_data", b"{")
    await registered.services.integrations.request_poll(registered.id, "delta", now_ms())
    waited = 0.0
    for _ in range(12):
        await registered.turn()
        if (await registered.shown()).error.attention:
            break
        wait = await registered.due_in()
        clock.pass_minutes(wait / 60 + 0.001)
        waited += wait
    assert 590 < waited < 610


async def test_smaller_pages_bring_all_but_the_record_that_cannot_be_read(registered, shelf):
    for course_id in ("c295", "c297"):
        shelf.write(course_id, origin_id="changed")
    shelf.break_off("c296", "remote_data", b"{")
    await registered.services.integrations.request_poll(registered.id, "full", now_ms())
    for _ in range(12):
        await registered.turn()
    events = [one for one in await registered.events() if one.type == "course.updated"]
    assert [one.course_id for one in events] == ["c295"], "up to it; behind it no cursor leads"


async def test_a_page_that_arrives_with_more_than_asked_for_is_told_too(
    registered, shelf, clock, scripted
):
    async def too_many(request):
        return await Shelf(300).answer(
            request.clone(rel_url=request.rel_url.update_query(page_size=300))
        )

    scripted.answer = too_many
    await registered.services.integrations.request_poll(registered.id, "delta", now_ms())
    await registered.turn()
    clock.pass_minutes(11)
    await registered.turn()
    assert (await registered.shown()).error.attention
