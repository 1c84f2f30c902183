from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

from service.storage.redis import keys
from service.storage.security.idempotency import KEPT_SECONDS, RUNNING_SECONDS, Running

PATH = "/v1/subscriptions"
BODY = {"url": "https://receiver.example/hook"}
KEY = {"idempotency-key": "f47ac10b"}


def kept(answer) -> tuple:
    headers = ("content-type", "location", "cache-control")
    return answer.status_code, answer.content, *(answer.headers.get(name) for name in headers)


async def count(client) -> int:
    return len((await client.get(PATH)).json()["items"])


async def test_a_repeated_request_gets_the_same_answer_and_does_nothing(client, services) -> None:
    first = await client.post(PATH, json=BODY, headers=KEY)
    assert first.status_code == 201
    assert "idempotency-replayed" not in first.headers
    second = await client.post(PATH, json=BODY, headers=KEY)
    assert kept(second) == kept(first)
    assert second.json()["secret"]
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert await count(client) == 1
    assert len((await client.get("/v1/audit")).json()["items"]) == 1


@pytest.mark.parametrize("path", ["/v1/api-keys", "/v1/credentials", "/v1/integrations"])
async def test_every_creation_can_be_repeated(client, path) -> None:
    bodies = {
        "/v1/api-keys": {"name": "k", "scope": "read"},
        "/v1/credentials": {"name": "a", "base_url": "https://a.example", "api_key": "k"},
        "/v1/integrations": {
            "name": "a",
            "base_url": "https://a.example",
            "api_key": "k",
            "upstream_id": "w:1",
        },
    }
    first = await client.post(path, json=bodies[path], headers=KEY)
    assert first.status_code == 201, first.text
    assert kept(await client.post(path, json=bodies[path], headers=KEY)) == kept(first)
    assert len((await client.get(path)).json()["items"]) == 1


async def test_what_is_triggered_is_triggered_once(client, receiver) -> None:
    path = (await client.post(PATH, json=BODY)).headers["location"]
    for _ in range(3):
        assert (await client.post(f"{path}/test", headers=KEY)).status_code == 200
    assert len(receiver.posted) == 1
    rotated = [
        await client.post(f"{path}/secret/rotate", headers={**KEY, "idempotency-key": "b"})
        for _ in range(2)
    ]
    assert rotated[0].content == rotated[1].content


async def test_answers_are_sealed_and_live_for_a_day(client, services) -> None:
    secret = (await client.post(PATH, json=BODY, headers=KEY)).json()["secret"]
    (name,) = await services.redis.keys("cw:reply:*")
    stored = await services.redis.get(name)
    assert secret.encode() not in stored
    assert b"f47ac10b" not in name + stored
    assert KEPT_SECONDS - 10 < await services.redis.ttl(name) <= KEPT_SECONDS


async def test_another_body_or_path_with_the_same_key_is_refused(client, problem) -> None:
    await client.post(PATH, json=BODY, headers=KEY)
    for path, body in ((PATH, {**BODY, "payload": "thin"}), ("/v1/credentials", BODY)):
        answer = await client.post(path, json=body, headers=KEY)
        problem(answer, "idempotency-mismatch", 422)
    assert await count(client) == 1


async def test_keys_are_each_actors_own(client, open_key) -> None:
    other = await open_key("admin")
    ids = {
        (await client.post(PATH, json=BODY, headers={**KEY, **headers})).json()["id"]
        for headers in ({}, other["headers"])
    }
    assert len(ids) == 2


async def test_who_may_not_do_it_is_told_so_and_not_what_others_did(
    client, open_key, problem
) -> None:
    await client.post(PATH, json=BODY, headers=KEY)
    reader = await open_key("read")
    answer = await client.post(PATH, json=BODY, headers={**KEY, **reader["headers"]})
    problem(answer, "forbidden", 403)


async def test_a_repetition_while_the_first_is_running_is_a_conflict(
    client, services, receiver, problem
) -> None:
    path = (await client.post(PATH, json=BODY)).headers["location"] + "/test"
    running = await services.replies.begin("admin token", "f47ac10b", f"{path}\n\n".encode())
    answer = await client.post(path, headers=KEY)
    problem(answer, "request-running", 409)
    assert (answer.headers["retry-after"], receiver.posted) == ("1", [])
    await services.replies.forget(running)
    assert (await client.post(path, headers=KEY)).status_code == 200


async def test_a_failure_of_ours_is_not_kept(client, services, problem, monkeypatch) -> None:
    create = services.subscriptions.create

    async def fail(*_arguments):
        raise RedisConnectionError

    monkeypatch.setattr(services.subscriptions, "create", fail)
    problem(await client.post(PATH, json=BODY, headers=KEY), "storage-unavailable", 503)
    monkeypatch.setattr(services.subscriptions, "create", create)
    assert (await client.post(PATH, json=BODY, headers=KEY)).status_code == 201


async def test_a_refusal_is_kept(client, problem) -> None:
    for _ in range(2):
        answer = await client.post(PATH, json={}, headers=KEY)
        problem(answer, "validation", 422)
    assert answer.headers["idempotency-replayed"] == "true"


async def test_what_was_done_is_answered_although_the_answer_cannot_be_kept(
    client, services, problem, monkeypatch
) -> None:
    async def full(*_arguments):
        raise OutOfMemoryError

    monkeypatch.setattr(services.replies, "keep", full)
    assert (await client.post(PATH, json=BODY, headers=KEY)).status_code == 201
    problem(await client.post(PATH, json=BODY, headers=KEY), "request-running", 409)
    assert await count(client) == 1


@pytest.mark.parametrize("value", ["", "a b", "ü", "x" * 256])
async def test_what_is_no_key_is_refused(client, refused, value) -> None:
    headers = {"idempotency-key": value.encode()}
    refused(await client.post(PATH, json=BODY, headers=headers), "Idempotency-Key")


async def test_a_body_that_is_too_large_is_a_problem_with_a_key_too(client, problem) -> None:
    answer = await client.post(PATH, json={"url": "a" * 1_048_576}, headers=KEY)
    problem(answer, "too-large", 413)


async def test_who_comes_late_does_not_overwrite_the_place_of_another(services) -> None:
    running = await services.replies.begin("key_a", "k", b"request")
    assert isinstance(running, Running)
    assert 0 < await services.redis.ttl(running.key) <= RUNNING_SECONDS
    await services.redis.delete(running.key)
    second = await services.replies.begin("key_a", "k", b"request")
    await services.replies.forget(running)
    assert await services.redis.get(second.key) == second.mark
    await services.replies.forget(second)
    assert await services.redis.keys(keys.reply("*")) == []


async def test_the_refusal_of_a_scope_is_not_kept(client, open_key, services, problem) -> None:
    headers = {**(await open_key("read"))["headers"], **KEY}
    for _ in range(2):
        answer = await client.post(PATH, json=BODY, headers=headers)
        problem(answer, "forbidden", 403)
        assert "idempotency-replayed" not in answer.headers
