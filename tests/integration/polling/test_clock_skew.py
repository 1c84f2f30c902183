"""An upstream whose clock is wrong: it is said, and no change is lost."""

from __future__ import annotations

import itertools
from datetime import datetime
from email.utils import formatdate

import msgspec
import pytest

from service.clock import now_ms
from service.domain.polling.intervals import DELTA_OVERLAP_MS, MAX_SKEW_MS
from tests.integration.conftest import new_integration
from tests.integration.polling.shelf import Shelf
from tests.integration.scripted import refuses

DAY = 86_400


async def skew(sandbox, seconds: float) -> None:
    await sandbox.call("POST", "/clock", {"skew_seconds": seconds})


@pytest.mark.parametrize("seconds", [45, -45, 3_600, -3_600, -86_400])
async def test_a_clock_that_is_far_off_is_reported_until_it_is_right_again(
    register, sandbox, seconds
):
    integration = await register()
    await skew(sandbox, seconds)
    await integration.turn()
    # Dates are told in whole seconds, rounded down.
    skew_ms = (await integration.state()).clock_skew_ms
    assert seconds * 1000 - 2_000 <= skew_ms <= seconds * 1000
    assert (await integration.shown()).clock_skew_seconds == skew_ms / 1000
    assert (await integration.shown()).state == "active"

    await skew(sandbox, 0)
    await integration.poll("delta")

    assert (await integration.state()).clock_skew_ms is None
    assert (await integration.shown()).clock_skew_seconds is None


@pytest.mark.parametrize("seconds", [0, 25, -25])
async def test_a_clock_that_is_nearly_right_is_nobodys_business(register, sandbox, seconds):
    integration = await register()
    await skew(sandbox, seconds)
    await integration.turn()
    assert (await integration.state()).clock_skew_ms is None


@pytest.mark.parametrize("seconds", [90, -90])
@pytest.mark.parametrize("kind", ["delta", "full"])
async def test_the_watermark_is_the_earlier_of_both_clocks(register, sandbox, kind, seconds):
    integration = await register()
    await integration.turn()
    await skew(sandbox, seconds)
    begun = now_ms()

    await integration.poll(kind)

    watermark = (await integration.state()).watermark
    expected = begun + min(0, seconds * 1000)
    assert expected - 1_000 <= watermark <= expected + 2_000


async def test_without_a_date_the_watermark_is_our_own_start(register, sandbox, context):
    integration = await register()
    fetch = context.services.upstream.fetch_page

    async def without_date(*arguments):
        return msgspec.structs.replace(await fetch(*arguments), date_ms=None)

    context.services.upstream.fetch_page = without_date
    begun = now_ms()
    await integration.turn()
    assert begun <= (await integration.state()).watermark <= now_ms()
    assert (await integration.state()).clock_skew_ms is None


async def test_later_pages_do_not_move_the_watermark(register, sandbox, context):
    integration = await register()
    fetch = context.services.upstream.fetch_page
    dates = iter([now_ms() - 5_000, now_ms() - 99_000, now_ms() + 99_000])
    first = now_ms() - 5_000

    async def dated(*arguments):
        return msgspec.structs.replace(await fetch(*arguments), date_ms=next(dates))

    context.services.upstream.fetch_page = dated
    await integration.turn()
    assert (await integration.state()).watermark == pytest.approx(first, abs=100)


@pytest.mark.parametrize("seconds", [1_200, -1_200, 86_400, -86_400])
async def test_changes_dated_by_a_wrong_clock_are_found_by_deltas(register, sandbox, seconds):
    integration = await register()
    await skew(sandbox, seconds)
    await integration.turn()
    for _ in range(3):
        (change,) = await sandbox.change({"op": "edit", "count": 1})
        await integration.poll("delta")
        last = (await integration.events())[-1]
        assert (last.type, last.course_id) == ("course.updated", change["course_id"])


@pytest.mark.parametrize(("before", "after"), [(0, -500), (500, 0)])
async def test_a_clock_that_is_put_back_within_the_overlap_loses_no_change(
    register, sandbox, before, after
):
    integration = await register()
    await skew(sandbox, before)
    await integration.turn()
    await skew(sandbox, after)
    (change,) = await sandbox.change({"op": "edit", "count": 1})
    await integration.poll("delta")
    assert (await integration.events())[-1].course_id == change["course_id"]


# --- dates that are no clock's --------------------------------------------------------------------


def dated(seconds: float) -> str:
    """A `Date` that is so many seconds ahead of now."""
    return formatdate(now_ms() / 1000 + seconds, usegmt=True)


WRONG_DATES = {
    "20 days old": lambda: dated(-20 * DAY),
    "13 days old": lambda: dated(-13 * DAY),
    "two days old": lambda: dated(-2 * DAY),
    "1970": lambda: "Thu, 01 Jan 1970 00:00:00 GMT",
    "1900": lambda: "Mon, 01 Jan 1900 00:00:00 GMT",
    "20 days ahead": lambda: dated(20 * DAY),
    "9999": lambda: "Fri, 31 Dec 9999 23:59:59 GMT",
}


