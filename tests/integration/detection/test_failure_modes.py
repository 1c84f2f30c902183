"""The fifteen ways in which pollers have gone wrong, each with and without what prevents it.

`protected` is the set of protections in force. Whether the failure happened is told from what
subscribers were sent, by the same code in every run: with the protections it must not, and
without them it must, or the test would prove nothing. Where several protections cover one
failure, each is shown to suffice alone.

What no delta reports, the next full poll does. So "lost" means lost to every delta, and where a
full poll would not find it either, the tests say so by polling one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial

import msgspec
import pytest

from service.bootstrap import open_services
from service.clock import now_ms
from service.domain.courses.fingerprint import RAW
from service.domain.courses.tracked_paths import CURRENT, OLDER, PATH_DIGEST_BYTES, Version
from service.domain.errors import CoursesDifferError
from service.domain.polling.integration import Baseline
from service.domain.review.guards import Guards
from service.sandbox.content import format_time
from service.storage.redis import keys
from service.storage.redis.scripts import run
from tests.integration.conftest import set_polling_clock
from tests.integration.detection.careless import CARELESS, Process, protected_by
from workers.context import JobContext
from workers.polling.poll import poll_batch

SECOND, MINUTE, DAY = 1_000, 60_000, 86_400_000


@pytest.fixture
def protected(request, monkeypatch):
    kept, dropped = request.param
    for name in dropped:
        CARELESS[name](monkeypatch)
    return kept


class Polled:
    """A registered integration, and what subscribers were told of its courses."""

    def __init__(self, integration, sandbox) -> None:
        self.integration = integration
        self.services = integration.services
        self.id = integration.id
        self.poll = integration.poll
        self.turn = integration.turn
        self.state = integration.state
        self._sandbox = sandbox

    async def events(self) -> list:
        return [one for one in await self.integration.events() if one.type.startswith("course.")]

    async def reported(self) -> Counter:
        return Counter((event.type, event.course_id) for event in await self.events())

    async def lost(self, changes) -> set[str]:
        """The changed courses of which nobody was told anything."""
        told = {event.course_id for event in await self.events()}
        return {change["course_id"] for change in changes} - told

    async def false_deletes(self) -> set[str]:
        """The courses that were reported deleted and are there."""
        live = {one["id"] for one in await self._sandbox.courses() if one["state"] == "live"}
        told = {event.course_id for event in await self.events() if event.type == "course.deleted"}
        return live & told

    async def age(self, milliseconds: int) -> None:
        """Lets the time since the last poll be so much longer."""
        for field in ("watermark", "last_full_at"):
            await self.services.redis.hincrby(keys.integration(self.id), field, -milliseconds)

    async def lapse(self) -> None:
        """Lets the lease and the claim of a worker that is no more run out."""
        await self.services.redis.delete(keys.lease("polls", self.id))
        await self.services.redis.zrem(keys.claimed("polls"), self.id)

    async def die_when(self, kind: str, monkeypatch, *, pages: int) -> None:
        """Begins a poll whose worker dies as soon as so many pages of it count as done."""

        async def run_then_die(redis, commit):
            committed = await run(redis, commit)
            done = msgspec.json.decode(commit.progress)["pages"]
            if done == pages and not committed.refused:
                raise asyncio.CancelledError
            return committed

        with monkeypatch.context() as dying:
            dying.setattr("service.storage.polling.catalogue.run", run_then_die)
            await self.services.integrations.request_poll(self.id, kind, now_ms())
            claims = [(self.id, await self.integration.claim())]
            (outcome,) = await asyncio.gather(
                poll_batch(self.integration.context, claims), return_exceptions=True
            )
        assert isinstance(outcome, asyncio.CancelledError)
        await self.lapse()


@pytest.fixture
def polled(protected, register, sandbox):
    """Registers an integration and completes its baseline."""

    async def polled(**fields) -> Polled:
        # A full poll that came due by chance would find what a test means to be lost.
        year = {"full_interval_seconds": 365 * 86_400}
        integration = Polled(await register(**year | fields), sandbox)
        await integration.turn()
        assert (await integration.state()).baselined
        return integration

    return polled


class Clock:
    """The worker's clock, set wrong or moved on."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    set_polling_clock(monkeypatch, clock)
    return clock


