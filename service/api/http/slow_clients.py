"""HTTP on one connection, with time limits for slow clients."""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from typing import Any, Final, cast

import h11
import msgspec
from litestar.types import HTTPResponseStartEvent, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from service.api.http.access_log import NO_STORE
from service.api.http.problem_types import (
    HEADERS_TOO_LARGE,
    MALFORMED,
    OVERLOADED,
    REQUEST_TIMEOUT,
    ProblemType,
)
from service.api.http.problems import MEDIA_TYPE, document
from service.logs import get_logger

HEAD_SECONDS: Final = 10.0  # from a request's first byte, or the connection, to the end of its head
BODY_SECONDS: Final = 30.0  # from the end of its head to that of its body
UNREAD_SECONDS: Final = 60.0  # in which a client reads nothing of a waiting response

_log = get_logger("api")


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with time limits. Without them it waits forever for the rest of a head or
    a body, and for a client that does not read. Its own error responses become problems."""

    head_seconds = HEAD_SECONDS
    body_seconds = BODY_SECONDS
    unread_seconds = UNREAD_SECONDS

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._most = self.limit_concurrency
        self.limit_concurrency = None  # this class refuses the request
        self._arriving: asyncio.TimerHandle | None = None
        self._awaited = ""  # the awaited part of a request: head or body
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Starts to wait for a request."""
        super().connection_made(transport)
        if self._most is not None and len(self.connections) > self._most:
            self.app = cast("Any", _overloaded)
        self._await_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops waiting."""
        self._stop(self._arriving)
        self._stop(self._unread)
        self._arriving = self._unread = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes the received bytes, and waits for the missing ones."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._await_rest()

    def on_response_complete(self) -> None:
        """Waits for the missing part of the answered request, and for the next one."""
        super().on_response_complete()
        self._await_rest()

    def pause_writing(self) -> None:
        """Gives a client that does not read time to start again."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """The client reads."""
        self._stop(self._unread)
        self._unread = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Ends an idle connection, even if its last response was not read."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Answers a request that is not valid HTTP."""
        error = sys.exception()
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 0
        too_large = hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        self._refuse(HEADERS_TOO_LARGE if too_large else MALFORMED)

    def _await_rest(self) -> None:
        """Sets the timer for the incomplete part of a request."""
        awaited = self._missing()
        if awaited == self._awaited:
            return
        self._stop(self._arriving)
        self._arriving = None
        self._awaited = awaited
        if awaited:
            seconds = self.head_seconds if awaited == "head" else self.body_seconds
            self._arriving = self.loop.call_later(seconds, self._give_up_reading)

    def _missing(self) -> str:
        """The awaited part of a request: its head, its body, or neither. Between two requests it is
        neither; then the timeout of idle connections applies."""
        if self.transport.is_closing():
            return ""
        match self.conn.their_state:
            case h11.SEND_BODY:
                return "body"
            case h11.IDLE:
                begun, _ = self.conn.trailing_data
                return "head" if begun or self.timeout_keep_alive_task is None else ""
        return ""

    def _give_up_reading(self) -> None:
        self._arriving = None
        if not self.transport.is_closing():
            _log.info("request not received in time", awaited=self._awaited)
            self._refuse(REQUEST_TIMEOUT)

    def _await_reader(self, before: int | None = None) -> None:
        """Ends the connection if at least `before` bytes still wait to be written, or checks again
        later."""
        left = self.transport.get_write_buffer_size()
        if before is not None and left >= before:
            _log.info("response not read by the client")
            self.transport.abort()
        else:
            self._unread = self.loop.call_later(self.unread_seconds, self._await_reader, left)

    def _refuse(self, problem: ProblemType) -> None:
        """Answers with a problem if no response has begun, and closes."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True  # stops the handler of the request
            cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers, body = _answer(problem)
            response = h11.Response(
                status_code=problem.status.value, headers=headers, reason=problem.status.phrase
            )
            if self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] == "HEAD":
                body = b""
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @staticmethod
    def _stop(alarm: asyncio.TimerHandle | None) -> None:
        if alarm is not None:
            alarm.cancel()


def _answer(problem: ProblemType) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers and the body of an answer that ends the connection."""
    body = msgspec.json.encode(document(problem, problem.meaning))
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        NO_STORE,
    ]
    return headers, body


async def _overloaded(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Replaces the application when there are too many connections."""
    headers, body = _answer(OVERLOADED)
    headers.append((b"retry-after", b"5"))
    start: HTTPResponseStartEvent = {
        "type": "http.response.start",
        "status": OVERLOADED.status.value,
        "headers": headers,
    }
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})
