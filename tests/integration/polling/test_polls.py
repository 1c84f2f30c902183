from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest
from structlog.testing import capture_logs

from service.clock import now_ms
from service.domain.delivery.subscription import Subscription
from service.domain.polling.integration import Baseline, IntegrationState, state_of
from service.storage.redis import keys
from tests.integration.conftest import redis_now
from workers.polling.commit import MAX_CHANGES
from workers.polling.poll import poll_batch


def types(events) -> Counter[str]:
    return Counter(event.type for event in events)


async def baselined(register, **fields):
    integration = await register(**fields)
    await integration.turn()
    assert (await integration.state()).baselined
    return integration


async def test_a_silent_baseline_reports_only_its_completion(register):
    integration = await baselined(register)
    assert types(await integration.events()) == {"integration.baseline_completed": 1}
    state = await integration.state()
    assert state.course_count == 600
    assert state.watermark is not None


async def test_an_emitted_baseline_reports_every_course_once(register):
    integration = await baselined(register, baseline=Baseline.EMIT)
    events = await integration.events()
    assert types(events) == {"course.created": 600, "integration.baseline_completed": 1}
    assert len({event.course_id for event in events}) == 601


async def test_a_delta_sees_edits_and_tombstones_but_no_provider_or_skill(register, sandbox):
    integration = await baselined(register)
    changes = await sandbox.change(
        {"op": "edit", "count": 3},
        {"op": "create", "count": 2},
        {"op": "delete", "count": 2},
        {"op": "provider", "count": 4},
        {"op": "skill", "count": 5},
    )
    poll = await integration.poll("delta")
    assert poll.state == "completed"
    expected = {"course.updated": 3, "course.created": 2, "course.deleted": 2}
    assert types((await integration.events())[1:]) == expected
    await integration.poll("full")
    after = [event for event in (await integration.events())[1:] if event.type == "course.updated"]
    assert {event.course_id for event in after} == {
        change["course_id"] for change in changes if change["op"] in ("edit", "provider", "skill")
    }
    assert len(after) == 12


async def test_the_log_line_of_a_poll_that_found_nothing_new_is_debug(register, sandbox):
    integration = await baselined(register)
    with capture_logs() as lines:
        await integration.poll("full")
        await integration.poll("delta")
        await sandbox.change({"op": "edit", "count": 1})
        await integration.poll("delta")
    levels = [one["log_level"] for one in lines if one["event"] == "poll"]
    assert levels == ["debug", "debug", "info"]


async def test_a_vanished_course_is_deleted_only_when_asking_for_it_confirms_that(
    register, sandbox
):
    integration = await baselined(register)
    (hidden,) = [one["course_id"] for one in await sandbox.change({"op": "edit", "count": 1})]
    await integration.poll("delta")
    (gone,) = [one["course_id"] for one in await sandbox.change({"op": "vanish", "count": 1})]
    # `hidden` is missing from pages only; asking for it by id still finds it.
    await sandbox.fault("vanish", on="walk", course_ids=[hidden])
    await integration.poll("full")
    deleted = [event for event in await integration.events() if event.type == "course.deleted"]
    assert [event.course_id for event in deleted] == [gone]


async def test_an_answer_without_the_control_course_proves_no_absence(register, sandbox):
    integration = await baselined(register)
    await sandbox.change({"op": "vanish", "count": 3})
    await sandbox.fault("empty", on="ids")
    poll = await integration.poll("full")
    assert poll.state == "completed"
    assert "course.deleted" not in types(await integration.events())
    await sandbox.heal()
    await integration.poll("full")
    assert types(await integration.events())["course.deleted"] == 3


@pytest.mark.parametrize("sandbox", [1, 8, 10, 600], indirect=True)
@pytest.mark.parametrize("fault", ["empty", "end_early"])
async def test_an_empty_or_truncated_full_poll_deletes_nothing(register, sandbox, fault):
    integration = await baselined(register)
    await sandbox.fault(fault, on="walk")
    poll = await integration.poll("full")
    assert poll.state == "completed"
    assert (await integration.state()).course_count in (1, 8, 10, 600)
    assert "course.deleted" not in types(await integration.events())


