"""Carries a history out: an upstream, one integration over it, and what its events must be."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import singledispatchmethod
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from service.bootstrap import assemble
from service.clients.address_guard import AddressGuard
from service.domain.courses.fingerprint import Fingerprint
from service.domain.courses.record import Course
from service.domain.courses.tracked_paths import path_digests
from service.domain.delivery.subscription import Subscription
from service.domain.polling import failure
from service.domain.polling import progress as polling
from service.domain.polling.integration import Baseline, Credential, Integration
from service.domain.review.guards import Guards
from service.sandbox.changes import ALLOWED_FROM
from service.sandbox.content import format_time
from service.settings import Settings
from service.storage.redis import keys
from tests.histories.consumer import Consumer
from tests.histories.steps import (
    Change,
    Crash,
    Decide,
    Drain,
    Fault,
    Heal,
    History,
    Pass,
    Rename,
    Subscribe,
    Turn,
    Usurp,
    sandbox_fault,
)
from tests.histories.upstream import API_KEY, UPSTREAM_ID, Upstream, differing
from tests.integration.conftest import set_polling_clock
from workers.context import JobContext
from workers.polling import absences, commit, pages, review_decision, waiting_changes
from workers.polling import poll as poller
from workers.polling.poll_dependencies import PollResources

BEGINNING = 1_795_424_000_000
CLAIM = 9_000_000_000_000_000
INTEGRATION = "int_history"
MOST_TURNS = 30  # until a poll over a sound upstream is over
MOST_DECISIONS = 30  # until nothing is held, none being taken back


class Killed(BaseException):
    """The worker is no more."""


@contextmanager
def low_limits() -> Iterator[None]:
    """Small pages, commits and batches, so that few courses make many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "MAX_PAGES", 150)
        patch.setattr(failure, "MIN_PAGE_SIZE", 3)
        patch.setattr(commit, "MAX_CHANGES", 3)
        patch.setattr(waiting_changes, "MOST_IDS", 6)
        patch.setattr(absences, "FOUND_AT_ONCE", 4)
        patch.setattr(review_decision, "MOST_IDS", 7)
        yield


class Meter:
    """Counts the points of a turn, and lets things happen at some."""

    def __init__(self) -> None:
        self.count = 0
        self.planned: list[tuple[int, Any]] = []
        self.act: Callable[[Any], Awaitable[None]]

    def plan(self, amid: tuple[tuple[int, Any], ...]) -> None:
        self.count = 0
        self.planned = sorted(amid, key=lambda one: one[0])

    async def reach(self) -> None:
        self.count += 1
        while self.planned and self.planned[0][0] < self.count:
            await self.act(self.planned.pop(0)[1])


class Watched:
    """A service before and after each of whose calls things may happen."""

    def __init__(self, inner: Any, meter: Meter) -> None:
        self._inner = inner
        self._meter = meter

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(value):
            return value

        async def call(*arguments: Any, **named: Any) -> Any:
            await self._meter.reach()
            result = await value(*arguments, **named)
            await self._meter.reach()
            return result

        return call


class Quiet:
    """Stands in for enqueueing."""

    async def dispatch(self, *kinds: str, scheduler: str | None = None) -> int:
        return 0


