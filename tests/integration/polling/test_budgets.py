"""One budget of upstream requests per credential: what it lets through, and who waits how long."""

from __future__ import annotations

import asyncio
import math
import time
from email.utils import formatdate
from itertools import pairwise

import pytest
from redis.exceptions import ConnectionError  # noqa: A004 - redis's own name

from service.bootstrap import open_services
from service.clock import now_ms
from service.storage.redis import keys
from tests.integration.conftest import UPSTREAM_ID, new_credential, new_integration
from tests.integration.scripted import page, refuses, says
from workers.context import JobContext

CREDENTIAL = "cred_test"
MINUTE = 60_000
MOMENTS = ("hold", "reset_at", "line", "again", "deltas")


async def advance(redis, credential_id: str, ms: int) -> None:
    """Lets time pass for the budget, by making everything it knows so much older."""
    key = keys.budget(credential_id)
    known = await redis.hmget(key, MOMENTS)
    older = {
        name: int(value) - ms
        for name, value in zip(MOMENTS, known, strict=True)
        if value is not None
    }
    if older:
        await redis.hset(key, mapping=older)


async def remaining(redis, credential_id: str = CREDENTIAL) -> int:
    return int(await redis.hget(keys.budget(credential_id), "remaining"))


@pytest.fixture
def budgets(services):
    return services.budgets


async def told(budgets, limit: int | None, left: int, seconds: float = 60.0) -> None:
    await budgets.note(CREDENTIAL, limit=limit, remaining=left, reset_seconds=seconds)


# --- requests -------------------------------------------------------------------------------


async def test_where_nothing_is_known_nobody_waits(budgets):
    assert [await budgets.spend(CREDENTIAL, "full", 0) for _ in range(5)] == [None] * 5


async def test_no_more_is_spent_than_is_left_however_many_come_at_once(services, budgets):
    await told(budgets, 100, 10)
    spent = await asyncio.gather(*(budgets.spend(CREDENTIAL, "delta", 0) for _ in range(50)))
    assert spent.count(None) == 10
    assert await remaining(services.redis) == 0


async def test_full_polls_leave_a_quarter_to_deltas(budgets):
    await told(budgets, 20, 20)
    full_polls = [await budgets.spend(CREDENTIAL, "full", 0) for _ in range(20)]
    assert full_polls.count(None) == 15
    deltas = [await budgets.spend(CREDENTIAL, "delta", 0) for _ in range(20)]
    assert deltas.count(None) == 5


async def test_the_line_is_in_the_order_of_arrival_and_places_are_a_pace_apart(budgets):
    await told(budgets, 300, 0, 30)
    places = [await budgets.spend(CREDENTIAL, "delta", 0) for _ in range(10)]
    assert 30_000 < places[0].wait_ms <= 30_200
    # The window is taken for as long as its first answer said.
    assert {after.at - before.at for before, after in pairwise(places)} == {100}


async def test_those_who_come_when_the_window_ends_do_not_all_go_at_once(services, budgets):
    """Nobody knows of the new window before its first answer."""
    await told(budgets, 10, 3)
    await advance(services.redis, CREDENTIAL, MINUTE)
    spent = await asyncio.gather(*(budgets.spend(CREDENTIAL, "delta", 0) for _ in range(50)))
    assert spent.count(None) == 10


async def test_requests_under_way_are_not_given_back_by_an_answer_that_was_before_them(
    services, budgets
):
    await told(budgets, 100, 50)
    for _ in range(10):
        await budgets.spend(CREDENTIAL, "delta", 0)
    await told(budgets, 100, 49)
    assert await remaining(services.redis) == 40


async def test_a_limit_that_changes_is_followed(services, budgets):
    await told(budgets, 300, 100)
    await told(budgets, 30, 4)
    assert await remaining(services.redis) == 4
    await advance(services.redis, CREDENTIAL, MINUTE)
    await told(budgets, 600, 599)
    assert await remaining(services.redis) == 599


