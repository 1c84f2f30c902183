"""Leases: who is at work on an integration or an outbox, with a random token as the fence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import msgspec

from service.ids import new_token
from service.storage.redis import keys
from service.storage.redis.keys import Key, ScheduleKeys
from service.storage.redis.scripts import Script, run

if TYPE_CHECKING:
    from redis.asyncio import Redis

from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004 - redis's own names

Kind = Literal["polls", "outboxes"]
POLL_LEASE_MS = 15_000
OUTBOX_LEASE_MARGIN_MS = 10_000  # beyond the timeout of one attempt
_RENEWALS = 5  # renewals within the duration of a lease
_GIVE_BACK_SECONDS = 0.5  # between attempts while Redis is away


class Fence(msgspec.Struct, frozen=True):
    """A lease as scripts compare and extend it."""

    key: Key
    token: str
    ms: int


class TakeLease(Script[bool]):
    """Begins work on something claimed. A stale claim, or a lease that is held, gives nothing; a
    repeated call gives what the first gave."""

    schedule: ScheduleKeys
    lease: Fence
    id: str
    claim: int


class RenewLease(Script[None]):
    """Extends a lease, and the claim beneath it. Refuses with LEASE."""

    schedule: ScheduleKeys
    lease: Fence
    id: str


class DropLease(Script[None]):
    """Gives back something that is not to be worked on, due again after a while or not at all; does
    nothing if the lease is not ours."""

    schedule: ScheduleKeys
    lease: Fence
    id: str
    wait_ms: int | None


class Lease:
    """The right to work on one integration (`polls`) or one outbox (`outboxes`) for a while.

    `token` is compared inside every script that commits under the lease. The local clock
    counts from before the request that obtained it, so it runs out here before it does there.
    """

    def __init__(self, kind: Kind, owned_id: str, token: str, duration_ms: int) -> None:
        self.kind = kind
        self.owned_id = owned_id
        self.token = token
        self.duration_ms = duration_ms
        self.expires = time.monotonic() + duration_ms / 1000

    @property
    def key(self) -> Key:
        """The Redis key that holds the token."""
        return keys.lease(self.kind, self.owned_id)

    @property
    def fence(self) -> Fence:
        """The lease as scripts take it."""
        return Fence(self.key, self.token, self.duration_ms)

    def remaining(self) -> float:
        """Seconds until it must be taken as lost."""
        return self.expires - time.monotonic()

    def extended(self, asked_at: float) -> None:
        """Notes that a request sent at `asked_at` (monotonic seconds) has extended it."""
        self.expires = max(self.expires, asked_at + self.duration_ms / 1000)


class Leases:
    """Takes and renews leases."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def take(self, kind: Kind, owned_id: str, claim: int, duration_ms: int) -> Lease | None:
        """Begins work on a claim; None if the claim is stale or somebody is at work."""
        lease = Lease(kind, owned_id, new_token(), duration_ms)
        take = TakeLease(schedule=keys.schedule(kind), lease=lease.fence, id=owned_id, claim=claim)
        taken = await run(self._redis, take)
        return lease if taken else None

    async def renew(self, lease: Lease) -> None:
        """Extends a lease. Raises LeaseLostError if it is no longer ours."""
        asked_at = time.monotonic()
        schedule = keys.schedule(lease.kind)
        await run(self._redis, RenewLease(schedule=schedule, lease=lease.fence, id=lease.owned_id))
        lease.extended(asked_at)

    async def drop(self, lease: Lease, wait_ms: int | None) -> None:
        """Gives a lease back without having worked; due again in `wait_ms`, or never."""
        drop = DropLease(
            schedule=keys.schedule(lease.kind),
            lease=lease.fence,
            id=lease.owned_id,
            wait_ms=wait_ms,
        )
        await run(self._redis, drop)

    async def give_back(self, lease: Lease, wait_ms: int) -> None:
        """Like `drop`, by one that Redis has failed: tries for as long as the lease lasts, so that
        the work goes on soon after Redis is back instead of when the claim has lapsed."""
        while lease.remaining() > 0:
            try:
                await self.drop(lease, wait_ms)
            except (ConnectionError, TimeoutError):
                await asyncio.sleep(_GIVE_BACK_SECONDS)
            else:
                return

    @asynccontextmanager
    async def kept(self, lease: Lease) -> AsyncIterator[None]:
        """Renews a lease in the background while the body runs.

        A renewal that fails is tried again until the lease has run out; the body finds that
        out from its own commits and from `Lease.remaining`.
        """
        keeper = asyncio.create_task(self._keep(lease))
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep(self, lease: Lease) -> None:
        interval = lease.duration_ms / 1000 / _RENEWALS
        while True:
            await asyncio.sleep(interval)
            try:
                await self.renew(lease)
            except (ConnectionError, TimeoutError):
                continue
