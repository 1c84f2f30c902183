"""Bodies as real servers send them: broken in one place, coded oddly, or no page at all."""

from __future__ import annotations

import codecs
import functools
import gzip
import json
import traceback
import tracemalloc
import zlib

import pytest

from service.api.resources.integrations.upstream_check import code_of, remedy
from service.clients.transport import OutboundClient
from service.clients.upstream import Page, PageQuery, UpstreamClient
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.errors import UpstreamAuthError, UpstreamError, UpstreamPageError
from tests.integration.clients.conftest import Exchange, Listen

KEY = "key-that-must-not-leak"
A, C = b'{"id":"a","title":"Caf\xc3\xa9"}', b'{"id":"c"}'
DEEP = b"[" * 100_000 + b"]" * 100_000


def page(record: bytes = b'{"id":"b"}', following: bytes = b'"cur"', more: bytes = b"") -> bytes:
    records = A + b", " + record + b" ," + C
    return b'{"status":"success",%s"data":{"results":[%s],"next":%s}}' % (more, records, following)


async def fetch(
    client: OutboundClient, listen: Listen, body: bytes, status: int = 200, **headers: str
) -> Page:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(status, body, **headers)

    peer = await listen(script)
    upstream = UpstreamClient(client, timeout=20)
    credential = UpstreamCredential(f"http://127.0.0.1:{peer.port}/v1", KEY)
    return await upstream.fetch_page(credential, "workday:1", PageQuery())


async def failure(
    client: OutboundClient, listen: Listen, body: bytes, status: int = 200, **headers: str
) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        await fetch(client, listen, body, status, **headers)
    assert KEY not in "".join(traceback.format_exception(raised.value))
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500
    return raised.value


def advice(error: UpstreamError) -> str:
    return remedy(code_of(error), error.status, elsewhere=error.elsewhere)


# --- one bad token ---------------------------------------------------------------------------

TOKENS = [
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"undefined",
    b"01",
    b"1.",
    b"0x1F",
    b'"a\tb"',
    b'"a\x00b"',
    b'"\\x41"',
    b'"\\u12"',
    b'"\\ud83d"',
    b'"\\ude00\\ud83d"',
    b"'it'",
    b"[1,2,]",
    b'{"a":1,}',
    b"{a:1}",
    b"/* of no use */ 1",
    b"1 2",
    DEEP,
]


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: repr(token[:12]))
async def test_a_record_with_a_bad_token_leaves_the_others_of_its_page_readable(
    client: OutboundClient, listen: Listen, token: bytes
):
    for broken in (
        b'{"id":"b","remote_data":{"score":%s}}' % token,
        b'{"id":%s}' % token,
        b'{"%s":1,"id":"b"}' % token.replace(b'"', b"") if token is not DEEP else token,
        token,
    ):
        got = await fetch(client, listen, page(broken))
        assert [bytes(record) for record in got.results] == [A, broken.strip(), C]
        assert got.next == "cur"


async def test_several_broken_records_and_an_odd_comma_cost_nobody_else(
    client: OutboundClient, listen: Listen
):
    body = page(b'{"id":NaN},{"id":"\\x41"},,{"id":"d"}').replace(C, C + b",")
    got = await fetch(client, listen, body)
    assert [bytes(record) for record in got.results] == [
        A, b'{"id":NaN}', b'{"id":"\\x41"}', b"", b'{"id":"d"}', C,
    ]  # fmt: skip


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: repr(token[:12]))
async def test_a_bad_token_in_what_nobody_reads_costs_nothing(
    client: OutboundClient, listen: Listen, token: bytes
):
    got = await fetch(client, listen, page(more=b'"took":%s,' % token))
    assert ([bytes(record) for record in got.results], got.next) == ([A, b'{"id":"b"}', C], "cur")


@pytest.mark.parametrize(
    "token", [*TOKENS, b"7", b"false", b'"\xff"', b'"a","next":"b"', b'""', b""]
)
async def test_a_cursor_that_cannot_be_read_is_never_believed(
    client: OutboundClient, listen: Listen, token: bytes
):
    for record in (b'{"id":"b"}', b'{"id":NaN}'):
        if token == b'"a","next":"b"' and b"NaN" not in record:
            continue  # valid, and the last one counts
        error = await failure(client, listen, page(record, following=token))
        assert type(error) is UpstreamPageError
        assert "base_url" not in advice(error)