async def test_a_limit_that_is_not_told_is_the_most_that_was_ever_left(services, budgets):
    for left in (100, 90, 30):
        await told(budgets, None, left)
    assert int(await services.redis.hget(keys.budget(CREDENTIAL), "limit")) == 100
    assert await budgets.spend(CREDENTIAL, "full", 0) is None
    await told(budgets, None, 25)
    assert await budgets.spend(CREDENTIAL, "full", 0) is not None


async def test_who_is_woken_early_keeps_the_place(budgets):
    await told(budgets, 60, 0)
    first = await budgets.spend(CREDENTIAL, "full", 0)
    for _ in range(5):
        await budgets.spend(CREDENTIAL, "full", 0)
    for _ in range(3):
        again = await budgets.spend(CREDENTIAL, "full", first.at)
        assert again.at == first.at
        assert 0 < again.wait_ms <= first.wait_ms


async def test_who_waited_for_nothing_is_among_the_first_of_the_next_window(services, budgets):
    await told(budgets, 60, 0)
    places = [await budgets.spend(CREDENTIAL, "full", 0) for _ in range(100)]
    await advance(services.redis, CREDENTIAL, MINUTE + 5_000)
    await told(budgets, 60, 0)  # deltas were faster
    again = await budgets.spend(CREDENTIAL, "full", places[0].at - MINUTE - 5_000)
    assert MINUTE < again.wait_ms <= MINUTE + 1_000
    newcomer = await budgets.spend(CREDENTIAL, "full", 0)
    assert newcomer.wait_ms > places[-1].wait_ms - MINUTE - 5_000


async def test_a_place_outlives_what_was_known_of_the_budget(services, budgets):
    await told(budgets, 60, 0)
    place = await budgets.spend(CREDENTIAL, "full", 0)
    await services.redis.delete(keys.budget(CREDENTIAL))
    assert await budgets.spend(CREDENTIAL, "full", place.at) is None


async def test_a_hold_is_for_all_and_those_it_met_do_not_come_back_all_at_once(budgets):
    held = [await budgets.hold(CREDENTIAL, "delta", 7) for _ in range(5)]
    newcomer = await budgets.spend(CREDENTIAL, "delta", 0)
    assert all(7_000 < place.wait_ms < 9_000 for place in [*held, newcomer])
    assert len({place.at for place in [*held, newcomer]}) == 6


async def test_a_shorter_hold_does_not_end_a_longer_one(budgets):
    await budgets.hold(CREDENTIAL, "delta", 100)
    assert (await budgets.hold(CREDENTIAL, "delta", 1)).wait_ms > 99_000


async def test_credentials_do_not_affect_each_other(budgets):
    await budgets.hold(CREDENTIAL, "delta", 100)
    assert await budgets.spend("cred_other", "full", 0) is None


async def test_a_budget_is_forgotten_when_all_it_knew_has_passed(services, budgets):
    await told(budgets, 60, 0, 20)
    await budgets.spend(CREDENTIAL, "delta", 0)
    assert 20_000 < await services.redis.pttl(keys.budget(CREDENTIAL)) <= 82_000


# --- over many windows ----------------------------------------------------------------------


class Poller:
    def __init__(self, kind: str, due: int) -> None:
        self.kind = kind
        self.due = self.wanted = due
        self.slot = 0
        self.served: list[int] = []
        self.longest = 0