async def test_a_restored_course_is_created_again_with_a_higher_sequence(register, sandbox):
    integration = await baselined(register)
    (gone,) = await sandbox.change({"op": "delete", "count": 1})
    await integration.poll("delta")
    await sandbox.change({"op": "restore", "course_id": gone["course_id"]})
    await integration.poll("delta")
    deleted, restored = (await integration.events())[1:]
    assert (deleted.type, restored.type) == ("course.deleted", "course.created")
    assert restored.previous_sequence == deleted.sequence < restored.sequence
    assert b'"reason":"restored"' in restored.facts


async def test_anonymisation_of_a_deleted_course_is_silent(register, sandbox):
    integration = await baselined(register)
    (first, second) = await sandbox.change({"op": "delete", "count": 2})
    await integration.poll("delta")
    known = len(await integration.events())
    await sandbox.change(
        {"op": "anonymise", "course_id": first["course_id"], "keep_deleted_at": True},
        {"op": "anonymise", "course_id": second["course_id"], "keep_deleted_at": False},
    )
    await integration.poll("delta")
    await integration.poll("full")
    assert len(await integration.events()) == known


@pytest.mark.parametrize("sandbox", [3], indirect=True)
async def test_what_is_left_of_a_deleted_course_hides_no_absence(register, sandbox):
    """Its date is gone too, so that it carries no tombstone."""
    integration = await baselined(register)
    first, second, _ = [one["id"] for one in await sandbox.courses()]
    await sandbox.change({"op": "delete", "course_id": first})
    await integration.poll("delta")
    await sandbox.change({"op": "anonymise", "course_id": first, "keep_deleted_at": False})
    await integration.poll("delta")
    await sandbox.change({"op": "vanish", "course_id": second})

    await integration.poll("full")

    deleted = [one.course_id for one in await integration.events() if "deleted" in one.type]
    assert deleted == [first, second]


async def test_a_poll_handed_back_is_resumed_where_it_stopped(register, context, sandbox):
    integration = await register(baseline=Baseline.EMIT)
    fetch = context.services.upstream.fetch_page

    async def fetch_one_then_drain(*arguments):
        page = await fetch(*arguments)
        context.draining.set()
        return page

    context.services.upstream.fetch_page = fetch_one_then_drain
    await integration.turn()
    assert not (await integration.state()).baselined
    context.services.upstream.fetch_page = fetch
    context.draining.clear()
    await integration.turn()

    assert (await integration.state()).baselined
    pages = [one for one in await sandbox.served() if one["status"] == 200]
    assert len(pages) == 3
    assert types(await integration.events())["course.created"] == 600


@pytest.mark.parametrize("before", [2, 3])  # in the middle of a page, and after it
async def test_a_worker_killed_between_two_commits_loses_and_repeats_nothing(
    register, context, sandbox, before
):
    integration = await register(baseline=Baseline.EMIT)
    commit = context.services.catalogue.commit
    calls = 0

    async def die_before(*arguments, **kept):
        nonlocal calls
        calls += 1
        if calls == before:
            raise asyncio.CancelledError
        return await commit(*arguments, **kept)

    context.services.catalogue.commit = die_before
    token = await integration.claim()
    await asyncio.gather(poll_batch(context, [(integration.id, token)]), return_exceptions=True)
    context.services.catalogue.commit = commit
    await context.services.redis.delete(keys.lease("polls", integration.id))
    await context.services.redis.zrem(keys.claimed("polls"), integration.id)
    assert types(await integration.events()) == {"course.created": (before - 1) * MAX_CHANGES}

    await integration.turn()
    created = [e.course_id for e in await integration.events() if e.type == "course.created"]
    assert len(created) == len(set(created)) == 600


async def test_two_workers_with_the_same_claim_poll_once(register, context, sandbox):
    integration = await register(baseline=Baseline.EMIT)
    token = await integration.claim()
    await asyncio.gather(
        poll_batch(context, [(integration.id, token)]),
        poll_batch(context, [(integration.id, token)]),
    )
    assert len(await sandbox.served()) == 3


async def test_a_subscription_made_while_a_poll_runs_misses_nothing_after_it(
    register, context, sandbox
):
    integration = await register(baseline=Baseline.EMIT)
    services = context.services
    read = services.catalogue.read
    subscription = Subscription(
        id="sub_new", url="http://127.0.0.1:1/hook", created_at=1, updated_at=1
    )

    async def subscribe_then_read(*arguments):
        services.catalogue.read = read
        # The snapshot of subscriptions that this poll matches with is out of date from here on.
        await services.matchers.current()
        await services.subscriptions.create(subscription, ["whsec_" + "A" * 32], {})
        return await read(*arguments)

    services.catalogue.read = subscribe_then_read
    await integration.turn()
    (depth,) = await services.outboxes.depth_many(["sub_new"])
    assert depth.pending == 600


