"""Records in the audit trail what each request changed."""

from __future__ import annotations

from typing import cast

import msgspec
from litestar import Request
from litestar.datastructures import MutableScopeHeaders
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from redis.exceptions import RedisError

from service.api.access.authentication import actor_of, address_of
from service.api.http.access_log import request_id_of
from service.api.http.middleware import Layer
from service.api.http.requests import AnyRequest, without_mark
from service.bootstrap import Services
from service.logs import get_logger
from service.storage.security.audit import AuditRecord

# `opt` of a route: the name of its audit record; None for a route that changes nothing
ACTION = "action"
_REFUSED = 400  # the lowest status of requests that changed nothing

_log = get_logger("api")


class AuditTrail(Layer):
    """Records a change before its response is sent. If the record cannot be written, it is logged,
    because the change has already been made."""

    for_changes = True

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Passes the request on."""
        method = cast("HTTPScope", scope)["method"]
        handler = cast("HTTPRouteHandler", scope["route_handler"])
        action = handler.opt.get(ACTION, f"{method} {scope['path_template']}")
        if action is None:
            await next_app(scope, receive, send)
            return
        request: AnyRequest = Request(scope, receive, send)
        fields = _names(await request.body())

        async def send_noting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < _REFUSED:
                location = MutableScopeHeaders.from_message(message).get("location", "")
                record = AuditRecord(
                    action=action,
                    actor=actor_of(request).name,
                    object_id=next(iter(scope["path_params"].values()), None)
                    or location.rpartition("/")[2]
                    or None,
                    fields=fields,
                    request_id=request_id_of(scope),
                    address=address_of(request),
                )
                await _note(request.app.state.services, record)
            await send(message)

        await next_app(scope, receive, send_noting)


async def _note(services: Services, record: AuditRecord) -> None:
    try:
        await services.audit.note(record)
    except (RedisError, OSError) as error:
        _log.error(
            "audit record not written",
            reason=type(error).__name__,
            **msgspec.structs.asdict(record),
        )


def _names(body: bytes) -> tuple[str, ...]:
    """The names of the fields in a body."""
    try:
        document = msgspec.json.decode(without_mark(body)) if body else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    return tuple(document) if isinstance(document, dict) else ()
