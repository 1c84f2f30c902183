"""Marked secrets go through everything, failures included, and turn up nowhere."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from aiohttp import web
from redis.asyncio import Redis

from tests.authority import Authority, Issued
from tests.conftest import peer
from tests.e2e.conftest import House, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

# Answers that are there to tell a secret.
MEANT = ("/secret", "/secret/rotate", "/v1/api-keys", "/token/rotate", "POST /v1/subscriptions")


class Marks:
    """Secrets that were planted, by what they are for, with all forms they are looked for in."""

    def __init__(self) -> None:
        self._forms: dict[bytes, str] = {}

    def text(self, name: str) -> str:
        """A new secret of letters and digits."""
        return self.plant(name, f"m{secrets.token_hex(20)}")

    def key(self, name: str, prefix: str, size: int) -> str:
        """A new signing secret or encryption key."""
        raw = secrets.token_bytes(size)
        self.plant(name, base64.b64encode(raw).decode())
        self._add(name, raw)
        return prefix + base64.b64encode(raw).decode()

    def plant(self, name: str, secret: str) -> str:
        raw = secret.encode()
        self._add(name, raw)
        for form in (quote(secret, safe=""), json.dumps(secret)[1:-1]):
            self._forms[form.encode()] = name
        for shift in range(3):
            # What of the base64 of a longer text does not depend on what is around the secret.
            encoded = base64.b64encode(bytes(shift) + raw)
            inner = encoded[4 if shift else 0 : (len(raw) + shift) // 3 * 4]
            for form in (inner, inner.translate(bytes.maketrans(b"+/", b"-_"))):
                self._forms[form] = name
        return secret

    def plant_key(self, name: str, issued: Issued) -> None:
        """A private key: its number, and each line of its PEM."""
        for line in issued.key_pem.splitlines()[1:-1]:
            self.plant(name, line)
        self._add(name, issued.key.private_numbers().private_value.to_bytes(32))

    def _add(self, name: str, raw: bytes) -> None:
        for form in (raw, raw.hex().encode(), raw.hex().upper().encode()):
            self._forms[form] = name

    def found(self, where: str, content: bytes) -> list[str]:
        """Which of them are in `content`."""
        return [f"{name} in {where}" for form, name in self._forms.items() if form in content]


class Echo:
    """A receiver and an upstream that say back all they were sent, and more."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 500
        self.known: list[str] = []  # what else it repeats
        self.pushes = self.requests = 0

    async def push(self, request: web.Request) -> web.Response:
        self.pushes += 1
        return web.Response(status=self.status, text=self._all(request, await request.text()))

    async def courses(self, request: web.Request) -> web.Response:
        self.requests += 1
        error = {"code": "X", "title": "no", "message": self._all(request, ""), "log_url": ""}
        return web.json_response({"status": "error", "error": error}, status=500)

    def _all(self, request: web.Request, body: str) -> str:
        values = " ".join(request.headers.values())
        encoded = base64.b64encode(values.encode()).decode()
        said = [values, json.dumps(dict(request.headers)), quote(values), *self.known, encoded]
        return f"{' '.join(said)} {body}"[:900]


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    async with peer(
        web.post("/hook", echo.push), web.get("/v1/lms/courses", echo.courses)
    ) as echo.url:
        yield echo


@pytest.fixture
async def marks() -> Marks:
    return Marks()


class Answers:
    """Every answer of the API but those that are there to tell a secret."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, bytes]] = []

    async def keep(self, response: httpx.Response) -> None:
        what = f"{response.request.method} {response.request.url.path}"
        content = await response.aread()
        if response.is_success and what.endswith(MEANT):
            return
        headers = b"\n".join(b"%s: %s" % pair for pair in response.headers.raw)
        self.kept.append((f"the answer to {what}", headers + b"\n" + content))


@pytest.fixture
async def house(tmp_path: Path, marks: Marks) -> AsyncIterator[House]:
    """As it runs with a key being rotated, telling all it can."""
    house = House(tmp_path, 20)
    admin = marks.text("the admin token")
    keys = [marks.key(f"encryption key {number}", "", 32) for number in (1, 2)]
    settings = {
        "COURSEWIRE_LOG_LEVEL": "debug",
        "COURSEWIRE_ADMIN_TOKEN": admin,
        "COURSEWIRE_METRICS_TOKEN": marks.text("the metrics token"),
        "COURSEWIRE_EGRESS_PROXY": f"http://user:{marks.text('the proxy password')}@127.0.0.1:9",
        "COURSEWIRE_NO_PROXY": "*",  # `doctor` alone tries it
        "COURSEWIRE_ENCRYPTION_KEYS": ",".join(
            one.translate(str.maketrans("+/", "-_")) for one in keys
        ),
    }
    for name in ("api", "worker", "scheduler"):
        house.processes[name] = house.processes[name].like(name, **settings)
    house.api.headers["Authorization"] = f"Bearer {admin}"
    await house.start()
    yield house
    await house.close()


async def command(house: House, *arguments: str) -> bytes:
    """What a command of the service prints."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "service.cli", *arguments],
        env=house.processes["api"].environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


