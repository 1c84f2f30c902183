"""One outbox: read it in order, sign, send, record."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    RedisError,
    TimeoutError,  # noqa: A004 - redis's own name
)

from service.clock import now_ms
from service.domain.access.grants import NOTHING, Grant
from service.domain.access.redaction import Redactor
from service.domain.access.signing import Signer, SigningSecret
from service.domain.delivery.circuit_breaker import Breaker
from service.domain.delivery.connectivity import failed_to_connect, fault_is_ours, proves_connection
from service.domain.delivery.fair_share import Mix
from service.domain.delivery.outbox_window import Entry
from service.domain.delivery.subscription import Subscription, SubscriptionState, state_of
from service.domain.egress.certificates import ClientCertificate
from service.domain.errors import LeaseLostError, NotFoundError, StaleSubscriptionsError
from service.domain.events.event import CONTENT_TYPES, rfc3339
from service.domain.events.identifiers import position_ms
from service.domain.events.operational import Announcement, When, of_subscription
from service.domain.observability.metrics import ATTEMPT_DURATION, count, count_delivery
from service.domain.polling import token_bucket as rate
from service.logs import get_logger
from service.storage.delivery.outbox_scripts import Due
from service.storage.delivery.outboxes import OutboxChange, Queue, Recorded
from service.storage.events.operational import Notices
from service.storage.redis.counters import field
from service.storage.scheduling.leases import Lease
from workers.context import JobContext
from workers.delivery.attempt_verdict import Ended, Judgement, Prepared, judge
from workers.delivery.queue_reader import Sender, Track
from workers.delivery.replay_feed import Feeder
from workers.isolated_batch import run_isolated

SECRETS_SECONDS = 1.0  # after which the secrets are read again within a turn
STAY_SECONDS = 0.1  # that a job waits for its slowest outbox
MAX_LINGERING = 100  # batches that go on without their jobs
TURN_SECONDS = 10.0  # after which an outbox is handed back to the schedule
AWAY_WAIT_MS = 1_000  # until an outbox that Redis has failed goes on, once Redis is back
LEASE_MARGIN_MS = 10_000  # beyond the timeout of one attempt
FEEDING_LOOK_SECONDS = 0.5  # while a replay waits for the upstream, until the outbox is looked at
MAX_PAUSE_SECONDS = 1.0  # waited within a turn for the subscription's rate
RECORD_RETRY_SECONDS = 0.2
REPLAY_HEADERS = {"coursewire-replay": "true"}
UNEXPECTED_WAIT_MS = 60_000  # until the next try after an error that nobody foresaw

_log = get_logger("delivery")

Answer = TypeVar("Answer")


async def deliver_batch(context: JobContext, claims: Sequence[tuple[str, int]]) -> None:
    """Drains a batch of outboxes concurrently; none of them disturbs another.

    Outboxes whose subscribers answer slowly or not at all go on after the job has ended, or a few
    of them would occupy every slot of the worker. Not more of them than it can bear: then the
    job waits, and others are left to other workers.
    """
    try:
        found = await context.services.subscriptions.get_many([owned_id for owned_id, _ in claims])
    except (ConnectionError, TimeoutError) as error:  # the claims lapse
        _log.warning("redis is away", outboxes=len(claims), error=str(error))
        return
    outboxes = {
        owned_id: _deliver(context, owned_id, token, subscription)
        for (owned_id, token), subscription in zip(claims, found, strict=True)
    }
    batch = asyncio.create_task(run_isolated(_log, outboxes))
    context.lingering.add(batch)
    batch.add_done_callback(context.lingering.discard)
    most = None if len(context.lingering) > MAX_LINGERING else STAY_SECONDS
    done, _ = await asyncio.wait({batch}, timeout=most)
    if done:
        await batch
    else:
        batch.add_done_callback(_log_failure)


def _log_failure(batch: asyncio.Task[None]) -> None:
    """Looks at what the batch ended with, since no job does: each outbox has logged its own."""
    if not batch.cancelled() and (error := batch.exception()) is not None:
        _log.error("a batch failed after its job had ended", error=str(error))


async def _deliver(
    context: JobContext, subscription_id: str, claim: int, subscription: Subscription | None
) -> None:
    services = context.services
    timeout = subscription.timeout_seconds if subscription is not None else 0
    lease_ms = int(timeout * 1000) + LEASE_MARGIN_MS
    lease = await services.leases.take("outboxes", subscription_id, claim, lease_ms)
    if lease is None:
        return
    async with services.leases.kept(lease):
        if subscription is None:
            await services.leases.drop(lease, None)
            return
        if state_of(subscription) is not SubscriptionState.ACTIVE:
            await services.outboxes.release(lease, "never")
            await _wake_if_resumed(context, subscription_id)
            return
        drain = Drain(context, lease, subscription)
        try:
            await drain.run()
        except LeaseLostError as error:
            _log.info("outbox given up", subscription=subscription_id, reason=str(error))
        except (ConnectionError, TimeoutError):
            await services.leases.give_back(lease, AWAY_WAIT_MS)
            raise
        except RedisError:
            raise  # the claim lapses
        except Exception:  # whatever it is, it must not come back at once; the job shows it
            await services.leases.drop(lease, UNEXPECTED_WAIT_MS)
            raise


async def _wake_if_resumed(context: JobContext, subscription_id: str) -> None:
    """One resumed while it was claimed could not be woken then."""
    services = context.services
    (now,) = await services.subscriptions.get_many([subscription_id])
    if now is not None and state_of(now) is SubscriptionState.ACTIVE:
        await services.schedule.wake("outboxes", subscription_id)


class Drain:
    """One turn at one outbox."""

    def __init__(self, context: JobContext, lease: Lease, subscription: Subscription) -> None:
        self._context = context
        self._services = context.services
        self._lease = lease
        self._subscription = subscription
        self._receiver = urlsplit(subscription.url).netloc.lower()
        self._live: Track
        self._replayed: Track | None = None
        self._tracks: list[Track] = []
        self._mix = Mix()
        self._feeder: Feeder | None = None
        self._feeding: asyncio.Task[bool] | None = None
        self._breaker = Breaker()
        self._bucket: rate.Bucket | None = None
        self._in_flight: set[asyncio.Task[Ended]] = set()
        self._ended: list[Ended] = []
        self._judging = False  # a failure has ended of which it is not known what follows
        self._recording: asyncio.Task[None] | None = None
        self._clock_offset = 0
        self._scanned_at = self._replayed_scanned_at = 0
        self._signer = Signer(())
        self._redactor = Redactor()
        self._grant: Grant | None = NOTHING
        self._secrets_read_at = 0.0
        self._rate_wait_ms = 0
        self._resumed = self._emptied = b""
        self._version = 0
        self._outdated = False  # the subscription was edited, resumed or emptied: begin anew
        self._paused = False  # deliveries are, all of them
        self._headers: dict[str, str] = {}
        self._certificate: ClientCertificate | None = None
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
                self._feed()
                if self._ended and self._recording is None:
                    self._recording = asyncio.create_task(self._record(self._ended))
                    self._ended = []
                waiting: set[asyncio.Task[Any]] = {*self._in_flight}
                waiting |= {task for task in (self._recording, self._feeding) if task is not None}
                pause = self._pause()
                if self._feeding is not None:
                    pause = min(FEEDING_LOOK_SECONDS, pause or FEEDING_LOOK_SECONDS)
                if waiting:
                    await self._wait(waiting, pause)
                elif pause is None:
                    break
                else:
                    await asyncio.sleep(pause)
            await self._release()
        finally:
            others = (self._recording, self._feeding)
            tasks = [*self._in_flight, *(task for task in others if task is not None)]
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
        subscription_id, subscriptions = self._subscription.id, self._services.subscriptions
        outbox = await self._services.outboxes.open(subscription_id)
        if outbox.subscription is None:
            raise LeaseLostError("the subscription was deleted")
        self._headers = subscriptions.decrypted_headers(subscription_id, outbox.headers)
        self._certificate = subscriptions.decrypted_certificate(
            subscription_id, outbox.client_certificate
        )
        await self._use(subscriptions.decrypted_secrets(subscription_id, outbox.secrets))
        self._clock_offset = outbox.now - now_ms()
        self._breaker, self._bucket, self._resumed = outbox.breaker, outbox.bucket, outbox.resumed
        self._emptied = outbox.emptied
        self._scanned_at = outbox.scanned_at
        self._live = self._track(Queue.LIVE, outbox.start, outbox.failing)
        self._tracks = [self._live]
        if outbox.replayed or outbox.unfed:
            self._replayed = self._track(
                Queue.REPLAYED, outbox.replayed_start, outbox.replayed_failing
            )
            self._replayed_scanned_at = outbox.replayed_scanned_at
            self._tracks.append(self._replayed)
        if outbox.unfed:
            self._feeder = Feeder(self._services, self._lease, self._subscription)
        self._version = outbox.version
        self._outdated = outbox.subscription != self._subscription

    def _track(self, queue: Queue, start: str, failing: int) -> Track:
        sender = Sender(
            now_ms=self._now_ms,
            must_stop=self._must_stop,
            is_recording=lambda: self._recording is not None,
            grant=lambda: self._grant,
            give_up=self._give_up,
        )
        return Track(
            self._services, self._subscription, queue, sender, start=start, failing=failing
        )

    async def _read_secrets(self) -> None:
        try:
            secrets = await self._services.subscriptions.secrets(self._subscription.id)
        except NotFoundError:
            raise LeaseLostError("the subscription was deleted") from None
        await self._use(secrets)

    async def _use(self, secrets: Sequence[SigningSecret]) -> None:
        """Signs with these from now on, and looks at what else may have been revoked."""
        self._paused = await self._services.control.is_paused("delivery")
        self._signer = Signer(secrets)
        self._redactor = Redactor([*(one.secret for one in secrets), *self._headers.values()])
        self._grant = await self._services.api_keys.grant_of(self._subscription.owner)
        self._secrets_read_at = time.monotonic()

    async def _refresh_secrets(self) -> None:
        """Notices a secret, or a grant, that was revoked during the turn."""
        if time.monotonic() - self._secrets_read_at < SECRETS_SECONDS:
            return
        try:
            await self._read_secrets()
        except (ConnectionError, TimeoutError):  # without Redis nothing is revoked either
            self._secrets_read_at = time.monotonic()
            return
        for track in self._tracks:
            await track.withdraw()

    def _now_ms(self) -> int:
        """The present by the clock of Redis, as far as it is known here."""
        return now_ms() + self._clock_offset

    def _is_over(self) -> bool:
        """Whether the turn's time is up."""
        return time.monotonic() >= self._ends

    def _must_stop(self) -> bool:
        return (
            self._context.draining.is_set()
            or self._outdated
            or self._paused
            or state_of(self._subscription) is not SubscriptionState.ACTIVE
            # Nobody else can send while the turn waits for what a replay has asked the upstream.
            or (self._is_over() and self._feeding is None)
            or self._breaker.ready_at > self._now_ms()
            # No attempt may outlast the lease under which it began.
            or self._lease.remaining() <= self._subscription.timeout_seconds
        )

    async def _release(self) -> None:
        due, held_ms = self._due()
        released = await self._services.outboxes.release(
            self._lease,
            due,
            start=self._live.unsent(),
            held_ms=held_ms,
            resumed=self._resumed,
            bucket=self._bucket,
            scanned_at=self._scanned_at,
            feed_ms=0 if self._feeder is None else self._feeder.wait_ms,
            replayed_start="" if self._replayed is None else self._replayed.unsent(),
            replayed_scanned_at=self._replayed_scanned_at,
            emptied=self._emptied,
        )
        if released != "lost" and due == "never":
            await _wake_if_resumed(self._context, self._subscription.id)
        if released == "due" or due == "never":
            await self._context.dispatcher.dispatch_soon("outboxes")

    def _due(self) -> tuple[Due, int]:
        """When the outbox's next turn is, and how long nothing may wake it."""
        if state_of(self._subscription) is not SubscriptionState.ACTIVE:
            return "never", 0
        held_ms = max(self._breaker.ready_at - self._now_ms(), self._rate_wait_ms)
        if not self._outdated and held_ms > 0:
            return "held", held_ms
        return ("now" if self._any_prepared() or self._must_stop() else "later"), 0

    # --- what to send next ---------------------------------------------------------------

    def _track_of(self, entry: Entry) -> Track:
        if not entry.replay:
            return self._live
        if self._replayed is None:
            raise AssertionError("a replayed entry without a track")
        return self._replayed

    async def _prepare(self) -> None:
        """Fetches the events that may be sent next; a parked outbox's probe is a replayed one only
        if there is no other."""
        if not self._breaker.parked:
            for track in self._tracks:
                await track.prepare()
        elif not self._unfinished():
            for track in self._tracks:
                if not self._any_prepared():
                    await track.prepare_probe(self._breaker.probed)

    def _feed(self) -> None:
        """Lets the replay at work go on, once what it has added has been looked at."""
        if (
            self._feeder is not None
            and self._feeding is None
            and self._feeder.ready
            and self._replayed is not None
            and self._replayed.hungry
            and not self._is_over()
            and not self._must_stop()
        ):
            self._feeding = asyncio.create_task(self._feeder.step())

    def _any_prepared(self) -> bool:
        return any(track.prepared for track in self._tracks)

    def _unfinished(self) -> bool:
        """Whether attempts are under way or not yet recorded."""
        return bool(self._in_flight or self._ended or self._recording)

    async def _give_up(self, recorded: Sequence[Recorded], reason: str) -> None:
        """Records deliveries that are dead without an attempt."""
        _log.warning(
            "deliveries dead",
            subscription=self._subscription.id,
            count=len(recorded),
            reason=reason,
        )
        increments = Counter(_ending(one) for one in recorded)
        await self._store(recorded, increments, OutboxChange(resumed=self._resumed))

    # --- sending ---------------------------------------------------------------------------

    def _send(self) -> None:
        """Begins as many attempts as may be under way."""
        self._rate_wait_ms = 0
        if self._judging:
            return  # it may have said that nothing more is to come
        most = self._breaker.concurrency(self._subscription.max_concurrency)
        while len(self._in_flight) < most and not self._must_stop():
            kind = self._mix.choose(
                most,
                live=bool(self._live.prepared),
                replayed=self._replayed is not None and bool(self._replayed.prepared),
                replayed_out=0 if self._replayed is None else self._replayed.in_flight,
            )
            if kind is None:
                return
            self._rate_wait_ms = self._wait_for_token()
            if self._rate_wait_ms:
                return
            self._mix.begun(kind)
            track = self._replayed if kind == "replayed" and self._replayed else self._live
            self._in_flight.add(asyncio.create_task(self._attempt(track.begin())))

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
        await self._look_at_feeding()
        finished = self._in_flight & done
        self._in_flight -= finished
        ended = [task.result() for task in finished]
        for one in ended:
            self._track_of(one.prepared.entry).ended()
        self._judging = self._judging or not all(one.outcome.delivered for one in ended)
        self._ended += ended

    async def _look_at_feeding(self) -> None:
        """Takes up what was added to be replayed. As long as that takes, the outbox is looked at
        for what has come in; where the turn is to end for another reason than its time, nobody
        waits for it, since whatever it was doing is done again."""
        feeding = self._feeding
        if feeding is None:
            return
        if not feeding.done():
            if self._must_stop():
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
                self._feeding = None
            elif not self._live.prepared:
                self._live.look_again()
            return
        self._feeding = None
        if await feeding and self._replayed is not None:
            self._replayed.look_again()

    async def _attempt(self, prepared: Prepared) -> Ended:
        if self._lease.remaining() <= self._subscription.timeout_seconds:
            raise LeaseLostError
        at = now_ms()
        headers = {
            **self._headers,
            "content-type": CONTENT_TYPES[prepared.entry.rendering.format],
            **(REPLAY_HEADERS if prepared.entry.replay else {}),
            **self._signer.headers(prepared.event.id, at, prepared.body),
        }
        outcome = await self._services.receiver.post(
            self._subscription.url,
            headers,
            prepared.body,
            timeout=self._subscription.timeout_seconds,
            redactor=self._redactor,
            certificate=self._certificate,
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
            encode=self._services.attempts.encode,
        )
        was_parked, self._breaker = self._breaker.parked, judgement.breaker
        was_disabled = self._subscription.disabled_reason is not None
        self._judging = any(not one.outcome.delivered for one in self._ended)
        increments: Counter[str] = Counter()
        for one, recorded in zip(ended, judgement.recorded, strict=True):
            self._sent[one.outcome.kind.value] += 1
            increments[field("attempts_total", outcome=one.outcome.kind)] += 1
            count(increments, ATTEMPT_DURATION, one.outcome.duration_ms / 1000)
            detected_at = position_ms(one.prepared.event.position)
            # What is sent again was not late, nor is what a new subscription gets of the past.
            if not recorded.entry.replay and detected_at >= self._subscription.created_at:
                count_delivery(
                    increments,
                    detected_at=detected_at,
                    attempted_at=one.sent_at,
                    ended_at=one.sent_at + one.outcome.duration_ms,
                    attempts=one.prepared.sent + 1,
                    delivered=one.outcome.delivered,
                )
            if recorded.result != "R":
                increments[_ending(recorded)] += 1
        announcements = self._announcements(judgement, ended, was_parked=was_parked)
        stands = await self._store_judgement(judgement, increments, ended, announcements)
        self._tell_dead(judgement, ended)
        if stands and not was_disabled:
            self._tell_state(judgement, was_parked=was_parked)
        for recorded in judgement.recorded:
            self._track_of(recorded.entry).recorded(recorded)
        for track in self._tracks:
            if judgement.recovered:
                track.retries_are_due()
            if not track.prepared:
                track.look_again()  # what has come in meanwhile is sent in this turn

    async def _own_fault(self, ended: Sequence[Ended]) -> bool:
        """Whether failures to connect are to be put down to our own network."""
        outcomes = [one.outcome for one in ended]
        if any(map(proves_connection, outcomes)) or not any(map(failed_to_connect, outcomes)):
            return False
        unreachable, active = await self._insist(
            lambda: self._services.outboxes.note_unreachable(self._receiver)
        )
        return fault_is_ours(unreachable, active)

    async def _store_judgement(
        self,
        judgement: Judgement,
        increments: Counter[str],
        ended: Sequence[Ended],
        announcements: Sequence[Announcement],
    ) -> bool:
        """Records what was judged; whether it stands for the outbox as a whole, that is, unless the
        subscription was resumed meanwhile."""
        reached = any(proves_connection(one.outcome) for one in ended)
        disabled = self._subscription.disabled_reason is not None
        change = OutboxChange(
            resumed=self._resumed,
            breaker=None if disabled else judgement.breaker,
            bucket=self._bucket,
            forward=judgement.recovered,
            reached=self._receiver if reached else "",
        )
        if judgement.disabled_reason is None or disabled:
            return await self._store(judgement.recorded, increments, change, announcements)
        while True:
            try:
                return await self._disable(judgement, increments, change, announcements)
            except StaleSubscriptionsError:
                await self._insist(lambda: self._services.matchers.current(fresh=True))

    async def _disable(
        self,
        judgement: Judgement,
        increments: Counter[str],
        change: OutboxChange,
        announcements: Sequence[Announcement],
    ) -> bool:
        """The place where a subscription becomes disabled."""
        try:
            stored, as_read = await self._insist(
                lambda: self._services.subscriptions.get_with_record(self._subscription.id)
            )
        except NotFoundError:
            raise LeaseLostError from None
        disabled = msgspec.structs.replace(
            stored, disabled_reason=judgement.disabled_reason, updated_at=self._now_ms()
        )
        change = msgspec.structs.replace(
            change, as_read=as_read, disabled=msgspec.json.encode(disabled)
        )
        stands = await self._record_all(judgement.recorded, increments, change, announcements)
        if stands:
            self._subscription = disabled
        return stands

    async def _store(
        self,
        recorded: Sequence[Recorded],
        increments: Counter[str],
        change: OutboxChange,
        announcements: Sequence[Announcement] = (),
    ) -> bool:
        """Records attempts; False if the subscription was resumed meanwhile."""
        while True:
            try:
                return await self._record_all(recorded, increments, change, announcements)
            except StaleSubscriptionsError:
                await self._insist(lambda: self._services.matchers.current(fresh=True))

    async def _record_all(
        self,
        recorded: Sequence[Recorded],
        increments: Counter[str],
        change: OutboxChange,
        announcements: Sequence[Announcement],
    ) -> bool:
        """Records attempts as far as the subscriptions are as they are known here."""
        notices = None
        if announcements:
            matcher = await self._insist(self._services.matchers.current)
            notices = Notices(matcher, announcements)
        standing = await self._insist(
            lambda: self._services.outboxes.record(
                self._lease, recorded, increments, change, notices
            )
        )
        if announcements:
            await self._context.dispatcher.dispatch_soon("outboxes")
        if standing.resumed != self._resumed:
            self._outdated = True
            return False
        self._outdated = self._outdated or standing.emptied != self._emptied
        if standing.version != self._version and not change.disabled:
            self._version = standing.version
            (stored,) = await self._insist(
                lambda: self._services.subscriptions.get_many([self._subscription.id])
            )
            self._outdated = self._outdated or stored != self._subscription
        return True

    async def _insist(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """What Redis answers; while it is away, asks again for as long as the lease lasts."""
        while True:
            try:
                return await call()
            except (ConnectionError, TimeoutError):
                if self._lease.remaining() <= 0:
                    raise LeaseLostError from None
                await asyncio.sleep(RECORD_RETRY_SECONDS)

    def _tell_dead(self, judgement: Judgement, ended: Sequence[Ended]) -> None:
        for one, recorded in zip(ended, judgement.recorded, strict=True):
            if recorded.result == "D":
                _log.warning(
                    "delivery dead",
                    subscription=self._subscription.id,
                    delivered_event=one.prepared.event.id,
                    reason=recorded.reason,
                )

    def _announcements(
        self, judgement: Judgement, ended: Sequence[Ended], *, was_parked: bool
    ) -> list[Announcement]:
        """What is announcements of the outbox if this changes its state."""
        breaker = judgement.breaker
        announcements: list[tuple[str, dict[str, Any], When]] = []
        if judgement.disabled_reason is not None:
            said: dict[str, Any] = {"reason": judgement.disabled_reason}
            announcements.append(("subscription.disabled", said, When.DISABLED))
        if breaker.parked and not was_parked:
            outcome = ended[-1].outcome
            said = {
                "failures": breaker.failures,
                "failing_since": rfc3339(breaker.failing_since),
                "last_outcome": outcome.kind.value,
                "last_status": outcome.status,
            }
            announcements.append(("subscription.parked", said, When.PARKED))
        if judgement.recovered:
            said = {"was": "parked", "by": "delivery"}
            announcements.append(("subscription.recovered", said, When.UNPARKED))
        return [of_subscription(self._subscription, *one) for one in announcements]

    def _tell_state(self, judgement: Judgement, *, was_parked: bool) -> None:
        """The place where it is said that an outbox's state has changed, once it is stored."""
        log = _log.bind(subscription=self._subscription.id)
        if judgement.disabled_reason is not None:
            log.warning("subscription disabled", reason=judgement.disabled_reason)
        elif judgement.breaker.parked and not was_parked:
            log.warning("outbox parked", failures=judgement.breaker.failures)
        elif judgement.recovered:
            log.info("outbox recovered")


def _ending(recorded: Recorded) -> str:
    """The counter of deliveries that ended like this one."""
    name = "replayed_total" if recorded.entry.replay else "deliveries_total"
    return field(name, state="delivered" if recorded.result == "S" else "dead")
