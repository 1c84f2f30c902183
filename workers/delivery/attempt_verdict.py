"""The consequences of ended attempts for their deliveries and for the whole outbox."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec

from service.domain.delivery.circuit_breaker import (
    Breaker,
    after_failure,
    after_own_failure,
    after_success,
    may_go_uncounted,
)
from service.domain.delivery.connectivity import failed_to_connect, is_ours
from service.domain.delivery.outbox_window import Entry
from service.domain.delivery.outcome import Outcome, OutcomeClass
from service.domain.delivery.retry_schedule import next_delay
from service.domain.delivery.subscription import Subscription
from service.domain.delivery.subscription_disabling import disabling_reason
from service.storage.delivery.attempts import Attempt
from service.storage.delivery.outboxes import Recorded
from service.storage.events.event_bodies import RenderedEvent


class PendingAttempt(msgspec.Struct, frozen=True):
    """An outbox entry and its event to push: the inputs of an attempt, except the time and the
    signature. `attempts` is the number of earlier attempts that count, `sent` the number of all;
    `due_at` is when this one was due, epoch ms of Redis, or 0 for a first attempt.
    """

    entry: Entry
    event: RenderedEvent
    attempts: int = 0
    sent: int = 0
    due_at: int = 0


class CompletedAttempt(msgspec.Struct, frozen=True):
    """An attempt that has ended, its outcome, and its start: epoch ms of this machine and of
    Redis."""

    attempt: PendingAttempt
    outcome: Outcome
    at: int
    sent_at: int


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The values to record. `recovered`: a parked outbox was unparked; `disabled_reason` explains
    why the subscription becomes disabled, None if it does not."""

    recorded: list[Recorded]
    breaker: Breaker
    recovered: bool
    disabled_reason: str | None


def judge(
    subscription: Subscription,
    breaker: Breaker,
    completed: Sequence[CompletedAttempt],
    *,
    now: int,
    own_fault: bool,
    encode: Callable[[str, Attempt], bytes],
) -> Judgement:
    """Judges attempts in the order in which they ended. `now` is epoch ms of Redis.

    With `own_fault`, failures to connect count as failures of our own network. A shortage of this
    machine is never counted, however long it lasts. `encode` creates the record of an attempt of
    the subscription with that id.
    """
    parked = breaker.parked
    reason = subscription.disabled_reason
    counted = []
    for one in completed:
        outcome, chance = one.outcome, random.random()
        ours = is_ours(outcome) or (
            own_fault and failed_to_connect(outcome) and may_go_uncounted(breaker, now)
        )
        counted.append(not ours)
        if outcome.delivered:
            breaker = after_success(breaker)
        elif ours:
            breaker = after_own_failure(breaker, one.sent_at, now, chance)
        else:
            key = one.attempt.entry.order_key
            breaker = after_failure(breaker, outcome, key, one.sent_at, now, chance)
            reason = reason or disabling_reason(breaker, outcome, now)
    held_ms = max(0, breaker.held_until - now)
    return Judgement(
        recorded=[
            _recorded(subscription, one, held_ms, encode, counted=counts)
            for one, counts in zip(completed, counted, strict=True)
        ],
        breaker=breaker,
        recovered=parked and not breaker.parked,
        disabled_reason=reason,
    )


def _recorded(
    subscription: Subscription,
    completed: CompletedAttempt,
    held_ms: int,
    encode: Callable[[str, Attempt], bytes],
    *,
    counted: bool,
) -> Recorded:
    pending, outcome = completed.attempt, completed.outcome
    attempts, delivered = pending.attempts + counted, outcome.delivered
    if delivered:
        wait_ms: int | None = None
    elif counted:
        wait_ms = _wait_ms(subscription, completed, attempts, held_ms)
    else:
        wait_ms = held_ms
    attempt = Attempt.of(
        outcome,
        event_id=pending.event.id,
        at=completed.at,
        number=pending.sent + 1,
        next_attempt_at=None if wait_ms is None else completed.at + outcome.duration_ms + wait_ms,
        counted=counted,
        replay=bool(pending.entry.replay),
    )
    given_up = wait_ms is None and not delivered
    return Recorded(
        entry=pending.entry,
        attempts=attempts,
        sent=pending.sent + 1,
        result="S" if delivered else "D" if given_up else "R",
        wait_ms=wait_ms or 0,
        reason=_reason(outcome, attempts) if given_up else "",
        record=encode(subscription.id, attempt),
    )


def _wait_ms(
    subscription: Subscription, completed: CompletedAttempt, attempts: int, held_ms: int
) -> int | None:
    due_at = completed.attempt.due_at
    delay = next_delay(
        completed.outcome,
        attempts,
        subscription.retry_schedule_seconds,
        random.random(),
        early=max(0, due_at - completed.sent_at) / 1000 if due_at else 0.0,
    )
    return None if delay is None else max(int(delay * 1000), held_ms)


def _reason(outcome: Outcome, attempts: int) -> str:
    last = f"status {outcome.status}" if outcome.kind is OutcomeClass.STATUS else outcome.kind
    return f"{attempts} attempts failed, the last with {last}"
