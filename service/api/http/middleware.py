"""HTTP middleware that costs one call; the framework's own costs three."""

from __future__ import annotations

from collections.abc import Awaitable

from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

READING = frozenset({"GET", "HEAD"})


class Layer(ASGIMiddleware):
    """It does not check exclusions. Middleware that is `for_changes` alone is skipped on requests
    that only read."""

    for_changes = False

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """This layer before `app`."""
        handle, for_changes = self.handle, self.for_changes

        def layer(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            if for_changes and scope["method"] in READING:  # type: ignore[typeddict-item] # of HTTP alone
                return app(scope, receive, send)
            return handle(scope, receive, send, app)

        return layer
