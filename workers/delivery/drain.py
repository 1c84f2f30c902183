"""Drains outboxes: prepare, send, judge, record."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    RedisError,
    TimeoutError,  # noqa: A004 - redis's own name
)

from service.bootstrap import Services
from service.domain.delivery.subscription import Subscription, SubscriptionState, state_of
from service.domain.errors import LeaseLostError
from service.logs import get_logger
from service.storage.delivery.outbox_scripts import Due, OutboxAsFound
from service.storage.delivery.outboxes import OpenedOutbox, Outboxes, Recorded, Released
from service.storage.scheduling.leases import Lease
from workers.context import JobContext
from workers.delivery.attempt_verdict import CompletedAttempt, Judgement
from workers.delivery.attempts_in_flight import AttemptsInFlight
from workers.delivery.backfill_feed import Backfiller, BackfillStores
from workers.delivery.outbox_queues import OutboxQueues
from workers.delivery.outbox_turn import OutboxTurn
from workers.delivery.outcome_recorder import OutcomeRecorder, RecordingStores
from workers.delivery.queue_reader import QueueReader
from workers.delivery.replay_feed import Feeder, FeedStores
from workers.delivery.send_permissions import SendPermissions
from workers.isolated_batch import run_isolated

STAY_SECONDS = 0.1  # for which a job waits for its slowest outbox
MAX_TURNS = 2_500  # running turns of the process above which a job waits for all its turns
AWAY_WAIT_MS = 1_000  # until an outbox continues after Redis was unreachable
UNRECORDED = 8  # times `max_concurrency`: unrecorded attempts
FEEDING_LOOK_SECONDS = 0.5  # between checks of the outbox while a replay waits for the upstream
MAX_PAUSE_SECONDS = 1.0  # maximum wait within a turn for the subscription's rate
UNEXPECTED_WAIT_MS = 60_000  # until the next try after an unexpected error

_log = get_logger("delivery")


async def deliver_batch(context: JobContext, claims: Sequence[tuple[str, int]]) -> None:
    """Drains a batch of outboxes concurrently and independently.

    Outboxes with slow receivers continue after the job has ended, because a few of them would
    otherwise occupy every slot of the worker. Their number is limited: beyond it the job waits, and
    other workers take other outboxes.
    """
    outboxes = {owned_id: _deliver(context, owned_id, token) for owned_id, token in claims}
    batch = asyncio.create_task(run_isolated(_log, outboxes))
    context.lingering.add(batch)
    batch.add_done_callback(context.lingering.discard)
    turns = context.send_share.turns + len(claims)
    most = None if turns > MAX_TURNS else STAY_SECONDS
    done, _ = await asyncio.wait({batch}, timeout=most)
    if done:
        await batch
    else:
        batch.add_done_callback(_log_failure)


def _log_failure(batch: asyncio.Task[None]) -> None:
    """Logs the batch's failure, because no job does; each outbox has logged its own."""
    if not batch.cancelled() and (error := batch.exception()) is not None:
        _log.error("batch failed after its job had ended", error=str(error))


async def _deliver(context: JobContext, subscription_id: str, claim: int) -> None:
    services = context.services
    lease = services.leases.new("outboxes", subscription_id)
    found = await services.outboxes.begin(lease, claim)
    if found is None:
        return
    try:
        with services.leases.kept(lease):
            await _take_turn(context, lease, found)
    except LeaseLostError as error:
        _log.info("lease lost, outbox released", subscription=subscription_id, reason=str(error))


