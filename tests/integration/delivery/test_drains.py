from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
from standardwebhooks import Webhook

from service.clock import now_ms
from service.domain.access.grants import ApiKey, Grant, Scope
from service.domain.delivery.subscription import Format, Payload, Rendering
from service.domain.errors import DecryptionError
from service.domain.events.event import CONTENT_TYPES, render
from service.domain.signatures.signing import Signature, read_public_key, read_secret, rotated
from service.domain.signatures.verification import fault
from service.ids import new_id
from service.storage.delivery.deliveries import Wanted
from service.storage.delivery.outboxes import NOT_GRANTED
from service.storage.redis import keys
from service.storage.registry.subscriptions import new_secret
from workers.delivery.drain import UNRECORDED, deliver_batch


async def test_every_event_is_signed_sent_recorded_and_leaves_the_outbox(subscribe, hook):
    harness = await subscribe()
    await harness.emit(*(f"c{number}" for number in range(300)))
    hook.gate.clear()
    turn = asyncio.create_task(harness.turn())
    await hook.holds(8)
    hook.gate.set()
    await turn
    assert sorted(hook.courses()) == sorted(f"c{number}" for number in range(300))
    assert hook.most_at_once == 8
    assert (await harness.depth()).pending == 0
    deliveries = await harness.deliveries("delivered")
    assert len(deliveries) == 100
    (attempt,) = deliveries[0].attempts
    assert (attempt.outcome, attempt.status, attempt.number) == ("delivered", 204, 1)
    assert await harness.services.redis.zcard(keys.due("outboxes")) == 0


async def test_a_failing_course_waits_in_order_and_holds_up_no_other(subscribe, hook):
    harness = await subscribe()
    hook.answer = lambda event: 500 if event["data"]["course_id"] == "bad" else 204
    await harness.emit("bad", "good", "bad", "good", "bad", "other")
    await harness.turn()
    assert sorted(hook.courses()) == ["bad", "good", "good", "other"]
    assert (await harness.depth()).pending == 3
    (first,) = await harness.deliveries("retrying")
    (attempt,) = first.attempts
    assert (attempt.outcome, attempt.status, attempt.excerpt) == ("status", 500, "so be it")

    hook.answer = lambda _event: 204
    await harness.turn()  # the retry is not due yet, so nothing may pass it
    assert len(hook.received) == 4
    await harness.make_retries_due()
    await harness.turn()
    bad = [event["data"]["course"]["n"] for _, event, _ in hook.received[4:]]
    assert bad == [0, 2, 4]
    assert (await harness.depth()).pending == 0


async def test_a_retry_has_the_same_id_and_the_same_bytes(subscribe, hook):
    harness = await subscribe()
    hook.answer = lambda _event: 500
    await harness.emit("c1")
    await harness.turn()
    await harness.services.subscriptions.update(
        harness.id,
        lambda old: msgspec.structs.replace(old, payload=Payload.THIN, format=Format.CLOUDEVENTS),
    )
    hook.answer = lambda _event: 204
    await harness.make_retries_due()
    await harness.turn()
    (first_id, _, first), (second_id, _, second) = hook.received
    assert (first_id, first) == (second_id, second)


async def test_an_exhausted_schedule_ends_in_a_listed_death_and_frees_the_course(subscribe, hook):
    harness = await subscribe(retry_schedule_seconds=(1, 1))
    hook.answer = lambda event: 500 if event["data"]["course"]["n"] == 0 else 204
    await harness.emit("c1", "c1")
    for _ in range(3):
        await harness.make_retries_due()
        await harness.turn()
    (dead,) = await harness.deliveries("dead")
    assert dead.reason == "3 attempts failed, the last with status 500"
    assert [attempt.number for attempt in dead.attempts] == [1, 2, 3]
    depth = await harness.depth()
    assert (depth.pending, depth.dead) == (0, 1)
    assert [event["data"]["course"]["n"] for _, event, _ in hook.received] == [0, 0, 0, 1]


