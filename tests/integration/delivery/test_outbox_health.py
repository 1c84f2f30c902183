"""Outboxes whose subscribers fail: held, parked, disabled, and back again."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import msgspec
import pytest

from service.domain.delivery.outcome import Outcome, OutcomeClass
from service.domain.delivery.subscription import SubscriptionState, state_of
from service.storage.redis import keys
from workers.delivery.drain import deliver_batch

UNREACHABLE = Outcome(kind=OutcomeClass.CONNECT, duration_ms=1, error="no connection")
DELIVERED = Outcome(kind=OutcomeClass.DELIVERED, duration_ms=1, status=204, connect_ms=0)


def state_shown(subscription, depth) -> SubscriptionState:
    return state_of(subscription, parked=depth.parked)


async def change(harness, **fields) -> None:
    await harness.services.subscriptions.update(
        harness.id, lambda old: msgspec.structs.replace(old, **fields)
    )


async def park(harness, hook, courses: int = 12) -> None:
    """Has the outbox fail ten times over more than a minute."""
    hook.answer = lambda _event: 500
    await harness.emit(*(f"c{number:02}" for number in range(courses)))
    await harness.turn()
    while not (await harness.depth()).parked:
        harness.pass_time(10)
        await harness.turn()


# --- disabling ----------------------------------------------------------------------------------


async def test_410_disables_the_subscription_at_once_and_the_outbox_goes_on_collecting(
    subscribe, hook, services
):
    harness = await subscribe(max_concurrency=1)
    hook.answer = lambda _event: 410
    await harness.emit("c1", "c2", "c3")
    await harness.turn()
    subscription = await harness.subscription()
    assert len(hook.received) == 1
    assert state_of(subscription) is SubscriptionState.DISABLED
    assert subscription.disabled_reason == "the receiver answered 410 Gone"
    assert await harness.next_turn_at() is None
    await harness.emit("c4")
    assert await harness.next_turn_at() is None
    assert await services.reconciliation.reconcile() == 0
    assert (await harness.depth()).pending == 4
    await change(harness, paused=True)
    await change(harness, paused=False)
    await harness.turn()
    assert len(hook.received) == 1
    _, totals = await services.counters.read()
    assert totals["outbox:disabled"] == 1

    hook.answer = lambda _event: 204
    await services.subscriptions.resume(harness.id, 1)
    assert await harness.next_turn_at() is not None
    await harness.turn()
    assert sorted(hook.courses()[1:]) == ["c1", "c2", "c3", "c4"]
    _, totals = await services.counters.read()
    assert totals["outbox:disabled"] == 0


async def test_an_edit_made_while_an_attempt_disables_is_kept(subscribe, hook):
    harness = await subscribe()
    hook.answer = lambda _event: 410
    hook.gate.clear()
    await harness.emit("c1")
    turn = asyncio.create_task(harness.turn())
    await hook.holds(1)
    await change(harness, description="edited meanwhile")
    hook.gate.set()
    await turn
    subscription = await harness.subscription()
    assert subscription.description == "edited meanwhile"
    assert subscription.disabled_reason == "the receiver answered 410 Gone"


async def test_five_days_without_a_success_disable_it(subscribe, hook, services):
    harness = await subscribe()
    await park(harness, hook)
    half_days = 0
    while (await harness.subscription()).disabled_reason is None:
        harness.pass_time(12 * 3600)
        half_days += 1
        await harness.turn()
    assert half_days == 10
    assert (await harness.subscription()).disabled_reason.startswith(
        "no attempt succeeded for 5 days, "
    )
    assert (await harness.depth()).pending == 12
    _, totals = await services.counters.read()
    assert (totals["outbox:disabled"], totals["outbox:parked"]) == (1, 0)


# --- the breaker --------------------------------------------------------------------------------


async def test_a_success_at_an_event_that_was_removed_is_stored_with_the_next(
    subscribe, hook, services
):
    harness = await subscribe(max_concurrency=1)
    hook.answer = lambda _event: 500
    await harness.emit("c1")
    await harness.turn()
    assert (await harness.breaker()).failures == 1

    hook.answer = lambda _event: 204
    hook.gate.clear()
    await harness.emit("c2", "c3")
    turn = asyncio.create_task(harness.turn())
    await hook.holds(1)
    _, (c2, _), _ = await services.redis.xrange(keys.outbox(harness.id))
    await services.redis.admin.xdel(keys.outbox(harness.id), c2)  # as the retention does
    hook.gate.set()
    await turn
    assert hook.courses() == ["c1", "c2", "c3"]
    assert (await harness.breaker()).failures == 0
    _, totals = await services.counters.read()
    assert totals["outbox:failing"] == 0


async def test_a_parked_outbox_is_sent_nothing_but_probes_each_on_another_course(
    subscribe, hook, services
):
    harness = await subscribe()
    await park(harness, hook)
    assert state_shown(await harness.subscription(), await harness.depth()) == "parked"
    sent = len(hook.received)
    await harness.emit("c90", "c91")
    await harness.turn()
    assert len(hook.received) == sent  # its probe is not due yet, and no event wakes it
    untried = sorted({f"c{number:02}" for number in (*range(12), 90, 91)} - {*hook.courses()})
    probed: list[str] = []
    for _ in range(8):
        harness.pass_time(361)
        await harness.turn()
        assert len(hook.received) == sent + len(probed) + 1
        probed.append(hook.courses()[-1])
        assert await harness.next_turn_at() > await harness.now()
    assert probed[: len(untried)] == untried  # what has not been tried goes first
    assert untried[-2:] == ["c90", "c91"]
    assert all(one != other for one, other in pairwise(probed))
    _, totals = await services.counters.read()
    assert totals["outbox:parked"] == 1


async def test_the_first_success_unparks_and_everything_that_waited_arrives_in_order(
    subscribe, hook, services
):
    harness = await subscribe(max_concurrency=4)
    await park(harness, hook)
    courses = [f"c{number:02}" for number in range(12)]
    await harness.emit(*courses, *courses)
    hook.received.clear()
    hook.answer = lambda _event: 204
    hook.most_at_once = 0
    harness.pass_time(361)
    await harness.turn()
    assert (await harness.depth()).pending == 0
    assert not (await harness.depth()).parked
    assert hook.most_at_once <= 4
    for course in courses:
        numbers = [
            event["data"]["sequence"]
            for _, event, _ in hook.received
            if event["data"]["course_id"] == course
        ]
        assert len(numbers) == 3
        assert numbers == sorted(numbers)
    _, totals = await services.counters.read()
    assert totals["outbox:parked"] == 0


async def test_one_that_refuses_two_courses_and_takes_the_others_is_neither_parked_nor_disabled(
    subscribe, hook
):
    harness = await subscribe(retry_schedule_seconds=(1,) * 50)
    hook.answer = lambda event: 400 if event["data"]["course_id"] in ("bad", "worse") else 204
    await harness.emit("bad", "worse")
    for number in range(16):
        await harness.emit(f"good-{number}")
        await harness.make_retries_due()
        await harness.turn()
        harness.pass_time(9 * 3600)
        depth = await harness.depth()
        assert (depth.pending, depth.parked) == (2, False)
    assert Counter(hook.courses())["bad"] >= 15
    assert (await harness.subscription()).disabled_reason is None


async def test_a_dead_endpoint_uses_up_few_attempts_before_it_is_parked(subscribe, hook):
    harness = await subscribe()
    await harness.emit(*(f"c{number}" for number in range(100)))
    hook.answer = lambda _event: 500
    for _ in range(5):
        await harness.turn()
    assert len(hook.received) < 30


async def test_a_parked_outbox_with_only_last_attempts_left_waits_for_their_time(subscribe, hook):
    harness = await subscribe(retry_schedule_seconds=(7200, 7200))
    await park(harness, hook, courses=20)
    while len(set(hook.courses())) < 20:
        harness.pass_time(361)
        await harness.turn()
    await change(harness, retry_schedule_seconds=(7200,))
    sent = len(hook.received)
    harness.pass_time(361)
    await harness.turn()
    assert len(hook.received) == sent
    assert await harness.next_turn_at() - await harness.now() > 2_000_000
    await harness.emit("c99")  # something new is tried at once
    assert await harness.next_turn_at() <= await harness.now()
    harness.pass_time(10)
    await harness.turn()
    assert hook.courses()[sent:] == ["c99"]
    assert (await harness.depth()).dead == 0


async def test_a_resume_during_a_turn_is_not_undone_by_it(subscribe, hook, services):
    harness = await subscribe()
    await park(harness, hook)
    harness.pass_time(361)
    hook.gate.clear()
    turn = asyncio.create_task(harness.turn())
    await hook.holds(1)
    await services.subscriptions.resume(harness.id, 1)
    hook.gate.set()
    await turn
    assert not (await harness.depth()).parked
    assert (await harness.breaker()).failures == 0
    assert await harness.next_turn_at() <= await harness.now()
    hook.answer = lambda _event: 204
    await harness.turn()
    assert (await harness.depth()).pending <= 1  # that one waits for its retry


async def test_a_resume_just_before_a_disabled_outbox_is_given_back_is_not_lost(
    subscribe, hook, services
):
    harness = await subscribe()
    hook.answer = lambda _event: 410
    await harness.emit("c1")
    release = services.outboxes.release

    async def resume_then_release(*arguments, **named):
        await services.subscriptions.resume(harness.id, 1)
        return await release(*arguments, **named)

    services.outboxes.release = resume_then_release
    await harness.turn()
    assert await services.redis.zscore(keys.due("outboxes"), harness.id) is not None


async def test_attempts_that_were_under_way_when_it_was_disabled_are_recorded(
    subscribe, hook, services
):
    harness = await subscribe()
    hook.answer = lambda event: 410 if event["data"]["course_id"] == "c1" else 204
    hook.gate.clear()
    await harness.emit("c1", "c2", "c3")
    turn = asyncio.create_task(harness.turn())
    await hook.holds(3)
    hook.gate.set()
    await turn
    assert (await harness.depth()).pending == 1
    assert (await harness.subscription()).disabled_reason == "the receiver answered 410 Gone"
    _, totals = await services.counters.read()
    assert totals["outbox:disabled"] == 1


# --- holds --------------------------------------------------------------------------------------


async def test_retry_after_holds_first_attempts_of_other_courses_too(subscribe, hook):
    harness = await subscribe(max_concurrency=1)
    hook.answer = lambda _event: 500
    hook.extra = {"Retry-After": "3600"}
    await harness.emit("c1", "c2")
    await harness.turn()
    assert hook.courses() == ["c1"]
    await harness.emit("c3")
    assert 3_590_000 < await harness.next_turn_at() - await harness.now() <= 3_600_000
    hook.answer = lambda _event: 204
    await harness.turn()
    assert len(hook.received) == 1
    harness.pass_time(3602)
    await harness.turn()
    assert sorted(hook.courses()[1:]) == ["c1", "c2", "c3"]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_overload_holds_the_outbox_shortly_and_longer_each_time(subscribe, hook, status):
    harness = await subscribe(max_concurrency=1)
    hook.answer = lambda _event: status
    await harness.emit(*(f"c{number}" for number in range(6)))
    waits = []
    for _ in range(5):
        await harness.turn()
        now = await harness.now()
        waits.append((await harness.next_turn_at() - now) / 1000)
        harness.pass_time(waits[-1] + 0.01)
    assert len(hook.received) == 5
    assert 0.5 < waits[0] < 1.3
    assert waits[4] > 10


async def test_an_event_that_was_refused_with_a_hold_is_not_tried_before_it_ends(subscribe, hook):
    harness = await subscribe(retry_schedule_seconds=(1, 1))
    hook.answer = lambda _event: 503
    hook.extra = {"Retry-After": "600"}
    await harness.emit("c1")
    await harness.turn()
    (delivery,) = await harness.deliveries()
    (attempt,) = delivery.attempts
    assert attempt.next_attempt_at - attempt.at >= 600_000


# --- our own network ----------------------------------------------------------------------------


def answering(context, answers: dict[str, Outcome]) -> list[str]:
    """Has each URL answer as told; returns the URLs as they are posted to."""
    posted: list[str] = []

    async def post(url, _headers, _body, **_options):
        posted.append(url)
        return answers[url]

    context.services.receiver.post = post
    return posted


async def turn_of(harnesses) -> None:
    for harness in harnesses:
        await harness.turn()


async def test_when_most_receivers_cannot_be_connected_to_no_attempts_are_counted(
    subscribe, context
):
    urls = [f"http://receiver-{number}.example/" for number in range(5)]
    harnesses = [await subscribe(url=url) for url in urls]
    answers = dict.fromkeys(urls, UNREACHABLE)
    answering(context, answers)
    for harness in harnesses:
        await harness.emit("c1")
    await turn_of(harnesses)
    last = harnesses[-1]
    for _ in range(14):
        last.pass_time(80)
        await last.make_retries_due()
        await last.turn()
    (delivery,) = await last.deliveries()
    assert len(delivery.attempts) == 15
    assert [attempt.number for attempt in delivery.attempts] == list(range(1, 16))
    assert not any(attempt.counted for attempt in delivery.attempts)
    assert (await last.breaker()).failures == 0
    gap = delivery.attempts[-1].next_attempt_at - delivery.attempts[-1].at
    assert gap <= 73_000

    answers.update(dict.fromkeys(urls, DELIVERED))
    last.pass_time(80)
    await last.make_retries_due()
    await last.turn()
    assert (await last.depth()).pending == 0


@pytest.mark.parametrize("kind", [OutcomeClass.CONNECT, OutcomeClass.DNS, OutcomeClass.TIMEOUT])
async def test_a_shortage_of_our_own_is_never_counted_however_long_it_lasts(
    subscribe, context, kind
):
    url = "http://receiver.example/"
    harness = await subscribe(url=url, retry_schedule_seconds=(1, 1))
    answers = {url: Outcome(kind=kind, duration_ms=1, error="none left", shortage=True)}
    answering(context, answers)
    await harness.emit("c1")
    await harness.turn()
    for _ in range(100):  # more than an hour and a half
        harness.pass_time(80)
        await harness.make_retries_due()
        await harness.turn()
    (delivery,) = await harness.deliveries()
    assert not any(attempt.counted for attempt in delivery.attempts)
    breaker = await harness.breaker()
    assert (breaker.failures, breaker.parked) == (0, False)
    answers[url] = DELIVERED
    harness.pass_time(80)
    await harness.make_retries_due()
    await harness.turn()
    assert (await harness.depth()).pending == 0


async def test_a_fault_of_our_own_proxy_is_never_counted_however_few_receivers_show_it(
    subscribe, context
):
    fault = Outcome(kind=OutcomeClass.PROXY, duration_ms=1, error="the proxy cannot be reached")
    harness = await subscribe(url="https://receiver.example/")
    answers = {"https://receiver.example/": fault}
    answering(context, answers)
    await harness.emit("c1")
    for _ in range(12):  # six hours, far beyond the one in which networks may fail
        harness.pass_time(1800)
        await harness.make_retries_due()
        await harness.turn()
    (delivery,) = await harness.deliveries()
    assert len(delivery.attempts) == 12
    assert not any(attempt.counted for attempt in delivery.attempts)
    assert (delivery.attempts[0].outcome, delivery.state) == ("proxy", "retrying")
    breaker = await harness.breaker()
    assert (breaker.failures, breaker.parked) == (0, False)
    gap = delivery.attempts[-1].next_attempt_at - delivery.attempts[-1].at
    assert gap <= 73_000

    answers["https://receiver.example/"] = DELIVERED
    harness.pass_time(80)
    await harness.make_retries_due()
    await harness.turn()
    assert (await harness.depth()).pending == 0


async def test_one_dead_receiver_alone_is_counted_however_many_subscriptions_it_has(
    subscribe, context
):
    dead = [f"http://dead.example/{number}" for number in range(5)]
    sound = "http://sound.example/"
    harnesses = [await subscribe(url=url) for url in (*dead, sound)]
    answering(context, dict.fromkeys(dead, UNREACHABLE) | {sound: DELIVERED})
    for harness in harnesses:
        await harness.emit("c1")
    for _ in range(3):
        await turn_of(harnesses)
        for harness in harnesses:
            await harness.make_retries_due()
    for harness in harnesses[:-1]:
        (delivery,) = await harness.deliveries()
        assert all(attempt.counted for attempt in delivery.attempts)
        assert (await harness.breaker()).failures == 3


async def test_receivers_that_were_reached_since_outvote_those_that_were_not(subscribe, context):
    urls = [f"http://receiver-{number}.example/" for number in range(6)]
    harnesses = [await subscribe(url=url) for url in urls]
    answers = dict.fromkeys(urls[:2], UNREACHABLE) | dict.fromkeys(urls[2:], DELIVERED)
    answering(context, answers)
    for _ in range(2):
        for harness in harnesses:
            await harness.emit("c1")
            await harness.make_retries_due()
        await turn_of(harnesses)
    for harness in harnesses[:2]:
        assert all(
            attempt.counted
            for delivery in await harness.deliveries()
            for attempt in delivery.attempts
        )


# --- limits -------------------------------------------------------------------------------------


async def test_the_rate_holds_however_often_the_outbox_changes_hands(subscribe, hook):
    harness = await subscribe(rate_per_second=0.5)
    await harness.emit("c1", "c2", "c3")
    for _ in range(3):
        await harness.turn()
    assert len(hook.received) == 1
    assert 1_000 < await harness.next_turn_at() - await harness.now() <= 2_100
    harness.pass_time(2.1)
    await harness.turn()
    await harness.turn()
    assert len(hook.received) == 2


async def test_a_fast_rate_is_kept_within_a_turn(subscribe, hook, services):
    harness = await subscribe(rate_per_second=20)
    await harness.emit(*(f"c{number}" for number in range(30)))
    before = await harness.now()
    await harness.turn()
    assert len(hook.received) == 30
    assert await harness.now() - before >= 10 / 20 * 1000 - 50


async def test_concurrency_holds_when_another_worker_takes_over(subscribe, hook, context):
    harness = await subscribe(max_concurrency=3)
    await harness.emit(*(f"c{number}" for number in range(12)))
    hook.gate.clear()
    first = asyncio.create_task(harness.turn())
    await hook.holds(3)
    # The other one claims as well as it can, and gets nothing while attempts are under way.
    await harness.services.redis.zadd(keys.due("outboxes"), {harness.id: 0})
    token = await harness.claim()
    await deliver_batch(context, [(harness.id, token)])
    context.draining.set()
    hook.gate.set()
    await first
    context.draining.clear()
    assert len(hook.received) == 3
    hook.gate.clear()
    second = asyncio.create_task(harness.turn())
    await hook.holds(3)
    hook.gate.set()
    await second
    assert hook.most_at_once == 3
    assert (await harness.depth()).pending == 0


async def test_retries_that_are_due_leave_room_for_first_attempts_and_the_other_way_round(
    subscribe, hook
):
    harness = await subscribe(max_concurrency=1)
    failing = [f"f{number}" for number in range(40)]
    hook.answer = lambda event: 400 if event["data"]["course_id"].startswith("f") else 204
    for course in failing:  # a success after each, or the outbox would be held
        await harness.emit(course, f"s-{course}")
    await harness.turn()
    await harness.emit(*(f"n{number}" for number in range(40)))
    await harness.make_retries_due()
    hook.received.clear()
    hook.answer = lambda _event: 204
    await harness.turn()
    assert len(hook.received) == 80
    first_half = Counter(course[0] for course in hook.courses()[:40])
    assert first_half["f"] >= 19
    assert first_half["n"] >= 19


async def test_a_turn_at_a_long_outbox_reads_a_bounded_part_of_it(subscribe, hook, services):
    harness = await subscribe()
    await park(harness, hook, courses=20)
    await harness.emit(*(f"c{number % 20:02}" for number in range(2000)))
    reads = []
    read = services.outboxes.read

    async def counted(*arguments):
        found = await read(*arguments)
        reads.append(len(found))
        return found

    services.outboxes.read = counted
    failing = keys.outbox_failing(harness.id)
    while await services.redis.hlen(failing) < 20:  # what was never tried is probed first
        harness.pass_time(361)
        await harness.turn()
    harness.pass_time(361)
    await harness.turn()
    for _ in range(5):
        reads.clear()
        harness.pass_time(361)
        await harness.turn()
        assert sum(reads) <= 200

    hook.answer = lambda _event: 204
    harness.pass_time(361)
    reads.clear()
    while (await harness.depth()).pending:
        await harness.turn()
    assert sum(reads) < 20 * 2020


async def test_what_an_accident_left_behind_the_readers_place_is_found_again(
    subscribe, hook, monkeypatch
):
    harness = await subscribe()
    hook.answer = lambda _event: 400
    await harness.emit("lost", "failing")
    await harness.turn()
    redis = harness.services.redis.admin
    (order_key, *_) = [
        fields[b"k"] for _, fields in await redis.xrange(keys.outbox(harness.id), "-", "+")
    ]
    await redis.hdel(keys.outbox_failing(harness.id), order_key)
    await redis.zrem(keys.outbox_retries(harness.id), order_key)
    hook.received.clear()
    for _ in range(2):
        await harness.turn()
    assert hook.received == []
    monkeypatch.setattr("service.storage.delivery.outboxes.CURSOR_LIFETIME_MS", 0)
    await harness.turn()
    assert hook.courses() == ["lost"]


# --- order --------------------------------------------------------------------------------------


async def test_order_per_course_outlives_crashes_edits_and_changing_hands(subscribe, hook, context):
    harness = await subscribe(max_concurrency=4, retry_schedule_seconds=(1,) * 200)
    courses = [f"c{number}" for number in range(5)]
    accepted: list[tuple[str, int]] = []
    calls = 0

    def answer(event) -> int:
        nonlocal calls
        calls += 1
        if calls % 7 == 0:
            return 500
        accepted.append((event["data"]["course_id"], event["data"]["sequence"]))
        return 204

    hook.answer = answer
    await harness.emit(*courses * 6)
    for number in range(40):
        if (await harness.depth()).pending == 0:
            break
        turn = asyncio.create_task(harness.turn())
        if number % 3 == 0:  # the worker dies with attempts under way
            hook.gate.clear()
            await hook.holds(1)
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)
            hook.gate.set()
            await harness.services.redis.delete(keys.lease("outboxes", harness.id))
        elif number % 3 == 1:
            await change(harness, url=f"{hook.url}?{number}", max_concurrency=1 + number % 5)
            await turn
        else:
            await turn
        harness.pass_time(70)
        await harness.make_retries_due()
    assert (await harness.depth()).pending == 0
    first_seen = list(dict.fromkeys(accepted))
    for course in courses:
        numbers = [sequence for name, sequence in first_seen if name == course]
        assert len(numbers) == 6
        assert numbers == sorted(numbers)


# --- at the memory limit ------------------------------------------------------------------------


@pytest.fixture
async def full(redis):
    """Redis at its memory limit, from when it is called to the end of the test."""

    async def fill() -> None:
        await redis.config_set("maxmemory", 1)

    yield fill
    await redis.config_set("maxmemory", 0)


async def test_at_the_memory_limit_failures_are_recorded_and_nothing_is_sent_over_and_over(
    subscribe, hook, full, services
):
    harness = await subscribe()
    courses = [f"c{number:02}" for number in range(20)]
    await harness.emit(*courses)
    hook.answer = lambda _event: 500
    await full()
    await harness.turn()
    while not (await harness.depth()).parked:
        harness.pass_time(10)
        await harness.turn()
    breaker = await harness.breaker()
    assert breaker.failures == len(hook.received)
    recorded = {
        attempt.number for delivery in await harness.deliveries() for attempt in delivery.attempts
    }
    assert 1 in recorded
    sent = Counter(event_id for event_id, _, _ in hook.received)
    for delivery in await harness.deliveries():
        assert len(delivery.attempts) == sent[delivery.event_id]
    before = len(hook.received)
    await harness.turn()
    assert len(hook.received) == before  # parked

    hook.answer = lambda _event: 204
    harness.pass_time(361)
    await harness.turn()
    assert (await harness.depth()).pending == 0
    assert not (await harness.depth()).parked


async def test_at_the_memory_limit_subscriptions_are_disabled_and_resumed_and_rates_kept(
    subscribe, hook, full, services, context
):
    harness = await subscribe(rate_per_second=0.5)
    await harness.emit("c1", "c2", "c3")
    hook.answer = lambda _event: 410
    await full()
    await harness.turn()
    assert (await harness.subscription()).disabled_reason is not None
    hook.answer = lambda _event: 204
    await services.subscriptions.resume(harness.id, 1)
    await harness.turn()
    assert len(hook.received) == 1
    harness.pass_time(2.1)
    await harness.turn()
    assert len(hook.received) == 2

    async def unreachable(*_arguments, **_named):
        return UNREACHABLE

    context.services.receiver.post = unreachable
    harness.pass_time(2.1)
    await harness.turn()
    assert (await harness.breaker()).failures == 1


# --- isolation ----------------------------------------------------------------------------------


async def test_a_job_does_not_wait_for_a_subscriber_that_never_answers(
    subscribe, hook, context, services
):
    stuck, sound = await subscribe(), await subscribe(url="http://sound.example/")
    post = services.receiver.post

    async def post_or_answer(url, headers, body, **options):
        if url == "http://sound.example/":
            return DELIVERED
        return await post(url, headers, body, **options)

    services.receiver.post = post_or_answer
    hook.gate.clear()
    for harness in (stuck, sound):
        await harness.emit("c1")
    claims = [(harness.id, await harness.claim()) for harness in (stuck, sound)]
    await deliver_batch(context, claims)  # ends, although one of its outboxes has not
    assert len(context.lingering) == 1
    assert (await sound.depth()).pending == 0
    await sound.emit("c2")
    assert await services.redis.zscore(keys.due("outboxes"), sound.id) is not None
    await deliver_batch(context, [(sound.id, await sound.claim())])
    assert (await sound.depth()).pending == 0
    assert (
        await services.redis.zscore(keys.due("outboxes"), stuck.id) is None
    )  # somebody is at work
    hook.gate.set()
    await asyncio.gather(*context.lingering)
    assert (await stuck.depth()).pending == 0


async def test_a_worker_that_bears_no_more_stays_with_its_job(
    subscribe, hook, context, monkeypatch
):
    monkeypatch.setattr("workers.delivery.drain.MAX_TURNS", 0)
    monkeypatch.setattr("workers.delivery.drain.STAY_SECONDS", 0.0)
    harness = await subscribe()
    await harness.emit("c1")
    hook.gate.clear()
    job = asyncio.create_task(deliver_batch(context, [(harness.id, await harness.claim())]))
    await hook.holds(1)
    assert not job.done()
    hook.gate.set()
    await job
    assert (await harness.depth()).pending == 0
