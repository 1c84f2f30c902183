"""Decides who may ask: bearer tokens, compared in constant time."""

from __future__ import annotations

import hmac
from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler

from service.settings import Settings

Connection = ASGIConnection[Any, Any, Any, Any]

_CHALLENGE = {"www-authenticate": 'Bearer realm="coursewire"'}
_WHERE = "it is COURSEWIRE_ADMIN_TOKEN, which `coursewire up` keeps in DATA_DIR/admin-token"


def require_admin(connection: Connection, _handler: BaseRouteHandler) -> None:
    """Lets through who has the admin token. Raises NotAuthorizedException."""
    settings: Settings = connection.app.state.settings
    _require(connection, settings.admin_token)


def require_metrics(connection: Connection, _handler: BaseRouteHandler) -> None:
    """Lets through who has the admin or the metrics token. Raises NotAuthorizedException."""
    settings: Settings = connection.app.state.settings
    _require(connection, settings.admin_token, settings.metrics_token)


def _require(connection: Connection, *tokens: str | None) -> None:
    scheme, _, given = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise NotAuthorizedException(
            f"send the header `Authorization: Bearer TOKEN`; {_WHERE}", headers=_CHALLENGE
        )
    # Every token is compared, so that the time says nothing about which of them came close.
    matches = [
        token is not None and hmac.compare_digest(given.strip().encode(), token.encode())
        for token in tokens
    ]
    if not any(matches):
        raise NotAuthorizedException(f"this token is not valid; {_WHERE}", headers=_CHALLENGE)
