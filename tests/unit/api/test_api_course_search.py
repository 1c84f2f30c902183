"""Courses found by their other ids and their state."""

from __future__ import annotations

import pytest

from service.domain.courses.fingerprint import Fingerprint
from service.storage.redis import keys


def packed(remote_id: str | None, origin_id: str | None = None, *, deleted: bool = False) -> bytes:
    return Fingerprint(
        deleted=deleted,
        raw=b"r" * 16,
        paths=bytes(95),
        remote_id=remote_id,
        origin_id=origin_id,
    ).pack()


@pytest.fixture
async def courses(client, services):
    """The path of the list."""
    body = {"name": "a", "upstream_id": "w:1", "base_url": "https://a.example", "api_key": "k"}
    integration = (await client.post("/v1/integrations", json=body)).json()
    of = integration["id"], integration["epoch"]
    stored = {
        "c1": packed("R-1", "shop/7"),
        "c2": packed("R-2", "shop/7"),
        "c3": packed("R-3", deleted=True),
        "c4": packed("R-4"),
        "Ünit-5": packed(None, ""),
        "c6": packed("R-6"),
    }
    await services.redis.hset(keys.catalogue(*of), mapping=stored)
    await services.redis.hset(keys.quarantine(*of), mapping={"c4": "no id", "q7": "no title"})
    await services.redis.hset(keys.held(*of), "c2", b"A")
    await services.redis.hset(keys.decided(*of), "c6", b"A")
    return f"/v1/integrations/{integration['id']}/courses"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("remote_id=R-1", ["c1"]),
        ("remote_id=r-1", []),
        ("origin_id=shop%2F7", ["c1", "c2"]),
        ("origin_id=shop%2F7&state=live", ["c1"]),
        ("search=r-", ["c1", "c2", "c3", "c4", "c6"]),
        ("search=SHOP", ["c1", "c2"]),
        ("search=%C3%BCNIT", ["Ünit-5"]),
        ("search=q7", ["q7"]),
        ("state=live", ["c1", "Ünit-5"]),
        ("state=deleted", ["c3"]),
        ("state=held", ["c2", "c6"]),
        ("state=quarantined", ["c4", "q7"]),
        ("state=quarantined&search=c", ["c4"]),
        ("state=deleted,quarantined", ["c3", "c4", "q7"]),
        ("course_id=c1&remote_id=R-1", ["c1"]),
        ("course_id=c1&remote_id=R-2", []),
        ("course_id=c3&state=live", []),
    ],
)
async def test_filters_of_courses_leave_those_that_match_all(client, courses, query, found) -> None:
    page = (await client.get(f"{courses}?{query}")).json()
    assert sorted(one["course_id"] for one in page["items"]) == sorted(found)
    assert page["next"] is None


async def test_pages_of_what_is_found_hold_no_more_than_asked_for(client, courses) -> None:
    seen, cursor = [], ""
    while cursor is not None:
        page = (await client.get(f"{courses}?search=r-&limit=2{cursor}")).json()
        assert len(page["items"]) <= 2
        seen += [one["course_id"] for one in page["items"]]
        cursor = page["next"] and f"&after={page['next']}"
    assert sorted(seen) == ["c1", "c2", "c3", "c4", "c6"]


async def test_wrong_filters_of_courses_are_named(client, courses, refused) -> None:
    answer = await client.get(f"{courses}?state=gone&search=%20&remote_id=")
    refused(answer, "remote_id", "search", "state[0]")
