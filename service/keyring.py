"""Creates, lists, rotates and revokes the API keys of a running service, over its API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from service.data_directory import ADMIN_TOKEN_FILE
from service.domain.errors import StartError
from service.settings import PREFIX, Settings

_PATH = "/v1/api-keys"
_SECONDS = 30.0  # within which the API must answer
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - no binding here


class Keyring:
    """The keys of the API at `url`, or where the settings have it listen. The admin token is that
    of the settings, or the one that `coursewire up` made."""

    def __init__(self, settings: Settings, url: str | None = None) -> None:
        self._url = url or _address(settings)
        self._token = settings.admin_token or _made_token(settings)

    def create(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """A new key with its token. Raises StartError, as all of these."""
        created: dict[str, Any] = self._ask("POST", _PATH, wanted)
        return created

    def list(self) -> Iterator[dict[str, Any]]:
        """The keys that have not been revoked."""
        page = self._ask("GET", _PATH)
        yield from page["items"]
        while page["next"] is not None:
            page = self._ask("GET", f"{_PATH}?after={page['next']}")
            yield from page["items"]

    def rotate(self, key_id: str) -> dict[str, Any]:
        """The key with a new token."""
        rotated: dict[str, Any] = self._ask("POST", f"{_of(key_id)}/token/rotate")
        return rotated

    def revoke(self, key_id: str) -> None:
        """Revokes a key."""
        self._ask("DELETE", _of(key_id))

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        """The JSON that a request is answered with, None if nothing is. Raises StartError, in
        words for the person at the terminal."""
        headers = {"authorization": f"Bearer {self._token}"}
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            answer = httpx.request(
                method,
                self._url.rstrip("/") + path,
                headers=headers,
                content=None if body is None else msgspec.json.encode(body),
                timeout=_SECONDS,
                trust_env=False,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise StartError(
                f"no service answers at {self._url} ({error}); start it, or give its --url"
            ) from error
        try:
            content = msgspec.json.decode(answer.content) if answer.content else None
        except msgspec.DecodeError:
            content = None
        if not answer.is_success:
            raise StartError(_said(content) or f"{self._url} answers with {answer.status_code}")
        return content


def _of(key_id: str) -> str:
    return f"{_PATH}/{quote(key_id, safe='')}"


def _address(settings: Settings) -> str:
    host = _ANYWHERE.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _made_token(settings: Settings) -> str:
    path = settings.data_dir / ADMIN_TOKEN_FILE
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise StartError(
            f"{PREFIX}ADMIN_TOKEN is not set, and {path} cannot be read; set the token of the "
            f"service, or {PREFIX}DATA_DIR to the directory of its `coursewire up`"
        ) from None


def _said(problem: Any) -> str:
    """What a problem document says, in one line."""
    if not isinstance(problem, dict) or "detail" not in problem:
        return ""
    fields = [
        f"{one['field']} {one['message']}: {one['remedy']}" for one in problem.get("errors", ())
    ]
    return "; ".join(fields) or str(problem["detail"])
