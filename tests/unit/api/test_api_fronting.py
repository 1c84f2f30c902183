"""What stands between clients and the API: proxies, path prefixes, web pages, and odd clients."""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import re
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import quote

import msgspec
import pytest
from litestar.testing import AsyncTestClient

from service.api.http.trusted_proxies import Proxies
from service.app import create_app
from tests.unit.api.conftest import ADMIN
from tests.unit.api.test_api_access import ROUTES, filled_in

CREDENTIAL = {"name": "a", "base_url": "https://a.example", "api_key": "k"}
GETS = [path for method, path in ROUTES if method == "GET"]
CHANGING = {"x-request-id", "date"}
COUNTING = {"/metrics", "/v1/status"}  # what they say changes with each request, or by itself


@pytest.fixture(scope="session")
def built(settings):
    """Applications with other settings, each built once, and what the test at hand gives them."""
    given = {}

    @asynccontextmanager
    async def opened(_settings):
        yield given["services"]

    @functools.cache
    def build(address: str, **changes):
        app = create_app(msgspec.structs.replace(settings, **changes), open_services=opened)
        entrance = app.entrance

        async def from_address(scope, receive, send):
            scope["client"] = (address, 5)
            await entrance(scope, receive, send)

        app.entrance = from_address
        return app

    return build, given


@pytest.fixture
async def serve(built, services):
    """Serves the API with other settings."""
    build, given = built
    given["services"] = services
    async with AsyncExitStack() as stack:

        async def serve(address: str = "testclient", **changes) -> AsyncTestClient:
            client = AsyncTestClient(build(address, **changes))
            await stack.enter_async_context(client)
            client.headers["authorization"] = f"Bearer {ADMIN}"
            return client

        yield serve


# --- HEAD and OPTIONS ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize("token", [ADMIN, "wrong"])
async def test_head_answers_as_get_does_but_for_the_body(anonymous, path, token) -> None:
    anonymous.headers["authorization"] = f"Bearer {token}"
    got = await anonymous.get(filled_in(path))
    async with asyncio.timeout(10):
        head = await anonymous.head(filled_in(path))
    assert (head.status_code, head.content) == (got.status_code, b"")
    ignored = CHANGING | ({"content-length"} if path in COUNTING else set())
    assert {name: value for name, value in head.headers.items() if name not in ignored} == {
        name: value for name, value in got.headers.items() if name not in ignored
    }
    assert int(head.headers["content-length"]) > 0


async def test_head_of_what_is_there_shows_its_tag_and_length(client) -> None:
    made = await client.post("/v1/credentials", json=CREDENTIAL)
    path = made.headers["location"]
    for asked in (path, "/v1/credentials", "/v1/credentials?limit=1"):
        got, head = await client.get(asked), await client.head(asked)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(got.content))
        assert head.headers.get("etag") == got.headers.get("etag")


@pytest.mark.parametrize(
    "query", ["?after=latest&wait=50", "?wait=60", "/stream", "/stream?after=latest"]
)
async def test_head_waits_for_nothing(client, services, query) -> None:
    async with asyncio.timeout(10):
        head = await client.head(f"/v1/events{query}")
    assert (head.status_code, head.content) == (200, b"")
    kind = "text/event-stream" if "stream" in query else "application/json"
    assert head.headers["content-type"].startswith(kind)
    assert services.tail.listeners == 0


@pytest.mark.parametrize("path", ["/v1/pause", "/v1/events/evt_x/redeliver", "/nowhere"])
async def test_head_of_what_cannot_be_got_is_refused_like_get(client, path) -> None:
    got, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers.get("allow") == got.headers.get("allow")


async def test_head_of_an_endless_url_is_refused_like_get(client) -> None:
    head = await client.head(f"/{'x' * 9_000}")
    assert (head.status_code, head.content) == (414, b"")


async def test_requests_with_head_are_counted_as_such(client) -> None:
    await client.head("/v1/credentials/cred_nobody")
    text = (await client.get("/metrics")).text
    route = '{method="HEAD",route="/v1/credentials/{credential_id}",status="404"}'
    assert f"coursewire_api_requests_total{route}" in text


