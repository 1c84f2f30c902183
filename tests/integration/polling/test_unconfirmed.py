"""Changes that the upstream does not confirm: counted, explained, and told to a person in time."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from service.domain.polling.integration import UNCONFIRMED_CODE
from tests.integration.conftest import new_integration
from tests.integration.polling.shelf import Shelf

IDS = [f"c{number:03}" for number in range(40)]
LIES = {
    "empty": "lacked courses that the upstream had just returned",
    "loses one": "lacked courses that the upstream had just returned",
    "cut": "was not complete",
    "refused": "refused the request by ids",
}


@pytest.fixture
async def shelf(scripted):
    shelf = Shelf(scripted)
    shelf.put(*IDS)
    return shelf


@pytest.fixture
async def integration(context, scripted, shelf):
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    assert (await integration.state()).baselined
    return integration


async def told(integration) -> Counter[str]:
    found = Counter(event.type for event in await integration.events())
    del found["integration.baseline_completed"]
    return found


@pytest.mark.parametrize("by_ids", LIES)
async def test_a_poll_says_how_many_absences_it_could_not_confirm_and_why(
    integration, shelf, by_ids
):
    shelf.take("c005", "c006", "c007")
    shelf.by_ids = by_ids

    poll = await integration.poll("full")

    assert poll.state == "completed"
    assert poll.error.startswith(
        "3 changes could not be confirmed and were not reported: 3 because"
    )
    assert LIES[by_ids] in poll.error
    shown = await integration.shown()
    assert (shown.state, shown.error, shown.course_count) == ("active", None, 40)
    (notice,) = shown.notices
    assert notice.code == "unconfirmed_changes"
    assert LIES[by_ids] in notice.message
    assert await told(integration) == {}


@pytest.mark.parametrize("by_ids", LIES)
async def test_after_three_full_polls_in_a_row_a_person_is_told_until_it_is_over(
    integration, shelf, by_ids
):
    shelf.take("c005")
    shelf.by_ids = by_ids
    for _ in range(2):
        await integration.poll("full")
        await integration.poll("delta")  # neither counts nor forgets
        assert (await integration.shown()).state == "active"
    await integration.poll("full")

    shown = await integration.shown()
    assert (shown.state, shown.error.code, shown.error.attention) == (
        "error",
        UNCONFIRMED_CODE,
        True,
    )
    assert "the last 3 full polls" in shown.error.message
    assert LIES[by_ids] in shown.error.message
    assert "ids=" in shown.error.remedy
    assert await told(integration) == {"integration.error": 1}

    # Deltas go on, by their ordinary interval, and neither clear the problem nor tell it again.
    shelf.put("c008", origin_id="moved")
    poll = await integration.poll("delta")
    assert (poll.state, poll.verdicts.get("updated")) == ("completed", 1)
    assert 0 < await integration.due_in() <= 61
    assert (await integration.shown()).error.code == UNCONFIRMED_CODE

    shelf.by_ids = "answered"
    poll = await integration.poll("full")
    assert poll.error is None
    shown = await integration.shown()
    assert (shown.state, shown.error, shown.notices) == ("active", None, [])
    assert await told(integration) == {
        "integration.error": 1,
        "course.updated": 1,
        "course.deleted": 1,
        "integration.recovered": 1,
    }


async def test_an_outage_meanwhile_neither_hides_what_a_person_must_see_nor_tells_it_again(
    integration, shelf
):
    shelf.take("c005")
    shelf.by_ids = "empty"
    for _ in range(3):
        await integration.poll("full")
    shelf.status = 503
    await integration.poll("delta")
    assert (await integration.shown()).error.code == UNCONFIRMED_CODE
    shelf.status = 200
    await integration.turn()
    assert (await integration.shown()).error.code == UNCONFIRMED_CODE
    assert await told(integration) == {"integration.error": 1}


async def test_full_polls_that_show_no_live_course_are_told_of_too(integration, shelf):
    shelf.left_out = set(IDS)
    for _ in range(3):
        poll = await integration.poll("full")
        assert poll.error == (
            "40 changes could not be confirmed and were not reported: 40 because the poll returned "
            "no live course"
        )
    assert (await integration.shown()).error.code == UNCONFIRMED_CODE
    shelf.left_out = set()
    await integration.poll("full")
    assert (await integration.shown()).error is None
    assert await told(integration) == {"integration.error": 1, "integration.recovered": 1}


async def test_one_full_poll_without_any_begins_the_count_anew(integration, shelf):
    for by_ids in ("empty", "empty", "answered", "empty", "empty"):
        if by_ids == "answered":
            shelf.put("c005")
        else:
            shelf.courses.pop("c005", None)
        shelf.by_ids = by_ids
        await integration.poll("full")
        assert (await integration.shown()).state == "active"
    assert await told(integration) == {}


async def test_courses_that_a_page_left_out_are_confirmed_to_be_there_and_nothing_is_said(
    integration, shelf
):
    shelf.left_out = {"c005", "c006"}
    poll = await integration.poll("full")
    assert poll.error is None
    assert (await integration.shown()).notices == []


async def test_an_upstream_that_ignores_ids_and_shows_all_of_a_small_catalogue_confirms(
    integration, shelf
):
    shelf.take("c005")
    shelf.by_ids = "ignored"
    poll = await integration.poll("full")
    assert poll.error is None
    assert await told(integration) == {"course.deleted": 1}


async def test_an_upstream_that_ignores_ids_and_shows_a_page_confirms_nothing(
    context, scripted, shelf
):
    shelf.put(*(f"d{number:03}" for number in range(400)))
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    shelf.take("d300")
    shelf.by_ids = "ignored"
    poll = await integration.poll("full")
    assert "1 because the response to a request by ids was not complete" in poll.error
    assert await told(integration) == {}


async def test_another_upstream_begins_without_what_was_noticed_of_the_last(integration, shelf):
    shelf.take("c005")
    shelf.by_ids = "empty"
    for _ in range(3):
        await integration.poll("full")

    await integration.services.integrations.update(
        integration.id, lambda old: msgspec.structs.replace(old, upstream_id="workday:other")
    )
    shown = await integration.shown()
    assert (shown.state, shown.error, shown.notices) == ("pending", None, [])


async def test_an_absent_course_that_a_broken_record_may_be_is_not_confirmed(
    integration, shelf, scripted
):
    """Of a record that is no JSON nobody knows where it ends: the course may have been shown."""
    shelf.take("c005")
    answer = scripted.answer

    async def breaks(request):
        found = await answer(request)
        if "ids" in request.query:
            broken = b'{"id":"c007","score":NaN,"text":"c005"}'
            found.body = found.body.replace(b'"results": [', b'"results": [' + broken + b", ")
        return found

    scripted.answer = breaks
    poll = await integration.poll("full")
    assert poll.error is not None
    assert poll.error.startswith("1 changes could not be confirmed")
    assert "broken records" in poll.error
    assert await told(integration) == {}
    (notice,) = (await integration.shown()).notices
    assert notice.code == "unconfirmed_changes"
