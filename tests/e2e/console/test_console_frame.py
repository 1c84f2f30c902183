"""The console's frame: signing in and out, moving about, and what it shows of all is well."""

from __future__ import annotations

import pytest
from playwright.async_api import Route, expect

from tests.e2e.conftest import ADMIN_TOKEN, House
from tests.e2e.console.conftest import NARROW, Console

pytestmark = [
    pytest.mark.slow,  # the whole service and a browser
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.xdist_group("console"),
]


async def test_a_token_of_the_address_signs_in_and_is_gone_from_it(console: Console) -> None:
    await console.open()
    page = console.page
    assert page.url == f"{console.url}/console"
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    await expect(page.get_by_text("Signed in as administrator")).to_be_visible()
    assert await console.stored() == [{}, ""]
    await page.go_back()
    await page.go_forward()
    assert "token" not in page.url


async def test_a_person_signs_in_and_out_and_leaves_nothing_behind(console: Console) -> None:
    page = console.page
    await page.goto(f"{console.url}/console/integrations?state=error")
    token = page.get_by_label("Token")
    await expect(token).to_be_focused()
    await token.fill("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("This token is not valid")).to_be_visible()
    await expect(token).to_have_attribute("aria-invalid", "true")
    await token.fill(f"Bearer {ADMIN_TOKEN}")
    await page.get_by_label("Stay signed in").check()
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Integrations")
    assert page.url.endswith("/console/integrations?state=error")
    await page.reload()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Integrations")
    await page.get_by_label("Colours").select_option("dark")
    assert await page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Token")).to_be_visible()
    assert await console.stored() == [{}, ""]
    await page.reload()
    await expect(page.get_by_label("Token")).to_be_visible()


async def test_an_answer_that_comes_before_the_first_frame_is_shown(console: Console) -> None:
    # The browser paints nothing until the test lets it, as on a machine that is busy.
    await console.page.add_init_script("""
        const frames = [], { setTimeout } = window;
        window.requestAnimationFrame = (draw) => frames.push(draw);
        window.setTimeout = (run, after, ...given) => setTimeout(run, 2000 + after, ...given);
        window.paint = () => frames.splice(0).forEach((draw) => draw(performance.now()));
    """)
    await console.page.goto(f"{console.url}/console/integrations#token={ADMIN_TOKEN}")
    await expect(console.page.get_by_text("Signed in as administrator")).to_be_visible()
    await console.page.evaluate("paint()")
    await expect(console.page.get_by_role("heading", level=1)).to_have_text("Integrations")


async def test_who_does_not_ask_for_it_is_not_remembered(console: Console) -> None:
    await console.open("integrations")
    assert await console.stored() == [{}, ""]
    await console.page.reload()
    await expect(console.page.get_by_label("Token")).to_be_visible()


async def test_a_token_that_is_revoked_leads_to_the_sign_in_with_the_reason(
    console: Console, house: House
) -> None:
    key = await house.call("POST", "/v1/api-keys", json={"name": "k", "scope": "read"})
    await console.open(token=key["token"])
    await expect(console.page.get_by_text("Signed in as reader")).to_be_visible()
    await house.call("DELETE", f"/v1/api-keys/{key['id']}")
    await expect(console.page.get_by_text("The token is no longer valid")).to_be_visible()


async def test_a_key_for_metrics_is_told_that_it_cannot_enter(console: Console, make_key) -> None:
    await console.page.goto(f"{console.url}/console#token={await make_key('metrics')}")
    await expect(console.page.get_by_text("authorizes only /metrics")).to_be_visible()


async def test_pages_are_reached_by_keyboard_and_the_back_button(console: Console) -> None:
    await console.open()
    page = console.page
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the content")).to_be_focused()
    await page.get_by_role("link", name="Integrations", exact=True).press("Enter")
    heading = page.get_by_role("heading", level=1)
    await expect(heading).to_have_text("Integrations")
    await expect(heading).to_be_focused()
    assert await page.title() == "Integrations · Coursewire"
    await page.go_back()
    await expect(heading).to_have_text("Overview")
    await console.page.goto(f"{console.url}/console/nothing/here#token={ADMIN_TOKEN}")
    await expect(heading).to_have_text("Not found")


async def test_the_menu_of_a_narrow_screen_opens(console: Console) -> None:
    await console.page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    await console.open()
    link = console.page.get_by_role("link", name="Integrations", exact=True)
    await expect(link).to_be_hidden()
    await console.page.get_by_role("button", name="Menu").click()
    await link.click()
    await expect(console.page.get_by_role("heading", level=1)).to_have_text("Integrations")
    await expect(link).to_be_hidden()


async def show_registered(console: Console, integrations: int, subscriptions: int) -> None:
    """Lets the API report these numbers, all of them active."""

    async def status(route: Route) -> None:
        found = await (await route.fetch()).json()
        for name, number in (("integrations", integrations), ("subscriptions", subscriptions)):
            found[name] = {**dict.fromkeys(found[name], 0), "active": number}
            found["totals"][name] = number
        await route.fulfill(json=found)

    await console.page.route("**/v1/status", status)


async def test_the_overview_says_that_all_is_well(console: Console, axe: str) -> None:
    await show_registered(console, 1, 1)
    await console.open()
    await expect(console.page.get_by_role("heading", name="Everything works")).to_be_visible()
    assert await console.violations(axe) == []


@pytest.mark.parametrize(
    ("integrations", "subscriptions", "title", "step"),
    [
        (0, 0, "No integration is registered yet", "Register an integration"),
        (1, 0, "Nobody is subscribed yet", "Create a subscription"),
    ],
)
async def test_the_overview_names_the_first_step(
    console: Console, axe: str, integrations: int, subscriptions: int, title: str, step: str
) -> None:
    await show_registered(console, integrations, subscriptions)
    await console.open()
    health = console.page.get_by_role("region", name="Health")
    await expect(health.get_by_role("heading")).to_have_text(title)
    assert await console.violations(axe) == []
    await health.get_by_role("link", name=step).click()
    await expect(console.page.get_by_role("heading", level=1)).to_have_text(step)


async def test_the_overview_says_what_to_do(console: Console, house: House) -> None:
    await show_registered(console, 1, 1)
    await house.call("POST", "/v1/pause", json={"what": "polling"})
    await console.open()
    reason = console.page.get_by_role("listitem").filter(has_text="Polling has been paused since")
    await expect(reason).to_contain_text("Resume it on the System page")
    await house.call("POST", "/v1/resume", json={"what": "polling"})
    await expect(console.page.get_by_role("heading", name="Everything works")).to_be_visible()


async def test_the_overview_draws_what_the_history_tells(
    console: Console, house: House, axe: str
) -> None:
    async def history(route: Route) -> None:
        times = [1_795_766_400 + 60 * n for n in range(60)]
        series = [
            ("events_total", "counter", {"type": "course.updated"}, 4),
            ("events_total", "counter", {"type": "integration.error"}, 1),
            ("deliveries_total", "counter", {"state": "delivered"}, 5),
            ("detection_to_receipt_seconds", "quantile", {"quantile": "0.99"}, 0.25),
            ("deliveries_pending", "gauge", {}, 7),
        ]
        shown = [
            {"name": name, "kind": kind, "labels": labels, "unit": "", "values": [None, *[n] * 59]}
            for name, kind, labels, n in series
        ]
        await route.fulfill(json={"times": times, "minutes": [0, *[1] * 59], "series": shown})

    one = await house.call("POST", "/v1/subscriptions", json={"url": "http://127.0.0.1:9/"})
    await console.page.route("**/v1/history?*", history)
    await console.open()
    page = console.page
    for label in (
        "Events. In all: course.updated 236, others 59",
        "Deliveries that ended. In all: delivered 295",
        "From detection to receipt. Latest: 99th percentile 250 ms",
        "Pending deliveries. Latest: pending 7",
    ):
        plot = page.get_by_role("img", name=label)
        await expect(plot.locator("svg")).to_be_visible()
        await expect(plot.locator("path[d*='NaN']")).to_have_count(0)
    events = page.get_by_role("img", name="Events")
    await events.focus()
    for _ in range(60):
        await page.keyboard.press("ArrowLeft")
    key = page.get_by_role("figure").filter(has=events).get_by_role("paragraph")
    await expect(key).to_contain_text(
        "course.updated \N{EN DASH}"
    )  # nothing is known of the first minute
    await events.hover()
    await expect(key).to_contain_text("course.updated 4")
    assert await console.violations(axe) == []
    await page.get_by_label("Time").select_option("week")
    await expect(page).to_have_url(f"{console.url}/console?range=week")
    await house.call("DELETE", f"/v1/subscriptions/{one['id']}")


@pytest.mark.parametrize("path", ["", "integrations", "integrations?name=nothing", "nowhere"])
async def test_nothing_stands_in_the_way_of_anybody(console: Console, axe: str, path: str) -> None:
    await console.open(path)
    assert await console.violations(axe) == []


async def test_the_sign_in_page_is_for_everybody(console: Console, axe: str) -> None:
    await console.page.goto(f"{console.url}/console")
    await console.page.get_by_label("Token").wait_for()
    assert await console.violations(axe) == []
