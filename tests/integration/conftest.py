"""The services of one process over a real Valkey, and a sandbox served on loopback."""

from __future__ import annotations

import asyncio
import base64
import functools
import importlib
import json
import pkgutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import httpx
import msgspec
import pytest
from aiohttp import web
from litestar import Litestar
from redis.asyncio import Redis
from standardwebhooks import Webhook

from service.api.resources.integrations.integration_views import IntegrationView
from service.bootstrap import Services, open_services
from service.clock import now_ms
from service.domain.courses.fingerprint import Fingerprint
from service.domain.delivery.circuit_breaker import Breaker
from service.domain.delivery.subscription import (
    Outbox,
    Rendering,
    Subscription,
    SubscriptionState,
    state_of,
)
from service.domain.polling.integration import Credential, Integration
from service.domain.signatures.signing import read_secret
from service.ids import new_id
from service.sandbox.app import create_sandbox, make_sandbox
from service.sandbox.config import SandboxConfig
from service.settings import Settings
from service.storage.delivery.deliveries import Wanted
from service.storage.polling.catalogue import Batch, Change, NewEvent, Progress
from service.storage.redis import keys
from service.storage.registry.subscriptions import new_secret
from service.storage.scheduling.schedule import ClaimLimit
from tests.conftest import Serve, peer
from tests.integration.scripted import ScriptedUpstream
from workers import polling
from workers.context import JobContext
from workers.delivery.drain import deliver_batch
from workers.polling.poll import poll_batch

UPSTREAM_ID = "workday:integration"


async def redis_now(redis: Redis) -> int:
    """Epoch ms by the clock of Redis."""
    seconds, microseconds = await redis.time()
    return seconds * 1000 + microseconds // 1000


def set_polling_clock(patch: pytest.MonkeyPatch, clock: Callable[[], int]) -> None:
    """Has polling jobs take the time from `clock`, epoch ms."""
    for found in pkgutil.iter_modules(polling.__path__, f"{polling.__name__}."):
        module = importlib.import_module(found.name)
        if hasattr(module, "now_ms"):
            patch.setattr(module, "now_ms", clock)


class QuietDispatcher:
    """Stands in for enqueueing: the tests run jobs themselves."""

    def __init__(self) -> None:
        self.calls = 0

    async def dispatch(self, *kinds: str, scheduler: str | None = None) -> int:
        self.calls += 1
        return 0

    async def dispatch_soon(self, *kinds: str) -> None:
        self.calls += 1


@pytest.fixture
async def services(redis: Redis, valkey_url: str) -> AsyncIterator[Services]:
    settings = Settings.from_env(
        {
            "COURSEWIRE_REDIS_URL": valkey_url,
            "COURSEWIRE_ENCRYPTION_KEYS": base64.urlsafe_b64encode(bytes(32)).decode(),
            "COURSEWIRE_ALLOWED_TARGETS": "127.0.0.0/8",
        }
    )
    async with open_services(settings) as services:
        # For tests that ask for more than the service may.
        services.redis.admin = redis
        yield services


@pytest.fixture
def context(services: Services) -> JobContext:
    return JobContext(services, QuietDispatcher(), asyncio.Event())


class Sandbox:
    """The stand-in upstream of one test, and what can be done to it."""

    def __init__(self, url: str) -> None:
        self.base_url = f"{url}/v1"
        self.client = httpx.AsyncClient(base_url=f"{url}/control", timeout=60)

    async def call(self, method: str, path: str, content: Any = None) -> Any:
        answer = await self.client.request(method, path, json=content)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def change(self, *changes: dict[str, Any]) -> list[dict[str, Any]]:
        return await self.call("POST", f"/integrations/{UPSTREAM_ID}/changes", list(changes))

    async def fault(self, kind: str, **fields: Any) -> None:
        await self.call("POST", "/faults", {"kind": kind, **fields})

    async def heal(self) -> None:
        await self.call("DELETE", "/faults")

    async def courses(self) -> list[dict[str, Any]]:
        return await self.call("GET", f"/integrations/{UPSTREAM_ID}/courses")

    async def served(self) -> list[dict[str, Any]]:
        return await self.call("GET", "/served")


@functools.cache
def sandbox_application() -> Litestar:
    return create_sandbox(SandboxConfig())


@pytest.fixture
async def sandbox(request: pytest.FixtureRequest, serve: Serve) -> AsyncIterator[Sandbox]:
    """A sandbox with 600 courses: three pages of a poll; `indirect` chooses another number."""
    courses = getattr(request, "param", 600)
    config = SandboxConfig(integrations=(UPSTREAM_ID,), courses=courses, quiet=True)
    application = sandbox_application()
    application.state.sandbox = make_sandbox(config)
    sandbox = Sandbox(await serve(application, date_header=False))
    yield sandbox
    await sandbox.client.aclose()


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    async with peer(web.get("/v1/lms/courses", upstream.handle)) as url:
        upstream.base_url = f"{url}/v1"
        yield upstream


