"""The counters of ended attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from service.domain.events.identifiers import position_ms
from service.domain.observability.metrics import ATTEMPT_DURATION, FIRST_ATTEMPT, RECEIPT, count
from service.storage.delivery.outboxes import Recorded
from service.storage.redis.counters import field
from workers.delivery.attempt_verdict import CompletedAttempt


def counts_of(
    completed: Sequence[CompletedAttempt], recorded: Sequence[Recorded], created_at: int
) -> Counter[str]:
    """The increments of the stored counters for attempts, and for the deliveries that they end.

    Replayed events are not late, nor are events from before `created_at` (epoch ms), the creation
    of the subscription: how long these took is not counted. Of other deliveries, the first attempt
    and the receipt count.
    """
    increments: Counter[str] = Counter()
    for one, as_recorded in zip(completed, recorded, strict=True):
        outcome, attempt = one.outcome, one.attempt
        increments[field("attempts_total", outcome=outcome.kind)] += 1
        count(increments, ATTEMPT_DURATION, outcome.duration_ms / 1000)
        if as_recorded.result != "R":
            increments[ending(as_recorded)] += 1
        detected_at = position_ms(attempt.event.head.position)
        if attempt.entry.replay or detected_at < created_at:
            continue
        waited_ms = one.sent_at - detected_at
        if not attempt.sent:
            count(increments, FIRST_ATTEMPT, waited_ms / 1000)
        if outcome.delivered:
            count(increments, RECEIPT, (waited_ms + outcome.duration_ms) / 1000)
    return increments


def ending(recorded: Recorded) -> str:
    """The counter of deliveries that ended like this one."""
    name = "replayed_total" if recorded.entry.replay else "deliveries_total"
    return field(name, state="delivered" if recorded.result == "S" else "dead")