class Simulation:
    """Pollers on one credential, and an upstream whose windows begin with a request. Time passes
    in steps, by `advance`."""

    STEP = 250

    def __init__(self, services, limit: int, deltas: int, full_polls: int) -> None:
        self.redis, self.budgets = services.redis, services.budgets
        self.limit = limit
        self.passed = 0
        self._begun = time.monotonic()
        self.window_ends = self.spent = self.refused = 0
        # Deltas come spread over their interval, full polls all at once.
        self.deltas = [Poller("delta", number * MINUTE // deltas) for number in range(deltas)]
        self.full_polls = [Poller("full", 0) for _ in range(full_polls)]

    async def run(self, windows: int) -> None:
        while self.passed < windows * MINUTE:
            for poller in [*self.full_polls, *self.deltas]:
                while poller.due <= self._now() and await self._ask(poller):
                    pass
            await advance(self.redis, CREDENTIAL, self.STEP)
            for poller in [*self.full_polls, *self.deltas]:
                poller.slot = max(1, poller.slot - self.STEP) if poller.slot else 0
            self.passed += self.STEP
        for poller in self.deltas:
            poller.longest = max(poller.longest, self.passed - poller.wanted)

    def _now(self) -> int:
        """The time that passed in steps, and the little that passed between them."""
        return self.passed + int((time.monotonic() - self._begun) * 1000)

    async def _ask(self, poller: Poller) -> bool:
        """Whether a request was sent, and the poller wants to go on at once."""
        place = await self.budgets.spend(CREDENTIAL, poller.kind, poller.slot)
        if place is None:
            place = await self._send(poller)
        now = self._now()
        if place is not None:
            poller.slot, poller.due = place.at, now + place.wait_ms
            return False
        poller.slot = 0
        poller.served.append(now)
        poller.longest = max(poller.longest, now - poller.wanted)
        poller.wanted = now
        if poller.kind == "delta":
            poller.due = poller.wanted = now + MINUTE
        return True

    async def _send(self, poller: Poller):
        now = self._now()
        if now >= self.window_ends:
            self.window_ends, self.spent = now + MINUTE, 0
        seconds = math.ceil((self.window_ends - now) / 1000)
        if self.spent >= self.limit:
            self.refused += 1
            return await self.budgets.hold(CREDENTIAL, poller.kind, seconds)
        self.spent += 1
        await told(self.budgets, self.limit, self.limit - self.spent, seconds)
        return None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "deltas", "full_polls", "windows_of_a_delta", "windows_of_a_full"),
    [
        (60, 8, 1, 0.5, 2),  # one long full poll and a few deltas
        (60, 14, 5, 1, 2),
        (60, 8, 60, 2, 4),  # as many full polls as a window has requests
        (60, 20, 45, 2, 4),
        (60, 60, 2, 2, 3),  # deltas alone want all there is
        (40, 60, 5, 3, 3),  # and more than that
        (4, 3, 2, 3, 4),
    ],
)
async def test_everybody_gets_through_within_a_bounded_number_of_windows(
    services, limit, deltas, full_polls, windows_of_a_delta, windows_of_a_full
):
    simulation = Simulation(services, limit, deltas, full_polls)

    await simulation.run(windows=8)

    slowest = {
        kind: max(poller.longest for poller in pollers) / MINUTE
        for kind, pollers in (("delta", simulation.deltas), ("full", simulation.full_polls))
    }
    served = sum(len(one.served) for one in simulation.deltas + simulation.full_polls)
    assert simulation.refused == 0
    assert slowest["delta"] <= windows_of_a_delta
    assert slowest["full"] <= windows_of_a_full
    assert served >= 0.7 * 7 * limit  # what is allowed is used


# --- whole turns ----------------------------------------------------------------------------


async def second_upstream(sandbox, courses: int = 600) -> str:
    await sandbox.call("POST", "/integrations", {"upstream_id": "workday:2", "courses": courses})
    return "workday:2"


async def limit_rate(sandbox, per_minute: int) -> None:
    await sandbox.call("POST", "/rate-limit", {"per_minute": per_minute})


async def statuses(sandbox) -> list[int]:
    return [one["status"] for one in await sandbox.served()]


async def credential_of(integration) -> str:
    registered, _ = await integration.services.integrations.get(integration.id)
    return registered.credential_id