class Registered:
    """A registered integration, polled by hand."""

    def __init__(self, context: JobContext, integration: Integration) -> None:
        self.context = context
        self.services: Services = context.services
        self.id = integration.id

    async def claim(self) -> int:
        """Makes the integration due and claims it; returns the claim's token."""
        redis = self.services.redis
        await redis.zadd(keys.due("polls"), {self.id: 0})
        (claims,) = await self.services.schedule.claim([ClaimLimit("polls", "q", 10, 10)], 30_000)
        assert claims.ids == [self.id]
        return claims.token

    async def turn(self) -> None:
        """One poll job for it."""
        await poll_batch(self.context, [(self.id, await self.claim())])

    async def poll(self, kind: str) -> Any:
        """Asks for a poll, takes one turn and returns the poll's record."""
        poll = await self.services.integrations.request_poll(self.id, kind, now_ms())
        await self.turn()
        return await self.services.integrations.get_poll(self.id, poll.id)

    async def due_in(self) -> float:
        """Seconds until it is due."""
        due = await self.services.redis.zscore(keys.due("polls"), self.id)
        return (due - await redis_now(self.services.redis)) / 1000

    async def shown(self) -> Any:
        """As the API shows it."""
        integration, state = await self.services.integrations.get(self.id)
        (last,) = await self.services.integrations.latest_polls([self.id])
        return IntegrationView.of(integration, state, last, None)

    async def polls(self) -> list[Any]:
        return await self.services.integrations.list_polls(self.id)

    async def state(self) -> Any:
        _, state = await self.services.integrations.get(self.id)
        return state

    async def events(self) -> list[Any]:
        events, _ = await self.services.events.read(None, 10_000)
        return events


@pytest.fixture
async def register(context: JobContext, sandbox: Sandbox):
    async def register(**fields: Any) -> Registered:
        return await new_integration(context, sandbox.base_url, **fields)

    return register


async def new_integration(context: JobContext, base_url: str, **fields: Any) -> Registered:
    """An integration that nobody polls by itself, on a credential of its own unless given."""
    services = context.services
    if "credential_id" not in fields:
        fields["credential_id"] = await new_credential(services, base_url)
    now = now_ms()
    integration = Integration(
        **{
            "id": new_id("int"),
            "name": "test",
            "upstream_id": UPSTREAM_ID,
            "created_at": now,
            "updated_at": now,
        }
        | fields
    )
    await services.integrations.create(integration)
    await services.redis.zrem(keys.due("polls"), integration.id)
    return Registered(context, integration)


async def new_credential(services: Services, base_url: str, api_key: str = "sandbox-key") -> str:
    now = now_ms()
    credential = Credential(
        id=new_id("cred"), name="test", base_url=base_url, created_at=now, updated_at=now
    )
    await services.credentials.create(credential, api_key)
    return credential.id


async def until_alive(services: Services, count: int) -> None:
    """Waits until so many processes have said that they live."""
    async with asyncio.timeout(30):
        while len(await services.processes.alive()) < count:  # noqa: ASYNC110 - others write it
            await asyncio.sleep(0.01)


FACTS = {
    "integration_id": "int_a",
    "upstream_id": "workday:a",
    "external_id": None,
    "labels": {},
    "remote_id": "32",
    "origin_id": None,
    "changed": [],
    "reason": None,
    "evidence": None,
    "initial": False,
    "detected_by": "delta",
}


