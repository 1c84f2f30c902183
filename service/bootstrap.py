"""Settings -> Services: the only place where the parts are wired together."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from redis.asyncio import Redis

from service.clients.egress import AddressGuard
from service.clients.receiver import Receiver
from service.clients.transport import OutboundClient, open_client
from service.clients.upstream import UpstreamClient
from service.domain.errors import SettingsError
from service.domain.proxies import Routes, read_egress_proxy
from service.settings import Settings
from service.storage.api_keys import ApiKeys
from service.storage.attempts import Attempts
from service.storage.audit import Audit
from service.storage.backlog import Backlog
from service.storage.budgets import Budgets
from service.storage.catalogue import Catalogue
from service.storage.connections import open_async
from service.storage.control import Control
from service.storage.counters import Counters
from service.storage.credentials import CredentialStore
from service.storage.dead import DeadDeliveries
from service.storage.deaths import Deaths
from service.storage.event_log import EventLog
from service.storage.integrations import IntegrationStore
from service.storage.leases import Leases
from service.storage.matchers import Matchers
from service.storage.memory import Memory
from service.storage.metrics import Metrics
from service.storage.outbox_events import OutboxEvents
from service.storage.outboxes import Outboxes
from service.storage.polls import Polls
from service.storage.processes import Processes
from service.storage.reconciliation import Reconciliation
from service.storage.replays import Replays
from service.storage.replies import Replies
from service.storage.retention import Retention
from service.storage.reviews import Reviews
from service.storage.rights import Rights
from service.storage.schedule import Schedule
from service.storage.sealed import SealedValues
from service.storage.sealing import Sealer
from service.storage.shown import ShownSubscriptions
from service.storage.subscriptions import SubscriptionStore
from service.storage.tail import Tail


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the API and the workers share."""

    settings: Settings
    redis: Redis
    rights: Rights
    sealer: Sealer
    guard: AddressGuard
    credentials: CredentialStore
    integrations: IntegrationStore
    subscriptions: SubscriptionStore
    shown: ShownSubscriptions
    backlog: Backlog
    matchers: Matchers
    api_keys: ApiKeys
    audit: Audit
    replies: Replies
    sealed: SealedValues
    processes: Processes
    catalogue: Catalogue
    polls: Polls
    events: EventLog
    tail: Tail
    outboxes: Outboxes
    dead: DeadDeliveries
    deaths: Deaths
    outbox_events: OutboxEvents
    attempts: Attempts
    schedule: Schedule
    control: Control
    leases: Leases
    budgets: Budgets
    memory: Memory
    reviews: Reviews
    replays: Replays
    retention: Retention
    reconciliation: Reconciliation
    counters: Counters
    metrics: Metrics
    upstream: UpstreamClient
    receiver: Receiver


@asynccontextmanager
async def open_services(settings: Settings, *, part: str | None = None) -> AsyncIterator[Services]:
    """The services of one process, closed at the end. Waits for no connection yet.

    A `part` (api, worker, scheduler) says as long as it lives which encryption keys it holds.
    Raises SettingsError where a setting that only the service needs is missing.
    """
    if settings.redis_url is None:
        raise SettingsError(
            "COURSEWIRE_REDIS_URL is not set: name the Redis or Valkey server to use, "
            "or start everything with `coursewire up`, which brings its own"
        )
    redis = open_async(settings.redis_url)
    guard = AddressGuard(settings.allowed_targets)
    try:
        async with open_outbound(settings, guard) as client:
            services = assemble(settings, redis, guard, UpstreamClient(client), Receiver(client))
            try:
                async with _announced(services, part):
                    yield services
            finally:
                await services.tail.close()
    finally:
        await redis.aclose()


def open_outbound(settings: Settings, guard: AddressGuard) -> OutboundClient:
    """The client for pushes, polls and checks as the settings want it. Raises SettingsError."""
    proxy = None if settings.egress_proxy is None else read_egress_proxy(settings.egress_proxy)
    return open_client(guard, routes=Routes(proxy, settings.no_proxy), ca_file=settings.ca_file)


@asynccontextmanager
async def _announced(services: Services, part: str | None) -> AsyncIterator[None]:
    if part is None:
        yield
        return
    name = f"{part} {socket.gethostname()}-{os.getpid()}"
    async with services.processes.announced(name, services.sealer.key_names):
        yield


def assemble(
    settings: Settings,
    redis: Redis,
    guard: AddressGuard,
    upstream: UpstreamClient,
    receiver: Receiver,
) -> Services:
    """The services over connections that are open already."""
    sealer = Sealer(settings.encryption_keys)
    counters = Counters(redis)
    events = EventLog(redis)
    subscriptions = SubscriptionStore(redis, sealer, counters, most=settings.max_subscriptions)
    matchers = Matchers(subscriptions)
    integrations = IntegrationStore(redis, matchers, counters, most=settings.max_integrations)
    outboxes = Outboxes(redis, counters)
    dead = DeadDeliveries(redis)
    outbox_events = OutboxEvents(redis, events)
    schedule = Schedule(redis)
    return Services(
        settings=settings,
        redis=redis,
        rights=Rights(redis),
        sealer=sealer,
        guard=guard,
        credentials=CredentialStore(redis, sealer, matchers, counters),
        integrations=integrations,
        subscriptions=subscriptions,
        shown=ShownSubscriptions(redis),
        backlog=Backlog(redis, events, subscriptions),
        matchers=matchers,
        api_keys=ApiKeys(redis),
        audit=Audit(redis),
        replies=Replies(redis, sealer),
        sealed=SealedValues(redis, sealer),
        processes=Processes(redis),
        catalogue=Catalogue(redis, counters),
        polls=Polls(redis, counters),
        events=events,
        tail=Tail(redis, events),
        outboxes=outboxes,
        dead=dead,
        deaths=Deaths(redis, counters, subscriptions, matchers),
        outbox_events=outbox_events,
        attempts=Attempts(redis, sealer, outbox_events, dead),
        schedule=schedule,
        control=Control(redis),
        leases=Leases(redis),
        budgets=Budgets(redis),
        memory=Memory(redis),
        reviews=Reviews(redis),
        replays=Replays(redis, counters),
        retention=Retention(redis, counters),
        reconciliation=Reconciliation(integrations, subscriptions, outboxes, schedule),
        counters=counters,
        metrics=Metrics(redis),
        upstream=upstream,
        receiver=receiver,
    )
