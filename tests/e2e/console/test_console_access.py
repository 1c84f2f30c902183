"""API keys, the audit trail and the system in the console."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.e2e.conftest import House
from tests.e2e.console.conftest import Console

pytestmark = [
    pytest.mark.slow,  # the whole service and a browser
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.xdist_group("console"),
]


async def test_a_key_from_its_creation_to_its_revocation(
    console: Console, house: House, axe: str
) -> None:
    page = console.page
    await console.open("access")
    await page.get_by_role("button", name="Create an API key").first.click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("Portal of Acme")
    assert await console.violations(axe) == []
    await dialog.get_by_role("button", name="Create").click()
    await expect(dialog.get_by_role("alert")).to_be_visible()  # it would see nothing
    await dialog.get_by_label("Labels").fill("tenant=acme")
    await dialog.get_by_role("button", name="Create").click()
    token = dialog.get_by_role("region", name="Token")
    await expect(token).to_be_visible()
    assert await console.violations(axe) == []
    first = await token.inner_text()
    (key,) = [
        one
        for one in (await house.call("GET", "/v1/api-keys?limit=500"))["items"]
        if one["name"] == "Portal of Acme"
    ]
    assert (key["scope"], key["labels"]) == ("subscriber", {"tenant": "acme"})
    asked = {"authorization": f"Bearer {first}"}
    assert (await house.api.get("/v1/subscriptions", headers=asked)).status_code == 200
    await dialog.get_by_role("button", name="I have copied it").click()

    row = page.get_by_role("row").filter(has_text="Portal of Acme")
    await expect(row).to_contain_text("tenant=acme")
    assert await console.violations(axe) == []
    await row.get_by_role("button", name="Edit").click()
    await dialog.get_by_label("Name").fill("Portal renamed")
    await dialog.get_by_label("Expires").fill("2090-01-01T10:00")
    await dialog.get_by_role("button", name="Save").click()
    row = page.get_by_role("row").filter(has_text="Portal renamed")
    await expect(row).to_contain_text("2090")
    await row.get_by_role("button", name="New token").click()
    await dialog.get_by_role("button", name="Create a new token").click()
    await expect(token).to_be_visible()
    assert await token.inner_text() != first
    assert (await house.api.get("/v1/subscriptions", headers=asked)).status_code == 401
    await dialog.get_by_role("button", name="I have copied it").click()
    await row.get_by_role("button", name="Revoke").click()
    await expect(dialog.get_by_role("heading", name="Revoke Portal renamed?")).to_be_visible()
    await dialog.get_by_role("button", name="Revoke").click()
    await expect(row).to_have_count(0)

    await page.get_by_role("link", name="Audit trail").click()
    await page.get_by_label("Id or request").fill(key["id"])
    rows = page.get_by_role("region", name="Audit trail").get_by_role("row")
    await expect(rows).to_have_count(5)
    await page.get_by_label("Action").fill("updated")
    await expect(rows).to_have_count(2)
    await expect(rows.last).to_contain_text("expires_at")
    assert "object=key_" in page.url
    assert await console.violations(axe) == []
    await page.get_by_label("Who").fill("nobody")
    await expect(page.get_by_text("No entry matches.")).to_be_visible()


async def test_a_reader_sees_keys_and_no_audit_trail(console: Console, make_key) -> None:
    await console.open("access/audit", token=await make_key("read"))
    await expect(console.page.get_by_role("heading", level=1)).to_have_text("API keys")
    assert not any("/v1/audit?" in url and "limit=500" in url for url in console.requested)
    await expect(console.page.locator("main").get_by_role("button", name="Revoke")).to_have_count(0)


@pytest.mark.parametrize("what", ["polling", "delivery"])
async def test_half_of_the_service_is_paused_and_resumed(
    console: Console, house: House, axe: str, what: str
) -> None:
    page = console.page
    await console.open("system")
    await expect(page.get_by_role("row").filter(has_text="scheduler")).to_be_visible()
    await page.get_by_role("button", name=f"Pause {what}").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("No changes are lost")
    await dialog.get_by_role("button", name=f"Pause {what}").click()
    await expect(dialog).to_have_count(0)
    await expect(page.get_by_text("Coursewire works in part")).to_be_visible()
    assert (await house.call("GET", "/v1/status"))["paused"][what] is not None
    assert await console.violations(axe) == []
    await page.get_by_role("button", name=f"Resume {what}").click()
    await dialog.get_by_role("button", name=f"Resume {what}").click()
    await expect(page.get_by_text("Coursewire works in part")).to_have_count(0)
    assert (await house.call("GET", "/v1/status"))["paused"][what] is None