async def test_head_is_allowed_wherever_get_is(anonymous, client) -> None:
    methods: dict[str, set[str]] = {}
    for method, path in ROUTES:
        methods.setdefault(path, {"OPTIONS"}).add(method)
    del anonymous.headers["authorization"]
    for path, known in methods.items():
        expected = known | ({"HEAD"} if "GET" in known else set())
        answer = await anonymous.options(filled_in(path).partition("?")[0])
        assert (answer.status_code, answer.content) == (204, b""), path
        assert set(answer.headers["allow"].split(", ")) == expected, path
        refused = await anonymous.put(filled_in(path).partition("?")[0])
        assert set(refused.headers["allow"].split(", ")) == expected, path


# --- caches -------------------------------------------------------------------------------------


# The console's page and files hold nothing of the service: test_api_console.py says how long.
NOT_CACHED = [path for path in GETS if not path.startswith("/console")]


@pytest.mark.parametrize("path", [*NOT_CACHED, "/nowhere", f"/{'x' * 9_000}", "/v1/pause"])
async def test_no_answer_may_be_cached(client, path) -> None:
    for method in ("GET", "HEAD", "OPTIONS", "PUT"):
        answer = await client.request(method, filled_in(path))
        assert answer.headers.get_list("cache-control") == ["no-store"], (method, path)


async def test_a_stream_is_not_to_be_changed_or_gathered(client) -> None:
    head = await client.head("/v1/events/stream")
    assert head.headers.get_list("cache-control") == ["no-store, no-transform"]
    assert head.headers["x-accel-buffering"] == "no"


# --- a path prefix ------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/hooks", "/a/b"])
@pytest.mark.parametrize("stripped", [True, False])
async def test_everything_is_served_under_a_prefix(serve, problem, prefix, stripped) -> None:
    client = await serve(root_path=prefix)
    before = "" if stripped else prefix
    made = await client.post(f"{before}/v1/credentials", json=CREDENTIAL)
    location = made.headers["location"]
    assert location.startswith(f"{prefix}/v1/credentials/cred_")
    assert (await client.get(location)).status_code == 200
    assert (await client.get(location.removeprefix(prefix))).status_code == 200
    root = (await client.get(before or "/")).json()
    assert (root["documentation"], root["api"]) == (f"{prefix}/schema", f"{prefix}/v1")
    document = (await client.get(f"{before}/schema/openapi.json")).json()
    assert document["servers"] == [{"url": prefix}]
    page = (await client.get(f"{before}/schema")).text
    assert f'data-document="{prefix}/schema/openapi.json"' in page
    for asset in re.findall(r'(?:src|href)="(/[^"]*/assets/[^"]*)"', page):
        assert asset.startswith(f"{prefix}/schema/")
        assert (await client.get(before + asset.removeprefix(prefix))).status_code == 200
    assert (await client.get(f"{before}/readyz")).status_code == 200
    detail = problem(await client.get(f"{before}/nowhere"), "not-found", 404)["detail"]
    assert detail == f"no path {prefix}/nowhere; see {prefix}/schema"
    assert (await client.head(f"{before}/v1/credentials")).status_code == 200
    assert "HEAD" in (await client.options(f"{before}/v1/credentials")).headers["allow"]


async def test_only_whole_segments_are_the_prefix(serve, problem) -> None:
    client = await serve(root_path="/hooks")
    problem(await client.get("/hooksv1/status"), "not-found", 404)
    problem(await client.get("/hooks/hooks/v1/status"), "not-found", 404)
    # What comes behind the path's beginning is part of a name.
    answer = await client.get("/hooks/v1/integrations/int_x/courses/hooks")
    assert "int_x" in problem(answer, "not-found", 404)["detail"]