class Hook:
    """A receiver that answers as told and keeps what it was sent."""

    def __init__(self) -> None:
        self.answer: Callable[[dict], int] = lambda _event: 204
        self.says: Callable[[web.Request], str] = lambda _request: "so be it"
        self.extra: dict[str, str] = {}
        self.received: list[tuple[str, dict, bytes]] = []
        self.headers: list[Mapping[str, str]] = []
        self.secret = new_secret()
        self.url = ""
        self.at_once = self.most_at_once = 0
        self._arrival = asyncio.Condition()
        self.gate = asyncio.Event()
        self.gate.set()

    def verify(self, body: bytes, headers: dict[str, str]) -> None:
        Webhook(self.secret).verify(body, headers)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.verify(body, dict(request.headers))
        event = json.loads(body)
        async with self._arrival:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self._arrival.notify_all()
        await self.gate.wait()
        self.at_once -= 1
        self.headers.append(request.headers)
        self.received.append((request.headers["webhook-id"], event, body))
        status, text = self.answer(event), self.says(request)
        return web.Response(status=status, text=text, headers=self.extra)

    async def holds(self, count: int) -> None:
        """Waits until so many requests are being held back at the gate."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: self.at_once >= count)

    def courses(self) -> list[str]:
        return [event["data"]["course_id"] for _, event, _ in self.received]


@pytest.fixture
async def hook():
    hook = Hook()
    async with peer(web.post("/hook", hook.handle)) as url:
        hook.url = f"{url}/hook"
        yield hook


class Harness:
    """One subscription, events put on its outbox, and turns of its sender."""

    def __init__(self, context: JobContext, subscription: Subscription) -> None:
        self.context = context
        self.services = context.services
        self.id = subscription.id

    async def emit(
        self,
        *course_ids: str,
        rendering: Rendering = Rendering.FULL,
        others: Sequence[Outbox] = (),
    ) -> None:
        """Commits one `course.updated` for each of the courses, in order."""
        services = self.services
        redis = services.redis
        await redis.hset(keys.integration("int_a"), "epoch", "ep")
        await redis.zadd(keys.claimed("polls"), {"int_a": 9e15})
        lease = await services.leases.take("polls", "int_a", 9_000_000_000_000_000, 10_000)
        version = int(await redis.get(keys.SUBSCRIPTIONS_VERSION))
        active = state_of(await self.subscription()) is SubscriptionState.ACTIVE
        for number, course_id in enumerate(course_ids):
            stored = await redis.hget(keys.integration("int_a"), "poll") or b""
            step = stored + b"."
            await services.catalogue.commit(
                lease,
                epoch="ep",
                poll_id="poll",
                subscriptions_version=version,
                progress=Progress(stored, step),
                batch=Batch(
                    changes=[
                        Change(
                            course_id=course_id,
                            fingerprint=Fingerprint(
                                deleted=False,
                                raw=bytes(16),
                                paths=bytes(95),
                                remote_id="32",
                                origin_id=None,
                            ),
                            event=NewEvent(
                                type="course.updated",
                                facts=msgspec.json.encode({**FACTS, "course_id": course_id}),
                                body=b'{"id":"%s","n":%d}' % (course_id.encode(), number),
                                order_key=course_id,
                                outboxes=(Outbox(self.id, rendering, active), *others),
                            ),
                        )
                    ]
                ),
                increments=Counter(),
            )
        await services.leases.drop(lease, None)

    async def claim(self) -> int:
        due = keys.due("outboxes")
        # In a script that begins with a removal, for tests at the memory limit.
        script = (
            "redis.call('ZREM', KEYS[1], ARGV[1]) return redis.call('ZADD', KEYS[1], 0, ARGV[1])"
        )
        await self.services.redis.admin.eval(script, 1, due, self.id)
        (claims,) = await self.services.schedule.claim(
            [ClaimLimit("outboxes", "q", 10, 10)], 30_000
        )
        return claims.token

    async def turn(self) -> None:
        token = await self.claim()
        try:
            await deliver_batch(self.context, [(self.id, token)])
            await asyncio.gather(*self.context.lingering)
        except asyncio.CancelledError:  # as when its process dies
            await self.kill()
            raise

    async def kill(self) -> None:
        """Ends whatever is under way without a word."""
        under_way = [*self.context.lingering]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def make_retries_due(self) -> None:
        redis = self.services.redis
        for order_key in await redis.zrange(keys.outbox_retries(self.id), 0, -1):
            await redis.zadd(keys.outbox_retries(self.id), {order_key: 1})

    async def now(self) -> int:
        return await redis_now(self.services.redis)

    async def next_turn_at(self) -> int | None:
        (at,) = await self.services.schedule.next_at("outboxes", [self.id])
        return at

    def pass_time(self, seconds: float) -> None:
        """Lets the sender believe that so much time has passed."""
        begin = self.services.outboxes.begin

        async def begin_later(lease, claim):
            found = await begin(lease, claim)
            return found and msgspec.structs.replace(found, now=found.now + int(seconds * 1000))

        self.services.outboxes.begin = begin_later

    async def breaker(self):
        stored = await self.services.redis.hget(keys.outbox_state(self.id), "breaker")
        return msgspec.json.decode(stored or b"{}", type=Breaker)

    async def subscription(self) -> Subscription:
        return await self.services.subscriptions.get(self.id)

    async def depth(self):
        (depth,) = await self.services.outboxes.depth_many([self.id])
        return depth

    async def deliveries(self, *states):
        """Its deliveries, those of the oldest events first."""
        found, _ = await self.services.deliveries.page(
            [self.id], Wanted(states=states or None), limit=100, newest_first=False
        )
        return found


@pytest.fixture
async def subscribe(context, hook):
    async def subscribe(*, headers=(("x-tenant", "42"),), certificate=None, **fields) -> Harness:
        key = read_secret(hook.secret)
        subscription = Subscription(
            id=new_id("sub"),
            created_at=1,
            updated_at=1,
            public_key=key.public_key,
            **({"url": hook.url, "timeout_seconds": 5.0} | fields),
        )
        await context.services.subscriptions.create(
            subscription, [hook.secret], dict(headers), certificate
        )
        return Harness(context, subscription)

    return subscribe