@pytest.mark.parametrize(
    "body",
    [
        page(b'{"id":"b","x":[}'),
        page(b'{"id":"b","x":"y}'),
        page(b'{"id":"b"}}'),
        page(b'{"id":"b"'),
        page(b'{"id":"b","x":"5" wide"}'),
        page(b'{"id":NaN}').replace(b'"success"', b'"error"'),
        page(b'{"id":NaN}').replace(b'"success"', b"NaN"),
        page(b'{"id":NaN}').replace(b'"results"', b'"results":[],"results"'),
        page(b'{"id":NaN}')[:-1],
        page(b'{"id":NaN}')[:-3],
        page(b'{"id":NaN}') + b"{}",
    ],
)
async def test_a_page_that_cannot_be_told_apart_is_unreadable_and_says_so(
    client: OutboundClient, listen: Listen, body: bytes
):
    error = await failure(client, listen, body)
    assert type(error) is UpstreamPageError
    assert "the upstream's page cannot be read" in str(error)
    assert "operators" in advice(error)


async def test_an_error_whose_text_is_broken_is_still_told_by_its_code(
    client: OutboundClient, listen: Listen
):
    detail = (
        b'{"code":"PLATFORM.AUTHENTICATION_INVALID","title":NaN,"message":"refused","x":"\\x41"}'
    )
    for status in (200, 400, 401, 500):
        error = await failure(client, listen, b'{"status":"error","error":%s}' % detail, status)
        assert type(error) is UpstreamAuthError
        assert "refused" in str(error)


async def test_what_the_upstream_says_of_itself_comes_without_control_characters(
    client: OutboundClient, listen: Listen
):
    detail = {"code": "A\x1b[31mB", "message": f"no\n\tsuch\0 {KEY}", "log_url": "https://x/\x07"}
    error = await failure(client, listen, json.dumps({"error": detail}).encode(), 500)
    assert (error.code, error.log_url) == ("A [31mB", "https://x/")
    assert str(error).endswith("no such …")


async def test_a_page_of_many_broken_records_is_read_in_one_piece(
    client: OutboundClient, listen: Listen
):
    broken = b",".join(b'{"id":"%d","x":NaN}' % number for number in range(248))
    got = await fetch(client, listen, page(broken))
    assert len(got.results) == 250


# --- codings ---------------------------------------------------------------------------------

PAGE = page()
# The name of a test must not depend on the time at which it was collected.
compressed = functools.partial(gzip.compress, mtime=0)

HALVES = compressed(PAGE[:70]) + compressed(PAGE[70:])


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", compressed(PAGE)),
        ("GZIP", compressed(PAGE)),
        ("x-gzip", compressed(PAGE)),
        ("gzip", HALVES),
        ("gzip", b"".join(compressed(bytes([one])) for one in PAGE)),
        ("gzip", compressed(PAGE) + compressed(b"")),
        ("gzip", compressed(PAGE) + b"\0"),
        ("gzip", compressed(PAGE) + b"\0" * 5_000),
        ("gzip", compressed(PAGE[:70]) + b"\0\0" + compressed(PAGE[70:]) + b"\0"),
        ("gzip", compressed(PAGE) + b"\n"),
        ("gzip", compressed(PAGE) + b"\x1f"),
        ("gzip", compressed(PAGE) + b"trailing garbage"),
        ("gzip, gzip", compressed(compressed(PAGE))),
        ("gzip,deflate", zlib.compress(compressed(PAGE))),
        ("deflate, gzip", compressed(zlib.compress(PAGE))),
        ("identity, gzip", compressed(PAGE)),
        ("gzip, identity", compressed(PAGE)),
        ("gzip, utf-8", compressed(PAGE)),
        (", gzip ,", compressed(PAGE)),
        ("deflate", zlib.compress(PAGE)),
        ("deflate", raw_deflate(PAGE)),
        ("deflate", zlib.compress(PAGE) + b"\0"),
        ("identity", PAGE),
        ("none", PAGE),
        ("None", PAGE),
        ("utf-8", PAGE),
        ("UTF-8", PAGE),
        ("binary", PAGE),
        ("aws-chunked", PAGE),
        ("", PAGE),
        ("gzip", compressed(codecs.BOM_UTF8 + PAGE)),
    ],
)
async def test_what_is_coded_validly_is_read(
    client: OutboundClient, listen: Listen, coding: str, body: bytes
):
    got = await fetch(client, listen, body, Content_Encoding=coding)
    assert [bytes(record) for record in got.results] == [A, b'{"id":"b"}', C]


