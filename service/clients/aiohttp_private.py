"""The code that relies on private parts of aiohttp: it decides which response belongs to which
request, and when a connection may be used again.

aiohttp reads any bytes on a connection as the response to the next request. Here bytes are a
response only from the moment at which a request is written until that response ends. All other
bytes end the connection. A connection is used again only if the end of its last response is proven
to be the last received byte.
"""

from __future__ import annotations

import asyncio
import functools
import re
import select
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpVersion11, RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from multidict import CIMultiDict, CIMultiDictProxy

from service.clients.exchange import AnswerError, present

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.client_reqrep import ClientRequest, ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

MAX_HEAD_BYTES: Final = 64 * 1024  # of an answer, its status line included
MAX_FIELDS: Final = 500  # in the header of an answer
# Seconds after which a connection is not used again, however busy it is: the name it was opened
# for may lead elsewhere by now, and providers move names with lifetimes of 60 seconds.
MAX_AGE_SECONDS: Final = 60.0
# Turns of the event loop in which a connection may end, or in which a new one may read the bytes
# that the kernel holds before the first request, such as TLS session tickets.
SETTLING_TURNS: Final = 20
# Idle connections that are closed in one turn of the event loop. Closing 8,000 in one turn would
# stop all requests for 0.2 s.
CLOSED_PER_TURN: Final = 10

_STATUS_LINE: Final = re.compile(rb"HTTP/\d\.\d ([1-9]\d\d)(?:[ \r][^\n]*)?\n")
_STATUS: Final = re.compile(rb"HTTP/\d\.\d ([1-9]\d\d)[ \r\n]")
_UNPRINTABLE: Final = re.compile(rb"[^\x20-\x7e\r]")
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_RETRY_AFTER: Final = re.compile(rb"\nretry-after:[ \t]*([\x20-\x7e]*)", re.IGNORECASE)
_LAST_CHUNK: Final = b"0\r\n\r\n"
_WITHOUT_BODY: Final = frozenset({101, 204, 304})

# The state of a protocol between its requests.
_SILENT: Final = 0  # no response is awaited: before the first request, and after a response
_HEAD: Final = 1
_COUNTED: Final = 2  # in a body of known length
_CHUNKED: Final = 3
_TO_THE_END: Final = 4  # in a body that ends with its connection

_PRIVATE_PARTS: Final = (
    *("_buffer", "_parser", "_payload", "_should_close", "_skip_payload"),
    *("should_close", "set_response_params", "set_exception", "transport"),
)
_PRIVATE_METHODS_OF_CONNECTORS: Final = (
    *("_wait_for_available_connection", "_create_connection", "_wrap_create_connection"),
    *("_start_tls_connection", "_convert_hosts_to_addr_infos", "_cleanup"),
)
_PRIVATE_ATTRIBUTES_OF_CONNECTORS: Final = (
    *("_acquired", "_factory", "_limit", "_loop"),
    *("_conns", "_cleanup_handle", "_keepalive_timeout"),
)


