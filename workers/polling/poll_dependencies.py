"""The stores and clients of the process that polls use."""

from __future__ import annotations

import asyncio

import msgspec

from service.clients.upstream import UpstreamClient
from service.storage.polling.budgets import Budgets
from service.storage.polling.catalogue import Catalogue
from service.storage.polling.poll_turns import Polls
from service.storage.polling.reviews import Reviews
from service.storage.redis.memory import Memory
from service.storage.registry.credentials import CredentialStore
from service.storage.registry.integrations import IntegrationStore
from service.storage.registry.matcher_cache import Matchers
from service.storage.scheduling.leases import Leases
from service.storage.scheduling.pause import Control
from service.storage.scheduling.schedule import Schedule
from workers.context import JobContext
from workers.dispatch.dispatcher import Dispatcher


class PollResources(msgspec.Struct, frozen=True, kw_only=True):
    """The dependencies of a poll's turn. `draining` is set when the process stops."""

    integrations: IntegrationStore
    credentials: CredentialStore
    schedule: Schedule
    leases: Leases
    control: Control
    memory: Memory
    budgets: Budgets
    upstream: UpstreamClient
    catalogue: Catalogue
    polls: Polls
    reviews: Reviews
    matchers: Matchers
    dispatcher: Dispatcher
    draining: asyncio.Event

    @classmethod
    def of(cls, context: JobContext) -> PollResources:
        """The dependencies from those of a job."""
        services = context.services
        return cls(
            integrations=services.integrations,
            credentials=services.credentials,
            schedule=services.schedule,
            leases=services.leases,
            control=services.control,
            memory=services.memory,
            budgets=services.budgets,
            upstream=services.upstream,
            catalogue=services.catalogue,
            polls=services.polls,
            reviews=services.reviews,
            matchers=services.matchers,
            dispatcher=context.dispatcher,
            draining=context.draining,
        )
