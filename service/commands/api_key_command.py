"""Creates, lists, rotates and revokes the API keys of a running service, over its API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from service.commands.api_client import Remote

_PATH = "/v1/api-keys"


class Keyring:
    """The keys of a running service. Its methods raise RemoteError."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def create(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """A new key with its token."""
        created: dict[str, Any] = self._remote.call("POST", _PATH, wanted)
        return created

    def list(self) -> Iterator[dict[str, Any]]:
        """The keys that have not been revoked."""
        page = self._remote.call("GET", _PATH)
        yield from page["items"]
        while page["next"] is not None:
            page = self._remote.call("GET", f"{_PATH}?after={page['next']}")
            yield from page["items"]

    def rotate(self, key_id: str) -> dict[str, Any]:
        """The key with a new token."""
        rotated: dict[str, Any] = self._remote.call("POST", f"{_of(key_id)}/token/rotate")
        return rotated

    def revoke(self, key_id: str) -> None:
        """Revokes a key."""
        self._remote.call("DELETE", _of(key_id))


def _of(key_id: str) -> str:
    return f"{_PATH}/{quote(key_id, safe='')}"
