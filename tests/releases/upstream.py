"""The upstream and the subscribers that data sets name: on loopback addresses and a port of their
own, so that they are found at the same place whenever a data set is read."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

PORT = 18471
UPSTREAM_HOST = "127.83.67.1"
SUBSCRIBER_HOST = "127.83.67.2"
BASE_URL = f"http://{UPSTREAM_HOST}:{PORT}/v1"
KEY = "upstream-key-of-the-data-set"


class Upstream:
    """Serves courses as they are told to it, in pages of three, to who has the key. A delta gets
    everything, for it may."""

    def __init__(self, courses: dict[str, list[dict[str, Any]]]) -> None:
        self.courses = courses  # by upstream id

    async def serve(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            error = {"code": "PLATFORM.AUTHENTICATION_INVALID", "title": "", "message": "no"}
            return web.json_response({"status": "error", "error": error}, status=401)
        query = request.query
        courses = self.courses.get(request.headers.get("X-Integration-Id", ""), [])
        if "ids" in query:
            wanted = set(query["ids"].split(","))
            courses = [course for course in courses if course["id"] in wanted]
        begin = int(query.get("cursor", "0"))
        end = begin + min(int(query.get("page_size", "3")), 3)
        following = str(end) if end < len(courses) else None
        data = {"results": courses[begin:end], "next": following}
        return web.Response(
            body=json.dumps({"status": "success", "data": data}).encode(),
            content_type="application/json",
        )


class Subscribers:
    """One receiver for each path: answers as told, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: dict[str, int] = {}
        self.received: dict[str, list[tuple[str, bytes, dict[str, str]]]] = defaultdict(list)

    async def receive(self, request: web.Request) -> web.Response:
        name, body = request.match_info["name"], await request.read()
        status = self.answers.get(name, 204)
        if status < 300:
            kept = request.headers["webhook-id"], body, dict(request.headers)
            self.received[name].append(kept)
        return web.Response(status=status)


def url(name: str) -> str:
    """Where the subscriber of that name listens."""
    return f"http://{SUBSCRIBER_HOST}:{PORT}/{name}"


@asynccontextmanager
async def serving(upstream: Upstream, subscribers: Subscribers) -> AsyncIterator[None]:
    """Both at their places. Raises OSError where these are taken, or are none of this system's."""
    runners = []
    try:
        for host, method, path, handler in (
            (UPSTREAM_HOST, "GET", "/v1/lms/courses", upstream.serve),
            (SUBSCRIBER_HOST, "POST", "/{name}", subscribers.receive),
        ):
            application = web.Application()
            application.router.add_route(method, path, handler)
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, host, PORT).start()
        yield
    finally:
        for runner in runners:
            await runner.cleanup()
