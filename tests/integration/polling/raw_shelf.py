"""An upstream that pages over records given as bytes, so that any of them may be broken."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from tests.integration.scripted import course

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Shelf:
    """Records by course id, in order; `answer` is for a `ScriptedUpstream`. What is in
    `followings` takes the place of the cursor of a page that holds the record."""

    def __init__(self, count: int) -> None:
        self.records = {f"c{number:03}": b"" for number in range(count)}
        self.followings: dict[str, bytes] = {}
        self.hidden: set[str] = set()
        self.heal()

    def heal(self, *course_ids: str) -> None:
        """Has records as they should be: those of `course_ids`, or all."""
        for course_id in course_ids or self.records:
            self.write(course_id)

    def write(self, course_id: str, **fields: object) -> None:
        """A record with other fields."""
        self.records[course_id] = json.dumps({**course(course_id), **fields}).encode()

    def break_off(self, course_id: str, field: str, token: bytes) -> None:
        """Puts a token into a record, as the value of a field."""
        sound = json.dumps({**course(course_id), field: "TOKEN"}).encode()
        self.records[course_id] = sound.replace(b'"TOKEN"', token)

    async def answer(self, request: web.Request) -> web.Response:
        """The page that is asked for."""
        names = [one for one in self.records if one not in self.hidden]
        if "ids" in request.query:
            names = [one for one in request.query["ids"].split(",") if one in names]
            return _page([self.records[one] for one in names], b"null")
        begin = int(request.query.get("cursor", 0))
        end = begin + int(request.query["page_size"])
        following = b'"%d"' % end if end < len(names) else b"null"
        for one in names[begin:end]:
            following = self.followings.get(one, following)
        return _page([self.records[one] for one in names[begin:end]], following)


def _page(records: list[bytes], following: bytes) -> web.Response:
    body = b'{"status":"success","data":{"next":%s,"results":[%s]}}'
    return web.Response(body=body % (following, b",".join(records)))
