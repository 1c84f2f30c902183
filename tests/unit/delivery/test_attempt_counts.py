from __future__ import annotations

import pytest

from service.domain.delivery.outbox_window import Entry
from service.domain.delivery.outcome import Outcome, OutcomeClass
from service.domain.delivery.subscription import Rendering
from service.domain.events.event import EventHead
from service.domain.observability.metrics import ATTEMPT_DURATION, FIRST_ATTEMPT, RECEIPT
from service.storage.delivery.outboxes import Recorded
from service.storage.events.event_bodies import RenderedEvent
from workers.delivery.attempt_counts import counts_of
from workers.delivery.attempt_verdict import CompletedAttempt, PendingAttempt

DETECTED, SENT, TOOK = 1_000, 2_000, 2_500  # ms


def counts(kind=OutcomeClass.DELIVERED, result="S", *, sent=0, replay="", created_at=0):
    entry = Entry(f"{DETECTED}-0", "k", Rendering.FULL, replay and f"{DETECTED}-0", replay)
    head = EventHead(f"{DETECTED}-0", "course.updated", "int_a", "c1", b"")
    attempt = PendingAttempt(entry, RenderedEvent("evt_1", head, b"{}"), sent=sent)
    completed = CompletedAttempt(attempt, Outcome(kind=kind, duration_ms=TOOK), SENT, SENT)
    recorded = Recorded(entry=entry, attempts=1, sent=sent + 1, result=result)
    return counts_of([completed], [recorded], created_at)


FAILED = {"kind": OutcomeClass.STATUS, "result": "R"}


@pytest.mark.parametrize(
    ("of", "waits"),
    [
        ({}, {FIRST_ATTEMPT.name: 1_000, RECEIPT.name: 3_500}),
        (FAILED, {FIRST_ATTEMPT.name: 1_000}),
        ({"sent": 2}, {RECEIPT.name: 3_500}),
        ({"sent": 2, **FAILED}, {}),
        ({"replay": "rpl_1"}, {}),
        ({"created_at": DETECTED + 1}, {}),
    ],
)
def test_the_first_attempt_and_the_receipt_of_a_timely_event_are_observed(of, waits):
    found = counts(**of)
    sums = {name.split("|")[0]: value for name, value in found.items() if name.endswith("|sum")}
    assert sums == {ATTEMPT_DURATION.name: TOOK, **waits}


@pytest.mark.parametrize(
    ("of", "counted"),
    [
        ({}, {"attempts_total|delivered", "deliveries_total|delivered"}),
        (FAILED, {"attempts_total|status"}),
        ({**FAILED, "result": "D"}, {"attempts_total|status", "deliveries_total|dead"}),
        ({"replay": "rpl_1"}, {"attempts_total|delivered", "replayed_total|delivered"}),
    ],
)
def test_an_attempt_and_the_delivery_that_it_ends_are_counted(of, counted):
    found = counts(**of)
    assert {name for name in found if "total" in name} == counted
    assert {found[name] for name in counted} == {1}
