"""One POST to a subscriber, bounded as a whole, and what came of it."""

from __future__ import annotations

import asyncio
import time
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import httpx

from service.clients.headers import retry_after
from service.clients.transport import ExchangeError, Timeline
from service.domain.retry import Outcome, OutcomeClass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from service.clients.transport import OutboundClient

BODY_LIMIT = 16 * 1024  # bytes of an answer that are read; the rest is dropped unread
EXCERPT_LENGTH = 1024  # bytes of an answer that are kept

_parsed = lru_cache(maxsize=4096)(httpx.URL)  # parsing a URL costs an eighth of a small POST


class Receiver:
    """Posts to subscribers' URLs over the shared client.

    `clock` tells epoch seconds, against which a `Retry-After` date is read.
    """

    def __init__(self, client: OutboundClient, *, clock: Callable[[], float] = time.time) -> None:
        self._transport = client.direct
        self._clock = clock

    async def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        timeout: float,  # noqa: ASYNC109 - it becomes an outcome here, not a TimeoutError
    ) -> Outcome:
        """Make one attempt of at most `timeout` seconds, from connecting to the answer's end.

        Whatever the receiver does wrong is an outcome; only cancellation raises. An answer
        other than 2xx counts by its status, even if its body never ends.
        """
        timeline = Timeline()
        answer = _Answer()
        failure: tuple[OutcomeClass, str] | None = None
        try:
            async with asyncio.timeout(timeout):
                request = httpx.Request(
                    "POST",
                    _parsed(url),
                    headers=headers,
                    content=body,
                    extensions={Timeline.EXTENSION: timeline},
                )
                await answer.read(await self._transport.handle_async_request(request))
        except TimeoutError:
            failure = (OutcomeClass.TIMEOUT, f"{_awaited(timeline)} within {timeout:g} s")
        except ExchangeError as exc:
            failure = (exc.kind, str(exc))
        except (ValueError, httpx.InvalidURL):
            # Headers or a URL that HTTP cannot carry: the subscription's fault, and no reason
            # to stop its lane. The exception quotes the value, which may be a secret.
            failure = (OutcomeClass.PROTOCOL, "the request cannot be written as HTTP")
        return self._outcome(timeline, answer, failure)

    def _outcome(
        self, timeline: Timeline, answer: _Answer, failure: tuple[OutcomeClass, str] | None
    ) -> Outcome:
        kind, error = failure or (OutcomeClass.DELIVERED, None)
        if answer.status is not None and not 200 <= answer.status <= 299:
            kind = OutcomeClass.STATUS
            error = f"HTTP {answer.status}; {error}" if error else f"HTTP {answer.status}"
        connect_ms = timeline.milliseconds(timeline.connected_at)
        return Outcome(
            kind=kind,
            duration_ms=timeline.milliseconds(time.perf_counter()),
            status=answer.status,
            dns_ms=timeline.milliseconds(timeline.resolved_at),
            connect_ms=0 if timeline.reused and connect_ms is not None else connect_ms,
            first_byte_ms=timeline.milliseconds(timeline.answered_at),
            retry_after=retry_after(answer.retry_after, self._clock()),
            excerpt=answer.excerpt,
            error=error,
        )


class _Answer:
    """As much of an answer as has come: none, its head, or its body up to the limit."""

    __slots__ = ("excerpt", "retry_after", "status")

    def __init__(self) -> None:
        self.status: int | None = None
        self.retry_after: str | None = None
        self.excerpt = b""

    async def read(self, response: httpx.Response) -> None:
        """Take in `response` and give its connection back, or end it where the body goes on."""
        self.status = response.status_code
        self.retry_after = response.headers.get("retry-after")
        stream = cast("httpx.AsyncByteStream", response.stream)
        length = 0
        try:
            async for chunk in stream:
                if length < EXCERPT_LENGTH:
                    self.excerpt += chunk[: EXCERPT_LENGTH - length]
                length += len(chunk)
                if length >= BODY_LIMIT:
                    break
        finally:
            await stream.aclose()


def _awaited(timeline: Timeline) -> str:
    """What had not happened when the time was up."""
    if timeline.connected_at is None:
        return "no connection"
    return "no answer" if timeline.answered_at is None else "the answer did not end"
