"""Decides from a subscriber's answers whether its outbox is sent to, held, parked or disabled."""

from __future__ import annotations

import msgspec

from service.domain.delivery.connectivity import failed_to_connect
from service.domain.delivery.outcome import Outcome
from service.domain.delivery.retry_schedule import RETRY_AFTER_MAX

# Times are epoch ms by the clock of Redis; durations end in their unit.
PARK_FAILURES = 10  # in a row, from which an outbox is parked ...
PARK_AFTER_MS = 60_000  # ... once the row is this long
PROBE_FIRST_MS = 5_000
PROBE_MAX_MS = 300_000
SLOWING = frozenset({429, 502, 503, 504})  # what overload and its gateways answer
HOLD_FIRST_MS = 1_000  # of a slowing answer without Retry-After, and of a row not yet parked
HOLD_MAX_MS = 60_000
OFFLINE_FIRST_MS = 5_000
OFFLINE_MAX_MS = 60_000
OFFLINE_FOR_MS = 3_600_000  # how long failures of our own network may go uncounted
JITTER = 0.2  # of each wait, either way


class Breaker(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an outbox remembers of the answers of its subscriber.

    `failures` is the row of counted failures since the last success and `failing_since` when
    it began. A parked outbox sends one probe at `probe_at` or later; `probes` is how many have
    failed and `probed` the order key of the last one's course. Nothing at all is sent before
    `held_until`; `holds` is how many slowing answers there were in a row. `offline` and
    `offline_since` are the row of failures of our own network, which are not counted; it ends
    with the next connection.
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
        """Whether nothing but probes is sent."""
        return self.parked_at is not None

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed, even through a fault of our own network."""
        return self.failures > 0 or self.offline > 0

    @property
    def ready_at(self) -> int:
        """Before when nothing is sent, probes included."""
        return max(self.held_until, self.probe_at) if self.parked else self.held_until

    def concurrency(self, most: int) -> int:
        """How many attempts may be under way at once: a subscriber that does not answer must
        not hold on to connections that others need, nor use up attempts of many events."""
        return 1 if self.parked else max(1, most >> min(self.failures, 8))


def after_success(breaker: Breaker) -> Breaker:
    """An event was delivered: parked no more. A hold that was asked for stands."""
    return Breaker(held_until=breaker.held_until)


def without_waits(breaker: Breaker) -> Breaker:
    """Somebody asks for an attempt now. What is known of the subscriber's answers stands, so a
    parked outbox is sent a probe."""
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
        if sent_at < breaker.probe_at:  # it was under way when the outbox was parked
            return changed
        wait = _backoff(PROBE_FIRST_MS, PROBE_MAX_MS, breaker.probes + 1, unit_random)
        return msgspec.structs.replace(
            changed, probes=breaker.probes + 1, probe_at=now + wait, probed=order_key
        )
    if failures < PARK_FAILURES:
        return changed
    if now - since < PARK_AFTER_MS:
        # Not long enough to judge, and too many to go on at full speed.
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
    """An attempt failed because of our own network: not counted, soon tried again."""
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
    """Whether a failure of our own network is still believed to be that; otherwise several dead
    subscribers could keep each other's attempts from ever being counted."""
    return not breaker.offline or now - breaker.offline_since < OFFLINE_FOR_MS


def _held(
    breaker: Breaker, outcome: Outcome, sent_at: int, now: int, unit_random: float
) -> tuple[int, int]:
    """Until when the outbox is held, and the slowing answers in a row."""
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
