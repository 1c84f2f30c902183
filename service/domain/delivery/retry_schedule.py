"""The times of retries: the schedule, its jitter and the receiver's Retry-After."""

from __future__ import annotations

from service.domain.delivery.outcome import Outcome

# Seconds from each failure to the next attempt; 75 h in all.
DEFAULT_SCHEDULE: tuple[int, ...] = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
JITTER = 0.2  # of each delay, either way
RETRY_AFTER_MAX = 86_400.0  # maximum seconds of a receiver's Retry-After that are respected


def may_go_early(attempts: int, schedule: tuple[int, ...]) -> bool:
    """Whether a delivery with `attempts` failures may be tried early, as a probe.

    Its last attempt is never early, so that no delivery dies sooner because its outbox is parked.
    """
    return attempts < len(schedule)


def next_delay(
    outcome: Outcome,
    attempts: int,
    schedule: tuple[int, ...],
    unit_random: float,
    early: float = 0.0,
) -> float | None:
    """Seconds until the next attempt after `attempts` failures in all, or None when dead.

    `unit_random` in [0, 1) spreads the delay by ±20 %. A `Retry-After` longer than the schedule's
    delay replaces it, up to 24 hours. `early` is the number of seconds by which a probe was early:
    the next attempt keeps its scheduled time.
    """
    if attempts > len(schedule):
        return None
    delay = schedule[attempts - 1] * (1 + JITTER * (2 * unit_random - 1)) + early
    if outcome.retry_after is not None:
        delay = max(delay, min(outcome.retry_after, RETRY_AFTER_MAX))
    return delay
