"""One lane: read it in order, sign, send, record."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Sequence

import msgspec
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    RedisError,
    TimeoutError,  # noqa: A004 - redis's own name
)

from service.clock import now_ms
from service.domain.errors import LeaseLostError, NotFoundError
from service.domain.events import CONTENT_TYPES, StoredEvent, render
from service.domain.lane import Entry, Window
from service.domain.retry import Outcome, OutcomeClass, next_delay
from service.domain.signing import Signer
from service.domain.subscriptions import Subscription, SubscriptionState, state_of
from service.logs import get_logger
from service.storage.attempts import Attempt
from service.storage.counters import field
from service.storage.lanes import EXPIRED, Due, Recorded, Result
from service.storage.leases import Lease
from workers.isolation import run_isolated
from workers.process import JobContext

SECRETS_SECONDS = 1.0  # after which the secrets are read again within a turn
TURN_SECONDS = 10.0  # after which a lane is handed back to the schedule
LEASE_MARGIN_MS = 10_000  # beyond the timeout of one attempt
READ = 200  # entries read at once
PREPARED = 64  # events fetched ahead of being sent
RECORD_RETRY_SECONDS = 0.2
UNEXPECTED_WAIT_MS = 60_000  # until the next try after an error that nobody foresaw

_log = get_logger("delivery")


async def deliver_batch(context: JobContext, claims: Sequence[tuple[str, int]]) -> None:
    """Drains a batch of lanes concurrently; none of them disturbs another."""
    await run_isolated(
        _log, {owned_id: _deliver(context, owned_id, token) for owned_id, token in claims}
    )


async def _deliver(context: JobContext, subscription_id: str, claim: int) -> None:
    services = context.services
    (subscription,) = await services.subscriptions.get_many([subscription_id])
    timeout = subscription.timeout_seconds if subscription is not None else 0
    lease_ms = int(timeout * 1000) + LEASE_MARGIN_MS
    lease = await services.leases.take("lanes", subscription_id, claim, lease_ms)
    if lease is None:
        return
    async with services.leases.kept(lease):
        if subscription is None:
            await services.leases.drop(lease, None)
            return
        if state_of(subscription) is not SubscriptionState.ACTIVE:
            await services.lanes.release(lease, None, "never")
            # One resumed while it was claimed could not be woken then.
            (now,) = await services.subscriptions.get_many([subscription_id])
            if now is not None and state_of(now) is SubscriptionState.ACTIVE:
                await services.schedule.wake("lanes", subscription_id)
            return
        drain = Drain(context, lease, subscription)
        try:
            await drain.run()
        except LeaseLostError as error:
            _log.info("lane given up", subscription=subscription_id, reason=str(error))
        except RedisError:
            raise  # the claim lapses
        except Exception:  # whatever it is, it must not come back at once; the job shows it
            await services.leases.drop(lease, UNEXPECTED_WAIT_MS)
            raise


class Prepared(msgspec.Struct, frozen=True):
    """An entry with everything that one attempt needs, but for the time and the signature."""

    entry: Entry
    event: StoredEvent
    body: bytes


Ended = tuple[Prepared, Outcome, int]  # what was sent, what came of it, and when (epoch ms)


class Drain:
    """One turn at one lane."""

    def __init__(self, context: JobContext, lease: Lease, subscription: Subscription) -> None:
        self._context = context
        self._services = context.services
        self._lease = lease
        self._subscription = subscription
        self._window = Window()
        self._attempts: dict[str, int] = {}
        self._prepared: deque[Prepared] = deque()
        self._recording: asyncio.Task[None] | None = None
        self._clock_offset = 0
        self._cursor: str | None = None
        self._exhausted = False
        self._signer = Signer(())
        self._secrets_read_at = 0.0
        self._paused = False
        self._headers: dict[str, str] = {}
        self._ends = time.monotonic() + TURN_SECONDS
        self._sent: Counter[str] = Counter()

    async def run(self) -> None:
        """Sends what is due until nothing is, or the turn is over.

        Attempts go on while others are being recorded; a course's next event is not sent
        before its last attempt is.
        """
        started = time.monotonic()
        in_flight: set[asyncio.Task[Ended]] = set()
        ended: list[Ended] = []
        try:
            await self._open()
            while True:
                if not self._must_stop():
                    await self._prepare(busy=bool(in_flight))
                    await self._refresh_secrets()
                    while (
                        self._prepared
                        and not self._paused
                        and len(in_flight) < self._subscription.max_concurrency
                    ):
                        in_flight.add(asyncio.create_task(self._attempt(self._prepared.popleft())))
                if ended and self._recording is None:
                    self._recording = asyncio.create_task(self._record(ended))
                    ended = []
                waiting = {self._recording, *in_flight} if self._recording else in_flight
                if not waiting:
                    break
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if self._recording in done:
                    await self._recording
                    self._recording = None
                finished = in_flight & done
                in_flight -= finished
                ended += [task.result() for task in finished]
            await self._release("now" if self._prepared or self._must_stop() else "later")
        finally:
            tasks = [*in_flight, self._recording] if self._recording else [*in_flight]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            _log.info(
                "drain",
                subscription=self._subscription.id,
                outcomes=dict(self._sent),
                seconds=round(time.monotonic() - started, 3),
            )

    async def _open(self) -> None:
        subscription_id = self._subscription.id
        await self._read_secrets()
        self._headers = await self._services.subscriptions.headers(subscription_id)
        self._clock_offset = await self._services.lanes.now_ms() - now_ms()
        for one in await self._services.lanes.failing(subscription_id):
            self._attempts[one.entry.position] = one.attempts
            self._window.offer_failing(one.entry, one.due_at)

    async def _read_secrets(self) -> None:
        try:
            secrets = await self._services.subscriptions.secrets(self._subscription.id)
        except NotFoundError:
            raise LeaseLostError("the subscription was deleted") from None
        self._paused = await self._services.control.is_paused("delivery")
        self._signer = Signer(secrets)
        self._secrets_read_at = time.monotonic()

    async def _refresh_secrets(self) -> None:
        """Notices a secret that was revoked during the turn."""
        if time.monotonic() - self._secrets_read_at < SECRETS_SECONDS:
            return
        try:
            await self._read_secrets()
        except (ConnectionError, TimeoutError):  # without Redis nothing is revoked either
            self._secrets_read_at = time.monotonic()

    def _now_ms(self) -> int:
        """The present by the clock of Redis, as far as it is known here."""
        return now_ms() + self._clock_offset

    def _must_stop(self) -> bool:
        return (
            self._context.draining.is_set()
            or self._paused
            or time.monotonic() >= self._ends
            # No attempt may outlast the lease under which it began.
            or self._lease.remaining() <= self._subscription.timeout_seconds
        )

    async def _release(self, due: Due) -> None:
        looked_at = "+" if self._window.full else self._cursor
        if await self._services.lanes.release(self._lease, looked_at, due):
            await self._context.dispatcher.dispatch("lanes")

    # --- what to send next ---------------------------------------------------------------

    async def _prepare(self, *, busy: bool) -> None:
        """Fetches the events that may be sent next, reading on in the lane where needed; no
        further than to have something to do, for most of a lane may wait behind failures."""
        read = False
        while len(self._prepared) <= PREPARED // 2 and not self._must_stop():
            entries = self._take(PREPARED - len(self._prepared))
            if entries:
                await self._fetch(entries)
            elif (read and (busy or self._prepared)) or not await self._read():
                return
            else:
                read = True

    def _take(self, most: int) -> list[Entry]:
        entries: list[Entry] = []
        now = self._now_ms()
        while len(entries) < most and (entry := self._window.take(now)) is not None:
            entries.append(entry)
        return entries

    async def _fetch(self, entries: Sequence[Entry]) -> None:
        events = await self._services.events.get_many([entry.position for entry in entries])
        expired: list[Recorded] = []
        for entry, event in zip(entries, events, strict=True):
            if event is None:
                expired.append(self._expired(entry))
            else:
                self._prepared.append(Prepared(entry, event, render(event, entry.rendering)))
        if expired:
            _log.warning(
                "deliveries dead",
                subscription=self._subscription.id,
                count=len(expired),
                reason=EXPIRED,
            )
            await self._store(
                expired, Counter({field("deliveries_total", state="dead"): len(expired)})
            )
            for one in expired:
                self._window.settle(one.entry)

    async def _read(self) -> bool:
        """Reads on in the lane; False if there is nothing more that could be sent."""
        if self._window.reread:
            if self._recording is not None:
                return False  # it may settle what would be read: look again once it has
            self._window.restart()
            self._cursor, self._exhausted = None, False
        if self._exhausted or self._window.full:
            return False
        found = await self._services.lanes.read(self._subscription.id, self._cursor, READ)
        for entry in found:
            self._window.offer(entry)
        if found:
            self._cursor = found[-1].position
        self._exhausted = len(found) < READ
        return bool(found)

    # --- one attempt ---------------------------------------------------------------------

    async def _attempt(self, prepared: Prepared) -> Ended:
        if self._lease.remaining() <= self._subscription.timeout_seconds:
            raise LeaseLostError
        at = now_ms()
        headers = {
            **self._headers,
            "content-type": CONTENT_TYPES[prepared.entry.rendering.format],
            **self._signer.headers(prepared.event.id, at, prepared.body),
        }
        outcome = await self._services.receiver.post(
            self._subscription.url,
            headers,
            prepared.body,
            timeout=self._subscription.timeout_seconds,
        )
        return prepared, outcome, at

    async def _record(self, ended: Sequence[Ended]) -> None:
        increments: Counter[str] = Counter()
        recorded: list[Recorded] = []
        for prepared, outcome, at in ended:
            one = self._judge(prepared, outcome, at)
            recorded.append(one)
            self._sent[outcome.kind.value] += 1
            increments[field("attempts_total", outcome=outcome.kind)] += 1
            if one.result != "R":
                state = "delivered" if one.result == "S" else "dead"
                increments[field("deliveries_total", state=state)] += 1
        await self._store(recorded, increments)
        for (prepared, _, _), one in zip(ended, recorded, strict=True):
            if one.result == "D":
                _log.warning(
                    "delivery dead",
                    subscription=self._subscription.id,
                    delivered_event=prepared.event.id,
                    reason=one.reason,
                )
        for one in recorded:
            if one.result == "R":
                self._attempts[one.entry.position] = one.attempts
                self._window.retry(one.entry, self._now_ms() + one.wait_ms)
            else:
                self._attempts.pop(one.entry.position, None)
                self._window.settle(one.entry)
        if not self._prepared:
            self._exhausted = False  # what has come in meanwhile is sent in this turn

    def _judge(self, prepared: Prepared, outcome: Outcome, at: int) -> Recorded:
        entry = prepared.entry
        attempts = self._attempts.get(entry.position, 0) + 1
        delay = None
        if not outcome.delivered:
            delay = next_delay(
                outcome,
                attempts,
                self._subscription.retry_schedule_seconds,
                random.random(),
            )
        wait_ms = 0 if delay is None else int(delay * 1000)
        result: Result = "S" if outcome.delivered else "D" if delay is None else "R"
        attempt = Attempt(
            event_id=prepared.event.id,
            number=attempts,
            at=at,
            outcome=outcome.kind.value,
            duration_ms=outcome.duration_ms,
            status=outcome.status,
            connect_ms=outcome.connect_ms,
            first_byte_ms=outcome.first_byte_ms,
            error=outcome.error,
            excerpt=outcome.excerpt.decode("utf-8", "replace"),
            next_attempt_at=at + outcome.duration_ms + wait_ms if result == "R" else None,
        )
        return Recorded(
            entry=entry,
            attempts=attempts,
            result=result,
            wait_ms=wait_ms,
            reason=_reason(outcome, attempts) if result == "D" else "",
            record=msgspec.json.encode(attempt),
        )

    def _expired(self, entry: Entry) -> Recorded:
        return Recorded(
            entry=entry,
            attempts=self._attempts.get(entry.position, 0),
            result="D",
            reason=EXPIRED,
        )

    async def _store(self, recorded: Sequence[Recorded], increments: Counter[str]) -> None:
        """Records attempts; while Redis is away, for as long as the lease lasts."""
        while True:
            try:
                await self._services.lanes.record(self._lease, recorded, increments)
            except (ConnectionError, TimeoutError):
                if self._lease.remaining() <= 0:
                    raise LeaseLostError from None
                await asyncio.sleep(RECORD_RETRY_SECONDS)
            else:
                return


def _reason(outcome: Outcome, attempts: int) -> str:
    last = f"status {outcome.status}" if outcome.kind is OutcomeClass.STATUS else outcome.kind
    return f"{attempts} attempts failed, the last with {last}"
