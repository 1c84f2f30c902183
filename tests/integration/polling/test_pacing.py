"""When an integration is polled: one poll at a time, none made up for, none left out."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from service.clock import now_ms
from service.storage.redis import keys
from service.storage.scheduling.schedule import ClaimLimit
from tests.integration.conftest import redis_now, set_polling_clock
from workers.polling.poll import poll_batch

MINUTE, DAY = 60_000, 86_400_000


class Paced:
    """A baselined integration that is polled when the schedule says so, and not before."""

    def __init__(self, integration) -> None:
        self.integration = integration
        self.services = integration.services
        self.id = integration.id

    async def claim(self) -> list[int]:
        """The token of a claim on it, if it is due."""
        limits = [ClaimLimit("polls", "q", 10, 10)]
        (claims,) = await self.services.schedule.claim(limits, 30_000)
        return [claims.token] if claims.ids else []

    async def run(self) -> int:
        """Polls as long as it is due; returns how often that was."""
        turns = 0
        while tokens := await self.claim():
            await poll_batch(self.integration.context, [(self.id, *tokens)])
            turns += 1
            assert turns < 20
        return turns

    async def due_in(self) -> float:
        """The ms until the one time at which it is due."""
        ((_, due),) = await self.services.redis.zrange(keys.due("polls"), 0, -1, withscores=True)
        return due - await redis_now(self.services.redis)

    async def kinds(self) -> Counter[str]:
        """Its completed polls, but for the baseline."""
        polls = await self.services.integrations.list_polls(self.id)
        assert {poll.state for poll in polls} == {"completed"}
        return Counter(poll.kind for poll in polls) - Counter(["full"])

    def amid_the_next_poll(self, act) -> None:
        """Acts once, after the first page of the next poll has arrived."""
        upstream = self.services.upstream
        fetch = upstream.fetch_page

        async def fetch_then_act(*arguments):
            upstream.fetch_page = fetch
            page = await fetch(*arguments)
            await act()
            return page

        upstream.fetch_page = fetch_then_act


@pytest.fixture
async def paced(register, monkeypatch):
    integration = await register(delta_interval_seconds=60)
    await integration.turn()
    # No full poll, but where a test wants one.
    monkeypatch.setattr("service.domain.polling.integration.full_due_at", lambda *_: 10**15)
    return Paced(integration)


async def test_nothing_makes_an_integration_due_while_it_is_polled(paced):
    services, claimed = paced.services, []

    async def try_everything() -> None:
        await services.schedule.wake("polls", paced.id)
        await services.integrations.request_poll(paced.id, "full", now_ms())
        await services.integrations.update(
            paced.id, lambda old: msgspec.structs.replace(old, delta_interval_seconds=300)
        )
        claimed.extend(await paced.claim())

    paced.amid_the_next_poll(try_everything)
    await services.integrations.request_poll(paced.id, "delta", now_ms())
    await paced.run()

    assert claimed == []
    assert await paced.kinds() == {"delta": 1, "full": 1}  # what was asked for came after it


async def test_polls_missed_while_no_worker_ran_are_one_poll(paced):
    redis = paced.services.redis.admin
    await redis.zadd(keys.due("polls"), {paced.id: now_ms() - DAY})
    for field in ("watermark", "last_delta_at"):
        await redis.hincrby(keys.integration(paced.id), field, -DAY)

    assert await paced.run() == 1

    assert await paced.kinds() == {"delta": 1}
    assert 0 < await paced.due_in() <= MINUTE


async def test_full_polls_missed_while_no_worker_ran_are_one_full_poll(paced, monkeypatch):
    monkeypatch.undo()
    redis = paced.services.redis.admin
    await redis.zadd(keys.due("polls"), {paced.id: now_ms() - 5 * DAY})
    await redis.hincrby(keys.integration(paced.id), "last_full_at", -5 * DAY)

    assert await paced.run() == 1

    assert await paced.kinds() == {"full": 1}
    assert 0 < await paced.due_in() <= MINUTE


async def test_a_poll_that_outlasts_its_interval_leaves_one_behind_it(paced, monkeypatch):
    ahead = 0

    async def take_long() -> None:
        nonlocal ahead
        ahead = 20 * MINUTE

    set_polling_clock(monkeypatch, lambda: now_ms() + ahead)
    paced.amid_the_next_poll(take_long)
    await paced.services.redis.zadd(keys.due("polls"), {paced.id: 0})

    assert await paced.run() == 1

    assert MINUTE - 5_000 < await paced.due_in() <= MINUTE


async def test_a_poll_that_was_joined_is_followed_at_once_by_one_that_sees_it_all(paced, sandbox):
    first, *_ = await sandbox.courses()
    joined = []

    async def edit_behind_it_and_ask() -> None:
        await sandbox.change({"op": "edit", "course_id": first["id"]})
        poll = await paced.services.integrations.request_poll(paced.id, "delta", now_ms())
        joined.append(poll)

    paced.amid_the_next_poll(edit_behind_it_and_ask)
    asked_for = await paced.services.integrations.request_poll(paced.id, "full", now_ms())

    assert await paced.run() == 2

    assert [poll.id for poll in joined] == [asked_for.id]
    assert await paced.kinds() == {"full": 1, "delta": 1}
    *_, event = await paced.integration.events()
    assert (event.type, event.course_id) == ("course.updated", first["id"])
    assert 0 < await paced.due_in() <= MINUTE


async def test_a_review_decided_during_a_poll_is_carried_out_at_once(paced, sandbox):
    services = paced.services
    await sandbox.change({"op": "delete", "count": 100})
    await services.integrations.request_poll(paced.id, "delta", now_ms())
    await paced.run()
    epoch = (await paced.integration.state()).epoch

    async def decide() -> None:
        version = (await services.reviews.get(paced.id, epoch)).version
        await services.reviews.decide(paced.id, epoch, version, "publish")

    paced.amid_the_next_poll(decide)
    await services.integrations.request_poll(paced.id, "delta", now_ms())

    assert await paced.run() == 2

    assert (await paced.integration.state()).decision is None
    types = Counter(event.type for event in await paced.integration.events())
    assert types["course.deleted"] == 100
    assert 0 < await paced.due_in() <= MINUTE


async def test_a_full_poll_that_always_fails_leaves_time_to_deltas(register, sandbox, monkeypatch):
    """Otherwise one page that the upstream cannot serve would silence an integration."""
    integration = await register()
    await integration.turn()
    await sandbox.fault("html", on="later")
    await integration.services.integrations.request_poll(integration.id, "full", now_ms())
    await integration.turn()
    later = now_ms() + 11 * 60_000
    monkeypatch.setattr("workers.polling.poll.now_ms", lambda: later)
    await integration.turn()
    state = await integration.state()
    assert state.full_retry_at == later + 3_600_000

    # The next full poll would be due, and is not tried yet.
    await integration.services.redis.hset(keys.integration(integration.id), "last_full_at", 1)
    (edited,) = await sandbox.change({"op": "edit", "count": 1})
    await integration.turn()
    assert (await integration.events())[-1].course_id == edited["course_id"]
    assert (await integration.state()).problem is not None  # full polls still fail

    monkeypatch.setattr("workers.polling.poll.now_ms", lambda: later + 3_600_001)
    await sandbox.heal()
    await integration.turn()
    state = await integration.state()
    assert (state.full_retry_at, state.problem) == (None, None)
    assert state.last_full_at == later + 3_600_001