async def test_retry_after_delays_the_next_attempt(subscribe, hook, context):
    harness = await subscribe()
    post = context.services.receiver.post

    async def ask_for_time(*arguments, **kept):
        outcome = await post(*arguments, **kept)
        return msgspec.structs.replace(outcome, retry_after=3600.0)

    context.services.receiver.post = ask_for_time
    hook.answer = lambda _event: 429
    await harness.emit("c1")
    await harness.turn()
    (delivery,) = await harness.deliveries("retrying")
    (attempt,) = delivery.attempts
    assert attempt.next_attempt_at - attempt.at >= 3_600_000
    assert abs(await harness.next_turn_at() - attempt.next_attempt_at) < 5_000


async def test_what_arrives_during_a_drain_is_sent_in_it(subscribe, hook):
    harness = await subscribe()
    await harness.emit("c1")
    hook.gate.clear()
    turn = asyncio.create_task(harness.turn())
    await hook.holds(1)
    await harness.emit("c2")
    hook.gate.set()
    await turn
    assert hook.courses() == ["c1", "c2"]


async def test_an_event_after_the_last_recording_makes_the_outbox_due(subscribe, hook, context):
    harness = await subscribe()
    await harness.emit("c1")
    outboxes = context.services.outboxes
    record = outboxes.record

    async def record_and_go_on(*arguments):
        standing = await record(*arguments)
        await harness.emit("c2")
        return standing

    outboxes.record = record_and_go_on
    await harness.turn()
    assert hook.courses() == ["c1"]
    outboxes.record = record
    await harness.turn()
    assert hook.courses() == ["c1", "c2"]


async def test_two_senders_with_one_claim_send_once(subscribe, hook, context):
    harness = await subscribe()
    await harness.emit("c1", "c2")
    token = await harness.claim()
    await asyncio.gather(
        deliver_batch(context, [(harness.id, token)]),
        deliver_batch(context, [(harness.id, token)]),
    )
    assert sorted(hook.courses()) == ["c1", "c2"]


async def test_a_sender_whose_lease_passed_on_records_nothing(subscribe, hook):
    harness = await subscribe()
    await harness.emit("c1")
    redis = harness.services.redis.admin
    hook.gate.clear()
    turn = asyncio.create_task(harness.turn())
    await hook.holds(1)
    await redis.set(keys.lease("outboxes", harness.id), "another's token")
    hook.gate.set()
    await turn
    assert (await harness.depth()).pending == 1
    assert await redis.xlen(keys.attempts(harness.id)) == 0


async def test_an_event_that_outlived_the_log_dies_with_that_reason(subscribe, hook):
    harness = await subscribe()
    await harness.emit("c1")
    await harness.services.redis.xtrim(keys.EVENTS, maxlen=0)
    await harness.turn()
    assert hook.received == []
    assert (await harness.depth()).dead == 1


async def test_a_paused_outbox_collects_and_is_sent_when_resumed(subscribe, hook):
    harness = await subscribe(paused=True)
    await harness.emit("c1")
    await harness.turn()
    assert hook.received == []
    assert await harness.services.redis.zcard(keys.due("outboxes")) == 0
    await harness.services.subscriptions.update(
        harness.id, lambda old: msgspec.structs.replace(old, paused=False)
    )
    assert await harness.services.redis.zcard(keys.due("outboxes")) == 1
    await harness.turn()
    assert hook.courses() == ["c1"]


async def test_an_outbox_far_longer_than_its_window_drains_in_order(subscribe, hook, monkeypatch):
    monkeypatch.setattr("service.domain.delivery.outbox_window.MAX_WAITING_PER_COURSE", 3)
    harness = await subscribe()
    await harness.emit(*(f"c{number % 3}" for number in range(60)))
    await harness.turn()
    sent: dict[str, list[int]] = {}
    for _, event, _ in hook.received:
        sent.setdefault(event["data"]["course_id"], []).append(event["data"]["course"]["n"])
    assert all(numbers == sorted(numbers) for numbers in sent.values())
    assert sum(len(numbers) for numbers in sent.values()) == 60


async def test_headers_and_the_secret_reach_only_the_subscriber(subscribe, hook, services):
    harness = await subscribe()
    await harness.emit("c1")
    await harness.turn()
    dump = b"".join(
        [
            await services.redis.admin.dump(key) or b""
            async for key in services.redis.admin.scan_iter("*")
        ]
    )
    assert hook.secret.encode() not in dump
    assert b"x-tenant" not in dump


