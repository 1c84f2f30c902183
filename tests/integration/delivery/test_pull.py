"""Pulling events from a real API process over a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from service.api.access.visible_events import VisibleEvents
from service.api.http import cursors
from service.app import create_app
from service.domain.access.grants import Actor, Scope
from service.domain.delivery.subscription import Rendering
from service.domain.events.event import EventFilter, render
from service.storage.events.event_log import EventLog
from service.storage.events.log_follower import Tail
from service.storage.redis import keys
from service.storage.redis.client import open_async
from tests.conftest import free_port
from tests.integration.conftest import FACTS

pytestmark = pytest.mark.slow

TOKEN = "admin-token-of-this-test"
HEADERS = {"authorization": f"Bearer {TOKEN}"}
SUFFIX = "abcdefghjkmn"
EVERY = EventFilter()
ADMIN = Actor(name="admin token", scope=Scope.ADMIN)


async def append(redis: Redis, course_id: str, position: str = "*", **fields: str) -> str:
    """Appends an event as the committing script does, and gives its position."""
    entry = {
        "t": "course.updated",
        "i": "int_a",
        "c": course_id,
        "x": SUFFIX,
        "s": 5,
        "p": 0,
        "m": msgspec.json.encode({**FACTS, "course_id": course_id}),
        "b": json.dumps({"id": course_id}),
    }
    return (await redis.xadd(keys.EVENTS, {**entry, **fields}, id=position)).decode()


def courses(page: dict) -> list[str]:
    return [item["data"]["course_id"] for item in page["items"]]


class Api:
    """An API process."""

    def __init__(self, process: subprocess.Popen, url: str) -> None:
        self.process = process
        self.client = httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=20)

    async def page(self, query: str = "") -> dict:
        answer = await self.client.get(f"/v1/events{query}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    @contextlib.asynccontextmanager
    async def stream(self, query: str = "", **headers: str):
        """The frames of a stream, as they come."""
        async with self.client.stream(
            "GET", f"/v1/events/stream{query}", headers=headers
        ) as answer:
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert answer.headers["cache-control"] == "no-store, no-transform"
            yield frames(answer)


async def frames(answer: httpx.Response):
    frame: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if not line:
            yield frame
            frame = {}
        else:
            name, _, value = line.partition(":")
            joined = frame.get(name)
            value = value.removeprefix(" ")
            frame[name] = value if joined is None else f"{joined}\n{value}"


def start_api(
    valkey_url: str, *, module: str = "service.cli", **variables: str
) -> tuple[subprocess.Popen, str]:
    port = free_port()
    environ = {
        **os.environ,
        "COURSEWIRE_REDIS_URL": valkey_url,
        "COURSEWIRE_ADMIN_TOKEN": TOKEN,
        "COURSEWIRE_ENCRYPTION_KEYS": "a" * 43,
        "COURSEWIRE_PORT": str(port),
        **{f"COURSEWIRE_{name}": text for name, text in variables.items()},
    }
    process = subprocess.Popen([sys.executable, "-m", module, "api"], env=environ)
    url = f"http://127.0.0.1:{port}"
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                return process, url
        time.sleep(0.02)  # leaves the processor to the process


@pytest.fixture
def running(redis, valkey_url):
    """A process of the test's own, since one keeps in memory what it has read of the log."""
    process, url = start_api(valkey_url)
    yield process, url
    process.terminate()
    process.wait()


@pytest.fixture
async def api(redis, running):
    api = Api(*running)
    yield api
    await api.client.aclose()


async def listening(redis: Redis, **client: str) -> None:
    """Waits until a reader blocks on the log: the one of the API, or another client's."""
    client = {"cmd": "xread", "name": "coursewire", "db": "0"} | client
    while not any(client.items() <= one.items() for one in await redis.client_list()):
        pass


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0)


async def calls(redis: Redis, command: str) -> int:
    """How often the server has run a command to its end."""
    stats = await redis.info("commandstats")
    return stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]


# --- pages ------------------------------------------------------------------------------------


