"""What the owners of subscriptions are granted, from the poll to the outbox."""

from __future__ import annotations

import msgspec
import pytest

from service.domain.access.grants import ApiKey, Grant, Scope
from service.domain.polling.integration import Baseline
from service.ids import new_id

LABELS = {"tenant": "a"}
EVERY_TYPE = ("course.created", "integration.baseline_completed")


@pytest.fixture
async def open_key(services):
    async def open_key(**grant) -> str:
        key = ApiKey(
            id=new_id("key"),
            name="k",
            scope=Scope.SUBSCRIBER,
            created_at=1,
            updated_at=1,
            grant=Grant(**grant),
        )
        await services.api_keys.create(key)
        return key.id

    return open_key


@pytest.mark.parametrize("sandbox", [20], indirect=True)
async def test_outboxes_get_what_their_owners_are_granted(register, subscribe, open_key):
    integration = await register(baseline=Baseline.EMIT, labels=LABELS)
    wanted = {
        await open_key(labels=LABELS): 20,
        await open_key(labels={**LABELS, "region": "eu"}): 0,
        await open_key(integration_ids=(integration.id,)): 20,
        await open_key(integration_ids=("int_x",)): 0,
        "key_gone": 0,
        None: 21,
    }
    outboxes = {owner: await subscribe(owner=owner, event_types=EVERY_TYPE) for owner in wanted}
    await integration.turn()
    assert {owner: (await outbox.depth()).pending for owner, outbox in outboxes.items()} == wanted


@pytest.mark.parametrize("sandbox", [20], indirect=True)
async def test_a_grant_withdrawn_after_the_snapshot_holds_for_what_is_committed(
    register, subscribe, open_key, services
):
    integration = await register(baseline=Baseline.EMIT, labels=LABELS)
    revoked, narrowed, kept = [await open_key(labels=LABELS) for _ in range(3)]
    outboxes = [await subscribe(owner=owner) for owner in (revoked, narrowed, kept)]
    await services.matchers.current(fresh=True)
    await services.api_keys.revoke(revoked)
    await services.api_keys.update(
        narrowed,
        lambda key: msgspec.structs.replace(key, grant=Grant(integration_ids=("int_x",))),
    )
    await integration.turn()
    assert [(await outbox.depth()).pending for outbox in outboxes] == [0, 0, 20]


async def test_a_snapshot_ends_with_the_first_key_that_expires(services, open_key, monkeypatch):
    owner = await open_key(labels=LABELS)
    await services.api_keys.update(
        owner, lambda key: msgspec.structs.replace(key, expires_at=5_000)
    )
    at = [4_999]
    monkeypatch.setattr("service.storage.registry.matcher_cache.now_ms", lambda: at[0])
    first = await services.matchers.current()
    assert await services.matchers.current() is first
    at[0] += 1
    second = await services.matchers.current()
    assert second is not first
    assert await services.matchers.current() is second
