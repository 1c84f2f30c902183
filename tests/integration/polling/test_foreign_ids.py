"""Course ids as upstreams choose them, in places that have a syntax of their own."""

from __future__ import annotations

import contextlib
from collections import Counter
from urllib.parse import quote

import httpx
import msgspec
import pytest

from service.api.http.slow_clients import BoundedProtocol
from service.app import create_app
from service.domain.courses.received import LONGEST_ID_BYTES
from service.domain.polling.id_requests import MAX_LIST_BYTES
from service.domain.polling.integration import Baseline
from service.domain.review.guards import Guards
from tests.integration.conftest import new_integration
from tests.integration.polling.shelf import Shelf

TOKEN = "admin-token-of-this-test"
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}
PLAIN = [f"c{number:02}" for number in range(5)]
STRANGE = [
    "a,b",
    ",",
    "Org/Course/Run",
    "course-v1:Org+Course+Run",
    "/leading",
    "trailing/",
    "two//slashes",
    "/",
    "//",
    ".",
    "..",
    "../../polls",
    "a/../b",
    "100%",
    "%2F",
    "%2e%2e",
    "what?",
    "a#b",
    "a&b=c;d",
    "with blank",
    " blanks around ",
    "plus+plus",
    "a|b",
    "a:b",
    "{id}",
    "[1]",
    "quo'te\"s",
    "back\\slash",
    "Übung-ß",
    "課程/一",
    "😀",
    "\u202eright to left",
    "line\nbreak",
    "nul\x00byte",
    "tab\t",
    "-",
    "*",
    "x" * 300,
    "é" * (LONGEST_ID_BYTES // 2),
    "/" * 500,
]
BY_PATH = [one for one in STRANGE if one.strip("/") not in ("", ".", "..")]


@pytest.fixture
async def shelf(scripted):
    shelf = Shelf(scripted)
    shelf.put(*PLAIN)
    return shelf


@pytest.fixture
async def api(redis, services, serve):
    """The API as a server on a socket, which is what decodes paths."""

    @contextlib.asynccontextmanager
    async def opened(_settings):
        yield services

    settings = msgspec.structs.replace(services.settings, admin_token=TOKEN)
    url = await serve(create_app(settings, open_services=opened), http=BoundedProtocol)
    async with httpx.AsyncClient(base_url=url, headers=AUTHORIZED) as client:
        yield client


async def told(integration) -> list[tuple[str, str]]:
    return [
        (event.type, event.course_id)
        for event in await integration.events()
        if event.type.startswith("course.")
    ]


# --- the API ----------------------------------------------------------------------------------


async def test_every_course_that_is_listed_can_be_shown(context, scripted, shelf, api):
    shelf.put(*STRANGE)
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    base = f"/v1/integrations/{integration.id}/courses"

    listed, after = [], None
    while True:
        query = {"limit": "7"} | ({} if after is None else {"after": after})
        answer = await api.get(base, params=query)
        assert answer.status_code == 200, answer.text
        listed += [one["course_id"] for one in answer.json()["items"]]
        if (after := answer.json()["next"]) is None:
            break
    assert sorted(set(listed)) == sorted([*PLAIN, *STRANGE])

    for course_id in {*listed}:
        answer = await api.get(base, params={"course_id": course_id})
        assert answer.status_code == 200, (course_id, answer.text)
        (found,) = answer.json()["items"]
        assert (found["course_id"], answer.json()["next"]) == (course_id, None)
    for course_id in BY_PATH:
        answer = await api.get(f"{base}/{quote(course_id, safe='')}")
        assert answer.status_code == 200, (course_id, answer.text)
        assert answer.json()["course_id"] == course_id


@pytest.mark.parametrize("course_id", ["Org/Course/Run", "a,b", "course-v1:Org+Course+Run", "{id}"])
async def test_clients_and_proxies_that_decode_what_a_path_may_carry_find_it_too(
    context, scripted, shelf, api, course_id
):
    """RFC 3986 lets them spell `,`, `:` and `+` either way, and some decode `%2F` as well."""
    shelf.put(course_id)
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    base = f"/v1/integrations/{integration.id}/courses"
    for spelling in (course_id, quote(course_id), quote(course_id, safe="")):
        answer = await api.get(f"{base}/{spelling}")
        assert (answer.status_code, answer.json().get("course_id")) == (200, course_id)


async def test_a_course_that_is_not_there_is_not_found_whatever_its_id(
    context, scripted, shelf, api
):
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    base = f"/v1/integrations/{integration.id}/courses"
    for path in ["no", "c00%2F", "%2Fc00", "c00%2F%2F", "C00", "c00%00", "%ff", "c00%20", "c00/x"]:
        assert (await api.get(f"{base}/{path}")).status_code == 404, path
    for course_id in ["no", "c00/", "/c00", "C00", "c00\x00", " c00", "%63"]:
        answer = await api.get(base, params={"course_id": course_id})
        assert (answer.status_code, answer.json()["items"]) == (200, [])
    for wrong in ("", "x" * (LONGEST_ID_BYTES + 1)):
        assert (await api.get(base, params={"course_id": wrong})).status_code == 422


async def test_events_of_every_course_can_be_asked_for(context, scripted, shelf, api):
    shelf.put(*STRANGE)
    integration = await new_integration(context, scripted.base_url, baseline=Baseline.EMIT)
    await integration.turn()
    for course_id in STRANGE:
        answer = await api.get("/v1/events", params={"course_id": course_id})
        assert answer.status_code == 200, (course_id, answer.text)
        (event,) = answer.json()["items"]
        assert event["data"]["course_id"] == course_id


# --- changes and absences -----------------------------------------------------------------------


async def test_changes_of_such_courses_are_found_and_reported(context, scripted, shelf):
    shelf.put(*STRANGE)
    everything_may_change = Guards(changed_share=1.0)
    integration = await new_integration(context, scripted.base_url, guards=everything_may_change)
    await integration.turn()
    shelf.put(*STRANGE, origin_id="moved")
    await integration.poll("delta")
    assert Counter(await told(integration)) == {("course.updated", one): 1 for one in STRANGE}


@pytest.mark.parametrize("control", ["a,b", " blank", "x" * 1_000, "tab\t", "課" * 200])
async def test_an_id_that_no_list_carries_keeps_no_absence_from_being_confirmed(
    context, scripted, shelf, control
):
    """Else it would be among those that are asked along, as the first or the last that is shown."""
    shelf.courses = {}
    shelf.put(control, *PLAIN, f"{control},z")
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    shelf.take("c02")
    poll = await integration.poll("full")
    assert poll.error is None
    assert await told(integration) == [("course.deleted", "c02")]
    assert shelf.lists() == [{"ids": ["c00", "c04", "c02"]}]


@pytest.mark.parametrize("gone", ["a,b", " blank ", "x" * 1_000, "tab\t", ",", "課" * 200])
async def test_what_cannot_be_asked_for_by_its_id_is_asked_for_by_its_remote_id(
    context, scripted, shelf, gone
):
    shelf.put(gone, remote_id="remote 7")
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()

    # Still there, though the page left it out: it is found by its id in the answer.
    shelf.left_out = {gone}
    assert (await integration.poll("full")).error is None
    assert await told(integration) == []
    assert shelf.lists() == [{"remote_ids": ["c00", "c04", "remote 7"]}]

    shelf.take(gone)
    assert (await integration.poll("full")).error is None
    assert await told(integration) == [("course.deleted", gone)]


@pytest.mark.parametrize("by_ids", ["empty", "loses one", "cut", "refused"])
async def test_an_answer_by_remote_ids_proves_no_more_than_one_by_ids(
    context, scripted, shelf, by_ids
):
    shelf.put("a,b", remote_id="remote 7")
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    shelf.take("a,b")
    shelf.by_ids = by_ids
    poll = await integration.poll("full")
    assert poll.error.startswith("1 changes could not be confirmed")
    assert await told(integration) == []


@pytest.mark.parametrize("remote_id", ["r,1", "", " r", "r" * 900])
async def test_what_cannot_be_asked_for_at_all_is_named_and_the_others_are_confirmed(
    context, scripted, shelf, remote_id
):
    shelf.put("a,b", remote_id=remote_id)
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    shelf.take("a,b", "c02")
    poll = await integration.poll("full")
    assert await told(integration) == [("course.deleted", "c02")]
    assert "1 because neither the course id nor the remote id can be sent" in poll.error
    (notice,) = (await integration.shown()).notices
    assert notice.code == "unconfirmed_changes"


@pytest.mark.parametrize(("letter", "length"), [("x", 250), ("x", 780), ("課", 80)])
async def test_no_request_line_is_longer_than_servers_take(
    context, scripted, shelf, letter, length
):
    many = [f"{number:03}{letter * length}" for number in range(120)]
    shelf.put(*many)
    limitless = Guards(deleted_share=1.0, deleted_share_max=1.0)
    integration = await new_integration(context, scripted.base_url, guards=limitless)
    await integration.turn()
    gone = many[:40]
    shelf.take(*gone)
    poll = await integration.poll("full")
    assert poll.error is None
    assert sorted(await told(integration)) == [("course.deleted", one) for one in gone]
    for query in scripted.asked:
        if "ids" in query:
            assert len(quote(query["ids"], safe="")) <= MAX_LIST_BYTES


async def test_an_id_beyond_all_bounds_is_skipped_counted_and_told(context, scripted, shelf):
    shelf.put("x" * (LONGEST_ID_BYTES + 1))
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    state = await integration.state()
    assert state.course_count == len(PLAIN)
    (notice,) = (await integration.shown()).notices
    assert notice.code == "records_without_id"


# --- reviews ----------------------------------------------------------------------------------


async def test_held_deletions_of_such_courses_are_carried_out(context, scripted, shelf):
    shelf.put(*(f"{number},x" for number in range(30)))
    for number in range(30):
        shelf.put(f"{number},x", remote_id=f"r{number}")
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    gone = [f"{number},x" for number in range(20)]
    shelf.take(*gone)
    await integration.poll("full")
    state = await integration.state()
    assert state.held == 20
    services = integration.services
    review = await services.reviews.get(integration.id, state.epoch)
    await services.reviews.decide(integration.id, state.epoch, review.version, "publish")
    await integration.turn()
    assert sorted(await told(integration)) == sorted(("course.deleted", one) for one in gone)
    assert (await integration.state()).held == 0