async def test_an_outbox_whose_first_events_expired_goes_on_to_the_rest(subscribe, hook):
    harness = await subscribe(paused=True)
    await harness.emit(*(f"c{number}" for number in range(100)))
    redis = harness.services.redis.admin
    await redis.xtrim(keys.EVENTS, maxlen=20, approximate=False)
    await harness.services.subscriptions.update(
        harness.id, lambda old: msgspec.structs.replace(old, paused=False)
    )
    await harness.turn()
    assert sorted(hook.courses()) == sorted(f"c{number}" for number in range(80, 100))
    depth = await harness.depth()
    assert (depth.pending, depth.dead) == (0, 80)


async def test_an_outbox_that_lost_its_retries_with_the_servers_last_second_is_due(subscribe, hook):
    harness = await subscribe()
    hook.answer = lambda _event: 500
    await harness.emit("c1")
    release = harness.services.outboxes.release

    async def roll_back_then_release(*arguments, **named):
        await harness.services.redis.delete(
            keys.outbox_retries(harness.id), keys.outbox_failing(harness.id)
        )
        return await release(*arguments, **named)

    harness.services.outboxes.release = roll_back_then_release
    await harness.turn()
    assert await harness.services.redis.zscore(keys.due("outboxes"), harness.id) is not None


async def test_retries_are_timed_by_the_clock_of_redis(subscribe, hook, monkeypatch):
    harness = await subscribe()
    hook.answer = lambda _event: 500
    await harness.emit("c1")
    monkeypatch.setattr("workers.delivery.outbox_turn.now_ms", lambda: now_ms() - 120_000)
    await harness.turn()
    await harness.turn()
    redis = harness.services.redis.admin
    assert len(hook.received) == 1
    now = await harness.now()
    assert await redis.zscore(keys.due("outboxes"), harness.id) > now


async def test_a_sender_frozen_past_its_lease_sends_nothing(subscribe, hook, context):
    harness = await subscribe()
    await harness.emit("c1")
    new, get_many = context.services.leases.new, context.services.events.get_many
    leases = []

    def new_and_shown(*arguments):
        leases.append(new(*arguments))
        return leases[-1]

    async def freeze_then_get(positions):
        leases[0].expires = 0.0
        return await get_many(positions)

    context.services.leases.new = new_and_shown
    context.services.events.get_many = freeze_then_get
    await harness.turn()
    assert hook.received == []
    assert (await harness.depth()).pending == 1


async def test_an_attempt_that_outlasts_its_lease_is_made_once(
    subscribe, hook, context, monkeypatch
):
    monkeypatch.setattr("service.storage.scheduling.leases.RENEWAL_SECONDS", 0.05)
    new, taken = context.services.leases.new, []

    def new_and_short(*arguments):
        taken.append(new(*arguments, 500))
        return taken[-1]

    harness = await subscribe()
    await harness.emit("c1")
    context.services.leases.new = new_and_short
    hook.gate.clear()
    turn = asyncio.create_task(harness.turn())
    await hook.holds(1)
    begun = time.monotonic()
    while taken[-1].expires < begun + 1.5:  # noqa: ASYNC110 - a renewal tells nobody
        await asyncio.sleep(0.01)
    hook.gate.set()
    await turn
    assert hook.courses() == ["c1"]
    assert (await harness.depth()).pending == 0


async def test_a_killed_sender_leaves_a_bounded_number_to_be_sent_again(subscribe, hook, context):
    harness = await subscribe(max_concurrency=3)
    await harness.emit(*(f"c{number}" for number in range(40)))
    recording, killed = asyncio.Event(), asyncio.Event()

    async def record_never(*_arguments):
        recording.set()
        await killed.wait()

    context.services.outboxes.record = record_never
    turn = asyncio.create_task(harness.turn())
    await recording.wait()
    await asyncio.wait({turn}, timeout=0.2)  # in which more would be sent
    assert len(hook.received) == UNRECORDED * 3
    turn.cancel()
    killed.set()
    await asyncio.gather(turn, return_exceptions=True)