async def test_whoever_stores_the_cursor_misses_and_repeats_nothing(api, redis) -> None:
    read: list[str] = []
    cursor = ""
    for turn in range(5):
        for number in range(7):
            await append(redis, f"c{turn}.{number}")
        while True:
            page = await api.page(f"?limit=3{cursor}")
            read += courses(page)
            cursor = f"&after={page['cursor']}"
            if page["next"] is None:
                break
    assert read == [f"c{turn}.{number}" for turn in range(5) for number in range(7)]


async def test_a_waiting_request_is_answered_by_the_first_event_that_matches(api, redis) -> None:
    cursor = (await api.page())["cursor"]
    waiting = asyncio.create_task(api.page(f"?after={cursor}&wait=20&course_id=c2"))
    await listening(redis)
    await append(redis, "c1")
    position = await append(redis, "c2")
    page = await waiting
    assert (courses(page), page["next"]) == (["c2"], None)
    assert cursors.read_log(page["cursor"]) == position


async def test_a_wait_without_events_ends_with_an_empty_page(api, redis) -> None:
    position = await append(redis, "c1")
    started = time.monotonic()
    page = await api.page("?after=latest&wait=1")
    assert 1 <= time.monotonic() - started < 5
    assert (page["items"], page["next"]) == ([], None)
    assert cursors.read_log(page["cursor"]) == position


async def test_a_filtered_page_looks_through_a_bounded_part_of_the_log(redis) -> None:
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(11_000):
            pipeline.xadd(keys.EVENTS, _slim(f"c{number % 1000}"))
        await pipeline.execute()
    log = EventLog(redis)
    last = await append(redis, "wanted")
    wanted = EventFilter(course_id="wanted")
    events, place = await log.read(None, 10, wanted)
    assert (events, place.more) == ([], True)
    events, place = await log.read(place.position, 10, wanted)
    assert ([event.position for event in events], place.more) == ([last], False)


def _slim(course_id: str) -> dict[str, str]:
    return {
        "t": "course.updated",
        "i": "int_a",
        "c": course_id,
        "x": SUFFIX,
        "s": "5",
        "p": "0",
        "m": "{}",
        "b": "",
    }


# --- retention --------------------------------------------------------------------------------


async def trim(services, **limits: int) -> None:
    await services.retention.trim(
        **({"events_before": 0, "events_max_bytes": 2**30} | limits),
        attempts_before=0,
        dead_before=0,
    )


async def test_a_cursor_behind_which_events_were_trimmed_has_expired(api, redis, services) -> None:
    positions = [await append(redis, f"c{number}", f"{number}-0") for number in range(1, 8)]
    old = [cursors.write_log(position) for position in positions]
    virgin = cursors.write_log("0-0")
    await trim(services, events_before=4)
    for cursor in (virgin, old[0], old[1]):
        for path in ("/v1/events", "/v1/events/stream"):
            answer = await api.client.get(f"{path}?after={cursor}")
            assert answer.status_code == 410, answer.text
            problem = answer.json()
            assert problem["type"] == "urn:coursewire:problem:cursor-expired"
            assert problem["oldest_cursor"] == old[2]
    # Behind the last event that was trimmed, nothing is missing.
    assert courses(await api.page(f"?after={old[2]}")) == ["c4", "c5", "c6", "c7"]
    assert courses(await api.page()) == ["c4", "c5", "c6", "c7"]
    assert courses(await api.page(f"?order=desc&after={old[4]}")) == ["c4"]


async def test_a_cursor_at_the_end_of_a_log_that_was_emptied_still_holds(
    api, redis, services
) -> None:
    end = cursors.write_log([await append(redis, f"c{n}", f"{n}-0") for n in (1, 2)][-1])
    await trim(services, events_before=100)
    assert await api.page() == {"items": [], "next": None, "cursor": end}
    assert await api.page(f"?after={end}") == {"items": [], "next": None, "cursor": end}
    assert (await api.page("?after=latest"))["cursor"] == end
    await append(redis, "c3")
    assert courses(await api.page(f"?after={end}")) == ["c3"]


