"""The documentation as the API serves it, in a real browser: its policy lets the search work, and
it asks no other host."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.site import SITE, build
from tests.contract.browser import browser
from tests.contract.conftest import Api

pytestmark = pytest.mark.slow  # a browser

PREFIX = "/behind/a/proxy"
SERVED = {"COURSEWIRE_DOCS_DIR": str(SITE), "COURSEWIRE_ROOT_PATH": PREFIX}
FOUND = "return (await find('#properdocs-search-results a')).href"
OVERFLOW = "return document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture(scope="module", autouse=True)
def site() -> None:
    assert build(SITE) == ""


@pytest.mark.parametrize("api", [SERVED], indirect=True, ids=["served"])
def test_pages_can_be_searched_and_ask_no_other_host(api: Api, tmp_path: Path) -> None:
    docs = f"{api.url}{PREFIX}/docs/"
    with browser(tmp_path) as tab:
        for width in (1400, 390):
            tab.open(f"{docs}index.html?q=backfill", width=width)
            assert tab.run(FOUND).startswith(docs)
            for page in ("settings", "receiving-events", "operations/runbooks"):
                tab.open(f"{docs}{page}.html", width=width)
                assert tab.run(OVERFLOW) <= 0, (page, width)
        assert [one for one in tab.requested if not one.startswith((docs, "data:", "about:"))] == []
        assert [one for one in tab.complaints if "Lunr" not in one] == []
