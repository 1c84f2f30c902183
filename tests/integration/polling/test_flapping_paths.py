"""Courses that change at every poll: the integration names the path and the cure."""

from __future__ import annotations

import msgspec
import pytest

from tests.integration.conftest import new_integration
from tests.integration.polling.shelf import Shelf

URL = "revisions.remote_url"
SIGNED = [f"s{number:02}" for number in range(50)]
OTHERS = [f"o{number:03}" for number in range(150)]


def revision(remote_url: str, title: str = "T") -> dict:
    return {
        "id": "r1",
        "remote_id": None,
        "title": title,
        "description": None,
        "remote_url": remote_url,
        "status": "ACTIVE",
        "remote_created_at": None,
        "remote_deleted_at": None,
    }


class Signing(Shelf):
    """Signs the URLs of some courses anew whenever it shows them."""

    signatures = 0

    def page_of(self, records, following=None):
        signed = []
        for record in records:
            self.signatures += 1
            url = f"https://cdn.example/{record['id']}?sig={self.signatures}"
            signed.append(
                {**record, "revisions": [revision(url)]} if record["id"] in SIGNED else record
            )
        return super().page_of(signed, following)


@pytest.fixture
async def shelf(scripted):
    shelf = Signing(scripted)
    shelf.put(*SIGNED, *OTHERS)
    return shelf


@pytest.mark.parametrize("kinds", [("full",), ("delta",), ("full", "delta")])
async def test_a_signed_url_is_named_with_its_cure_until_that_is_applied(
    context, scripted, shelf, kinds
):
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    for at in range(3):
        assert (await integration.shown()).notices == []
        await integration.poll(kinds[at % len(kinds)])
    shown = await integration.shown()
    assert (shown.state, shown.error) == ("active", None)
    (notice,) = shown.notices
    assert notice.code == "flapping_path"
    assert f"`{URL}`" in notice.message
    assert "50 courses" in notice.message
    assert "ignore_paths" in notice.message

    await integration.services.integrations.update(
        integration.id, lambda old: msgspec.structs.replace(old, ignore_paths=(URL,))
    )
    assert (await integration.shown()).notices == []
    events = len(await integration.events())
    for _ in range(3):
        await integration.poll("full")
    assert len(await integration.events()) == events
    assert (await integration.state()).observed.flapping == ()


async def test_it_is_found_though_each_poll_takes_several_turns(
    context, scripted, shelf, monkeypatch
):
    shelf.put(*(f"p{number:03}" for number in range(400)))
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    monkeypatch.setattr("workers.polling.turn_budget.TURN_SECONDS", 0.0)
    for _ in range(3):
        await integration.services.integrations.request_poll(integration.id, "full", 1)
        while (await integration.state()).requested is not None:
            await integration.turn()
    (notice,) = (await integration.shown()).notices
    assert notice.code == "flapping_path"


async def test_busy_courses_are_nothing_to_speak_of(context, scripted):
    shelf = Shelf(scripted)
    shelf.put(*SIGNED, *OTHERS)
    integration = await new_integration(context, scripted.base_url)
    await integration.turn()
    together = [*SIGNED, *OTHERS]
    for at in range(8):
        for course_id in together[at * 24 : at * 24 + 24]:  # others each time
            shelf.put(course_id, revisions=[revision("https://a.example", title=f"T{at}")])
        for course_id in together[:10]:  # few, each time
            shelf.put(course_id, origin_id=f"o{at}")
        await integration.poll("full" if at % 2 else "delta")
        assert (await integration.shown()).notices == []
