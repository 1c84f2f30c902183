"""What begins a new epoch of an integration, what does not, and what goes with the old one."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from service.domain.polling.integration import Baseline, IntegrationState, state_of
from service.domain.review.guards import Guards
from service.storage.redis import keys
from tests.integration.conftest import new_credential
from tests.integration.scripted import page, says

BASELINE_COMPLETED = "integration.baseline_completed"
EPOCH_STARTED = "integration.epoch_started"
OTHER = "workday:other"
OF_AN_EPOCH = ("catalogue", "quarantine", "held", "review", "decided", "seen", "waiting")


def types(events) -> Counter[str]:
    return Counter(event.type for event in events)


async def edit(integration, **fields) -> None:
    await integration.services.integrations.update(
        integration.id, lambda old: msgspec.structs.replace(old, **fields)
    )


async def replace_key(integration, **_fields) -> None:
    registered, _ = await integration.services.integrations.get(integration.id)
    await integration.services.credentials.update(
        registered.credential_id,
        lambda old: msgspec.structs.replace(old, name="renamed"),
        api_key="sandbox-key",
    )


async def pause_and_resume(integration, **_fields) -> None:
    await edit(integration, paused=True)
    await edit(integration, paused=False)


async def other_credential_of_the_same_upstream(integration, **_fields) -> None:
    registered, _ = await integration.services.integrations.get(integration.id)
    credential = await integration.services.credentials.get(registered.credential_id)
    other = await new_credential(integration.services, credential.base_url)
    await edit(integration, credential_id=other)


async def totals(integration) -> dict[str, int]:
    found = await integration.services.redis.hgetall(keys.TOTALS)
    return {name: int(found.get(name.encode(), 0)) for name in ("courses", "quarantined", "held")}


async def kept(integration, epoch: str | None = None) -> set[str]:
    """Which of the keys of an epoch, or of any, and of its polls there are."""
    found = await integration.services.redis.admin.keys(f"cw:*:{integration.id}:*")
    names = [name.decode().split(":") for name in found]
    return {
        parts[1]
        for parts in names
        if parts[1] in OF_AN_EPOCH
        and (epoch is None or parts[3] == epoch or parts[1] in ("seen", "waiting"))
    }


@pytest.fixture
async def other_upstream(sandbox) -> str:
    await sandbox.call("POST", "/integrations", {"upstream_id": OTHER, "courses": 40, "seed": 2})
    return OTHER


def hand_back_after_a_page(context):
    """The turn fetches one page, and then the worker is to stop. The test goes on by calling what
    this returns."""
    upstream = context.services.upstream
    fetch = upstream.fetch_page

    async def fetch_one(*arguments):
        upstream.fetch_page = fetch
        found = await fetch(*arguments)
        context.draining.set()
        return found

    upstream.fetch_page = fetch_one
    return context.draining.clear


def after_a_page(context, act):
    """Acts when the turn has committed its first page."""
    catalogue = context.services.catalogue
    commit = catalogue.commit

    async def commit_then_act(*arguments, **named):
        committed = await commit(*arguments, **named)
        if named["batch"].seen:
            catalogue.commit = commit
            await act()
        return committed

    catalogue.commit = commit_then_act


# --- edits that reset nothing ---------------------------------------------------------------

EDITS = [
    (edit, {"name": "renamed"}),
    (edit, {"labels": {"region": "eu"}}),
    (edit, {"external_id": "tenant-42"}),
    (edit, {"delta_interval_seconds": 5, "full_interval_seconds": 60}),
    (edit, {"guards": Guards(deleted_count=1, changed_share=0.1)}),
    (edit, {"ignore_paths": ("revisions.title", "provider")}),
    (edit, {"track_remote_data": True}),
    (edit, {"baseline": Baseline.EMIT}),
    (pause_and_resume, {}),
    (replace_key, {}),
    (other_credential_of_the_same_upstream, {}),
]


@pytest.mark.parametrize(("change", "fields"), EDITS)
async def test_an_edit_resets_nothing(register, sandbox, change, fields):
    integration = await register()
    await integration.turn()
    before = await integration.state()

    await change(integration, **fields)

    assert await integration.state() == before
    for kind in ("delta", "full"):
        poll = await integration.poll(kind)
        assert poll.state == "completed"
        assert poll.verdicts.keys() <= {"unchanged"}
    after = await integration.state()
    assert (after.epoch, after.course_count) == (before.epoch, 600)
    assert types(await integration.events()) == {BASELINE_COMPLETED: 1}


@pytest.mark.parametrize(
    ("change", "fields"), [one for one in EDITS if one[1] != {"baseline": Baseline.EMIT}]
)
async def test_an_edit_in_the_middle_of_a_baseline_costs_it_nothing(
    register, sandbox, context, change, fields
):
    integration = await register()
    go_on = hand_back_after_a_page(context)
    await integration.turn()
    go_on()

    await change(integration, **fields)
    await integration.turn()

    assert types(await integration.events()) == {BASELINE_COMPLETED: 1}
    assert len(await sandbox.served()) == 3


async def test_a_path_ignored_for_a_while_is_not_reported_afterwards(register, sandbox):
    integration = await register()
    await integration.turn()
    await edit(integration, ignore_paths=("revisions.title",))
    await sandbox.change({"op": "edit", "path": "revisions.title", "count": 5})
    await integration.poll("delta")
    await edit(integration, ignore_paths=())
    await integration.poll("full")
    assert types(await integration.events()) == {BASELINE_COMPLETED: 1}


async def test_what_changed_while_it_was_paused_is_found_when_it_is_resumed(register, sandbox):
    integration = await register()
    await integration.turn()
    await edit(integration, paused=True)
    changes = await sandbox.change({"op": "edit", "count": 2}, {"op": "delete", "count": 2})
    await edit(integration, paused=False)
    assert await integration.due_in() <= 0
    await integration.turn()
    found = [one for one in await integration.events() if one.type.startswith("course.")]
    assert {one.course_id for one in found} == {one["course_id"] for one in changes}
    assert len(found) == 4


# --- another upstream -----------------------------------------------------------------------


async def move_to_another_id(integration, _scripted) -> None:
    await edit(integration, upstream_id=OTHER)


async def move_the_credential(integration, scripted) -> None:
    scripted.answer = says(200, page([f"c{number}" for number in range(40)]))
    registered, _ = await integration.services.integrations.get(integration.id)
    await integration.services.credentials.update(
        registered.credential_id,
        lambda old: msgspec.structs.replace(old, base_url=scripted.base_url),
    )


async def move_to_another_credential(integration, scripted) -> None:
    scripted.answer = says(200, page([f"c{number}" for number in range(40)]))
    other = await new_credential(integration.services, scripted.base_url)
    await edit(integration, credential_id=other)


MOVES = [move_to_another_id, move_the_credential, move_to_another_credential]


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("baseline", list(Baseline))
async def test_another_upstream_begins_a_new_epoch_with_a_baseline_of_its_own(
    register, sandbox, scripted, other_upstream, move, baseline
):
    integration = await register(baseline=baseline)
    await integration.turn()
    before = await integration.state()

    await move(integration, scripted)

    state = await integration.state()
    assert state.epoch != before.epoch
    assert (state.previous_epoch, state.baselined, state.watermark) == (before.epoch, False, None)
    assert state_of(*await integration.services.integrations.get(integration.id)) == "pending"
    assert await kept(integration, before.epoch) == set()
    assert await integration.due_in() <= 0
    await integration.turn()
    state = await integration.state()
    assert (state.baselined, state.course_count) == (True, 40)
    assert (await totals(integration))["courses"] == 40
    events = await integration.events()
    said = [msgspec.json.decode(one.facts) for one in events if one.type == BASELINE_COMPLETED]
    assert [(one["epoch"], one["previous_epoch"]) for one in said] == [
        (before.epoch, None),
        (state.epoch, before.epoch),
    ]
    assert said[1]["records"] == 40
    created = 640 if baseline is Baseline.EMIT else 0
    operational = Counter({BASELINE_COMPLETED: 2, EPOCH_STARTED: 1})
    assert types(events) - operational == Counter({"course.created": created})
    (begun,) = [msgspec.json.decode(one.facts) for one in events if one.type == EPOCH_STARTED]
    assert (begun["epoch"], begun["previous_epoch"]) == (state.epoch, before.epoch)
    assert (begun["reason"], begun["baseline"]) == ("upstream", baseline)


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("decided", [True, False])
async def test_what_is_held_or_decided_goes_with_the_epoch(
    register, sandbox, scripted, other_upstream, move, decided
):
    integration = await register()
    await integration.turn()
    await sandbox.change({"op": "delete", "count": 150})
    await sandbox.fault("wrong_types", share=0.01)
    await integration.poll("full")
    state = await integration.state()
    assert state.held == 150
    assert state.quarantined > 0
    if decided:
        reviews = integration.services.reviews
        version = (await reviews.get(integration.id, state.epoch)).version
        await reviews.decide(integration.id, state.epoch, version, "publish")
    expected = {"decided"} if decided else {"held", "review"}
    assert await kept(integration) == {"catalogue", "quarantine"} | expected

    await move(integration, scripted)

    assert await kept(integration) == set()
    assert await totals(integration) == {"courses": 0, "quarantined": 0, "held": 0}
    state = await integration.state()
    assert (state.held, state.decision, state.quarantined) == (0, None, 0)
    await sandbox.heal()
    await integration.turn()
    assert await totals(integration) == {"courses": 40, "quarantined": 0, "held": 0}
    assert await kept(integration) == {"catalogue"}
    registered, state = await integration.services.integrations.get(integration.id)
    assert state_of(registered, state) is IntegrationState.ACTIVE


async def waiting_full(integration, sandbox, context) -> None:
    """A full poll under way that has seen some, and that keeps some waiting."""
    course_ids = [one["id"] for one in (await sandbox.courses())[:100]]
    await sandbox.change(*({"op": "delete", "course_id": one} for one in course_ids))
    await integration.services.integrations.request_poll(integration.id, "full", 1)
    go_on = hand_back_after_a_page(context)
    await integration.turn()
    go_on()
    assert {"seen", "waiting"} <= await kept(integration)


@pytest.mark.parametrize("move", MOVES)
async def test_a_poll_under_way_goes_with_its_epoch(
    register, sandbox, scripted, context, other_upstream, move
):
    integration = await register()
    await integration.turn()
    await waiting_full(integration, sandbox, context)

    await move(integration, scripted)

    assert await kept(integration) == set()
    await integration.turn()
    assert (await integration.state()).course_count == 40
    assert types(await integration.events()) == {BASELINE_COMPLETED: 2, EPOCH_STARTED: 1}


@pytest.mark.parametrize("move", MOVES)
async def test_a_worker_that_is_at_it_commits_nothing_into_the_next_epoch(
    register, sandbox, scripted, context, other_upstream, move
):
    integration = await register(baseline=Baseline.EMIT)
    after_a_page(context, lambda: move(integration, scripted))
    await integration.turn()
    assert types(await integration.events()) == {"course.created": 250, EPOCH_STARTED: 1}
    assert await kept(integration) == set()
    assert await integration.due_in() <= 0

    await integration.turn()

    assert types(await integration.events()) == {
        "course.created": 290,
        BASELINE_COMPLETED: 1,
        EPOCH_STARTED: 1,
    }
    assert (await totals(integration))["courses"] == 40


async def test_there_and_back_again_is_two_epochs(register, sandbox, other_upstream):
    integration = await register()
    await integration.turn()
    first = (await integration.state()).epoch
    await edit(integration, upstream_id=OTHER)
    await edit(integration, upstream_id="workday:integration")
    await integration.turn()
    assert (await integration.state()).epoch != first
    assert (await integration.state()).course_count == 600
    assert types(await integration.events()) == {BASELINE_COMPLETED: 2, EPOCH_STARTED: 2}


# --- another baseline -----------------------------------------------------------------------


async def test_a_baseline_edited_before_it_is_complete_starts_again_and_emits_all_once(
    register, sandbox, context
):
    integration = await register()
    go_on = hand_back_after_a_page(context)
    await integration.turn()
    go_on()
    assert (await integration.state()).course_count == 250

    await edit(integration, baseline=Baseline.EMIT)

    assert await kept(integration) == set()
    await integration.turn()
    events = await integration.events()
    assert types(events) == {"course.created": 600, BASELINE_COMPLETED: 1, EPOCH_STARTED: 1}
    assert len({one.course_id for one in events}) == 601
    (begun,) = [msgspec.json.decode(one.facts) for one in events if one.type == EPOCH_STARTED]
    assert (begun["reason"], begun["baseline"]) == ("baseline", "emit")
    assert all(b'"initial":true' in one.facts for one in events if one.type == "course.created")
    assert (await totals(integration))["courses"] == 600


async def test_a_baseline_edited_under_a_worker_starts_again_too(register, sandbox, context):
    integration = await register()
    read = context.services.catalogue.read

    async def edit_then_read(*arguments):
        context.services.catalogue.read = read
        await edit(integration, baseline=Baseline.EMIT)
        return await read(*arguments)

    context.services.catalogue.read = edit_then_read
    await integration.turn()
    await integration.turn()
    assert types(await integration.events()) == {
        "course.created": 600,
        BASELINE_COMPLETED: 1,
        EPOCH_STARTED: 1,
    }


async def test_another_edit_along_with_the_same_baseline_does_not_start_it_again(
    register, sandbox, context
):
    integration = await register()
    go_on = hand_back_after_a_page(context)
    await integration.turn()
    go_on()
    epoch = (await integration.state()).epoch
    await edit(integration, baseline=Baseline.SILENT, name="renamed")
    assert (await integration.state()).epoch == epoch
    await integration.turn()
    assert len(await sandbox.served()) == 3


# --- deletion -------------------------------------------------------------------------------


async def test_deleting_an_integration_takes_its_poll_under_way_with_it(register, sandbox, context):
    integration = await register()
    await integration.turn()
    await waiting_full(integration, sandbox, context)
    await integration.services.integrations.delete(integration.id)
    assert await integration.services.redis.admin.keys(f"cw:*{integration.id}*") == []
    assert await totals(integration) == {"courses": 0, "quarantined": 0, "held": 0}


async def test_a_worker_that_is_at_it_commits_nothing_for_a_deleted_integration(
    register, sandbox, context
):
    integration = await register(baseline=Baseline.EMIT)
    after_a_page(context, lambda: integration.services.integrations.delete(integration.id))
    await integration.turn()
    assert types(await integration.events()) == {"course.created": 250}
    assert await integration.services.redis.admin.keys(f"cw:*{integration.id}*") == []
    assert await totals(integration) == {"courses": 0, "quarantined": 0, "held": 0}
    redis = integration.services.redis.admin
    assert await redis.zcard(keys.due("polls")) == await redis.zcard(keys.claimed("polls")) == 0


async def test_one_deleted_as_its_poll_ends_leaves_nothing_behind(register, context):
    integration = await register()
    store = context.services.integrations
    get = store.get
    calls = 0

    async def delete_before_the_last_look(integration_id):
        nonlocal calls
        calls += 1
        if calls == 3:
            await store.delete(integration_id)
        return await get(integration_id)

    store.get = delete_before_the_last_look
    await integration.turn()
    assert calls == 3
    assert await integration.services.redis.admin.keys(f"cw:*{integration.id}*") == []
