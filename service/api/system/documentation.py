"""Serves the documentation that `make site` built, below `/docs`."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from litestar import Request, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.response import File, Redirect

from service.domain.errors import SettingsError

_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_POLICY: Final = (
    "default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def documentation_route(directory: Path) -> HTTPRouteHandler:
    """The files of `directory`. A page may run the scripts that it had when this process started.

    Raises SettingsError if `directory` has no page.
    """
    if not (directory / "index.html").is_file():
        raise SettingsError(
            f"COURSEWIRE_DOCS_DIR: {directory} has no index.html; name the folder that "
            "`make site` wrote"
        )
    directory = directory.resolve()
    scripts = {
        script
        for page in directory.rglob("*.html")
        for script in _SCRIPT.findall(page.read_bytes())
    }
    hashes = sorted(f"'sha256-{b64encode(sha256(one).digest()).decode()}'" for one in scripts)
    headers = {
        "cache-control": "no-cache",
        "content-security-policy": _POLICY.format(scripts=" ".join(hashes)),
        "x-content-type-options": "nosniff",
    }

    @get(["/docs", "/docs/{name:path}"], include_in_schema=False)
    async def show_page(request: Request[Any, Any, Any]) -> File | Redirect:
        """A file, or the home page, whose links are relative to its own address."""
        file = (directory / str(request.path_params.get("name", "")).lstrip("/")).resolve()
        if file == directory:
            return Redirect("/docs/index.html")
        if not file.is_relative_to(directory) or not file.is_file():
            raise NotFoundException
        return File(file, filename=file.name, content_disposition_type="inline", headers=headers)

    return show_page