async def _take_turn(context: JobContext, lease: Lease, found: OutboxAsFound) -> None:
    services, subscription_id = context.services, lease.owned_id
    if found.record is None:  # deleted
        await services.leases.drop(lease, None)
        return
    try:
        opened = OpenedOutbox.of(found, found.record)
        if state_of(opened.subscription) is not SubscriptionState.ACTIVE:
            await services.outboxes.release(lease, "never")
            await _wake_if_resumed(context, subscription_id)
            return
        drain = await _open(context, lease, opened)
        with context.send_share.turn():
            await drain.run()
        await _release(context, drain, subscription_id)
    except (ConnectionError, TimeoutError):
        await services.leases.give_back(lease, AWAY_WAIT_MS)
        raise
    except (LeaseLostError, RedisError):
        raise  # the claim lapses
    except Exception:  # an unexpected error must not repeat at once; the job shows it
        await services.leases.drop(lease, UNEXPECTED_WAIT_MS)
        raise


async def _wake_if_resumed(context: JobContext, subscription_id: str) -> None:
    """A subscription that was resumed while its outbox was claimed could not be made due then."""
    services = context.services
    (now,) = await services.subscriptions.get_many([subscription_id])
    if now is not None and state_of(now) is SubscriptionState.ACTIVE:
        await services.schedule.wake("outboxes", subscription_id)


async def _release(context: JobContext, drain: Drain, subscription_id: str) -> None:
    """Returns the outbox to the schedule, unless its last recording has done so."""
    if drain.released:
        return
    released, due = await drain.release(context.services.outboxes)
    if released != "lost" and due == "never":
        await _wake_if_resumed(context, subscription_id)
    if released == "due" or due == "never":
        await context.dispatcher.dispatch_soon("outboxes")


async def _open(context: JobContext, lease: Lease, opened: OpenedOutbox) -> Drain:
    """The parts of a turn on an outbox. Raises DecryptionError."""
    services = context.services
    permissions = SendPermissions(
        opened, services.subscriptions, services.control, services.api_keys
    )
    await permissions.open()
    turn = OutboxTurn(lease, opened, permissions, context.draining)
    recording = RecordingStores(
        outboxes=services.outboxes,
        subscriptions=services.subscriptions,
        matchers=services.matchers,
        attempts=services.attempts,
        dispatcher=context.dispatcher,
    )
    return Drain(
        turn,
        OutboxQueues(opened, services.outboxes, services.bodies, turn),
        AttemptsInFlight(services.receiver, turn, context.send_share),
        OutcomeRecorder(recording, turn),
        _feeder(services, lease, opened.subscription) if opened.unfed else None,
    )


def _feeder(services: Services, lease: Lease, subscription: Subscription) -> Feeder:
    backfill = BackfillStores(
        replays=services.replays,
        integrations=services.integrations,
        credentials=services.credentials,
        catalogue=services.catalogue,
        budgets=services.budgets,
        upstream=services.upstream,
        control=services.control,
        memory=services.memory,
    )
    feed = FeedStores(
        replays=services.replays,
        events=services.events,
        outboxes=services.outboxes,
        attempts=services.attempts,
        dead=services.dead,
        api_keys=services.api_keys,
    )
    return Feeder(feed, Backfiller(backfill, subscription), lease, subscription)