async def test_two_workers_spend_one_budget(context, sandbox, register, valkey_url):
    await limit_rate(sandbox, 8)
    first = await register()
    async with open_services(context.services.settings) as others:
        other = JobContext(others, context.dispatcher, asyncio.Event())
        second = await new_integration(
            other,
            sandbox.base_url,
            credential_id=await credential_of(first),
            upstream_id=await second_upstream(sandbox),
        )
        await first.turn()
        await second.turn()
        assert await statuses(sandbox) == [200] * 6  # a quarter is left to deltas
        for integration in (first, second):
            assert (await integration.state()).baselined
            await integration.services.integrations.request_poll(integration.id, "full", 1)
            await integration.turn()
        assert len(await sandbox.served()) == 6
        (running, *_) = await second.polls()
        assert (running.state, running.error) == (
            "running",
            "waiting for the upstream's rate limit",
        )


@pytest.mark.parametrize("sandbox", [2_500], indirect=True)
async def test_a_limit_that_counts_down_is_respected_without_ever_meeting_it(
    context, sandbox, register
):
    await limit_rate(sandbox, 5)
    integration = await register()
    credential_id = await credential_of(integration)
    begun = time.monotonic()

    await integration.turn()

    # Nobody's time is spent on waiting, and nothing is wrong with the integration.
    assert time.monotonic() - begun < 5
    shown = await integration.shown()
    assert (shown.state, shown.error) == ("pending", None)
    assert 50 < await integration.due_in() < 75
    (running,) = await integration.polls()
    assert (running.state, running.pages) == ("running", 4)
    assert "rate limit" in running.error
    turns = 1
    while not (await integration.state()).baselined:
        await advance(context.services.redis, credential_id, 75_000)
        await limit_rate(sandbox, 5)  # begins a fresh minute, as the 75 seconds do
        await integration.turn()
        turns += 1
        assert turns < 6
    assert await statuses(sandbox) == [200] * 10
    (poll,) = await integration.polls()
    assert (poll.id, poll.state, poll.error) == (running.id, "completed", None)


