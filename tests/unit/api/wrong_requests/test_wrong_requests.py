"""Wrong requests are answered with no less than what `answers.json` records.

`RECORD_ANSWERS=1 pytest tests/unit/api/wrong_requests` records the answers anew; what changed is
for review.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.api.conftest import METRICS
from tests.unit.api.wrong_requests.requests import REQUESTS, Wrong

RECORD = Path(__file__).with_name("answers.json")
_WORD = re.compile(r"[\w.{}/-]+")


@pytest.fixture
async def made(client, open_key) -> dict[str, str]:
    """The ids of what the requests name, and tokens."""

    async def create(path: str, **fields) -> str:
        answer = await client.post(f"/v1/{path}", json=fields)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    credential = await create(
        "credentials", name="a", base_url="https://a.example/v1", api_key="k" * 20
    )
    subscriber, reader = await open_key(), await open_key("read")
    return {
        "credential": credential,
        "integration": await create(
            "integrations", name="a", upstream_id="up", credential_id=credential
        ),
        "subscription": await create("subscriptions", url="https://example.com/hook"),
        "key": subscriber["id"],
        "reader": reader["id"],
        "token of subscriber": subscriber["token"],
        "token of reader": reader["token"],
        "token of metrics": METRICS,
        "token of stranger": "nobody's",
    }


async def answered(client, made: dict[str, str], wrong: Wrong) -> dict:
    """What a request is answered with, ids by their names."""

    def named(text: str) -> str:
        for name, one in made.items():
            text = text.replace(f"{{{name}}}", one)
        return text

    headers = {**wrong.headers}
    if wrong.token != "admin":
        headers["authorization"] = f"Bearer {made.get(f'token of {wrong.token}', '')}"
    if wrong.token == "nobody":
        headers["authorization"] = "Basic x"
    sent = {"headers": headers}
    if isinstance(wrong.body, bytes):
        sent["content"] = wrong.body
    elif wrong.body is not None:
        sent["json"] = json.loads(named(json.dumps(wrong.body)))
    answer = await client.request(wrong.method, named(wrong.path), **sent)
    text = answer.text
    for name, one in made.items():
        text = text.replace(one, f"{{{name}}}")
    assert answer.headers["content-type"] == "application/problem+json", (wrong, text)
    found = json.loads(text)
    for name in ("allow", "retry-after", "www-authenticate"):
        if name in answer.headers and not (name == "retry-after" and answer.status_code == 429):
            found[name] = ", ".join(sorted(answer.headers[name].split(", ")))
    found.get("errors", []).sort(key=lambda error: (error["field"], error["message"]))
    return found


def less(recorded: object, found: object, where: str) -> list[str]:
    """What an answer no longer says: fields, and words of texts."""
    if isinstance(recorded, dict):
        kept = found if isinstance(found, dict) else {}
        return [
            line
            for name, one in recorded.items()
            for line in less(one, kept.get(name), f"{where}: {name}")
        ]
    if isinstance(recorded, list):
        remaining, lines = list(found) if isinstance(found, list) else [], []
        for one in recorded:
            same = next((other for other in remaining if not less(one, other, "")), None)
            if same is None:
                lines.append(f"{where} lacks {one}; left are {remaining}")
            else:
                remaining.remove(same)
        return lines
    if isinstance(recorded, str) and isinstance(found, str):
        missing = Counter(_WORD.findall(recorded)) - Counter(_WORD.findall(found))
        return [f"{where} lacks {sorted(missing)}: {found}"] if missing else []
    return [] if recorded == found else [f"{where} is {found}, not {recorded}"]


async def test_no_answer_says_less(client, made, monkeypatch) -> None:
    monkeypatch.setattr("service.api.access.auth_throttle.MAX_FAILURES", 1_000)
    found = {name: await answered(client, made, wrong) for name, wrong in REQUESTS.items()}
    if os.environ.get("RECORD_ANSWERS"):
        RECORD.write_text(json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    recorded = json.loads(RECORD.read_text())
    assert recorded.keys() == found.keys(), "record the answers to the requests that are new"
    assert len(recorded) > 150
    lines = [line for name, one in recorded.items() for line in less(one, found[name], name)]
    assert not lines, "\n".join(lines)


def test_an_answer_that_lacks_a_word_or_an_error_says_less() -> None:
    error = {"field": "a", "message": "is not known", "remedy": "did you mean b?"}
    assert not less({"errors": [error]}, {"errors": [{"field": "z"}, error], "more": 1}, "")
    assert less({"errors": [error, error]}, {"errors": [error]}, "")
    assert less(error, {**error, "remedy": "did you mean c?"}, "")
    assert less({"status": 422}, {"status": 400}, "")