@pytest.mark.parametrize("stripped", [True, False])
@pytest.mark.parametrize("course_id", ["hooks", "a//b", "/hooks/v1/", "Org/Course/hooks"])
async def test_a_course_id_is_read_whole_behind_a_prefix(serve, course_id, stripped) -> None:
    client = await serve(root_path="/hooks")
    made = await client.post("/v1/integrations", json={**CREDENTIAL, "upstream_id": "workday:1"})
    location = made.headers["location"]
    before = location.removeprefix("/hooks") if stripped else location
    answer = await client.get(f"{before}/courses/{quote(course_id, safe='')}")
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith(f"there is no course {course_id}")


async def test_a_repeated_request_shows_the_prefix_once(serve) -> None:
    client = await serve(root_path="/hooks")
    same = {"idempotency-key": "k1"}
    first = await client.post("/hooks/v1/credentials", json=CREDENTIAL, headers=same)
    again = await client.post("/v1/credentials", json=CREDENTIAL, headers=same)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert first.headers["location"].startswith("/hooks/v1/")


# --- who is asking ------------------------------------------------------------------------------

PROXY = "10.1.2.3"
TRUSTED = ("10.0.0.0/8", "fd00::/8")


async def seen(client: AsyncTestClient, *headers: tuple[str, str]) -> str:
    """The address that the audit trail shows of a request."""
    await client.post("/v1/pause", headers=[*headers])
    return (await client.get("/v1/audit")).json()["items"][0]["address"]


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, 10.9.9.9", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),  # the left one was sent by the client
        ("198.51.100.1, 203.0.113.7, 10.9.9.9, 10.8.8.8", "203.0.113.7"),
        ("10.9.9.9, 10.8.8.8", "10.9.9.9"),  # a client inside
        ("203.0.113.7:4711", "203.0.113.7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ('"[2001:db8::7]"', "2001:db8::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("  203.0.113.7  ,", "203.0.113.7"),
        ("203.0.113.7, unknown", PROXY),
        ("203.0.113.7, <script>", PROXY),
        ("unknown, 10.9.9.9", "10.9.9.9"),
    ],
)
@pytest.mark.parametrize("peer", [PROXY, f"::ffff:{PROXY}"])
async def test_a_trusted_proxy_says_who_is_asking(serve, forwarded, address, peer) -> None:
    client = await serve(peer, trusted_proxies=TRUSTED)
    assert await seen(client, ("x-forwarded-for", forwarded)) == address


@pytest.mark.parametrize("forwarded", ["", ",,", " "])
async def test_a_proxy_that_names_nobody_asks_itself(serve, forwarded) -> None:
    client = await serve(PROXY, trusted_proxies=TRUSTED)
    assert await seen(client) == PROXY
    assert await seen(client, ("x-forwarded-for", forwarded)) == PROXY


async def test_several_headers_are_one_list(serve) -> None:
    client = await serve("fd00::1", trusted_proxies=TRUSTED)
    sent = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.7, 10.9.9.9")]
    assert await seen(client, *sent) == "203.0.113.7"


@pytest.mark.parametrize("trusted", [(), ("192.0.2.0/24",)])
async def test_nobody_else_says_who_is_asking(serve, trusted) -> None:
    client = await serve(PROXY, trusted_proxies=trusted)
    sent = [("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=203.0.113.7")]
    assert await seen(client, *sent, ("x-real-ip", "203.0.113.7")) == PROXY


async def test_wrong_tokens_are_limited_by_the_client_behind_the_proxy(
    serve, problem, capsys
) -> None:
    client = await serve(PROXY, trusted_proxies=TRUSTED)

    async def ask(address: str):
        headers = {"authorization": "Bearer wrong", "x-forwarded-for": address}
        return await client.get("/v1/status", headers=headers)

    for number in range(20):
        # What a client writes there itself makes it nobody else.
        problem(await ask(f"198.51.100.{number}, 203.0.113.7"), "unauthorized", 401)
    problem(await ask("198.51.100.99, 203.0.113.7"), "too-many-failures", 429)
    problem(await ask("203.0.113.8"), "unauthorized", 401)
    burst = (await client.get("/v1/audit")).json()["items"][0]
    assert (burst["action"], burst["address"]) == ("authentication.failed", "203.0.113.7")
    assert "address=203.0.113.8" in capsys.readouterr().out  # the log's


