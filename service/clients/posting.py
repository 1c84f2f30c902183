"""Writes POSTs to the shared client's connections as plain bytes, and reads the responses.

Connections come from the client's own connector, so they share its pool, its certificate
verification and its address guard. aiohttp's parser reads the responses. It leaves out all other
work of a general client.
"""

from __future__ import annotations

import asyncio
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote

import aiohttp
import httpx
import msgspec
from aiohttp import hdrs
from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from service.clients.aiohttp_private import MAX_FIELDS, MAX_HEAD_BYTES
from service.clients.exchange import FOREIGN, ExchangeError, Timeline, present, translate
from service.domain.delivery.outcome import OutcomeClass
from service.domain.egress.certificates import Unusable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.connector import Connection

    from service.clients.aiohttp_private import AnswerProtocol
    from service.clients.proxying import ProxyingConnector
    from service.clients.tls import ClientContexts
    from service.domain.egress.certificates import ClientCertificate

BODY_LIMIT: Final = 16 * 1024  # bytes of a response that are read; the rest is dropped unread

_NO_LIMITS: Final = aiohttp.ClientTimeout(total=None)
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PLACE: Final = re.compile(r"[^:/?#]+://[^/?#]*([^\x00-\x20\x7f#]*)(?:#.*)?")
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")


class Answer:
    """The received part of a response: nothing, its head, or its body up to the limit.

    It keeps `keep` bytes of the body. `flaw` explains why only the status can be used, if so.
    """

    __slots__ = ("excerpt", "flaw", "keep", "retry_after", "status")

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.status: int | None = None
        self.flaw: str | None = None
        self.retry_after: str | None = None
        self.excerpt = b""


class _Target(msgspec.Struct, frozen=True):
    """The part that requests to one URL share. `request` is the object that the connector uses;
    `usual_lines` are the usual fields as they are written."""

    request: ClientRequest
    start: str
    usual: Mapping[str, str]
    usual_lines: str


class Poster:
    """Posts over the connections of `connector`. Belongs to the running event loop."""

    def __init__(
        self, connector: ProxyingConnector, user_agent: str, contexts: ClientContexts
    ) -> None:
        self._connector = connector
        self._user_agent = user_agent
        self._contexts = contexts
        self._loop = asyncio.get_running_loop()
        self._target = lru_cache(maxsize=4096)(self._make_target)

    async def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeline: Timeline,
        answer: Answer,
        certificate: ClientCertificate | None = None,
    ) -> None:
        """Sends `body`, reads the response into `answer` and records times in `timeline`.

        The connection presents `certificate`, or none. It sets no time limit; a cancelled call
        leaves no connection behind. Raises ExchangeError, or ValueError if HTTP cannot carry the
        URL or the headers, without quoting them.
        """
        token = present.set(timeline)
        try:
            if certificate is None:
                target = self._target(url)
            else:  # not kept here: `ClientContexts` limits the number of contexts
                target = self._make_target(url, certificate)
            head = _head(target, headers, len(body))
            connection = await self._connector.connect(target.request, [], _NO_LIMITS)
            try:
                await _exchange(connection, head + body, timeline, answer)
            except BaseException:
                _abort(connection)
                raise
        except UnicodeError as exc:  # the message quotes the text
            raise ValueError("HTTP cannot carry this request") from exc
        except FOREIGN as exc:
            raise translate(exc, url.partition(":")[0].lower()) from exc
        except Unusable as exc:
            raise ExchangeError(OutcomeClass.TLS, f"the client certificate {exc}") from exc
        finally:
            present.reset(token)

    def _make_target(self, url: str, certificate: ClientCertificate | None = None) -> _Target:
        try:
            parsed = URL(str(httpx.URL(url)))  # as registration reads it
        except httpx.InvalidURL as exc:
            raise ValueError("this is not a URL") from exc
        if parsed.scheme not in ("http", "https"):
            raise aiohttp.NonHttpUrlClientError(parsed)
        place = _place(url)
        tls = True if certificate is None else self._contexts.get(certificate)
        request = ClientRequest("POST", parsed, loop=self._loop, ssl=tls)
        usual = {
            "host": request.headers["host"],
            "accept": "*/*",
            "user-agent": self._user_agent,
        }
        if (egress := self._connector.egress) is not None:
            egress.route(request)
            if request.proxy is not None and not request.is_ssl():
                place = f"{parsed.origin()}{place}"
                if (login := request.headers.get(hdrs.PROXY_AUTHORIZATION)) is not None:
                    usual["proxy-authorization"] = login
        return _Target(
            request=request,
            start=f"POST {place} HTTP/1.1\r\n",
            usual=usual,
            usual_lines=_lines(usual),
        )


def _place(url: str) -> str:
    """The path and query exactly as in the URL.

    Characters outside ASCII are encoded: registration refuses them now, but older data may have
    them.
    """
    found = _PLACE.fullmatch(url)
    if found is None:
        raise ValueError("HTTP cannot carry this URL")
    place = _NOT_ASCII.sub(lambda text: quote(text[0]), found[1])
    return place if place.startswith("/") else f"/{place}"


def _head(target: _Target, headers: Mapping[str, str], length: int) -> bytes:
    """The request up to its body; given headers replace the usual ones."""
    given = {_field_name(name): value for name, value in headers.items()}
    usual = target.usual_lines
    if not given.keys().isdisjoint(target.usual):
        usual = _lines({name: of for name, of in target.usual.items() if name not in given})
    lines = _lines(given)
    return f"{target.start}{usual}{lines}content-length: {length}\r\n\r\n".encode("ascii")


def _lines(fields: Mapping[str, str]) -> str:
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    if not lines.count("\r") == lines.count("\n") == len(fields) or "\0" in lines:
        raise ValueError("a header field contains a line break or a null")
    return lines


@lru_cache(maxsize=1024)
def _field_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("this is not the name of a header field")
    return name.lower()


async def _exchange(
    connection: Connection, request: bytes, timeline: Timeline, answer: Answer
) -> None:
    """One request and its response; it returns the connection, or ends it if the body continues."""
    protocol = cast("AnswerProtocol | None", connection.protocol)
    transport = connection.transport
    if protocol is None or transport is None or transport.is_closing():
        raise aiohttp.ServerDisconnectedError
    protocol.set_response_params(
        read_until_eof=True,
        auto_decompress=False,
        max_line_size=MAX_HEAD_BYTES,
        max_field_size=MAX_HEAD_BYTES,
        max_headers=MAX_FIELDS,
    )
    transport.write(request)
    try:
        message, payload = await protocol.read()
    except BaseException:
        answer.status = protocol.status  # of a response whose header is incomplete
        raise
    timeline.answered_at = time.perf_counter()
    answer.status = message.code
    answer.retry_after = message.headers.get("retry-after")
    answer.flaw = protocol.flaw
    if answer.flaw is not None:
        connection.close()
        return
    length = 0
    while not payload.at_eof():
        chunk = await payload.readany()
        if length < answer.keep:
            answer.excerpt += chunk[: answer.keep - length]
        length += len(chunk)
        if length >= BODY_LIMIT:
            connection.close()
            return
    connection.release()


def _abort(connection: Connection) -> None:
    """Ends a connection without waiting until the peer has read the unsent bytes."""
    if connection.protocol is not None:
        connection.protocol.abort()
    connection.close()
