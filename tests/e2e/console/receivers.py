"""Receivers for subscriptions that are made in the console."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tests.conftest import peer


class Receiver:
    """Answers pushes with `status` and `text`, after `gate` is set."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 204
        self.text: str | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.ids: list[str] = []
        self.signatures: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        await request.read()
        await self.gate.wait()
        self.ids.append(request.headers["webhook-id"])
        self.signatures.append(request.headers["webhook-signature"])
        return web.Response(status=self.status, text=self.text)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    one = Receiver()
    async with peer(web.post("/{path:.*}", one.handle), shutdown_timeout=0.1) as url:
        one.url = f"{url}/hook"
        try:
            yield one
        finally:
            one.gate.set()
