"""Ways to find what changed in a catalogue, each in a process of its own.

`python -m tests.bench.peers.sweepers NAME` takes lines of JSON: first a `Setting`, then a line for
each full poll, and answers with a line for each: seconds, memory and the changes that it reports.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import msgspec
import uvloop
from redis import Redis

from service.domain.review.guards import Guards
from service.logs import configure
from service.settings import Settings
from service.storage.redis import keys
from tests.bench.memory_worker import peak_bytes
from tests.bench.source import environment, subscribe

PAGE_SIZE = 250
Changes = list[tuple[str, str]]  # created, updated or deleted, and the course
# A full poll, which is measured, and then what it reports, which may have to be read first.
FullPoll = Callable[[], Awaitable[Awaitable[Changes]]]


class Setting(msgspec.Struct, frozen=True):
    """Where the courses are, and where what is known of them may be kept."""

    base_url: str
    api_key: str
    upstream_id: str
    redis_url: str
    directory: str


def _client(setting: Setting) -> httpx.Client:
    return httpx.Client(
        base_url=setting.base_url,
        headers={
            "Authorization": f"Bearer {setting.api_key}",
            "X-Integration-Id": setting.upstream_id,
        },
        timeout=60,
    )


def _pages(client: httpx.Client) -> Iterator[bytes]:
    cursor: str | None = None
    while True:
        query = {"page_size": str(PAGE_SIZE)} | ({"cursor": cursor} if cursor else {})
        answer = client.get("/lms/courses", params=query).raise_for_status()
        yield answer.content
        cursor = json.loads(answer.content)["data"]["next"]
        if cursor is None:
            return


async def _reported(changes: Changes) -> Changes:
    return changes


@asynccontextmanager
async def decoding(setting: Setting) -> AsyncIterator[FullPoll]:
    """The limit: pages fetched and decoded into structs that are dropped at once."""
    from tests.bench.sweep import decode_page

    with _client(setting) as client:

        async def full_poll() -> Awaitable[Changes]:
            cursor: str | None = None
            while True:
                query = {"page_size": str(PAGE_SIZE)} | ({"cursor": cursor} if cursor else {})
                answer = client.get("/lms/courses", params=query).raise_for_status()
                cursor = decode_page(answer.content).data.next
                if cursor is None:
                    return _reported([])

        yield full_poll


@asynccontextmanager
async def script(setting: Setting) -> AsyncIterator[FullPoll]:
    """What one writes in an afternoon: a SHA-256 of each sorted record, under a key of its own.
    Absences are not looked for."""
    with _client(setting) as client, Redis.from_url(setting.redis_url) as redis:

        async def full_poll() -> Awaitable[Changes]:
            changes: Changes = []
            for page in _pages(client):
                for record in json.loads(page)["data"]["results"]:
                    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest()
                    key = f"course:{record['id']}"
                    known = redis.get(key)
                    if known != digest:
                        redis.set(key, digest)
                        changes.append(("created" if known is None else "updated", record["id"]))
            return _reported(changes)

        yield full_poll


@asynccontextmanager
async def nango(setting: Setting) -> AsyncIterator[FullPoll]:
    """Nango's published algorithm, reimplemented: an MD5 of each serialised record, compared and
    stored a batch at a time; what a full poll did not show is deleted. Nango keeps the records in
    PostgreSQL; here a Redis hash holds the digests alone, which flatters it."""
    with _client(setting) as client, Redis.from_url(setting.redis_url) as redis:

        async def full_poll() -> Awaitable[Changes]:
            changes: Changes = []
            seen: set[str] = set()
            for page in _pages(client):
                records = json.loads(page)["data"]["results"]
                digests = {
                    str(one["id"]): hashlib.md5(
                        json.dumps(one, separators=(",", ":")).encode(), usedforsecurity=False
                    ).hexdigest()
                    for one in records
                }
                seen.update(digests)
                known = redis.hmget("records", list(digests))
                moved = {}
                for (name, digest), before in zip(digests.items(), known, strict=True):
                    if before is None or before.decode() != digest:
                        moved[name] = digest
                        changes.append(("created" if before is None else "updated", name))
                if moved:
                    redis.hset("records", mapping=moved)
            gone = {name.decode() for name in redis.hkeys("records")} - seen
            if gone:
                redis.hdel("records", *gone)
                changes.extend(("deleted", name) for name in gone)
            return _reported(changes)

        yield full_poll


@asynccontextmanager
async def dlt(setting: Setting) -> AsyncIterator[FullPoll]:
    """dlt with the scd2 strategy on DuckDB, a row for each course; changes are read from the
    validity columns of the rows that the load wrote."""
    os.environ.update(
        {
            "RUNTIME__LOG_LEVEL": "ERROR",
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "DLT_DATA_DIR": setting.directory,
        }
    )
    import dlt as library

    pipeline = library.pipeline(
        pipeline_name="bench",
        pipelines_dir=setting.directory,
        destination=library.destinations.duckdb(f"{setting.directory}/courses.duckdb"),
        dataset_name="upstream",
    )
    with _client(setting) as client:

        def rows() -> Iterator[list[dict[str, Any]]]:
            for page in _pages(client):
                # One column for the whole record: its nested parts would become tables.
                yield [
                    {"id": one["id"], "record": json.dumps(one, sort_keys=True)}
                    for one in json.loads(page)["data"]["results"]
                ]

        async def full_poll() -> Awaitable[Changes]:
            resource = library.resource(
                rows, name="courses", write_disposition={"disposition": "merge", "strategy": "scd2"}
            )
            return changes_of(pipeline.run(resource()).loads_ids[-1])

        async def changes_of(load: str) -> Changes:
            with pipeline.sql_client() as sql:
                fresh = sql.execute_sql(
                    "select id, exists (select 1 from courses as before where before.id = "
                    "courses.id and before._dlt_load_id <> courses._dlt_load_id) "
                    "from courses where _dlt_load_id = %s",
                    load,
                )
                retired = sql.execute_sql(
                    "select id from courses group by id having count(*) = count(_dlt_valid_to)"
                )
            now = {name for (name,) in retired or ()}
            changes = [("updated" if known else "created", name) for name, known in fresh or ()]
            changes += [("deleted", name) for name in now - gone]
            gone.clear()
            gone.update(now)
            return changes

        gone: set[str] = set()
        yield full_poll


@asynccontextmanager
async def ours(setting: Setting) -> AsyncIterator[FullPoll]:
    """The poll job of a worker, with one subscription to everything."""
    from service.storage.registry.subscriptions import new_secret
    from tests.bench.rig import rig

    settings = Settings.from_env(environment(setting.redis_url))
    async with AsyncExitStack() as stack:
        poller = await stack.enter_async_context(
            rig(
                settings,
                base_url=setting.base_url,
                api_key=setting.api_key,
                upstream_id=setting.upstream_id,
                guards=Guards(changed_share=1, deleted_share=1, deleted_share_max=1),
            )
        )
        await subscribe(poller.services, "http://127.0.0.1:9/", new_secret())
        redis, place = poller.services.redis, "-"

        async def full_poll() -> Awaitable[Changes]:
            await poller.complete()
            return appended()

        async def appended() -> Changes:
            nonlocal place
            changes: Changes = []
            while found := await redis.xrange(keys.EVENTS, place, "+", count=5_000):
                place = f"({found[-1][0].decode()}"
                for _, fields in found:
                    kind = fields[b"t"].decode().removeprefix("course.")
                    changes.append((kind, fields[b"c"].decode()))
            return changes

        yield full_poll


CONTENDERS = {one.__name__: one for one in (decoding, ours, script, nango, dlt)}


async def serve(name: str) -> None:
    """Full polls whenever it is asked to."""
    setting = msgspec.json.decode(sys.stdin.buffer.readline(), type=Setting)
    async with CONTENDERS[name](setting) as full_poll:
        _say("ready")
        while sys.stdin.buffer.readline():
            cpu, wall = time.process_time(), time.perf_counter()
            report = await full_poll()
            took = {
                "cpu": time.process_time() - cpu,
                "wall": time.perf_counter() - wall,
                "peak_mb": peak_bytes() / 1e6,
            }
            _say({**took, "changes": await report})


def _say(answer: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    configure("console", "error", "bench")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
