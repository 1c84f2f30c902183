from __future__ import annotations

import pytest

from service.domain.egress.routes import Routes, read_egress_proxy, read_pattern


@pytest.mark.parametrize(
    ("text", "address", "login"),
    [
        ("http://proxy:3128", "http://proxy:3128", (None, "")),
        ("HTTP://Proxy.Internal.:3128/", "http://proxy.internal:3128", (None, "")),
        ("http://proxy", "http://proxy:80", (None, "")),
        ("https://proxy", "https://proxy:443", (None, "")),
        ("http://10.0.0.1:8080", "http://10.0.0.1:8080", (None, "")),
        ("https://[::1]:8443/", "https://[::1]:8443", (None, "")),
        ("http://u:p@proxy:1", "http://proxy:1", ("u", "p")),
        ("http://u@proxy:1", "http://proxy:1", ("u", "")),
        ("http://:p@proxy:1", "http://proxy:1", ("", "p")),
        ("http://@proxy:1", "http://proxy:1", (None, "")),
        ("http://d%5Cu:p%40%3A%2F%25@proxy:1", "http://proxy:1", ("d\\u", "p@:/%")),
        ("http://u:a:b@proxy:1", "http://proxy:1", ("u", "a:b")),
    ],
)
def test_a_proxy_is_read_from_its_url(text, address, login):
    proxy = read_egress_proxy(text)
    assert proxy.address == address
    assert (proxy.user, proxy.password) == login
    shown = f"{proxy!r} {proxy.__rich_repr__()}"
    assert address in shown
    assert not proxy.password or f"{proxy.password!r}" not in shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("proxy:3128", "http://"),
        ("//proxy:3128", "http://"),
        ("socks5://proxy:1080", "http://"),
        ("http:proxy:3128", "http://"),
        ("http://", "host"),
        ("http://:3128", "host"),
        ("http://u:secret@:3128", "host"),
        ("http://[::1", "URL"),
        ("http://[fe80::1%25eth0]:1", "host"),
        ("http://127.1:80", "host"),
        ("http://2130706433:80", "host"),
        ("http://pro xy:80", "space"),
        ("http://proxy:0", "port"),
        ("http://proxy:65536", "URL"),
        ("http://proxy:port", "URL"),
        ("http://u:sec/ret@proxy:1", "percent-encode"),
        ("http://u:sec#ret@proxy:1", "percent-encode"),
        ("http://u:sec?ret@proxy:1", "percent-encode"),
        ("http://proxy:1/path", "after the port"),
        ("http://proxy:1?q", "after the port"),
        ("http://proxy:1#", "after the port"),
        ("http://u%3Asecret:p@proxy:1", "colon"),
        ("http://u:sec%0Aret@proxy:1", "control"),
        ("http://u:sec%FFret@proxy:1", "UTF-8"),
        ("http://a,b:1", "host"),
    ],
)
def test_what_is_no_proxy_is_refused_without_repeating_it(text, said):
    with pytest.raises(ValueError, match=r".+") as refusal:
        read_egress_proxy(text)
    assert said in str(refusal.value)
    assert "sec" not in str(refusal.value)


PROXY = read_egress_proxy("http://proxy:3128")


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        (
            "hooks.internal",
            ["hooks.internal", "HOOKS.Internal", "hooks.internal."],
            ["a.hooks.internal", "hooks.internal.com", "xhooks.internal"],
        ),
        (".example.com", ["a.example.com", "a.b.Example.com."], ["example.com", "aexample.com"]),
        ("*.example.com", ["a.example.com"], ["example.com", "a.example.com.org"]),
        ("10.0.0.0/8", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1", "10.example", "::10"]),
        ("10.0.0.1", ["10.0.0.1"], ["10.0.0.2", "10.0.0.10"]),
        ("fd00::/8", ["fd00::1", "[fd12::1]"], ["fe80::1", "fd00.example"]),
        ("::1", ["::1", "[::1]", "0:0:0:0:0:0:0:1"], ["::2", "127.0.0.1"]),
        ("*", ["anything", "10.0.0.1", "::1"], []),
        ("localhost", ["localhost"], ["127.0.0.1", "localhost.example"]),
    ],
)  # fmt: skip
def test_targets_that_are_reached_without_the_proxy(pattern, inside, outside):
    routes = Routes(PROXY, [pattern])
    for host in inside:
        assert routes.proxy_for(host, 443) is None, host
    for host in outside:
        assert routes.proxy_for(host, 443) is PROXY, host


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("hooks.internal:8443", "hooks.internal"),
        (".internal:8443", "hooks.internal"),
        ("*:8443", "hooks.internal"),
        ("10.0.0.1:8443", "10.0.0.1"),
        ("[::1]:8443", "::1"),
    ],
)
def test_an_entry_with_a_port_is_for_that_port_alone(pattern, host):
    routes = Routes(PROXY, [pattern])
    assert routes.proxy_for(host, 8443) is None
    assert routes.proxy_for(host, 443) is PROXY


def test_any_entry_will_do_and_without_a_proxy_nothing_goes_through_one():
    routes = Routes(PROXY, ["a", "b:1", ".c"])
    assert routes.proxy_for("b", 1) is None
    assert routes.proxy_for("x.c", 9) is None
    assert routes.proxy_for("b", 2) is PROXY
    assert Routes(None, ["a"]).proxy_for("b", 2) is None


@pytest.mark.parametrize(
    "text",
    ["", "a b", "http://a", "*a", "a*", "*.*", ".", "a:", "a:0", "a:65536", "a:b", "[::1", "[::1]x",
     "10.1", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8:80x", ".10", "-a", "a..b", "a/b", "_" * 64],
)  # fmt: skip
def test_what_is_no_pattern_is_refused_with_what_to_write(text):
    with pytest.raises(ValueError, match=r"write|give"):
        read_pattern(text)
