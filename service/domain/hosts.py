"""Hosts and networks: how settings name them, and how requests and URLs write them."""

from __future__ import annotations

import ipaddress
from typing import Final

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - no binding here


def reachable(host: str) -> str:
    """The host at which a service that listens on `host` is reached from the same machine."""
    return _EVERYWHERE.get(host, host)


def in_header(host: str) -> str:
    """A host as a Host header has it: an IPv6 address in brackets, without its zone."""
    return f"[{host.partition('%')[0]}]" if ":" in host else host


def in_url(host: str) -> str:
    """A host as a URL has it: an IPv6 address in brackets, the % of its zone encoded."""
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