def ago(milliseconds: int) -> str:
    return format_time(now_ms() - milliseconds)


def edits(count: int, **fields) -> dict:
    return {"op": "edit", "count": count, **fields}


def between_pages(monkeypatch, services, act) -> None:
    """Acts once, after the first page of a poll has arrived."""
    fetch = services.upstream.fetch_page

    async def fetch_then_act(*arguments):
        page = await fetch(*arguments)
        monkeypatch.setattr(services.upstream, "fetch_page", fetch)
        await act()
        return page

    monkeypatch.setattr(services.upstream, "fetch_page", fetch_then_act)


# --- 1: false deletes after a truncated poll --------------------------------------------------


@protected_by("absences are verified", "guards")
async def test_01_a_poll_that_says_it_is_over_too_early_deletes_nothing(protected, polled, sandbox):
    integration = await polled()
    await sandbox.fault("end_early", on="walk")
    await integration.poll("full")
    observed = bool(await integration.false_deletes())
    assert observed == (not protected)


@protected_by("absences are verified")
async def test_01_courses_left_out_of_a_page_are_not_deleted_though_they_are_few(
    protected, polled, sandbox
):
    integration = await polled()
    await sandbox.fault("vanish", on="walk", share=0.05)
    await integration.poll("full")
    observed = bool(await integration.false_deletes())
    assert observed == (not protected)


@pytest.mark.parametrize("fault", ["html", "truncate"])
@protected_by("errors fail the poll", "absences are verified", "guards")
async def test_01_a_poll_broken_off_deletes_nothing(protected, polled, sandbox, fault):
    integration = await polled()
    await sandbox.fault(fault, on="later")
    await integration.poll("full")
    observed = bool(await integration.false_deletes())
    assert observed == (not protected)


# --- 2: an empty answer taken for "all gone" --------------------------------------------------


@pytest.mark.parametrize("sandbox", [8, 600], indirect=True)
@protected_by("a live course was seen", "absences are verified", "guards")
async def test_02_an_empty_catalogue_is_not_believed(protected, polled, sandbox):
    integration = await polled()
    await sandbox.fault("empty", on="walk")
    await integration.poll("full")
    observed = bool(await integration.false_deletes())
    assert observed == (not protected)


# Asking cannot help where the upstream has lost everything: it answers nothing to that too.
@protected_by("a live course was seen", "guards")
async def test_02_an_upstream_that_has_lost_everything_is_not_believed(protected, polled, sandbox):
    integration = await polled()
    await sandbox.fault("empty", on="any")
    await integration.poll("full")
    observed = bool(await integration.false_deletes())
    assert observed == (not protected)


# --- 3: mass delete after a configuration error -----------------------------------------------


@pytest.mark.parametrize("kind", ["delta", "full"])
@protected_by("guards")
async def test_03_a_model_switched_off_deletes_nothing(protected, polled, sandbox, kind):
    integration = await polled()
    await sandbox.change({"op": "delete", "all": True})
    await integration.poll(kind)
    observed = bool(await integration.events())
    assert observed == (not protected)


@protected_by("guards")
async def test_03_an_account_that_may_see_little_by_now_deletes_nothing(protected, polled, sandbox):
    integration = await polled()
    await sandbox.change({"op": "vanish", "count": 500})
    await integration.poll("full")
    observed = bool(await integration.events())
    assert observed == (not protected)


@pytest.mark.parametrize(
    "code", ["PLATFORM.AUTHENTICATION_INVALID", "PLATFORM.INTEGRATION_NOT_FOUND"]
)
@protected_by("errors fail the poll", "a live course was seen", "guards")
async def test_03_a_key_or_an_integration_that_is_refused_deletes_nothing(
    protected, polled, sandbox, code
):
    integration = await polled()
    await sandbox.fault("error", code=code)
    await integration.poll("full")
    observed = bool(await integration.false_deletes())
    assert observed == (not protected)