@pytest.mark.parametrize(
    ("peer", "sent", "scheme"),
    [
        (PROXY, "https", "https"),
        (PROXY, "HTTPS, http", "https"),
        (PROXY, "gopher", "http"),
        (PROXY, "", "http"),
        ("203.0.113.7", "https", "http"),
    ],
)
async def test_a_trusted_proxy_says_how_it_was_asked(peer, sent, scheme) -> None:
    asked = []

    async def app(scope, _receive, _send):
        asked.append(scope["scheme"])

    headers = [(b"x-forwarded-proto", sent.encode())]
    scope = {"type": "http", "client": (peer, 5), "scheme": "http", "headers": headers}
    await Proxies(app, TRUSTED)(scope, None, None)
    assert asked == [scheme]


# --- web pages of other origins -----------------------------------------------------------------

ORIGIN = "https://app.example.com"
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "PATCH",
    "access-control-request-headers": "authorization,content-type,if-match",
}


def shared(answer) -> set[str]:
    return {name for name in answer.headers if name.startswith("access-control-")}


@pytest.mark.parametrize("path", ["/v1/credentials", "/v1/credentials/x", "/nowhere", "/v1/pause"])
async def test_a_preflight_needs_no_token(serve, path) -> None:
    client = await serve(cors_origins=(ORIGIN, "http://localhost:3000"))
    del client.headers["authorization"]
    for origin in (ORIGIN, "http://localhost:3000"):
        answer = await client.options(path, headers={**PREFLIGHT, "origin": origin})
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == origin
        assert "PATCH" in answer.headers["access-control-allow-methods"]
        assert "if-match" in answer.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in answer.headers
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/credentials", 200),
        ("HEAD", "/v1/credentials", 200),
        ("POST", "/v1/credentials", 415),
        ("GET", "/v1/credentials/x", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/v1/credentials", 405),
        ("OPTIONS", "/v1/credentials", 204),
        ("GET", f"/{'x' * 9_000}", 414),
        ("GET", "/v1/events?wait=x", 422),
        ("GET", "/readyz", 200),
    ],
)
async def test_a_page_reads_answers_and_problems_alike(serve, method, path, status) -> None:
    client = await serve(cors_origins=(ORIGIN,))
    answer = await client.request(method, path, headers={"origin": ORIGIN})
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
    assert {"etag", "location", "retry-after", "x-request-id"} <= set(exposed)
    anonymous = await client.get("/v1/status", headers={"origin": ORIGIN, "authorization": "x"})
    assert (anonymous.status_code, anonymous.headers["access-control-allow-origin"]) == (
        401,
        ORIGIN,
    )


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "https://appXexample.com",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://sub.app.example.com",
        "null",
        "*",
        "",
    ],
)
async def test_pages_of_other_origins_read_nothing(serve, origin) -> None:
    client = await serve(cors_origins=(ORIGIN,))
    answer = await client.options("/v1/credentials", headers={**PREFLIGHT, "origin": origin})
    assert answer.status_code == 204
    assert shared(answer) == set()
    assert shared(await client.get("/v1/credentials", headers={"origin": origin})) == set()


async def test_without_origins_no_page_reads_anything(client) -> None:
    assert shared(await client.options("/v1/credentials", headers=PREFLIGHT)) == set()
    assert shared(await client.get("/v1/credentials", headers={"origin": ORIGIN})) == set()


# --- bodies -------------------------------------------------------------------------------------

