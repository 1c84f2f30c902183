"""One lane: read it in order, sign, send, record."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    RedisError,
    TimeoutError,  # noqa: A004 - redis's own name
)

from service.clock import now_ms
from service.domain import rate
from service.domain.breaker import Breaker
from service.domain.errors import LeaseLostError, NotFoundError, StaleSubscriptionsError
from service.domain.events import CONTENT_TYPES, render
from service.domain.lane import Entry, Window, place
from service.domain.network import failed_to_connect, fault_is_ours, proves_connection
from service.domain.retry import may_go_early
from service.domain.signing import Signer
from service.domain.subscriptions import Subscription, SubscriptionState, state_of
from service.logs import get_logger
from service.storage.counters import field
from service.storage.lanes import EXPIRED, Due, Failing, LaneChange, Recorded
from service.storage.leases import Lease
from workers.isolation import run_isolated
from workers.judging import Ended, Judgement, Prepared, judge
from workers.process import JobContext

SECRETS_SECONDS = 1.0  # after which the secrets are read again within a turn
STAY_SECONDS = 0.1  # that a job waits for its slowest lane
MAX_LINGERING = 100  # batches that go on without their jobs
TURN_SECONDS = 10.0  # after which a lane is handed back to the schedule
LEASE_MARGIN_MS = 10_000  # beyond the timeout of one attempt
READ = 200  # entries read at once, and retries
PREPARED = 64  # events fetched ahead of being sent, at most ...
PREPARED_BYTES = 1_048_576  # ... and about so much of their bodies
USUAL_BYTES = 16_384  # of a body, until a larger one has been seen
PROBE_CHOICE = 20  # retries among which a probe is chosen
MAX_PAUSE_SECONDS = 1.0  # waited within a turn for the subscription's rate
RECORD_RETRY_SECONDS = 0.2
UNEXPECTED_WAIT_MS = 60_000  # until the next try after an error that nobody foresaw

_log = get_logger("delivery")


async def deliver_batch(context: JobContext, claims: Sequence[tuple[str, int]]) -> None:
    """Drains a batch of lanes concurrently; none of them disturbs another.

    Lanes whose subscribers answer slowly or not at all go on after the job has ended, or a few
    of them would occupy every slot of the worker. Not more of them than it can bear: then the
    job waits, and others are left to other workers.
    """
    lanes = {owned_id: _deliver(context, owned_id, token) for owned_id, token in claims}
    batch = asyncio.create_task(run_isolated(_log, lanes))
    context.lingering.add(batch)
    batch.add_done_callback(context.lingering.discard)
    most = None if len(context.lingering) > MAX_LINGERING else STAY_SECONDS
    done, _ = await asyncio.wait({batch}, timeout=most)
    if done:
        await batch
    else:
        batch.add_done_callback(_log_failure)


def _log_failure(batch: asyncio.Task[None]) -> None:
    """Looks at what the batch ended with, since no job does: each lane has logged its own."""
    if not batch.cancelled() and (error := batch.exception()) is not None:
        _log.error("a batch failed after its job had ended", error=str(error))


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
            await services.lanes.release(lease, "never")
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


class Drain:
    """One turn at one lane."""

    def __init__(self, context: JobContext, lease: Lease, subscription: Subscription) -> None:
        self._context = context
        self._services = context.services
        self._lease = lease
        self._subscription = subscription
        self._receiver = urlsplit(subscription.url).netloc.lower()
        # By chance, so that turns of one attempt each starve neither.
        self._window = Window(retries_first=random.random() < 0.5)
        self._breaker = Breaker()
        self._bucket: rate.Bucket | None = None
        self._tried: dict[str, Failing] = {}  # retries that are ready or out, by position
        self._prepared: deque[Prepared] = deque()
        self._largest = USUAL_BYTES
        self._in_flight: set[asyncio.Task[Ended]] = set()
        self._ended: list[Ended] = []
        self._judging = False  # a failure has ended of which it is not known what follows
        self._recording: asyncio.Task[None] | None = None
        self._clock_offset = 0
        self._start = self._furthest = "-"
        self._scanned_at = 0
        self._exhausted = False
        self._signer = Signer(())
        self._secrets_read_at = 0.0
        self._any_failing = False
        self._next_retry: float = 0  # when the next retry is due that has not been taken up
        self._rate_wait_ms = 0
        self._resumed = self._emptied = b""
        self._version = 0
        self._outdated = False  # the subscription was edited, resumed or emptied: begin anew
        self._headers: dict[str, str] = {}
        self._ends = time.monotonic() + TURN_SECONDS
        self._sent: Counter[str] = Counter()

    async def run(self) -> None:
        """Sends what is due until nothing is, or the turn is over.

        Attempts go on while others are being recorded; a course's next event is not sent
        before its last attempt is.
        """
        started = time.monotonic()
        try:
            await self._open()
            while True:
                await self._prepare()
                await self._refresh_secrets()
                self._send()
                if self._ended and self._recording is None:
                    self._recording = asyncio.create_task(self._record(self._ended))
                    self._ended = []
                waiting: set[asyncio.Task[Any]] = {*self._in_flight}
                if self._recording is not None:
                    waiting.add(self._recording)
                pause = self._pause()
                if waiting:
                    await self._wait(waiting, pause)
                elif pause is None:
                    break
                else:
                    await asyncio.sleep(pause)
            await self._release()
        finally:
            tasks = [*self._in_flight, self._recording] if self._recording else [*self._in_flight]
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
        lane = await self._services.lanes.open(subscription_id)
        self._clock_offset = lane.now - now_ms()
        self._breaker, self._bucket, self._resumed = lane.breaker, lane.bucket, lane.resumed
        self._start = self._furthest = lane.start
        self._emptied = lane.emptied
        self._scanned_at = lane.scanned_at
        self._any_failing = lane.failing > 0
        self._next_retry = 0 if self._any_failing else math.inf
        self._version = lane.version
        self._outdated = lane.subscription != self._subscription

    async def _read_secrets(self) -> None:
        try:
            secrets = await self._services.subscriptions.secrets(self._subscription.id)
        except NotFoundError:
            raise LeaseLostError("the subscription was deleted") from None
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
            or self._outdated
            or state_of(self._subscription) is not SubscriptionState.ACTIVE
            or time.monotonic() >= self._ends
            or self._breaker.ready_at > self._now_ms()
            # No attempt may outlast the lease under which it began.
            or self._lease.remaining() <= self._subscription.timeout_seconds
        )

    async def _release(self) -> None:
        due, held_ms = self._due()
        unsent = self._window.unsent()
        start = self._start
        if unsent is not None and _place(unsent) < _place(start):
            start = unsent
        if await self._services.lanes.release(
            self._lease,
            due,
            start=start,
            held_ms=held_ms,
            resumed=self._resumed,
            bucket=self._bucket,
            scanned_at=self._scanned_at,
        ):
            await self._context.dispatcher.dispatch_soon("lanes")

    def _due(self) -> tuple[Due, int]:
        """When the lane's next turn is, and how long nothing may wake it."""
        if state_of(self._subscription) is not SubscriptionState.ACTIVE:
            return "never", 0
        held_ms = max(self._breaker.ready_at - self._now_ms(), self._rate_wait_ms)
        if not self._outdated and held_ms > 0:
            return "held", held_ms
        return ("now" if self._prepared or self._must_stop() else "later"), 0

    # --- what to send next ---------------------------------------------------------------

    async def _prepare(self) -> None:
        """Fetches the events that may be sent next, reading on in the lane where needed; no
        further than to have something to do, for most of a lane may wait behind failures."""
        if self._breaker.parked:
            await self._prepare_probe()
            return
        looked = False
        while len(self._prepared) <= self._ahead() // 2 and not self._must_stop():
            await self._read_retries()
            more = False
            if not self._window.first_attempts and not (looked and self._busy()):
                more = looked = await self._read()
            entries = self._take(self._ahead() - len(self._prepared))
            if entries:
                await self._fetch(entries)
            elif not more:
                return

    async def _prepare_probe(self) -> None:
        """Fetches the one event that a parked lane may try: a first attempt, or else a retry,
        of another course than the last probe's where there is one."""
        while not self._prepared and not self._unfinished() and not self._must_stop():
            while not self._window.first_attempts and await self._read():
                if self._must_stop():
                    return
            if not self._window.first_attempts and (chosen := await self._choose_retry()):
                self._tried[chosen.entry.position] = chosen
                self._window.offer_retry(chosen.entry)
            entries = self._take(1)
            if not entries:
                return
            await self._fetch(entries)

    async def _choose_retry(self) -> Failing | None:
        now, schedule = self._now_ms(), self._subscription.retry_schedule_seconds
        found, _ = await self._services.lanes.retries(self._subscription.id, None, PROBE_CHOICE)
        eligible = [
            one for one in found if one.due_at <= now or may_go_early(one.attempts, schedule)
        ]
        others = [one for one in eligible if one.entry.order_key != self._breaker.probed]
        return next(iter(others or eligible), None)

    def _ahead(self) -> int:
        """How many events are worth fetching ahead."""
        per_second = self._subscription.rate_per_second
        most = max(1, min(PREPARED, PREPARED_BYTES // self._largest))
        return most if per_second is None else min(most, 1 + math.ceil(per_second))

    def _unfinished(self) -> bool:
        """Whether attempts are under way or not yet recorded."""
        return bool(self._in_flight or self._ended or self._recording)

    def _busy(self) -> bool:
        return bool(self._prepared or self._in_flight or self._window.retries)

    def _take(self, most: int) -> list[Entry]:
        entries: list[Entry] = []
        while len(entries) < most and (entry := self._window.take()) is not None:
            entries.append(entry)
        return entries

    async def _fetch(self, entries: Sequence[Entry]) -> None:
        events = await self._services.events.get_many([entry.position for entry in entries])
        expired: list[Recorded] = []
        for entry, event in zip(entries, events, strict=True):
            tried = self._tried.get(entry.position)
            attempts, sent, due_at = (
                (tried.attempts, tried.sent, tried.due_at) if tried is not None else (0, 0, 0)
            )
            if event is None:
                expired.append(
                    Recorded(entry=entry, attempts=attempts, sent=sent, result="D", reason=EXPIRED)
                )
            else:
                body = render(event, entry.rendering)
                self._largest = max(self._largest, len(body))
                self._prepared.append(Prepared(entry, event, body, attempts, sent, due_at))
        if expired:
            _log.warning(
                "deliveries dead",
                subscription=self._subscription.id,
                count=len(expired),
                reason=EXPIRED,
            )
            await self._store(
                expired,
                Counter({field("deliveries_total", state="dead"): len(expired)}),
                LaneChange(resumed=self._resumed),
            )
            for one in expired:
                self._tried.pop(one.entry.position, None)
                self._window.settle(one.entry)

    async def _read_retries(self) -> None:
        """Takes up retries that are due, unless there are some; those being recorded may not
        be what they seem."""
        now = self._now_ms()
        if self._window.retries or now < self._next_retry or self._recording is not None:
            return
        found, later = await self._services.lanes.retries(
            self._subscription.id, now, READ + len(self._tried)
        )
        self._next_retry = math.inf if later is None else later
        for one in found:
            if self._tried.setdefault(one.entry.position, one) is one:
                self._window.offer_retry(one.entry)

    async def _read(self) -> bool:
        """Reads on in the lane; False if there is nothing more that could be sent."""
        window = self._window
        if (
            window.rewind is not None
            and self._recording is None
            and (self._exhausted or not self._busy())
        ):
            if _place(window.rewind) < _place(self._start):
                self._start = window.rewind
            window.restart()
            self._exhausted = False
        if self._exhausted:
            return False
        if _place(self._start) < _place(self._furthest) and self._recording is not None:
            return False  # it may settle what would be read: look again once it has
        found = await self._services.lanes.read(self._subscription.id, self._start, READ)
        failing: set[str] = set()
        if self._any_failing:
            courses = list({entry.order_key for entry in found})
            failing = await self._services.lanes.failing(self._subscription.id, courses)
        for entry in found:
            window.offer(entry, failing=entry.order_key in failing)
        if found:
            self._start = f"({found[-1].position}"
            self._furthest = max(self._furthest, self._start, key=_place)
        self._exhausted = len(found) < READ
        return bool(found)

    # --- sending ---------------------------------------------------------------------------

    def _send(self) -> None:
        """Begins as many attempts as may be under way."""
        self._rate_wait_ms = 0
        if self._judging:
            return  # it may have said that nothing more is to come
        most = self._breaker.concurrency(self._subscription.max_concurrency)
        while self._prepared and len(self._in_flight) < most and not self._must_stop():
            self._rate_wait_ms = self._wait_for_token()
            if self._rate_wait_ms:
                return
            self._in_flight.add(asyncio.create_task(self._attempt(self._prepared.popleft())))

    def _wait_for_token(self) -> int:
        """Takes what one attempt uses up of the subscription's rate, or returns the ms to wait."""
        per_second = self._subscription.rate_per_second
        if per_second is None:
            return 0
        now = self._now_ms()
        bucket = rate.full(per_second, now) if self._bucket is None else self._bucket
        self._bucket, wait_ms = rate.take(bucket, per_second, now)
        return wait_ms

    def _pause(self) -> float | None:
        """Seconds to wait for the subscription's rate within this turn."""
        seconds = self._rate_wait_ms / 1000
        return seconds if 0 < seconds <= MAX_PAUSE_SECONDS and not self._must_stop() else None

    async def _wait(self, waiting: set[asyncio.Task[Any]], seconds: float | None) -> None:
        done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        recording = self._recording
        if recording is not None and recording.done():
            await recording
            self._recording = None
        finished = self._in_flight & done
        self._in_flight -= finished
        ended = [task.result() for task in finished]
        self._judging = self._judging or not all(one.outcome.delivered for one in ended)
        self._ended += ended

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
        return Ended(prepared, outcome, at, at + self._clock_offset)

    # --- recording -------------------------------------------------------------------------

    async def _record(self, ended: Sequence[Ended]) -> None:
        own_fault = await self._own_fault(ended)
        judgement = judge(
            self._subscription,
            self._breaker,
            ended,
            now=self._now_ms(),
            own_fault=own_fault,
        )
        was_parked, self._breaker = self._breaker.parked, judgement.breaker
        self._judging = any(not one.outcome.delivered for one in self._ended)
        increments: Counter[str] = Counter()
        for one, recorded in zip(ended, judgement.recorded, strict=True):
            self._sent[one.outcome.kind.value] += 1
            increments[field("attempts_total", outcome=one.outcome.kind)] += 1
            if recorded.result != "R":
                state = "delivered" if recorded.result == "S" else "dead"
                increments[field("deliveries_total", state=state)] += 1
        await self._store_judgement(judgement, increments, ended)
        self._tell(judgement, ended, was_parked=was_parked)
        for recorded in judgement.recorded:
            self._tried.pop(recorded.entry.position, None)
            if recorded.result == "R":
                self._any_failing = True
                self._next_retry = min(self._next_retry, self._now_ms() + recorded.wait_ms)
                self._window.fail(recorded.entry)
            else:
                self._window.settle(recorded.entry)
        if judgement.recovered:
            self._next_retry = 0
        if not self._prepared:
            self._exhausted = False  # what has come in meanwhile is sent in this turn

    async def _own_fault(self, ended: Sequence[Ended]) -> bool:
        """Whether failures to connect are to be put down to our own network."""
        outcomes = [one.outcome for one in ended]
        if any(map(proves_connection, outcomes)) or not any(map(failed_to_connect, outcomes)):
            return False
        unreachable, active = await self._services.lanes.note_unreachable(self._receiver)
        return fault_is_ours(unreachable, active)

    async def _store_judgement(
        self, judgement: Judgement, increments: Counter[str], ended: Sequence[Ended]
    ) -> None:
        reached = any(proves_connection(one.outcome) for one in ended)
        change = LaneChange(
            resumed=self._resumed,
            breaker=judgement.breaker,
            bucket=self._bucket,
            forward=judgement.recovered,
            reached=self._receiver if reached else "",
        )
        reason = judgement.disabled_reason
        if reason is None or reason == self._subscription.disabled_reason:
            await self._store(judgement.recorded, increments, change)
            return
        while True:
            # The place where a subscription becomes disabled.
            try:
                stored, as_read = await self._services.subscriptions.get_with_record(
                    self._subscription.id
                )
            except NotFoundError:
                raise LeaseLostError from None
            disabled = msgspec.structs.replace(
                stored, disabled_reason=reason, updated_at=self._now_ms()
            )
            try:
                await self._store(
                    judgement.recorded,
                    increments,
                    msgspec.structs.replace(
                        change, as_read=as_read, disabled=msgspec.json.encode(disabled)
                    ),
                )
            except StaleSubscriptionsError:
                continue
            if not self._outdated:
                self._subscription = disabled
            return

    async def _store(
        self, recorded: Sequence[Recorded], increments: Counter[str], change: LaneChange
    ) -> None:
        """Records attempts; while Redis is away, for as long as the lease lasts."""
        while True:
            try:
                standing = await self._services.lanes.record(
                    self._lease, recorded, increments, change
                )
            except (ConnectionError, TimeoutError):
                if self._lease.remaining() <= 0:
                    raise LeaseLostError from None
                await asyncio.sleep(RECORD_RETRY_SECONDS)
            else:
                break
        if (standing.resumed, standing.emptied) != (self._resumed, self._emptied):
            self._outdated = True
        elif standing.version != self._version and not change.disabled:
            self._version = standing.version
            (stored,) = await self._services.subscriptions.get_many([self._subscription.id])
            self._outdated = self._outdated or stored != self._subscription

    def _tell(self, judgement: Judgement, ended: Sequence[Ended], *, was_parked: bool) -> None:
        """The place where it is said that a lane's state has changed."""
        log = _log.bind(subscription=self._subscription.id)
        for one, recorded in zip(ended, judgement.recorded, strict=True):
            if recorded.result == "D":
                log.warning(
                    "delivery dead",
                    delivered_event=one.prepared.event.id,
                    reason=recorded.reason,
                )
        if judgement.disabled_reason is not None:
            log.warning("subscription disabled", reason=judgement.disabled_reason)
        elif judgement.breaker.parked and not was_parked:
            log.warning("lane parked", failures=judgement.breaker.failures)
        elif judgement.recovered:
            log.info("lane recovered")


def _place(start: str) -> tuple[int, int]:
    """What starts of reading are compared by; one that leaves its entry out comes after it."""
    if start == "-":
        return (0, 0)
    milliseconds, counter = place(start.removeprefix("("))
    return (milliseconds, counter + start.startswith("("))
