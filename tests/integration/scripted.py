"""An upstream that answers each request as a test says, byte by byte where need be."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ScriptedUpstream:
    """Answers with `answer`, and keeps the parameters it was asked with."""

    def __init__(self) -> None:
        self.answer: Answer = says(200, page([]))
        self.asked: list[dict[str, str]] = []
        self.base_url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        return await self.answer(request)


def page(course_ids, following=None) -> bytes:
    """A page of courses of which nothing but the id is worth mentioning."""
    records = [course(course_id) for course_id in course_ids]
    return json.dumps(
        {"status": "success", "data": {"next": following, "results": records}}
    ).encode()


def course(course_id: str) -> dict:
    return {
        "id": course_id,
        "remote_id": course_id,
        "provider_id": None,
        "origin_id": None,
        "remote_created_at": None,
        "remote_deleted_at": None,
        "provider": None,
        "revisions": [],
    }


def says(status: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer that is always the same."""

    async def answer(_request: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return answer


def refuses(status: int, code: str | None, **headers: str) -> Answer:
    """An error as the upstream words it."""
    detail = {"code": code, "title": "T", "message": "said so", "log_url": "https://log.example/1"}
    return says(status, json.dumps({"status": "error", "error": detail}).encode(), **headers)


async def resets(request: web.Request) -> web.StreamResponse:
    """The connection breaks in the middle of a page."""
    response = web.StreamResponse(headers={"content-length": "1000"})
    await response.prepare(request)
    await response.write(b'{"status":')
    request.transport.abort()
    return response
