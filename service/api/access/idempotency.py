"""`Idempotency-Key`: a repeated request gets the first response and changes nothing."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import cast

from litestar import Request
from litestar.types import ASGIApp, HTTPResponseStartEvent, HTTPScope, Message, Receive, Scope, Send
from redis.exceptions import RedisError

from service.api.access.authentication import actor_of
from service.api.fields.refusals import FieldError, InvalidRequestError
from service.api.http.middleware import Layer
from service.api.http.requests import AnyRequest
from service.bootstrap import Services
from service.logs import get_logger
from service.storage.security.idempotency import Replies, Reply, Running

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
MAX_LENGTH = 255
_FORM = re.compile(rf"[\x21-\x7e]{{1,{MAX_LENGTH}}}")
_FORBIDDEN = 403
_OUR_FAULT = 500  # the lowest status of responses that are not stored
_KEPT_HEADERS = (b"content-type", b"location", b"etag", b"cache-control")

_log = get_logger("api")


class Idempotency(Layer):
    """Stores the responses to `POST` requests that carry a key, per actor and for a day.

    A response is sent after it is stored, so a client that received it can rely on the repetition.
    A 403 and responses of 500 or more are not stored, so that the request can be sent again.
    """

    for_changes = True

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Passes the request on unless its response is stored."""
        if cast("HTTPScope", scope)["method"] != "POST":
            await next_app(scope, receive, send)
            return
        request: AnyRequest = Request(scope, receive, send)
        given = request.headers.get(HEADER)
        if given is None:
            await next_app(scope, receive, send)
            return
        if not _FORM.fullmatch(given):
            remedy = f"send 1 to {MAX_LENGTH} visible ASCII characters, such as a UUID"
            raise InvalidRequestError([FieldError(HEADER, "is not an idempotency key", remedy)])
        services: Services = request.app.state.services
        same = b"\n".join(
            (scope["path"].encode(), scope.get("query_string", b""), await request.body())
        )
        found = await services.replies.begin(actor_of(request).name, given, same)
        if isinstance(found, Reply):
            await _replay(found, send)
        else:
            await _run(services.replies, found, scope, receive, send, next_app)


async def _run(
    replies: Replies, running: Running, scope: Scope, receive: Receive, send: Send, app: ASGIApp
) -> None:
    """Runs a request, stores its response and sends it."""
    held: list[Message] = []
    kept = False

    async def hold(message: Message) -> None:
        held.append(message)

    try:
        await app(scope, receive, hold)
        reply = _reply(held)
        if reply.status < _OUR_FAULT and reply.status != _FORBIDDEN:
            try:
                await replies.keep(running, reply)
                kept = True
            except (RedisError, OSError) as error:  # the change has been made
                _log.error("idempotent response not stored", reason=type(error).__name__)
                kept = True
    finally:
        if not kept:
            with suppress(RedisError, OSError):  # the mark of a running request expires
                await replies.forget(running)
    for message in held:
        await send(message)


def _reply(held: list[Message]) -> Reply:
    start = cast("HTTPResponseStartEvent", held[0])
    return Reply(
        status=start["status"],
        headers=[
            (name, value) for name, value in start["headers"] if name.lower() in _KEPT_HEADERS
        ],
        body=b"".join(
            message.get("body", b"") for message in held if message["type"] == "http.response.body"
        ),
    )


async def _replay(reply: Reply, send: Send) -> None:
    headers = [
        *reply.headers,
        (b"content-length", str(len(reply.body)).encode()),
        (REPLAYED.lower().encode(), b"true"),
    ]
    start: HTTPResponseStartEvent = {
        "type": "http.response.start",
        "status": reply.status,
        "headers": headers,
    }
    await send(start)
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})