async def redis_values(url: str) -> AsyncIterator[tuple[str, bytes]]:
    """Every key with all that it holds."""
    async with Redis.from_url(url) as redis:
        readers = {
            b"string": redis.get,
            b"hash": redis.hgetall,
            b"list": lambda key: redis.lrange(key, 0, -1),
            b"set": redis.smembers,
            b"zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
            b"stream": redis.xrange,
        }
        async for key in redis.scan_iter("*"):
            yield (
                key.decode(errors="replace"),
                b"".join(flat(await readers[await redis.type(key)](key))),
            )


def flat(value: Any) -> Iterator[bytes]:
    match value:
        case bytes():
            yield value + b"\n"
        case dict():
            for pair in value.items():
                yield from flat(pair)
        case list() | tuple() | set():
            for one in value:
                yield from flat(one)
        case _:
            yield str(value).encode()


def written(house: House) -> Iterator[tuple[str, bytes]]:
    """What the processes have written: their logs, Valkey's files; and what `ps` shows of them."""
    for name, process in house.processes.items():
        yield f"the log of {name}", process.log().encode()
        if name != "valkey" and process.running:
            yield f"the arguments of {name}", Path(f"/proc/{process.pid}/cmdline").read_bytes()
    for path in house.valkey_directory.rglob("*"):
        if path.is_file():
            yield f"the file {path.name}", path.read_bytes()


async def subscribed(house: House, echo: Echo, marks: Marks) -> list[str]:
    """Subscriptions with all kinds of secrets, given, made, rotated and refused."""
    paths = []
    for signature, prefix, size in (("hmac", "whsec_", 32), ("ed25519", "whsk_", 32)):
        secret = marks.key(f"the {signature} secret", prefix, size)
        headers = {
            "authorization": f"Bearer {marks.text(f'the bearer token for {signature}')}",
            "x-api-key": marks.text(f"the API key for {signature}"),
        }
        echo.known += [secret, *headers.values()]
        wanted = {"url": f"{echo.url}/hook", "secret": secret, "signature": signature}
        for _ in range(2):  # the second is answered from what is kept of the first
            made = await house.call(
                "POST",
                "/v1/subscriptions",
                json={**wanted, "headers": headers, "retry_schedule_seconds": [1, 1, 1, 1, 1, 1]},
                headers={"Idempotency-Key": f"key-{signature}"},
            )
        paths.append(f"/v1/subscriptions/{made['id']}")
        await client_certified(house, marks, signature)
        rotated = marks.key(f"the rotated {signature} secret", prefix, size)
        echo.known.append(rotated)
        await house.call("POST", f"{paths[-1]}/secret/rotate", json={"secret": rotated})
        await house.call("PATCH", paths[-1], json={"description": "edited"})
    wrong = (
        {"url": f"{echo.url}/hook", "secret": f"whsec_{marks.text('a secret that is none')}"},
        {"url": f"{echo.url}/hook", "secret": [marks.text("a secret in a list")]},
        {"url": f"{echo.url}/hook", "headers": {"bad name": marks.text("a refused header")}},
        {
            "url": f"{echo.url}/hook",
            "headers": {"x-a": marks.text("a header with a break") + "\nx"},
        },
        {"url": f"{echo.url}/hook", "headers": marks.text("headers that are none")},
    )
    for fields in wrong:
        assert (await house.api.post("/v1/subscriptions", json=fields)).status_code == 422
    return paths


async def client_certified(house: House, marks: Marks, name: str) -> None:
    """A subscription that shows a certificate, used, refused another and left as it is."""
    authority = Authority(house.directory)
    kept, refused = authority.issue(), authority.issue()
    for what, issued in (("kept", kept), ("refused", refused)):
        marks.plant_key(f"a {what} client key of {name}", issued)
    wanted = {"url": "https://127.0.0.1:1/hook", "client_certificate": kept.fields}
    made = await house.call(
        "POST", "/v1/subscriptions", json=wanted, headers={"Idempotency-Key": f"mtls-{name}"}
    )
    path = f"/v1/subscriptions/{made['id']}"
    await house.api.post(f"{path}/test")
    wrong = {"certificate": kept.pem, "private_key": refused.key_pem}
    for fields in (wrong, {**refused.fields, "private_key": [refused.key_pem]}):
        answer = await house.api.patch(path, json={"client_certificate": fields})
        assert answer.status_code == 422


