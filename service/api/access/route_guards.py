"""Guards of routes: the scopes that each accepts."""

from __future__ import annotations

from typing import Any, cast

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler

from service.api.access.authentication import require_own, who_asks
from service.domain.access.grants import Scope
from service.domain.errors import ForbiddenError

_OWN = "subscription_id"


class Opens:
    """Accepts requests whose token has one of the scopes.

    It accepts a subscriber's requests about one subscription only if the subscriber owns it,
    whatever the handler does.
    """

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = tuple(scope for scope in Scope if scope in scopes)

    async def __call__(
        self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        """Raises ForbiddenError or NotFoundError."""
        scope = connection.scope
        actor = who_asks(scope)
        if actor.scope not in self.scopes:
            method = cast("dict[str, str]", scope)["method"]
            raise ForbiddenError(
                f"the scope `{actor.scope}` does not cover {method} {scope['path_template']}"
            )
        if (subscription_id := scope["path_params"].get(_OWN)) is not None:
            await require_own(actor, connection.app.state.services, subscription_id)


ADMINS = Opens(Scope.ADMIN)
READERS = Opens(Scope.ADMIN, Scope.READ)
SUBSCRIBERS = Opens(Scope.ADMIN, Scope.SUBSCRIBER)
READERS_AND_SUBSCRIBERS = Opens(Scope.ADMIN, Scope.READ, Scope.SUBSCRIBER)
EVERY_SCOPE = Opens(*Scope)
METRICS_READERS = Opens(Scope.ADMIN, Scope.READ, Scope.METRICS)


def guard_of(handler: HTTPRouteHandler) -> Opens:
    """The guard of a route that needs a token. Raises TypeError unless it has exactly one."""
    guards = [one for one in handler.guards or () if isinstance(one, Opens)]
    if len(guards) != 1:
        raise TypeError(f"{handler} must have one guard that names its scopes")
    return guards[0]
