"""Makes the data set of the present release: what a service has in Redis in whose life everything
has happened, and what its API says of it.

    python -m tests.releases.make

It takes about two minutes, for an outbox is parked after one. Run it when a release is made, and
commit what it writes to `tests/releases/VERSION/`: every later release is tested with it.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from service.sandbox.content import ContentSource, encode_course
from service.storage.redis import keys
from tests.e2e.conftest import ADMIN_TOKEN, House, until
from tests.releases.upstream import BASE_URL, KEY, Subscribers, Upstream, serving, url

ENCRYPTION_KEY = base64.urlsafe_b64encode(b"a key that is committed and open").decode()
COURSES = 12
LISTS = ("credentials", "integrations", "subscriptions", "api-keys", "events", "audit")
WITH_REPLAYS = ("waiting", "dying")
WITH_ATTEMPTS = ("plain", "failing", "dying")


def courses(upstream_id: str) -> list[dict[str, Any]]:
    """Courses as an upstream would have them."""
    source = ContentSource(upstream_id, 7)
    return [json.loads(encode_course(source.course(number))) for number in range(COURSES)]


class Story:
    """What happens in the life of the service."""

    def __init__(self, house: House, upstream: Upstream, subscribers: Subscribers) -> None:
        self.house = house
        self.upstream = upstream
        self.subscribers = subscribers
        self.ids: dict[str, str] = {}

    async def create(self, called: str, path: str, /, **fields: Any) -> dict[str, Any]:
        created = await self.house.call("POST", path, json=fields)
        self.ids[called] = created["id"]
        return dict(created)

    async def integrate(self, name: str, **fields: Any) -> None:
        upstream_id = f"workday:{name}"
        self.upstream.courses[upstream_id] = courses(upstream_id)
        await self.create(
            name,
            "/v1/integrations",
            **{"name": name, "upstream_id": upstream_id, "credential_id": self.ids["key"]} | fields,
        )

    async def subscribe(self, name: str, **fields: Any) -> dict[str, Any]:
        return await self.create(name, "/v1/subscriptions", url=url(name), **fields)

    async def state(self, name: str, state: str, path: str = "integrations") -> None:
        async def reached() -> bool:
            found = await self.house.call("GET", f"/v1/{path}/{self.ids[name]}")
            return bool(found["state"] == state)

        await until(reached, seconds=150, what=f"{name} {state}\n{self.house.logs()}")

    async def edit(self, name: str, *numbers: int) -> None:
        """Changes courses and has them found."""
        for number in numbers:
            course = self.upstream.courses[f"workday:{name}"][number]
            course["custom_fields"] = {"changed": number}
            course["revisions"][0]["title"] = f"Renamed {number}"
        await self.poll(name, "full")

    async def poll(self, name: str, kind: str) -> None:
        self.house.integration_id = self.ids[name]
        assert (await self.house.poll(kind))["state"] == "completed"

    async def tell(self) -> None:
        """Everything there is to tell, in an order in which it can happen."""
        call = self.house.call
        await self.create("key", "/v1/credentials", name="key", base_url=BASE_URL, api_key=KEY)
        await self.create("bad", "/v1/credentials", name="bad", base_url=BASE_URL, api_key="bad")
        await self.integrate("active", labels={"tier": "gold"}, external_id="x-1")
        await self.integrate("emitting", baseline="emit", ignore_paths=["remote_data"])
        await self.integrate("paused", paused=True)
        await self.integrate("refused", credential_id=self.ids["bad"])
        await self.integrate("held")
        for name in ("active", "emitting", "held"):
            await self.state(name, "active")
        await self.state("refused", "error")

        headers = {"X-Gate": "a header value that is encrypted"}
        await self.subscribe("plain", headers=headers, description="gets everything")
        await self.subscribe("signed", signature="ed25519", format="cloudevents")
        await self.subscribe(
            "thin", payload="thin", event_types=["course.updated", "course.deleted"]
        )
        await self.subscribe("rotated")
        await call("POST", f"/v1/subscriptions/{self.ids['rotated']}/secret/rotate")
        await self.subscribe("failing", retry_schedule_seconds=[86_400] * 3)
        await self.subscribe("parked", retry_schedule_seconds=[5] * 20)
        await self.subscribe("dying", retry_schedule_seconds=[1])
        await self.subscribe("gone")
        await self.subscribe("waiting", paused=True)
        key = await self.create(
            "reader", "/v1/api-keys", name="reader", scope="subscriber", labels={"tier": "gold"}
        )
        answer = await self.house.api.post(
            "/v1/subscriptions",
            json={"url": url("own")},
            headers={"Authorization": f"Bearer {key['token']}", "Idempotency-Key": "once"},
        )
        assert answer.is_success, answer.text
        self.ids["own"] = answer.json()["id"]
        self.token, self.own = key["token"], answer.json()

        refusing = {"failing": 500, "parked": 500, "dying": 500, "gone": 410}
        self.subscribers.answers.update(refusing)
        await self.edit("active", 0, 1, 2)
        await self.edit("emitting", 3)
        del self.upstream.courses["workday:held"][2:]
        await self.poll("held", "full")
        await self.state("held", "review")
        await self.state("gone", "disabled", "subscriptions")
        await self.state("parked", "parked", "subscriptions")
        for which, name in (("all", "waiting"), ("backfill", "waiting"), ("dead", "dying")):
            await call("POST", f"/v1/subscriptions/{self.ids[name]}/replays", json={"which": which})

    async def told(self) -> dict[str, Any]:
        """What the API says of it in the end."""
        call, found = self.house.call, dict[str, Any]()
        for path in lists(self.ids):
            found[path] = (await call("GET", path))["items"]
        found["review"] = await call("GET", f"/v1/integrations/{self.ids['held']}/review")
        return found


def lists(ids: dict[str, str]) -> list[str]:
    """The lists that are kept of a data set, and compared when it is read."""
    return [
        *(f"/v1/{name}?limit=200" for name in LISTS),
        *(f"/v1/subscriptions/{ids[name]}/replays" for name in WITH_REPLAYS),
        *(f"/v1/deliveries?limit=200&subscription_id={ids[name]}" for name in WITH_ATTEMPTS),
    ]


async def make() -> tuple[bytes, dict[str, Any]]:
    """The server's snapshot, and what is to be known of it."""
    upstream, subscribers = Upstream({}), Subscribers()
    with tempfile.TemporaryDirectory() as directory:
        house = House(Path(directory), 1, COURSEWIRE_ENCRYPTION_KEYS=ENCRYPTION_KEY)
        story = Story(house, upstream, subscribers)
        async with serving(upstream, subscribers):
            try:
                await house.start()
                await story.tell()
                for name in ("worker", "scheduler"):
                    await asyncio.to_thread(house.processes[name].stop)
                told = await story.told()
                await asyncio.to_thread(house.processes["api"].stop)
                async with Redis.from_url(house.redis_url) as redis:
                    async for key in redis.scan_iter(match=keys.reply("*")):
                        await redis.persist(key)  # for whoever reads it after a day
                    await redis.save()
            finally:
                await house.close()
        snapshot = (house.valkey_directory / "dump.rdb").read_bytes()
    manifest = {
        "admin_token": ADMIN_TOKEN,
        "encryption_key": ENCRYPTION_KEY,
        "token": story.token,
        "own": story.own,
        "ids": story.ids,
        "courses": upstream.courses,
        "received": {
            name: [[event_id, body.decode()] for event_id, body, _ in of_one]
            for name, of_one in subscribers.received.items()
        },
        "told": told,
    }
    return snapshot, manifest


def main() -> None:
    """Writes the data set of this release, anew."""
    snapshot, manifest = asyncio.run(make())
    target = Path(__file__).parent / version("coursewire")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    # In the order in which they were served, courses have the bytes that were polled.
    content = json.dumps(manifest, indent=1).encode()
    for name, data in (("dump.rdb.gz", snapshot), ("manifest.json.gz", content)):
        (target / name).write_bytes(gzip.compress(data, mtime=0))
        sys.stdout.write(f"{target / name}: {(target / name).stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
