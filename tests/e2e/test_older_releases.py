"""What older releases have left in Redis is read by this one, and goes on."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from standardwebhooks import Webhook

from tests.e2e.conftest import House, until
from tests.releases.make import lists
from tests.releases.upstream import Subscribers, Upstream, serving, url

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

RELEASES = sorted(
    (path.parent for path in (Path(__file__).parents[1] / "releases").glob("*/dump.rdb.gz")),
    key=lambda path: path.name,
)
RETAINED = ("EVENT", "ATTEMPT", "DEAD")
FOR_EVER = str(100 * 365 * 86_400)  # or a data set would be empty some day
# What goes on, grows older, or depends on when it is asked for.
MOVES = {
    *("last_used_at", "oldest_pending_at", "next_attempt_at", "course_count", "updated_at"),
    *("last_poll", "next_poll_at", "last_delta_at", "last_full_at", "rate_limit"),
}


def still(value: Any) -> Any:
    """What the API said without what moves."""
    if isinstance(value, dict):
        return {name: still(one) for name, one in value.items() if name not in MOVES}
    return [still(one) for one in value] if isinstance(value, list) else value


class Found:
    """A house that stands on the data of a release."""

    def __init__(self, directory: Path, release: Path) -> None:
        self.manifest = json.loads(gzip.decompress((release / "manifest.json.gz").read_bytes()))
        self.house = House(directory, 1, COURSEWIRE_ENCRYPTION_KEYS=self.manifest["encryption_key"])
        snapshot = gzip.decompress((release / "dump.rdb.gz").read_bytes())
        (self.house.valkey_directory / "dump.rdb").write_bytes(snapshot)
        valkey = self.house.processes["valkey"]
        # As docs/operations/backup.md says: a snapshot is read first, then made append-only.
        self.house.processes["valkey"] = valkey.like("valkey", "--appendonly", "no")
        self.house.api.headers["Authorization"] = f"Bearer {self.manifest['admin_token']}"
        self.upstream = Upstream(self.manifest["courses"])
        self.subscribers = Subscribers()

    async def listed(self, path: str) -> Any:
        return (await self.house.call("GET", path))["items"]

    def id(self, name: str) -> str:
        return str(self.manifest["ids"][name])


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
async def found(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Found]:
    stands = Found(tmp_path, request.param)
    async with serving(stands.upstream, stands.subscribers):
        try:
            stands.house.processes["valkey"].start()
            async with Redis.from_url(
                stands.house.redis_url, retry=Retry(ConstantBackoff(0.05), 200)
            ) as redis:
                await redis.config_set("appendonly", "yes")
            yield stands
        finally:
            await stands.house.close()


async def test_everything_is_there_and_goes_on_where_it_was(found: Found):
    house, told = found.house, found.manifest["told"]
    await house.start("sandbox", "api")
    for path in lists(found.manifest["ids"]):
        assert still(await found.listed(path)) == still(told[path]), path
    review = await house.call("GET", f"/v1/integrations/{found.id('held')}/review")
    assert still(review) == still(told["review"])
    # The API key and the stored reply of the request that was made with it still hold.
    again = await house.api.post(
        "/v1/subscriptions",
        json={"url": url("own")},
        headers={
            "Authorization": f"Bearer {found.manifest['token']}",
            "Idempotency-Key": "once",
        },
    )
    assert again.json() == found.manifest["own"]

    # What waited is sent, under the ids and with the bytes that others have got of it already.
    house.processes["worker"].start()
    house.processes["scheduler"].start()
    resumed = ("failing", "parked", "waiting", "dying", "gone")
    for name in resumed:
        await house.call("PATCH", f"/v1/subscriptions/{found.id(name)}", json={"paused": False})
        await house.call("POST", f"/v1/subscriptions/{found.id(name)}/resume")

    async def drained() -> bool:
        rest = [one for one in await found.listed("/v1/subscriptions") if one["pending"]]
        replays = await found.listed(f"/v1/subscriptions/{found.id('waiting')}/replays")
        return not rest and all(one["state"] == "completed" for one in replays)

    await until(drained, seconds=60, what=f"empty outboxes\n{house.logs()}")
    before = dict(found.manifest["received"]["plain"])
    assert len(before) >= 4
    for name in ("failing", "parked", "waiting"):
        got = {event_id: body.decode() for event_id, body, _ in found.subscribers.received[name]}
        assert {event_id: got.get(event_id) for event_id in before} == before
    known = len(found.subscribers.received["plain"])

    # Nothing has changed since, and nothing is told of it; then one course does.
    for name in ("active", "emitting"):
        house.integration_id = found.id(name)
        poll = await house.poll("full")
        assert poll["verdicts"] == {"unchanged": poll["records"]}
    assert len(found.subscribers.received["plain"]) == known
    found.upstream.courses["workday:active"][0]["custom_fields"] = {"changed": "again"}
    house.integration_id = found.id("active")
    assert (await house.poll("full"))["verdicts"]["updated"] == 1
    await until(drained, seconds=60, what=f"empty outboxes\n{house.logs()}")
    ((_, body, headers),) = found.subscribers.received["plain"][known:]
    event = json.loads(body)
    last = max(
        one["data"]["sequence"]
        for one in told["/v1/events?limit=200"]
        if one["data"].get("course_id") == event["data"]["course_id"]
    )
    assert event["data"]["previous_sequence"] == last
    assert event["data"]["changed"] == ["custom_fields"]
    assert headers["x-gate"] == "a header value that is encrypted"
    for name in ("plain", "rotated"):
        _, body, headers = found.subscribers.received[name][-1]
        secret = await house.call("GET", f"/v1/subscriptions/{found.id(name)}/secret")
        Webhook(secret["secret"]).verify(body, headers)

    for name in ("worker", "scheduler"):
        assert await asyncio.to_thread(house.processes[name].stop) == 0
        assert "Traceback" not in house.processes[name].log()


def test_there_is_a_data_set_to_read():
    assert RELEASES
