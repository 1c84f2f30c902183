"""Change detection as a whole: whatever happens to an upstream, to its answers and to the
workers, what subscribers are told adds up to what the upstream holds."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from redis.asyncio import Redis

from service.settings import Settings
from tests.histories.steps import Change, Fault, History, Turn, Usurp, histories
from tests.histories.world import World, low_limits

pytestmark = pytest.mark.slow

# Seldom drawn: a held change is shown by the record of another, and undone.
SHOWN_AND_UNDONE = History(
    courses=9,
    seed=0,
    skew_minutes=0,
    emit=True,
    guards={"changed_count": 5},
    ignored=(),
    track_remote_data=False,
    steps=(
        Turn("full"),
        Change("field_off", path="custom_fields"),
        Change("edit", pick=1, path="revisions.title"),
        Turn("delta"),
        Change("field_on", path="custom_fields"),
    ),
)
# Seldom drawn: a held change is shown by the record of another, and its undoing by that of a third.
SHOWN_AND_SHOWN_UNDONE = History(
    courses=20,
    seed=0,
    skew_minutes=0,
    emit=True,
    guards={"changed_count": 2},
    ignored=(),
    track_remote_data=True,
    steps=(
        Turn("full"),
        Change("edit", pick=21, many=6, path="revisions.title", late=1),
        Change("edit", pick=2, many=34, path="custom_fields", late=7),
        Turn("delta"),
        Change("field_off", path="custom_fields"),
        Change("edit", pick=44, path="revisions.title"),
    ),
)
# Seldom drawn: a worker that was held up goes on after another has completed the baseline.
BASELINED_MEANWHILE = History(
    courses=1,
    seed=0,
    skew_minutes=0,
    emit=False,
    guards={},
    ignored=(),
    track_remote_data=False,
    steps=(
        Change("edit", path="revisions.title"),
        Fault("empty", on="any", times=1, hides=(), fields={}),
        Turn("delta", amid=((0, Usurp()), (0, Usurp()))),
        Turn("delta"),
        Turn("delta"),
        Turn("delta"),
    ),
)
PLENTY = (HealthCheck.too_slow, HealthCheck.data_too_large)


@pytest.fixture(scope="module")
def carry_out(valkey_url: str, valkey_admin_url: str) -> Iterator[Callable[[History], None]]:
    """Carries a history out over an empty database of a real server, which is faster at this
    than a simulated one."""
    configured = Settings.from_env(
        {
            "COURSEWIRE_REDIS_URL": valkey_url,
            "COURSEWIRE_ENCRYPTION_KEYS": base64.urlsafe_b64encode(bytes(32)).decode(),
        }
    )

    async def begin_anew(history: History) -> None:
        await admin.flushall()
        await World(redis, configured, history).carry_out()

    with asyncio.Runner() as runner, low_limits():
        redis = Redis.from_url(valkey_url, driver_info=None)
        admin = Redis.from_url(valkey_admin_url)
        yield lambda history: runner.run(begin_anew(history))
        runner.run(redis.aclose())
        runner.run(admin.aclose())


@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=PLENTY,
)
@given(history=histories)
@example(history=SHOWN_AND_UNDONE)
@example(history=SHOWN_AND_SHOWN_UNDONE)
@example(history=BASELINED_MEANWHILE)
def test_whatever_happens_what_is_told_adds_up_to_what_is_there(carry_out, history):
    carry_out(history)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@settings(
    max_examples=1_500,
    deadline=None,
    derandomize=False,
    database=None,
    print_blob=True,
    suppress_health_check=PLENTY,
)
@given(history=histories)
def test_it_adds_up_in_histories_that_are_others_every_night(carry_out, history):
    carry_out(history)