@protected_by("guards")
async def test_03_a_field_switched_off_floods_nobody(protected, polled, sandbox):
    integration = await polled()
    await sandbox.change({"op": "field_off", "path": "custom_fields"})
    await integration.poll("delta")
    observed = bool(await integration.events())
    assert observed == (not protected)


# --- 4: a watermark that outruns late-visible rows --------------------------------------------


@protected_by("overlap")
async def test_04_rows_that_become_visible_late_are_reported(protected, polled, sandbox):
    integration = await polled()
    late = {"updated_at": ago(9 * MINUTE)}
    changes = await sandbox.change(
        edits(2, **late), {"op": "delete", **late}, {"op": "create", **late}
    )
    await integration.poll("delta")
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


@protected_by("watermark is the start")
async def test_04_a_row_changed_behind_a_long_poll_is_reported(
    protected, polled, sandbox, clock, monkeypatch
):
    integration = await polled()
    changes = []

    async def edit_what_was_shown_and_take_long() -> None:
        first, *_ = await sandbox.courses()
        stamp = format_time(clock() + SECOND)
        changes.extend(
            await sandbox.change({"op": "edit", "course_id": first["id"], "updated_at": stamp})
        )
        clock.ahead += 20 * MINUTE

    between_pages(monkeypatch, integration.services, edit_what_was_shown_and_take_long)
    await integration.poll("full")
    await integration.poll("delta")
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


@protected_by("watermark is our clock's")
async def test_04_a_row_dated_in_the_future_does_not_hide_those_after_it(
    protected, polled, sandbox
):
    integration = await polled()
    changes = await sandbox.change(edits(1, updated_at=ago(-60 * MINUTE)))
    await integration.poll("delta")
    changes += await sandbox.change(edits(3))
    await integration.poll("delta")
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


# --- 5: loss at equal timestamps --------------------------------------------------------------


@protected_by("overlap")
async def test_05_a_row_dated_exactly_at_the_watermark_is_reported(protected, polled, sandbox):
    integration = await polled()
    watermark = (await integration.state()).watermark
    changes = await sandbox.change(edits(1, updated_at=format_time(watermark)))
    await integration.poll("delta")
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


@protected_by("overlap", "watermark is our clock's", alone=["overlap"])
async def test_05_a_row_dated_like_one_already_reported_is_reported(protected, polled, sandbox):
    integration = await polled()
    same = {"updated_at": ago(SECOND)}
    changes = await sandbox.change(edits(1, **same))
    await integration.poll("delta")
    changes += await sandbox.change(edits(1, course_id=await another(sandbox, changes), **same))
    await integration.poll("delta")
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


async def another(sandbox, changes) -> str:
    """A course that is not among the changed."""
    changed = {change["course_id"] for change in changes}
    return next(one["id"] for one in await sandbox.courses() if one["id"] not in changed)


# --- 6: clock skew that loses rows for good ---------------------------------------------------


async def skew(sandbox, milliseconds: int) -> None:
    await sandbox.call("POST", "/clock", {"skew_seconds": milliseconds / 1000})


@protected_by("watermark heeds their clock")
async def test_06_an_upstream_whose_clock_is_behind_loses_nothing(protected, polled, sandbox):
    await skew(sandbox, -60 * MINUTE)
    integration = await polled()
    changes = await sandbox.change(edits(2), {"op": "delete"}, {"op": "create"})
    await integration.poll("delta")
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


@protected_by("watermark heeds our clock")
async def test_06_an_upstream_whose_clock_was_ahead_loses_nothing(protected, polled, sandbox):
    await skew(sandbox, 60 * MINUTE)
    integration = await polled()
    await skew(sandbox, 0)
    changes = await sandbox.change(edits(2), {"op": "delete"}, {"op": "create"})
    await integration.poll("delta")
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


