"""Receivers with bad days: they verify, note down and answer by a seeded mix, or with malice.

Whether a push counts as acknowledged follows from the bytes that were sent: once they hold a
complete status line that says success, the sender may take the push for delivered, whatever comes
behind. Bytes that nobody asked for acknowledge nothing, unless a request may have crossed them
(see `wire.py`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from standardwebhooks import Webhook, WebhookVerificationError

from tests.chaos.answers import HOSTILE, NO_CONTENT, Script, answer, odd_success
from tests.chaos.history import History, Receipt, digest, told
from tests.chaos.wire import Request, Server, Stray, Wire, accepts

# How often beside the others, out of a hundred.
MIX: Final[dict[str, float]] = {
    "ok": 78, "error": 6, "overload": 3, "unavailable": 2, "redirect": 2,
    "hang": 2, "reset": 4, "broken": 2, "slow": 1,
}  # fmt: skip
SERVERS: Final = 3
PATIENCE: Final = 30.0  # seconds for which one that hangs holds on

_WHOLE: Final = {
    "ok": NO_CONTENT,
    "error": answer(b"500 Internal Server Error", body=b"no"),
    "overload": answer(b"429 Too Many Requests", b"retry-after: 1"),
    "unavailable": answer(b"503 Service Unavailable"),
    "redirect": answer(b"302 Found", b"location: /elsewhere"),
}


class Receiver:
    """One subscriber, `/{name}` of the server; it is the whole truth of what it received."""

    def __init__(
        self,
        name: str,
        seed: int,
        mix: Mapping[str, float],
        history: History,
        struck: Counter[str],
    ) -> None:
        self.name = name
        self._kinds, self._weights = list(mix), list(mix.values())
        self.secrets: list[str] = []
        self.healthy = False  # answers 204 to everything from now on
        self.odd = False  # says success to everything, but in odd ways
        self.silent_until = 0.0
        self._planned: deque[int] = deque()  # kinds of malice for the next answers
        self._random = random.Random(f"receiver {seed} {name}")
        self._history = history
        self._struck = struck
        self._calm = asyncio.Event()

    def spoil(self, kind: int, times: int) -> None:
        """Has so many of the next answers be hostile."""
        self._planned.extend([kind % len(HOSTILE)] * times)

    def recover(self) -> None:
        """Has no bad days any more."""
        self.healthy = True
        self.odd = False
        self.silent_until = 0.0
        self._planned.clear()
        self._calm.set()

    def note(self, request: Request) -> Receipt:
        """Keeps a push, whatever is answered then."""
        identifier = digest(request.body)
        if identifier not in self._history.events:
            self._history.events[identifier] = told(request.body)
        receipt = Receipt(
            subscriber=self.name,
            at=time.monotonic(),
            id=request.headers["webhook-id"],
            body=identifier,
            replay="coursewire-replay" in request.headers,
            verified=any(self._verifies(secret, request) for secret in self.secrets),
        )
        self._history.receipts.append(receipt)
        return receipt

    @staticmethod
    def _verifies(secret: str, request: Request) -> bool:
        try:
            Webhook(secret).verify(request.body, dict(request.headers))
        except WebhookVerificationError:
            return False
        return True

    async def answer(self, wire: Wire, receipt: Receipt) -> Script | None:
        """Answers; returns what is to follow, or None if the connection was reset."""
        if time.monotonic() < self.silent_until:
            wire.reset()
            return None
        if self.odd:
            # The same whenever it comes: one that is not taken for a success never will be.
            chance = random.Random(receipt.id)
            return await self._send(wire, receipt, odd_success(chance))
        if self._planned:
            letter, make = HOSTILE[self._planned.popleft()]
            return await self._send(wire, receipt, make(self._random), letter)
        kind = "ok"
        if not self.healthy:
            kind = self._random.choices(self._kinds, self._weights)[0]
        if kind in _WHOLE:
            return await self._send(wire, receipt, Script(answer=_WHOLE[kind]))
        special: Callable[[Wire, Receipt], Awaitable[Script | None]]
        special = getattr(self, f"_{kind}")
        return await special(wire, receipt)

    async def _send(
        self, wire: Wire, receipt: Receipt, script: Script, letter: str | None = None
    ) -> Script:
        """Carries a script out; with a letter it is counted, if anything came of it."""
        if accepts(script.answer):
            receipt.acknowledged_at = time.monotonic()
        struck = True
        if script.stray:
            struck = await wire.send_followed(script.answer, script.stray, script.after)
        else:
            await wire.send(script.answer)
        if letter and struck:
            self._struck[letter] += 1
        return script

    async def _hang(self, wire: Wire, receipt: Receipt) -> Script:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._calm.wait()
        return await self._send(wire, receipt, Script(answer=answer(b"500 Late"), then="close"))

    async def _reset(self, wire: Wire, receipt: Receipt) -> None:
        wire.reset()

    async def _broken(self, wire: Wire, receipt: Receipt) -> Script:
        """Says 200, and breaks off before it has said all."""
        head = answer(b"200 OK", b"content-length: 1000", body=None)
        return await self._send(wire, receipt, Script(answer=head + b"ok", then="reset"))

    async def _slow(self, wire: Wire, receipt: Receipt) -> Script:
        """Says 200, and goes on saying it for ever."""
        head = answer(b"200 OK", b"transfer-encoding: chunked", body=None)
        script = await self._send(wire, receipt, Script(answer=head, then="reset"))
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not self._calm.is_set():
            await wire.send(b"1\r\n.\r\n")
            await asyncio.sleep(0.2)  # the pace of a slow receiver
        return script


class Receivers:
    """The servers that they share, a few to each: some connections are idle, and some carry what
    is meant for several of them."""

    def __init__(
        self, names: list[str], seed: int, mix: Mapping[str, float], history: History
    ) -> None:
        self.struck: Counter[str] = Counter()  # what was done with malice, by letter
        self.all = [Receiver(name, seed, mix, history, self.struck) for name in names]
        self._by_target = {f"/{receiver.name}": receiver for receiver in self.all}
        self._history = history
        self._greetings: deque[bytes] = deque()
        self._servers = [Server(self._serve) for _ in range(SERVERS)]

    def url(self, receiver: Receiver) -> str:
        """Where one of them is to be reached."""
        server = self._servers[self.all.index(receiver) % SERVERS]
        return f"{server.url}/{receiver.name}"

    def start(self) -> None:
        """Begins to listen."""
        for server in self._servers:
            server.start()

    async def close(self) -> None:
        """Stops listening."""
        self.recover()
        for server in self._servers:
            await server.close()

    def recover(self) -> None:
        """All of them have no bad days any more."""
        self._greetings.clear()
        for receiver in self.all:
            receiver.recover()

    async def _serve(self, wire: Wire) -> None:
        if self._greetings:
            await wire.send_unasked(self._greetings.popleft())
        while (request := await wire.request()) is not None:
            receiver = self._by_target[request.target]
            receipt = receiver.note(request)
            if wire.stray is not Stray.NONE:
                await self._refuse(wire, receipt)
                return
            script = await receiver.answer(wire, receipt)
            if script is None or script.then == "reset":
                wire.reset()
                return
            if script.greeting:
                self._greetings.append(script.greeting)
            # A push that crossed the unasked bytes may be waiting. Its sender may have taken them
            # for the answer, so it is read like others.
            if script.then == "close" and wire.stray is not Stray.IN_DOUBT:
                return

    async def _refuse(self, wire: Wire, receipt: Receipt) -> None:
        """Takes no push on a connection that carried what nobody had asked for."""
        if wire.stray is Stray.KNOWN:
            self._history.reused += 1
        elif accepts(wire.unasked):
            receipt.acknowledged_at = time.monotonic()
            self._history.crossed += 1
        await wire.send(_WHOLE["error"])