async def test_trimming_by_size_says_how_far_it_got(redis, services) -> None:
    for number in range(1, 1001):
        await append(redis, f"c{number}", f"{number}-0")
    half = await redis.memory_usage(keys.EVENTS) // 2
    await trim(services, events_max_bytes=half)
    ((oldest, _),) = await redis.xrange(keys.EVENTS, count=1)
    last_lost = int(oldest.partition(b"-")[0]) - 1
    assert 300 < last_lost < 700
    assert await redis.get(keys.EVENTS_TRIMMED) == b"%d-0" % last_lost


async def test_the_log_is_trimmed_at_the_memory_limit_too(redis, services) -> None:
    for number in range(1, 4):
        await append(redis, f"c{number}", f"{number}-0")
    await redis.config_set("maxmemory", "1")
    try:
        await trim(services, events_before=3)
    finally:
        await redis.config_set("maxmemory", "0")
    assert await redis.get(keys.EVENTS_TRIMMED) == b"2-0"


# --- a server that came back without its last second --------------------------------------------


async def test_a_cursor_beyond_the_end_goes_back_to_it(api, redis) -> None:
    position = await append(redis, "c1")
    page = await api.page("?after=" + cursors.write_log("9999999999999-0"))
    assert (page["items"], cursors.read_log(page["cursor"])) == ([], position)
    await append(redis, "c2")
    assert courses(await api.page(f"?after={page['cursor']}")) == ["c2"]


async def test_listeners_of_a_log_that_lost_its_end_hear_of_what_comes_next(api, redis) -> None:
    await append(redis, "c1", "10-0")
    async with api.stream() as events:
        assert (await anext(events))["retry"] == "3000"
        assert json.loads((await anext(events))["data"])["data"]["course_id"] == "c1"
        await append(redis, "lost", "20-0")
        assert json.loads((await anext(events))["data"])["data"]["course_id"] == "lost"
        async with redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(keys.EVENTS)
            pipeline.xadd(keys.EVENTS, _slim("c1"), id="10-0")
            await pipeline.execute()
        # The reader notices at the latest when its command ends by itself.
        asked = await calls(redis, "xinfo|stream")
        while await calls(redis, "xinfo|stream") < asked + 2:
            pass
        await append(redis, "again", "15-0")
        assert json.loads((await anext(events))["data"])["data"]["course_id"] == "again"


async def test_listeners_live_through_a_lost_connection(api, redis) -> None:
    async with api.stream("?after=latest") as events:
        assert "id" in await anext(events)
        await append(redis, "c0")
        # From here on it reads nothing itself, and waits for the reader that all share.
        assert json.loads((await anext(events))["data"])["data"]["course_id"] == "c0"
        await listening(redis)
        await redis.client_kill_filter(_type="normal", skipme=True)
        await append(redis, "c1")
        assert json.loads((await anext(events))["data"])["data"]["course_id"] == "c1"


# --- server-sent events -----------------------------------------------------------------------


async def test_a_stream_shows_what_is_there_and_then_what_happens(api, redis) -> None:
    log = EventLog(redis)
    await append(redis, "c1")
    # As an upstream that indents its JSON leads to.
    await append(redis, "c2", b='{"id":\n "c2"}')
    async with api.stream() as events:
        assert await anext(events) == {"retry": "3000"}
        shown = [await anext(events), await anext(events)]
        await append(redis, "c3")
        shown.append(await anext(events))
    stored, _ = await log.read(None, 10)
    assert [frame["id"] for frame in shown] == [event.id for event in stored]
    assert [frame["event"] for frame in shown] == [event.type for event in stored]
    assert [frame["data"].encode() for frame in shown] == [
        render(event, Rendering.FULL) for event in stored
    ]


async def test_a_stream_resumes_behind_the_last_event_id(api, redis) -> None:
    for number in range(3):
        await append(redis, f"c{number}")
    async with api.stream() as events:
        await anext(events)
        first = await anext(events)
    async with api.stream("?after=latest", **{"last-event-id": first["id"]}) as events:
        await anext(events)
        assert json.loads((await anext(events))["data"])["data"]["course_id"] == "c1"