@protected_by("watermark heeds their clock")
async def test_06_a_clock_of_ours_that_was_ahead_loses_nothing(protected, polled, sandbox, clock):
    clock.ahead = 60 * MINUTE
    integration = await polled()
    clock.ahead = 0
    changes = await sandbox.change(edits(2), {"op": "delete"}, {"op": "create"})
    await integration.poll("delta")
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


# --- 7: cursor advanced on error --------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "PLATFORM.AUTHENTICATION_INVALID",
        "PLATFORM.INTEGRATION_NOT_FOUND",
        "INTEGRATION.SETUP_INCOMPLETE",
    ],
)
@protected_by("watermark waits for success")
async def test_07_a_failed_poll_leaves_the_watermark(protected, polled, sandbox, code):
    integration = await polled()
    await integration.age(60 * MINUTE)
    changes = await sandbox.change(edits(3, updated_at=ago(30 * MINUTE)))
    await sandbox.fault("error", code=code)
    await integration.poll("delta")
    await sandbox.heal()
    await integration.poll("delta")
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


@pytest.mark.parametrize("fault", ["html", "truncate", "drop"])
@protected_by("errors fail the poll")
async def test_07_a_page_that_did_not_arrive_is_not_passed_over(protected, polled, sandbox, fault):
    integration = await polled()
    await integration.age(60 * MINUTE)
    changes = await sandbox.change(edits(300, updated_at=ago(30 * MINUTE)))
    await sandbox.fault(fault, on="later", times=1)
    for _ in range(3):
        await integration.poll("delta")
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


# --- 8: cursor saved before the events are safe -----------------------------------------------


@protected_by("cursor moves with the events")
async def test_08_a_page_counts_as_done_only_with_its_events(
    protected, polled, sandbox, monkeypatch
):
    integration = await polled()
    await integration.age(60 * MINUTE)
    changes = await sandbox.change(edits(300, updated_at=ago(30 * MINUTE)))
    await integration.die_when("delta", monkeypatch, pages=1)
    await integration.turn()
    await integration.poll("delta")
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


# --- 9: state saved, notification lost --------------------------------------------------------


@protected_by("state moves with the events")
async def test_09_a_change_that_is_known_has_been_put_on_every_outbox(
    protected, polled, sandbox, subscribe, hook, monkeypatch
):
    integration = await polled()
    subscription = await subscribe()
    changes = await sandbox.change(edits(20), {"op": "delete", "count": 3}, {"op": "create"})
    await integration.die_when("delta", monkeypatch, pages=1)
    await integration.turn()
    await integration.poll("full")  # not even that finds it again
    while (await subscription.depth()).pending:
        await subscription.turn()
    observed = bool({change["course_id"] for change in changes} - set(hook.courses()))
    assert observed == (not protected)


# --- 10: state reset by an edit or a redeploy -------------------------------------------------


async def edit(integration: Polled, **fields) -> None:
    await integration.services.integrations.update(
        integration.id, lambda old: msgspec.structs.replace(old, **fields)
    )


async def pause_and_resume(integration: Polled) -> None:
    await edit(integration, paused=True)
    await edit(integration, paused=False)


async def replace_the_key(integration: Polled) -> None:
    registered, _ = await integration.services.integrations.get(integration.id)
    await integration.services.credentials.update(
        registered.credential_id, lambda credential: credential, "sandbox-key"
    )


EDITS = [
    pause_and_resume,
    replace_the_key,
    partial(edit, name="another"),
    partial(edit, labels={"tenant": "42"}),
    partial(edit, external_id="tenant-42"),
    partial(edit, delta_interval_seconds=300),
    partial(edit, full_interval_seconds=3600),
    partial(edit, ignore_paths=("revisions.remote_url",)),
    partial(edit, track_remote_data=True),
    partial(edit, guards=Guards(deleted_count=20)),
    partial(edit, baseline=Baseline.EMIT),
]


