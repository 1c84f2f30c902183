"""Decides whether the receivers or our own network cause failed connections."""

from __future__ import annotations

from service.domain.delivery.outcome import Outcome, OutcomeClass

WINDOW_MS = 30_000  # how long an outcome is evidence about the network
MIN_ACTIVE = 3  # receivers tried at once; fewer are too little evidence

# A failed handshake counts: a wrong clock, outdated authorities or an intercepting proxy are our
# own faults, and one receiver's bad certificate is outvoted.
_AT_CONNECTING = frozenset(
    {OutcomeClass.DNS, OutcomeClass.CONNECT, OutcomeClass.TLS, OutcomeClass.PROXY}
)


def failed_to_connect(outcome: Outcome) -> bool:
    """Whether the attempt ended before its connection was ready to send, for another reason than a
    shortage of this machine."""
    if outcome.shortage:
        return False
    if outcome.kind is OutcomeClass.TIMEOUT:
        return outcome.connect_ms is None and outcome.status is None
    return outcome.kind in _AT_CONNECTING


def is_ours(outcome: Outcome) -> bool:
    """Whether the failure is our own, whatever other receivers show: this machine ran out of a
    resource, or the operator's proxy failed."""
    return outcome.shortage or outcome.kind is OutcomeClass.PROXY


def proves_connection(outcome: Outcome) -> bool:
    """Whether the attempt shows that this receiver can be reached."""
    if outcome.kind is OutcomeClass.REFUSED_TARGET or outcome.shortage:
        return False
    return not failed_to_connect(outcome)


def fault_is_ours(unreachable: int, active: int) -> bool:
    """Whether most of the recently tried receivers were unreachable.

    `unreachable` counts receivers (host and port, so that many subscriptions of one dead receiver
    count once) whose latest attempt failed to connect; `active` adds those that were reached since
    the first of these failures.
    """
    return active >= MIN_ACTIVE and 2 * unreachable > active