async def test_a_stream_that_broke_before_its_first_event_is_resumed_from_its_place(
    api, redis
) -> None:
    await append(redis, "c1")
    async with api.stream("?after=latest") as events:
        told = (await anext(events))["id"]
    await append(redis, "c2")
    async with api.stream("?after=latest", **{"last-event-id": told}) as events:
        await anext(events)
        assert json.loads((await anext(events))["data"])["data"]["course_id"] == "c2"


async def test_a_stream_is_filtered(api, redis) -> None:
    query = "?type=course.deleted&integration_id=int_a&payload=thin"
    async with api.stream(query) as events:
        await anext(events)
        await append(redis, "c1")
        await append(redis, "c2", t="course.deleted", i="int_b")
        await append(redis, "c3", t="course.deleted")
        data = json.loads((await anext(events))["data"])["data"]
    assert (data["course_id"], data["course_omitted"]) == ("c3", "thin")


async def test_a_reader_that_lagged_beyond_the_retention_is_told_and_let_go(
    redis, services
) -> None:
    from service.api.resources.event_stream import frames as stream_frames

    tail = Tail(redis, services.events)
    for number in range(1, 31):
        await append(redis, f"c{number}", f"{number}-0")
    first = await services.events.read(None, 1, EVERY)
    stream = stream_frames(tail, first, VisibleEvents(ADMIN, services, EVERY), Rendering.FULL)
    await anext(stream)
    assert b'"course_id":"c1"' in await anext(stream)
    await trim(services, events_before=20)
    event, _, data = (await anext(stream)).decode().partition("\n")
    problem = json.loads(data.removeprefix("data: "))
    assert event == "event: error"
    assert problem["type"] == "urn:coursewire:problem:cursor-expired"
    assert cursors.read_log(problem["oldest_cursor"]) == "19-0"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await tail.close()


async def test_a_slow_reader_lags_holds_nobody_up_and_catches_up(api, redis) -> None:
    text = json.dumps({"id": "c1", "text": "x" * 20_000})
    async with api.stream() as slow, api.stream() as fast:
        await anext(slow)
        await anext(fast)
        async with redis.pipeline(transaction=False) as pipeline:
            for number in range(600):
                pipeline.xadd(keys.EVENTS, {**_slim(f"c{number}"), "m": _facts(number), "b": text})
            await pipeline.execute()
        # All of it is more than the API keeps in memory and than fits on the way to the reader.
        fast_read = [(await anext(fast))["id"] for _ in range(600)]
        slow_read = [(await anext(slow))["id"] for _ in range(600)]
    assert fast_read == slow_read == sorted(set(fast_read))


def _facts(number: int) -> bytes:
    return msgspec.json.encode({**FACTS, "course_id": f"c{number}"})


async def test_a_quiet_stream_is_kept_alive_and_its_place_moves_on(
    redis, services, monkeypatch
) -> None:
    from service.api.resources import event_stream as module

    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.2)
    tail = Tail(redis, services.events)
    wanted = EventFilter(course_id="none")
    first = await services.events.read(None, 1, wanted)
    stream = module.frames(tail, first, VisibleEvents(ADMIN, services, wanted), Rendering.FULL)
    await anext(stream)
    assert await anext(stream) == b":\n\n"
    position = await append(redis, "c1")
    beats = [await anext(stream)]
    while beats[-1] == b":\n\n":
        beats.append(await anext(stream))
    assert beats[-1] == b":\nid: %s\n\n" % cursors.write_position(position).encode()
    await stream.aclose()
    await tail.close()


# --- many listeners, and their end --------------------------------------------------------------


async def test_idle_listeners_share_one_reader(api, redis) -> None:
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(api.stream("?after=latest")) for _ in range(20)]
        for events in streams:
            await anext(events)
        await listening(redis)
        ranges, reads = await calls(redis, "xrange"), await calls(redis, "xread")
        await append(redis, "c1")
        for events in streams:
            assert json.loads((await anext(events))["data"])["data"]["course_id"] == "c1"
    assert await calls(redis, "xrange") == ranges
    assert await calls(redis, "xread") - reads <= 3


