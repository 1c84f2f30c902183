"""Change detection as a whole: whatever happens to an upstream, to its answers and to the
workers, what subscribers are told adds up to what it holds."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from redis.asyncio import Redis

from service.settings import Settings
from tests.histories.steps import History, histories
from tests.histories.world import World, low_limits

import os


@pytest.fixture(scope="module")
def carry_out(valkey_url: str) -> Iterator:
    configured = Settings.from_env(
        {
            "COURSEWIRE_REDIS_URL": valkey_url,
            "COURSEWIRE_ENCRYPTION_KEYS": base64.urlsafe_b64encode(bytes(32)).decode(),
        }
    )

    async def in_a_clean_database(history: History) -> None:
        await redis.flushall()
        await World(redis, configured, history).carry_out()

    with asyncio.Runner() as runner, low_limits():
        if os.environ.get("FAKE"):
            from fakeredis import FakeAsyncRedis

            class Fake(FakeAsyncRedis):
                async def info(self, section=None):
                    return {"run_id": "fake"}

            async def open_():
                return Fake()

            redis = runner.run(open_())
        else:
            redis = Redis.from_url(valkey_url)
        yield lambda history: runner.run(in_a_clean_database(history))
        runner.run(redis.aclose())


HISTORIES = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@settings(
    HISTORIES,
    max_examples=int(os.environ.get("N", "50")),
    derandomize=not os.environ.get("RANDOM_"),
)
@given(history=histories)
def test_whatever_happens_what_was_told_adds_up_to_what_is_there(carry_out, history):
    carry_out(history)