async def test_another_credential_at_the_same_upstream_is_not_held_up(context, sandbox, register):
    first = await register()
    await sandbox.fault(
        "error",
        code="PLATFORM.RATE_LIMIT_EXCEEDED",
        upstream_id=UPSTREAM_ID,
        times=1,
        retry_after=60,
    )
    await first.turn()
    second = await new_integration(
        context, sandbox.base_url, upstream_id=await second_upstream(sandbox)
    )
    await second.turn()
    assert (await second.state()).baselined
    assert not (await first.state()).baselined


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "17"}, 17),
        ({"retry_after": "date"}, 17),
        ({"retry_after": "17", "ratelimit_reset": "40"}, 17),
        ({"ratelimit_reset": "40"}, 40),
        ({"ratelimit_reset": "1795424000"}, 5),  # a date, though it should be seconds
        ({"retry_after": "soon", "ratelimit_reset": "-3"}, 5),
        ({"retry_after": "-17"}, 5),
        ({"retry_after": "0"}, 5),
        ({}, 5),
    ],
)
@pytest.mark.parametrize(
    ("code", "status"),
    [("PLATFORM.RATE_LIMIT_EXCEEDED", 429), ("REMOTE.RATE_LIMIT_EXCEEDED", 503), (None, 429)],
)
async def test_the_wait_is_what_the_upstream_asks_for(
    context, scripted, code, status, headers, seconds
):
    integration = await new_integration(context, scripted.base_url)
    if headers.get("retry_after") == "date":  # by the upstream's clock, whatever ours says
        there = time.time() + 1e6
        headers = {
            "date": formatdate(there, usegmt=True),
            "retry_after": formatdate(there + 17, usegmt=True),
        }
    scripted.answer = refuses(status, code, **headers)

    await integration.turn()

    assert await integration.due_in() == pytest.approx(seconds + 0.2, abs=1.2)
    shown = await integration.shown()
    assert (shown.state, shown.error) == ("pending", None)
    await integration.turn()  # too early: asks for nothing
    assert len(scripted.asked) == 1
    await context.services.redis.delete(keys.budget(await credential_of(integration)))
    scripted.answer = says(200, page(["a"]))
    await integration.turn()
    assert (await integration.state()).baselined


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ratelimit_remaining": "0"},
        {"ratelimit_remaining": "0", "ratelimit_limit": "0"},
        {"ratelimit_remaining": "-5", "ratelimit_reset": "60", "ratelimit_limit": "300"},
        {"ratelimit_remaining": "0", "ratelimit_reset": "-60", "ratelimit_limit": "300"},
        {"ratelimit_remaining": "0", "ratelimit_reset": "1795424000", "ratelimit_limit": "300"},
        {"ratelimit_remaining": "0", "ratelimit_reset": "9" * 400, "ratelimit_limit": "300"},
        {"ratelimit_remaining": "0", "ratelimit_reset": "nan", "ratelimit_limit": "300"},
        {"ratelimit_remaining": "0", "ratelimit_reset": "0", "ratelimit_limit": "300"},
        {"ratelimit_remaining": "many", "ratelimit_reset": "60", "ratelimit_limit": "lots"},
        {"ratelimit_remaining": "9999999999", "ratelimit_reset": "60", "ratelimit_limit": "1"},
        {"ratelimit_remaining": "9" * 30, "ratelimit_reset": "60", "ratelimit_limit": "9" * 30},
        {"ratelimit_remaining": "5", "ratelimit_reset": "60", "ratelimit_limit": "-1"},
        {"ratelimit_remaining": "5", "ratelimit_reset": "60"},
        {"ratelimit_remaining": "5, 5", "ratelimit_reset": "3600.5", "ratelimit_limit": "5;w=60"},
    ],
)
async def test_absurd_headers_do_no_harm(context, scripted, headers):
    integration = await new_integration(context, scripted.base_url)

    async def answer(request):
        number = int(request.query.get("cursor", "0"))
        following = str(number + 1) if number < 2 else None
        return await says(200, page([f"c{number}"], following), **headers)(request)

    scripted.answer = answer

    await integration.turn()

    assert (await integration.state()).baselined
    assert len(scripted.asked) == 3


async def test_a_poll_that_waits_for_an_hour_goes_on_where_it_stopped(
    register, sandbox, monkeypatch
):
    integration = await register()
    await sandbox.fault(
        "error", code="PLATFORM.RATE_LIMIT_EXCEEDED", on="later", times=1, retry_after=3600
    )
    await integration.turn()
    (waiting,) = await integration.polls()
    assert await integration.due_in() == pytest.approx(3_600, abs=2)
    later = now_ms() + 65 * 60_000
    monkeypatch.setattr("workers.polling.poll.now_ms", lambda: later)
    await advance(integration.services.redis, await credential_of(integration), 65 * 60_000)

    await integration.turn()

    (poll,) = await integration.polls()
    assert (poll.id, poll.state, poll.pages) == (waiting.id, "completed", 3)
    first_pages = [one for one in await sandbox.served() if "cursor" not in one["parameters"]]
    assert len(first_pages) == 1


async def test_what_a_full_poll_has_seen_lives_as_long_as_the_full_poll_is_kept_waiting(
    register, sandbox
):
    """Else a full poll held up for many hours would miss what its first pages had shown."""
    integration = await register()
    redis = integration.services.redis.admin
    await sandbox.fault("error", code="PLATFORM.RATE_LIMIT_EXCEEDED", on="later", retry_after=9)
    await integration.turn()
    (seen,) = await redis.keys("cw:seen:*")
    await redis.expire(seen, 60)
    await redis.delete(keys.budget(await credential_of(integration)))

    await integration.turn()

    assert await redis.ttl(seen) > 3 * 3_600


def around_notes(services, monkeypatch, before) -> list[int]:
    """What remained by each stored rate limit; `before` is awaited before it is stored."""
    stored, note = [], services.budgets.note

    async def note_later(credential_id, **reported):
        await before()
        await note(credential_id, **reported)
        stored.append(reported["remaining"])

    monkeypatch.setattr(services.budgets, "note", note_later)
    return stored