async def test_a_subscription_made_in_the_middle_of_a_page_gets_the_rest_of_it(register, context):
    integration = await register(baseline=Baseline.EMIT)
    services = context.services
    commit = services.catalogue.commit
    subscription = Subscription(
        id="sub_new", url="http://127.0.0.1:1/hook", created_at=1, updated_at=1
    )

    async def commit_then_subscribe(*arguments, **kept):
        services.catalogue.commit = commit
        committed = await commit(*arguments, **kept)
        await services.subscriptions.create(subscription, ["whsec_" + "A" * 32], {})
        return committed

    services.catalogue.commit = commit_then_subscribe
    await integration.turn()
    assert types(await integration.events())["course.created"] == 600
    (depth,) = await services.outboxes.depth_many(["sub_new"])
    assert depth.pending == 600 - MAX_CHANGES


async def test_a_refused_key_asks_for_attention_and_is_probed_slowly(register, sandbox):
    integration = await baselined(register)
    await sandbox.fault("error", code="PLATFORM.AUTHENTICATION_INVALID")
    poll = await integration.poll("delta")
    assert poll.state == "failed"
    registered, state = await integration.services.integrations.get(integration.id)
    assert state_of(registered, state) is IntegrationState.ERROR
    assert state.problem.code == "PLATFORM.AUTHENTICATION_INVALID"
    due = await integration.services.redis.zscore(keys.due("polls"), integration.id)
    assert due - state.problem.since == pytest.approx(1_800_000, abs=5_000)
    await sandbox.heal()
    await integration.poll("delta")
    registered, state = await integration.services.integrations.get(integration.id)
    assert state_of(registered, state) is IntegrationState.ACTIVE
    assert state.problem is None


async def test_an_outage_keeps_the_watermark_and_the_cursor(register, sandbox):
    integration = await baselined(register)
    before = (await integration.state()).watermark
    await sandbox.fault("html", on="later", times=1)
    await integration.services.integrations.request_poll(integration.id, "full", 1)
    await integration.turn()
    state = await integration.state()
    assert (state.failures, state.watermark) == (1, before)
    assert not state.problem.attention
    await integration.turn()
    state = await integration.state()
    assert (state.failures, state.problem) == (0, None)
    refused = [one["status"] for one in await sandbox.served()]
    assert refused == [200, 200, 200, 200, 502, *[200] * 3]  # the rest in smaller pages


async def test_a_rate_limit_holds_the_credential_and_goes_on_where_it_stopped(register, sandbox):
    integration = await register()
    await sandbox.fault(
        "error", code="PLATFORM.RATE_LIMIT_EXCEEDED", on="later", times=1, retry_after=2
    )
    await integration.turn()
    await integration.turn()  # held: asks for nothing
    assert len(await sandbox.served()) == 2
    registered, state = await integration.services.integrations.get(integration.id)
    assert (state.failures, state.problem) == (0, None)
    await integration.services.redis.delete(keys.budget(registered.credential_id))
    await integration.turn()
    assert (await integration.state()).baselined
    assert len(await sandbox.served()) == 4


async def test_a_cursor_that_the_upstream_refuses_starts_the_poll_again_once(register, sandbox):
    integration = await register(baseline=Baseline.EMIT)
    await sandbox.fault("error", code="PLATFORM.INPUT_INVALID", on="later", times=1)
    await integration.turn()
    await integration.turn()
    assert (await integration.state()).baselined
    assert types(await integration.events())["course.created"] == 600


async def test_a_page_cut_short_stops_the_poll_and_is_asked_for_smaller(register, sandbox):
    integration = await register(baseline=Baseline.EMIT)
    await sandbox.fault("truncate", times=1)
    await integration.turn()
    state = await integration.state()
    assert (state.failures, state.baselined) == (1, False)
    await integration.turn()
    assert (await integration.state()).baselined
    sizes = [int(one["parameters"]["page_size"]) for one in await sandbox.served()]
    assert sizes == [250, *[125] * 5]


