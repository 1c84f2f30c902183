"""A real API process behind a real nginx, behind a load balancer, and on bare sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from redis.asyncio import Redis

from tests.conftest import free_port
from tests.integration.delivery.test_pull import HEADERS, TOKEN, append, start_api
from tests.programs import required_program

pytestmark = pytest.mark.slow

IMPATIENT = "tests.integration.process.impatient"
PATIENCE = 30  # seconds in which what is to be seen must be seen
SOMEBODY = "127.0.0.2"  # an address of this machine that is no trusted proxy
CREDENTIAL = {"name": "a", "base_url": "https://a.example", "api_key": "k"}
ROOT = Path(__file__).parents[3]


@pytest.fixture
def start(valkey_url) -> Iterator[Callable[..., tuple[subprocess.Popen, str]]]:
    """Starts API processes, and ends those that are left."""
    started: list[subprocess.Popen] = []

    def start(**variables: str) -> tuple[subprocess.Popen, str]:
        process, url = start_api(valkey_url, module=IMPATIENT, **variables)
        started.append(process)
        return process, url

    yield start
    for process in started:
        process.kill()
        process.wait()


# --- behind nginx -------------------------------------------------------------------------------


CONFIGURATION = (ROOT / "deploy/nginx/coursewire.conf").read_text()
(DOCUMENTED,) = re.findall(
    r"```sh\n(COURSEWIRE_ROOT_PATH.*?)```",
    (ROOT / "docs/operations/proxies.md").read_text(),
    re.DOTALL,
)
VARIABLES = dict(line.removeprefix("COURSEWIRE_").split("=") for line in DOCUMENTED.split())
PREFIX = VARIABLES["ROOT_PATH"]
# What others add to such a configuration, and what cuts off whoever is silent for long.
AROUND = """
daemon off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    gzip on;
    gzip_min_length 1;
    gzip_types application/json text/event-stream;
    proxy_read_timeout 5s;
{configuration}
}}
"""


@pytest.fixture(scope="module", params=["prefix left", "prefix stripped"])
def fronted(request, valkey_url, tmp_path_factory) -> Iterator[str]:
    """The URL of nginx as in `deploy/nginx` in front of an API with the documented settings."""
    program = required_program("nginx")
    tmp_path = tmp_path_factory.mktemp("nginx")
    api, url = start_api(valkey_url, module=IMPATIENT, **VARIABLES)
    port = free_port()
    configuration = CONFIGURATION.replace("127.0.0.1:8000", urlsplit(url).netloc)
    configuration = configuration.replace("listen 80;", f"listen 127.0.0.1:{port};")
    if request.param == "prefix stripped":
        configuration = configuration.replace("http://coursewire;", "http://coursewire/;")
    path = tmp_path / "nginx.conf"
    path.write_text(AROUND.format(directory=tmp_path, configuration=configuration))
    process = subprocess.Popen([program, "-p", str(tmp_path), "-c", str(path)])
    while process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}{PREFIX}/readyz").status_code == 200:
                break
    yield f"http://127.0.0.1:{port}"
    for one in (process, api):
        one.terminate()
        one.wait()


@pytest.fixture
async def nginx(fronted) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it, from an address that is no proxy's."""
    transport = httpx.AsyncHTTPTransport(local_address=SOMEBODY)
    async with httpx.AsyncClient(
        base_url=fronted, headers=HEADERS, timeout=PATIENCE, transport=transport
    ) as client:
        yield client


async def test_what_is_made_behind_nginx_is_found_by_its_location_and_edited_by_its_tag(
    nginx,
) -> None:
    made = await nginx.post(f"{PREFIX}/v1/credentials", json=CREDENTIAL)
    assert made.status_code == 201, made.text
    location = made.headers["location"]
    shown = await nginx.get(location)
    assert shown.headers["content-encoding"] == "gzip"
    tag = shown.headers["etag"]
    assert tag.startswith("W/")  # nginx compressed it
    edited = await nginx.patch(location, json={"name": "b"}, headers={"if-match": tag})
    assert (edited.status_code, edited.json()["name"]) == (200, "b")
    again = await nginx.patch(location, json={"name": "c"}, headers={"if-match": tag})
    assert again.status_code == 412
    head = await nginx.head(location)
    assert (head.status_code, head.content) == (200, b"")


