"""The console behind a path prefix, before a service in which there is nothing yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.browser import Tab, browser
from tests.contract.conftest import TOKEN, Api

pytestmark = pytest.mark.slow  # a browser

PREFIX = "/behind/console"  # ends like the console's own path
EMPTY = {
    "": ("Overview", "Start here", "no scheduler is running"),
    "/integrations": ("Integrations", "No integration is registered yet.", "Register an"),
    "/access": ("API keys", "There are no API keys.", "Create an API key"),
    "/system": ("System", "No process is running.", "coursewire worker"),
}


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with browser(tmp_path) as tab:
        yield tab


@pytest.mark.parametrize("api", [{"COURSEWIRE_ROOT_PATH": PREFIX}], indirect=True, ids=["prefix"])
def test_behind_a_prefix_everything_is_asked_for_below_it(api: Api, tab: Tab) -> None:
    for path, (heading, *texts) in EMPTY.items():
        tab.open("about:blank")
        tab.open(f"{api.url}{PREFIX}/console{path}#token={TOKEN}")
        shown = tab.run(
            "await find('h1'); while (document.querySelector('.loading'))"
            "  await new Promise((then) => setTimeout(then, 20));"
            "return document.body.innerText;"
        )
        assert heading in shown
        assert all(text.lower() in shown.lower() for text in texts), shown
    tab.run("(await find(\"a[href$='/console/integrations']\")).click(); await find('.filters')")
    assert tab.run("return location.pathname") == f"{PREFIX}/console/integrations"
    asked = {url for url in tab.requested if not url.startswith(("data:", "about:"))}
    assert f"{api.url}{PREFIX}/v1/status" in asked
    assert all(url.startswith(f"{api.url}{PREFIX}/") for url in asked), asked
    assert tab.complaints == []