class Drain:
    """One turn on one outbox.

    Attempts continue while others are being recorded; the next event of a course is sent after the
    last attempt at its previous event is recorded.
    """

    def __init__(
        self,
        turn: OutboxTurn,
        queues: OutboxQueues,
        in_flight: AttemptsInFlight,
        recorder: OutcomeRecorder,
        feeder: Feeder | None,
    ) -> None:
        self._turn = turn
        self._queues = queues
        self._in_flight = in_flight
        self._recorder = recorder
        self._feeder = feeder
        self._feeding: asyncio.Task[bool] | None = None
        self._completed: list[CompletedAttempt] = []
        self._any_failed = False  # of the recorded attempts
        self._recording: asyncio.Task[Judgement] | None = None
        self._rate_wait_ms = 0
        self._room_wait_seconds = 0.0
        self._unrecorded = 0  # attempts that have begun and are not recorded

    async def run(self) -> None:
        """Sends due events until there are none, or the turn is over."""
        started = time.monotonic()
        try:
            under_way = True
            while under_way:
                await self._prepare()
                self._send()
                self._feed()
                under_way = await (self._record_last() if self._are_last() else self._progress())
        finally:
            tasks = self._tasks()
            for task in tasks:
                task.cancel()
            if tasks:  # to gather nothing would wait for a turn of the loop
                await asyncio.gather(*tasks, return_exceptions=True)
            _log.info(
                "drain",
                subscription=self._turn.subscription.id,
                outcomes=dict(self._recorder.outcomes),
                seconds=round(time.monotonic() - started, 3),
            )

    @property
    def released(self) -> bool:
        """Whether the outbox has become empty and is returned to the schedule."""
        return self._turn.released

    async def release(self, outboxes: Outboxes) -> tuple[Released, Due]:
        """Returns the outbox to the schedule; returns whether it is due and what was requested."""
        turn, live, replayed = self._turn, self._queues.live, self._queues.replayed
        due, held_ms = self._due()
        released = await outboxes.release(
            turn.lease,
            due,
            start=live.unsent(),
            held_ms=held_ms,
            resumed=turn.resumed,
            bucket=turn.bucket,
            scanned_at=live.scanned_at,
            feed_ms=0 if self._feeder is None else self._feeder.wait_ms,
            replayed_start="" if replayed is None else replayed.unsent(),
            replayed_scanned_at=0 if replayed is None else replayed.scanned_at,
            emptied=turn.emptied,
        )
        return released, due

    def _due(self) -> tuple[Due, int]:
        """The time of the outbox's next turn, and how long no event may wake it."""
        turn = self._turn
        if not turn.active:
            return "never", 0
        held_ms = max(turn.breaker.ready_at - turn.redis_ms(), self._rate_wait_ms)
        if not turn.outdated and held_ms > 0:
            return "held", held_ms
        return ("now" if self._queues.any_prepared or turn.must_stop() else "later"), 0

    # --- prepare ---------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Fetches the events that may be sent next; the probe of a parked outbox is a replayed
        event only if there is no other."""
        parked, recording = self._turn.breaker.parked, self._recording is not None
        idle = not (self._in_flight.tasks or self._completed or recording)
        for queue in self._queues:
            if not parked:
                while unsendable := await queue.prepare(recording=recording):
                    await self._give_up(queue, unsendable)
            elif idle and not self._queues.any_prepared:
                while unsendable := await queue.prepare_probe(recording=recording):
                    await self._give_up(queue, unsendable)
        if await self._turn.permissions.refresh():
            for queue in self._queues:
                await self._give_up(queue, queue.withdraw())

    async def _give_up(self, queue: QueueReader, unsendable: Sequence[Recorded]) -> None:
        """Records deliveries that must not be sent, which makes them dead."""
        for reason in dict.fromkeys(one.reason for one in unsendable):
            await self._recorder.give_up([one for one in unsendable if one.reason == reason])
        for one in unsendable:
            queue.recorded(one)

    def _feed(self) -> None:
        """Continues the current replay, once the events that it has added have been read."""
        turn, feeder = self._turn, self._feeder
        if (
            feeder is not None
            and self._feeding is None
            and feeder.ready
            and self._queues.hungry
            and not turn.is_over()
            and not turn.must_stop()
        ):
            self._feeding = asyncio.create_task(feeder.step())
            self._feeding.add_done_callback(self._note_progress)
            turn.feeding = True

    # --- send ------------------------------------------------------------------------------

    def _send(self) -> None:
        """Begins as many attempts as may be in flight. The number of unrecorded attempts is
        limited, because they are sent again if the worker is killed."""
        self._rate_wait_ms, self._room_wait_seconds = 0, 0.0
        if not self._queues.any_prepared:
            return
        # The judgement of a failure may stop the sending.
        if self._any_failed or self._recorder.judging or self._turn.must_stop():
            return
        slots = self._turn.slots
        while (
            self._unrecorded < UNRECORDED * slots
            and (queue := self._queues.choose(slots)) is not None
        ):
            self._room_wait_seconds = self._in_flight.seconds_to_room(slots)
            if self._room_wait_seconds:
                return
            self._rate_wait_ms = self._turn.take_token()
            if self._rate_wait_ms:
                return
            self._in_flight.begin(self._queues.begin(queue))
            self._unrecorded += 1

    # --- judge and record --------------------------------------------------------------------

    def _are_last(self) -> bool:
        """Whether attempts that have ended may be the last of the turn."""
        return bool(self._completed) and not (
            self._recording or self._in_flight.tasks or self._queues.any_prepared or self._feeder
        )

    async def _record_last(self) -> bool:
        """Records them; False if the outbox is empty and returned to the schedule."""
        self._recorded(await self._recorder.record(self._take_completed(), last=True))
        return not self._turn.released

    def _record(self) -> None:
        """Begins to record the attempts that have ended, unless a recording is running."""
        if self._completed and self._recording is None:
            self._recording = self._recorder.begin(self._take_completed())
            self._recording.add_done_callback(self._note_progress)

    def _take_completed(self) -> list[CompletedAttempt]:
        completed, self._completed, self._any_failed = self._completed, [], False
        return completed

    def _recorded(self, judgement: Judgement) -> None:
        self._queues.recorded(judgement)
        self._unrecorded -= len(judgement.recorded)

    # --- wait --------------------------------------------------------------------------------

    def _tasks(self) -> set[asyncio.Task[Any]]:
        tasks: set[asyncio.Task[Any]] = {*self._in_flight.tasks}
        return tasks | {task for task in (self._recording, self._feeding) if task is not None}

    async def _progress(self) -> bool:
        """Records what has ended, and waits until an attempt or recording has ended; False if none
        is running."""
        self._record()
        pause = self._pause()
        if pause is None and not (self._in_flight.tasks or self._recording or self._feeding):
            return False
        progress, timer = self._turn.progress, None
        if pause is not None:
            timer = asyncio.get_running_loop().call_later(pause, progress.set)
        await progress.wait()
        progress.clear()
        if timer is not None:
            timer.cancel()
        if self._recording is not None and self._recording.done():
            self._recorded(await self._recording)
            self._recording = None
        await self._look_at_feeding()
        for one in self._in_flight.collect():
            self._queues.ended(one)
            self._completed.append(one)
            self._any_failed = self._any_failed or not one.outcome.delivered
        return True

    def _note_progress(self, _: asyncio.Task[Any]) -> None:
        self._turn.progress.set()

    def _pause(self) -> float | None:
        """Seconds until the outbox is checked again, for the subscription's rate, for room to send
        or while a replay waits for the upstream; None: when an attempt has ended."""
        waits = [FEEDING_LOOK_SECONDS] if self._feeding is not None else []
        if self._room_wait_seconds < math.inf:
            waits.append(self._room_wait_seconds)
        rate_wait = self._rate_wait_ms / 1000
        if rate_wait <= MAX_PAUSE_SECONDS and not (rate_wait and self._turn.must_stop()):
            waits.append(rate_wait)
        return min(filter(None, waits), default=None)

    async def _look_at_feeding(self) -> None:
        """Reads newly added replayed entries. New events of the outbox are sent meanwhile.

        A turn that must stop for another reason than its time does not wait for the step: the next
        turn repeats it.
        """
        feeding, live, replayed = self._feeding, self._queues.live, self._queues.replayed
        if feeding is None:
            return
        if feeding.done():
            self._feeding, self._turn.feeding = None, False
            if await feeding and replayed is not None:
                replayed.look_again()
        elif self._turn.must_stop():
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            self._feeding, self._turn.feeding = None, False
        elif not live.prepared:
            live.look_again()
