"""Settings of the systems before the API: a path prefix, origins of web pages, trusted proxies."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from service.domain.hosts import read_network

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# First segments of the API's own paths: a prefix with such a beginning would be ambiguous.
OWN_PATHS = frozenset({"v1", "schema", "healthz", "readyz", "metrics"})
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def read_prefix(text: str) -> str:
    """A path prefix, with a slash at its start and none at its end. Raises ValueError."""
    path = "/" + text.strip("/")
    if path == "/":
        return ""
    if not _PREFIX.fullmatch(path) or {".", ".."} & {*path.split("/")}:
        raise ValueError(f"{text!r} is not a path; write for example /coursewire")
    if path.split("/")[1] in OWN_PATHS:
        raise ValueError(
            f"{text!r} begins like a path of the API itself; choose another first segment"
        )
    return path


def read_origin(text: str) -> str:
    """An origin as browsers send it. Raises ValueError."""
    if "*" in text:
        raise ValueError(
            f"{text!r} is a pattern; name each origin, such as https://app.example.com"
        )
    try:
        parts = urlsplit(text.lower())
        port = parts.port
    except ValueError:
        raise ValueError(f"{text!r} is not an origin; write https://app.example.com") from None
    exact = parts.scheme in _DEFAULT_PORTS and parts.hostname and parts.path in ("", "/")
    if not exact or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(
            f"{text!r} is not an origin; write scheme and host, such as https://app.example.com"
        )
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    shown = "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{host}{shown}"


def read_proxy(text: str) -> str:
    """The network that a trusted proxy is in. Raises ValueError."""
    network = read_network(text, repr(text))
    if network is None:
        raise ValueError(f"{text!r} is neither an address nor a CIDR; write for example 10.0.0.0/8")
    return network


def read_address(text: str) -> Address | None:
    """The address in an element of `X-Forwarded-For`, without port and brackets; None if it has
    none.

    An IPv4 address inside an IPv6 address becomes that IPv4 address.
    """
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address


def is_among(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of the networks contains the address."""
    return any(address in network for network in networks)


def client_address(peer: Address, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address:
    """The client's address, if `peer` is a trusted proxy that sent `forwarded`, the elements of
    `X-Forwarded-For` from left to right.

    Each trusted proxy vouches for the element on its left. So the client is the rightmost address
    that is not a trusted proxy. If that element is not an address, it is the proxy that sent it.
    """
    known = peer
    for element in reversed(forwarded):
        address = read_address(element)
        if address is None:
            break
        known = address
        if not is_among(address, trusted):
            break
    return known