class AnswerProtocol(ResponseHandler):
    """One connection, in `connected` from its start to its end. `flaw` explains why only the status
    of the current response can be used, if so."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        connected: set[AnswerProtocol],
    ) -> None:
        super().__init__(loop=loop)
        self._all_connected = connected
        self.opened_at = clock()
        self.used = False  # whether a request was sent
        self.stray = False  # whether bytes came that belong to no response
        self.flaw: str | None = None
        self._status: int | None = None  # of the response that is read, informational ones included
        self._stage = _SILENT
        self._head = b""  # of an incomplete response
        self._left = 0  # bytes of a counted body that are missing
        self._last = b""  # the last bytes of a chunked body
        self._ended = False  # whether the last response's end is proven, and no byte followed
        self._body: StreamReader | None = None
        self._poll: select.poll | None = None

    def set_response_params(self, **options: Any) -> None:
        """A request is about to be written: bytes from here on are its response."""
        early, self._head = self._head, b""
        self.used = True
        self._status = self.flaw = self._body = None
        self._stage = _HEAD
        self._ended = False
        super().set_response_params(**options)
        if early:
            self.data_received(early)

    def refuses(self) -> bool:
        """Whether the bytes before the first request are an error response, as overloaded servers
        send it. It can only belong to that request."""
        line = _STATUS_LINE.match(self._head)
        return line is not None and int(line[1]) >= 400

    @property
    def should_close(self) -> bool:
        """Whether no further request may be sent."""
        if not self._ended or super().should_close:
            return True
        transport = self.transport
        return transport is None or transport.get_write_buffer_size() > 0

    @property
    def status(self) -> int | None:
        """The final status of the current response, as soon as its status line is complete."""
        status = self._status
        return status if status is not None and (status >= 200 or status == 101) else None

    def readable(self) -> bool:
        """Whether the kernel holds bytes for this connection, or its end."""
        transport = self.transport
        if transport is None:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Ends the connection, without waiting until the peer has read the unsent bytes."""
        if self._writing():
            self.abort()
        else:
            super().close()

    def data_received(self, data: bytes) -> None:
        """Passes the bytes of the response to the parser, and no others."""
        if not data:  # reading continues after a pause
            super().data_received(data)
            self._look_for_end()
            return
        if self._stage == _HEAD:
            data = self._take_head(data)
            if not data:
                return
        if self._stage == _COUNTED:
            self._take_counted(data)
        elif self._stage == _CHUNKED:
            self._take_chunks(data)
        elif self._stage == _TO_THE_END:
            super().data_received(data)
        elif self.used or len(self._head) > MAX_HEAD_BYTES:
            self._end_with_strays()
        else:
            self.stray = True
            self._head += data

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Reports in words what the parser refused, to the reader that waits for it.

        aiohttp reports it only to the reader of a response's head: an attempt whose response breaks
        later would seem to continue until its timeout.
        """
        body = self._body
        if isinstance(exc, AnswerError) or not isinstance(exc, HttpProcessingError):
            super().set_exception(exc, *cause)
        elif self._stage == _HEAD:
            self._use_status_alone("its header is malformed")
        elif body is not None and not body.is_eof():
            broken = AnswerError("its body is not divided into chunks as announced")
            super().set_exception(broken, *cause)
            body.set_exception(broken, *cause)
        else:
            self._ended = False  # bytes after the response

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is established, and so is its TLS."""
        if not transport.is_closing():  # a tunnel may end before its TLS is reported
            self._all_connected.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """An error status counts even if its header is incomplete."""
        self._all_connected.discard(self)
        if self._stage == _HEAD and (self.status or 0) >= 300:
            self._use_status_alone("the connection broke within its header")
        super().connection_lost(exc)

    def _take_head(self, data: bytes) -> bytes:
        """The bytes after the head of the final response, once the head is complete."""
        looked_at = max(0, len(self._head) - 2)
        head = self._head = self._head + data
        while True:
            if self._status is None:
                if (line := _STATUS_LINE.match(head)) is not None:
                    self._status = int(line[1])
                elif head[:1] in (b"\r", b"\n"):
                    # Bytes of an earlier response were left over: this response may be read, and is
                    # the last.
                    self.stray = True
                    head = self._head = head.lstrip(b"\r\n")
                    looked_at = 0
                    continue
                elif not self._wait_for_status_line(head):
                    return b""
            found = _HEAD_END.search(head, looked_at)
            end = 0 if found is None else found.end()
            if not 0 < end <= MAX_HEAD_BYTES:
                if len(head) > MAX_HEAD_BYTES:
                    self._use_status_alone("its header is larger than 64 KiB")
                return b""
            rest = head[end:]
            if self.status is not None:
                self._head = head[:end]
                return self._start_body(rest)
            head = self._head = rest
            self._status, looked_at = None, 0

    def _wait_for_status_line(self, head: bytes) -> bool:
        """Whether a line that is too long still has a status."""
        if len(head) > MAX_HEAD_BYTES and (line := _STATUS.match(head)) is not None:
            self._status = int(line[1])
            return True
        if b"\n" in head or len(head) > MAX_HEAD_BYTES or not b"HTTP/".startswith(head[:5]):
            self._refuse(_what_instead(head))
        return False

    def _start_body(self, rest: bytes) -> bytes:
        """Passes the head to the parser; determines how the body ends. `rest` follows the head."""
        if self._head.count(b"\n") - 2 > MAX_FIELDS:
            self._use_status_alone(f"its header has more than {MAX_FIELDS} fields")
            return b""
        reason = _UNPRINTABLE.search(self._head, 12)
        if reason is not None and reason[0] != b"\n":
            # The text is not used, and neither the parser nor the httpx adapter accepts every byte.
            behind = self._head.partition(b"\n")[2]
            self._head = self._head[:12] + b"\r\n" + behind
        super().data_received(self._head)
        if self.flaw is None and not self._buffer:
            self._use_status_alone("its header is malformed")
        if self.flaw is not None:
            return b""
        message, body = self._buffer[-1][0]
        self._head, self._body, self._last = b"", body, b""
        length = message.headers.get("content-length")
        if self._skip_payload or message.code in _WITHOUT_BODY:
            # A response that must not have a body announces one: it may still come.
            announced = message.chunked or length not in (None, "0")
            ends = not announced or self._skip_payload or message.code == 304
            self._stage, self._ended = _SILENT, ends and not rest and not self.stray
        elif message.chunked:
            self._stage = _CHUNKED
        elif length is not None and length.isdecimal():
            self._stage, self._left = _COUNTED, int(length)
            if not self._left:
                self._stage, self._ended = _SILENT, not rest and not self.stray
        else:
            self._stage = _TO_THE_END
        return rest

    def _take_counted(self, data: bytes) -> None:
        body, behind = data[: self._left], data[self._left :]
        self._left -= len(body)
        if not self._left:
            # Set before the parser runs, because the reader returns the connection at the last
            # byte.
            self._stage, self._ended = _SILENT, not behind and not self.stray
        super().data_received(body)
        if behind:
            self._end_with_strays()

    def _take_chunks(self, data: bytes) -> None:
        """Lets the parser find the end of chunks.

        It would report bytes after that end as an error or another message, unless they are line
        breaks; these cannot look like a last chunk. The end of a body with trailers is not proven,
        so its connection is not used again.
        """
        self._last = (self._last + data[-5:])[-5:]
        self._ended = self._last == _LAST_CHUNK and not self.stray
        super().data_received(data)
        self._look_for_end()

    def _look_for_end(self) -> None:
        if self._stage == _CHUNKED and self._body is not None and self._body.is_eof():
            self._stage = _SILENT
            if self._payload is not self._body:
                self._end_with_strays()

    def _end_with_strays(self) -> None:
        """Ends the connection, unless part of the response is still to be read."""
        self.stray, self._ended, self._stage = True, False, _SILENT
        if self._body is None or self._body.is_eof():
            self.abort()

    def _refuse(self, words: str) -> None:
        self._stage = _SILENT
        self.set_exception(AnswerError(words))
        self.close()

    def _use_status_alone(self, flaw: str) -> None:
        """Delivers a response of which only the status can be used, and ends its connection.

        A reader of its body gets the reason.
        """
        if self.status is None:
            self._refuse(flaw)
            return
        self.flaw, self._stage, self._parser = flaw, _SILENT, None
        found = _RETRY_AFTER.search(self._head)
        value = found[1].decode("ascii").strip() if found else ""
        raw = ((b"Retry-After", value.encode("ascii")),) if value else ()
        fields = CIMultiDict([("Retry-After", value)] if value else [])
        message = RawResponseMessage(
            *(HttpVersion11, self.status, "", CIMultiDictProxy(fields), raw),
            *(True, None, False, False),
        )
        body = StreamReader(self, 0, loop=self._loop)
        body.set_exception(AnswerError(flaw))
        self.feed_data((message, body), 0)
        self._head = b""
        self._should_close = True
        self.close()

    def _writing(self) -> bool:
        """Whether part of a request is unsent."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        return transport.get_write_buffer_size() > 0


def _what_instead(head: bytes) -> str:
    """Describes the bytes that came instead of a response."""
    if head.startswith((b"\x15\x03", b"\x16\x03")):
        return "it is TLS, so the URL should begin with https://"
    if head[:6] == b"HTTP/2" or (len(head) > 9 and head[3:5] == b"\x04\x00"):
        return "it is HTTP/2, but HTTP/1.1 was requested"
    if head[:5] == b"HTTP/":
        return "its status line is malformed"
    return "it does not begin with HTTP/1.1 and a status"


class CheckedConnector(aiohttp.TCPConnector):
    """Provides connections without unrequested bytes, and none older than a minute.

    aiohttp's limit covers the connections in use. Here it covers the idle ones too, because a
    process with many hosts would otherwise run out of file descriptors.

    Records in the exchange's timeline when it got its connection: aiohttp's own tracing would do
    that too, but costs every request several times as much.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, **options: Any) -> None:
        super().__init__(**options)
        _require(self, _PRIVATE_ATTRIBUTES_OF_CONNECTORS)
        self._clock = clock
        self._connected: set[AnswerProtocol] = set()
        self._connecting = 0
        # aiohttp offers no way of its own to name the protocol.
        self._factory = functools.partial(  # type: ignore[assignment]  # declared as its own
            AnswerProtocol, loop=self._loop, clock=clock, connected=self._connected
        )

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the overridden method's parameter
    ) -> Connection:
        """A connection to which a request may be written at once.

        Raises `AnswerError` if a peer sends bytes first, unless these are an error response.
        """
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol: AnswerProtocol = connection.protocol  # type: ignore[assignment]  # by _factory
            if not protocol.used:
                await self._settle(connection, protocol)
                break
            young = self._clock() - protocol.opened_at < MAX_AGE_SECONDS
            if young and protocol.is_connected() and not protocol.readable():
                break
            connection.close()
        if (timeline := present.get()) is not None:
            timeline.connected_at = time.perf_counter()
        return connection

    async def open_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the overridden method's parameter
    ) -> ResponseHandler:
        """A new connection."""
        return await super()._create_connection(req, traces, timeout)

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the overridden method's parameter
    ) -> ResponseHandler:
        """A new connection, for which an idle one ends if there would be too many."""
        self._connecting += 1
        try:
            if len(self._connected) + self._connecting > self._limit:
                await self._end_idle()
            return await self.open_connection(req, traces, timeout)
        finally:
            self._connecting -= 1

    async def _end_idle(self) -> None:
        """Ends one idle connection, if there is any, and waits until its file descriptor is free.

        It belongs to the host that has had idle connections for the longest time.
        """
        while (key := next(iter(self._conns), None)) is not None:
            idle = self._conns[key]
            protocol = idle.popleft()[0]
            if not idle:
                del self._conns[key]
            if protocol in self._connected:  # its peer has not ended it
                break
        else:
            return
        protocol.abort()  # not closed: the end of TLS may take long
        for _ in range(SETTLING_TURNS):
            if protocol not in self._connected:
                break
            await asyncio.sleep(0)

    def _cleanup(self) -> None:
        """Closes idle connections like aiohttp, but only a few in one turn of the event loop."""
        if self._cleanup_handle is not None:
            self._cleanup_handle.cancel()
            self._cleanup_handle = None
        keepalive = self._keepalive_timeout or 0.0
        used_before = time.monotonic() - keepalive
        left = CLOSED_PER_TURN
        emptied = []
        for key, idle in self._conns.items():
            # The first of a host's connections was used before the others.
            while left and idle and idle[0][1] < used_before:
                idle.popleft()[0].close()
                left -= 1
            if not idle:
                emptied.append(key)
            if not left:
                break
        for key in emptied:
            del self._conns[key]
        if self._conns:
            delay = keepalive if left else 0.0
            self._cleanup_handle = self._loop.call_later(delay, self._cleanup)

    async def _wait_for_available_connection(self, key: ConnectionKey, traces: list[Trace]) -> None:
        """Like aiohttp; records if the wait is caused by other hosts, and not by this one."""
        timeline = present.get()
        if timeline is not None and len(self._acquired) >= self._limit:
            timeline.waits_for = f"connection of this process's {self._limit}"
        await super()._wait_for_available_connection(key, traces)
        if timeline is not None:
            timeline.waits_for = None

    async def _settle(self, connection: Connection, protocol: AnswerProtocol) -> None:
        """Lets a new connection read the bytes that the kernel holds, and checks them."""
        try:
            for _ in range(SETTLING_TURNS):
                if protocol.refuses():
                    return
                if not protocol.is_connected() or not (protocol.stray or protocol.readable()):
                    break
                await asyncio.sleep(0)
        except BaseException:
            connection.close()
            raise
        if protocol.stray or protocol.readable():
            broken = protocol.exception()
            connection.close()
            if not protocol.stray and broken is not None:
                raise broken  # the connection was ended, perhaps for a reason such as a TLS alert
            raise AnswerError("it began before the request was sent")


def _require(one: object, names: tuple[str, ...]) -> None:
    if missing := [name for name in names if not hasattr(one, name)]:
        called = (one if isinstance(one, type) else type(one)).__name__
        raise ImportError(
            f"aiohttp {aiohttp.__version__} cannot be used: {called} has no "
            f"{', '.join(missing)}; install the version that Coursewire requires"
        )


# The classes of aiohttp themselves: the classes above replace some of the methods.
_require(aiohttp.TCPConnector, _PRIVATE_METHODS_OF_CONNECTORS)
# Without a loop, which only connections need.
_require(ResponseHandler(loop=None), _PRIVATE_PARTS)  # type: ignore[arg-type]  # as above
