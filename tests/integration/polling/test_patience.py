"""How long failing polls are tried again, and how long a delta waits behind a failing full poll."""

from __future__ import annotations

import pytest

from service.clock import now_ms
from tests.integration.conftest import new_integration, set_polling_clock
from tests.integration.polling.shelf import Shelf

MINUTE = 60_000


class Clock:
    """The worker's clock, which goes on only as a test says."""

    def __init__(self) -> None:
        self.now = now_ms()

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    set_polling_clock(monkeypatch, clock)
    return clock


@pytest.fixture
async def shelf(scripted):
    shelf = Shelf(scripted)
    shelf.put("a", "b", "c")
    return shelf


@pytest.fixture
async def integration(context, scripted, shelf, clock):
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    assert (await integration.state()).baselined
    return integration


async def fail_until_over(integration, clock, kind: str) -> tuple[int, list[float]]:
    """Asks for a poll that fails, and takes its turns as they fall due; returns how many ms passed
    and the waits."""
    poll = await integration.services.integrations.request_poll(integration.id, kind, clock.now)
    began, waits = clock.now, []
    while True:
        await integration.turn()
        waits.append(await integration.due_in())
        found = await integration.services.integrations.get_poll(integration.id, poll.id)
        if found.state == "failed":
            return clock.now - began, waits
        clock.now += int(max(0, waits[-1]) * 1000) + 1
        assert len(waits) < 1_000


@pytest.mark.parametrize("chance", [pytest.param(0.0, marks=pytest.mark.slow), 0.3, 0.999])
async def test_a_failing_full_poll_is_given_up_after_ten_minutes_and_a_delta_goes_at_once(
    integration, shelf, clock, monkeypatch, chance
):
    monkeypatch.setattr("workers.polling.poll.random.random", lambda: chance)
    shelf.status = 503

    passed, waits = await fail_until_over(integration, clock, "full")

    assert 10 * MINUTE - 2_000 <= passed <= 10 * MINUTE + 2_000
    assert waits[-1] <= 1  # of the delta
    (failed, *_) = await integration.polls()
    assert failed.error.endswith("; stopped after 10 minutes without a page")
    shelf.status = 200
    await integration.turn()
    (delta, *_) = await integration.polls()
    assert (delta.kind, delta.state) == ("delta", "completed")


@pytest.mark.parametrize("chance", [0.3, 0.999])
async def test_a_failing_delta_is_given_up_after_half_an_hour(
    integration, shelf, clock, monkeypatch, chance
):
    monkeypatch.setattr("workers.polling.poll.random.random", lambda: chance)
    shelf.status = 503
    passed, _ = await fail_until_over(integration, clock, "delta")
    assert 30 * MINUTE - 2_000 <= passed <= 30 * MINUTE + 2_000
    (failed, *_) = await integration.polls()
    assert "30 minutes without a page" in failed.error
    assert "503" in failed.error


async def test_a_wait_that_the_upstream_asks_for_is_kept_to_and_ends_a_full_poll_that_cannot_wait(
    integration, shelf, clock
):
    shelf.status, shelf.headers = 503, {"retry-after": "240"}
    passed, waits = await fail_until_over(integration, clock, "full")
    assert waits[:2] == [pytest.approx(240, abs=2)] * 2
    assert passed == pytest.approx(8 * MINUTE, abs=2_000)
    (failed, *_) = await integration.polls()
    assert failed.error.endswith(
        "; stopped: the upstream requests a wait of 4 minutes, longer than what is left of "
        "10 minutes"
    )
    # The delta keeps to it too.
    assert waits[2] == pytest.approx(240, abs=2)


async def test_a_wait_for_the_rate_limit_makes_a_full_poll_no_older(integration, shelf, clock):
    shelf.status, shelf.headers = 429, {"retry-after": "300"}
    poll = await integration.services.integrations.request_poll(integration.id, "full", clock.now)
    for _ in range(5):  # 25 minutes
        await integration.turn()
        clock.now += 300_000
        await integration.services.redis.delete(
            *await integration.services.redis.admin.keys("cw:budget:*")
        )
        found = await integration.services.integrations.get_poll(integration.id, poll.id)
        assert found.state == "running"
        assert "429" in found.error
    shelf.status = 200
    await integration.turn()
    found = await integration.services.integrations.get_poll(integration.id, poll.id)
    assert found.state == "completed"
