"""Leases: renewed together, lost at once, and taken over by the next process of the same name."""

from __future__ import annotations

import asyncio

import pytest

from service.domain.errors import LeaseLostError
from service.storage.redis import keys
from service.storage.scheduling import leases as module
from service.storage.scheduling.leases import Lease, Leases

CLAIM = 9_000_000_000_000_000


async def taken(redis, leases: Leases, owned_id: str, ms: int = 10_000) -> Lease:
    await redis.zadd(keys.claimed("outboxes"), {owned_id: CLAIM})
    lease = await leases.take("outboxes", owned_id, CLAIM, ms)
    assert lease is not None
    return lease


async def scripts_run(redis) -> int:
    return (await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a renewal tells nobody
            await asyncio.sleep(0.01)


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(module, "RENEWAL_SECONDS", 0.05)
    monkeypatch.setattr(module, "RETURN_SECONDS", 0.05)


async def hold(leases: Leases, lease: Lease) -> None:
    with leases.kept(lease):
        await asyncio.Event().wait()


async def test_one_script_renews_all_leases_of_a_process_and_none_runs_without(redis, often):
    others, leases = asyncio.all_tasks(), Leases(redis)
    held = [await taken(redis, leases, f"sub_{number}", 1_000) for number in range(100)]
    turns = [asyncio.create_task(hold(leases, lease)) for lease in held]
    begun, expired = await scripts_run(redis), held[0].expires

    await until(lambda: held[0].expires > expired + 1.5)
    assert await scripts_run(redis) - begun < 40  # a hundred a renewal, if each had its own
    assert all(lease.remaining() > 0.5 for lease in held)
    for turn in turns:
        turn.cancel()
    await asyncio.gather(*turns, return_exceptions=True)
    await until(lambda: asyncio.all_tasks() == others)
    assert await redis.zscore(keys.claimed("outboxes"), "sub_0") < CLAIM


@pytest.mark.parametrize("how", ["passed on", "ran out"])
async def test_work_is_cancelled_when_its_lease_is_lost(redis, often, monkeypatch, how):
    leases = Leases(redis)
    lost, kept = [await taken(redis, leases, one, 1_000) for one in ("sub_1", "sub_2")]
    other = asyncio.create_task(hold(leases, kept))
    if how == "passed on":
        await redis.set(lost.key, "another")
    else:
        monkeypatch.setattr(module, "RENEWAL_SECONDS", 60)
        other.cancel()
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(hold(leases, lost), 10)
    assert lost.remaining() <= 0
    if how == "passed on":
        assert not other.done()
        assert await redis.get(lost.key) == b"another"
        other.cancel()
    await asyncio.gather(other, return_exceptions=True)


async def test_a_restarted_process_takes_over_what_the_one_of_its_name_held(redis):
    dead, other, nameless = Leases(redis, "one"), Leases(redis, "one-2"), Leases(redis)
    for number, leases in enumerate((dead, other, nameless)):
        await taken(redis, leases, f"sub_{number}")
    claims = {"sub_begun": CLAIM, "sub_queued": CLAIM, "sub_held_back": CLAIM, "sub_again": CLAIM}
    await redis.zadd(keys.claimed("outboxes"), claims)
    begun = {"polls": {}, "outboxes": {"sub_begun": CLAIM, "sub_again": CLAIM - 1, "sub_1": CLAIM}}

    assert await nameless.reclaim(begun) == 0
    assert await Leases(redis, "one").reclaim(begun) == 2
    assert set(await redis.zrange(keys.due("outboxes"), 0, -1)) == {b"sub_0", b"sub_begun"}
    assert set(await redis.zrange(keys.claimed("outboxes"), 0, -1)) == {
        b"sub_1", b"sub_2", b"sub_queued", b"sub_held_back", b"sub_again",
    }  # fmt: skip
    assert await redis.exists(keys.lease("outboxes", "sub_0")) == 0
    assert await redis.exists(keys.lease("outboxes", "sub_1")) == 1
