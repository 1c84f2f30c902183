"""An upstream that answers with what a hostile learning system would."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.conftest import peer

SCRIPT = "<script>document.title='stolen'</script><img src=x onerror=alert(1)>"
BIDI = "abc\u202egnp.exe"
LONG = "x" * 10_000
JAVASCRIPT = "javascript:alert(document.domain)"


def course(number: int, title: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"course{number}",
        "remote_id": f"remote-{number}",
        "origin_id": f"origin-{number}",
        "remote_created_at": "2026-01-01T00:00:00.000Z",
        "remote_deleted_at": None,
        "changed_at": "2026-01-01T00:00:00.000Z",
        "remote_data": None,
        "custom_fields": {},
        "integration_fields": [],
        "provider_id": None,
        "provider": None,
        "revisions": [
            {
                "id": f"revision{number}",
                "remote_id": f"r-{number}",
                "status": "active",
                "remote_created_at": None,
                "remote_deleted_at": None,
                "title": title,
                "description": title,
                "remote_url": JAVASCRIPT,
            }
        ],
        **fields,
    }


COURSES = [
    course(1, SCRIPT),
    course(2, BIDI),
    course(3, LONG),
    course(4, "quarantined", revisions="not a list"),
]


@asynccontextmanager
async def hostile_upstream() -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Its base URL, and what it answers with; `error` makes it fail."""
    answers: dict[str, Any] = {"courses": COURSES, "error": None}

    async def courses(_request: web.Request) -> web.Response:
        if (error := answers["error"]) is not None:
            return web.json_response({"status": "error", "error": error}, status=400)
        data = {"results": answers["courses"], "next": None}
        return web.json_response({"status": "success", "data": data})

    async with peer(web.get("/v1/lms/courses", courses)) as url:
        yield f"{url}/v1", answers
