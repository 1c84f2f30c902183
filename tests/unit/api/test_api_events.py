from __future__ import annotations

import json

import msgspec
import pytest
from jsonschema import Draft202012Validator

from service.api.http import cursors
from service.domain.delivery.subscription import Rendering
from service.domain.events.event import CourseFacts, render
from service.storage.redis import keys

SUFFIX = "abcdefghjkmn"


def facts(course_id: str, labels: dict[str, str]) -> bytes:
    return msgspec.json.encode(
        CourseFacts(
            integration_id="int_a",
            upstream_id="workday:1",
            external_id=None,
            labels=labels,
            course_id=course_id,
            remote_id="1",
            origin_id=None,
            changed=(),
            reason=None,
            evidence=None,
            initial=False,
            detected_by="delta",
        )
    )


async def append(
    services, position: str, course_id: str, event_type: str = "course.created", **labels: str
):
    await services.redis.xadd(
        keys.EVENTS,
        {
            "t": event_type,
            "i": "int_a",
            "c": course_id,
            "x": SUFFIX,
            "s": 5,
            "p": 0,
            "m": facts(course_id, labels),
            "b": json.dumps({"id": course_id, "text": "ü"}),
        },
        id=position,
    )
    (event,) = await services.events.get_many([position])
    return event


@pytest.fixture
async def events(services) -> list:
    return [await append(services, f"1795424001123-{number}", f"c{number}") for number in range(4)]


def ids(page: dict) -> list[str]:
    return [item["data"]["event_id"] for item in page["items"]]


async def test_events_are_shown_byte_for_byte_as_they_are_pushed(client, events) -> None:
    bodies = [render(event, Rendering.FULL) for event in events]
    answer = await client.get("/v1/events")
    assert answer.headers["content-type"] == "application/json"
    cursor = cursors.write_log(events[-1].position).encode()
    page = b'{"items":[%s],"next":null,"cursor":"%s"}'
    assert answer.content == page % (b",".join(bodies), cursor)
    one = await client.get(f"/v1/events/{events[2].id}")
    assert one.headers["content-type"] == "application/json"
    assert one.content == bodies[2]


async def test_events_are_as_documented(client, events) -> None:
    webhooks = (await client.get("/schema/openapi.json")).json()["webhooks"]
    content = webhooks["course.created"]["post"]["requestBody"]["content"]
    schema = content["application/json"]["schema"]
    Draft202012Validator(schema).validate((await client.get(f"/v1/events/{events[0].id}")).json())


async def test_the_log_is_read_on_from_a_cursor_or_an_event(client, services, events) -> None:
    page = (await client.get("/v1/events?limit=3")).json()
    assert ids(page) == [event.id for event in events[:3]]
    rest = (await client.get(f"/v1/events?after={page['next']}")).json()
    assert ids(rest) == [events[3].id]
    assert rest["next"] is None
    later = await append(services, "1795424001200-0", "c9")
    assert ids((await client.get(f"/v1/events?after={events[3].id}")).json()) == [later.id]
    assert ids((await client.get(f"/v1/events?after={rest['cursor']}")).json()) == [later.id]


async def test_an_empty_page_has_a_cursor_too(client, services) -> None:
    for start in ("", "?after=latest", "?order=desc"):
        page = (await client.get(f"/v1/events{start}")).json()
        assert (page["items"], page["next"]) == ([], None)
    assert page["cursor"] is None
    first = (await client.get("/v1/events")).json()["cursor"]
    one = await append(services, "1795424001123-0", "c1")
    end = (await client.get("/v1/events?after=latest")).json()
    assert end["items"] == []
    page = (await client.get(f"/v1/events?after={first}")).json()
    assert (ids(page), page["cursor"]) == ([one.id], end["cursor"])
    assert (await client.get(f"/v1/events?after={end['cursor']}")).json() == end
    assert (await client.get(f"/v1/events?after={one.id}&type=course.deleted")).json() == end
    newest = (await client.get("/v1/events?order=desc&after=latest")).json()
    assert ids(newest) == [one.id]


async def test_events_are_shown_thin_on_request(client, events) -> None:
    thin = render(events[0], Rendering.THIN)
    assert (await client.get(f"/v1/events/{events[0].id}?payload=thin")).content == thin
    assert thin in (await client.get("/v1/events?payload=thin")).content


