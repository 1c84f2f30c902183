from __future__ import annotations

import pytest

from service.domain.delivery.connectivity import failed_to_connect, fault_is_ours, proves_connection
from service.domain.delivery.outcome import Outcome, OutcomeClass


def outcome(kind: OutcomeClass, **fields) -> Outcome:
    return Outcome(kind=kind, duration_ms=5, **fields)


@pytest.mark.parametrize(
    "failed",
    [
        outcome(OutcomeClass.DNS),
        outcome(OutcomeClass.CONNECT),
        outcome(OutcomeClass.TLS),
        outcome(OutcomeClass.TIMEOUT),
    ],
)
def test_what_ends_before_a_connection_stands_says_something_about_the_network(failed):
    assert failed_to_connect(failed)
    assert not proves_connection(failed)


@pytest.mark.parametrize("kind", list(OutcomeClass)[2:])
def test_a_shortage_of_this_machine_says_nothing_about_any_network(kind: OutcomeClass):
    short = outcome(kind, shortage=True)
    assert not failed_to_connect(short)
    assert not proves_connection(short)


@pytest.mark.parametrize(
    "ended",
    [
        outcome(OutcomeClass.DELIVERED, status=204),
        outcome(OutcomeClass.STATUS, status=500),
        outcome(OutcomeClass.TIMEOUT, connect_ms=3),
        outcome(OutcomeClass.RESET, connect_ms=3),
        outcome(OutcomeClass.PROTOCOL, connect_ms=3),
    ],
)
def test_what_a_receiver_does_over_a_connection_shows_that_it_can_be_reached(ended):
    assert proves_connection(ended)
    assert not failed_to_connect(ended)


def test_a_refused_address_says_nothing():
    refused = outcome(OutcomeClass.REFUSED_TARGET)
    assert not failed_to_connect(refused)
    assert not proves_connection(refused)


@pytest.mark.parametrize(
    ("unreachable", "active", "ours"),
    [(1, 1, False), (2, 2, False), (3, 3, True), (2, 3, True), (2, 4, False), (26, 50, True)],
)
def test_the_fault_is_ours_when_most_of_at_least_three_fail_at_once(unreachable, active, ours):
    assert fault_is_ours(unreachable, active) is ours
