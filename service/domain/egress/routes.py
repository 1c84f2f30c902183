"""The forward proxy: its address, and the requests that go through it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Literal
from urllib.parse import unquote, urlsplit

import msgspec

PROXY_SETTING = "COURSEWIRE_EGRESS_PROXY"
BYPASS_SETTING = "COURSEWIRE_NO_PROXY"

_EXAMPLE = "write http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before HOST if needed"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_PORT = re.compile(r"[0-9]{1,5}")
_NOT_IN_A_LOGIN = re.compile(r"[\x00-\x1f\x7f]")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f\\]")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """A forward proxy. `host` carries no brackets; user and password are never shown."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    user: str | None = None
    password: str = ""

    @property
    def address(self) -> str:
        """The proxy's URL without its credentials."""
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Proxy({self.address!r}{', credentials=…' if self.user is not None else ''})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("address", self.address)]


def read_egress_proxy(text: str) -> Proxy:
    """The proxy in a URL. Raises ValueError without any part of the URL."""
    # A password with an unescaped special character may be anywhere in the URL.
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(
            f"is not a URL; {_EXAMPLE}, and percent-encode / @ : # ? of a password"
        ) from None
    if "://" not in text or parts.scheme not in ("http", "https"):
        raise ValueError(f"does not begin with http:// or https://; {_EXAMPLE}")
    if _UNPRINTABLE.search(text):
        raise ValueError(f"contains a space, a control character or a backslash; {_EXAMPLE}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError(
            f"has text after the port; {_EXAMPLE}, and percent-encode / @ : # ? of a password"
        )
    name = (host or "").removesuffix(".")
    if not _is_host(name):
        raise ValueError(f"has no host; {_EXAMPLE}")
    if port == 0:
        raise ValueError(f"has port 0; {_EXAMPLE}")
    user, password = _login(parts.username, parts.password)
    return Proxy(
        scheme="http" if parts.scheme == "http" else "https",
        host=name,
        port=port or _DEFAULT_PORTS[parts.scheme],
        user=user,
        password=password,
    )


def _login(user: str | None, password: str | None) -> tuple[str | None, str]:
    if user is None:
        return None, ""
    try:
        name, secret = (unquote(part or "", errors="strict") for part in (user, password))
    except UnicodeDecodeError:
        raise ValueError("has credentials that are not percent-encoded UTF-8") from None
    if _NOT_IN_A_LOGIN.search(name + secret):
        raise ValueError("has a control character in its credentials; remove it")
    if ":" in name:
        raise ValueError("has a colon in the user name, which Basic authentication cannot carry")
    return (name, secret) if name or secret else (None, "")


class Pattern(msgspec.Struct, frozen=True):
    """One entry of the list of targets that are reached without the proxy.

    At most one of `network`, `name` and `suffix` is set; none of them for all hosts. `port` limits
    the entry to one port.
    """

    network: _Network | None = None
    name: str = ""
    suffix: str = ""
    port: int | None = None

    def matches(self, host: str, port: int) -> bool:
        """Whether the entry matches a target; `host` is in lower case, without brackets or final
        dot."""
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            address = _address(host)
            return address is not None and address in self.network
        if self.suffix:
            return host.endswith(self.suffix)
        return not self.name or host == self.name


def read_pattern(text: str) -> Pattern:
    """The pattern of an entry. Raises ValueError with a remedy."""
    entry = text.strip().lower()
    if entry == "*":
        return Pattern()
    if (network := _network(entry)) is not None:
        return Pattern(network=network)
    host, port = _split_port(entry)
    if host == "*":
        return Pattern(port=port)
    if (network := _network(host)) is not None:
        return Pattern(network=network, port=port)
    name = host.removesuffix(".")
    suffixed = name.startswith((".", "*."))
    if suffixed:
        name = name.removeprefix("*").removeprefix(".")
    if not _is_host(name) or _address(name) is not None:
        raise ValueError(
            f"{text[:100]!r} is neither a host name, .SUFFIX, an address, a CIDR, HOST:PORT nor *; "
            "write for example 10.0.0.0/8,hooks.internal,.example.com"
        )
    return Pattern(suffix=f".{name}", port=port) if suffixed else Pattern(name=name, port=port)


class Routes:
    """Decides for each target whether it is reached through the proxy."""

    def __init__(self, proxy: Proxy | None, patterns: Sequence[str] = ()) -> None:
        self.proxy = proxy
        self._patterns = tuple(read_pattern(one) for one in patterns)

    def proxy_for(self, host: str, port: int) -> Proxy | None:
        """The proxy that requests to this host go through, or None if they go directly."""
        name = host.lower().strip("[]").removesuffix(".")
        if any(pattern.matches(name, port) for pattern in self._patterns):
            return None
        return self.proxy


def _split_port(entry: str) -> tuple[str, int | None]:
    """An entry's host, without brackets, and its port if there is one."""
    if entry.startswith("["):
        host, bracket, rest = entry[1:].partition("]")
        given = rest.removeprefix(":") if rest.startswith(":") else None
        if not bracket or (rest and given is None):
            raise ValueError(
                f"{entry[:100]!r} is not an address in brackets; write for example [::1]:8080"
            )
    elif entry.count(":") == 1:
        host, _, given = entry.partition(":")
    else:
        return entry, None
    if given is None:
        return host, None
    if not _PORT.fullmatch(given) or not 1 <= int(given) <= 65535:
        raise ValueError(f"{entry[:100]!r} has no usable port; give a number from 1 to 65535")
    return host, int(given)


def _network(text: str) -> _Network | None:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        pass
    else:
        return network
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    raise ValueError(f"{text[:100]!r} has host bits set; write {meant}")


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_host(name: str) -> bool:
    """Whether this is an address, or a name that no resolver could parse as one."""
    if _address(name) is not None:
        return "%" not in name
    return bool(_HOST_NAME.fullmatch(name)) and not name.rpartition(".")[2].isdecimal()
