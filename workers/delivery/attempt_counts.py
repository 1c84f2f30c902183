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
    increments = Counter(field("attempts_total", outcome=one.outcome.kind) for one in completed)
    increments.update(ending(one) for one in recorded if one.result != "R")
    timely = [
        (one, detected_at)
        for one in completed
        if not one.attempt.entry.replay
        and (detected_at := position_ms(one.attempt.event.head.position)) >= created_at
    ]
    observed_ms = {
        ATTEMPT_DURATION: [one.outcome.duration_ms for one in completed],
        FIRST_ATTEMPT: [
            one.sent_at - detected_at for one, detected_at in timely if not one.attempt.sent
        ],
        RECEIPT: [
            one.sent_at + one.outcome.duration_ms - detected_at
            for one, detected_at in timely
            if one.outcome.delivered
        ],
    }
    for metric, values in observed_ms.items():
        if values:
            count(increments, metric, [value / 1000 for value in values])
    return increments


def ending(recorded: Recorded) -> str:
    """The counter of deliveries that ended like this one."""
    name = "replayed_total" if recorded.entry.replay else "deliveries_total"
    return field(name, state="delivered" if recorded.result == "S" else "dead")
