"""Changes that are too many to be believed are held, decided on, or end by themselves."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from service.clock import now_ms
from service.domain.access.grants import Grant
from service.domain.errors import ConflictError, StaleReviewError
from service.domain.events.event import EventFilter
from service.domain.polling.integration import Baseline, IntegrationState, state_of
from service.domain.review.guards import Exceeded, Guards
from service.storage.redis import keys
from tests.integration.delivery.test_replays import ask, progress

REVIEW_REQUIRED = "integration.review_required"


class Held:
    """A baselined integration, and what is held of it."""

    def __init__(self, integration) -> None:
        self.integration = integration
        self.services = integration.services
        self.id = integration.id

    async def poll(self, kind: str):
        return await self.integration.poll(kind)

    async def events(self) -> list:
        """The events since the baseline."""
        found = await self.integration.events()
        return [event for event in found if event.type != "integration.baseline_completed"]

    async def types(self) -> Counter[str]:
        return Counter(event.type for event in await self.events())

    async def state(self):
        return await self.integration.state()

    async def shown_state(self) -> IntegrationState:
        return state_of(*await self.services.integrations.get(self.id))

    async def review(self):
        return await self.services.reviews.get(self.id, (await self.state()).epoch)

    async def decide(self, decision: str) -> None:
        version = (await self.review()).version
        await self.services.reviews.decide(self.id, (await self.state()).epoch, version, decision)
        await self.integration.turn()

    async def ids(self, state: str) -> set[str]:
        epoch = (await self.state()).epoch
        rows, _ = await self.services.courses.page(self.id, epoch, 10_000)
        return {row.id for row in rows if row.state == state}


@pytest.fixture
def baselined(register):
    async def baselined(**fields) -> Held:
        integration = await register(**fields)
        await integration.turn()
        assert (await integration.state()).baselined
        return Held(integration)

    return baselined


# --- deletions ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["delta", "full"])
async def test_too_many_tombstones_are_held_and_the_rest_flows(baselined, sandbox, kind):
    held = await baselined()
    await sandbox.change({"op": "delete", "count": 91}, {"op": "edit", "count": 3})

    poll = await held.poll(kind)

    assert await held.types() == {"course.updated": 3, REVIEW_REQUIRED: 1}
    assert await held.shown_state() is IntegrationState.REVIEW
    state = await held.state()
    assert (state.held, state.course_count) == (91, 600)
    assert "91 changes are held" in poll.error
    assert poll.verdicts["held"] == 91
    assert (await held.review()).held.deleted == 91
    assert len(await held.ids("held")) == 91


@pytest.mark.parametrize("kind", ["delta", "full"])
async def test_as_many_as_are_believed_are_deleted(baselined, sandbox, kind):
    held = await baselined()
    await sandbox.change({"op": "delete", "count": 90})

    await held.poll(kind)

    assert await held.types() == {"course.deleted": 90}
    assert (await held.state()).course_count == 510


async def test_too_many_absences_are_held_without_asking_for_each(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "vanish", "count": 200})

    await held.poll("full")

    assert await held.types() == {REVIEW_REQUIRED: 1}
    assert (await held.review()).held.deleted == 200
    assert not [one for one in await sandbox.served() if one["ids"]]


async def test_tombstones_and_absences_count_together(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "vanish", "count": 50}, {"op": "delete", "count": 50})

    await held.poll("full")

    assert await held.types() == {REVIEW_REQUIRED: 1}
    assert (await held.review()).held.deleted == 100


async def test_polls_that_show_the_same_again_hold_it_and_say_so_once(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "delete", "count": 100}, {"op": "vanish", "count": 50})

    for kind in ("delta", "full", "delta", "full"):
        await held.poll(kind)

    assert await held.types() == {REVIEW_REQUIRED: 1}
    assert (await held.state()).held == 150


async def test_a_few_more_deletions_while_many_are_held_are_held_too(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "delete", "count": 100})
    await held.poll("delta")
    await sandbox.change({"op": "delete", "count": 5}, {"op": "create", "count": 2})

    await held.poll("delta")

    assert await held.types() == {REVIEW_REQUIRED: 1, "course.created": 2}
    assert (await held.state()).held == 105


async def test_published_deletions_are_reported_with_their_evidence(baselined, sandbox):
    held = await baselined()
    gone = await sandbox.change({"op": "delete", "count": 150}, {"op": "vanish", "count": 100})
    await held.poll("full")

    await held.decide("publish")

    deleted = [event for event in await held.events() if event.type == "course.deleted"]
    assert {event.course_id for event in deleted} == {change["course_id"] for change in gone}
    evidence = Counter(
        kind
        for event in deleted
        for kind in ("tombstone", "absence")
        if kind.encode() in event.facts
    )
    assert evidence == {"tombstone": 150, "absence": 100}
    assert all(b'"detected_by":"review"' in event.facts for event in deleted)
    state = await held.state()
    assert (state.held, state.decision, state.course_count) == (0, None, 350)
    assert await held.shown_state() is IntegrationState.ACTIVE
    await held.poll("full")
    assert (await held.types())["course.deleted"] == 250


async def test_accepted_deletions_are_taken_for_known_without_an_event(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "delete", "count": 150}, {"op": "vanish", "count": 100})
    await held.poll("full")

    await held.decide("accept_silently")
    await held.poll("full")

    assert await held.types() == {REVIEW_REQUIRED: 1}
    assert (await held.state()).course_count == 350
    assert len(await held.ids("deleted")) == 250


async def test_courses_that_came_back_before_the_decision_are_not_deleted(baselined, sandbox):
    held = await baselined()
    gone = await sandbox.change({"op": "delete", "count": 100})
    await held.poll("delta")
    await sandbox.change(
        *({"op": "restore", "course_id": change["course_id"]} for change in gone[:60])
    )

    await held.decide("publish")

    assert (await held.types())["course.deleted"] == 40


async def test_a_full_poll_that_shows_the_courses_again_ends_the_review(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "vanish", "count": 200})
    await held.poll("full")
    await sandbox.change({"op": "restore", "all": True})

    poll = await held.poll("full")

    assert (await held.state()).held == 0
    assert await held.shown_state() is IntegrationState.ACTIVE
    assert poll.error is None
    assert "course.deleted" not in await held.types()
    assert not await held.services.redis.exists(keys.review(held.id, (await held.state()).epoch))


async def test_what_is_still_gone_stays_held_though_it_is_few_by_now(baselined, sandbox):
    held = await baselined()
    gone = await sandbox.change({"op": "delete", "count": 200})
    await held.poll("delta")
    await sandbox.change(
        *({"op": "restore", "course_id": change["course_id"]} for change in gone[5:])
    )

    await held.poll("full")

    assert await held.ids("held") == {change["course_id"] for change in gone[:5]}
    assert "course.deleted" not in await held.types()


async def test_an_absence_that_cannot_be_confirmed_when_applied_is_held_again(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "vanish", "count": 200})
    await held.poll("full")
    await sandbox.fault("empty", on="ids")

    await held.decide("publish")

    assert (await held.state()).held == 200
    assert await held.types() == {REVIEW_REQUIRED: 2}
    assert (await held.review()).since is not None


async def test_an_answer_cut_short_confirms_no_absence_when_applied(
    baselined, sandbox, monkeypatch
):
    held = await baselined()
    hidden = [one["id"] for one in (await sandbox.courses())[400:]]
    await sandbox.fault("vanish", on="walk", course_ids=hidden)
    await held.poll("full")
    fetch = held.services.upstream.fetch_page

    async def fetch_cut_short(credential, upstream_id, query):
        page = await fetch(credential, upstream_id, query)
        return msgspec.structs.replace(page, results=page.results[:1]) if query.ids else page

    monkeypatch.setattr(held.services.upstream, "fetch_page", fetch_cut_short)
    # Whichever courses are picked as controls, the one record that is shown is among them.
    monkeypatch.setattr(held.services.catalogue, "any_live", first_live(sandbox))

    await held.decide("publish")

    assert await held.types() == {REVIEW_REQUIRED: 2}
    assert (await held.state()).held == 200


def first_live(sandbox):
    async def first_live(_integration_id, _epoch, most) -> list[str]:
        return [one["id"] for one in (await sandbox.courses())[:most]]

    return first_live


async def test_absences_are_confirmed_though_hardly_any_course_is_left(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "vanish", "count": 598})
    await held.poll("full")

    await held.decide("publish")

    assert (await held.types())["course.deleted"] == 598
    assert (await held.state()).held == 0


async def test_all_courses_marked_deleted_are_held_and_can_be_applied(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "delete", "all": True})
    await held.poll("delta")
    assert (await held.state()).held == 600

    await held.decide("publish")

    assert (await held.types())["course.deleted"] == 600


TRUNCATED = {"kind": "vanish", "on": "walk"}  # and says that this was all


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", [1, 8, 10], indirect=True)
@pytest.mark.parametrize(
    "faults",
    [
        [{"kind": "empty", "on": "any"}],
        [{"kind": "empty", "on": "walk"}],
        [TRUNCATED],
        [TRUNCATED, {"kind": "empty", "on": "ids"}],
        [TRUNCATED, {"kind": "drop", "on": "ids"}],
    ],
)
async def test_small_catalogues_lose_nothing_to_empty_or_truncated_answers(
    baselined, sandbox, faults
):
    held = await baselined()
    courses = [one["id"] for one in await sandbox.courses()]
    for shown in range(len(courses)):
        for fault in faults:
            hidden = {"course_ids": courses[shown:]} if fault["kind"] == "vanish" else {}
            await sandbox.fault(**fault, **hidden)
        for kind in ("full", "delta"):
            await held.poll(kind)
        await sandbox.heal()
        await held.poll("full")

    assert (await held.types())["course.deleted"] == 0
    assert (await held.state()).course_count == len(courses)


async def test_guards_can_be_widened_for_one_integration(baselined, sandbox):
    held = await baselined(
        guards=Guards(deleted_share=1.0, deleted_share_max=1.0, changed_share=1.0)
    )
    await sandbox.change(
        {"op": "delete", "count": 500}, {"op": "field_off", "path": "custom_fields"}
    )

    await held.poll("full")

    assert (await held.types())["course.deleted"] == 500
    assert REVIEW_REQUIRED not in await held.types()


# --- updates --------------------------------------------------------------------------------


async def changed_paths(held: Held) -> Counter[str]:
    return Counter(
        path
        for event in await held.events()
        if event.type == "course.updated"
        for path in msgspec.json.decode(event.facts)["changed"]
    )


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("delta", "custom_fields"),
        ("delta", "revisions.description"),
        ("full", "custom_fields"),
        ("full", "revisions.description"),
        ("full", "provider"),  # which no delta shows
    ],
)
async def test_a_field_switched_off_floods_nobody(baselined, sandbox, kind, path):
    held = await baselined()
    changed = await sandbox.change({"op": "field_off", "path": path})
    assert len(changed) > 300

    await held.poll(kind)

    assert await held.types() == {REVIEW_REQUIRED: 1}
    assert (await held.review()).held.changed == {path: len(changed)}
    assert (await held.state()).held == len(changed)


async def test_other_changes_of_the_same_courses_keep_flowing(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "field_off", "path": "custom_fields"})
    await held.poll("delta")
    await sandbox.change(
        {"op": "edit", "path": "revisions.title", "count": 5},
        {"op": "delete", "count": 3},
        {"op": "create", "count": 2},
    )

    await held.poll("delta")

    assert await held.types() == {
        REVIEW_REQUIRED: 1,
        "course.updated": 5,
        "course.deleted": 3,
        "course.created": 2,
    }
    assert await changed_paths(held) == {"revisions.title": 5}
    await held.poll("full")
    assert (await changed_paths(held)) == {"revisions.title": 5}


async def test_changes_that_come_with_the_flood_flow_without_it(baselined, sandbox):
    held = await baselined()
    await sandbox.change(
        {"op": "field_off", "path": "custom_fields"},
        {"op": "edit", "path": "revisions.title", "count": 7},
    )

    await held.poll("full")

    assert await changed_paths(held) == {"revisions.title": 7}
    held_before = (await held.state()).held
    await held.decide("publish")
    assert (await held.state()).held == 0
    assert await changed_paths(held) == {"revisions.title": 7, "custom_fields": held_before}


async def test_accepted_updates_are_taken_for_known(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "field_off", "path": "custom_fields"})
    await held.poll("full")

    await held.decide("accept_silently")
    await held.poll("full")

    assert await held.types() == {REVIEW_REQUIRED: 1}
    await sandbox.change({"op": "edit", "path": "revisions.title", "count": 1})
    await held.poll("delta")
    assert await changed_paths(held) == {"revisions.title": 1}


async def test_a_change_after_what_was_shown_is_not_accepted_with_it(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "field_off", "path": "custom_fields"})
    await held.poll("full")
    count = (await held.state()).held
    await sandbox.change({"op": "field_on", "path": "custom_fields"})

    await held.decide("accept_silently")
    # What was taken for known is null, and it is no longer: that is a change like any other.
    await held.poll("full")

    assert (await held.review()).held.changed == {"custom_fields": count}
    await held.decide("publish")
    assert await changed_paths(held) == {"custom_fields": count}


async def test_a_field_switched_on_again_ends_the_review_without_an_event(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "field_off", "path": "custom_fields"})
    await held.poll("delta")
    await sandbox.change({"op": "field_on", "path": "custom_fields"})

    await held.poll("full")

    assert await held.types() == {REVIEW_REQUIRED: 1}
    assert (await held.state()).held == 0


async def test_who_was_shown_a_held_change_with_another_is_told_that_it_is_undone(
    baselined, sandbox
):
    held = await baselined()
    switched = await sandbox.change({"op": "field_off", "path": "custom_fields"})
    await held.poll("delta")
    edited = {change["course_id"] for change in switched[:2]}
    await sandbox.change(
        *({"op": "edit", "path": "revisions.title", "course_id": course_id} for course_id in edited)
    )
    await held.poll("delta")
    assert await changed_paths(held) == {"revisions.title": 2}
    await sandbox.change({"op": "field_on", "path": "custom_fields"})

    await held.poll("full")

    assert await changed_paths(held) == {"revisions.title": 2, "custom_fields": 2}
    assert {event.course_id for event in await held.events() if event.course_id} == edited
    assert (await held.state()).held == 0


async def test_many_changes_that_are_no_flood_in_the_end_all_flow(baselined, sandbox):
    """They look like one on the first page, wait, and are asked for again at the end."""
    held = await baselined()
    await sandbox.change({"op": "edit", "path": "revisions.title", "count": 290})

    await held.poll("delta")

    assert await held.types() == {"course.updated": 290}
    assert (await held.state()).held == 0
    waiting = [key async for key in held.services.redis.admin.scan_iter("cw:waiting:*")]
    assert waiting == []


async def test_more_than_half_in_one_path_is_a_flood_even_over_several_deltas(baselined, sandbox):
    held = await baselined()
    first = await sandbox.change({"op": "edit", "path": "custom_fields", "count": 310})
    await held.poll("delta")
    assert (await held.state()).held == 310
    others = {one["id"] for one in await sandbox.courses()} - {one["course_id"] for one in first}
    await sandbox.change(
        *(
            {"op": "edit", "path": "custom_fields", "course_id": course_id}
            for course_id in sorted(others)[:50]
        )
    )

    await held.poll("delta")

    assert (await held.state()).held == 360
    assert await held.types() == {REVIEW_REQUIRED: 1}


@pytest.mark.parametrize("sandbox", [19], indirect=True)
async def test_a_small_catalogue_may_change_all_at_once(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "edit", "path": "revisions.title", "count": 19})

    await held.poll("delta")

    assert await held.types() == {"course.updated": 19}


@pytest.mark.parametrize("sandbox", [52], indirect=True)
async def test_a_small_catalogue_is_guarded_from_a_field_that_is_null_everywhere(
    baselined, sandbox
):
    held = await baselined()
    count = len(await sandbox.change({"op": "field_off", "path": "revisions.description"}))

    await held.poll("delta")

    assert await held.types() == {REVIEW_REQUIRED: 1}
    assert (await held.review()).exceeded == [
        Exceeded(
            limit="changed_share",
            allowed=0.5,
            count=count,
            live=52,
            path="revisions.description",
        )
    ]


async def test_a_review_keeps_the_limits_as_the_last_poll_judged_them(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "delete", "count": 91})
    await held.poll("delta")
    by_share = Exceeded(limit="deleted_share", allowed=0.15, count=91, live=600)
    assert (await held.review()).exceeded == [by_share]

    await sandbox.change({"op": "delete", "count": 210})
    await held.poll("delta")

    found = (await held.review()).exceeded
    assert [(one.limit, one.count, one.live) for one in found] == [
        ("deleted_share", 301, 600),
        ("deleted_share_max", 301, 600),
    ]
    await held.decide("publish")
    assert (await held.review()).exceeded == []


async def test_a_poll_broken_off_while_it_settles_goes_on_where_it_was(
    baselined, sandbox, monkeypatch
):
    held = await baselined()
    await sandbox.change({"op": "delete", "count": 80}, {"op": "vanish", "count": 5})
    monkeypatch.setattr("workers.polling.waiting_changes.MOST_IDS", 11)
    commit = held.services.catalogue.commit
    calls = 0

    async def die_at_the_ninth(*arguments, **kept):
        nonlocal calls
        calls += 1
        if calls == 9:
            raise ConnectionResetError
        return await commit(*arguments, **kept)

    monkeypatch.setattr(held.services.catalogue, "commit", die_at_the_ninth)
    await held.services.integrations.request_poll(held.id, "full", now_ms())
    with pytest.raises(ConnectionResetError):
        await held.integration.turn()
    assert 0 < (await held.types())["course.deleted"] < 85

    await held.integration.turn()

    assert await held.types() == {"course.deleted": 85}
    assert (await held.state()).course_count == 515


async def test_a_decision_broken_off_is_carried_out_by_the_next_turn(baselined, sandbox, context):
    held = await baselined()
    await sandbox.change({"op": "delete", "count": 300})
    await held.poll("delta")
    fetch = context.services.upstream.fetch_page

    async def drain_after_one(*arguments):
        context.draining.set()
        return await fetch(*arguments)

    context.services.upstream.fetch_page = drain_after_one
    await held.decide("publish")
    assert 0 < (await held.state()).held < 300
    assert (await held.state()).decision == "publish"
    context.services.upstream.fetch_page = fetch
    context.draining.clear()

    await held.integration.turn()

    assert (await held.types())["course.deleted"] == 300
    assert (await held.state()).held == 0


# --- deciding -------------------------------------------------------------------------------


async def test_a_decision_is_on_the_set_that_was_shown(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "delete", "count": 100})
    await held.poll("delta")
    shown = await held.review()
    await sandbox.change({"op": "delete", "count": 1})
    await held.poll("delta")
    epoch = (await held.state()).epoch

    with pytest.raises(StaleReviewError):
        await held.services.reviews.decide(held.id, epoch, shown.version, "publish")

    assert (await held.state()).held == 101


async def test_there_must_be_something_to_decide_on(baselined):
    held = await baselined()
    with pytest.raises(ConflictError, match="nothing"):
        await held.services.reviews.decide(held.id, (await held.state()).epoch, 0, "publish")


async def test_no_second_decision_while_the_first_is_carried_out(baselined, sandbox):
    held = await baselined()
    await sandbox.change({"op": "delete", "count": 100})
    await held.poll("delta")
    epoch = (await held.state()).epoch
    version = (await held.review()).version
    await held.services.reviews.decide(held.id, epoch, version, "publish")

    with pytest.raises(ConflictError, match="carried out"):
        await held.services.reviews.decide(held.id, epoch, version, "accept_silently")


async def test_a_baseline_holds_nothing(register, sandbox):
    integration = await register(baseline=Baseline.EMIT)
    await sandbox.change({"op": "delete", "count": 590})
    await integration.turn()
    assert (await integration.state()).held == 0
    assert (await integration.state()).course_count == 10


# --- what others make of the event ---------------------------------------------------------------


async def test_the_event_of_a_review_is_replayed_and_read_like_any_other(
    baselined, sandbox, subscribe, services
):
    """What it says has changed is not what a course event says by that name."""
    held = await baselined()
    await sandbox.change({"op": "provider", "count": 500})
    await held.poll("full")
    (event,) = [one for one in await held.integration.events() if one.type == REVIEW_REQUIRED]
    assert isinstance(msgspec.json.decode(event.facts)["changed_counts"], dict)
    for event_types in ((REVIEW_REQUIRED,), ("course.created",)):
        harness = await subscribe(event_types=event_types)
        replay = await ask(harness)
        await harness.turn()
        found = await progress(harness, replay)
        assert found.state == "completed"
        assert found.queued == (event_types == (REVIEW_REQUIRED,))
    for grant in (None, Grant(labels={"tenant": "a"})):
        assert EventFilter(grant=grant).takes(event) is (grant is None)
