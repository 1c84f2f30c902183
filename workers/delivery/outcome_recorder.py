"""Records the outcomes of attempts, and their consequences for the outbox."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    TimeoutError,  # noqa: A004 - redis's own name
)

from service.domain.delivery.connectivity import failed_to_connect, fault_is_ours, proves_connection
from service.domain.errors import LeaseLostError, NotFoundError, StaleSubscriptionsError
from service.domain.events.event import rfc3339
from service.domain.events.operational import Announcement, When, of_subscription
from service.logs import get_logger
from service.storage.delivery.attempts import Attempts
from service.storage.delivery.outboxes import OutboxChange, Outboxes, Recorded
from service.storage.events.announcing import Notices
from service.storage.registry.matcher_cache import Matchers
from service.storage.registry.subscriptions import SubscriptionStore
from workers.delivery.attempt_counts import counts_of, ending
from workers.delivery.attempt_verdict import CompletedAttempt, Judgement, judge
from workers.delivery.outbox_turn import OutboxTurn
from workers.dispatch.dispatcher import Dispatcher

RETRY_SECONDS = 0.2  # between tries while Redis is unreachable

_log = get_logger("delivery")

Answer = TypeVar("Answer")


class RecordingStores(msgspec.Struct, frozen=True):
    """The stores of a recorder, and the dispatcher for outboxes that became due."""

    outboxes: Outboxes
    subscriptions: SubscriptionStore
    matchers: Matchers
    attempts: Attempts
    dispatcher: Dispatcher


class OutcomeRecorder:
    """Judges and records the attempts of one turn. If Redis is unreachable, it tries again until
    the lease ends. Raises LeaseLostError."""

    def __init__(self, stores: RecordingStores, turn: OutboxTurn) -> None:
        self.outcomes: Counter[str] = Counter()  # attempts by outcome
        self.judging = False  # failures whose consequences are not known yet
        self._stores = stores
        self._turn = turn
        self._stored = turn.breaker  # in Redis; a recording without news does not write it

    def begin(self, completed: Sequence[CompletedAttempt]) -> asyncio.Task[Judgement]:
        """Begins to record attempts that have ended, while other attempts continue."""
        self.judging = not all(one.outcome.delivered for one in completed)
        return asyncio.create_task(self.record(completed))

    async def give_up(self, recorded: Sequence[Recorded]) -> None:
        """Records deliveries that are dead without an attempt, all for one reason."""
        _log.warning(
            "deliveries dead",
            subscription=self._turn.subscription.id,
            count=len(recorded),
            reason=recorded[0].reason,
        )
        increments = Counter(map(ending, recorded))
        await self._store(recorded, increments, OutboxChange(resumed=self._turn.resumed))

    async def record(
        self, completed: Sequence[CompletedAttempt], *, last: bool = False
    ) -> Judgement:
        """Judges attempts that have ended, and stores the judgement. If they are the `last` ones,
        an outbox that has become empty is returned to the schedule."""
        turn = self._turn
        own_fault = await self._is_own_fault(completed)
        judgement = judge(
            turn.subscription,
            turn.breaker,
            completed,
            now=turn.redis_ms(),
            own_fault=own_fault,
            encode=self._stores.attempts.encode,
        )
        parked_now = judgement.breaker.parked and not turn.breaker.parked
        was_disabled = turn.subscription.disabled_reason is not None
        turn.breaker = judgement.breaker
        self.judging = False
        self.outcomes.update(one.outcome.kind.value for one in completed)
        announcements = self._announcements(judgement, completed[-1], parked_now=parked_now)
        stands = await self._store_judgement(judgement, completed, announcements, last=last)
        self._log_dead(judgement, completed)
        if stands and not was_disabled:
            self._log_state(judgement, parked_now=parked_now)
        return judgement

    async def _is_own_fault(self, completed: Sequence[CompletedAttempt]) -> bool:
        """Whether failures to connect count as failures of our own network."""
        outcomes = [one.outcome for one in completed]
        if any(map(proves_connection, outcomes)) or not any(map(failed_to_connect, outcomes)):
            return False
        unreachable, active = await self._until_answered(
            lambda: self._stores.outboxes.note_unreachable(self._turn.receiver)
        )
        return fault_is_ours(unreachable, active)

    async def _store_judgement(
        self,
        judgement: Judgement,
        completed: Sequence[CompletedAttempt],
        announcements: Sequence[Announcement],
        *,
        last: bool,
    ) -> bool:
        """Stores a judgement; False if it no longer applies to the whole outbox, because the
        subscription was resumed meanwhile."""
        turn = self._turn
        increments = counts_of(completed, judgement.recorded, turn.subscription.created_at)
        reached = any(proves_connection(one.outcome) for one in completed)
        disabled = turn.subscription.disabled_reason is not None
        changed = judgement.breaker != self._stored
        reason = None if disabled else judgement.disabled_reason
        change = OutboxChange(
            resumed=turn.resumed,
            breaker=judgement.breaker if (changed and not disabled) or reason else None,
            bucket=turn.bucket,
            forward=judgement.recovered,
            reached=turn.receiver if reached else "",
            last=last,
        )
        while True:
            try:
                if reason is not None:
                    return await self._disable(
                        reason, judgement.recorded, increments, change, announcements
                    )
                return await self._store(judgement.recorded, increments, change, announcements)
            except StaleSubscriptionsError:
                await self._until_answered(lambda: self._stores.matchers.current(fresh=True))

    async def _disable(
        self,
        reason: str,
        recorded: Sequence[Recorded],
        increments: Counter[str],
        change: OutboxChange,
        announcements: Sequence[Announcement],
    ) -> bool:
        """Records attempts that disable the subscription."""
        turn = self._turn
        try:
            stored, as_read = await self._until_answered(
                lambda: self._stores.subscriptions.get_with_record(turn.subscription.id)
            )
        except NotFoundError:
            raise LeaseLostError from None
        disabled = msgspec.structs.replace(
            stored, disabled_reason=reason, updated_at=turn.redis_ms()
        )
        change = msgspec.structs.replace(
            change, as_read=as_read, disabled=msgspec.json.encode(disabled)
        )
        stands = await self._store(recorded, increments, change, announcements)
        if stands:
            turn.subscription = disabled
        return stands

    async def _store(
        self,
        recorded: Sequence[Recorded],
        increments: Counter[str],
        change: OutboxChange,
        announcements: Sequence[Announcement] = (),
    ) -> bool:
        """Records attempts; False if the subscription was resumed meanwhile. Raises
        StaleSubscriptionsError if subscriptions have changed."""
        turn, stores = self._turn, self._stores
        notices = None
        if announcements:
            matcher = await self._until_answered(stores.matchers.current)
            notices = Notices(matcher, announcements)
        standing = await self._until_answered(
            lambda: stores.outboxes.record(turn.lease, recorded, increments, change, notices)
        )
        if announcements:
            await stores.dispatcher.dispatch_soon("outboxes")
        turn.released = standing.released
        if standing.news and change.breaker is not None:
            self._stored = change.breaker
        if standing.resumed != turn.resumed:
            turn.outdated = True
            return False
        turn.any_live, turn.any_replayed = standing.pending > 0, standing.replaying > 0
        turn.outdated = turn.outdated or standing.emptied != turn.emptied
        if standing.version != turn.version and not change.disabled:
            turn.version = standing.version
            (stored,) = await self._until_answered(
                lambda: stores.subscriptions.get_many([turn.subscription.id])
            )
            turn.outdated = turn.outdated or stored != turn.subscription
        return True

    async def _until_answered(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """The reply of Redis; if it is unreachable, tries again until the lease ends."""
        while True:
            try:
                return await call()
            except (ConnectionError, TimeoutError):
                if self._turn.lease.remaining() <= 0:
                    raise LeaseLostError from None
                await asyncio.sleep(RETRY_SECONDS)

    def _announcements(
        self, judgement: Judgement, last: CompletedAttempt, *, parked_now: bool
    ) -> list[Announcement]:
        """The operational events to send if this changes the state of the outbox."""
        breaker = judgement.breaker
        announcements: list[tuple[str, dict[str, Any], When]] = []
        if judgement.disabled_reason is not None:
            facts: dict[str, Any] = {"reason": judgement.disabled_reason}
            announcements.append(("subscription.disabled", facts, When.DISABLED))
        if parked_now:
            facts = {
                "failures": breaker.failures,
                "failing_since": rfc3339(breaker.failing_since),
                "last_outcome": last.outcome.kind.value,
                "last_status": last.outcome.status,
            }
            announcements.append(("subscription.parked", facts, When.PARKED))
        if judgement.recovered:
            facts = {"was": "parked", "by": "delivery"}
            announcements.append(("subscription.recovered", facts, When.UNPARKED))
        return [of_subscription(self._turn.subscription, *one) for one in announcements]

    def _log_dead(self, judgement: Judgement, completed: Sequence[CompletedAttempt]) -> None:
        for one, recorded in zip(completed, judgement.recorded, strict=True):
            if recorded.result == "D":
                _log.warning(
                    "delivery dead",
                    subscription=self._turn.subscription.id,
                    delivered_event=one.attempt.event.id,
                    reason=recorded.reason,
                )

    def _log_state(self, judgement: Judgement, *, parked_now: bool) -> None:
        """Logs a change of the outbox's state, once it is stored."""
        subscription = self._turn.subscription.id
        if (reason := judgement.disabled_reason) is not None:
            _log.warning("subscription disabled", subscription=subscription, reason=reason)
        elif parked_now:
            failures = judgement.breaker.failures
            _log.warning("outbox parked", subscription=subscription, failures=failures)
        elif judgement.recovered:
            _log.info("outbox recovered", subscription=subscription)
