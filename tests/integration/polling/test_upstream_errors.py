"""What each failure of the upstream looks like to an operator, and how it ends."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections import Counter

import msgspec
import pytest

from service.clock import now_ms
from service.domain.events.event import rfc3339
from service.domain.polling.integration import Baseline
from service.storage.redis import keys
from tests.integration.conftest import new_integration
from tests.integration.scripted import course, page, refuses, resets, says

BASELINE_COMPLETED = "integration.baseline_completed"
ERROR = "integration.error"
RECOVERED = "integration.recovered"
HALF_HOUR, DAY = 1_800, 86_400


def types(events) -> Counter[str]:
    return Counter(event.type for event in events)


@pytest.fixture
async def baselined(register):
    integration = await register()
    await integration.turn()
    assert (await integration.state()).baselined
    return integration


async def unmoved(integration, before) -> None:
    """Nothing was taken from the failure, which is told where a person must act."""
    state = await integration.state()
    assert (state.watermark, state.course_count) == (before.watermark, before.course_count)
    told = {ERROR: 1} if state.problem is not None and state.problem.attention else {}
    assert types(await integration.events()) == {BASELINE_COMPLETED: 1, **told}


async def recovers(integration, sandbox) -> None:
    """Once the fault ends, the next turn finds what changed, exactly once."""
    await sandbox.heal()
    (edited,) = await sandbox.change({"op": "edit", "count": 1})
    await integration.turn()
    if "course.updated" not in types(await integration.events()):
        # The page that showed it had gone by; the poll that was under way ended well all the same.
        await integration.poll("delta")
    if (await integration.state()).full_retry_at is not None:
        # That is what full polls failed with, until one does not.
        assert (await integration.shown()).error is not None
        await integration.poll("full")
    shown = await integration.shown()
    assert (shown.state, shown.error) == ("active", None)
    assert (await integration.state()).failures == 0
    updated = [one for one in await integration.events() if one.type == "course.updated"]
    assert [one.course_id for one in updated] == [edited["course_id"]]


# --- those that need a person ---------------------------------------------------------------

ATTENTION = [
    ("PLATFORM.AUTHENTICATION_INVALID", None, HALF_HOUR, "api_key"),
    ("PLATFORM.IP_NOT_WHITELISTED", None, HALF_HOUR, "address"),
    ("PLATFORM.INTEGRATION_NOT_FOUND", None, HALF_HOUR, "upstream_id"),
    ("INTEGRATION.MODEL_NOT_AVAILABLE", None, DAY, "enable courses"),
    # A code that contradicts its status decides.
    ("PLATFORM.AUTHENTICATION_INVALID", 500, HALF_HOUR, "api_key"),
    ("PLATFORM.INTEGRATION_NOT_FOUND", 429, HALF_HOUR, "upstream_id"),
    ("INTEGRATION.MODEL_NOT_AVAILABLE", 503, DAY, "enable courses"),
    ("INTEGRATION.MODEL_NOT_AVAILABLE", 200, DAY, "enable courses"),
    # Codes nobody knows, or none: the status decides.
    (None, 401, HALF_HOUR, "api_key"),
    (None, 403, HALF_HOUR, "api_key"),
    (None, 404, HALF_HOUR, "base_url"),
    ("PLATFORM.BRAND_NEW", 403, HALF_HOUR, "api_key"),
]


@pytest.mark.parametrize(("code", "status", "probed_after", "advice"), ATTENTION)
async def test_what_needs_a_person_is_an_error_that_is_probed_slowly(
    baselined, sandbox, code, status, probed_after, advice
):
    before = await baselined.state()
    await sandbox.fault("error", code=code, status=status)
    began = now_ms()

    poll = await baselined.poll("full")

    shown = await baselined.shown()
    assert shown.state == "error"
    assert shown.error.attention
    if code is not None:
        assert shown.error.code == code
    assert advice in shown.error.remedy
    assert shown.error.log_url.startswith("https://")
    assert shown.error.message in poll.error
    assert (poll.state, poll.pages) == ("failed", 0)
    assert [one.state for one in await baselined.polls()] == ["failed", "completed"]
    assert await baselined.due_in() == pytest.approx(probed_after, abs=5)
    since = (await baselined.state()).problem.since
    assert began <= since <= now_ms()
    await unmoved(baselined, before)

    await baselined.turn()  # a probe that fails does not make the error any younger
    assert (await baselined.state()).problem.since == since
    assert (await baselined.state()).failures == 2
    await recovers(baselined, sandbox)
    told = [
        (one.type, msgspec.json.decode(one.facts))
        for one in await baselined.events()
        if one.type in (ERROR, RECOVERED)
    ]
    assert [name for name, _ in told] == [ERROR, RECOVERED]
    assert all(said["code"] == shown.error.code for _, said in told)
    assert all(said["since"] == rfc3339(since) for _, said in told)
    assert told[0][1]["message"] == shown.error.message


async def test_a_poll_asked_for_probes_at_once_though_the_next_probe_is_far_away(
    baselined, sandbox
):
    await sandbox.fault("error", code="PLATFORM.AUTHENTICATION_INVALID")
    await baselined.poll("delta")
    assert await baselined.due_in() > 1_700
    await sandbox.heal()

    asked = await baselined.services.integrations.request_poll(baselined.id, "delta", now_ms())

    assert await baselined.due_in() <= 0
    await baselined.turn()
    (poll, *_) = await baselined.polls()
    assert (poll.id, poll.state) == (asked.id, "completed")
    assert (await baselined.shown()).state == "active"


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "html"},
        {"kind": "drop"},
        {"kind": "truncate"},
        {"kind": "error", "code": "PLATFORM.CONCURRENCY_LIMIT_EXCEEDED"},
    ],
)
async def test_an_outage_during_a_probe_does_not_look_like_recovery(baselined, sandbox, fault):
    await sandbox.fault("error", code="PLATFORM.AUTHENTICATION_INVALID")
    await baselined.poll("delta")
    problem = (await baselined.state()).problem
    await sandbox.heal()
    await sandbox.fault(**fault)

    await baselined.turn()

    shown = await baselined.shown()
    assert (shown.state, shown.error.code) == ("error", "PLATFORM.AUTHENTICATION_INVALID")
    assert (await baselined.state()).problem == problem
    assert "AUTHENTICATION" not in (await baselined.polls())[0].error
    assert await baselined.due_in() < 60  # soon enough to see how it is
    await recovers(baselined, sandbox)


async def test_a_key_that_can_no_longer_be_opened_is_an_error_with_a_remedy(baselined, sandbox):
    registered, _ = await baselined.services.integrations.get(baselined.id)
    key = keys.credential(registered.credential_id)
    encrypted = await baselined.services.redis.hget(key, "api_key")
    await baselined.services.redis.hset(key, "api_key", b"not encrypted by us")

    await baselined.poll("delta")

    shown = await baselined.shown()
    assert (shown.state, shown.error.code) == ("error", "UpstreamAuth")
    assert "api_key" in shown.error.remedy
    await baselined.services.redis.hset(key, "api_key", encrypted)
    await recovers(baselined, sandbox)


# --- those that pass by themselves, in time -------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("INTEGRATION.SETUP_INCOMPLETE", 409),
        ("INTEGRATION.SETUP_SYNC_PENDING", 409),
        ("INTEGRATION.SETUP_SYNC_PENDING", 503),
        ("INTEGRATION.QA_FAILED", 409),
        ("INTEGRATION.QA_FAILED", 503),
        (None, 409),
    ],
)
async def test_one_that_is_not_ready_is_probed_slowly_and_needs_nobody(
    register, sandbox, code, status
):
    integration = await register()
    await sandbox.fault("error", code=code, status=status)

    await integration.turn()

    shown = await integration.shown()
    assert (shown.state, shown.error.attention) == ("pending", False)
    assert "set-up" in shown.error.remedy
    assert await integration.due_in() == pytest.approx(HALF_HOUR, abs=5)
    assert [one.state for one in await integration.polls()] == ["failed"]
    await sandbox.heal()
    await integration.turn()
    assert (await integration.shown()).state == "active"
    assert types(await integration.events()) == {BASELINE_COMPLETED: 1}


# What comes back, whether pages get smaller, and what the operator is told to do.
PASSING = [
    ({"kind": "error", "code": "PLATFORM.TASK_TIMED_OUT"}, True, "wait"),
    ({"kind": "error", "code": "PLATFORM.TASK_TIMED_OUT", "status": 400}, True, "wait"),
    ({"kind": "error", "code": "REMOTE.SERVICE_UNAVAILABLE"}, True, "wait"),
    ({"kind": "error", "code": "REMOTE.SERVICE_UNAVAILABLE", "status": 401}, True, "wait"),
    ({"kind": "error", "code": "PLATFORM.UNKNOWN_ERROR"}, True, "wait"),
    ({"kind": "error", "code": "PLATFORM.UNKNOWN_ERROR", "status": 200}, True, "wait"),
    ({"kind": "error", "code": "PLATFORM.CONCURRENCY_LIMIT_EXCEEDED"}, False, "wait a minute"),
    ({"kind": "error", "code": None, "status": 500}, True, "wait"),
    ({"kind": "error", "code": None, "status": 408}, True, "wait"),
    ({"kind": "error", "code": "PLATFORM.BRAND_NEW", "status": 502}, True, ""),
    ({"kind": "html", "status": 502}, True, "wait"),
    ({"kind": "html", "status": 504}, True, "wait"),
    ({"kind": "html", "status": 200}, True, "base_url"),
    ({"kind": "html", "status": 302}, True, "base_url to the address of the API"),
    ({"kind": "drop", "after": 0.5}, True, "can reach it"),
    ({"kind": "drop", "after": 0}, True, "can reach it"),
    ({"kind": "truncate", "after": 0.9}, True, "operators"),
    ({"kind": "truncate", "after": 0}, True, "base_url"),
    ({"kind": "wrong_types", "where": "page"}, True, "operators"),
]


@pytest.mark.parametrize(("fault", "smaller", "advice"), PASSING)
async def test_what_passes_is_tried_again_from_where_it_stopped(
    baselined, sandbox, fault, smaller, advice
):
    before = await baselined.state()
    asked = len(await sandbox.served())
    await sandbox.fault(on="later", **fault)
    poll = await baselined.services.integrations.request_poll(baselined.id, "full", now_ms())

    await baselined.turn()

    shown = await baselined.shown()
    assert (shown.state, shown.error.attention) == ("active", False)
    assert advice in shown.error.remedy
    (running, *_) = await baselined.polls()
    assert (running.id, running.state, running.pages) == (poll.id, "running", 1)
    assert shown.error.message in running.error
    assert 0 < await baselined.due_in() <= 6
    await unmoved(baselined, before)

    await baselined.turn()
    assert (await baselined.state()).failures == 2
    await sandbox.heal()
    await baselined.turn()
    served = (await sandbox.served())[asked:]
    failed, again, healed = (one["parameters"] for one in served[1:4])
    assert failed["cursor"] == again["cursor"] == healed["cursor"]
    sizes = [int(one["parameters"]["page_size"]) for one in served[:4]]
    assert sizes == ([250, 250, 125, 62] if smaller else [250] * 4)
    (done, *_) = await baselined.polls()
    assert (done.id, done.state, done.error) == (poll.id, "completed", None)
    assert types(await baselined.events()) == {BASELINE_COMPLETED: 1}
    await recovers(baselined, sandbox)


async def test_a_delta_that_fails_loses_no_change(baselined, sandbox):
    before = await baselined.state()
    changes = await sandbox.change({"op": "edit", "count": 3}, {"op": "delete", "count": 2})
    await sandbox.fault("html", on="walk")
    await baselined.poll("delta")
    await unmoved(baselined, before)
    await sandbox.heal()

    await baselined.turn()

    found = [one for one in await baselined.events() if one.type.startswith("course.")]
    assert Counter(one.course_id for one in found) == {one["course_id"]: 1 for one in changes}


async def test_an_outage_is_given_up_after_a_bounded_time_and_says_why(
    baselined, sandbox, monkeypatch
):
    await sandbox.fault("html", on="later", status=503)
    await baselined.services.integrations.request_poll(baselined.id, "full", now_ms())
    await baselined.turn()
    later = now_ms() + 31 * 60_000
    monkeypatch.setattr("workers.polling.poll.now_ms", lambda: later)

    await baselined.turn()

    (failed, *_) = await baselined.polls()
    assert failed.state == "failed"
    assert "not resumed" in failed.error
    assert "503" in failed.error
    monkeypatch.undo()
    await recovers(baselined, sandbox)


@pytest.mark.parametrize("sandbox", [1_500], indirect=True)
async def test_failures_now_and_then_do_not_add_up_in_a_long_poll(baselined, sandbox):
    """Else a full poll of thousands of pages would wait a quarter of an hour for each of them."""
    upstream = baselined.services.upstream
    fetch = upstream.fetch_page

    async def one_page_then_busy(*arguments):
        upstream.fetch_page = fetch
        got = await fetch(*arguments)
        await sandbox.fault("error", code="PLATFORM.CONCURRENCY_LIMIT_EXCEEDED")
        return got

    await baselined.services.integrations.request_poll(baselined.id, "full", now_ms())
    for pages in (1, 2, 3):
        upstream.fetch_page = one_page_then_busy
        await baselined.turn()
        assert (await baselined.state()).failures == 1
        assert (await baselined.polls())[0].pages == pages
        await sandbox.heal()
    await baselined.turn()
    assert (await baselined.shown()).error is None


@pytest.mark.parametrize("sandbox", [2_500], indirect=True)
async def test_pages_grow_again_once_they_arrive(baselined, sandbox):
    asked = len(await sandbox.served())
    await sandbox.fault("html", on="first", times=1)
    await baselined.poll("full")
    await baselined.turn()
    sizes = [int(one["parameters"]["page_size"]) for one in (await sandbox.served())[asked:]]
    assert sizes == [250, *[125] * 10, *[250] * 5]


@pytest.mark.parametrize(("wait", "most"), [("20", 20), ("4000000", 900)])
@pytest.mark.parametrize("code", ["PLATFORM.CONCURRENCY_LIMIT_EXCEEDED", None])
async def test_an_upstream_that_says_when_to_come_back_is_believed_within_bounds(
    context, scripted, wait, most, code
):
    integration = await new_integration(context, scripted.base_url)
    scripted.answer = refuses(503, code, retry_after=wait)

    await integration.turn()

    assert await integration.due_in() == pytest.approx(most, abs=1)


# --- bodies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        says(503, b"upstream connect error", content_type="text/plain"),
        says(500, b"<html><h1>Oops", content_type="text/html"),
        says(502, b""),
        says(500, b"\xff\xfe\x00"),
        says(503, b"{" * 100_000),
        says(200, page(["a"])[:-1]),
        says(200, b""),
        says(200, b"null"),
        says(200, gzip.compress(page(["a"]))[:-4], content_encoding="gzip"),
        says(200, b"no gzip at all", content_encoding="gzip"),
        says(200, page(["a"]), content_encoding="br"),
        says(204),
        resets,
    ],
)
async def test_no_body_is_taken_for_a_page_that_is_none(context, scripted, answer):
    integration = await new_integration(context, scripted.base_url)
    scripted.answer = says(200, page(["a", "b"]))
    await integration.turn()
    before = await integration.state()
    scripted.answer = answer

    await integration.poll("full")

    shown = await integration.shown()
    assert (shown.state, shown.error.attention) == ("active", False)
    assert 0 < await integration.due_in() <= 6
    await unmoved(integration, before)
    scripted.answer = says(200, page(["a", "b"]))
    await integration.turn()
    assert (await integration.shown()).error is None
    await unmoved(integration, await integration.state())


@pytest.mark.parametrize(
    ("record", "nameless", "quarantined"),
    [
        (None, 1, 0),
        ([], 1, 0),
        ({"title": "x"}, 1, 0),
        ({"id": 7}, 1, 0),
        ({"id": "c", "revisions": "no list"}, 0, 1),
        ({**course("c"), "remote_id": 7}, 0, 1),
    ],
)
async def test_a_record_of_the_wrong_type_stops_no_poll(
    context, scripted, record, nameless, quarantined
):
    integration = await new_integration(context, scripted.base_url, baseline=Baseline.EMIT)
    body = json.loads(page(["a", "b"]))
    body["data"]["results"].insert(1, record)
    scripted.answer = says(200, json.dumps(body).encode())

    await integration.turn()

    assert types(await integration.events()) == {"course.created": 2, BASELINE_COMPLETED: 1}
    state = await integration.state()
    assert (state.course_count, state.quarantined) == (2, quarantined)
    (poll,) = await integration.polls()
    assert poll.verdicts == {"created": 2, "quarantined": nameless + quarantined}
    counters, _ = await integration.services.counters.read()
    assert counters["records_total|quarantined"] == 1


async def test_a_page_too_large_is_asked_for_smaller(baselined, sandbox, monkeypatch):
    before = await baselined.state()
    asked = len(await sandbox.served())
    monkeypatch.setattr(baselined.services.upstream, "max_bytes", 1_000_000)
    await sandbox.fault("bloat", megabytes=2, on="later", times=1)
    await baselined.poll("full")
    shown = await baselined.shown()
    assert "larger than 1000000 bytes" in shown.error.message
    assert shown.error.code == "UpstreamPage"
    await unmoved(baselined, before)
    await baselined.turn()
    sizes = [int(one["parameters"]["page_size"]) for one in (await sandbox.served())[asked:]]
    assert sizes == [250, 250, 125, 125, 125]
    await recovers(baselined, sandbox)


async def test_no_page_is_larger_than_64_mib(baselined, sandbox):
    await sandbox.fault("bloat", megabytes=68)
    await baselined.poll("delta")
    assert f"larger than {64 * 1024 * 1024} bytes" in (await baselined.shown()).error.message
    await recovers(baselined, sandbox)


async def test_a_bomb_takes_no_more_memory_than_a_page_may(baselined, sandbox, monkeypatch):
    monkeypatch.setattr(baselined.services.upstream, "max_bytes", 1_000_000)
    await sandbox.fault("bomb", megabytes=256)
    tracemalloc.start()
    try:
        await baselined.poll("delta")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000
    assert "larger than 1000000 bytes" in (await baselined.shown()).error.message
    await recovers(baselined, sandbox)


@pytest.mark.parametrize("fault", [{"kind": "drip", "bytes_per_second": 400}, {"kind": "delay"}])
async def test_a_body_that_drips_ends_at_the_deadline_of_the_request(
    baselined, sandbox, monkeypatch, fault
):
    before = await baselined.state()
    monkeypatch.setattr(baselined.services.upstream, "timeout", 0.3)
    await sandbox.fault(**({"seconds": 30} if fault["kind"] == "delay" else {}), **fault)
    await asyncio.wait_for(baselined.poll("full"), 5)
    shown = await baselined.shown()
    assert "within 0.3 s" in shown.error.message
    assert not shown.error.attention
    await unmoved(baselined, before)
    monkeypatch.undo()
    await recovers(baselined, sandbox)


async def test_what_the_upstream_says_of_itself_is_kept_within_bounds(context, scripted):
    integration = await new_integration(context, scripted.base_url)
    detail = {
        "code": "A" * 5_000,
        "message": "M" * 5_000 + "sandbox-key",
        "log_url": "https://log.example/sandbox-key/" + "x" * 5_000,
    }
    scripted.answer = says(503, json.dumps({"error": detail}).encode())

    await integration.turn()

    error = (await integration.shown()).error
    assert (len(error.code), len(error.log_url)) == (100, 500)
    assert len(error.message) < 600
    stored = await integration.services.redis.hgetall(keys.integration(integration.id))
    assert b"sandbox-key" not in b"".join(stored.values())


# --- cursors --------------------------------------------------------------------------------


async def test_a_cursor_refused_in_the_middle_starts_the_poll_again_but_once(baselined, sandbox):
    before = await baselined.state()
    asked = len(await sandbox.served())
    await sandbox.fault("error", code="PLATFORM.INPUT_INVALID", on="later")
    poll = await baselined.services.integrations.request_poll(baselined.id, "full", now_ms())

    await baselined.turn()

    assert (await baselined.polls())[0].state == "running"
    assert await baselined.due_in() <= 0
    await baselined.turn()
    shown = await baselined.shown()
    (failed, *_) = await baselined.polls()
    assert (failed.id, failed.state) == (poll.id, "failed")
    assert (shown.state, shown.error.code) == ("active", "PLATFORM.INPUT_INVALID")
    assert await baselined.due_in() > 0
    assert len(await sandbox.served()) - asked == 4
    await unmoved(baselined, before)
    await recovers(baselined, sandbox)


async def test_a_first_page_called_invalid_fails_the_poll(baselined, sandbox):
    before = await baselined.state()
    await sandbox.fault("error", code="PLATFORM.INPUT_INVALID")
    poll = await baselined.poll("delta")
    assert poll.state == "failed"
    assert 0 < await baselined.due_in() <= 6
    await unmoved(baselined, before)
    await recovers(baselined, sandbox)


def circling(tail: int, length: int):
    """Pages that lead into a circle of `length` after `tail` others."""

    async def answer(request):
        number = int(request.query.get("cursor", "0"))
        following = number + 1 if number + 1 < tail + length else tail
        return await says(200, page([f"c{number}"], str(following)))(request)

    return answer


@pytest.mark.parametrize(("tail", "length"), [(1, 1), (1, 2), (3, 2), (1, 5), (4, 5), (9, 5)])
async def test_pages_that_lead_in_circles_end_the_poll(context, scripted, tail, length):
    integration = await new_integration(context, scripted.base_url)
    scripted.answer = says(200, page([f"c{number}" for number in range(3)] + ["x", "y"]))
    await integration.turn()
    before = await integration.state()
    scripted.answer = circling(tail, length)
    asked = len(scripted.asked)

    poll = await integration.poll("full")

    assert poll.state == "failed"
    assert "repeats pages" in poll.error
    assert (await integration.shown()).error.code == "UpstreamPaging"
    assert 0 < await integration.due_in() <= 6
    # Noticed within a small multiple of what there is to see.
    assert len(scripted.asked) - asked <= 4 * (tail + length) + 2
    state = await integration.state()
    assert state.watermark == before.watermark
    assert state.course_count >= before.course_count
    assert "course.deleted" not in types(await integration.events())
    assert not await integration.services.redis.admin.keys("cw:seen:*")


async def test_a_page_that_leads_to_itself_ends_the_poll(baselined, sandbox):
    before = await baselined.state()
    await sandbox.fault("repeat_cursor", on="later")
    poll = await baselined.poll("full")
    assert (poll.state, poll.pages) == ("failed", 1)
    await unmoved(baselined, before)
    await recovers(baselined, sandbox)


async def test_laps_over_the_same_courses_are_noticed_before_they_fill_redis(baselined, sandbox):
    before = await baselined.state()
    await sandbox.fault("endless")
    poll = await baselined.poll("full")
    assert (poll.state, poll.pages) == ("failed", 16)
    assert "same courses" in poll.error
    assert not await baselined.services.redis.admin.keys("cw:seen:*")
    await unmoved(baselined, before)
    await recovers(baselined, sandbox)


@pytest.mark.parametrize("sandbox", [4_400], indirect=True)
async def test_a_long_poll_that_began_anew_is_not_taken_for_one_in_laps(baselined, sandbox):
    upstream = baselined.services.upstream
    fetch = upstream.fetch_page
    fetched = 0

    async def refuse_the_fifteenth(*arguments):
        nonlocal fetched
        fetched += 1
        if fetched == 15:
            await sandbox.fault("error", code="PLATFORM.INPUT_INVALID", times=1)
        return await fetch(*arguments)

    upstream.fetch_page = refuse_the_fifteenth
    await baselined.services.integrations.request_poll(baselined.id, "full", now_ms())
    await baselined.turn()
    await baselined.turn()
    assert (await baselined.polls())[0].state == "completed"
    assert fetched == 15 + 18


async def test_pages_without_end_end_at_a_bound(baselined, sandbox, monkeypatch):
    before = await baselined.state()
    monkeypatch.setattr("workers.polling.pages.MAX_PAGES", 12)
    await sandbox.fault("endless")
    poll = await baselined.poll("full")
    assert (poll.state, poll.pages) == ("failed", 12)
    assert "never end" in poll.error
    shown = await baselined.shown()
    assert (shown.error.code, shown.error.attention) == ("UpstreamPaging", False)
    await unmoved(baselined, before)
    await recovers(baselined, sandbox)