async def test_a_page_is_committed_while_its_rate_limit_is_stored(register, services, monkeypatch):
    integration = await register()
    committed, commit = asyncio.Event(), services.catalogue.commit

    async def commit_and_tell(*arguments, **named):
        done = await commit(*arguments, **named)
        committed.set()
        return done

    monkeypatch.setattr(services.catalogue, "commit", commit_and_tell)
    stored = around_notes(services, monkeypatch, lambda: asyncio.wait_for(committed.wait(), 10))

    await integration.turn()

    assert (await integration.state()).baselined
    assert len(stored) == 3


async def test_a_rate_limit_that_cannot_be_stored_costs_no_page(register, services, monkeypatch):
    integration = await register()

    async def fail():
        raise ConnectionError("Redis is away")

    with monkeypatch.context() as patch:
        around_notes(services, patch, fail)
        await integration.turn()
    (poll,) = await integration.polls()
    assert (poll.state, poll.pages) == ("running", 1)

    await integration.turn()

    (poll,) = await integration.polls()
    assert (poll.state, poll.pages) == ("completed", 3)


async def test_an_impatient_caller_costs_a_poll_nothing(register, sandbox):
    integration = await register()
    redis, credential_id = integration.services.redis, await credential_of(integration)
    await integration.services.budgets.note(credential_id, limit=60, remaining=0, reset_seconds=30)
    await integration.turn()
    due = await integration.due_in()
    for _ in range(20):  # others come meanwhile
        await integration.services.budgets.spend(credential_id, "full", 0)
    for _ in range(3):
        await integration.services.integrations.request_poll(integration.id, "full", now_ms())
        await integration.turn()
    assert await integration.due_in() == pytest.approx(due, abs=1)
    assert await sandbox.served() == []
    await redis.delete(keys.budget(credential_id))
    await integration.turn()
    assert (await integration.state()).baselined


async def test_a_full_poll_of_many_pages_holds_up_no_delta_on_its_credential(
    context, scripted, register
):
    """Through whole turns: eight requests a window, a full poll that wants forty."""
    window = {"ends": 0.0, "spent": 0}
    passed = 0.0

    async def answer(request):
        now = time.monotonic() + passed
        if now >= window["ends"]:
            window.update(ends=now + 60, spent=0)
        reset = str(math.ceil(window["ends"] - now))
        if window["spent"] >= 8:
            return await refuses(429, "PLATFORM.RATE_LIMIT_EXCEEDED", retry_after=reset)(request)
        window["spent"] += 1
        number = int(request.query.get("cursor", "0"))
        following = str(number + 1) if long[0] == request.headers["x-integration-id"] else None
        answer = says(
            200,
            page([f"c{number}"], following if number < 39 else None),
            ratelimit_limit="8",
            ratelimit_remaining=str(8 - window["spent"]),
            ratelimit_reset=reset,
        )
        return await answer(request)

    long = [""]
    scripted.answer = answer
    credential_id = await new_credential(context.services, scripted.base_url)
    small = []
    for number in range(2):
        one = await new_integration(
            context, "", credential_id=credential_id, upstream_id=f"small:{number}"
        )
        await one.turn()
        small.append(one)
    big = await new_integration(context, "", credential_id=credential_id, upstream_id="big:1")
    long[0] = "big:1"
    redis = context.services.redis.admin
    pages = []
    for _ in range(6):
        await big.turn()
        pages.append((await big.polls())[0].pages)
        for one in small:
            poll = await one.poll("delta")
            assert (poll.state, poll.error) == ("completed", None)
        passed += 70
        await advance(redis, credential_id, 70_000)
    assert pages == sorted(set(pages))  # it gets on in every window
    assert pages[-1] >= 24
    assert (await context.services.credentials.get(credential_id)).id == credential_id
