"""Hosts and networks: their forms in settings, requests and URLs."""

from __future__ import annotations

import ipaddress
from typing import Final

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - no binding here


def reachable(host: str) -> str:
    """The host for connections from the same machine to a service that listens on `host`."""
    return _EVERYWHERE.get(host, host)


def in_header(host: str) -> str:
    """A host as in a Host header: an IPv6 address in brackets, without its zone."""
    return f"[{host.partition('%')[0]}]" if ":" in host else host


def in_url(host: str) -> str:
    """A host as in a URL: an IPv6 address in brackets, the % of its zone encoded."""
    return f"[{host.replace('%', '%25')}]" if ":" in host else host


def read_network(text: str, shown: str) -> str | None:
    """An address or a CIDR as a network; None if it is neither. Raises ValueError, which names the
    text as `shown`, if host bits are set."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    if ipaddress.ip_interface(text).ip != network.network_address:
        raise ValueError(f"{shown} has host bits set; write {network}")
    return str(network)
