"""Serves the browser console: one page for every path below `/console`, and the files it loads."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from litestar import MediaType, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler

STATIC: Final = Path(__file__).parent / "static"
_PAGE: Final = Path(__file__).parent / "page.html"
_FIRST_PAGE: Final = ("pages/overview.js", "pages/plots.js")
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
_PAGE_HEADERS: Final = {**_HEADERS, "cache-control": "no-cache"}
_FILE_HEADERS: Final = {**_HEADERS, "cache-control": "public, max-age=31536000, immutable"}


def console_route(root_path: str, *, documented: bool) -> HTTPRouteHandler:
    """The console, for requests whose path may still begin with the prefix `root_path`. It links to
    `/docs` if that is served. The path of a file contains the digest of all files, so that caches
    may keep it."""
    files = {
        path.relative_to(STATIC).as_posix(): path.read_bytes()
        for path in sorted(STATIC.rglob("*"))
        if path.is_file()
    }
    assets = f"assets/{hashlib.sha256(b''.join(files.values())).hexdigest()[:16]}"
    preloads = "\n".join(
        f'<link rel="modulepreload" href="{{assets}}/{name}">'
        for name in files
        if name.endswith(".js") and (not name.startswith("pages/") or name in _FIRST_PAGE)
    )
    docs = "docs/index.html" if documented else ""
    html = _PAGE.read_text().replace("{preloads}", preloads).replace("{docs}", docs)

    @get(["/console", "/console/{page:path}"], include_in_schema=False, media_type=MediaType.HTML)
    async def show_console(request: Request[Any, Any, Any]) -> Response[str | bytes]:
        """The page, or a file of it. Its links are relative, so that it works under any prefix of
        a proxy."""
        page = str(request.path_params.get("page", "")).removeprefix("/")
        if page.startswith("assets/"):
            name = page.removeprefix(f"{assets}/")
            if name not in files:
                raise NotFoundException
            media_type = _TYPES.get(Path(name).suffix, MediaType.TEXT)
            return Response(files[name], media_type=media_type, headers=_FILE_HEADERS)
        sent = request.scope["raw_path"].decode().removeprefix(root_path)
        depth = sent.count("/") - 2  # below /console/
        to_console = "console/" if depth < 0 else "../" * depth
        return Response(html.replace("{assets}", to_console + assets), headers=_PAGE_HEADERS)

    return show_console
