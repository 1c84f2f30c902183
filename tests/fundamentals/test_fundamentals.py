"""Read these first: what Coursewire promises, one concept a test.

The upstream is the sandbox, the server a real Valkey, and the receiver verifies each signature
with the Standard Webhooks library. Nothing runs by itself: a test polls and delivers when it
says so.
"""

from __future__ import annotations

import asyncio

import msgspec
from standardwebhooks import Webhook

from service.clock import now_ms
from service.domain.replay.replay import Replay
from service.domain.signatures.signing import rotated
from service.ids import new_id
from service.storage.redis import keys
from service.storage.registry.subscriptions import new_secret
from workers.delivery.drain import deliver_batch
from workers.polling.poll import poll_batch


async def test_a_change_travels_from_the_upstream_to_the_subscriber(world, sandbox):
    (edited,) = await sandbox.change({"op": "edit", "count": 1})

    await world.poll()
    await world.deliver()

    (event,) = world.received()
    assert event["type"] == "course.updated"
    assert event["data"]["course_id"] == edited["course_id"]
    assert event["data"]["changed"]
    assert event["data"]["course"]["id"] == edited["course_id"]


async def test_the_baseline_reports_no_courses(world):
    """The first full poll learns what there is. Only later polls know what changed."""
    await world.deliver()

    assert world.received() == []
    assert (await world.integration.state()).course_count == 600


async def test_the_same_catalogue_again_is_no_change(world):
    await world.poll("full")
    await world.deliver()

    assert world.received() == []


async def test_a_failed_delivery_is_retried_with_the_same_id_and_the_same_bytes(world, sandbox):
    await sandbox.change({"op": "edit", "count": 1})
    await world.poll()
    world.receiver.answer = lambda _event: 503
    await world.deliver()

    world.receiver.answer = lambda _event: 204
    await world.subscription.make_retries_due()
    await world.subscription.services.redis.hdel(
        keys.outbox_state(world.subscription.id), "breaker"
    )  # the pause that a 503 asks for
    await world.deliver()

    first, second = [one for one in world.receiver.received if one[1]["type"] == "course.updated"]
    assert (first[0], first[2]) == (second[0], second[2])
    assert (await world.subscription.depth()).pending == 0


async def test_the_events_of_a_course_arrive_in_order_and_hold_up_no_other_course(subscribe, hook):
    subscription = await subscribe()
    hook.answer = lambda event: 500 if event["data"]["course_id"] == "stuck" else 204
    await subscription.emit("stuck", "free", "stuck", "free")

    await subscription.turn()
    assert sorted(hook.courses()) == ["free", "free", "stuck"]

    hook.answer = lambda _event: 204
    await subscription.make_retries_due()
    await subscription.turn()
    stuck = [one["data"]["course"]["n"] for _, one, _ in hook.received if "stuck" in str(one)]
    assert stuck == [0, 0, 2]


async def test_a_deletion_needs_evidence(world, sandbox):
    """A course that a full poll does not show is asked for by id before it is reported deleted."""
    (gone,) = await sandbox.change({"op": "vanish", "count": 1})
    await sandbox.fault("vanish", on="walk", share=0.01)

    await world.poll("full")
    await world.deliver()

    (event,) = world.received()
    assert (event["type"], event["data"]["course_id"]) == ("course.deleted", gone["course_id"])
    assert event["data"]["evidence"] == "absence"


async def test_too_many_deletions_are_held_for_review(world, sandbox):
    await sandbox.change({"op": "delete", "count": 200})
    await world.poll()
    await world.deliver()

    assert world.received() == []
    assert (await world.integration.state()).held == 200


async def test_a_dead_subscriber_is_parked_and_keeps_its_events(subscribe, hook):
    subscription = await subscribe()
    hook.answer = lambda _event: 500
    await subscription.emit(*(f"c{number}" for number in range(40)))

    await subscription.turn()
    subscription.pass_time(120)
    await subscription.make_retries_due()
    await subscription.turn()

    assert (await subscription.depth()).pending == 40
    assert await subscription.services.redis.hexists(keys.outbox_state(subscription.id), "parked")


async def test_a_replay_sends_the_past_again(world, sandbox):
    await sandbox.change({"op": "edit", "count": 3})
    await world.poll()
    await world.deliver()
    services = world.subscription.services

    end, _ = await services.events.bounds()
    replay = Replay(id=new_id("rpl"), subscription_id=world.subscription.id, which="all", end=end)
    await services.replays.create(replay)
    await world.deliver()

    ids = [one["data"]["course_id"] for one in world.received("course.updated")]
    assert len(ids) == 6
    assert sorted(ids[:3]) == sorted(ids[3:])


async def test_both_secrets_sign_while_they_overlap(world, sandbox):
    old, new = world.receiver.secret, new_secret()
    services = world.subscription.services
    await services.subscriptions.rotate(
        world.subscription.id,
        lambda before, secrets: (
            msgspec.structs.replace(before, updated_at=now_ms()),
            rotated(secrets, new, 3_600_000, now_ms()),
        ),
    )
    await sandbox.change({"op": "edit", "count": 1})
    await world.poll()
    await world.deliver()

    (_, _, body), headers = world.receiver.received[-1], world.receiver.headers[-1]
    for secret in (old, new):
        Webhook(secret).verify(body, dict(headers))


async def test_two_workers_with_one_claim_poll_once_and_send_once(world, sandbox):
    await sandbox.change({"op": "edit", "count": 5})
    claim = await world.integration.claim()
    context = world.integration.context

    await asyncio.gather(*(poll_batch(context, [(world.integration.id, claim)]) for _ in range(2)))
    claim = await world.subscription.claim()
    await asyncio.gather(*(deliver_batch(context, [(world.subscription.id, claim)]) for _ in "ab"))

    assert len(world.received()) == 5


async def test_what_a_rollback_of_redis_forgets_is_found_again(world, sandbox):
    """A server that comes back without its last second has forgotten a change that was published.
    The next poll finds the change again, as a new event with a higher sequence."""
    redis = world.subscription.services.redis
    before = {key: await redis.admin.dump(key) async for key in redis.admin.scan_iter("cw:*")}
    await sandbox.change({"op": "edit", "count": 1})
    await world.poll()
    await world.deliver()

    await redis.admin.flushall()
    for key, value in before.items():
        await redis.admin.restore(key, 0, value)
    await world.poll()
    await world.deliver()

    (first_id, first, _), (second_id, second, _) = world.receiver.received
    assert first["data"]["course"] == second["data"]["course"]
    assert first_id != second_id
    assert first["data"]["sequence"] < second["data"]["sequence"]