async def test_a_deleted_integration_ends_its_epoch_under_a_running_poll(register, context):
    integration = await register(baseline=Baseline.EMIT)
    services = context.services
    read = services.catalogue.read

    async def delete_then_read(*arguments):
        services.catalogue.read = read
        await services.integrations.delete(integration.id)
        return await read(*arguments)

    services.catalogue.read = delete_then_read
    await integration.turn()
    assert await integration.events() == []
    assert [key async for key in services.redis.admin.scan_iter(f"cw:*{integration.id}*")] == []
    assert await services.redis.zcard(keys.due("polls")) == 0


async def test_a_poll_asked_for_backs_off_like_any_other(register, sandbox):
    integration = await baselined(register)
    services = integration.services
    await sandbox.fault("html")
    await services.integrations.request_poll(integration.id, "full", 1)
    for _ in range(4):
        await integration.turn()
    due = await services.redis.zscore(keys.due("polls"), integration.id)
    assert due - await redis_now(services.redis) > 900
    (running, *_) = await services.integrations.list_polls(integration.id)
    assert (running.state, running.requested_at) == ("running", 1)


async def test_failed_beginnings_of_a_poll_are_one_poll(register, sandbox):
    integration = await register()
    await sandbox.fault("html", times=3)
    for _ in range(4):
        await integration.turn()
    polls = await integration.services.integrations.list_polls(integration.id)
    assert [poll.state for poll in polls] == ["completed"]


async def test_a_page_that_never_decodes_ends_the_poll_in_the_end(register, sandbox, monkeypatch):
    integration = await register()
    await sandbox.fault("truncate", on="later")
    await integration.turn()
    later = now_ms() + 31 * 60_000
    monkeypatch.setattr("workers.polling.poll.now_ms", lambda: later)
    await integration.turn()
    polls = await integration.services.integrations.list_polls(integration.id)
    assert [poll.state for poll in polls] == ["failed"]
    monkeypatch.undo()
    await sandbox.heal()
    await integration.turn()
    assert (await integration.state()).baselined


async def test_a_broken_off_poll_that_is_too_old_is_listed_as_failed(
    register, sandbox, monkeypatch
):
    integration = await register()
    await sandbox.fault("html", on="later", times=1)
    await integration.turn()
    later = now_ms() + 31 * 60_000
    monkeypatch.setattr("workers.polling.poll.now_ms", lambda: later)
    await integration.turn()
    monkeypatch.undo()
    await integration.turn()
    polls = await integration.services.integrations.list_polls(integration.id)
    assert sorted(poll.state for poll in polls) == ["completed", "failed"]


async def test_absences_that_prove_nothing_do_not_keep_a_full_poll_from_ending(
    register, context, sandbox, monkeypatch
):
    monkeypatch.setattr("workers.polling.waiting_changes.MOST_IDS", 12)
    integration = await baselined(register)
    live = [one["course_id"] for one in await sandbox.change({"op": "edit", "count": 80})]
    await integration.poll("delta")
    await sandbox.fault("vanish", on="walk", course_ids=live)
    await integration.services.integrations.request_poll(integration.id, "full", 1)
    monkeypatch.setattr(
        "workers.polling.turn_budget.TURN_SECONDS", 0.0
    )  # as if each step took a whole turn
    asked_before = len(await sandbox.served())
    turns = 0
    while (await integration.state()).requested is not None:
        turns += 1
        # A turn without any time still fetches a page, or verifies a batch.
        monkeypatch.setattr("workers.polling.turn_budget.TURN_SECONDS", 60.0 if turns == 1 else 0.0)
        if turns == 1:
            fetch = context.services.upstream.fetch_page

            async def fetch_until_asked(credential, upstream_id, query, fetch=fetch):
                if query.ids:
                    monkeypatch.setattr(context.services.upstream, "fetch_page", fetch)
                    context.draining.set()
                return await fetch(credential, upstream_id, query)

            monkeypatch.setattr(context.services.upstream, "fetch_page", fetch_until_asked)
        await integration.turn()
        context.draining.clear()
        assert turns < 20
    by_id = [one for one in (await sandbox.served())[asked_before:] if one["ids"]]
    assert len(by_id) == 8  # each batch once
    assert "course.deleted" not in types(await integration.events())


async def test_a_record_that_breaks_and_comes_back_unchanged_leaves_quarantine(
    register, context, sandbox
):
    integration = await baselined(register)
    fetch = context.services.upstream.fetch_page

    async def break_one(*arguments):
        page = await fetch(*arguments)
        raw = bytes(page.results[0]).replace(b'"revisions":[', b'"revisions":[1,', 1)
        return msgspec.structs.replace(page, results=[msgspec.Raw(raw), *page.results[1:]])

    context.services.upstream.fetch_page = break_one
    await integration.poll("full")
    assert (await integration.state()).quarantined == 3  # one a page
    context.services.upstream.fetch_page = fetch
    await integration.poll("full")
    assert (await integration.state()).quarantined == 0
    assert types(await integration.events()) == {"integration.baseline_completed": 1}


