"""Decides from a receiver's responses whether its outbox is sent, held, parked or disabled."""

from __future__ import annotations

import msgspec

from service.domain.delivery.connectivity import failed_to_connect
from service.domain.delivery.outcome import Outcome
from service.domain.delivery.retry_schedule import RETRY_AFTER_MAX

# Times are epoch ms by the clock of Redis; durations have their unit in their names.
PARK_FAILURES = 10  # consecutive failures that park an outbox ...
PARK_AFTER_MS = 60_000  # ... if they last this long
PROBE_FIRST_MS = 5_000
PROBE_MAX_MS = 300_000
SLOWING = frozenset({429, 502, 503, 504})  # statuses of overload and of gateways
# after an overload response without Retry-After, and during failures before parking
HOLD_FIRST_MS = 1_000
HOLD_MAX_MS = 60_000
OFFLINE_FIRST_MS = 5_000
OFFLINE_MAX_MS = 60_000
OFFLINE_FOR_MS = 3_600_000  # how long failures of our own network stay uncounted
JITTER = 0.2  # of each wait, either way


class Breaker(msgspec.Struct, frozen=True, omit_defaults=True):
    """An outbox's state that follows from its receiver's responses. `failures` counts the failures
    since the last success and `failing_since` is the time of the first. A parked outbox sends one
    probe at `probe_at` or later; `probes` counts the failed ones and `probed` is the order key of
    the last one's course. Nothing is sent before `held_until`; `holds` counts consecutive overload
    responses. `offline` and `offline_since` are the consecutive failures of our own network, which
    are not counted; the next connection ends them.
    """

    failures: int = 0
    failing_since: int = 0
    parked_at: int | None = None
    probes: int = 0
    probe_at: int = 0
    probed: str = ""
    held_until: int = 0
    holds: int = 0
    offline: int = 0
    offline_since: int = 0

    @property
    def parked(self) -> bool:
        """Whether only probes are sent."""
        return self.parked_at is not None

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed, even through a fault of our own network."""
        return self.failures > 0 or self.offline > 0

    @property
    def ready_at(self) -> int:
        """The time before which nothing is sent, probes included."""
        return max(self.held_until, self.probe_at) if self.parked else self.held_until

    def concurrency(self, most: int) -> int:
        """The maximum number of attempts in flight: a receiver that does not respond must not
        occupy connections that others need, nor use up attempts of many events."""
        return 1 if self.parked else max(1, most >> min(self.failures, 8))


def after_success(breaker: Breaker) -> Breaker:
    """An event was delivered: the outbox is no longer parked. A requested hold stays in force."""
    return Breaker(held_until=breaker.held_until)


def without_waits(breaker: Breaker) -> Breaker:
    """An attempt was requested now. The failures stay known, so a parked outbox sends a probe."""
    return msgspec.structs.replace(breaker, held_until=0, probe_at=0)


def after_failure(
    breaker: Breaker, outcome: Outcome, order_key: str, sent_at: int, now: int, unit_random: float
) -> Breaker:
    """A counted attempt at the course `order_key`, sent at `sent_at`, failed at `now`."""
    failures = breaker.failures + 1
    since = breaker.failing_since if breaker.failures else now
    held_until, holds = _held(breaker, outcome, sent_at, now, unit_random)
    reached = not failed_to_connect(outcome)
    changed = msgspec.structs.replace(
        breaker,
        failures=failures,
        failing_since=since,
        held_until=held_until,
        holds=holds,
        offline=0 if reached else breaker.offline,
        offline_since=0 if reached else breaker.offline_since,
    )
    if breaker.parked_at is not None:
        if sent_at < breaker.probe_at:  # it was in flight when the outbox was parked
            return changed
        wait = _backoff(PROBE_FIRST_MS, PROBE_MAX_MS, breaker.probes + 1, unit_random)
        return msgspec.structs.replace(
            changed, probes=breaker.probes + 1, probe_at=now + wait, probed=order_key
        )
    if failures < PARK_FAILURES:
        return changed
    if now - since < PARK_AFTER_MS:
        # Too few failures to park, and too many to continue at full speed.
        pause = now + _spread(HOLD_FIRST_MS, unit_random)
        return msgspec.structs.replace(changed, held_until=max(held_until, pause))
    return msgspec.structs.replace(
        changed,
        parked_at=now,
        probes=0,
        probe_at=now + _spread(PROBE_FIRST_MS, unit_random),
        probed=order_key,
    )


def after_own_failure(breaker: Breaker, sent_at: int, now: int, unit_random: float) -> Breaker:
    """An attempt failed because of our own network: not counted, and retried soon."""
    if sent_at < breaker.held_until:
        return breaker
    wait = _backoff(OFFLINE_FIRST_MS, OFFLINE_MAX_MS, breaker.offline, unit_random)
    return msgspec.structs.replace(
        breaker,
        offline=breaker.offline + 1,
        offline_since=breaker.offline_since if breaker.offline else now,
        held_until=now + wait,
    )


def may_go_uncounted(breaker: Breaker, now: int) -> bool:
    """Whether a failure still counts as one of our own network; otherwise several dead receivers
    could keep each other's attempts from being counted."""
    return not breaker.offline or now - breaker.offline_since < OFFLINE_FOR_MS


def _held(
    breaker: Breaker, outcome: Outcome, sent_at: int, now: int, unit_random: float
) -> tuple[int, int]:
    """The end of the hold, and the consecutive overload responses."""
    if outcome.retry_after is not None:
        asked = int(min(outcome.retry_after, RETRY_AFTER_MAX) * 1000)
        return max(breaker.held_until, now + asked if asked > 0 else 0), breaker.holds
    if outcome.status not in SLOWING or sent_at < breaker.held_until:
        return breaker.held_until, breaker.holds
    wait = _backoff(HOLD_FIRST_MS, HOLD_MAX_MS, breaker.holds, unit_random)
    return now + wait, breaker.holds + 1


def _backoff(first_ms: int, most_ms: int, step: int, unit_random: float) -> int:
    return _spread(min(first_ms << min(step, 20), most_ms), unit_random)


def _spread(wait_ms: int, unit_random: float) -> int:
    return int(wait_ms * (1 + JITTER * (2 * unit_random - 1)))
