from __future__ import annotations

import msgspec
import pytest

from service.clock import now_ms
from service.domain.events.event import rfc3339
from service.domain.observability.history import FAMILIES, HOURS, MINUTES, Period, Sample
from service.storage.delivery.attempts import Attempt
from service.storage.redis import keys

MINUTE, HOUR = 60_000, 3_600_000
CREATED = "course.created"


@pytest.fixture
def now() -> int:
    """The end of a minute that has been recorded."""
    return (now_ms() - 5_000) // MINUTE * MINUTE


async def write_minutes(services, end: int, *values: int | None) -> None:
    """Samples of a counter at the ends of the minutes up to `end`, none where it is None."""
    for ago, value in enumerate(reversed(values)):
        at = end - ago * MINUTE
        sample = Sample(
            at=at, run="r", counters={"events_total": {CREATED: value}}, gauges={"pending": value}
        )
        if value is not None:
            await services.redis.zadd(keys.HISTORY_MINUTES, {msgspec.msgpack.encode(sample): at})


async def write_hour(services, end: int, value: int) -> None:
    hour = Period(end=end, minutes=58, increases={"events_total": {CREATED: value}}, gauges={})
    await services.redis.zadd(keys.HISTORY_HOURS, {msgspec.msgpack.encode(hour): end})


def created(answer) -> list:
    return next(one for one in answer.json()["series"] if one["labels"] == {"type": CREATED})[
        "values"
    ]