@protected_by("edits keep the state")
async def test_10_an_edit_swallows_and_repeats_nothing(protected, polled, sandbox):
    integration = await polled()
    for edit_it in EDITS:
        before = await integration.reported()
        changes = await sandbox.change(edits(3, path="revisions.title"))
        await edit_it(integration)
        await integration.poll("delta")
        await integration.poll("full")
        expected = Counter(("course.updated", change["course_id"]) for change in changes)
        observed = await integration.reported() - before != expected
        assert observed == (not protected), edit_it


@pytest.fixture
async def restart(services):
    """Another process, over the same Redis."""
    async with AsyncExitStack() as processes:

        async def restart(integration: Polled) -> None:
            Process.restarts()
            services_then = await processes.enter_async_context(open_services(services.settings))
            registered = integration.integration
            registered.context = JobContext(
                services_then, registered.context.dispatcher, asyncio.Event()
            )
            integration.services = registered.services = services_then

        yield restart


@protected_by("fingerprints outlive the process")
async def test_10_a_restart_swallows_and_repeats_nothing(protected, polled, sandbox, restart):
    integration = await polled()
    changes = await sandbox.change(edits(3, path="revisions.title"))
    await restart(integration)
    await integration.poll("delta")
    await integration.poll("full")
    expected = Counter(("course.updated", change["course_id"]) for change in changes)
    observed = await integration.reported() != expected
    assert observed == (not protected)


@protected_by("the seen set outlives the process", "absences are verified", "guards")
async def test_10_a_restart_in_the_middle_of_a_full_poll_deletes_nothing(
    protected, polled, sandbox, restart, monkeypatch
):
    integration = await polled()
    await integration.die_when("full", monkeypatch, pages=2)
    await restart(integration)
    await integration.turn()
    observed = bool(await integration.false_deletes())
    assert observed == (not protected)


# --- 11: two pollers at once ------------------------------------------------------------------


class Meeting:
    """Where each of two workers waits for the other, unless that one is done."""

    def __init__(self) -> None:
        self.somebody_waits = asyncio.Event()
        self.over = asyncio.Event()

    async def attend(self) -> None:
        (self.over if self.somebody_waits.is_set() else self.somebody_waits).set()
        await self.over.wait()


@pytest.mark.parametrize("second", ["has the same claim", "claims what has lapsed"])
@protected_by("lease", "commits build on the last")
async def test_11_two_workers_report_each_change_once(
    protected, polled, sandbox, monkeypatch, second
):
    integration = await polled()
    services, context = integration.services, integration.integration.context
    changes = await sandbox.change(edits(20))
    await services.integrations.request_poll(integration.id, "delta", now_ms())
    commit, finish = services.catalogue.commit, services.polls.finish
    before_commits, before_the_end = Meeting(), Meeting()

    async def compare_then_meet(*arguments, **others):
        """Both compare with what was there before either has committed."""
        try:
            return await commit(*arguments, **others)
        except CoursesDifferError:
            await before_commits.attend()
            raise

    async def meet_then_finish(*arguments, **others):
        """Both have committed before either gives the integration back."""
        await before_the_end.attend()
        await finish(*arguments, **others)

    def begin(token):
        worker = asyncio.create_task(poll_batch(context, [(integration.id, token)]))
        worker.add_done_callback(lambda _: (before_commits.over.set(), before_the_end.over.set()))
        return worker

    with monkeypatch.context() as together:
        together.setattr(services.catalogue, "commit", compare_then_meet)
        together.setattr(services.polls, "finish", meet_then_finish)
        token = await integration.integration.claim()
        first = begin(token)
        await before_commits.somebody_waits.wait()
        if second == "claims what has lapsed":
            await integration.lapse()
            token = await integration.integration.claim()
        await asyncio.gather(first, begin(token))
    await integration.lapse()
    await integration.turn()

    assert not await integration.lost(changes)
    observed = max((await integration.reported()).values()) > 1
    assert observed == (not protected)


# --- 12: spurious updates from key order or volatile fields -----------------------------------