async def test_a_secret_that_does_not_open_delays_only_its_own_outbox(subscribe, hook, services):
    harness = await subscribe()
    await harness.emit("c1")
    await services.redis.hset(keys.subscription(harness.id), "secrets", b"moved from elsewhere")
    with pytest.raises(DecryptionError):
        await harness.turn()
    now = await harness.now()
    due = await services.redis.zscore(keys.due("outboxes"), harness.id)
    assert due - now > 50_000


async def test_what_fell_out_of_the_schedule_comes_back(subscribe, hook, context, services):
    harness = await subscribe()
    await harness.emit("c1")
    await services.redis.delete(keys.due("outboxes"), keys.claimed("outboxes"))
    assert await services.reconciliation.reconcile() == 1
    await harness.turn()
    assert hook.courses() == ["c1"]


async def test_entries_that_outlived_the_log_leave_a_paused_outbox(subscribe, hook, services):
    harness = await subscribe(paused=True)
    await harness.emit(*(f"c{number}" for number in range(30)))
    await services.redis.xtrim(keys.EVENTS, maxlen=10, approximate=False)
    trimmed = await services.retention.trim(
        events_before=0, events_max_bytes=2**30, attempts_before=0, dead_before=0
    )
    assert trimmed["expired"] == 20
    depth = await harness.depth()
    assert (depth.pending, depth.dead) == (10, 20)
    _, totals = await services.counters.read()
    assert (totals["pending"], totals["dead"]) == (10, 20)


async def test_the_log_keeps_to_its_size_and_outboxes_say_what_that_cost_them(subscribe, services):
    harness = await subscribe(paused=True)
    await harness.emit(*(f"c{number}" for number in range(400)))
    redis = services.redis.admin
    half = await redis.memory_usage(keys.EVENTS) // 2
    trimmed = await services.retention.trim(
        events_before=0, events_max_bytes=half, attempts_before=0, dead_before=0
    )
    assert await redis.memory_usage(keys.EVENTS) <= 1.2 * half
    assert 100 <= trimmed["events"] == trimmed["expired"] == (await harness.depth()).dead


@pytest.mark.parametrize("rendering", Rendering)
async def test_each_entry_is_sent_and_retried_in_its_own_rendering(subscribe, hook, rendering):
    harness = await subscribe()
    hook.answer = lambda _event: 500
    await harness.emit("c1", rendering=rendering)
    await harness.turn()
    await harness.make_retries_due()
    await harness.turn()
    (event,) = await harness.services.events.get_many(
        [entry.position for entry in await harness.services.outboxes.read(harness.id, "-", 10)]
    )
    assert [body for _, _, body in hook.received] == [render(event, rendering)] * 2
    content_type = CONTENT_TYPES[rendering.format]
    assert [headers["content-type"] for headers in hook.headers] == [content_type] * 2


async def replace_secret(harness, secret: str, overlap_ms: int = 0) -> None:
    await harness.services.subscriptions.rotate(
        harness.id,
        lambda before, secrets: (
            msgspec.structs.replace(
                before,
                updated_at=before.updated_at + 1,
                public_key=read_secret(secret).public_key,
            ),
            rotated(secrets, secret, overlap_ms, now_ms()),
        ),
    )


async def test_a_secret_revoked_during_a_turn_signs_no_further_attempt_of_it(
    subscribe, hook, monkeypatch
):
    monkeypatch.setattr("workers.delivery.send_permissions.REFRESH_SECONDS", 0.0)
    harness = await subscribe(max_concurrency=1)
    await harness.emit(*(f"c{number}" for number in range(5)))
    hook.gate.clear()
    turn = asyncio.create_task(harness.turn())
    await hook.holds(1)
    hook.secret = new_secret()  # what the receiver accepts from now on
    await replace_secret(harness, hook.secret)
    hook.gate.set()
    await turn
    await harness.turn()  # the edit may have ended the first one early
    assert len(hook.courses()) == 5
    assert (await harness.depth()).pending == 0


async def test_while_secrets_overlap_every_push_carries_both_signatures(subscribe, hook):
    harness = await subscribe()
    old, new = hook.secret, new_secret(Signature.ED25519)
    await replace_secret(harness, new, overlap_ms=60_000)
    await harness.emit("c1")
    await harness.turn()
    ((_, _, body),) = hook.received
    headers = hook.headers[0]
    versions = [one.partition(",")[0] for one in headers["webhook-signature"].split(" ")]
    assert versions == ["v1a", "v1"]
    Webhook(old).verify(body, dict(headers))
    public = read_public_key(read_secret(new).public_key)
    assert fault(public, headers, body, time.time()) is None