async def registered(house: House, echo: Echo, marks: Marks) -> None:
    """Integrations on an upstream that repeats their keys, and one whose events flow."""
    base_url = f"{echo.url}/v1"
    inline = {"name": "a", "upstream_id": "w:1", "base_url": base_url}
    await house.call(
        "POST", "/v1/integrations", json={**inline, "api_key": marks.text("an inline key")}
    )
    credential = await house.call(
        "POST",
        "/v1/credentials",
        json={"name": "c", "base_url": base_url, "api_key": marks.text("a credential's key")},
    )
    path = f"/v1/credentials/{credential['id']}"
    await house.call("PATCH", path, json={"api_key": marks.text("a credential's next key")})
    await house.call("GET", path)
    fields = {"name": "b", "upstream_id": "w:2", "credential_id": credential["id"]}
    await house.call("POST", "/v1/integrations", json=fields)
    check = {"upstream_id": "w:3", "base_url": base_url, "api_key": marks.text("a checked key")}
    await house.api.post("/v1/integrations/check", json=check)
    for key in ([marks.text("a key in a list")], marks.text("a key with a break") + "\nx", 7):
        refused = await house.api.post(
            "/v1/credentials", json={"name": "x", "base_url": base_url, "api_key": key}
        )
        assert refused.status_code == 422
    await house.register(baseline="emit", delta_interval_seconds=3600)


async def keyed(house: House, marks: Marks) -> None:
    """API keys that come, rotate and go, and tokens that are wrong."""
    made = await house.call("POST", "/v1/api-keys", json={"name": "k", "scope": "read"})
    path = f"/v1/api-keys/{made['id']}"
    for token in (made["token"], (await house.call("POST", f"{path}/token/rotate"))["token"]):
        marks.plant("an API key's token", token.rpartition("_")[2])
        await house.api.get("/v1/subscriptions", headers={"Authorization": f"Bearer {token}"})
    await house.call("DELETE", path)
    for scheme in ("Bearer", "Basic", "bearer"):
        wrong = {"Authorization": f"{scheme} {marks.text('a wrong token')}"}
        assert (await house.api.get("/v1/status", headers=wrong)).status_code == 401


async def test_no_secret_is_found_in_the_clear_anywhere(house: House, echo: Echo, marks: Marks):
    answers = Answers()
    house.api.event_hooks["response"].append(answers.keep)
    paths = await subscribed(house, echo, marks)
    await registered(house, echo, marks)
    await keyed(house, marks)

    # Failures first, with a worker that dies among them, and then receipts.
    await until(lambda: echo.pushes >= 20 and echo.requests >= 3, seconds=60, what="failures")
    await house.restart("worker")
    for path in paths:
        await house.api.post(f"{path}/test")
    echo.status = 200
    for path in paths:

        async def drained(path: str = path) -> bool:
            return (await house.call("GET", path))["pending"] == 0

        await house.call("POST", f"{path}/resume")
        await until(drained, seconds=60, what=f"an empty outbox\n{house.logs()}")
        await house.call("POST", f"{path}/replays", json={"which": "all"})
        await house.api.post(f"{path}/test")
        identifier = path.rpartition("/")[2]
        deliveries = await house.call("GET", f"/v1/deliveries?subscription_id={identifier}")
        attempts = [one for delivery in deliveries["items"] for one in delivery["attempts"]]
        assert any(one["excerpt"] for one in attempts)  # the beginning of what was said is kept
        await house.call("GET", f"{path}/secret")
    for path in (
        "integrations",
        "credentials",
        "subscriptions",
        "api-keys",
        "audit",
        "status",
        "events",
    ):
        await house.call("GET", f"/v1/{path}")
    await house.api.get("/metrics")
    printed = [
        ("what `status` prints", await command(house, "status", "--url", str(house.api.base_url))),
        ("what `doctor` prints", await command(house, "doctor")),
        ("what `rotate-keys` prints", await command(house, "rotate-keys")),
    ]

    places = [*answers.kept, *printed, *written(house)]
    places += [one async for one in redis_values(house.redis_url)]
    assert len(answers.kept) > 40
    assert any(name.startswith("rq:") for name, _ in places)
    assert any(name.startswith("cw:attempts:") for name, _ in places)
    leaks = {leak for where, content in places for leak in marks.found(where, content)}
    assert not leaks, sorted(leaks)


async def test_what_is_looked_for_is_found(house: House, marks: Marks):
    """In a value, in the append-only file, in a log, and written in other ways."""
    secret = marks.text("planted")
    async with Redis.from_url(house.redis_url) as redis:
        await redis.hset("planted", "field", f"before {secret} after")
        await redis.set("encoded", base64.b64encode(f"xy{secret}z".encode()))
        await redis.set("digits", secret.encode().hex())
    with (house.directory / "api.log").open("a") as log:
        log.write(secret)
    values = [one async for one in redis_values(house.redis_url)]
    found = {
        leak
        for where, content in [*values, *written(house)]
        for leak in marks.found(where, content)
    }
    assert {
        f"planted in {key}" for key in ("planted", "encoded", "digits", "the log of api")
    } <= found
    assert any("aof" in one for one in found)
    assert os.sep not in secret
