"""`make site`: the site of the documentation, and how the API serves it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from litestar.testing import AsyncTestClient

from deploy.site import ROOT, build
from service.app import create_app
from service.console.routes import STATIC
from service.domain.errors import SettingsError
from service.settings import Settings

LOADED = re.compile(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="([^"]+)"')
SETTINGS = Settings(admin_token="x" * 16, encryption_keys=(bytes(32),), root_path="/prefix")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("built") / "site"
    assert build(site) == ""
    return site


def test_a_page_loads_only_files_of_the_site(site: Path) -> None:
    for page in site.rglob("*.html"):
        for target in LOADED.findall(page.read_text()):
            assert "://" not in target, (page.name, target)
            # A page that is not found may be at any address, so its links begin at the root.
            if page.name != "404.html":
                assert (page.parent / target.partition("?")[0]).is_file(), (page.name, target)


def test_it_has_every_page_and_a_search_index(site: Path) -> None:
    index = (site / "search/search_index.json").read_text()
    for name in ("index", "architecture", "decisions/index", "changelog"):
        assert (site / f"{name}.html").is_file()
        assert f'"location":"{name}.html"' in index


async def test_the_api_serves_it_and_links_to_it(site: Path) -> None:
    settings = msgspec.structs.replace(SETTINGS, docs_dir=site)
    async with AsyncTestClient(create_app(settings, open_services=_nothing)) as client:
        home = await client.get("/prefix/docs", follow_redirects=False)
        assert (home.status_code, home.headers["location"]) == (302, "/prefix/docs/index.html")
        page = await client.get("/prefix/docs/decisions/index.html")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "script-src 'self' 'sha256-" in policy
        assert "unsafe-eval" not in policy
        for missing in ("/docs/none.html", "/docs/%2e%2e/pyproject.toml", "/docs/decisions"):
            assert (await client.get(missing)).status_code == 404
        assert 'data-docs="docs/index.html"' in (await client.get("/console")).text
        document = (await client.get("/schema/openapi.json")).json()
        assert "(/prefix/docs/index.html)" in document["info"]["description"]


def test_the_console_names_pages_that_exist() -> None:
    scripts = "".join(path.read_text() for path in STATIC.rglob("pages/**/*.js"))
    named = set(re.findall(r'doc="([^"]+)"|\["\w+", \w+, "([^"]+)"\]', scripts))
    assert len(named) > 5
    assert [one for one in named if not (ROOT / f"docs/{one[0] or one[1]}.md").is_file()] == []


async def test_without_it_nothing_links_to_it() -> None:
    async with AsyncTestClient(create_app(SETTINGS, open_services=_nothing)) as client:
        assert (await client.get("/docs/index.html")).status_code == 404
        assert 'data-docs=""' in (await client.get("/console")).text
        assert (
            "/docs/" not in (await client.get("/schema/openapi.json")).json()["info"]["description"]
        )


def test_a_folder_that_is_no_site_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="make site"):
        create_app(msgspec.structs.replace(SETTINGS, docs_dir=tmp_path))


class _nothing:  # noqa: N801 - stands in for a function
    def __init__(self, _settings: Settings) -> None: ...

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_error: object) -> None: ...