BODY = json.dumps(CREDENTIAL).encode()
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({**JSON, "content-encoding": "gzip"}, "`Content-Encoding: gzip`"),
        ({**JSON, "content-encoding": "GZIP, identity"}, "gzip"),
        ({**JSON, "content-encoding": "br"}, "`Content-Encoding: br`"),
        ({**JSON, "content-encoding": "x" * 5_000}, "x" * 100),
        ({"content-type": "application/json; charset=latin-1"}, "charset 'latin-1'"),
        ({"content-type": 'application/json;Charset="UTF-16"'}, "charset 'utf-16'"),
        ({"content-type": "application/json; a=b; charset=windows-1252"}, "'windows-1252'"),
        ({"content-type": "application/x-www-form-urlencoded"}, "x-www-form-urlencoded"),
        ({"content-type": "text/plain"}, "text/plain"),
        ({"content-type": "application/jsonx"}, "application/jsonx"),
        ({"content-type": ""}, "the request has no Content-Type"),
        ({}, "the request has no Content-Type"),
    ],
)
async def test_a_body_in_another_form_is_refused_by_its_name(
    client, problem, headers, named
) -> None:
    content = gzip.compress(BODY) if "content-encoding" in headers else BODY
    answer = await client.post("/v1/credentials", content=content, headers=headers)
    assert named in problem(answer, "unsupported-media-type", 415)["detail"]
    assert ("accept-encoding" in answer.headers) == ("content-encoding" in headers)
    assert len(answer.content) < 1_000
    paused = await client.post("/v1/pause", content=content, headers=headers)  # no body is needed
    problem(paused, "unsupported-media-type", 415)


@pytest.mark.parametrize(
    "headers",
    [
        JSON,
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": "Application/JSON;charset=UTF8;"},
        {"content-type": 'application/json; charset="utf-8"'},
        {"content-type": "application/json; charset=us-ascii"},
        {**JSON, "content-encoding": "identity"},
        {**JSON, "content-encoding": ""},
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
async def test_every_spelling_of_json_in_utf8_is_read(client, headers, mark) -> None:
    answer = await client.post("/v1/credentials", content=mark + BODY, headers=headers)
    assert answer.status_code == 201, answer.text
    (entry,) = (await client.get("/v1/audit?limit=1")).json()["items"]
    assert set(entry["fields"]) == set(CREDENTIAL)


@pytest.mark.parametrize("body", [b"\xef\xbb\xbf", b"\xff\xfe{\x00}\x00", b"{}\xef\xbb\xbf"])
async def test_other_marks_are_no_json(client, problem, body) -> None:
    answer = await client.post("/v1/credentials", content=body, headers=JSON)
    problem(answer, "malformed", 400)


# --- what is pasted -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        f"Bearer Bearer {ADMIN}",
        f"bearer  {ADMIN} ",
        f"Bearer\t{ADMIN}",
        f"Bearer: {ADMIN}",
        f'Bearer "{ADMIN}"',
        f"Bearer '{ADMIN}'",
        f'"Bearer {ADMIN}"',
        f"Authorization: Bearer {ADMIN}",
        f"Bearer Authorization: Bearer {ADMIN}",
        f"Bearer \u200b{ADMIN}\ufeff",
        f"Bearer “{ADMIN}”",
        f"Bearer \u00a0{ADMIN}",
    ],
)
async def test_a_token_is_taken_as_it_is_pasted(anonymous, header) -> None:
    answer = await anonymous.get("/v1/status", headers={"authorization": header.encode()})
    assert answer.status_code == 200, answer.text


async def test_a_key_is_taken_as_it_is_pasted(anonymous, open_key) -> None:
    token = (await open_key("read"))["token"]
    header = f'Bearer Bearer "{token}\u200b"'.encode()
    answer = await anonymous.get("/v1/status", headers={"authorization": header})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("token", "named"),
    [
        (f"{ADMIN[:5]}\u200b{ADMIN[5:]}", "character 6 is U+200B (ZERO WIDTH SPACE)"),
        (f"{ADMIN[:5]} {ADMIN[5:]}", "character 6 is a space"),
        (f"{ADMIN}ü", f"character {len(ADMIN) + 1} is U+00FC"),
        (f"{ADMIN} {ADMIN}", f"character {len(ADMIN) + 1} is a space"),
    ],
)
async def test_what_is_wrong_in_a_token_is_named(anonymous, problem, token, named) -> None:
    answer = await anonymous.get(
        "/v1/status", headers={"authorization": f"Bearer {token}".encode()}
    )
    detail = problem(answer, "unauthorized", 401)["detail"]
    assert named in detail
    assert ADMIN[:5] not in detail.replace("COURSEWIRE_ADMIN_TOKEN", "").partition(";")[0]


