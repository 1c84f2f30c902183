"""Events as a poll commits them, and the worker processes that deliver them."""

from __future__ import annotations

import base64
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from service.bootstrap import Services, open_services
from service.clock import now_ms
from service.domain.courses.fingerprint import Fingerprint
from service.domain.delivery.outbox_window import order_key
from service.domain.delivery.subscription import Outbox, Rendering, Subscription
from service.ids import new_id
from service.sandbox.content import ContentSource, encode_course
from service.settings import Settings
from service.storage.events.stored_bodies import compressed
from service.storage.polling.catalogue import Batch, Change, NewEvent, Progress
from service.storage.redis import keys
from service.storage.redis.client import open_sync
from tests.bench import pages
from tests.bench.processes import Child, child
from tests.bench.rig import embedded_server
from workers.dispatch.dispatcher import Dispatcher

INTEGRATION = "int_bench"
PAGE = 250  # events of one commit
_LEASE_MS = 3_600_000
_FINGERPRINT = Fingerprint(
    deleted=False, raw=bytes(16), paths=bytes(95), remote_id="32", origin_id=None
)


def environment(redis_url: str) -> dict[str, str]:
    """What a part of the service needs to work for a benchmark."""
    return {
        "COURSEWIRE_REDIS_URL": redis_url,
        "COURSEWIRE_ENCRYPTION_KEYS": base64.urlsafe_b64encode(bytes(32)).decode(),
        "COURSEWIRE_ALLOWED_TARGETS": "127.0.0.0/8",
        "COURSEWIRE_LOG_LEVEL": "error",
    }


async def open_fresh(stack: AsyncExitStack) -> tuple[Settings, Services, Dispatcher]:
    """An empty server with services and a dispatcher, until the stack closes."""
    embedded = await stack.enter_async_context(embedded_server())
    settings = Settings.from_env(environment(embedded.require_redis_url()))
    return settings, *await open_dispatching(stack, settings)


async def open_dispatching(
    stack: AsyncExitStack, settings: Settings
) -> tuple[Services, Dispatcher]:
    """Services and a dispatcher with these settings, until the stack closes."""
    services = await stack.enter_async_context(open_services(settings))
    connection = stack.enter_context(open_sync(settings.require_redis_url()))
    return services, Dispatcher(services.schedule, connection)


@asynccontextmanager
async def workers(settings: Settings, count: int = 1) -> AsyncIterator[list[Child]]:
    """So many worker processes, and a scheduler."""
    async with AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(child(module, environment=settings.to_environ()))
            for module in [*["workers.worker"] * count, "workers.scheduler"]
        ]
        yield started[:-1]


class Source:
    """Commits changes of courses, and has the outboxes dispatched at once, as a poll does."""

    def __init__(self, services: Services, dispatcher: Dispatcher) -> None:
        self._services = services
        self._dispatcher = dispatcher
        self._step = b""
        content = ContentSource("workday:bench", 7)
        self._records = [
            compressed(encode_course(pages.shortened(content.course(number))))
            for number in range(PAGE)
        ]
        self._numbers = itertools.count()

    async def start(self) -> None:
        """Takes the lease of the integration that the events are of."""
        redis = self._services.redis
        await redis.hset(keys.integration(INTEGRATION), "epoch", "ep")
        await redis.zadd(keys.claimed("polls"), {INTEGRATION: 9e15})
        lease = await self._services.leases.take(
            "polls", INTEGRATION, 9_000_000_000_000_000, _LEASE_MS
        )
        assert lease is not None
        self._lease = lease

    async def dispatch(self) -> None:
        """Has what became due sent."""
        await self._dispatcher.dispatch("outboxes")

    async def commit(
        self, subscriptions: Sequence[str], courses: Sequence[str], *, dispatch: bool = True
    ) -> None:
        """One change of each of the courses, for all of the subscriptions."""
        step = b"%d" % (int(self._step or b"0") + 1)
        outboxes = tuple(Outbox(one, Rendering.FULL) for one in subscriptions)
        version = int(await self._services.redis.get(keys.SUBSCRIPTIONS_VERSION) or 0)
        await self._services.catalogue.commit(
            self._lease,
            epoch="ep",
            poll_id="poll",
            subscriptions_version=version,
            progress=Progress(self._step, step),
            batch=Batch(changes=[self._change(course, outboxes) for course in courses]),
            increments=Counter(),
        )
        self._step = step
        if dispatch:
            await self._dispatcher.dispatch("outboxes")

    def _change(self, course_id: str, outboxes: tuple[Outbox, ...]) -> Change:
        facts = {
            "integration_id": INTEGRATION,
            "upstream_id": "workday:bench",
            "external_id": None,
            "labels": {},
            "course_id": course_id,
            "remote_id": "32",
            "origin_id": None,
            "changed": ["revisions.title"],
            "reason": None,
            "evidence": None,
            "initial": False,
            "detected_by": "delta",
        }
        return Change(
            course_id=course_id,
            fingerprint=_FINGERPRINT,
            event=NewEvent(
                type="course.updated",
                facts=msgspec.json.encode(facts),
                body=self._records[next(self._numbers) % PAGE],
                order_key=order_key(INTEGRATION, course_id),
                outboxes=outboxes,
            ),
        )


async def subscribe(services: Services, url: str, secret: str) -> str:
    """An ordinary subscription to everything, and its id."""
    subscription = Subscription(
        id=new_id("sub"), created_at=(now := now_ms()), updated_at=now, url=url
    )
    await services.subscriptions.create(subscription, [secret], {})
    return subscription.id
