"""The address guard: what is refused, what is allowed, and what it says about it."""

from __future__ import annotations

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from service.clients.address_guard import (
    AddressGuard,
    GuardedResolver,
    RefusedAddressError,
    SystemResolver,
    VouchedAddress,
)
from service.domain.errors import SettingsError, TargetRefusedError

FORBIDDEN_ADDRESSES = {
    "0.0.0.0": "unspecified",
    "0.1.2.3": "unspecified",
    "10.0.0.1": "private",
    "10.255.255.255": "private",
    "100.64.0.1": "carrier-grade",
    "100.100.100.200": "metadata",
    "100.127.255.255": "carrier-grade",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "metadata",
    "169.254.0.1": "link-local",
    "169.254.169.254": "metadata",
    "169.254.170.2": "metadata",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.8": "reserved",
    "192.0.0.192": "metadata",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarking",
    "198.19.255.255": "benchmarking",
    "198.51.100.7": "documentation",
    "203.0.113.9": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "::7f00:1": "reserved",  # IPv4-compatible 127.0.0.1
    "::ffff:127.0.0.1": "loopback",
    "::ffff:10.0.0.1": "private",
    "::ffff:169.254.169.254": "metadata",
    "::ffff:0:127.0.0.1": "reserved",  # IPv4-translated
    "64:ff9b::127.0.0.1": "loopback",
    "64:ff9b::a9fe:a9fe": "metadata",
    "64:ff9b:1::1": "NAT64",
    "100::1": "discard",
    "2001::1": "Teredo",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe": "Teredo",
    "2001:2::1": "benchmarking",
    "2001:10::1": "reserved",
    "2001:20::1": "reserved",
    "2001:db8::1": "documentation",
    "2002:7f00:1::": "6to4",
    "2002:c0a8:101::1": "6to4",
    "2002:808:808::1": "6to4",
    "3fff::1": "documentation",
    "4000::1": "reserved",
    "5f00::1": "reserved",
    "fc00::1": "private",
    "fd00:ec2::254": "metadata",
    "fd12:3456::1": "private",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "fec0::1": "private",
    "ff02::1": "multicast",
    "ff0e::1": "multicast",
    "localhost": "not an IP address",
    "127.1": "not an IP address",
    "": "not an IP address",
}
PUBLIC_ADDRESSES = (
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "192.0.1.1",
    "198.17.255.255",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450:4001:82a::200e",
    "2001:4860:4860::8888",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
)
FORBIDDEN_URLS = {
    "http://127.0.0.1/": "loopback",
    "http://127.0.0.1:8080/x": "loopback",
    "HTTPS://127.0.0.1/": "loopback",
    "http://127.0.0.1./": "unusual notation; write 127.0.0.1",
    "http://127.1/": "unusual notation; write 127.0.0.1",
    "http://127.0.1/": "unusual notation; write 127.0.0.1",
    "http://2130706433/": "unusual notation; write 127.0.0.1",
    "http://017700000001/": "unusual notation; write 127.0.0.1",
    "http://0x7f000001/": "unusual notation; write 127.0.0.1",
    "http://0X7F000001/": "unusual notation; write 127.0.0.1",
    "http://0x7f.1/": "unusual notation; write 127.0.0.1",
    "http://0x7f.0x0.0x0.0x1/": "unusual notation; write 127.0.0.1",
    "http://0177.0.0.1/": "Invalid IPv4",
    "http://0177.0x0.0.1/": "unusual notation; write 127.0.0.1",
    "http://127.0.0.01/": "Invalid IPv4",
    "http://134744072/": "unusual notation; write 8.8.8.8",
    "http://0/": "unusual notation; write 0.0.0.0",
    "http://0.0.0.0/": "unspecified",
    "http://10.0.0.1/": "private",
    "http://169.254.169.254/latest/meta-data/": "metadata",
    "http://2852039166/": "unusual notation; write 169.254.169.254",
    "http://256.0.0.1/": "Invalid IPv4",
    "http://1.2.3.4.5/": "neither",
    "http://999999999999/": "neither",
    "http://[::]/": "unspecified",
    "http://[::1]/": "loopback",
    "http://[0:0:0:0:0:0:0:1]:80/": "loopback",
    "http://[::ffff:127.0.0.1]/": "loopback",
    "http://[::ffff:7f00:1]/": "loopback",
    "http://[64:ff9b::7f00:1]/": "loopback",
    "http://[2002:7f00:1::]/": "6to4",
    "http://[fe80::1%25eth0]/": "zone",
    "http://[fd00:ec2::254]/": "metadata",
    "http://[v1.fe80]/": "not a URL",
    "http://[::1/": "not a URL",
    "http://localhost/": "loopback",
    "http://LOCALHOST:9000/": "loopback",
    "http://localhost./": "loopback",
    "http://hooks.localhost/": "loopback",
    "http://127.0.0.1%2f@example.com/": "credentials",
    "http://127%2e0%2e0%2e1/": "neither",
    "http://127。0。0。1/": "loopback",
    "http://\uff11\uff12\uff17.0.0.1/": "not a URL",
    "http://ⓛocalhost/": "not a URL",
    "http://example.com\\@127.0.0.1/": "backslash",
    "http://user@example.com/": "credentials",
    "http://user:secret@example.com/": "credentials",
    "http://@example.com/": "credentials",
    "http://:@example.com/": "credentials",
    "http://example.com@127.0.0.1/": "credentials",
    "http://example.com/#f": "fragment",
    "http://example.com/#": "fragment",
    "http://example.com:0/": "port",
    "http://example.com:65536/": "port",
    "http://example.com:-1/": "port",
    "http://example.com:http/": "not a URL",
    "http://exam ple.com/": "space",
    "http://example.com/a b": "space",
    "http://example.com/\n": "control",
    "http://exa\tmple.com/": "control",
    " http://example.com/": "space",
    "http:///path": "no host",
    "http://": "no host",
    "http:example.com": "no host",
    "http://./": "no host",
    "http://a..b/": "neither",
    "http://" + "a" * 64 + ".com/": None,
    "http://exa$mple.com/": "neither",
    "//example.com/": "http",
    "example.com": "http",
    "/path": "http",
    "": "http",
    "ftp://example.com/": "http",
    "file:///etc/passwd": "http",
    "gopher://127.0.0.1/": "http",
    "javascript:alert(1)": "http",
    "unix:///run/x.sock": "http",
    "ws://example.com/": "http",
}
ACCEPTED_URLS = (
    "http://example.com",
    "https://example.com/hooks/1?token=a%20b&c=d@e",
    "https://example.com:8443/@user/path",
    "https://example.com./",
    "HTTPS://EXAMPLE.COM/",
    "https://bücher.example/",
    "https://xn--bcher-kva.example/",
    "https://hooks_internal.example.com/",
    "http://receiver:9000/hook",
    "http://8.8.8.8/",
    "http://[2606:4700::1111]:8080/",
    "http://1e100.net/",
    "http://0x7f.example.com/",
)