@pytest.mark.parametrize(
    "given",
    [
        "key-1\n",
        " key-1",
        "Bearer key-1",
        "bearer Bearer key-1",
        "Authorization: Bearer key-1\r\n",
        '"key-1"',
        "'key-1'",
        "\ufeffkey-1",
        "key-1\u200b",
        "\tkey-1\u00a0",
        ' "Bearer key-1" ',
    ],
)
@pytest.mark.parametrize("path", ["/v1/credentials", "/v1/integrations"])
async def test_an_upstream_key_is_taken_as_it_is_pasted(client, services, path, given) -> None:
    body = {**CREDENTIAL, "api_key": given}
    if path == "/v1/integrations":
        body["upstream_id"] = "workday:1"
    answer = await client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    credential_id = answer.json().get("credential_id", answer.json()["id"])
    assert (await services.credentials.decrypt(credential_id)).api_key == "key-1"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("key 1", "character 4 is a space"),
        ("ke\u200by1", "character 3 is U+200B (ZERO WIDTH SPACE)"),
        (" Bearer ke\ny1", "character 11 is a line break"),
        ("schlüssel", "character 5 is U+00FC"),
        ("\u0440key", "character 1 is U+0440 (CYRILLIC SMALL LETTER ER)"),
        (" \n", "is blank"),
    ],
)
async def test_what_is_wrong_in_an_upstream_key_is_named(client, refused, given, named) -> None:
    answer = await client.post("/v1/credentials", json={**CREDENTIAL, "api_key": given})
    assert named in refused(answer, "api_key")["api_key"]["message"]


@pytest.mark.parametrize(
    "given", ["Bearer x\n", " Bearer x", "\ufeffBearer x\u200b", "Bearer x\r\n"]
)
async def test_a_header_of_pushes_is_taken_as_it_is_pasted(client, services, given) -> None:
    body = {"url": "https://r.example", "headers": {"Authorization": given}}
    answer = await client.post("/v1/subscriptions", json=body)
    assert answer.status_code == 201, answer.text
    assert await services.subscriptions.headers(answer.json()["id"]) == {
        "authorization": "Bearer x"
    }


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("Bearer a\nb", "character 9 is a line break"),
        (" Bearer a\tb", "character 10 is a tab"),
        ("a\u200bb", "character 2 is U+200B"),
        ("é", "character 1 is U+00E9"),
        ("\u200b \n", "is blank"),
        ("", "is blank"),
    ],
)
async def test_what_is_wrong_in_a_header_of_pushes_is_named(client, refused, given, named) -> None:
    body = {"url": "https://r.example", "headers": {"x-key": given}}
    answer = await client.post("/v1/subscriptions", json=body)
    assert named in refused(answer, "headers.x-key")["headers.x-key"]["message"]


@pytest.mark.parametrize("given", [" {}\n", "v1,{}", '"{}"', "\ufeff{}"])
async def test_a_signing_secret_is_taken_as_it_is_pasted(client, given) -> None:
    secret = "whsec_" + "QUJD" * 8
    body = {"url": "https://r.example", "secret": given.format(secret)}
    made = await client.post("/v1/subscriptions", json=body)
    assert made.json()["secret"] == secret
    path = f"/v1/subscriptions/{made.json()['id']}/secret/rotate"
    again = await client.post(path, json={"secret": given.format(secret)})
    assert again.status_code == 422  # it is the one in force


async def test_what_is_wrong_in_a_signing_secret_is_named(client, refused) -> None:
    body = {"url": "https://r.example", "secret": "whsec_QUJD%3D" + "QUJD" * 8}
    answer = await client.post("/v1/subscriptions", json=body)
    assert "character 11 is '%'" in refused(answer, "secret")["secret"]["message"]
    assert "QUJDQUJD" not in answer.text