async def test_the_documentation_behind_nginx_leads_to_itself(nginx) -> None:
    root = (await nginx.get(f"{PREFIX}/")).json()
    page = await nginx.get(root["documentation"])
    for asset in re.findall(r'(?:src|href)="(/\S+)"', page.text):
        assert (await nginx.get(asset)).status_code == 200, asset
    (path,) = re.findall(r'data-document="(\S+)"', page.text)
    document = (await nginx.get(path)).json()
    (server,) = document["servers"]
    assert (await nginx.get(f"{server['url']}/v1/status")).status_code == 200
    problem = await nginx.get(f"{PREFIX}/nowhere")
    assert problem.json()["detail"] == f"no path {PREFIX}/nowhere; see {PREFIX}/schema"


async def test_nginx_says_who_is_asking_and_the_client_does_not(nginx) -> None:
    for sent in ({}, {"x-forwarded-for": "203.0.113.7"}, {"x-forwarded-for": "127.0.0.1"}):
        await nginx.post(f"{PREFIX}/v1/pause", headers=sent)
        entry = (await nginx.get(f"{PREFIX}/v1/audit")).json()["items"][0]
        assert entry["address"] == SOMEBODY


async def test_a_stream_passes_nginx_event_by_event_and_is_never_silent(
    nginx, valkey_admin_url
) -> None:
    path = f"{PREFIX}/v1/events/stream?after=latest"
    async with (
        asyncio.timeout(PATIENCE),
        # Of a database that is not emptied under the API.
        Redis.from_url(valkey_admin_url) as redis,
        nginx.stream("GET", path) as answer,
    ):
        assert answer.headers["cache-control"] == "no-store, no-transform"
        lines = answer.aiter_lines()
        while await anext(lines) != ":":
            pass
        for number in range(3):
            await append(redis, f"c{number}")
            while not (line := await anext(lines)).startswith("data:"):
                pass
            event = json.loads(line.removeprefix("data:"))
            assert event["data"]["course_id"] == f"c{number}"
            while await anext(lines) != ":":
                pass


@pytest.mark.parametrize("seconds", [50, 60])
async def test_a_long_poll_is_answered_before_nginx_gives_up(nginx, seconds) -> None:
    answer = await nginx.get(f"{PREFIX}/v1/events?after=latest&wait={seconds}")
    assert (answer.status_code, answer.json()["items"]) == (200, [])
    head = await nginx.head(f"{PREFIX}/v1/events?after=latest&wait={seconds}")
    assert (head.status_code, head.content) == (200, b"")


def test_the_bounds_that_are_shortened_here_are_below_what_proxies_wait() -> None:
    from service.api.resources.event_stream import HEARTBEAT_SECONDS
    from service.api.resources.events import LONGEST_WAIT_SECONDS, MAX_WAIT_SECONDS
    from service.settings import Settings

    assert (HEARTBEAT_SECONDS, LONGEST_WAIT_SECONDS, MAX_WAIT_SECONDS) == (15, 50, 60)
    assert Settings().keep_alive_seconds == 75


# --- stopping -----------------------------------------------------------------------------------


