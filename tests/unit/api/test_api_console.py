from __future__ import annotations

import hashlib
import json
import re

import msgspec
import pytest
from litestar.testing import AsyncTestClient

from service.app import create_app
from service.console.routes import STATIC
from service.domain.courses.tracked_paths import TRACKED_PATHS
from service.domain.delivery.event_types import COURSE_EVENT_TYPES, OPERATIONAL_EVENT_TYPES
from tests.programs import JAVASCRIPT

VENDOR = STATIC / "vendor"
PREFIX = "/behind/console"


def linked(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="([^"]+)"', page)


async def test_the_page_runs_files_of_this_host_and_nothing_else(anonymous) -> None:
    page = await anonymous.get("/console")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert not re.search(r"<script[^>]*>[^<]|<style|style=|//", page.text)
    (base,) = {one.split("/app.js")[0] for one in linked(page.text) if one.endswith("/app.js")}
    assets = [
        f"{base}/{path.relative_to(STATIC).as_posix()}"
        for path in STATIC.rglob("*")
        if path.is_file()
    ]
    assert len(assets) > 20
    for asset in [None, *assets]:
        answer = page if asset is None else await anonymous.get(f"/{asset}")
        assert answer.status_code == 200, asset
        directives = dict(
            one.strip().split(" ", 1)
            for one in answer.headers["content-security-policy"].split(";")
        )
        assert directives.pop("img-src") == "'self' data:"
        assert {directives.pop(f"{name}-src") for name in ("script", "style", "connect")} == {
            "'self'"
        }
        assert directives.keys() == {
            *("default-src", "base-uri", "form-action", "frame-ancestors"),
        }
        assert set(directives.values()) == {"'none'"}
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


async def test_files_are_kept_by_caches_under_the_digest_of_their_content(
    anonymous, problem
) -> None:
    page = await anonymous.get("/console")
    script = next(one for one in linked(page.text) if one.endswith("app.js"))
    answer = await anonymous.get(f"/{script}")
    assert "immutable" in answer.headers["cache-control"]
    assert "max-age=31536000" in answer.headers["cache-control"]
    files = sorted(path for path in STATIC.rglob("*") if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    assert script == f"console/assets/{digest[:16]}/app.js"
    for missing in (script.replace("app.js", "none.js"), "console/assets/0123456789abcdef/app.js"):
        problem(await anonymous.get(f"/{missing}"), "not-found", 404)


@pytest.mark.parametrize(
    ("path", "to_assets"),
    [
        ("/console", "console/assets/"),
        ("/console/", "assets/"),
        ("/console/integrations", "assets/"),
        ("/console/integrations/int_a", "../assets/"),
        ("/console/integrations/int_a/courses", "../../assets/"),
        ("/console/events/a%2Fb", "../assets/"),
    ],
)
@pytest.mark.parametrize("prefix", ["", PREFIX])
async def test_each_address_below_it_is_the_page_with_relative_links(
    settings, path, to_assets, prefix
) -> None:
    settings = msgspec.structs.replace(settings, root_path=PREFIX)
    async with AsyncTestClient(create_app(settings, open_services=_nothing)) as client:
        page = await client.get(prefix + path)
        assert page.status_code == 200
        assets = [one for one in linked(page.text) if one.endswith("app.js")]
        assert all(one.startswith(to_assets) for one in assets), assets
        script = page.request.url.join(assets[0]).path
        assert script.startswith(f"{prefix}/console/assets/")
        assert (await client.get(script)).status_code == 200


async def test_it_can_be_switched_off(settings, problem) -> None:
    settings = msgspec.structs.replace(settings, console=False)
    async with AsyncTestClient(create_app(settings, open_services=_nothing)) as client:
        for path in ("/console", "/console/integrations"):
            problem(await client.get(path), "not-found", 404)


async def test_vendored_files_are_those_that_were_published(javascript_packages) -> None:
    manifest = json.loads((STATIC.parent / "vendored.json").read_text())
    lock = json.loads((JAVASCRIPT / "package-lock.json").read_text())["packages"]
    names = set()
    for package, vendored in manifest.items():
        locked = lock[f"node_modules/{package}"]
        for name in ("version", "license", "integrity"):
            assert vendored[name] == locked[name]
        for name, file in vendored["files"].items():
            names.add(name)
            for path in (VENDOR / name, javascript_packages / package / file["published"]):
                assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"], path
    assert {path.name for path in VENDOR.iterdir()} == names


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in STATIC.rglob("*") if path.is_file()) <= 250_000


def test_what_a_subscription_can_choose_from_is_what_the_api_accepts() -> None:
    """The form repeats the names of event types and of tracked paths."""
    form = (STATIC / "pages/subscriptions/form.js").read_text()

    def names(start: str, end: str) -> list[str]:
        return re.findall(r'"([a-z_.]+)"', form.partition(start)[2].partition(end)[0])

    plain, of_revisions = names("CHANGED_PATHS = [", "...["), names("...[", "].map(")
    assert {*names("EVENT_TYPES = [", "]")} == {*COURSE_EVENT_TYPES, *OPERATIONAL_EVENT_TYPES}
    assert [*plain, *(f"revisions.{one}" for one in of_revisions)] == [*TRACKED_PATHS]


class _nothing:  # noqa: N801 - stands in for a function
    def __init__(self, _settings):
        pass

    async def __aenter__(self):
        return None

    async def __aexit__(self, *_details):
        return None