def with_other_key_order(record):
    if isinstance(record, dict):
        return {key: with_other_key_order(record[key]) for key in reversed(record)}
    if isinstance(record, list):
        return [with_other_key_order(item) for item in record]
    return record


def with_other_list_order(record):
    for owner in (record, *record["revisions"]):
        for name in ("revisions", "integration_fields", "skill_assignments"):
            if name in owner:
                owner[name].reverse()
    return record


def with_an_unknown_field(record):
    return {**record, "last_polled_at": now_ms()}


def with_other_times(record):
    for owner in (record, *record["revisions"]):
        owner["changed_at"] = format_time(now_ms())
    return record


def with_other_remote_data(record):
    for owner in (record, *record["revisions"]):
        owner["remote_data"] = {"/courses": {"fetched": now_ms()}}
    return record


@protected_by("canonical form", "guards")
async def test_12_the_same_course_in_other_words_is_no_update(
    protected, polled, sandbox, monkeypatch
):
    integration = await polled()
    upstream = integration.services.upstream
    fetch = upstream.fetch_page
    for rewrite in (
        with_other_key_order,
        with_other_list_order,
        with_an_unknown_field,
        with_other_times,
        with_other_remote_data,
    ):

        async def fetch_rewritten(*arguments, rewrite=rewrite):
            page = await fetch(*arguments)
            rewritten = [
                msgspec.Raw(msgspec.json.encode(rewrite(msgspec.json.decode(record))))
                for record in page.results
            ]
            return msgspec.structs.replace(page, results=rewritten)

        monkeypatch.setattr(upstream, "fetch_page", fetch_rewritten)
        before = await integration.reported()
        changes = await sandbox.change(edits(3, path="revisions.title"))
        await integration.poll("full")

        changed = Counter(("course.updated", change["course_id"]) for change in changes)
        reported = await integration.reported() - before
        observed = bool(reported - changed)
        assert observed == (not protected), rewrite
        if "canonical form" in protected:
            assert reported == changed, rewrite


@protected_by("older fingerprints are understood", "guards")
async def test_12_a_release_that_tracks_more_repeats_nothing(
    protected, polled, sandbox, monkeypatch
):
    integration = await polled()
    await make_older(integration, monkeypatch)
    changes = await sandbox.change(edits(3, path="revisions.title"))
    await integration.poll("full")

    changed = Counter(("course.updated", change["course_id"]) for change in changes)
    observed = bool(await integration.reported() - changed)
    assert observed == (not protected)
    if "older fingerprints are understood" in protected:
        assert await integration.reported() == changed


async def make_older(integration: Polled, monkeypatch) -> None:
    """Turns the catalogue into one of a release that did not track `custom_fields` yet."""
    tracked = dict(CURRENT.tracked)
    position = RAW.stop + PATH_DIGEST_BYTES * list(tracked).index("custom_fields")
    del tracked["custom_fields"]
    monkeypatch.setitem(OLDER, b"0", Version(b"0", tracked))
    redis = integration.services.redis.admin
    key = keys.catalogue(integration.id, (await integration.state()).epoch)
    for course_id, packed in (await redis.hgetall(key)).items():
        older = b"0" + packed[1 : RAW.start] + b"of other seed..." + packed[RAW.stop : position]
        await redis.hset(key, course_id, older + packed[position + PATH_DIGEST_BYTES :])


# --- 13: pages shifting while paging ----------------------------------------------------------


@protected_by("absences are verified")
async def test_13_rows_that_a_full_poll_skips_are_not_deleted(protected, polled, sandbox):
    integration = await polled()
    await sandbox.fault("shift", on="later", by=30)
    await integration.poll("full")
    observed = bool(await integration.false_deletes())
    assert observed == (not protected)


@protected_by("overlap")
async def test_13_rows_that_a_delta_skips_are_reported_by_the_next(protected, polled, sandbox):
    integration = await polled()
    changes = await sandbox.change(edits(300, updated_at=ago(MINUTE)))
    await sandbox.fault("shift", on="later", by=5)
    await integration.poll("delta")
    await sandbox.heal()
    await integration.poll("delta")
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


