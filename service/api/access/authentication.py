"""Authenticates requests by their bearer token."""

from __future__ import annotations

import hmac
import re
from contextlib import suppress
from typing import Any

from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.types import ASGIApp, Receive, Scope, Send
from redis.exceptions import RedisError

from service.api.access.auth_throttle import Failures
from service.api.fields.kinds import KEY_PREFIXES
from service.api.http.middleware import Layer
from service.api.http.problems import ErrorAnswers
from service.bootstrap import Services
from service.domain.access.grants import Actor
from service.domain.access.grants import Scope as Opened
from service.domain.access.pasted_secrets import is_visible, trimmed
from service.domain.errors import NotAuthenticatedError, NotFoundError
from service.logs import get_logger
from service.settings import Settings
from service.storage.security.audit import AuditRecord

AnyRequest = Request[Any, Any, State]
GivenActor = NamedDependency[Actor]


_ACTOR = "actor"
_ADMIN = Actor(name="admin token", scope=Opened.ADMIN)
_PREVIOUS_ADMIN = Actor(name="previous admin token", scope=Opened.ADMIN)
_METRICS = Actor(name="metrics token", scope=Opened.METRICS)
_log = get_logger("api")
_SCHEME = re.compile(r"bearer[\s:]", re.IGNORECASE)
_WHERE = (
    "use the token of an API key, or COURSEWIRE_ADMIN_TOKEN, which `coursewire up` keeps in "
    "DATA_DIR/admin-token"
)


class Authentication(Layer):
    """Accepts requests with a valid token, and records their actor."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Passes the request on. Raises NotAuthenticatedError or TooManyFailuresError."""
        scope["state"][_ACTOR] = await _identify(scope)
        await next_app(scope, receive, send)


PROTECTED = (ErrorAnswers(), Authentication())  # the middleware of routes that need a token


async def provide_actor(request: AnyRequest) -> Actor:
    """The actor of a request."""
    return actor_of(request)


def actor_of(request: AnyRequest) -> Actor:
    """The actor of a request."""
    return who_asks(request.scope)


def who_asks(scope: Scope) -> Actor:
    """The actor that `Authentication` found."""
    actor: Actor = scope["state"][_ACTOR]
    return actor


def address_of(request: AnyRequest) -> str:
    """The client's address: that of the connection, or the one that a trusted proxy reports."""
    return request.client.host if request.client is not None else "unknown"


async def require_own(actor: Actor, services: Services, subscription_id: str) -> None:
    """Raises NotFoundError if the subscription does not exist, or the actor may not see it."""
    if actor.owner is None:
        return
    (found,) = await services.subscriptions.get_many([subscription_id])
    if found is None or not actor.owns(found.owner):
        raise NotFoundError(f"there is no subscription {subscription_id}")


async def _identify(scope: Scope) -> Actor:
    header = _authorization(scope)
    scheme, _, given = header.partition(" ")
    token = given.strip() if scheme.lower() == "bearer" else None
    if token is not None and (actor := await _holder(scope, token)) is not None:
        return actor
    # The token is malformed: perhaps something was copied along with it.
    begins = _SCHEME.match(trimmed(header, "authorization:").text)
    if begins is None:
        raise NotAuthenticatedError(f"send the header `Authorization: Bearer TOKEN`; {_WHERE}")
    pasted = trimmed(begins.string[begins.end() :], *KEY_PREFIXES)
    if pasted.text != token and (actor := await _holder(scope, pasted.text)) is not None:
        return actor
    services: Services = scope["litestar_app"].state.services
    failures: Failures = scope["litestar_app"].state.failures
    address = address_of(Request(scope))
    if failures.note(address):
        await _tell(address, services)
    wrong = pasted._replace(start=0).wrong(is_visible)
    reason = "" if wrong is None else f": {wrong}; copy the token again"
    raise NotAuthenticatedError(f"this token is not valid{reason}; {_WHERE}")


async def _holder(scope: Scope, token: str) -> Actor | None:
    """The actor that a token belongs to."""
    state = scope["litestar_app"].state
    settings: Settings = state.settings
    # The token is compared with all of them, so that the time taken reveals nothing.
    matching = [
        actor
        for actor, known in (
            (_ADMIN, settings.admin_token),
            (_PREVIOUS_ADMIN, settings.previous_admin_token),
            (_METRICS, settings.metrics_token),
        )
        if _equal(token, known)
    ]
    if matching:
        return matching[0]
    services: Services = state.services
    key = await services.api_keys.holder(token)
    if key is not None:
        return Actor(
            name=key.id,
            scope=key.scope,
            key_id=key.id,
            grant=key.visibility,
            expires_at=key.expires_at,
        )
    return None


def _authorization(scope: Scope) -> str:
    """The header's value. A direct lookup, because a Request of the framework parses all headers,
    which takes longer than the rest of the authentication."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            try:
                return value.decode()
            except UnicodeDecodeError:
                return value.decode("latin-1")
    return ""


async def _tell(address: str, services: Services) -> None:
    """Records a burst of wrong tokens in the audit trail, if Redis accepts the record."""
    _log.warning("too many failed authentication attempts", address=address)
    with suppress(RedisError, OSError):
        await services.audit.note(AuditRecord(action="authentication.failed", address=address))


def _equal(given: str, token: str | None) -> bool:
    return token is not None and hmac.compare_digest(given.encode(), token.encode())
