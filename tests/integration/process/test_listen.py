from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from service.commands.listen.printing import describe, one_line
from service.commands.listen.push import Push
from service.commands.listen.receiver import Listener
from service.domain.signatures.signing import Signature, make_secret, read_secret, sign

pytestmark = pytest.mark.slow

SECRET = make_secret(Signature.HMAC, bytes(range(32)))
PRIVATE = make_secret(Signature.ED25519, bytes(range(32)))


def body(**data: Any) -> bytes:
    event = {
        "type": data.pop("type", "course.updated"),
        "timestamp": "2026-11-23T09:30:00.000Z",
        "data": {
            "schema_version": 1,
            "event_id": "evt_1",
            "course_id": "26vafvWSRmbhNcxJYqjCzuJg",
            "sequence": 1795424001123,
            "previous_sequence": None,
            "changed": ["revisions.title"],
            "reason": None,
            "evidence": None,
            "course": {"revisions": [{"title": "Managing Conflict"}]},
        }
        | data,
    }
    return msgspec.json.encode(event)


def signed(
    content: bytes, webhook_id: str = "evt_1", at: float | None = None, *, secret: str = SECRET
) -> dict[str, str]:
    return sign([read_secret(secret)], webhook_id, int(at or time.time()), content)


class Subscriber:
    def __init__(self, listener: Listener, client: httpx.AsyncClient, pushes: list[Push]) -> None:
        self.listener = listener
        self.client = client
        self.pushes = pushes

    async def post(self, content: bytes, headers: dict[str, str], path: str = "") -> httpx.Response:
        return await self.client.post(
            f"{self.listener.url}{path}", content=content, headers=headers
        )


@pytest.fixture
async def subscriber() -> AsyncIterator[Subscriber]:
    pushes: list[Push] = []
    async with Listener(SECRET, pushes.append) as listener, httpx.AsyncClient() as client:
        yield Subscriber(listener, client, pushes)


async def test_a_signed_event_is_verified_and_read(subscriber: Subscriber) -> None:
    content = body()
    answer = await subscriber.post(content, signed(content), "any/path")
    assert answer.status_code == 200
    (push,) = subscriber.pushes
    assert push.event is not None
    assert push.event.type == "course.updated"
    assert push.event.data.title == "Managing Conflict"
    assert push.event.data.changed == ("revisions.title",)
    assert (push.id, push.body, push.times, push.refusal) == ("evt_1", content, 1, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"webhook-signature": "v1," + base64.b64encode(bytes(32)).decode()}, "no matching"),
        ({"webhook-signature": "nonsense"}, "malformed"),
        ({"webhook-signature": "v1,é"}, "malformed"),
        ({"webhook-signature": ""}, "missing required headers"),
        ({"webhook-timestamp": "1000000000"}, "too old"),
        ({"webhook-timestamp": "tomorrow"}, "invalid Signature Headers"),
        ({"webhook-id": "evt_2"}, "no matching"),
    ],
)
async def test_what_does_not_verify_is_refused_with_the_reason(
    subscriber: Subscriber, change: dict[str, str], reason: str
) -> None:
    content = body()
    headers = {name.encode(): text.encode() for name, text in (signed(content) | change).items()}
    answer = await subscriber.client.post(subscriber.listener.url, content=content, headers=headers)
    assert answer.status_code == 400
    assert reason in answer.text
    (push,) = subscriber.pushes
    assert push.event is None
    assert push.refusal is not None
    assert reason in push.refusal


async def test_one_changed_byte_of_the_body_is_refused(subscriber: Subscriber) -> None:
    content = body()
    answer = await subscriber.post(content.replace(b"Conflict", b"conflict"), signed(content))
    assert answer.status_code == 400


@pytest.mark.parametrize("content", [b"not json", b"[]", b'{"type": "x"}', b"\xff\xfe"])
async def test_a_signed_body_that_is_no_event_is_refused(
    subscriber: Subscriber, content: bytes
) -> None:
    answer = await subscriber.post(content, signed(content))
    assert answer.status_code == 400
    assert subscriber.pushes[0].event is None


