from __future__ import annotations

from service.domain.polling.integration import Baseline
from service.storage.redis import keys
from service.storage.redis.keys import LASTING


async def test_every_key_has_a_lifetime_or_is_on_the_list_of_those_that_last(
    register,
    sandbox,
    subscribe,
    hook,
    context,
    services,
):
    harness = await subscribe()
    hook.answer = lambda event: 204 if event["type"] == "course.created" else 500
    integration = await register(baseline=Baseline.EMIT)
    await integration.turn()
    await sandbox.fault("error", code="PLATFORM.RATE_LIMIT_EXCEEDED", times=1, retry_after=9)
    await sandbox.change({"op": "edit", "count": 5}, {"op": "vanish", "count": 1})
    await integration.turn()
    registered, _ = await services.integrations.get(integration.id)
    await services.redis.delete(keys.budget(registered.credential_id))
    await integration.poll("full")
    await harness.turn()

    without = [
        name.decode()
        for name in await services.redis.admin.keys("cw:*")
        if await services.redis.admin.ttl(name) == -1
    ]
    assert [name for name in without if not name.startswith(LASTING)] == []
    assert without  # the scan saw the lasting ones
