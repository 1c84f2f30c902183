from __future__ import annotations

import asyncio

from redis.exceptions import ConnectionError as RedisConnectionError

from workers import scheduler
from workers.scheduler import (
    BUSY_TURN_SECONDS,
    MAX_WAIT_SECONDS,
    TURN_SECONDS,
    pause,
    sample_history,
)


def test_an_idle_second_is_one_turn_and_a_busy_one_several():
    assert pause(0, busy=False) == TURN_SECONDS == 1.0
    assert pause(0, busy=True) == BUSY_TURN_SECONDS < TURN_SECONDS / 2


def test_while_redis_is_away_turns_become_rarer_however_busy_it_was():
    waits = [pause(failures, busy=True) for failures in range(1, 8)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (TURN_SECONDS, MAX_WAIT_SECONDS)


async def test_metrics_are_sampled_again_once_redis_is_back(monkeypatch):
    monkeypatch.setattr(scheduler, "MAX_WAIT_SECONDS", 0)
    stop = asyncio.Event()

    class History:
        calls = 0

        async def sample(self) -> float:
            self.calls += 1
            if self.calls < 3:
                raise RedisConnectionError
            stop.set()
            return 60

    history = History()
    await asyncio.wait_for(sample_history(history, stop), 5)
    assert history.calls == 3
