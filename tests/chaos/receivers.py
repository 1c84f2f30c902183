"""Receivers with bad days: they verify, note down and answer by a seeded mix."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from tests.chaos.history import History, Receipt, digest, told

# How often beside the others, out of a hundred.
MIX: Final[dict[str, float]] = {
    "ok": 78, "error": 6, "overload": 3, "unavailable": 2, "redirect": 2,
    "hang": 2, "reset": 4, "broken": 2, "slow": 1,
}  # fmt: skip
PATIENCE: Final = 30.0  # seconds for which one that hangs holds on


class Receiver:
    """One subscriber, `/{name}` of the server; it is the whole truth of what it received."""

    def __init__(self, name: str, seed: int, mix: Mapping[str, float], history: History) -> None:
        self.name = name
        self._kinds, self._weights = list(mix), list(mix.values())
        self.secrets: list[str] = []
        self.healthy = False  # answers 204 to everything from now on
        self.silent_until = 0.0
        self._random = random.Random(f"receiver {seed} {name}")
        self._history = history
        self._calm = asyncio.Event()

    def recover(self) -> None:
        """Has no bad days any more."""
        self.healthy = True
        self.silent_until = 0.0
        self._calm.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Takes a push in, whatever it answers then."""
        body = await request.read()
        receipt = self._note(request, body)
        if time.monotonic() < self.silent_until:
            return await self._reset(request, receipt)
        kind = "ok"
        if not self.healthy:
            kind = self._random.choices(self._kinds, self._weights)[0]
        answer: Callable[[web.Request, Receipt], Awaitable[web.StreamResponse]]
        answer = getattr(self, f"_{kind}")
        return await answer(request, receipt)

    def _note(self, request: web.Request, body: bytes) -> Receipt:
        identifier = digest(body)
        if identifier not in self._history.events:
            self._history.events[identifier] = told(body)
        receipt = Receipt(
            subscriber=self.name,
            at=time.monotonic(),
            id=request.headers["webhook-id"],
            body=identifier,
            replay="coursewire-replay" in request.headers,
            verified=any(self._verifies(secret, request, body) for secret in self.secrets),
        )
        self._history.receipts.append(receipt)
        return receipt

    @staticmethod
    def _verifies(secret: str, request: web.Request, body: bytes) -> bool:
        try:
            Webhook(secret).verify(body, dict(request.headers))
        except WebhookVerificationError:
            return False
        return True

    async def _ok(self, request: web.Request, receipt: Receipt) -> web.StreamResponse:
        receipt.acknowledged_at = time.monotonic()
        return web.Response(status=204)

    async def _error(self, request: web.Request, receipt: Receipt) -> web.StreamResponse:
        return web.Response(status=500, text="no")

    async def _overload(self, request: web.Request, receipt: Receipt) -> web.StreamResponse:
        return web.Response(status=429, headers={"retry-after": "1"})

    async def _unavailable(self, request: web.Request, receipt: Receipt) -> web.StreamResponse:
        return web.Response(status=503)

    async def _redirect(self, request: web.Request, receipt: Receipt) -> web.StreamResponse:
        return web.Response(status=302, headers={"location": "/elsewhere"})

    async def _hang(self, request: web.Request, receipt: Receipt) -> web.StreamResponse:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._calm.wait()
        except TimeoutError:
            pass
        return web.Response(status=500)

    async def _reset(self, request: web.Request, receipt: Receipt) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    async def _broken(self, request: web.Request, receipt: Receipt) -> web.StreamResponse:
        """Says 200, and breaks off before it has said all."""
        answer = web.StreamResponse(status=200, headers={"content-length": "1000"})
        await answer.prepare(request)
        await answer.write(b"ok")
        if request.transport is not None:
            request.transport.abort()
        return answer

    async def _slow(self, request: web.Request, receipt: Receipt) -> web.StreamResponse:
        """Says 200, and goes on saying it for ever."""
        answer = web.StreamResponse(status=200)
        await answer.prepare(request)
        until = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < until and not self._calm.is_set():
                await answer.write(b".")
                await asyncio.sleep(0.2)  # the pace of a slow receiver
        except ConnectionError:
            pass
        return answer


class Receivers:
    """The server that they share."""

    def __init__(
        self, names: list[str], seed: int, mix: Mapping[str, float], history: History
    ) -> None:
        self.all = [Receiver(name, seed, mix, history) for name in names]
        application = web.Application(client_max_size=1 << 20)
        for receiver in self.all:
            application.router.add_post(f"/{receiver.name}", receiver.handle)
        self._runner = web.AppRunner(application, access_log=None)
        self.url = ""

    async def start(self) -> None:
        """Listens on a free port of loopback."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def close(self) -> None:
        """Stops listening."""
        for receiver in self.all:
            receiver.recover()
        await self._runner.cleanup()
