"""An upstream whose clock is wrong: it is said, and no change is lost."""

from __future__ import annotations

import msgspec
import pytest

from service.clock import now_ms


async def skew(sandbox, seconds: float) -> None:
    await sandbox._call("POST", "/clock", {"skew_seconds": seconds})


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
    await integration.walk("delta")

    assert (await integration.state()).clock_skew_ms is None
    assert (await integration.shown()).clock_skew_seconds is None


@pytest.mark.parametrize("seconds", [0, 25, -25])
async def test_a_clock_that_is_nearly_right_is_nobodys_business(register, sandbox, seconds):
    integration = await register()
    await skew(sandbox, seconds)
    await integration.turn()
    assert (await integration.state()).clock_skew_ms is None


@pytest.mark.parametrize("seconds", [90, -90])
@pytest.mark.parametrize("kind", ["delta", "sweep"])
async def test_the_watermark_is_the_earlier_of_both_clocks(register, sandbox, kind, seconds):
    integration = await register()
    await integration.turn()
    await skew(sandbox, seconds)
    begun = now_ms()

    await integration.walk(kind)

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
        await integration.walk("delta")
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
    await integration.walk("delta")
    assert (await integration.events())[-1].course_id == change["course_id"]
