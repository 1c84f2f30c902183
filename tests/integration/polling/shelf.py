"""An upstream that keeps a few courses, and answers requests for single ones as it is told."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from aiohttp import web

from tests.integration.scripted import ScriptedUpstream, course


class Shelf:
    """The courses behind a scripted upstream.

    `left_out` are there, and missing on pages; `by_ids` says what becomes of requests for single
    courses; `headers` go with each answer. Lists are split at their commas, and their entries
    stripped, as servers do.
    """

    def __init__(self, upstream: ScriptedUpstream) -> None:
        upstream.answer = self.answer
        self.asked = upstream.asked
        self.courses: dict[str, dict[str, Any]] = {}
        self.left_out: set[str] = set()
        self.by_ids = "answered"
        self.status = 200
        self.headers: dict[str, str] = {}

    def put(self, *course_ids: str, **fields: Any) -> None:
        for course_id in course_ids:
            known = self.courses.get(course_id, course(course_id))
            self.courses[course_id] = {**known, **fields}

    def take(self, *course_ids: str) -> None:
        for course_id in course_ids:
            del self.courses[course_id]

    def lists(self) -> list[dict[str, list[str]]]:
        """The ids in the requests for single courses so far."""
        return [
            {name: query[name].split(",") for name in ("ids", "remote_ids") if name in query}
            for query in self.asked
            if {"ids", "remote_ids"} & query.keys()
        ]

    async def answer(self, request: web.Request) -> web.Response:
        query = request.query
        if self.status != 200:
            return web.Response(status=self.status, headers=self.headers)
        lists = {name: query[name].split(",") for name in ("ids", "remote_ids") if name in query}
        if lists and self.by_ids == "refused":
            return self._error(422, "PLATFORM.INPUT_INVALID")
        if lists and self.by_ids == "empty":
            return self.page_of([])
        if not lists or self.by_ids == "ignored":
            found = [one for key, one in self.courses.items() if key not in self.left_out]
            size, start = int(query["page_size"]), int(query.get("cursor", 0))
            following = str(start + size) if start + size < len(found) else None
            return self.page_of(found[start : start + size], following)
        wanted = {
            name: {entry.strip() for entry in entries if entry.strip()}
            for name, entries in lists.items()
        }
        found = [
            one
            for one in self.courses.values()
            if one["id"] in wanted.get("ids", {one["id"]})
            and one["remote_id"] in wanted.get("remote_ids", {one["remote_id"]})
        ]
        if self.by_ids == "loses one":
            return self.page_of(found[1:])
        return self.page_of(found, "more" if self.by_ids == "cut" else None)

    def page_of(self, records: Collection[dict[str, Any]], following: str | None = None) -> Any:
        data = {"next": following, "results": list(records)}
        body = json.dumps({"status": "success", "data": data})
        return web.Response(text=body, headers=self.headers, content_type="application/json")

    def _error(self, status: int, code: str) -> web.Response:
        error = {"code": code, "title": "T", "message": "no", "log_url": None}
        return web.json_response({"status": "error", "error": error}, status=status)
