"""Decides when a subscription is disabled: on 410 Gone, or after days without a success."""

from __future__ import annotations

from service.domain.delivery.circuit_breaker import Breaker
from service.domain.delivery.outcome import Outcome

DISABLE_FAILURES = 20  # consecutive failures that disable a subscription ...
DISABLE_AFTER_MS = 5 * 86_400_000  # ... if they last this long
GONE = 410  # the receiver rejects all further events (RFC 9110, 15.5.11)


def disabling_reason(breaker: Breaker, outcome: Outcome, now: int) -> str | None:
    """Why this failure disables the subscription, or None."""
    if outcome.status == GONE:
        return "the receiver answered 410 Gone"
    age = now - breaker.failing_since
    if breaker.failures >= DISABLE_FAILURES and age >= DISABLE_AFTER_MS:
        return f"no attempt succeeded for 5 days, {breaker.failures} failed"
    return None