async def test_a_broken_tombstone_that_vanishes_leaves_quarantine(register, sandbox):
    integration = await baselined(register)
    (gone,) = await sandbox.change({"op": "delete", "count": 1})
    await integration.poll("delta")
    course_id = gone["course_id"]
    await sandbox.fault("wrong_types", path="remote_deleted_at", share=0, course_ids=[course_id])
    await integration.poll("full")
    assert (await integration.state()).quarantined == 1
    await sandbox.change({"op": "vanish", "course_id": course_id})

    await integration.poll("full")

    assert (await integration.state()).quarantined == 0


async def test_a_page_with_far_more_records_than_asked_for_is_refused(register, context, sandbox):
    integration = await register()
    fetch = context.services.upstream.fetch_page

    async def flood(*arguments):
        page = await fetch(*arguments)
        return msgspec.structs.replace(page, results=[msgspec.Raw(b"{}")] * 251)

    context.services.upstream.fetch_page = flood
    await integration.turn()
    state = await integration.state()
    assert state.problem.code == "UpstreamPage"
    assert "251 records where 250 were asked for" in state.problem.message


async def test_a_full_poll_asked_for_while_its_delta_runs_is_a_poll_of_its_own(
    register, context, sandbox
):
    integration = await baselined(register)
    services = context.services
    delta = await services.integrations.request_poll(integration.id, "delta", 1)
    fetch = services.upstream.fetch_page
    asked = []

    async def ask_for_a_full(*arguments):
        services.upstream.fetch_page = fetch
        asked.append(await services.integrations.request_poll(integration.id, "full", 2))
        return await fetch(*arguments)

    services.upstream.fetch_page = ask_for_a_full
    await integration.turn()
    assert asked[0].id != delta.id
    assert (await integration.state()).requested_id == asked[0].id
    await integration.turn()
    done = await services.integrations.get_poll(integration.id, asked[0].id)
    assert (done.kind, done.state) == ("full", "completed")


async def test_an_interval_edited_during_a_poll_counts_at_its_end(register, context, sandbox):
    integration = await baselined(register, delta_interval_seconds=86_400)
    services = context.services
    fetch = services.upstream.fetch_page

    async def edit_then_fetch(*arguments):
        services.upstream.fetch_page = fetch
        await services.integrations.update(
            integration.id, lambda old: msgspec.structs.replace(old, delta_interval_seconds=60)
        )
        return await fetch(*arguments)

    services.upstream.fetch_page = edit_then_fetch
    await integration.poll("delta")
    due = await services.redis.zscore(keys.due("polls"), integration.id)
    assert due - await redis_now(services.redis) <= 60_000


async def test_a_retry_after_of_weeks_is_not_believed(register, sandbox):
    integration = await register()
    await sandbox.fault(
        "error", code="PLATFORM.RATE_LIMIT_EXCEEDED", times=1, retry_after=4_000_000
    )
    await integration.turn()
    due = await integration.services.redis.zscore(keys.due("polls"), integration.id)
    assert due - await redis_now(integration.services.redis) <= 3_601_000


async def test_an_outlandish_error_code_is_no_label_of_a_metric(register, context, sandbox):
    integration = await register()
    await sandbox.fault("error", code="a|b", status=503, times=1)
    await integration.turn()
    counters, _ = await context.services.counters.read()
    counted = [name for name in counters if name.startswith("upstream_errors_total|")]
    assert counted == ["upstream_errors_total|UpstreamUnavailable"]


async def test_at_its_memory_limit_redis_refuses_a_commit_whole(register, context):
    integration = await register(baseline=Baseline.EMIT)
    redis = context.services.redis.admin
    token = await integration.claim()
    memory = context.services.memory
    await memory.used_share()
    memory.recent.clock = lambda: 0.0  # no second passes: it still finds that there is room
    await redis.config_set("maxmemory", 1)
    try:
        await poll_batch(context, [(integration.id, token)])  # waits for room, like any other
    finally:
        await redis.config_set("maxmemory", 0)
    assert await integration.events() == []
    assert (await integration.state()).course_count == 0