class Balancer:
    """Sends requests to processes that were ready when it last asked, over connections that it
    keeps. Nothing is tried again."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self.ready = set(urls)
        self.said: list[tuple[str, int]] = []  # changes of readiness
        self.answers: list[tuple[str, int]] = []
        self.failed: list[str] = []
        self._client = httpx.AsyncClient(headers=HEADERS, timeout=PATIENCE)

    async def probe(self) -> None:
        while True:
            for url in self.urls:
                status = 0
                with contextlib.suppress(httpx.TransportError):
                    async with httpx.AsyncClient() as client:
                        status = (await client.get(f"{url}/readyz")).status_code
                if (status == 200) != (url in self.ready):
                    self.said.append((url, status))
                    self.ready ^= {url}
            await asyncio.sleep(0.1)  # its period

    async def ask(self, path: str) -> None:
        turn = 0
        while True:
            ready = sorted(self.ready)
            url, turn = ready[turn % len(ready)], turn + 1
            try:
                answer = await self._client.get(f"{url}{path}")
            except httpx.HTTPError as error:
                self.failed.append(f"{url}: {error!r}")
            else:
                self.answers.append((url, answer.status_code))
            await asyncio.sleep(0)

    async def close(self) -> None:
        await self._client.aclose()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - others ask meanwhile
                await asyncio.sleep(0.01)


async def test_not_one_request_is_refused_while_a_process_stops(start) -> None:
    (leaving, old), (_, new) = start(SHUTDOWN_DELAY_SECONDS="3"), start()
    balancer = Balancer([old, new])
    paths = ["/v1/subscriptions"] * 6 + ["/v1/events?wait=50&after=latest"] * 2
    tasks = [asyncio.create_task(balancer.ask(path)) for path in paths]
    tasks.append(asyncio.create_task(balancer.probe()))
    await balancer.until(lambda: {url for url, _ in balancer.answers} == {old, new})
    leaving.send_signal(signal.SIGTERM)
    before = len(balancer.answers)
    await balancer.until(lambda: old not in balancer.ready)
    assert (old, 200) in balancer.answers[before:]  # it went on serving
    await asyncio.to_thread(leaving.wait)
    after = len(balancer.answers)
    await balancer.until(lambda: len(balancer.answers) > after + 50)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await balancer.close()
    assert balancer.failed == []
    assert {status for _, status in balancer.answers} == {200}
    assert balancer.said == [(old, 503)]


async def test_a_process_that_stops_says_so_and_lets_go_of_its_connections(start) -> None:
    process, url = start(SHUTDOWN_DELAY_SECONDS="600")
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=PATIENCE) as client:
        assert "connection" not in (await client.get("/v1/subscriptions")).headers
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            while (answer := await client.get("/readyz")).status_code == 200:
                pass
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:coursewire:problem:stopping"
        assert (answer.headers["connection"], answer.headers["retry-after"]) == ("close", "5")
        assert (await client.get("/healthz")).status_code == 200
        for _ in range(3):
            answer = await client.get("/v1/subscriptions")
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert process.poll() is None


@pytest.mark.parametrize(
    "signals", [[signal.SIGTERM, signal.SIGTERM], [signal.SIGTERM, signal.SIGINT], [signal.SIGINT]]
)
async def test_a_second_signal_or_an_interrupt_ends_the_delay(start, signals) -> None:
    process, _ = start(SHUTDOWN_DELAY_SECONDS="600")
    process.send_signal(signals[0])
    async with asyncio.timeout(PATIENCE):
        while process.poll() is None:  # within a second it counts as the first one's
            for number in signals[1:]:
                process.send_signal(number)
            await asyncio.sleep(0.05)


async def test_a_signal_repeated_within_a_second_counts_once(start) -> None:
    process, url = start(SHUTDOWN_DELAY_SECONDS="3")
    for _ in range(20):
        process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient(base_url=url) as client:
        while (await client.get("/readyz")).status_code == 200:
            pass
        assert (await client.get("/healthz")).status_code == 200
    assert await asyncio.to_thread(process.wait, PATIENCE) == -signal.SIGTERM


# --- on a socket --------------------------------------------------------------------------------


class Connection:
    """One connection, on which requests are written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, head: str, body: bytes = b"") -> None:
        lines = head.replace("\n", "\r\n")
        self._writer.write(f"{lines}\r\n\r\n".encode() + body)

    def write(self, content: bytes) -> None:
        self._writer.write(content)

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers of the next answer."""
        async with asyncio.timeout(PATIENCE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        pairs = (line.partition(": ") for line in lines if line)
        return int(first.split()[1]), {name: value for name, _, value in pairs}

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer, with as much body as it says."""
        status, headers = await self.head()
        async with asyncio.timeout(PATIENCE):
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return status, headers, body

    async def end(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@pytest.fixture(scope="module")
def served(valkey_url) -> Iterator[str]:
    process, url = start_api(valkey_url, module=IMPATIENT, KEEP_ALIVE_SECONDS="3")
    yield url
    process.terminate()
    process.wait()


@pytest.fixture
async def connect(served):
    opened: list[Connection] = []

    async def connect() -> Connection:
        parts = urlsplit(served)
        connection = Connection(*await asyncio.open_connection(parts.hostname, parts.port))
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        await connection.close()


AUTHORIZED = f"host: a\nauthorization: Bearer {TOKEN}"


async def test_head_leaves_the_connection_to_the_next_request(connect) -> None:
    connection = await connect()
    for path in ("/v1/credentials", "/v1/events?after=latest&wait=50", "/metrics", "/nowhere"):
        connection.send(f"HEAD {path} HTTP/1.1\n{AUTHORIZED}")
        _, headers = await connection.head()
        assert int(headers["content-length"]) > 0
    connection.send(f"HEAD /v1/events/stream HTTP/1.1\n{AUTHORIZED}")
    status, headers = await connection.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    # Two at once, neither with a body between it and the next.
    connection.send(f"HEAD /v1/credentials HTTP/1.1\n{AUTHORIZED}")
    connection.send(f"GET /healthz HTTP/1.1\n{AUTHORIZED}")
    await connection.head()
    assert (await connection.answer())[2] == b'{"status":"ok"}'


@pytest.mark.parametrize(
    ("head", "allowed"),
    [
        ("OPTIONS / HTTP/1.0", "GET, HEAD, OPTIONS"),
        ("OPTIONS * HTTP/1.1\nhost: a", "GET, HEAD, POST, PATCH, DELETE, OPTIONS"),
        ("OPTIONS /v1/credentials HTTP/1.1\nhost: coursewire_api", "GET, HEAD, POST, OPTIONS"),
    ],
)
async def test_probes_of_old_balancers_are_answered(connect, head, allowed) -> None:
    connection = await connect()
    connection.send(head)
    status, headers = await connection.head()
    assert status == 204
    assert set(headers["allow"].split(", ")) == set(allowed.split(", "))


async def test_an_idle_connection_is_kept_as_long_as_is_set(connect) -> None:
    connection = await connect()
    for _ in range(2):
        connection.send("GET /healthz HTTP/1.1\nhost: a")
        assert (await connection.answer())[0] == 200
    assert await connection.end() == b""


def chunked(body: bytes, size: int) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


POST = f"POST /v1/credentials HTTP/1.1\n{AUTHORIZED}\ncontent-type: application/json"


async def test_a_chunked_body_is_read(connect) -> None:
    connection = await connect()
    body = json.dumps(CREDENTIAL).encode()
    for size in (1, 7, 1_000):
        connection.send(f"{POST}\ntransfer-encoding: chunked", chunked(body, size))
        assert (await connection.answer())[0] == 201


@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_a_body_without_end_is_refused_however_it_is_framed(connect, framing) -> None:
    connection = await connect()
    body = b" " * 1_100_000
    if framing == "chunked":
        connection.send(f"{POST}\ntransfer-encoding: chunked", chunked(body, 60_000))
    else:
        connection.send(f"{POST}\ncontent-length: {len(body)}", body)
    status, headers, _ = await connection.answer()
    assert (status, headers["content-type"]) == (413, "application/problem+json")


async def test_a_client_that_waits_to_send_its_body_is_told_to(connect) -> None:
    connection = await connect()
    body = json.dumps(CREDENTIAL).encode()
    connection.send(f"{POST}\nexpect: 100-continue\ncontent-length: {len(body)}")
    assert (await connection.head())[0] == 100
    connection.write(body)
    assert (await connection.answer())[0] == 201


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("host: a\nauthorization: Bearer wrong\ncontent-length: 9", 401),
        ("host: a\ncontent-length: 9", 401),
        (f"{AUTHORIZED}\ncontent-length: 2000000", 413),
    ],
)
async def test_a_client_that_waits_in_vain_is_told_so_at_once(connect, headers, status) -> None:
    connection = await connect()
    connection.send(
        f"POST /v1/credentials HTTP/1.1\n{headers}\ncontent-type: application/json"
        "\nexpect: 100-continue"
    )
    found, answered, _ = await connection.answer()
    assert found == status
    # Whether the body still comes is not known, so nothing else can be read on this connection.
    assert answered["connection"] == "close"
    assert await connection.end() == b""