async def test_a_subscription_deleted_during_a_turn_ends_it_quietly(subscribe, hook, monkeypatch):
    monkeypatch.setattr("workers.delivery.send_permissions.REFRESH_SECONDS", 0.0)
    harness = await subscribe(max_concurrency=1)
    await harness.emit("c1", "c2")
    hook.gate.clear()
    turn = asyncio.create_task(harness.turn())
    await hook.holds(1)
    await harness.services.subscriptions.delete(harness.id)
    hook.gate.set()
    await turn
    assert hook.courses() == ["c1"]


# --- grants of owners -----------------------------------------------------------------------


@pytest.fixture
async def owner(services):
    key = ApiKey(
        id=new_id("key"),
        name="tenant",
        scope=Scope.SUBSCRIBER,
        created_at=1,
        updated_at=1,
        grant=Grant(integration_ids=("int_a",)),
    )
    await services.api_keys.create(key)
    return key.id


async def narrow(services, owner: str) -> None:
    await services.api_keys.update(
        owner,
        lambda key: msgspec.structs.replace(key, grant=Grant(integration_ids=("int_b",))),
    )


async def test_what_is_granted_is_sent(subscribe, hook, owner):
    harness = await subscribe(owner=owner)
    await harness.emit("c1")
    await harness.turn()
    assert hook.courses() == ["c1"]


@pytest.mark.parametrize(
    "withdraw", [narrow, lambda services, owner: services.api_keys.revoke(owner)]
)
async def test_what_is_pending_dies_with_its_grant(subscribe, hook, owner, services, withdraw):
    harness = await subscribe(owner=owner)
    hook.answer = lambda _event: 500
    await harness.emit("failed")
    await harness.turn()
    await harness.emit("c1", "c1", "c2")
    await withdraw(services, owner)
    await harness.make_retries_due()
    await harness.turn()
    assert hook.courses() == ["failed"]
    depth = await harness.depth()
    assert (depth.pending, depth.dead) == (0, 4)
    assert {one.reason for one in await harness.deliveries("dead")} == {NOT_GRANTED}


async def test_a_grant_that_goes_during_a_turn_stops_it(
    subscribe, hook, owner, services, monkeypatch
):
    monkeypatch.setattr("workers.delivery.send_permissions.REFRESH_SECONDS", 0.0)
    harness = await subscribe(owner=owner, max_concurrency=1)
    await harness.emit("c1", "c2", "c3")
    hook.gate.clear()
    turn = asyncio.create_task(harness.turn())
    await hook.holds(1)
    await services.api_keys.revoke(owner)
    hook.gate.set()
    await turn
    assert hook.courses() == ["c1"]
    depth = await harness.depth()
    assert (depth.pending, depth.dead) == (0, 2)


async def test_an_answer_that_repeats_our_secrets_is_recorded_without_them_and_sealed(
    subscribe, hook, services
):
    harness = await subscribe(headers=[("authorization", "Bearer marked-token-value")])
    hook.answer = lambda _event: 500
    hook.says = lambda request: f"no: {dict(request.headers)} {hook.secret} and more"
    await harness.emit("c1")
    await harness.turn()

    (delivery,) = await harness.deliveries()
    shown = delivery.attempts[0].excerpt
    assert shown.startswith("no: ")
    assert "and more" in shown
    stored = await services.redis.xrange(keys.attempts(harness.id))
    for told in ("marked-token-value", hook.secret):
        assert told not in shown
        assert told.encode() not in stored[0][1][b"d"]
    assert b"and more" not in stored[0][1][b"d"]
    # Nor does it open anywhere else.
    for key in (keys.attempts, keys.attempts_order, keys.outbox):
        await services.redis.rename(key(harness.id), key("sub_other"))
    (moved,), _ = await services.deliveries.page(["sub_other"], Wanted(), limit=10)
    assert [one.excerpt for one in moved.attempts] == [""]
