"""The addresses that connections may go to, checked at connect time.

A URL's host name proves nothing: it may resolve to a private address now, or only at the next
lookup (rebinding). So `AddressGuard.open_socket`, which creates the socket of every connection of
the process, makes the final check; `check_url` only reports early which URLs can never work.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
from aiohttp.abc import AbstractResolver, ResolveResult

from service.domain.errors import SettingsError, TargetRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import AddrInfoType

SETTING = "COURSEWIRE_ALLOWED_TARGETS"

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# The special-purpose address registries of IANA, written out because the properties of `ipaddress`
# differ between the supported Python releases. First match wins.
_FORBIDDEN: tuple[tuple[IPNetwork, str], ...] = tuple(
    (ipaddress.ip_network(network), reason)
    for network, reason in (
        ("168.63.129.16/32", "a cloud metadata address"),  # Azure; public in form only
        ("169.254.169.254/32", "a cloud metadata address"),
        ("169.254.170.2/32", "a cloud metadata address"),  # ECS task credentials
        ("100.100.100.200/32", "a cloud metadata address"),  # Alibaba
        ("192.0.0.192/32", "a cloud metadata address"),  # Oracle
        ("fd00:ec2::254/128", "a cloud metadata address"),
        ("fd20:ce::254/128", "a cloud metadata address"),  # Google over IPv6
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "a documentation address"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "a benchmarking address"),
        ("198.51.100.0/24", "a documentation address"),
        ("203.0.113.0/24", "a documentation address"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("64:ff9b:1::/48", "local-use NAT64"),
        ("100::/64", "a discard address"),
        ("2001::/32", "a Teredo tunnel"),
        ("2001:2::/48", "a benchmarking address"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "a documentation address"),
        ("2002::/16", "a 6to4 tunnel"),
        ("3fff::/20", "a documentation address"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
_LOCALHOST = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
# a last label that makes the host an address
_NUMERIC_LABEL = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)")
_AUTHORITY_END = re.compile(r"[/?#]")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f\\]")

# names looked up at once; a resolver that hangs occupies a thread for half a minute
LOOKUP_THREADS = 32
LOOKUP_PATIENCE_SECONDS = 3.0  # for a lookup to wait for a thread


class RefusedAddressError(OSError):
    """The guard refuses an address: the error inside the HTTP client.

    An OSError, because the connector expects one of a failing address and keeps it as the cause;
    `transport` translates it. Its text is the same for all addresses, because only then do several
    failures together keep this type.
    """

    def __init__(self, explanation: str) -> None:
        super().__init__(errno.EACCES, "refused by the address guard")
        self.explanation = explanation


class VouchedAddress(str):
    """An address that an allowed host name resolved to.

    The permission belongs to the looked-up address, so it allows that address for this name only
    and ends with the name's cache entry.
    """

    __slots__ = ()


class AddressGuard:
    """Refuses every address that is not public, except the operator's exceptions.

    `allowed` holds CIDRs, single addresses and host names. Raises `SettingsError` naming each entry
    that is none of these.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        networks: list[IPNetwork] = []
        names: set[str] = set()
        problems: list[str] = []
        for entry in allowed:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError as exc:
                name = entry.lower().removesuffix(".")
                if _is_host_name(name):
                    names.add(name)
                else:
                    problems.append(f"{entry!r} ({exc})" if "/" in entry else repr(entry))
        if problems:
            raise SettingsError(
                f"{SETTING}: neither a CIDR, an address nor a host name: {', '.join(problems)}"
            )
        self._networks = tuple(networks)
        self._names = frozenset(names)

    def check_url(self, url: str) -> None:
        """Raise `TargetRefusedError` if requests to `url` could never be allowed.

        Checks the form and IP literals. Addresses of host names are checked at connect time.
        """
        host = _host_of(url)
        if host in self._names:
            return
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            self._check_name(host)
            return
        if (reason := self.reason(address)) is not None:
            raise TargetRefusedError(
                f"{host} is {reason}; add {_target(address)} to {SETTING} and restart"
            )

    def judge(self, address: str) -> str | None:
        """Why connecting to this IP address is refused, or None if it may be connected to."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return "not an IP address"
        return self.reason(parsed)

    def allows_name(self, host: str) -> bool:
        """Whether the operator allows this host name, whatever address it resolves to."""
        return host.lower().removesuffix(".") in self._names

    def open_socket(self, target: AddrInfoType) -> socket.socket:
        """A socket for connecting to `target`, the last step before the connection.

        The connector calls it with the final address of every connection. Raises
        `RefusedAddressError`.
        """
        family, kind, protocol, _, address = target
        host = address[0]
        if not isinstance(host, VouchedAddress):
            self.require(str(host))
        return socket.socket(family, kind, protocol)

    def require(self, address: str, name: str | None = None) -> None:
        """Raise `RefusedAddressError` unless `address`, which `name` resolved to, may be used."""
        if (reason := self.judge(address)) is None:
            return
        subject = f"{name} resolves to {address}, which" if name else address
        target = _target(ipaddress.ip_address(address)) if reason != "not an IP address" else None
        ways = " or ".join(str(way) for way in (target, name) if way)
        raise RefusedAddressError(
            f"{subject} is {reason}" + (f"; add {ways} to {SETTING} and restart" if ways else "")
        )

    def _check_name(self, host: str) -> None:
        if host != "localhost" and not host.endswith(".localhost"):
            return
        if all(self.reason(address) is not None for address in _LOCALHOST):
            raise TargetRefusedError(
                f"{host} is loopback; add {_LOOPBACK} or {host} to {SETTING} and restart"
            )

    def reason(self, address: IPAddress) -> str | None:
        """Why this address is refused, or None if it may be used."""
        if self._covers(address):
            return None
        embedded = _embedded(address)
        if embedded is not None and self._covers(embedded):
            return None
        for network, reason in _FORBIDDEN:
            if address in network:
                return reason if embedded is None else f"{reason} to {embedded}"
        if embedded is not None:
            return self.reason(embedded)
        if address.version == 6 and address not in _GLOBAL_UNICAST:
            return "reserved"
        return None

    def _covers(self, address: IPAddress) -> bool:
        return any(address in network for network in self._networks)


class GuardedResolver(AbstractResolver):
    """Looks names up for the connector and leaves out addresses that the guard refuses.

    It only selects among a name's addresses; the guard makes the final check when it creates the
    socket. `lookup` is another resolver to use instead of the system's.
    """

    def __init__(self, guard: AddressGuard, lookup: AbstractResolver | None = None) -> None:
        self._guard = guard
        self._lookup = lookup or SystemResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host` that may be connected to. Raises `OSError`."""
        found = await self._lookup.resolve(host, port, family)
        if self._guard.allows_name(host):
            for result in found:
                result["host"] = VouchedAddress(result["host"])
            return found
        usable = [result for result in found if self._guard.judge(result["host"]) is None]
        if found and not usable:
            self._guard.require(found[0]["host"], host)
        return usable

    async def close(self) -> None:
        """Close the resolver."""
        await self._lookup.close()


