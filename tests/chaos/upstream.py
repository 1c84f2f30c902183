"""A hostile upstream: stands before the sandbox, and spoils its answers when it is told to.

Whatever it is not told to spoil passes as it comes, faults of the sandbox included; but for some
identifiers, which are foreign ones from the start.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from tests.chaos import mangling
from tests.chaos.answers import DELAYS, FAILED, STRAY, TIMED_OUT
from tests.chaos.mangling import ForeignIds, Reply
from tests.chaos.wire import AT_ONCE_BYTES, Request, Server, Stray, Wire, accepts

# Those of a connection, not of an answer. Lengths are those of what is sent.
_OF_CONNECTIONS: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})
UNASKED: Final = ("again", "of another", "unasked", "stray bytes", "greeting")
KINDS: Final = (*(("A", name) for name in UNASKED), *mangling.HOSTILE)


class Upstream:
    """The server. `struck` counts by letter what was done."""

    def __init__(self, sandbox_url: str, ids: ForeignIds, seed: int) -> None:
        self.ids = ids
        self.odd = False  # every answer is, in ways that a client must bear
        self.struck: Counter[str] = Counter()
        self.reused = (
            0  # requests on a connection that was known to carry what nobody had asked for
        )
        self.crossed = 0  # requests that may have crossed what nobody had asked for
        self._random = random.Random(f"upstream {seed}")
        self._sandbox = httpx.AsyncClient(base_url=sandbox_url, timeout=60)
        self._server = Server(self._serve)
        self._planned: deque[int] = deque()  # kinds for the next answers
        self._greetings: deque[bytes] = deque()
        self._last: dict[str, bytes] = {}  # a small answer of each integration
        self.url = self._server.url

    def start(self) -> None:
        """Begins to listen."""
        self._server.start()

    async def close(self) -> None:
        """Stops."""
        await self._server.close()
        await self._sandbox.aclose()

    def spoil(self, kind: int, times: int) -> None:
        """Has so many of the next answers spoilt."""
        self._planned.extend([kind % len(KINDS)] * times)

    def recover(self) -> None:
        """Spoils nothing any more."""
        self._planned.clear()
        self._greetings.clear()
        self.odd = False

    # --- connections ---------------------------------------------------------------------------

    async def _serve(self, wire: Wire) -> None:
        if self._greetings:
            await wire.send_unasked(self._greetings.popleft())
        while (request := await wire.request()) is not None:
            if wire.stray is Stray.KNOWN:
                self.reused += 1
            elif wire.stray is Stray.IN_DOUBT and accepts(wire.unasked):
                self.crossed += 1
            if wire.stray is not Stray.NONE or not await self._answer(wire, request):
                wire.reset()
                return

    async def _answer(self, wire: Wire, request: Request) -> bool:
        """Whether the connection goes on."""
        target = urlsplit(request.target)
        query = dict(parse_qsl(target.query, keep_blank_values=True))
        if "ids" in query:
            query["ids"] = self.ids.real_list(query["ids"])
        passed = self._sandbox.build_request(
            request.method,
            f"{target.path}?{urlencode(query)}",
            headers={
                name: value
                for name, value in request.headers.items()
                if name not in ("host", "connection")
            },
        )
        upstream_id = request.headers.get("x-integration-id", "")
        response = await self._sandbox.send(passed, stream=True)
        try:
            if not self.odd and not self._planned:
                await self._pass(wire, upstream_id, response)
                return True
            body = self.ids.give(b"".join([part async for part in response.aiter_raw()]))
        except httpx.HTTPError:
            return False
        finally:
            await response.aclose()
        await self._spoil(wire, upstream_id, _reply(response, body))
        return True

    async def _pass(self, wire: Wire, upstream_id: str, response: httpx.Response) -> None:
        """Passes an answer on as it comes."""
        length = int(response.headers["content-length"])
        head = _reply(response, b"").head(length)
        await wire.send(head)
        sent = held = b""
        async for part in response.aiter_raw():
            # No identifier of the sandbox has a comma.
            whole, comma, held = (held + part).rpartition(b",")
            ready = self.ids.give(whole + comma)
            sent += ready
            await wire.send(ready)
        last = self.ids.give(held)
        await wire.send(last)
        self._keep(upstream_id, head + sent + last)

    def _keep(self, upstream_id: str, answer: bytes) -> None:
        """For another that is to get it too."""
        if len(answer) <= AT_ONCE_BYTES // 2:
            self._last[upstream_id] = answer

    async def _spoil(self, wire: Wire, upstream_id: str, reply: Reply) -> None:
        chance = self._random
        if self.odd:
            await wire.send(mangling.odd_page(chance, reply).written())
            return
        if not self._planned:  # another connection took it while this one waited for the answer
            await wire.send(reply.written())
            return
        kind = self._planned.popleft()
        letter, how = KINDS[kind]
        answer = reply.written()
        if isinstance(how, str):
            done = await self._send_unasked(wire, how, upstream_id, answer)
        else:
            spoilt = how(chance, reply)
            done = spoilt is not None
            await wire.send(answer if spoilt is None else spoilt.written())
        if done:
            self.struck[letter] += 1
        else:
            self._planned.append(kind)  # it did not apply: it has its turn later
        self._keep(upstream_id, answer)

    async def _send_unasked(self, wire: Wire, how: str, upstream_id: str, answer: bytes) -> bool:
        """Whether anything was, or will be."""
        chance = self._random
        if how == "greeting":
            # Not a page: on a new connection no client can know that it did not ask for it.
            self._greetings.append(chance.choice((TIMED_OUT, FAILED, *STRAY)))
            await wire.send(answer)
            return True
        others = [last for one, last in self._last.items() if one != upstream_id]
        stray = {
            "again": answer,
            "of another": chance.choice(others) if others else answer,
            "unasked": chance.choice((TIMED_OUT, FAILED)),
            "stray bytes": chance.choice(STRAY),
        }[how]
        return await wire.send_followed(answer, stray, chance.choice(DELAYS))


def _reply(response: httpx.Response, body: bytes) -> Reply:
    fields = tuple(
        (name.lower(), value)
        for name, value in response.headers.raw
        if name.lower() not in _OF_CONNECTIONS
    )
    return Reply(status=response.status_code, fields=fields, body=body)