async def test_an_id_that_comes_again_is_marked_and_other_bytes_under_it_too(
    subscriber: Subscriber,
) -> None:
    content, other = body(), body(sequence=1)
    await subscriber.post(content, signed(content))
    await subscriber.post(content, signed(content))
    await subscriber.post(other, signed(other))
    assert [(push.times, push.altered) for push in subscriber.pushes] == [
        (1, False),
        (2, False),
        (3, True),
    ]
    assert "duplicate" in describe(subscriber.pushes[1], None).plain


async def test_what_is_replayed_is_told_from_a_duplicate(subscriber: Subscriber) -> None:
    content = body()
    await subscriber.post(content, signed(content))
    await subscriber.post(content, {**signed(content), "coursewire-replay": "true"})
    first, again = subscriber.pushes
    assert (first.replay, again.replay) == (False, True)
    shown = describe(again, None).plain
    assert "replay" in shown
    assert "duplicate" not in shown


async def test_a_refused_push_does_not_make_the_next_one_a_duplicate(
    subscriber: Subscriber,
) -> None:
    content = body()
    await subscriber.post(content, signed(content, at=time.time() - 3600))
    await subscriber.post(content, signed(content))
    assert subscriber.pushes[1].times == 1


async def test_another_status_is_answered_to_what_verified_only() -> None:
    pushes: list[Push] = []
    content = body()
    async with (
        Listener(SECRET, pushes.append, status=503) as listener,
        httpx.AsyncClient() as client,
    ):
        good = await client.post(listener.url, content=content, headers=signed(content))
        bad = await client.post(listener.url, content=content)
    assert (good.status_code, bad.status_code) == (503, 400)
    assert pushes[0].event is not None


async def test_an_operational_event_needs_no_course(subscriber: Subscriber) -> None:
    content = msgspec.json.encode(
        {
            "type": "integration.baseline_completed",
            "timestamp": "2026-11-23T09:30:00.000Z",
            "data": {"schema_version": 1, "event_id": "evt_9", "integration_id": "int_1"},
        }
    )
    answer = await subscriber.post(content, signed(content))
    assert answer.status_code == 200
    line = describe(subscriber.pushes[0], None).plain
    assert "integration.baseline_completed evt_9" in line
    assert "evt_9" in line


async def test_a_port_that_is_taken_is_an_os_error(subscriber: Subscriber) -> None:
    port = int(subscriber.listener.url.rsplit(":", 1)[1].strip("/"))
    with pytest.raises(OSError, match="address already in use"):
        await Listener(SECRET, subscriber.pushes.append, port=port).start()


CLOUDEVENTS = {"content-type": "application/cloudevents+json; charset=utf-8"}


def cloud_event(**changes: Any) -> bytes:
    event = json.loads(body())
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": "evt_1",
            "source": "/v1/integrations/int_a",
            "type": event["type"],
            "time": event["timestamp"],
            "data": event["data"],
            **changes,
        }
    )


async def test_a_public_key_verifies_ed25519_pushes_and_no_others() -> None:
    pushes: list[Push] = []
    content = body()
    public = read_secret(PRIVATE).public_key
    assert public is not None
    other = make_secret(Signature.ED25519, bytes(32))
    async with Listener(public, pushes.append) as listener, httpx.AsyncClient() as client:
        for secret, status in ((PRIVATE, 200), (other, 400), (SECRET, 400)):
            headers = signed(content, secret=secret)
            answer = await client.post(listener.url, content=content, headers=headers)
            assert answer.status_code == status
    assert [push.refusal for push in pushes] == [None, *["no matching signature found"] * 2]
    assert pushes[0].event is not None
    assert pushes[0].event.data.title == "Managing Conflict"


async def test_a_cloud_event_is_shown_as_any_other_event(subscriber: Subscriber) -> None:
    content = cloud_event()
    await subscriber.post(content, signed(content) | CLOUDEVENTS)
    await subscriber.post(body(), signed(body(), "evt_2"))
    as_cloud_event, as_standard = subscriber.pushes
    assert as_cloud_event.event == as_standard.event
    lines = [
        describe(msgspec.structs.replace(push, at=as_standard.at), None)
        for push in subscriber.pushes
    ]
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    "content", [body(), cloud_event(specversion="0.3"), cloud_event(time=None), b"\xff"]
)
async def test_a_signed_body_that_is_no_cloud_event_is_refused_where_one_is_announced(
    subscriber: Subscriber, content: bytes
) -> None:
    answer = await subscriber.post(content, signed(content) | CLOUDEVENTS)
    assert answer.status_code == 400
    assert subscriber.pushes[0].event is None


