"""What is registered is what is requested, byte for byte."""

from __future__ import annotations

import string

import pytest

from service.api.fields.refusals import Refusal
from service.api.fields.urls import read_base_url, read_url
from service.clients.address_guard import AddressGuard
from service.clients.transport import OutboundClient, open_client
from service.clients.upstream import PageQuery, UpstreamClient
from service.clients.webhook_sender import Receiver
from service.domain.access.upstream_credential import UpstreamCredential
from tests.integration.clients.conftest import Exchange, Listen

SIGNED = "/a%28b%29/%40x%3Ay?sp=%2Ftriggers%2Fmanual%2Frun&sig=a%2Bb%2Fc%3D&t=%7Eq%2c"
PLACES = (
    SIGNED,
    "/",
    "/?",
    "/hook?",
    "/hook??a",
    "/%7euser/%7Euser/~user",
    "/a%2fb%2Fc",
    "/a//b///c",
    "//a",
    "/a/./b/../c/.",
    "/..",
    "/;a=b;c,d:e@f!$&'()*+",
    "/a+b%20c%2Bd?q=a+b%20c%2Bd",
    "/h?a=1&a=2&&b&=c&d==",
    "/h?next=https://example.com/x?y=z",
    "/h?a=%E4%F6&b=%C3%A4",
    "/h?a=%zz&b=%&c=100%",
    '/h?a[]=1&b={c}|d^e`f"g<h>',
    "/{tenant}/a|b",
    "/" + "".join(one for one in string.punctuation if one not in "#?\\"),
    "/hook?" + "".join(one for one in string.punctuation if one not in "#\\"),
    "/" + "x" * 1900,
)
parse, parse_base = read_url, read_base_url


async def ok(exchange: Exchange) -> None:
    await exchange.answer(200, b'{"status":"success","data":{"results":[],"next":null}}')


async def test_paths_and_queries_are_posted_to_as_they_were_registered(
    client: OutboundClient, listen: Listen
):
    peer = await listen(ok)
    for place in PLACES:
        registered = parse(f"http://127.0.0.1:{peer.port}{place}")
        AddressGuard(["127.0.0.1"]).check_url(registered)
        outcome = await Receiver(client).post(registered, {}, b"{}", timeout=10)
        assert outcome.delivered, outcome
        assert peer.requests[-1].target == place


async def test_without_a_path_the_root_is_meant(client: OutboundClient, listen: Listen):
    peer = await listen(ok)
    for place, target in (("", "/"), ("?", "/?"), ("?a=/b", "/?a=/b")):
        registered = parse(f"http://127.0.0.1:{peer.port}{place}")
        await Receiver(client).post(registered, {}, b"{}", timeout=10)
        assert peer.requests[-1].target == target


@pytest.mark.parametrize(
    ("place", "character", "remedy"),
    [
        ("/a b", "' '", "write it as %20"),
        ("/hook?a=b c", "' '", "write it as %20"),
        ("/hook?a\\b", r"'\\'", "write it as %5C"),
        ("/h\u00f6ren", "'\u00f6'", "write it as %C3%B6"),
        ("?q=\u4f60", "'\u4f60'", "write it as %E4%BD%A0"),
        ("/\U0001f600", "'\U0001f600'", "write it as %F0%9F%98%80"),
        ("/a\u00a0", "'\\xa0'", "write it as %C2%A0"),
    ],
)
def test_what_http_cannot_carry_is_refused_and_the_spelling_named(
    place: str, character: str, remedy: str
):
    with pytest.raises(Refusal) as refusal:
        parse(f"https://example.com{place}")
    [error] = refusal.value.found
    assert error.message == f"contains {character}, which HTTP cannot carry"
    assert error.remedy == remedy


@pytest.mark.parametrize("place", ["/a\nb", "/a\r\nX: y", "/a\tb", "/\0", "/\x7f", "/\ud800"])
async def test_control_characters_are_refused_and_never_sent(
    client: OutboundClient, listen: Listen, place: str
):
    peer = await listen(ok)
    registered = f"http://127.0.0.1:{peer.port}{place}"
    with pytest.raises(Refusal):
        parse(registered)
    outcome = await Receiver(client).post(registered, {}, b"{}", timeout=10)
    assert not outcome.delivered
    assert peer.requests == []


async def test_what_an_older_release_took_is_still_sent_encoded(
    client: OutboundClient, listen: Listen
):
    peer = await listen(ok)
    await Receiver(client).post(
        f"http://127.0.0.1:{peer.port}/h\u00f6ren%2F?q=\u00e4#part", {}, b"{}", timeout=10
    )
    assert peer.requests[-1].target == "/h%C3%B6ren%2F?q=%C3%A4"


def test_a_host_beyond_ascii_is_a_name_and_may_be_registered():
    assert parse("https://b\u00fccher.example/%7E") == "https://b\u00fccher.example/%7E"


async def test_the_path_of_a_base_url_is_requested_as_it_is_shown(listen: Listen):
    peer = await listen(ok)
    async with open_client(AddressGuard(["127.0.0.1"])) as client:
        upstream = UpstreamClient(client)
        for path in ("", "/v1", "/%7Eus%2Feu", "/a%40b%3Ac", "/a;b,c", "/v1(x)*"):
            shown = parse_base(f"http://127.0.0.1:{peer.port}{path}/")
            assert shown.endswith(path)
            query = PageQuery(cursor="a+b/c=~:,&", ids=("x,y", "ü"))
            await upstream.fetch_page(UpstreamCredential(shown, "key"), "w:1", query)
            target, _, sent = peer.requests[-1].target.partition("?")
            assert target == f"{path}/lms/courses"
            assert sent == "page_size=250&cursor=a%2Bb%2Fc%3D~%3A%2C%26&ids=x%2Cy%2C%C3%BC"


@pytest.mark.parametrize("place", ["?a=b", "?", "/v1?", "/v1?sig=x"])
def test_a_base_url_has_no_query(place: str):
    with pytest.raises(Refusal, match="query"):
        parse_base(f"https://example.com{place}")