@pytest.fixture
async def shelf(scripted):
    shelf = Shelf(scripted)
    shelf.put(*(f"c{number:03}" for number in range(30)))
    return shelf


@pytest.mark.parametrize("date", WRONG_DATES)
async def test_a_date_that_is_no_clocks_turns_no_delta_into_a_full_poll(
    context, scripted, shelf, date
):
    shelf.headers = {"date": WRONG_DATES[date]()}
    begun = now_ms()
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    for _ in range(3):
        await integration.turn()
    kinds = [poll.kind for poll in await integration.polls()]
    assert kinds == ["delta", "delta", "delta", "full"]
    for query in scripted.asked[1:]:
        after = datetime.fromisoformat(query["updated_after"])
        assert begun - DELTA_OVERLAP_MS - 1 <= after.timestamp() * 1000 <= now_ms()

    shown = await integration.shown()
    assert shown.state == "active"
    (notice,) = shown.notices
    assert notice.code == "clock_skew"
    assert ("ahead of" if "ahead" in date or "9999" in date else "behind") in notice.message
    assert "is not used: deltas go by this service's clock" in notice.message
    assert abs(shown.clock_skew_seconds) > MAX_SKEW_MS / 1000


@pytest.mark.parametrize("seconds", [-3_600, -14 * 3_600, -DAY])
async def test_a_clock_in_another_time_zone_is_believed_and_told_of(
    context, scripted, shelf, seconds
):
    shelf.headers = {"date": dated(seconds)}
    integration = await new_integration(context, scripted.base_url)
    begun = now_ms()
    await integration.turn()
    watermark = (await integration.state()).watermark
    assert watermark == pytest.approx(begun + seconds * 1000, abs=3_000)
    (notice,) = (await integration.shown()).notices
    assert "behind this service's clock" in notice.message
    assert "is not used" not in notice.message


async def test_a_date_that_changes_from_answer_to_answer_stays_bounded(context, scripted, shelf):
    integration = await new_integration(context, scripted.base_url)
    for seconds in (0, -20 * DAY, 3_600, -3_600, 400 * DAY, 0):
        shelf.headers = {"date": dated(seconds)}
        begun = now_ms()
        await integration.turn()
        watermark = (await integration.state()).watermark
        assert begun - MAX_SKEW_MS <= watermark <= now_ms()
    shown = await integration.shown()
    assert (shown.clock_skew_seconds, shown.notices) == (None, [])
    assert [poll.kind for poll in await integration.polls()] == [*["delta"] * 5, "full"]


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Foo 2026", "0"])
async def test_a_date_that_is_none_says_nothing(context, scripted, shelf, date):
    shelf.headers = {"date": date}
    begun = now_ms()
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    assert begun <= (await integration.state()).watermark <= now_ms()
    assert (await integration.shown()).notices == []


async def test_an_answer_from_a_cache_is_no_wrong_clock_and_counts_from_when_it_was_made(
    context, scripted, shelf
):
    shelf.headers = {"date": dated(-7_200), "age": "7200"}
    begun = now_ms()
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    # What changed since the answer was made is asked for again.
    watermark = (await integration.state()).watermark
    assert watermark == pytest.approx(begun - 7_200_000, abs=3_000)
    shown = await integration.shown()
    assert shown.clock_skew_seconds is None
    (notice,) = shown.notices
    assert notice.code == "cached_answers"
    assert "2 hours old" in notice.message
    shelf.headers = {}
    await integration.turn()
    assert (await integration.shown()).notices == []


@pytest.mark.parametrize(
    ("date", "until", "seconds"),
    [
        (0, 120, 120),
        (-3_600, -3_600 + 120, 120),  # by the same wrong clock
        (-20 * DAY, 120, 120),  # a date that is no clock's
        (400 * DAY, 120, 120),
        (-20 * DAY, -20 * DAY + 120, 120),  # by the same clock, however wrong
    ],
)
async def test_a_time_to_come_back_is_read_by_a_clock_that_is_one(
    context, scripted, date, until, seconds
):
    integration = await new_integration(context, scripted.base_url)
    scripted.answer = refuses(503, None, date=dated(date), retry_after=dated(until))
    await integration.turn()
    due = await integration.due_in()
    assert seconds - 3 <= due <= max(seconds, 6) + 3


async def test_since_when_a_clock_is_off_lasts_from_poll_to_poll(context, scripted, shelf):
    integration = await new_integration(context, scripted.base_url)
    seen = set()
    for seconds in itertools.islice(itertools.cycle((-100, -200)), 4):
        shelf.headers = {"date": dated(seconds)}
        await integration.turn()
        (notice,) = (await integration.shown()).notices
        seen.add(notice.since)
    assert len(seen) == 1