async def test_a_listener_that_lags_misses_and_repeats_nothing(
    redis, services, monkeypatch
) -> None:
    monkeypatch.setattr("service.storage.events.log_follower.MAX_EVENTS", 10)
    tail = Tail(redis, services.events)
    read: dict[int, list[str]] = {1: [], 7: []}

    async def follow(limit: int) -> None:
        position = "0-0"
        with tail.listen() as listener:
            while len(read[limit]) < 600:
                await listener.wait(position, 5)
                events, place = await tail.read(position, limit, EVERY)
                read[limit] += [event.course_id for event in events]
                position = place.position

    async with asyncio.TaskGroup() as group:
        for limit in read:
            group.create_task(follow(limit))
        for number in range(600):
            await append(redis, f"c{number}")
    await tail.close()
    expected = [f"c{number}" for number in range(600)]
    assert read == {1: expected, 7: expected}


async def test_a_listener_behind_what_the_log_has_lost_does_not_ask_in_vain(
    redis, services
) -> None:
    await append(redis, "lost")
    tail = Tail(redis, services.events)
    with tail.listen():
        await listening(redis, name="")  # as the client of this test has none
        assert tail.is_past("0-0")
        await redis.delete(keys.EVENTS)
        assert (await tail.read("0-0", 10, EVERY))[0] == []
        assert not tail.is_past("0-0")
    await tail.close()


async def test_a_tail_can_be_closed_at_any_moment(redis, valkey_url) -> None:
    for turns in range(40):  # of the event loop: while it connects, asks for the end, waits
        client = open_async(valkey_url)
        tail = Tail(client, EventLog(client))
        with tail.listen():
            for _ in range(turns):
                await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await tail.close()
        await client.aclose()


async def test_a_client_that_goes_away_is_no_listener_any_more(redis, services, serve) -> None:
    @contextlib.asynccontextmanager
    async def opened(_settings):
        yield services

    settings = msgspec.structs.replace(services.settings, admin_token=TOKEN)
    url = await serve(create_app(settings, open_services=opened))
    async with httpx.AsyncClient(base_url=url, headers=HEADERS) as client:
        for _ in range(3):
            async with client.stream("GET", "/v1/events/stream") as answer:
                assert await anext(frames(answer)) == {"retry": "3000", "id": "MC0w"}
                await until(lambda: services.tail.listeners == 1)
            await until(lambda: services.tail.listeners == 0)


async def test_too_many_listeners_are_told_to_come_back(redis, services) -> None:
    from service.domain.errors import TooManyListenersError

    tail = Tail(redis, services.events)
    tail.max_listeners = 1
    with tail.listen(), pytest.raises(TooManyListenersError):
        tail.check_room()
    tail.check_room()
    await tail.close()


async def test_waiting_requests_are_answered_when_the_api_stops(redis, valkey_url) -> None:
    # In a database of its own, so that its reader is told from that of the shared process.
    api = Api(*start_api(valkey_url.replace("/0", "/1")))
    waiting = asyncio.create_task(api.page("?after=latest&wait=60"))
    await listening(redis, db="1")
    async with api.stream("?after=latest") as events:
        await anext(events)
        started = time.monotonic()
        api.process.send_signal(signal.SIGTERM)
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    assert (await waiting)["items"] == []
    await asyncio.to_thread(api.process.wait)
    assert time.monotonic() - started < 3
    await api.client.aclose()


async def test_a_stream_ends_with_the_key_it_was_opened_with(api, redis) -> None:
    wanted = {"name": "tenant", "scope": "subscriber", "labels": {"tenant": "a"}}
    key = (await api.client.post("/v1/api-keys", json=wanted)).json()
    labelled = {"m": msgspec.json.encode({**FACTS, "course_id": "c", "labels": {"tenant": "a"}})}
    token = {"authorization": f"Bearer {key['token']}"}
    async with api.stream("?after=latest", **token) as stream:
        await anext(stream)
        await listening(redis)
        await append(redis, "other")
        await append(redis, "own", **labelled)
        frame = await anext(stream)
        while "data" not in frame:
            frame = await anext(stream)
        assert json.loads(frame["data"])["data"]["labels"] == {"tenant": "a"}
        assert (await api.client.delete(f"/v1/api-keys/{key['id']}")).status_code == 204
        await append(redis, "own", **labelled)
        assert [frame async for frame in stream if "data" in frame] == []