class SystemResolver(AbstractResolver):
    """Looks names up with the system's resolver, in its own threads.

    The event loop's default threads are few: a handful of names whose servers never answer would
    block every other lookup of the process.
    """

    def __init__(
        self, *, threads: int = LOOKUP_THREADS, patience: float = LOOKUP_PATIENCE_SECONDS
    ) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="lookup")
        self._patience = patience

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Every stream address of `host`.

        Raises `OSError`, with the errno of the resource that this machine lacks, if that is the
        cause.
        """
        loop = asyncio.get_running_loop()
        began = asyncio.Event()

        def look_up() -> list[Any]:
            loop.call_soon_threadsafe(began.set)
            try:
                return socket.getaddrinfo(
                    host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
                )
            except UnicodeError as exc:  # a label that no name server could know
                raise socket.gaierror(socket.EAI_NONAME, "not a host name") from exc
            except socket.gaierror:
                # Without a descriptor the system's resolver reports that the name cannot be looked
                # up now, or does not exist. This raises the real cause instead.
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
                raise

        try:
            lookup = loop.run_in_executor(self._threads, look_up)
        except RuntimeError as exc:
            raise OSError(errno.EAGAIN, "no thread can be started") from exc
        try:
            async with asyncio.timeout(self._patience):
                await began.wait()
        except TimeoutError as exc:
            lookup.cancel()
            raise OSError(errno.EAGAIN, "all threads are looking up other names") from exc
        found = await lookup
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found_family, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Cancel lookups that have not begun; running ones end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _host_of(url: str) -> str:
    """The URL's host in lower case without a final dot, or `TargetRefusedError`."""
    if _UNPRINTABLE.search(url):
        raise TargetRefusedError("the URL contains a space, a control character or a backslash")
    try:
        parts = httpx.URL(url)
        host = parts.raw_host.decode("ascii").lower()
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise TargetRefusedError(f"this is not a URL: {exc}") from exc
    if parts.scheme not in ("http", "https"):
        raise TargetRefusedError("the URL must begin with http:// or https://")
    if "@" in _AUTHORITY_END.split(url.partition("://")[2], maxsplit=1)[0]:
        raise TargetRefusedError("the URL must not contain credentials; send them in a header")
    if "#" in url:
        raise TargetRefusedError("the URL must not contain a fragment (#)")
    if parts.port is not None and not 1 <= parts.port <= 65535:
        raise TargetRefusedError("the port must be between 1 and 65535")
    name = host.removesuffix(".")
    if not name:
        raise TargetRefusedError("the URL has no host")
    _check_form(host, name)
    return name


def _check_form(host: str, name: str) -> None:
    """Refuse hosts that are neither a name nor an address in the usual notation."""
    if host == name:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
                raise TargetRefusedError(f"{host} has a zone, which is valid only on this machine")
            return
    try:
        meant = ipaddress.IPv4Address(socket.inet_aton(name))
    except OSError:
        pass
    else:
        raise TargetRefusedError(f"{host} is an unusual notation; write {meant}")
    if not _is_host_name(name):
        raise TargetRefusedError(f"{host} is neither a host name nor an address")


def _is_host_name(name: str) -> bool:
    """Whether this is a host name: no resolver could parse it as an address."""
    if not _HOST_NAME.fullmatch(name):
        return False
    return not _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2])


def _embedded(address: IPAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to this IPv6 address reach."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _target(address: IPAddress) -> IPAddress | IPNetwork:
    """The narrowest reasonable entry of the setting that would allow this address."""
    target = _embedded(address) or address
    return _LOOPBACK if target in _LOOPBACK else target
