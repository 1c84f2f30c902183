"""Serves the reference page: Swagger UI over the OpenAPI document, every file from this package."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any, Final

import msgspec
from litestar import Request, Router
from litestar.datastructures import CacheControlHeader, ResponseHeader
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.static_files import create_static_files_router

from service.api.access.authentication import PROTECTED
from service.api.access.route_guards import READERS_AND_SUBSCRIBERS
from service.api.schema.document import Contract

ASSETS: Final = Path(__file__).parent / "reference"
_ASSETS_PATH: Final = "/schema/assets"
_CACHING: Final = CacheControlHeader(private=True, max_age=3600)
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} API</title>
<link rel="icon" href="data:,">
<link rel="service-desc" type="application/json" href="{document}">
<link rel="stylesheet" href="{assets}/{style}">
<script src="{assets}/{script}" defer></script>
<script src="{assets}/start.js" defer></script>
</head>
<body>
<main id="reference" data-document="{document}"></main>
<noscript>This page needs JavaScript. The same as OpenAPI 3.1:
<a href="{document}">{document}</a></noscript>
</body>
</html>
"""


def schema_router(*, public: bool) -> Router:
    """Serves the document and its page; to everyone if `public`, otherwise to users of the API."""
    return Router(
        path="/schema",
        route_handlers=[],
        include_in_schema=False,
        middleware=() if public else PROTECTED,
        guards=[] if public else [READERS_AND_SUBSCRIBERS],
        response_headers=[ResponseHeader(name="content-security-policy", value=_POLICY)],
    )


class DocumentPlugin(JsonRenderPlugin):
    """Serves the document."""

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self._contract = contract

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The document as JSON."""
        return msgspec.json.encode(self._contract.of(openapi_schema))


class ReferencePlugin(SwaggerRenderPlugin):
    """Serves Swagger UI. The framework's own template needs inline scripts, which the policy
    forbids, and another host for the files."""

    def __init__(self) -> None:
        super().__init__(js_url="swagger-ui-bundle.js", css_url="swagger-ui.css", path="/")

    def receive_router(self, router: Router) -> None:
        """Adds the files, and removes the framework's page for unknown paths, because these are
        problems here too."""
        router.routes[:] = [one for one in router.routes if not one.path.endswith("{path:str}")]
        router.register(
            create_static_files_router(
                path="/assets", directories=[ASSETS], name="assets", cache_control=_CACHING
            )
        )

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page, which requests the document."""
        prefix = request.app.state.settings.root_path
        return _PAGE.format(
            title=escape(openapi_schema["info"]["title"]),
            document=escape(prefix + self.get_openapi_json_route(request)),
            assets=escape(prefix + _ASSETS_PATH),
            style=self.css_url,
            script=self.js_url,
        ).encode()
