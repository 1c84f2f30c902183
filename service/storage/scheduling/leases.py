"""Leases: the exclusive right to work on an integration or an outbox, with a random token as the
fence."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import count
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from redis import exceptions

from service.domain.errors import LeaseLostError
from service.ids import new_token
from service.logs import get_logger
from service.storage.redis import keys
from service.storage.redis.keys import Key, ScheduleKeys
from service.storage.redis.paging import all_ids
from service.storage.redis.scripts import Script, run

if TYPE_CHECKING:
    from redis.asyncio import Redis

Kind = Literal["polls", "outboxes"]
KINDS: Final[tuple[Kind, ...]] = ("polls", "outboxes")
LEASE_MS: Final = 10_000  # after which other processes take over the work of a dead one
RENEWAL_SECONDS: Final = 2.0  # between renewals of all leases of a process
_AWAY_SECONDS: Final = 0.5  # between attempts while Redis is unreachable
# For a turn to end after its lease was refused: the turn itself may have just returned the lease.
RETURN_SECONDS: Final = 1.0
_BATCH: Final = 500  # leases in one script

_log = get_logger("leases")


class Fence(msgspec.Struct, frozen=True):
    """A lease in the form that scripts compare and extend."""

    key: Key
    token: str
    ms: int


class TakeLease(Script[bool]):
    """Begins work on a claim. Returns nothing for a stale claim or a held lease; a repeated call
    returns the result of the first."""

    schedule: ScheduleKeys
    lease: Fence
    id: str
    claim: int


class HeldLease(Fence, frozen=True):
    """A lease to renew; `id` is the integration or the outbox."""

    id: str


class RenewLeases(Script[list[int]]):
    """Extends leases of one kind, and the claims beneath them. Returns the indexes, from 1, of
    those that are lost."""

    claimed: Key
    leases: Sequence[HeldLease]


class ClaimedWork(msgspec.Struct, frozen=True):
    """Claimed work; `claim` is the claim in a job that a worker has taken, 0 if there is none."""

    lease: Key
    id: str
    claim: int


class ReclaimWork(Script[int]):
    """Makes the work of a dead process due: leases whose token begins with `holder`, and claims
    that a worker has taken and not begun. Returns the number."""

    schedule: ScheduleKeys
    holder: str
    work: Sequence[ClaimedWork]


class DropLease(Script[None]):
    """Returns a lease without work on it, due again after a while or never; does nothing if the
    lease is lost."""

    schedule: ScheduleKeys
    lease: Fence
    id: str
    wait_ms: int | None


class Lease:
    """The right to work on one integration (`polls`) or one outbox (`outboxes`) for a while.

    `token` is compared inside every script that commits under the lease. The local clock counts
    from before the request that obtained the lease, so the lease ends here before it ends in Redis.
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
        """The lease in the form that scripts take."""
        return Fence(self.key, self.token, self.duration_ms)

    def remaining(self) -> float:
        """Seconds until the lease counts as lost."""
        return self.expires - time.monotonic()

    def extended(self, asked_at: float) -> None:
        """Records that a request sent at `asked_at` (monotonic seconds) has extended it."""
        self.expires = max(self.expires, asked_at + self.duration_ms / 1000)