async def test_members_are_told_apart_wherever_their_bytes_are_parted(
    client: OutboundClient, listen: Listen
):
    packed = HALVES + b"\0"

    async def script(exchange: Exchange) -> None:
        await exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for one in packed:
            await exchange.send(b"1\r\n%c\r\n" % one)
        await exchange.send(b"0\r\n\r\n")

    peer = await listen(script)
    credential = UpstreamCredential(f"http://127.0.0.1:{peer.port}/v1", KEY)
    got = await UpstreamClient(client).fetch_page(credential, "workday:1", PageQuery())
    assert got.size == len(PAGE)


@pytest.mark.parametrize(
    ("coding", "body", "named"),
    [
        ("br", PAGE, "'br'"),
        ("zstd", PAGE, "'zstd'"),
        ("compress", PAGE, "'compress'"),
        ("gzip, br", compressed(PAGE), "'gzip, br'"),
        ("gzip, gzip, gzip, gzip, gzip", PAGE, "gzip"),
        ("x" * 5_000, PAGE, "'xxx"),
        ("gzip", PAGE, "damaged"),
        ("gzip", compressed(PAGE)[:-4], "incomplete"),
        ("gzip", compressed(PAGE)[:-8] + b"\0" * 8, "damaged"),
        ("gzip", HALVES[:-4], "incomplete"),
        ("gzip, gzip", compressed(PAGE), "damaged"),
        ("gzip, gzip", compressed(compressed(PAGE)[:-4]), "incomplete"),
        ("gzip", compressed(b"") * 10_001, "too many parts"),
        ("deflate", b"\x78", "incomplete"),
        ("deflate", PAGE, "damaged"),
        ("", compressed(PAGE), "without Content-Encoding"),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_what_is_not_is_named(
    client: OutboundClient, listen: Listen, coding: str, body: bytes, named: str
):
    error = await failure(client, listen, body, Content_Encoding=coding)
    assert type(error) is UpstreamPageError
    assert named in str(error)


@pytest.mark.parametrize(
    "coding", ["gzip", "gzip, gzip", "gzip, gzip, gzip", "deflate, gzip", "gzip, deflate"]
)
async def test_no_layer_takes_more_memory_than_a_page_may(
    client: OutboundClient, listen: Listen, coding: str
):
    bomb = b" " * 50_000_000 + PAGE
    for one in coding.split(", "):
        bomb = compressed(bomb) if one == "gzip" else zlib.compress(bomb)

    async def script(exchange: Exchange) -> None:
        await exchange.answer(200, bomb, Content_Encoding=coding)

    peer = await listen(script)
    upstream = UpstreamClient(client, max_bytes=1_000_000)
    credential = UpstreamCredential(f"http://127.0.0.1:{peer.port}/v1", KEY)
    tracemalloc.start()
    try:
        with pytest.raises(UpstreamPageError, match="is larger than 10"):
            await upstream.fetch_page(credential, "workday:1", PageQuery())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


async def test_padding_without_end_is_not_read_to_the_end(client: OutboundClient, listen: Listen):
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")
        await exchange.send(compressed(PAGE))
        while True:
            await exchange.send(bytes(65_536))

    peer = await listen(script)
    upstream = UpstreamClient(client, max_bytes=1_000_000)
    credential = UpstreamCredential(f"http://127.0.0.1:{peer.port}/v1", KEY)
    with pytest.raises(UpstreamPageError, match="larger than"):
        await upstream.fetch_page(credential, "workday:1", PageQuery())
    await peer.until(lambda: peer.disconnections == 1)


# --- first bytes -----------------------------------------------------------------------------


@pytest.mark.parametrize("before", [codecs.BOM_UTF8, codecs.BOM_UTF8 * 2, b"\r\n ", b""])
@pytest.mark.parametrize("after", [b"\0", b"\r\n", b"\0\0", b""])
async def test_a_byte_order_mark_before_a_page_or_zeros_behind_it_mean_nothing(
    client: OutboundClient, listen: Listen, before: bytes, after: bytes
):
    for record in (b'{"id":"b"}', b'{"id":NaN}'):
        got = await fetch(client, listen, before + page(record) + after)
        assert (len(got.results), got.next) == (3, "cur")


@pytest.mark.parametrize("status", [200, 400, 403, 503])
async def test_an_error_is_read_behind_a_byte_order_mark(
    client: OutboundClient, listen: Listen, status: int
):
    detail = {"code": "PLATFORM.AUTHENTICATION_INVALID", "message": "no such key"}
    body = codecs.BOM_UTF8 + json.dumps({"status": "error", "error": detail}).encode()
    error = await failure(client, listen, body, status)
    assert (type(error), error.code) == (UpstreamAuthError, detail["code"])


@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
async def test_another_charset_is_named(client: OutboundClient, listen: Listen, charset: str):
    error = await failure(client, listen, page(A).decode().encode(charset))
    assert charset[:6].upper() in str(error)
    assert "base_url" not in advice(error)


# --- what an answer is that is no page -------------------------------------------------------

LOGIN = b"\n<!DOCTYPE html>\n<html><head><title>Log in</title>"


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (LOGIN, "text/html; charset=utf-8", "text/html; it begins '<!DOCTYPE html> <html><head>"),
        (b"", "application/json", "application/json, and empty"),
        (b"OK", "text/plain", "text/plain; it begins 'OK'"),
        (b"null", "application/json", "it begins 'null'"),
        (b'{"message":"hello"}', "application/json", 'it begins \'{"message":"hello"}\''),
        (b'{"courses":[]}', "application/hal+json", "application/hal+json; it begins"),
        (b"%PDF-1.7\x00\x01\x02", "application/pdf", "it begins '%PDF-1.7'"),
        (b"<?xml version='1.0'?>", "", "no content type; it begins"),
        (b"x" * 100_000, "text/plain", "it begins 'xxx"),
        (LOGIN.decode().encode("utf-16"), "text/html", "text/html in UTF-16"),
        (b"\xff\xfe\x00", "text/plain", "UTF-16"),
        (b"hi\x1b[31m\r\nthere\x07", "text/plain", "'hi [31m there'"),
    ],
)
async def test_an_answer_that_is_no_page_says_what_it_was(
    client: OutboundClient, listen: Listen, body: bytes, kind: str, said: str
):
    for status in (200, 404, 502):
        error = await failure(client, listen, body, status, Content_Type=kind)
        assert (said in str(error)) or (status == 200 and "UTF-16" in str(error))
    if b"\xff\xfe" not in body:
        first = await failure(client, listen, body, Content_Type=kind)
        assert "ends in /v1" in advice(first)


