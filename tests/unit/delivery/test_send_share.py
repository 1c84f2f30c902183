from __future__ import annotations

import asyncio
import math
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from service.domain.delivery.outbox_window import Entry
from service.domain.delivery.outcome import Outcome, OutcomeClass
from service.domain.delivery.subscription import Rendering
from workers.delivery import attempts_in_flight
from workers.delivery.attempt_verdict import PendingAttempt
from workers.delivery.attempts_in_flight import AttemptsInFlight
from workers.send_share import LEAST, MOST, SendShare


class Clock:
    """Stands still unless a test changes `now`, seconds."""

    def __init__(self):
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(attempts_in_flight, "time", clock)
    return clock


class SlowReceiver:
    """Answers when `answer` is set."""

    def __init__(self):
        self.answer = asyncio.Event()

    async def post(self, *_, **__):
        await self.answer.wait()
        return Outcome(kind=OutcomeClass.DELIVERED, duration_ms=1)


def in_flight(receiver: SlowReceiver, share: SendShare) -> AttemptsInFlight:
    turn = SimpleNamespace(
        lease_is_over=lambda: False,
        redis_ms=lambda at: at,
        progress=asyncio.Event(),
        permissions=SimpleNamespace(
            headers={},
            signer=SimpleNamespace(headers=lambda *_: {}),
            redactor=None,
            certificate=None,
        ),
        subscription=SimpleNamespace(url="http://receiver/", timeout_seconds=1),
    )
    return AttemptsInFlight(receiver, turn, share)


def attempt() -> PendingAttempt:
    entry = Entry("1-0", "key", next(iter(Rendering)))
    return PendingAttempt(entry, SimpleNamespace(id="evt_1", body=b"{}"))


def test_turns_under_way_divide_the_process_and_none_gets_less_than_the_least():
    share = SendShare()
    with ExitStack() as turns:
        turns.enter_context(share.turn())
        assert share.attempts == MOST
        turns.enter_context(share.turn())
        assert share.attempts == MOST // 2
        for _ in range(MOST):
            turns.enter_context(share.turn())
        assert share.attempts == LEAST
    assert share.attempts == MOST


async def test_a_turn_waits_once_its_share_is_in_flight_until_its_attempts_are_slow(clock: Clock):
    share, receiver = SendShare(), SlowReceiver()
    with ExitStack() as turns:
        for _ in range(MOST):
            turns.enter_context(share.turn())
        sending = in_flight(receiver, share)
        for _ in range(LEAST):
            assert sending.seconds_to_room(100) == 0
            sending.begin(attempt())
        assert sending.seconds_to_room(100) == pytest.approx(share.fast_seconds)
        assert sending.seconds_to_room(LEAST) == math.inf

        clock.now += share.fast_seconds
        assert sending.seconds_to_room(100) == 0
        assert sending.seconds_to_room(LEAST) == math.inf, "slow attempts count for the limit"
        receiver.answer.set()
        await asyncio.gather(*sending.tasks)


async def test_a_busy_process_takes_no_attempt_for_a_slow_one(clock: Clock):
    share, receiver = SendShare(), SlowReceiver()
    idle = share.fast_seconds
    for _ in range(1_000):
        share.note_delay(0.05)
    assert share.fast_seconds > idle + 0.35  # an attempt waits for several iterations of the loop
    with share.turn():
        sending = in_flight(receiver, share)
        for _ in range(share.attempts):
            sending.begin(attempt())
        clock.now += 2 * idle
        assert sending.seconds_to_room(MOST + 1) > 0
        receiver.answer.set()
        await asyncio.gather(*sending.tasks)
    for _ in range(1_000):
        share.note_delay(0)
    assert share.fast_seconds < 1.01 * idle


async def test_each_attempt_tells_how_long_it_waited_for_the_loop():
    share, receiver = SendShare(), SlowReceiver()
    idle = share.fast_seconds
    sending = in_flight(receiver, share)
    receiver.answer.set()
    sending.begin(attempt())
    await asyncio.gather(*sending.tasks)
    assert share.fast_seconds > idle


async def test_an_attempt_that_ends_makes_room():
    share, receiver = SendShare(), SlowReceiver()
    with share.turn():
        sending = in_flight(receiver, share)
        sending.begin(attempt())
        assert sending.seconds_to_room(1) == math.inf
        receiver.answer.set()
        await asyncio.gather(*sending.tasks)
        (completed,) = sending.collect()
        assert completed.outcome.delivered
        assert sending.seconds_to_room(1) == 0
