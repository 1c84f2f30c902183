"""Settings -> Services: the only module that connects the parts."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from redis.asyncio import Redis

from service.clients.address_guard import AddressGuard
from service.clients.transport import OutboundClient, open_client
from service.clients.upstream import UpstreamClient
from service.clients.webhook_sender import Receiver
from service.domain.egress.routes import Routes, read_egress_proxy
from service.domain.errors import SettingsError
from service.settings import Settings
from service.storage.delivery.attempts import Attempts
from service.storage.delivery.dead_letters import DeadLetters
from service.storage.delivery.deliveries import Deliveries
from service.storage.delivery.outboxes import Outboxes
from service.storage.delivery.retries import Retries
from service.storage.delivery.subscription_summary import SubscriptionSummaries
from service.storage.events.event_bodies import EventBodies
from service.storage.events.event_log import EventLog
from service.storage.events.log_follower import Tail
from service.storage.events.lookup import OutboxEvents
from service.storage.observability.exposition import Metrics
from service.storage.observability.history import History
from service.storage.polling.budgets import Budgets
from service.storage.polling.catalogue import Catalogue
from service.storage.polling.courses import Courses
from service.storage.polling.poll_turns import Polls
from service.storage.polling.reviews import Reviews
from service.storage.redis.client import open_async
from service.storage.redis.counters import Counters
from service.storage.redis.memory import Memory
from service.storage.redis.rights import Rights
from service.storage.registry.credentials import CredentialStore
from service.storage.registry.integrations import IntegrationStore
from service.storage.registry.matcher_cache import Matchers
from service.storage.registry.subscriptions import SubscriptionStore
from service.storage.replay.initial_fill import Backlog
from service.storage.replay.replays import Replays
from service.storage.scheduling.leases import Leases
from service.storage.scheduling.pause import Control
from service.storage.scheduling.schedule import Schedule
from service.storage.security.api_keys import ApiKeys
from service.storage.security.audit import Audit
from service.storage.security.encrypted_values import EncryptedValues
from service.storage.security.encryption import Encryptor
from service.storage.security.idempotency import Replies
from service.storage.security.key_holders import Process, Processes
from service.storage.upkeep.dead_letter_notices import DeadLetterNotices
from service.storage.upkeep.reconciliation import Reconciliation
from service.storage.upkeep.retention import Retention


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The stores and clients that the API and the workers share."""

    settings: Settings
    redis: Redis
    rights: Rights
    encryptor: Encryptor
    guard: AddressGuard
    credentials: CredentialStore
    integrations: IntegrationStore
    subscriptions: SubscriptionStore
    summaries: SubscriptionSummaries
    backlog: Backlog
    matchers: Matchers
    api_keys: ApiKeys
    audit: Audit
    replies: Replies
    encrypted: EncryptedValues
    processes: Processes
    catalogue: Catalogue
    courses: Courses
    polls: Polls
    events: EventLog
    tail: Tail
    outboxes: Outboxes
    dead: DeadLetters
    dead_letter_notices: DeadLetterNotices
    bodies: EventBodies
    attempts: Attempts
    deliveries: Deliveries
    retries: Retries
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
    history: History
    upstream: UpstreamClient
    receiver: Receiver


@asynccontextmanager
async def open_services(settings: Settings, *, part: str | None = None) -> AsyncIterator[Services]:
    """The services of one process, closed at the end. It does not wait for a connection.

    A `part` (api, worker, scheduler) is registered with its keys and allowed targets. Raises
    SettingsError if a setting that only the service needs is missing.
    """
    if settings.redis_url is None:
        raise SettingsError(
            "COURSEWIRE_REDIS_URL is not set: set it to a Redis or Valkey server, or start "
            "everything with `coursewire up`, which includes one"
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
    process = Process(
        f"{part} {socket.gethostname()}-{os.getpid()}",
        services.encryptor.key_names,
        services.settings.allowed_targets,
    )
    async with services.processes.announced(process):
        yield


def assemble(
    settings: Settings,
    redis: Redis,
    guard: AddressGuard,
    upstream: UpstreamClient,
    receiver: Receiver,
) -> Services:
    """The services over open connections."""
    encryptor = Encryptor(settings.encryption_keys)
    counters = Counters(redis)
    events = EventLog(redis)
    subscriptions = SubscriptionStore(redis, encryptor, counters, most=settings.max_subscriptions)
    matchers = Matchers(subscriptions)
    integrations = IntegrationStore(redis, matchers, counters, most=settings.max_integrations)
    outboxes = Outboxes(redis, counters)
    outbox_events = OutboxEvents(redis, events)
    attempts = Attempts(redis, encryptor)
    schedule = Schedule(redis)
    catalogue = Catalogue(redis, counters)
    return Services(
        settings=settings,
        redis=redis,
        rights=Rights(redis),
        encryptor=encryptor,
        guard=guard,
        credentials=CredentialStore(redis, encryptor, matchers, counters),
        integrations=integrations,
        subscriptions=subscriptions,
        summaries=SubscriptionSummaries(redis),
        backlog=Backlog(redis, events, subscriptions),
        matchers=matchers,
        api_keys=ApiKeys(redis),
        audit=Audit(redis),
        replies=Replies(redis, encryptor),
        encrypted=EncryptedValues(redis, encryptor),
        processes=Processes(redis),
        catalogue=catalogue,
        courses=Courses(redis, catalogue),
        polls=Polls(redis, counters),
        events=events,
        tail=Tail(redis, events),
        outboxes=outboxes,
        dead=DeadLetters(redis),
        dead_letter_notices=DeadLetterNotices(redis, counters, subscriptions, matchers),
        bodies=EventBodies(events, outbox_events, counters),
        attempts=attempts,
        deliveries=Deliveries(redis, attempts, outbox_events),
        retries=Retries(redis),
        schedule=schedule,
        control=Control(redis),
        leases=Leases(redis, settings.instance),
        budgets=Budgets(redis),
        memory=Memory(redis),
        reviews=Reviews(redis),
        replays=Replays(redis, counters),
        retention=Retention(redis, counters),
        reconciliation=Reconciliation(integrations, subscriptions, outboxes, schedule),
        counters=counters,
        metrics=Metrics(redis),
        history=History(redis, counters),
        upstream=upstream,
        receiver=receiver,
    )