def test_a_secret_of_another_kind_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="whsec_"):
        Listener("password", lambda push: None)


def test_a_line_holds_nothing_that_acts_on_a_terminal() -> None:
    evil = "\x1b[2J\x9b31m\u202eexe"
    push = Push(
        at=datetime.now(UTC),
        id=evil,
        body=b"",
        refusal=evil,
    )
    assert describe(push, None).plain.isprintable()
    assert one_line(msgspec.json.encode({"title": evil})).isprintable()
    assert json.loads(one_line(msgspec.json.encode({"title": evil}))) == {"title": evil}


def test_a_line_fits_the_width_it_is_given() -> None:
    push = Push(at=datetime.now(UTC), id="evt_1", body=b"", refusal="because " * 30)
    assert len(describe(push, 80).plain) == 80


# --- as a command --------------------------------------------------------------------------


def start(*arguments: str, secret: str | None = SECRET) -> subprocess.Popen[str]:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("COURSEWIRE")}
    environ.pop("FORCE_COLOR", None)
    if secret is not None:
        environ["COURSEWIRE_LISTEN_SECRET"] = secret
    return subprocess.Popen(
        [sys.executable, "-m", "service.cli", "listen", "--port", "0", *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def address(line: str) -> str:
    return next(word for word in line.split() if word.startswith("http://"))


def test_the_command_prints_a_line_per_event_and_ends_after_so_many() -> None:
    content = body()
    with start("--exit-after", "1") as process:
        assert process.stdout is not None
        url = address(process.stdout.readline())
        assert httpx.post(url, content=content).status_code == 400
        assert httpx.post(url, content=content, headers=signed(content)).status_code == 200
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    refused, verified = out.splitlines()
    assert "refused" in refused
    assert "missing required headers" in refused
    for part in ("✓", "course.updated", "Managing Conflict", "revisions.title", "1795424001123"):
        assert part in verified
    assert "\x1b" not in out


def test_the_command_prints_bodies_alone_where_asked_to() -> None:
    content = body()
    with start("--json", "--exit-after", "2", "--status", "500") as process:
        assert process.stderr is not None
        url = address(process.stderr.readline())
        for number in (1, 1, 2):
            headers = signed(content, f"evt_{number}")
            assert httpx.post(url, content=content, headers=headers).status_code == 500
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert [json.loads(line) for line in out.splitlines()] == [json.loads(content)] * 3


def test_the_command_without_a_secret_makes_one_and_says_it() -> None:
    with start(secret=None) as process:
        assert process.stdout is not None
        made = next(word for word in process.stdout.readline().split() if word.startswith("whsec_"))
        url = address(process.stdout.readline())
        content = body()
        headers = sign([read_secret(made)], "evt_1", int(time.time()), content)
        assert httpx.post(url, content=content, headers=headers).status_code == 200
        process.terminate()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert len(out.splitlines()) == 1


def test_the_command_says_in_one_line_what_it_cannot_use() -> None:
    with start("--secret", secrets.token_hex(8)) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "whsec_" in err
    assert "Traceback" not in err


def test_the_command_ends_quietly_when_nobody_reads_it_any_more() -> None:
    content = body()
    with start() as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = address(process.stdout.readline())
        process.stdout.close()
        assert httpx.post(url, content=content, headers=signed(content)).status_code == 200
        process.wait(timeout=20)
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_the_command_names_a_port_that_is_taken() -> None:
    with start() as first:
        assert first.stdout is not None
        port = address(first.stdout.readline()).strip("/").rsplit(":", 1)[1]
        with start("--port", port, secret=None) as second:
            out, err = second.communicate(timeout=20)
        first.terminate()
        first.communicate(timeout=20)
    assert second.returncode == 1
    assert err == (
        f"coursewire: cannot listen on 127.0.0.1:{port} (Address already in use); "
        "give another --port, or 0 for any free one\n"
    )
    assert out == ""
    assert len(err.splitlines()) == 1
