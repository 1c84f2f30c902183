"""Integrations in the console: from registration to deletion, reviews, courses, hostile data."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.e2e.conftest import SANDBOX_KEY, House, until
from tests.e2e.console.conftest import Console
from tests.e2e.console.upstream import BIDI, COURSES, JAVASCRIPT, LONG, SCRIPT, hostile_upstream

pytestmark = [
    pytest.mark.slow,  # the whole service and a browser
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.xdist_group("console"),
]


async def upstream_of(house: House, courses: int = 60) -> str:
    """The id of an integration of its own at the sandbox."""
    upstream_id = f"workday:{uuid.uuid4().hex}"
    body = {"upstream_id": upstream_id, "courses": courses}
    answer = await house.sandbox.post("/control/integrations", json=body)
    assert answer.is_success, answer.text
    return upstream_id


async def registered(house: House, upstream_id: str, **fields: Any) -> dict[str, Any]:
    """An integration whose baseline is complete."""
    body = {
        "name": f"Learning {upstream_id[-6:]}",
        "upstream_id": upstream_id,
        "base_url": f"http://127.0.0.1:{house.sandbox_port}/v1",
        "api_key": SANDBOX_KEY,
        "delta_interval_seconds": 3600,
        **fields,
    }
    made = await house.call("POST", "/v1/integrations", json=body)

    async def active() -> dict[str, Any] | None:
        found = await house.call("GET", f"/v1/integrations/{made['id']}")
        return found if found["state"] != "pending" and found["last_poll"] else None

    found: dict[str, Any] = await until(active, seconds=60, what="a baseline")
    return found


async def full_poll(house: House, integration_id: str) -> None:
    path = f"/v1/integrations/{integration_id}/polls"
    poll = await house.call("POST", path, json={"kind": "full"})

    async def completed() -> bool:
        state = (await house.call("GET", f"{path}/{poll['id']}"))["state"]
        return state in ("completed", "failed")

    await until(completed, seconds=60, what="a full poll")


async def confirm(page: Page, name: str) -> None:
    await page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_an_integration_from_its_registration_to_its_deletion(
    console: Console, house: House, axe: str
) -> None:
    upstream_id = await upstream_of(house)
    page = console.page
    await console.open("integrations/new")
    await page.get_by_role("link", name="Fill in the values of the sandbox").click()
    await expect(page.get_by_label("Integration id at the upstream")).to_have_value("sandbox:demo")
    await page.get_by_label("Name", exact=True).fill("Workday of Acme")
    await page.get_by_label("Integration id at the upstream").fill(upstream_id)
    await page.get_by_label("Base URL").fill(f"http://127.0.0.1:{house.sandbox_port}/v1")
    await page.get_by_label("API key").fill("wrong")
    await page.get_by_label("Poll for changed courses").fill("3600")
    assert await console.violations(axe) == []

    await page.get_by_role("button", name="Check and register").click()
    await expect(page.get_by_text("The upstream refused the check")).to_be_visible()
    assert (await house.call("GET", "/v1/integrations?name=Workday"))["items"] == []
    await page.get_by_label("API key").fill(SANDBOX_KEY)
    await page.get_by_role("button", name="Check and register").click()

    heading = page.get_by_role("heading", level=1)
    await expect(heading).to_contain_text("Workday of Acme")
    await expect(heading).to_contain_text("active")
    await expect(page.get_by_role("link", name="Courses 60")).to_be_visible()
    await expect(page.get_by_role("img", name="1 poll, 0 failed")).to_be_visible()
    await page.get_by_role("button", name="Poll now").click()
    await expect(page.get_by_text("A delta poll is requested")).to_be_visible()
    await expect(page.get_by_role("img", name="2 polls, 0 failed")).to_be_visible()
    await page.get_by_role("button", name="Check connection").click()
    await expect(page.get_by_text("These values work")).to_be_visible()
    await confirm(page, "Done")
    assert await console.violations(axe) == []

    await page.get_by_role("button", name="Edit", exact=True).click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name", exact=True).fill("Workday renamed")
    await dialog.get_by_text("Guards: the limits").click()
    await dialog.get_by_label("Share of deletions that is held").fill("2")
    await dialog.get_by_role("button", name="Save").click()
    share = dialog.get_by_label("Share of deletions that is held")
    await expect(share).to_have_attribute("aria-invalid", "true")
    assert await console.violations(axe) == []
    await share.fill("0.2")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog).to_have_count(0)
    await expect(heading).to_contain_text("Workday renamed")
    await expect(page.get_by_text("more than 10 and 20%")).to_be_visible()

    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_role("heading", name="Pause Workday renamed?")).to_be_visible()
    await confirm(page, "Pause")
    await expect(heading).to_contain_text("paused")
    await page.get_by_role("button", name="Resume").click()
    await confirm(page, "Resume")
    await expect(heading).to_contain_text("active")

    await page.get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("heading", name="Delete Workday renamed?")).to_be_visible()
    await confirm(page, "Delete")
    await expect(heading).to_have_text("Integrations")
    await page.get_by_label("Search by name").fill("Workday renamed")
    await expect(page.get_by_text("No integration matches.")).to_be_visible()


async def test_errors_stand_beside_the_fields_that_they_are_about(console: Console) -> None:
    page = console.page
    await console.open("integrations/new")
    await page.get_by_role("button", name="Check and register").click()
    for label in ("Integration id at the upstream", "Base URL", "API key"):
        field = page.get_by_label(label)
        await expect(field).to_have_attribute("aria-invalid", "true")
        described = (await field.get_attribute("aria-describedby") or "").split()
        assert any(one.endswith("-error") for one in described)
    await expect(page.get_by_role("alert")).to_contain_text("req_")


async def test_who_saves_what_somebody_else_has_changed_meanwhile_is_refused(
    console: Console, house: House
) -> None:
    one = await registered(house, await upstream_of(house, 5))
    page = console.page
    await console.open(f"integrations/{one['id']}")
    await page.get_by_role("button", name="Edit", exact=True).click()
    await house.call("PATCH", f"/v1/integrations/{one['id']}", json={"name": "of somebody else"})
    heading = page.get_by_role("heading", level=1, include_hidden=True)
    await expect(heading).to_contain_text("of somebody else")
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name", exact=True).fill("mine")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("req_")
    found = await house.call("GET", f"/v1/integrations/{one['id']}")
    assert found["name"] == "of somebody else"


async def held(house: House, vanished: int = 20) -> tuple[dict[str, Any], str]:
    """An integration with that many deletions held, and its id at the sandbox."""
    upstream_id = await upstream_of(house)
    one = await registered(house, upstream_id)
    await vanish(house, upstream_id, vanished)
    await full_poll(house, one["id"])
    found = await house.call("GET", f"/v1/integrations/{one['id']}/review")
    assert found["deleted"] == vanished
    return one, upstream_id


async def vanish(house: House, upstream_id: str, count: int) -> None:
    answer = await house.sandbox.post(
        f"/control/integrations/{upstream_id}/changes", json=[{"op": "vanish", "count": count}]
    )
    assert answer.is_success, answer.text


async def test_a_poll_that_completes_during_a_review_does_not_look_failed(
    console: Console, house: House, axe: str
) -> None:
    one, _ = await held(house)
    page = console.page
    await console.open(f"integrations/{one['id']}")
    poll = page.get_by_role("region", name="Polls").get_by_role("row").nth(1)
    await expect(poll.locator(".state.warn")).to_have_text("completed")
    await expect(poll).to_contain_text("20 changes are held for review.")
    await expect(poll.locator(".bad")).to_have_count(0)
    assert await console.violations(axe) == []
    await poll.get_by_role("link", name="Review").click()
    await expect(page.get_by_text("Held since")).to_be_visible()


async def test_a_held_change_has_the_title_of_its_course(console: Console, house: House) -> None:
    upstream_id = await upstream_of(house)
    one = await registered(house, upstream_id, baseline="emit")
    await vanish(house, upstream_id, 20)
    await full_poll(house, one["id"])
    path = f"/v1/events?integration_id={one['id']}&type=course.created&limit=100"
    events = (await house.call("GET", path))["items"]
    courses = [event["data"]["course"] for event in events]
    titles = {revision["title"] for course in courses for revision in course["revisions"]}
    await console.open(f"integrations/{one['id']}/review")
    group = console.page.get_by_role("region", name="Courses that are missing from the upstream")
    links = group.get_by_role("link")
    await expect(links).to_have_count(5)
    await expect(links.filter(has_text="Show the course")).to_have_count(0)
    assert titles.issuperset(await links.all_inner_texts())


async def test_exactly_what_was_reviewed_is_published(
    console: Console, house: House, axe: str
) -> None:
    one, upstream_id = await held(house)
    page = console.page
    await console.open()
    health = page.get_by_role("region", name="Health")
    await expect(health).to_contain_text("held for review. Publish them, accept them silently")
    attention = page.get_by_role("listitem").filter(has_text=one["name"]).filter(has_text="held")
    await attention.get_by_role("link").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"{one['name']} review")
    await expect(page.get_by_role("button", name="Poll now")).to_be_visible()
    await expect(page.get_by_text("The review ends by itself")).to_be_visible()
    group = page.get_by_role("region", name="Courses that are missing from the upstream")
    await expect(group.get_by_role("row")).to_have_count(6)  # five samples and the head
    await page.get_by_role("button", name="Show all 20").click()
    await expect(group.get_by_role("row")).to_have_count(21)
    await expect(page.get_by_text("20 of 60 courses are missing or deleted")).to_be_visible()
    await expect(group.get_by_role("row").filter(has_text="missing")).to_have_count(20)
    assert await console.violations(axe) == []

    await vanish(house, upstream_id, 1)
    await full_poll(house, one["id"])
    for action in ("Publish", "Accept silently"):  # neither is the one to choose
        await expect(page.get_by_role("button", name=action)).not_to_have_class("primary")
    await page.get_by_role("button", name="Publish").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("20 deletions")
    await dialog.get_by_role("button", name="Publish").click()
    await expect(dialog).to_contain_text("The held changes differ from those shown")
    await expect(dialog.get_by_role("button", name="Publish")).to_be_disabled()
    await dialog.get_by_role("button", name="Reload").click()
    await expect(group.get_by_role("row")).to_have_count(22)
    assert (await house.call("GET", f"/v1/integrations/{one['id']}"))["course_count"] == 60

    await page.get_by_role("button", name="Publish").click()
    await confirm(page, "Publish")
    await expect(page.get_by_text("Nothing is held for review.")).to_be_visible()
    assert (await house.call("GET", f"/v1/integrations/{one['id']}"))["course_count"] == 39
    assert len(await deletions(house, one["id"])) == 21
    assert await console.violations(axe) == []


async def deletions(house: House, integration_id: str) -> list[dict[str, Any]]:
    path = f"/v1/events?integration_id={integration_id}&type=course.deleted&limit=100"
    found: list[dict[str, Any]] = (await house.call("GET", path))["items"]
    return found


async def test_what_was_reviewed_is_accepted_silently(console: Console, house: House) -> None:
    one, _ = await held(house)
    page = console.page
    await console.open(f"integrations/{one['id']}/review")
    await page.get_by_role("button", name="Accept silently").click()
    await confirm(page, "Accept silently")
    await expect(page.get_by_text("Nothing is held for review.")).to_be_visible()
    assert (await house.call("GET", f"/v1/integrations/{one['id']}"))["course_count"] == 40
    assert await deletions(house, one["id"]) == []


async def test_a_credential_is_given_another_key(console: Console, house: House) -> None:
    one = await registered(house, await upstream_of(house, 5))
    page = console.page
    await console.open(f"integrations/{one['id']}")
    await page.get_by_role("button", name="Edit the credential").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("New API key").fill("wrong")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog).to_have_count(0)
    await page.get_by_role("button", name="Check connection").click()
    await expect(dialog).to_contain_text("The upstream refused the check")
    await dialog.get_by_role("button", name="Done").click()
    path = f"/v1/credentials/{one['credential_id']}"
    await house.call("PATCH", path, json={"api_key": SANDBOX_KEY})


async def test_a_course_is_found_by_each_of_its_ids(
    console: Console, house: House, axe: str
) -> None:
    async with hostile_upstream() as (url, _):
        one = await registered(house, "workday:ids", base_url=url)
        page = console.page
        await console.open(f"integrations/{one['id']}/courses")
        rows = page.get_by_role("region", name="Courses").get_by_role("row")
        await expect(rows).to_have_count(1 + len(COURSES))
        assert await console.violations(axe) == []
        await expect(page.get_by_text("stores digests of courses")).to_be_visible()
        await expect(page.get_by_role("button", name="Poll now")).to_be_visible()
        find = page.get_by_label("Find by any of its ids")
        for wanted in ("COURSE2", "remote-2", "origin-2"):
            await find.fill(wanted)
            await expect(rows).to_have_count(2)
            await expect(rows.last).to_contain_text("remote-2")
        await find.fill("nothing")
        await expect(page.get_by_text("No course matches.")).to_be_visible()
        await find.fill("")
        await page.get_by_label("State").select_option("quarantined")
        await expect(rows).to_have_count(2)
        await expect(rows.last).to_contain_text("course4")
        await expect(rows.last).to_contain_text("revisions")
        await rows.last.get_by_role("link", name="course4").click()
        await expect(page.get_by_role("heading", name="Course course4")).to_be_visible()
        assert await console.violations(axe) == []


async def test_hostile_data_is_text(console: Console, house: House, axe: str) -> None:
    dialogs: list[str] = []
    console.page.on("dialog", lambda one: dialogs.append(one.message))
    async with hostile_upstream() as (url, answers):
        one = await registered(
            house,
            "workday:hostile",
            base_url=url,
            name=SCRIPT,
            external_id=BIDI,
            labels={"tenant": SCRIPT[:60]},
            baseline="emit",
        )
        page = console.page
        await console.open()
        feed = page.get_by_role("listitem")
        await expect(feed.filter(has_text=SCRIPT).first).to_be_visible()
        await expect(feed.filter(has_text="abc\\u202egnp.exe").first).to_be_visible()
        await expect(feed.filter(has_text=f"{'x' * 300}…").first).to_be_visible()
        assert await console.violations(axe) == []

        answers["error"] = {
            "code": "PLATFORM.INTEGRATION_PERMISSION_MISSING",
            "title": SCRIPT,
            "message": f"{SCRIPT} {LONG}",
            "log_url": JAVASCRIPT,
        }
        await full_poll(house, one["id"])
        for path in (
            "integrations",
            f"integrations/{one['id']}",
            f"integrations/{one['id']}/courses",
        ):
            await console.open(path)
            await expect(page.get_by_text(SCRIPT).first).to_be_visible()
            assert await page.locator("main a[href^='javascript']").count() == 0
            assert await page.locator("main script, main img").count() == 0
            assert await page.title() != "stolen"
            assert await console.violations(axe) == []
        await page.get_by_role("link", name="Polls").click()
        await page.get_by_role("button", name="Delete").click()
        await expect(page.get_by_role("heading", name=f"Delete {SCRIPT}?")).to_be_visible()
        await confirm(page, "Delete")
    assert dialogs == []


async def test_a_reader_sees_all_and_changes_nothing(
    console: Console, house: House, make_key
) -> None:
    one, _ = await held(house)
    token = await make_key("read")
    for path in ("integrations", f"integrations/{one['id']}", f"integrations/{one['id']}/review"):
        await console.open(path, token=token)
        await expect(console.page.get_by_text(one["name"]).first).to_be_visible()
        buttons = console.page.locator("main").get_by_role("button")
        names = {await button.inner_text() for button in await buttons.all()}
        assert all(name == "" or name.startswith("Show all") for name in names), names


async def test_a_subscriber_sees_the_integrations_that_are_granted_to_it(
    console: Console, house: House, make_key, axe: str
) -> None:
    mine = await registered(house, await upstream_of(house, 5), labels={"tenant": "a"})
    other = await registered(house, await upstream_of(house, 5), labels={"tenant": "b"})
    token = await make_key("subscriber", labels={"tenant": "a"})
    page = console.page
    await console.open("integrations", token=token)
    await expect(page.get_by_role("row").filter(has_text=mine["name"])).to_contain_text("active")
    await expect(page.get_by_text(other["name"])).to_have_count(0)
    assert await console.violations(axe) == []
    for path in ("access", "system", f"integrations/{mine['id']}", "integrations/new"):
        await console.open(path, token=token)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Not found")
    operators = ("/v1/integrations", "/v1/status", "/v1/api-keys", "/v1/audit", "/v1/history")
    assert not any(one in url for url in console.requested for one in operators)