async def test_an_error_document_under_200_is_told_as_one(client: OutboundClient, listen: Listen):
    body = b'{"status":"error","error":{"code":null,"title":"Oops","message":"broken down"}}'
    error = await failure(client, listen, body)
    assert "broken down" in str(error)
    assert "base_url" not in advice(error)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("https://login.example/sso?state=1#x", "redirects to https://login.example/sso"),
        ("https://user:pass@api.example/v1", "redirects to https://api.example/v1"),
        ("/v1/lms/courses/", "redirects to /v1/lms/courses/"),
        (f"https://x.example/{KEY}/", "redirects to https://x.example/…/"),
        (f"https://x.example/{KEY[:-2]}", "redirects to https://x.example/…"),
        ("https://x.example/" + "y" * 5_000, "redirects to https://x.example/yyy"),
        ("", "without a usable Location header"),
        ("http://[", "without a usable Location header"),
        ("?a=b", "without a usable Location header"),
    ],
)
async def test_a_redirection_says_where_it_leads_and_is_not_followed(
    client: OutboundClient, listen: Listen, status: int, location: str, said: str
):
    error = await failure(client, listen, LOGIN, status, Location=location)
    assert (type(error), error.status) == (UpstreamPageError, status)
    assert said in str(error)
    assert "redirects are not followed" in advice(error)
    assert "ends in /v1" not in advice(error)


@pytest.mark.parametrize(
    "location",
    [
        f"https://login.ex\ufeffample/{KEY}", "https://" + "x" * 300 + "/", "http://x:99999999/",
        "//[::1/", "https://exa mple/", "\x7f", "http:///", "ftp://x/",
    ],
)  # fmt: skip
async def test_a_redirection_to_no_address_is_one_of_our_errors(
    client: OutboundClient, listen: Listen, location: str
):
    error = await failure(client, listen, LOGIN, 302, Location=location)
    assert type(error) is UpstreamPageError
    assert "redirects" in str(error)
    assert "base_url" in advice(error)


@pytest.mark.parametrize(
    "body",
    [
        f"<p>Bearer {KEY}</p>".encode(),
        (" " * 50 + KEY).encode(),
        ("x" * 75 + KEY).encode(),
        ("x" * 3_995 + KEY).encode(),
        (KEY[:8] + "\n" + KEY[8:]).encode(),
        (KEY[:8] + "\0" + KEY[8:]).encode(),
        KEY.encode("utf-16"),
    ],
)
async def test_no_quoted_beginning_holds_the_key(
    client: OutboundClient, listen: Listen, body: bytes
):
    for status in (200, 404):
        error = await failure(client, listen, body, status, Content_Type=f"text/{KEY}")
        assert KEY[:-2] not in str(error)
