from __future__ import annotations

from workers.scheduler import BUSY_TURN_SECONDS, MAX_WAIT_SECONDS, TURN_SECONDS, pause


def test_an_idle_second_is_one_turn_and_a_busy_one_several():
    assert pause(0, busy=False) == TURN_SECONDS == 1.0
    assert pause(0, busy=True) == BUSY_TURN_SECONDS < TURN_SECONDS / 2


def test_while_redis_is_away_turns_become_rarer_however_busy_it_was():
    waits = [pause(failures, busy=True) for failures in range(1, 8)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (TURN_SECONDS, MAX_WAIT_SECONDS)