async def test_minutes_are_shown_with_their_gaps(client, services, now) -> None:
    await write_minutes(services, now, 5, 7, None, 20, 21)
    answer = await client.get(
        "/v1/history",
        params={
            "since": rfc3339(now - 4 * MINUTE),
            "until": rfc3339(now + HOUR),
            "series": "events_total,deliveries_pending",
        },
    )
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    until = shown["times"][-1] * 1000
    assert until in (now, now + MINUTE)
    assert shown["resolution"] == "minute"
    assert (shown["since"], shown["until"]) == (rfc3339(now - 4 * MINUTE), rfc3339(until))
    assert shown["times"][:4] == [(now - ago * MINUTE) // 1000 for ago in (3, 2, 1, 0)]
    assert shown["minutes"][:4] == [1, 0, 0, 1]
    assert created(answer)[:4] == [2, None, None, 1]
    assert {one["name"] for one in shown["series"]} == {"events_total", "deliveries_pending"}
    pending = next(one for one in shown["series"] if one["name"] == "deliveries_pending")
    assert pending["values"][:4] == [7, None, 20, 21]
    assert (pending["kind"], pending["unit"], pending["labels"]) == ("gauge", "count", {})


async def test_without_parameters_the_last_hour_of_all_series_is_shown(client, now) -> None:
    shown = (await client.get("/v1/history")).json()
    assert len(shown["times"]) == len(shown["minutes"]) == 60
    assert shown["times"][-1] * 1000 in (now, now + MINUTE)
    assert {one["name"] for one in shown["series"]} == {*FAMILIES} - {"upstream_errors_total"}
    assert all(one["values"] == [None] * 60 for one in shown["series"])


async def test_hours_are_shown_of_the_last_week(client, services, now) -> None:
    end = now // HOUR * HOUR
    await write_hour(services, end - HOUR, 12)
    answer = await client.get("/v1/history?resolution=hour&series=events_total")
    shown = answer.json()
    assert len(shown["times"]) == 7 * 24
    at = shown["times"].index((end - HOUR) // 1000)
    assert shown["minutes"][at] == 58
    assert created(answer)[at] == 12
    assert {*created(answer)} == {12, None}


async def test_what_came_since_may_be_nothing(client) -> None:
    for since in (now_ms(), now_ms() + 30 * HOUR):
        shown = (await client.get("/v1/history", params={"since": rfc3339(since)})).json()
        assert len(shown["times"]) <= 1


@pytest.mark.parametrize("resolution", [MINUTES, HOURS], ids=lambda one: one.name)
async def test_the_range_is_bounded(client, refused, now, resolution) -> None:
    period = resolution.minutes * MINUTE
    length = resolution.kept * period

    async def ask(since: int):
        return await client.get(
            "/v1/history",
            params={
                "since": rfc3339(since),
                "until": rfc3339(now),
                "resolution": resolution.name,
                "series": "events_total",
            },
        )

    assert (await ask(now // period * period - length)).status_code == 200
    errors = refused(await ask(now - length - HOUR), "since")
    assert f"{resolution.kept:,} are kept" in errors["since"]["message"]
    assert ("resolution=hour" in errors["since"]["remedy"]) == (resolution is MINUTES)


async def test_what_is_wrong_with_a_query_is_said(client, refused) -> None:
    answer = await client.get(
        "/v1/history?resolution=day&since=yesterday&until=now&series=events,polls_total"
    )
    errors = refused(answer, "resolution", "since", "until", "series[0]")
    assert errors["series[0]"]["remedy"] == "did you mean events_total?"
    backwards = {"since": "2026-11-23T09:30:00Z", "until": "2026-11-23T09:30:00Z"}
    refused(await client.get("/v1/history", params=backwards), "since")


async def test_every_series_is_documented_with_its_unit(client) -> None:
    document = (await client.get("/schema/openapi.json")).json()
    text = document["paths"]["/v1/history"]["get"]["description"]
    for family in FAMILIES.values():
        assert f"| `{family.name}` |" in text
        assert family.unit in ("count", "seconds", "bytes")


# --- statistics of a subscription -----------------------------------------------------------------


async def subscribed(client) -> str:
    return (await client.post("/v1/subscriptions", json={"url": "https://r.example"})).json()["id"]


async def attempt(services, subscription: str, number: int, **fields) -> None:
    one = Attempt(
        event_id="evt_a",
        **{"number": 1, "at": number, "outcome": "delivered", "duration_ms": number} | fields,
    )
    await services.redis.xadd(
        keys.attempts(subscription), {"p": "1-0", "d": msgspec.json.encode(one)}
    )


async def test_statistics_are_of_the_latest_attempts(client, services) -> None:
    subscription = await subscribed(client)
    for number in range(1, 101):
        await attempt(
            services, subscription, number, outcome="timeout" if number % 10 == 0 else "delivered"
        )
    await attempt(services, subscription, 5_000, outcome="proxy", counted=False)
    path = f"/v1/subscriptions/{subscription}/statistics"
    shown = (await client.get(path)).json()
    slices = shown.pop("slices")
    assert shown == {
        "since": "1970-01-01T00:00:00.001Z",
        "attempts": 100,
        "success_rate": 0.9,
        "p50_ms": 50,
        "p95_ms": 95,
        "outcomes": {"delivered": 90, "timeout": 10},
    }
    assert len(slices) == 25
    assert slices[2] == {
        "at": "1970-01-01T00:00:00.009Z",
        "attempts": 4,
        "delivered": 3,
        "p50_ms": 10,
        "p95_ms": 12,
    }
    assert sum(one["attempts"] for one in slices) == 100
    latest = (await client.get(f"{path}?attempts=11")).json()
    assert (latest["attempts"], len(latest["slices"])) == (10, 10)


async def test_without_attempts_there_are_no_statistics(client, problem, refused) -> None:
    subscription = await subscribed(client)
    path = f"/v1/subscriptions/{subscription}/statistics"
    assert (await client.get(path)).json() == {
        "since": None,
        "attempts": 0,
        "success_rate": None,
        "p50_ms": None,
        "p95_ms": None,
        "outcomes": {},
        "slices": [],
    }
    refused(await client.get(f"{path}?attempts=1001"), "attempts")
    problem(await client.get("/v1/subscriptions/sub_0/statistics"), "not-found", 404)


async def test_a_subscriber_sees_the_statistics_of_its_own_subscriptions_alone(
    client, open_key, problem
) -> None:
    other = await subscribed(client)
    key = await open_key()
    made = await client.post(
        "/v1/subscriptions", json={"url": "https://r.example"}, headers=key["headers"]
    )
    for name, status in ((made.json()["id"], 200), (other, 404)):
        answer = await client.get(f"/v1/subscriptions/{name}/statistics", headers=key["headers"])
        assert answer.status_code == status