class World:
    """One history being carried out."""

    def __init__(self, redis: Redis, settings: Settings, history: History) -> None:
        self.history = history
        self.upstream = Upstream(
            history.courses, history.seed, BEGINNING, history.skew_minutes * 60_000
        )
        ignored = frozenset(history.ignored)
        if not history.track_remote_data:
            ignored |= {"remote_data", "revisions.remote_data"}
        self.ignored = ignored
        self.consumer = Consumer(self.upstream, ignored)
        self.consumer.silent = not history.emit
        self.redis = redis
        self.subscribed = 0
        services = assemble(settings, redis, AddressGuard(()), self.upstream, None)
        self.services = services
        self.meter = Meter()
        self.meter.act = self.act
        self._commit, self._finish = services.catalogue.commit, services.polls.finish
        services.catalogue.commit = self._committed
        services.polls.finish = self._finished
        watched = ("catalogue", "polls", "reviews", "budgets", "upstream")
        self.context = JobContext(
            msgspec.structs.replace(
                services, **{name: Watched(getattr(services, name), self.meter) for name in watched}
            ),
            Quiet(),
            asyncio.Event(),
        )
        self.begun_at = 0
        self.trusted = False
        self.completed: list[tuple[str, int]] = []
        self.commits = 0
        self._position: str | None = None
        self._at_work = False

    def now(self) -> int:
        return self.upstream.now

    # --- what the workers do -------------------------------------------------------------

    def begin(self, *arguments: Any) -> polling.PollProgress:
        self.begun_at = self.upstream.changes
        self.upstream.distorted = False
        return msgspec.structs.replace(polling.begin(*arguments), page_size=7)

    async def _committed(self, lease: Any, **named: Any) -> Any:
        self.commits += 1
        assert self.commits < 2_000, "a turn that commits and commits"
        committed = await self._commit(lease, **named)
        if self.consumer.silent and not self.consumer.baselined:
            for change in named["batch"].changes:
                # A change with an event came after the baseline, whose end is not yet read.
                if change.fingerprint is None or change.event is not None:
                    continue
                self.consumer.knows(
                    change.course_id, self._shown(change.course_id, change.fingerprint)
                )
        return committed

    def _shown(self, course_id: str, fingerprint: Fingerprint) -> bytes | None:
        """The record that a fingerprint was taken of, None for a deleted course."""
        if fingerprint.deleted:
            return None
        for body in reversed(self.upstream.shown[course_id]):
            if path_digests(msgspec.json.decode(body, type=Course)) == fingerprint.paths:
                return body
        raise AssertionError(f"{course_id}: committed what was never shown")

    async def _finished(self, lease: Any, **named: Any) -> None:
        await self._finish(lease, **named)
        record = named["record"]
        if named["over"] and record.state == "completed":
            self.completed.append((record.kind, self.begun_at))
            if record.kind == "full":
                self.trusted = not self.upstream.distorted

    # --- steps ---------------------------------------------------------------------------

    async def carry_out(self) -> None:
        with pytest.MonkeyPatch.context() as patch, capture_logs():
            set_polling_clock(patch, self.now)
            patch.setattr(poller, "begin", self.begin)
            await self._register()
            for step in self.history.steps:
                await self.act(step)
            await self._end()

    async def _register(self) -> None:
        history, now = self.history, self.now()
        await self.services.credentials.create(
            Credential(
                id="cred_history",
                name="history",
                base_url="https://upstream.example/v1",
                created_at=now,
                updated_at=now,
            ),
            API_KEY,
        )
        await self.services.integrations.create(
            Integration(
                id=INTEGRATION,
                name="history",
                upstream_id=UPSTREAM_ID,
                credential_id="cred_history",
                created_at=now,
                updated_at=now,
                baseline=Baseline.EMIT if history.emit else Baseline.SILENT,
                guards=Guards(**history.guards),
                ignore_paths=history.ignored,
                track_remote_data=history.track_remote_data,
            )
        )

    @singledispatchmethod
    async def act(self, step: Any) -> None:
        raise TypeError(step)

    @act.register
    async def _(self, step: Change) -> None:
        if step.op in ("field_off", "field_on"):
            self.upstream.change(op=step.op, path=step.path)
            return
        fields: dict[str, Any] = {"op": step.op}
        if step.path is not None:
            fields["path"] = step.path
        if step.late:
            made = self.now() + self.upstream.skew - step.late * 60_000
            fields["updated_at"] = format_time(made)
        if step.op == "create":
            for _ in range(min(step.many, 10)):
                self.upstream.change(**fields)
            return
        fitting = [
            course_id
            for course_id, state in self.upstream.states().items()
            if state in ALLOWED_FROM[step.op]
        ]
        start = step.pick % len(fitting) if fitting else 0
        for course_id in (fitting[start:] + fitting[:start])[: step.many]:
            if step.op == "anonymise":
                # Of a live course, a record without anything in it is no proof.
                fields["keep_deleted_at"] = step.keep_deleted_at or await self._is_live(course_id)
            self.upstream.change(course_id=course_id, **fields)

    async def _is_live(self, course_id: str) -> bool:
        """Whether a course is known to be live, or may be by the end of the turn."""
        if self._at_work:
            return True
        _, state = await self.services.integrations.get(INTEGRATION)
        (packed,) = await self.redis.hmget(keys.catalogue(INTEGRATION, state.epoch), [course_id])
        return packed is not None and packed[1:2] == b"L"

    @act.register
    async def _(self, step: Fault) -> None:
        self.upstream.fault(sandbox_fault(step, list(self.upstream.states())))

    @act.register
    async def _(self, step: Heal) -> None:
        self.upstream.heal()

    @act.register
    async def _(self, step: Pass) -> None:
        self.upstream.now += step.minutes * 60_000
        await self.redis.delete(keys.budget("cred_history"))

    @act.register
    async def _(self, step: Rename) -> None:
        await self.services.integrations.update(
            INTEGRATION,
            lambda old: msgspec.structs.replace(
                old, name=f"history {step.number}", labels={"number": str(step.number)}
            ),
        )

    @act.register
    async def _(self, step: Subscribe) -> None:
        self.subscribed += 1
        if (number := self.subscribed) > 2:
            return
        await self.services.subscriptions.create(
            Subscription(
                id=f"sub_{number}",
                url="https://receiver.example/",
                created_at=number,
                updated_at=number,
                paused=True,
            ),
            ["whsec_" + "A" * 32],
            {},
        )

    @act.register
    async def _(self, step: Crash) -> None:
        raise Killed

    @act.register
    async def _(self, step: Drain) -> None:
        self.context.draining.set()

    @act.register
    async def _(self, step: Usurp) -> None:
        planned, self.meter.planned = self.meter.planned, []
        await self._turn()
        self._at_work = True
        self.meter.planned = planned

    @act.register
    async def _(self, step: Decide) -> None:
        _, state = await self.services.integrations.get(INTEGRATION)
        review = await self.services.reviews.get(INTEGRATION, state.epoch)
        if review.since is not None and state.decision is None:
            await self.services.reviews.decide(INTEGRATION, state.epoch, review.version, "publish")

    @act.register
    async def _(self, step: Turn) -> None:
        if step.kind is not None:
            await self.services.integrations.request_poll(INTEGRATION, step.kind, self.now())
        self.meter.plan(step.amid)
        try:
            await self._turn()
        except Killed:
            pass
        finally:
            self.meter.planned = []
        await self._judge()

    async def _turn(self) -> None:
        self.upstream.now += 1_000
        self.upstream.requests = self.commits = 0
        await self.redis.delete(keys.lease("polls", INTEGRATION))
        await self.redis.zrem(keys.due("polls"), INTEGRATION)
        await self.redis.zadd(keys.claimed("polls"), {INTEGRATION: CLAIM})
        try:
            self._at_work = True
            await poller.poll_one(PollResources.of(self.context), INTEGRATION, CLAIM)
        finally:
            self._at_work = False
            self.context.draining.clear()

    # --- what must be so -----------------------------------------------------------------

    async def _judge(self) -> None:
        """Reads the new events, and looks at what a poll that completed must have told."""
        while True:
            events, _ = await self.services.events.read(self._position, 500)
            for event in events:
                self.consumer.receive(event)
            if events:
                self._position = events[-1].position
            if len(events) < 500:
                break
        completed, self.completed = self.completed, []
        if not completed or not self.trusted or self.upstream.distorted:
            self.trusted = self.trusted and not self.upstream.distorted
            return
        _, state = await self.services.integrations.get(INTEGRATION)
        withheld: set[str] = set()
        for key in (keys.held, keys.decided):
            found = await self.redis.hkeys(key(INTEGRATION, state.epoch))
            withheld.update(name.decode() for name in found)
        kind, begun_at = completed[-1]
        for course_id, (number, version) in self.upstream.visible[kind].items():
            if number > begun_at or course_id in withheld:
                continue
            if self.upstream.vanished.get(course_id, 0) > number:
                continue
            assert self.consumer.is_at(course_id, version), f"a {kind} did not tell of {course_id}"

    async def _end(self) -> None:
        """The upstream is sound from here on: one full poll, and all decisions, make all known."""
        self.upstream.heal()
        if not self.upstream.live():
            self.upstream.change(op="create")
        self.upstream.now += 60_000
        await self._until_idle()
        for _ in range(MOST_DECISIONS):
            await self._full_poll()
            _, state = await self.services.integrations.get(INTEGRATION)
            if not state.held and state.decision is None:
                break
            await self.act(Decide())
            await self._until_idle()
        else:
            pytest.fail(f"changes are still held after {MOST_DECISIONS} decisions")
        await self._compare()
        known = self.consumer.events
        await self._full_poll()
        await self.act(Turn("delta"))
        assert self.consumer.events == known, "events though nothing changed"

    async def _until_idle(self) -> None:
        for _ in range(MOST_TURNS):
            await self.redis.delete(keys.budget("cred_history"))
            await self.act(Turn(None))
            if not await self.services.polls.progress(INTEGRATION):
                return
        pytest.fail("a poll over a sound upstream does not end")

    async def _full_poll(self) -> None:
        poll = await self.services.integrations.request_poll(INTEGRATION, "full", self.now())
        for _ in range(MOST_TURNS):
            await self.act(Turn(None))
            found = await self.services.integrations.get_poll(INTEGRATION, poll.id)
            if found.state == "completed":
                return
        pytest.fail(f"a full poll over a sound upstream does not end: {found}")

    async def _compare(self) -> None:
        live, held = self.upstream.live(), self.consumer.courses
        assert held.keys() - live.keys() == set(), "gone, but nobody was told"
        assert live.keys() - held.keys() == set(), "there, but nobody was told"
        for course_id, body in live.items():
            wrong = differing(held[course_id], body) - self.ignored
            assert not wrong, f"{course_id} differs in {wrong}"
            unannounced = self.consumer.unannounced(course_id, body)
            assert not unannounced, f"{course_id}: no event named {unannounced}"
        _, state = await self.services.integrations.get(INTEGRATION)
        counted = {"courses": state.course_count, "quarantined": state.quarantined}
        assert counted == {"courses": len(live), "quarantined": 0}, f"miscounted: {counted}"
        left = [key async for key in self.redis.scan_iter("cw:*") if _is_left_over(key)]
        assert not left, f"left over: {left}"


def _is_left_over(key: bytes) -> bool:
    return key.split(b":")[1] in (
        b"seen",
        b"waiting",
        b"held",
        b"review",
        b"decided",
        b"quarantine",
    )
