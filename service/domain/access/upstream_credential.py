"""The credential of requests to the upstream."""

from __future__ import annotations

import msgspec


class UpstreamCredential(msgspec.Struct, frozen=True):
    """The upstream's address and API key; `repr` leaves the key out."""

    base_url: str
    api_key: str

    def __repr__(self) -> str:
        return f"UpstreamCredential(base_url={self.base_url!r}, api_key=…)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("base_url", self.base_url), ("api_key", "…")]
