"""One change travels the whole way, whatever is killed under it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.e2e.conftest import UPSTREAM_ID, House, Subscriber, Victim, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


async def initial_load(house: House, subscriber: Subscriber, courses: int) -> None:
    await house.subscribe(subscriber, timeout_seconds=3)
    # Long intervals: the test itself says when to poll, so that what is seen is what it asked.
    await house.register(baseline="emit", delta_interval_seconds=3600, full_interval_seconds=86_400)


async def received(house: House, subscriber: Subscriber, count: int, seconds: float = 120) -> None:
    await until(
        lambda: len(subscriber.received) >= count,
        seconds=seconds,
        what=f"{count} events\n{house.logs()}",
    )


def ids(changes: list[dict], *operations: str) -> set[str]:
    return {change["course_id"] for change in changes if change["op"] in operations}


async def check_changes(
    house: House, subscriber: Subscriber, *, scale: int = 1, victim: Victim | None = None
) -> None:
    """Edits, deletions, restorations, provider and skill changes give exactly those events,
    even if `victim` is killed, or done, while the full poll that is to find most of them begins."""
    start = len(subscriber.received)
    changes = await house.change(
        {"op": "edit", "count": 100 // scale},
        {"op": "delete", "count": 10 // scale},
        {"op": "vanish", "count": 10 // scale},
        {"op": "provider", "count": 15 // scale},
        {"op": "skill", "count": 15 // scale},
    )
    await house.poll("delta")
    await house.drained()
    by_delta = subscriber.received[start:]
    assert ids(changes, "edit") == {
        event["data"]["course_id"] for event in by_delta if event["type"] == "course.updated"
    }
    assert ids(changes, "delete") == {
        event["data"]["course_id"] for event in by_delta if event["type"] == "course.deleted"
    }
    assert Counter(event["type"] for event in by_delta) == {
        "course.updated": 100 // scale,
        "course.deleted": 10 // scale,
    }

    middle = len(subscriber.received)
    await house.poll("full", victim=victim)
    await house.drained()
    by_full = subscriber.received[middle:]
    updated = {
        event["data"]["course_id"]: event["data"]["changed"]
        for event in by_full
        if event["type"] == "course.updated"
    }
    assert set(updated) == ids(changes, "provider", "skill")
    for change in changes:
        if change["op"] == "provider":
            assert updated[change["course_id"]] == ["provider"]
        if change["op"] == "skill":
            assert updated[change["course_id"]] == ["revisions.skill_assignments"]
    deleted = [event["data"] for event in by_full if event["type"] == "course.deleted"]
    assert {data["course_id"] for data in deleted} == ids(changes, "vanish")
    assert {data["evidence"] for data in deleted} == {"absence"}
    assert len(by_full) == 40 // scale

    last = len(subscriber.received)
    restored = await house.change(
        *({"op": "restore", "course_id": course_id} for course_id in ids(changes, "delete"))
    )
    await house.poll("delta")
    await house.poll("full")
    await house.drained()
    by_restoration = subscriber.received[last:]
    assert {event["data"]["course_id"] for event in by_restoration} == ids(restored, "restore")
    assert {(event["type"], event["data"]["reason"]) for event in by_restoration} == {
        ("course.created", "restored")
    }
    assert len(by_restoration) == 10 // scale


async def test_ten_thousand_courses_and_their_changes_arrive_exactly(build_house, subscriber):
    house = await build_house(10_000)
    await initial_load(house, subscriber, 10_000)
    await received(house, subscriber, 10_000)
    await house.drained()
    assert subscriber.types() == {"course.created": 10_000}
    assert len(subscriber.bodies) == 10_000
    assert all(event["data"]["initial"] for event in subscriber.received)

    await check_changes(house, subscriber)
    assert subscriber.conflicts == []
    assert subscriber.duplicates == 0
    subscriber.check_order()


@pytest.mark.parametrize(
    "victim",
    [
        "worker",
        "valkey",
        *(pytest.param(one, marks=pytest.mark.nightly) for one in ("api", "scheduler")),
    ],
)
async def test_killing_a_process_loses_and_invents_nothing(build_house, subscriber, victim):
    courses = 2_000
    house = await build_house(courses)
    await initial_load(house, subscriber, courses)
    await received(house, subscriber, courses // 4)
    await house.restart(victim)
    await received(house, subscriber, courses)
    await house.poll("full")
    await house.drained()
    assert subscriber.types() == {"course.created": courses}

    await check_changes(house, subscriber, scale=5, victim=victim)
    assert subscriber.conflicts == []
    subscriber.check_order()


def states(subscriber: Subscriber) -> dict[str, dict]:
    """What a naive consumer holds after applying every event in order of receipt."""
    held: dict[str, dict] = {}
    for event in subscriber.received:
        held[event["data"]["course_id"]] = event
    return held


async def test_a_server_that_lost_its_last_second_reports_the_changes_again(
    build_house, subscriber
):
    courses = 2_000
    house = await build_house(courses)
    await initial_load(house, subscriber, courses)
    await received(house, subscriber, courses)
    await house.drained()
    before = house.append_only_size()
    changes = await house.change(
        {"op": "edit", "count": 200}, {"op": "delete", "count": 20}, {"op": "vanish", "count": 20}
    )
    await house.poll("full")
    await house.drained()
    known = len(subscriber.received)
    assert known == courses + len(changes)

    house.processes["valkey"].kill()
    after = house.append_only_size()
    house.cut_append_only_file(before + (after - before) // 2)
    await house.start("valkey")
    await house.poll("full")
    await house.drained()

    assert len(subscriber.received) > known  # something was lost, and found again
    held = states(subscriber)
    for change in changes:
        event = held[change["course_id"]]
        if change["op"] == "edit":
            answer = await house.sandbox.get(
                f"/control/integrations/{UPSTREAM_ID}/courses/{change['course_id']}"
            )
            assert event["data"]["course"] == answer.json()
        else:
            assert event["type"] == "course.deleted"
    last: dict[str, int] = {}
    for event in subscriber.received:
        data = event["data"]
        assert data["sequence"] > last.get(data["course_id"], 0)
        last[data["course_id"]] = data["sequence"]
    assert subscriber.conflicts == []