@protected_by("fingerprints are read anew")
async def test_13_rows_that_come_twice_are_reported_once(protected, polled, sandbox):
    await sandbox.fault("shift", on="later", by=-30)
    integration = await polled(baseline=Baseline.EMIT)
    observed = max((await integration.reported()).values()) > 1
    assert observed == (not protected)


# --- 14: a cursor older than the upstream keeps -----------------------------------------------


async def delta_with_a_forgotten_cursor(integration: Polled, sandbox, monkeypatch) -> list[dict]:
    """A delta broken off, whose cursor the upstream refuses when it is taken up again."""
    await integration.age(60 * MINUTE)
    changes = await sandbox.change(edits(300, updated_at=ago(30 * MINUTE)))
    await integration.die_when("delta", monkeypatch, pages=1)
    redis, key = integration.services.redis, keys.integration(integration.id)
    progress = msgspec.json.decode(await redis.hget(key, "poll"))
    progress["cursor"] = "Zm9yZ290dGVu"
    await redis.hset(key, "poll", msgspec.json.encode(progress))
    return changes


@protected_by("a refused cursor is given up")
async def test_14_a_poll_whose_cursor_is_refused_begins_again(
    protected, polled, sandbox, monkeypatch
):
    integration = await polled()
    changes = await delta_with_a_forgotten_cursor(integration, sandbox, monkeypatch)
    for _ in range(5):
        await integration.turn()
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


@protected_by("errors fail the poll")
async def test_14_a_poll_whose_cursor_is_refused_is_not_complete(
    protected, polled, sandbox, monkeypatch
):
    integration = await polled()
    changes = await delta_with_a_forgotten_cursor(integration, sandbox, monkeypatch)
    for _ in range(5):
        await integration.turn()
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


@protected_by("horizon", "regular full polls")
async def test_14_deletions_older_than_the_upstream_tells_of_are_found(protected, polled, sandbox):
    integration = await polled(full_interval_seconds=21_600)
    await integration.age(14 * DAY)
    changes = await sandbox.change(
        {"op": "vanish", "count": 3},
        {"op": "anonymise", "count": 3, "updated_at": ago(15 * DAY)},
    )
    await integration.turn()
    observed = bool(await integration.lost(changes))
    assert observed == (not protected)


# --- 15: a baseline that looks like changes ---------------------------------------------------


async def complete(integration: Polled) -> None:
    for _ in range(3):
        await integration.turn()
    assert (await integration.state()).baselined


async def new_to_receivers(integration: Polled) -> list:
    """The events that do not say that their course was there from the beginning."""
    return [
        event
        for event in await integration.events()
        if not msgspec.json.decode(event.facts)["initial"]
    ]


@pytest.mark.parametrize("trouble", ["none", "a dead worker", "a page error", "a refused cursor"])
@pytest.mark.parametrize("baseline", list(Baseline))
@protected_by("baseline")
async def test_15_a_baseline_is_silent_or_says_what_it_is(
    protected, register, sandbox, monkeypatch, baseline, trouble
):
    integration = Polled(await register(baseline=baseline), sandbox)
    if trouble == "a dead worker":
        await integration.die_when("full", monkeypatch, pages=2)
    elif trouble == "a page error":
        await sandbox.fault("truncate", on="later", times=1)
    elif trouble == "a refused cursor":
        await sandbox.fault("error", code="PLATFORM.INPUT_INVALID", on="later", times=1)
    await complete(integration)
    observed = bool(await new_to_receivers(integration))
    assert observed == (not protected)


@protected_by("baseline")
async def test_15_the_baseline_of_another_upstream_is_silent_too(
    protected, polled, sandbox, monkeypatch
):
    integration = await polled()
    before = len(await integration.events())
    await sandbox.call("POST", "/integrations", {"upstream_id": "workday:other", "courses": 50})
    await edit(integration, upstream_id="workday:other")
    await complete(integration)
    observed = len(await integration.events()) > before
    assert observed == (not protected)