class Lookup(AbstractResolver):
    """A name server under the test's control."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self.names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.names[host]
        ]

    async def close(self) -> None: ...


@pytest.mark.parametrize(("address", "reason"), FORBIDDEN_ADDRESSES.items())
def test_an_address_that_is_not_public_is_refused_with_the_reason(address: str, reason: str):
    judged = AddressGuard().judge(address)
    assert judged is not None
    assert reason in judged


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_a_public_address_is_not_refused(address: str):
    assert AddressGuard().judge(address) is None


@pytest.mark.parametrize(
    ("allowed", "address"),
    [
        ("127.0.0.0/8", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.0/8", "::ffff:127.0.0.1"),
        ("10.0.0.0/8", "64:ff9b::10.1.2.3"),
        ("192.168.0.0/16", "2002:c0a8:101::1"),
        ("2002::/16", "2002:c0a8:101::1"),
        ("::1", "::1"),
        ("fd00::/8", "fd12::1"),
        ("169.254.169.254/32", "169.254.169.254"),
        ("0.0.0.0/0", "10.0.0.1"),
    ],
)
def test_an_allowed_network_opens_the_addresses_it_covers(allowed: str, address: str):
    assert AddressGuard().judge(address) is not None
    assert AddressGuard([allowed]).judge(address) is None


def test_an_allowed_network_opens_nothing_else():
    guard = AddressGuard(["127.0.0.1", "10.1.0.0/16"])
    for address in ("127.0.0.2", "10.2.0.1", "::1", "192.168.0.1", "::ffff:127.0.0.2"):
        assert guard.judge(address) is not None


@pytest.mark.parametrize(("url", "problem"), FORBIDDEN_URLS.items())
def test_a_url_that_can_never_be_allowed_is_refused_at_registration(url: str, problem: str | None):
    with pytest.raises(TargetRefusedError) as refusal:
        AddressGuard().check_url(url)
    assert problem is None or problem in str(refusal.value)


@pytest.mark.parametrize("url", ACCEPTED_URLS)
def test_an_ordinary_url_passes_registration(url: str):
    AddressGuard().check_url(url)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://127.0.0.1:9000/", ["127.0.0.0/8"]),
        ("http://localhost:9000/", ["127.0.0.0/8"]),
        ("http://localhost:9000/", ["::1"]),
        ("http://LocalHost.:9000/", ["localhost"]),
        ("http://hooks.localhost/", ["hooks.localhost"]),
        ("http://[::ffff:10.0.0.1]/", ["10.0.0.0/8"]),
    ],
)
def test_what_the_setting_allows_passes_registration(url: str, allowed: list[str]):
    AddressGuard(allowed).check_url(url)


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://127.0.0.5/", "127.0.0.0/8"),
        ("http://10.0.0.5/", "10.0.0.5"),
        ("http://[::ffff:10.0.0.5]/", "10.0.0.5"),
        ("http://[fd00::5]/", "fd00::5"),
        ("http://localhost/", "localhost"),
    ],
)
def test_a_refusal_says_which_setting_would_allow_it(url: str, remedy: str):
    with pytest.raises(TargetRefusedError) as refusal:
        AddressGuard().check_url(url)
    message = str(refusal.value)
    added = message.partition("; add ")[2].partition(" to COURSEWIRE_ALLOWED_TARGETS")[0]
    assert remedy in added.split(" or ")
    for value in added.split(" or "):
        AddressGuard([value]).check_url(url)


def test_entries_that_are_neither_network_nor_name_are_all_named():
    bad = ["10.0.0.5/8", "host:8080", "http://x", "*.example.com", "1.2.3", "", "a b", "::1/200"]
    with pytest.raises(SettingsError) as error:
        AddressGuard(["127.0.0.0/8", "receiver", *bad])
    assert all(repr(entry) in str(error.value) for entry in bad)
    assert "'receiver'" not in str(error.value)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "localhost", "127.1", "0x7f.1"])
def test_no_socket_is_opened_for_a_refused_address(address: str):
    with pytest.raises(RefusedAddressError):
        AddressGuard().open_socket(
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 80))
        )


@pytest.mark.parametrize("address", ["8.8.8.8", VouchedAddress("127.0.0.1")])
def test_a_socket_is_opened_for_a_public_or_a_vouched_address(address: str):
    opened = AddressGuard().open_socket(
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 80))
    )
    opened.close()


async def test_of_a_names_addresses_only_the_usable_ones_are_tried():
    resolver = GuardedResolver(AddressGuard(), Lookup({"mixed": ["10.0.0.1", "8.8.8.8", "::1"]}))
    assert [found["host"] for found in await resolver.resolve("mixed")] == ["8.8.8.8"]


async def test_a_name_with_private_addresses_only_is_refused_saying_what_would_allow_it():
    resolver = GuardedResolver(AddressGuard(), Lookup({"inside": ["10.0.0.1", "10.0.0.2"]}))
    with pytest.raises(RefusedAddressError) as refusal:
        await resolver.resolve("inside")
    assert "inside resolves to 10.0.0.1, which is private" in refusal.value.explanation
    added = "add 10.0.0.1 or inside to COURSEWIRE_ALLOWED_TARGETS and restart"
    assert added in refusal.value.explanation


async def test_an_allowed_name_vouches_for_its_addresses_and_no_other_names():
    guard = AddressGuard(["Receiver.internal."])
    lookup = Lookup({"receiver.internal": ["10.0.0.1"], "other.internal": ["10.0.0.1"]})
    resolver = GuardedResolver(guard, lookup)
    [found] = await resolver.resolve("receiver.internal")
    assert isinstance(found["host"], VouchedAddress)
    with pytest.raises(RefusedAddressError):
        await resolver.resolve("other.internal")
    assert guard.judge("10.0.0.1") is not None


async def test_the_system_resolver_finds_loopback_and_refuses_impossible_names():
    resolver = SystemResolver()
    try:
        found = await resolver.resolve("localhost", 80, socket.AF_INET)
        assert {result["host"] for result in found} == {"127.0.0.1"}
        with pytest.raises(socket.gaierror):
            await resolver.resolve("a" * 70 + ".example", 80)
    finally:
        await resolver.close()
