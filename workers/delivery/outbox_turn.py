"""The state of one turn on an outbox: its clock, its end, and its parts' results."""

from __future__ import annotations

import asyncio
import time
from functools import lru_cache
from urllib.parse import urlsplit

from service.clock import now_ms
from service.domain.delivery import push_rate as rate
from service.domain.delivery.subscription import Subscription, SubscriptionState, state_of
from service.storage.delivery.outboxes import OpenedOutbox
from service.storage.scheduling.leases import Lease
from workers.delivery.send_permissions import SendPermissions

TURN_SECONDS = 10.0  # after which an outbox is returned to the schedule


@lru_cache(maxsize=4096)
def _receiver(url: str) -> str:
    return urlsplit(url).netloc.lower()


class OutboxTurn:
    """The shared state of a turn's parts. `outdated` means that the subscription was edited,
    resumed or emptied, so that the next turn must start from the beginning; `any_live` and
    `any_replayed` that the queue had entries when attempts were last recorded; `feeding` that a
    replay is being fed; `progress` that an attempt or recording has ended; `released` that the
    outbox is empty and returned to the schedule."""

    def __init__(
        self,
        lease: Lease,
        opened: OpenedOutbox,
        permissions: SendPermissions,
        draining: asyncio.Event,
    ) -> None:
        self.lease = lease
        self.subscription: Subscription = opened.subscription
        self.permissions = permissions
        self.receiver = _receiver(opened.subscription.url)
        self.breaker = opened.breaker
        self.bucket = opened.bucket
        self.resumed = opened.resumed
        self.emptied = opened.emptied
        self.version = opened.version
        self.outdated = False
        self.any_live = self.any_replayed = True
        self.feeding = False
        self.released = False
        self.progress = asyncio.Event()
        self._draining = draining
        self._clock_offset = opened.now - now_ms()
        self._ends = time.monotonic() + TURN_SECONDS

    @property
    def active(self) -> bool:
        """Whether the subscription is active."""
        return state_of(self.subscription) is SubscriptionState.ACTIVE

    @property
    def slots(self) -> int:
        """The maximum number of attempts in flight."""
        return self.breaker.concurrency(self.subscription.max_concurrency)

    def redis_ms(self, local_ms: int | None = None) -> int:
        """The current time by the clock of Redis, as estimated here, or its time at `local_ms`."""
        return (now_ms() if local_ms is None else local_ms) + self._clock_offset

    def is_over(self) -> bool:
        """Whether the turn's time is up."""
        return time.monotonic() >= self._ends

    def lease_is_over(self) -> bool:
        """Whether the lease has run out, or was refused."""
        return self.lease.remaining() <= 0

    def must_stop(self) -> bool:
        """Whether no more attempts may begin in this turn."""
        return (
            self._draining.is_set()
            or self.outdated
            or self.permissions.paused
            or not self.active
            # No other worker can send while the turn waits for a replay's upstream request.
            or (self.is_over() and not self.feeding)
            or self.breaker.ready_at > self.redis_ms()
            or self.lease_is_over()
        )

    def take_token(self) -> int:
        """Takes one attempt from the subscription's rate, or returns the ms to wait."""
        per_second = self.subscription.rate_per_second
        if per_second is None:
            return 0
        now = self.redis_ms()
        bucket = rate.full(per_second, now) if self.bucket is None else self.bucket
        self.bucket, wait_ms = rate.take(bucket, per_second, now)
        return wait_ms
