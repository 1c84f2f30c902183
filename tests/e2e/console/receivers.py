"""Receivers for subscriptions that are made in the console."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


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
    app = web.Application()
    app.router.add_post("/{path:.*}", one.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield one
    finally:
        one.gate.set()
        await runner.cleanup()