class _Kept:
    """Work under a lease, in the task that enters it. It is cancelled when it `ends` (monotonic
    seconds); then LeaseLostError is raised."""

    def __init__(self, held: dict[Lease, _Kept], lease: Lease) -> None:
        self.ends = lease.expires
        self.cancelled = False
        self._held = held
        self._lease = lease

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in one
        self._task, self._cancelling = task, task.cancelling()
        self._held[self._lease] = self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        del self._held[self._lease]
        if (
            self.cancelled
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise LeaseLostError from None

    def cancel(self) -> None:
        """Cancels the work, once."""
        if not self.cancelled:
            self.cancelled = True
            self._task.cancel()


class Leases:
    """Takes and renews leases."""

    def __init__(self, redis: Redis, instance: str | None = None) -> None:
        self._redis = redis
        self._holder = "" if instance is None else f"{instance} "
        self._token = f"{self._holder}{new_token()} "
        self._numbers = count()
        self._held: dict[Lease, _Kept] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._watched_until = math.inf  # monotonic seconds

    def new(self, kind: Kind, owned_id: str, duration_ms: int = LEASE_MS) -> Lease:
        """A lease for a script to take."""
        return Lease(kind, owned_id, f"{self._token}{next(self._numbers)}", duration_ms)

    async def take(
        self, kind: Kind, owned_id: str, claim: int, duration_ms: int = LEASE_MS
    ) -> Lease | None:
        """Begins work on a claim; None if the claim is stale or a worker holds the lease."""
        lease = self.new(kind, owned_id, duration_ms)
        take = TakeLease(schedule=keys.schedule(kind), lease=lease.fence, id=owned_id, claim=claim)
        taken = await run(self._redis, take)
        return lease if taken else None

    async def drop(self, lease: Lease, wait_ms: int | None) -> None:
        """Returns a lease without work on it; due again in `wait_ms`, or never."""
        drop = DropLease(
            schedule=keys.schedule(lease.kind),
            lease=lease.fence,
            id=lease.owned_id,
            wait_ms=wait_ms,
        )
        await run(self._redis, drop)

    async def give_back(self, lease: Lease, wait_ms: int) -> None:
        """Like `drop`, after Redis was unreachable: it tries until the lease ends, so that the work
        continues soon after Redis is reachable again, and not only when the claim lapses."""
        while lease.remaining() > 0:
            try:
                await self.drop(lease, wait_ms)
            except (exceptions.ConnectionError, exceptions.TimeoutError):
                await asyncio.sleep(_AWAY_SECONDS)
            else:
                return

    def kept(self, lease: Lease) -> AbstractContextManager[None]:
        """Renews a lease while the body runs. If the lease has run out or is lost, cancels the body
        and raises LeaseLostError."""
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew_held())
        self._end_at(lease.expires)
        return _Kept(self._held, lease)

    def _end_at(self, ends: float) -> None:
        """Has work cancelled that ends then. One timer serves all leases of the process."""
        if ends >= self._watched_until:
            return
        if self._watch is not None:
            self._watch.cancel()
        self._watched_until = ends
        delay = max(0.0, ends - time.monotonic())
        self._watch = asyncio.get_running_loop().call_later(delay, self._end_lost)

    def _end_lost(self) -> None:
        now, self._watched_until = time.monotonic(), math.inf
        for kept in self._held.values():
            if kept.ends <= now:
                kept.cancel()
        later = (kept.ends for kept in self._held.values() if kept.ends > now)
        self._end_at(min(later, default=math.inf))

    async def _renew_held(self) -> None:
        """Renews all leases of the process while it has any."""
        try:
            await asyncio.sleep(RENEWAL_SECONDS)
            while self._held:
                try:
                    await self._renew()
                except exceptions.RedisError as error:
                    _log.debug("leases not renewed", leases=len(self._held), error=str(error))
                    await asyncio.sleep(_AWAY_SECONDS)
                else:
                    await asyncio.sleep(RENEWAL_SECONDS)
        finally:
            self._renewing = None

    async def _renew(self) -> None:
        for kind in KINDS:
            held = [lease for lease in self._held if lease.kind == kind]
            for at in range(0, len(held), _BATCH):
                await self._renew_batch(kind, held[at : at + _BATCH])

    async def _renew_batch(self, kind: Kind, held: Sequence[Lease]) -> None:
        asked_at = time.monotonic()
        leases = [HeldLease(one.key, one.token, one.duration_ms, one.owned_id) for one in held]
        lost = await run(self._redis, RenewLeases(claimed=keys.claimed(kind), leases=leases))
        for number, lease in enumerate(held, 1):
            kept = self._held.get(lease)
            if kept is None or kept.cancelled:
                continue
            if number in lost:
                lease.expires = asked_at
                kept.ends = time.monotonic() + RETURN_SECONDS
                self._end_at(kept.ends)
            else:
                lease.extended(asked_at)
                kept.ends = lease.expires

    async def reclaim(self, begun: Mapping[Kind, Mapping[str, int]]) -> int:
        """Makes the work of an earlier, killed process of this instance due, and the claims in
        `begun` (by id, in jobs that workers have taken) without a lease. Returns the number. Call
        it before this process takes a lease."""
        reclaimed = 0
        if not self._holder:  # no process is known to be dead
            return reclaimed
        for kind in KINDS:
            work = [
                ClaimedWork(keys.lease(kind, owned_id), owned_id, begun[kind].get(owned_id, 0))
                for owned_id in await all_ids(self._redis, keys.claimed(kind))
            ]
            for at in range(0, len(work), _BATCH):
                reclaim = ReclaimWork(
                    schedule=keys.schedule(kind), holder=self._holder, work=work[at : at + _BATCH]
                )
                reclaimed += await run(self._redis, reclaim)
        return reclaimed
