"""Writes the pictures of docs/: the console, in Chromium, while the demo runs. Run by
`make screenshots`."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
EVENTS = 120  # that the pictures show at least: some minutes, so that the plots have points
_LINK = re.compile(r"(https?://\S+/console)#token=(\S+)")
_WAIT_MS = 15_000

# By picture: the page, the theme, the width, and what is clicked before it is taken.
_PICTURES: tuple[tuple[str, str, Literal["light", "dark"], int, tuple[str, ...]], ...] = (
    ("overview", "", "light", 1400, ()),
    ("overview-dark", "", "dark", 1400, ()),
    ("integration", "integrations", "light", 1400, ("main table tbody a",)),
    ("subscription", "subscriptions", "light", 1400, ("main table tbody a",)),
    ("events", "events", "light", 1400, ()),
)


@contextmanager
def demo() -> Iterator[tuple[str, str]]:
    """The address of the console of a running demo that has reported EVENTS, and a token.

    Raises RuntimeError if the demo ends first.
    """
    command = [sys.executable, "-u", "-m", "service.cli", "demo"]
    with subprocess.Popen(  # noqa: S603 - a command of this project
        command, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield _started(process)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def _started(process: subprocess.Popen[str]) -> tuple[str, str]:
    link, events = None, 0
    for line in process.stdout or ():
        link = link or _LINK.search(line)
        events += "✓ event" in line
        if link is not None and events >= EVENTS:
            return link[1], link[2]
    raise RuntimeError("the demo ended before there was enough to show")


def main() -> int:
    """Writes the pictures."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.stderr.write("chromium is not on the path: install it (Debian: chromium)\n")
        return 1
    IMAGES.mkdir(exist_ok=True)
    with demo() as (console, token), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, address, theme, width, clicks in _PICTURES:
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=theme, timezone_id="UTC"
            )
            page = context.new_page()
            page.set_default_timeout(_WAIT_MS)
            page.goto(f"{console}/{address}#token={token}")
            _settled(page)
            for selector in clicks:
                page.locator(selector).first.click()
                _settled(page)
            page.screenshot(path=IMAGES / f"console-{name}.png", full_page=width < 600)
            context.close()
            sys.stdout.write(f"docs/images/console-{name}.png is written\n")
        browser.close()
    return 0


def _settled(page: Page) -> None:
    page.wait_for_selector("h1")
    page.wait_for_selector(".loading", state="detached")
    page.wait_for_timeout(500)  # until the plots stand


if __name__ == "__main__":
    sys.exit(main())