async def test_the_log_is_read_from_its_end(client, events) -> None:
    page = (await client.get("/v1/events?order=desc&limit=3")).json()
    assert ids(page) == [event.id for event in events[:0:-1]]
    rest = (await client.get(f"/v1/events?order=desc&after={page['next']}")).json()
    assert (ids(rest), rest["next"]) == ([events[0].id], None)
    before = await client.get(f"/v1/events?order=desc&after={events[2].id}&course_id=c1")
    assert ids(before.json()) == [events[1].id]


async def test_the_log_is_filtered(client, services, events) -> None:
    deleted = await append(services, "1795424001200-0", "c1", "course.deleted")
    assert ids((await client.get("/v1/events?type=course.deleted")).json()) == [deleted.id]
    both = await client.get("/v1/events?type=course.deleted,course.created&course_id=c1")
    assert ids(both.json()) == [events[1].id, deleted.id]
    assert ids((await client.get("/v1/events?integration_id=int_b")).json()) == []


async def test_a_span_of_time_of_the_log_is_read(client, services) -> None:
    day = 1795478400000  # 2026-11-24
    found = [
        await append(services, position, "c")
        for position in (f"{day - 1}-7", f"{day}-0", f"{day}-1", f"{day + 86_400_000}-0")
    ]
    expected = [event.id for event in found]

    async def read(**params):
        page = (await client.get("/v1/events", params=params)).json()
        return ids(page), page

    assert (await read(since="2026-11-24"))[0] == expected[1:]
    assert (await read(until="2026-11-24T00:00:00Z"))[0] == expected[:1]
    tuesday = {"since": "2026-11-24", "until": "2026-11-25"}
    assert (await read(**tuesday))[0] == expected[1:3]
    assert (await read(**tuesday, order="desc"))[0] == [expected[2], expected[1]]
    (first,), page = await read(**tuesday, limit=1)
    (second,), page = await read(**tuesday, limit=1, after=page["next"])
    nothing, page = await read(**tuesday, after=page["cursor"])
    assert ([first, second], nothing, page["next"]) == (expected[1:3], [], None)
    assert (await read(after=page["cursor"]))[0] == expected[3:]
    (last,), page = await read(**tuesday, order="desc", limit=1)
    assert (await read(**tuesday, order="desc", after=page["next"]))[0] == [expected[1]]
    assert last == expected[2]
    assert (await read(since="2027-01-01"))[0] == []
    assert (await read(until="1970-01-01"))[0] == []
    assert (await read(until="1970-01-01", order="desc"))[0] == []


async def test_a_time_before_the_trimmed_events_means_the_oldest(client, services, events) -> None:
    await services.redis.xtrim(keys.EVENTS, minid=events[2].position, approximate=False)
    await services.redis.set(keys.EVENTS_TRIMMED, events[1].position)
    page = (await client.get("/v1/events", params={"since": "2020-01-01"})).json()
    assert ids(page) == [event.id for event in events[2:]]


async def test_a_page_of_large_events_ends_early_and_leads_on(client, services, events) -> None:
    from service.api.resources import events as module

    size = len(render(events[0], Rendering.FULL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_PAGE_BYTES", 2 * size)
        page = (await client.get("/v1/events")).json()
        assert ids(page) == [event.id for event in events[:2]]
        rest = (await client.get(f"/v1/events?after={page['next']}")).json()
    assert ids(rest) == [event.id for event in events[2:]]


async def test_wrong_queries_of_the_log_are_named(client, refused) -> None:
    answer = await client.get(
        "/v1/events?type=course.gone&integration_id=7&order=up&limit=501&after=evt_x&wait=61"
        "&payload=none&limit=3"
    )
    refused(answer, "type[0]", "integration_id", "order", "limit", "after", "wait", "payload")
    refused(await client.get("/v1/events?order=desc&wait=5"), "wait")
    refused(await client.get("/v1/events?until=2026-11-24&wait=5"), "wait")
    refused(await client.get("/v1/events?since=2026-11-24&until=2026-11-24"), "until")
    refused(await client.get("/v1/events?since=2026-13-01&until=24.11.2026"), "since", "until")
    refused(await client.get("/v1/events/stream?after=x&wait=1"), "after", "wait")
    again = await client.get("/v1/events/stream", headers={"last-event-id": "x"})
    refused(again, "Last-Event-ID")


@pytest.mark.parametrize("event_id", ["evt_x", "x", f"evt_{'0' * 14}{SUFFIX}"])
async def test_an_unknown_event_is_not_found(client, problem, event_id) -> None:
    problem(await client.get(f"/v1/events/{event_id}"), "not-found", 404)
