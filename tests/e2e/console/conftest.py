"""The console in a real browser, before the whole service as real processes.

All tests of this folder share one service and one browser; each has a tab of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

from tests.e2e.conftest import ADMIN_TOKEN, House
from tests.programs import required_program

WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 800}
expect.set_options(timeout=20_000)
# What Chromium logs of an answer that the API gives on purpose.
EXPECTED = "Failed to load resource: the server responded with a status of 4"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    house = House(tmp_path_factory.mktemp("console"), courses=60)
    await house.start()
    yield house
    await house.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        path = required_program("chromium")
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


class Console:
    """A tab, and what it asked for and complained of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.requested: list[str] = []
        self.complaints: list[str] = []
        page.on("request", self._asked)
        page.on("console", self._logged)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _asked(self, request: Request) -> None:
        self.requested.append(request.url)

    def _logged(self, message: ConsoleMessage) -> None:
        if not message.text.startswith(EXPECTED):
            self.complaints.append(message.text)

    async def open(self, path: str = "", *, token: str = ADMIN_TOKEN) -> None:
        """Opens a page of the console, signed in by the address."""
        slash = "/" if path else ""
        await self.page.goto("about:blank")
        await self.page.goto(f"{self.url}/console{slash}{path}#token={token}")
        await self.ready()

    async def ready(self) -> None:
        """Waits until everything is loaded."""
        await self.page.locator("h1").wait_for()
        await expect(self.page.locator(".loading")).to_have_count(0)

    async def stored(self) -> list[Any]:
        """What the console left in the browser."""
        return [
            await self.page.evaluate("({ ...sessionStorage, ...localStorage })"),
            await self.page.evaluate("document.cookie"),
        ]

    async def violations(self, axe: str) -> list[str]:
        """What axe-core finds wrong with the page, light and wide, then dark and narrow. What moves
        is looked at where it begins."""
        await self.page.evaluate(axe)
        moving = "document.getAnimations()"
        await self.page.evaluate(
            f"{moving}.forEach((one) => {{ one.pause(); one.currentTime = 0; }})"
        )
        found = []
        for theme, size in (("light", WIDE), ("dark", NARROW)):
            await self.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            await self.page.set_viewport_size(size)  # type: ignore[arg-type]
            result = await self.page.evaluate("axe.run({ preload: false })")
            found += [
                f"{theme} {one['id']}: {node['html']} {node['failureSummary']}"
                for one in result["violations"]
                for node in one["nodes"]
            ]
            sideways = "document.documentElement.scrollWidth > innerWidth"
            if await self.page.evaluate(sideways):
                found.append(f"{theme}: scrolls sideways")
        await self.page.evaluate(f"{moving}.forEach((one) => one.play())")
        await self.page.set_viewport_size(WIDE)  # type: ignore[arg-type]
        return found


@pytest.fixture(scope="session")
def axe(javascript_packages: Path) -> str:
    return (javascript_packages / "axe-core/axe.min.js").read_text()


@pytest_asyncio.fixture(loop_scope="session")
async def console(house: House, browser: Browser) -> AsyncIterator[Console]:
    """A tab that may neither complain nor ask another host."""
    url = f"http://127.0.0.1:{house.api_port}"
    async with await browser.new_context(viewport=WIDE) as context:  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        console = Console(await context.new_page(), url)
        yield console
    assert console.complaints == []
    assert [one for one in console.requested if not one.startswith((f"{url}/", "data:"))] == []


@pytest_asyncio.fixture(loop_scope="session")
async def make_key(house: House):
    """Makes an API key of a scope and returns its token."""

    async def make(scope: str, **fields: Any) -> str:
        body = {"name": f"console {scope}", "scope": scope, **fields}
        return (await house.call("POST", "/v1/api-keys", json=body))["token"]

    return make
