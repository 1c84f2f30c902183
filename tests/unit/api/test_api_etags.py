from __future__ import annotations

import msgspec
import pytest

from service.storage.redis import keys
from service.storage.redis.scripts import run

BODIES = {
    "/v1/credentials": {"name": "a", "base_url": "https://a.example", "api_key": "k"},
    "/v1/integrations": {
        "name": "a",
        "upstream_id": "w:1",
        "base_url": "https://a.example",
        "api_key": "k",
    },
    "/v1/subscriptions": {"url": "https://r.example"},
}
CHANGES = {
    "/v1/credentials": [{"name": "b"}, {"api_key": "l"}, {}],
    "/v1/integrations": [{"labels": {"a": "b"}}, {"paused": True}, {}],
    "/v1/subscriptions": [
        {"payload": "thin"},
        {"headers": {"x-a": "1"}},
        {"headers": {"x-a": "2"}},
    ],
}


@pytest.fixture(params=BODIES)
async def created(client, request):
    answer = await client.post(request.param, json=BODIES[request.param])
    assert answer.status_code == 201, answer.text
    return answer


@pytest.fixture
def path(created) -> str:
    return created.headers["location"]


async def test_every_answer_shows_the_etag_and_every_edit_changes_it(client, created, path) -> None:
    seen = [created.headers["etag"]]
    assert (await client.get(path)).headers["etag"] == seen[-1]
    for change in CHANGES[path.rpartition("/")[0]]:
        answer = await client.patch(path, json=change)
        assert answer.status_code == 200, answer.text
        seen.append(answer.headers["etag"])
        assert (await client.get(path)).headers["etag"] == seen[-1]
    assert len(set(seen)) == len(seen)


async def test_an_edit_of_what_was_not_shown_is_refused(client, created, path, problem) -> None:
    stale = {"if-match": created.headers["etag"]}
    first = await client.patch(path, json=CHANGES[path.rpartition("/")[0]][0], headers=stale)
    assert first.status_code == 200
    problem(await client.patch(path, json={}, headers=stale), "precondition-failed", 412)
    problem(await client.delete(path, headers=stale), "precondition-failed", 412)
    assert (await client.get(path)).headers["etag"] == first.headers["etag"]
    fresh = {"if-match": f'"other", {first.headers["etag"]}'}
    assert (await client.delete(path, headers=fresh)).status_code in (204, 409)


@pytest.mark.parametrize("value", ['"other"', "", "nonsense", 'W/"other"'])
async def test_what_matches_nothing_is_refused(client, path, problem, value) -> None:
    for method in ("PATCH", "DELETE"):
        answer = await client.request(method, path, json={}, headers={"if-match": value})
        problem(answer, "precondition-failed", 412)


# What proxies make of a tag when they compress an answer, and clients when they copy it.
MANGLED = [
    'W/"{}"',
    'w/"{}"',
    '"{}-gzip"',
    'W/"{}-gzip"',
    '"{}-br"',
    '"{}-zstd"',
    '"{}-df"',
    '"{}--gzip"',
    '"{}-x-gzip"',
    '"{};gzip"',
    '"{}:br"',
    '"{}-gzip-gzip"',
    '"{}-GZIP"',
    "{}",
    ' W/"{}-gzip" , "other"',
    '"other", W/"{}"',
]


@pytest.mark.parametrize("form", MANGLED)
async def test_what_proxies_make_of_a_tag_matches(client, problem, form) -> None:
    made = await client.post("/v1/credentials", json=BODIES["/v1/credentials"])
    path, tag = made.headers["location"], made.headers["etag"].strip('"')
    sent = {"if-match": form.format(tag)}
    assert (await client.patch(path, json={"name": "b"}, headers=sent)).status_code == 200
    # Of a version that is not the one in force it matches no more than the tag itself.
    problem(await client.patch(path, json={}, headers=sent), "precondition-failed", 412)
    problem(await client.delete(path, headers=sent), "precondition-failed", 412)


@pytest.mark.parametrize("form", ['"{}x"', '"{}-"', '"-gzip{}"', '"{}-rot13"', '"{} gzip"', "'{}'"])
async def test_a_tag_with_anything_else_about_it_is_another(client, problem, form) -> None:
    made = await client.post("/v1/credentials", json=BODIES["/v1/credentials"])
    sent = {"if-match": form.format(made.headers["etag"].strip('"'))}
    answer = await client.patch(made.headers["location"], json={}, headers=sent)
    problem(answer, "precondition-failed", 412)


async def test_tags_in_headers_of_their_own_are_one_list(client, problem) -> None:
    made = await client.post("/v1/credentials", json=BODIES["/v1/credentials"])
    path = made.headers["location"]
    both = [("if-match", '"other"'), ("if-match", made.headers["etag"])]
    assert (await client.patch(path, json={}, headers=both)).status_code == 200
    star = {"if-match": '"other", *'}
    assert (await client.patch(path, json={}, headers=star)).status_code == 200


async def test_without_a_tag_or_with_a_star_it_is_done(client, path) -> None:
    assert (await client.patch(path, json={}, headers={"if-match": "*"})).status_code == 200
    assert (await client.delete(path, headers={"if-match": "*"})).status_code in (204, 409)


async def test_what_is_not_there_is_not_found_whatever_it_builds_on(client, problem) -> None:
    for collection in BODIES:
        for method in ("PATCH", "DELETE"):
            answer = await client.request(
                method, f"{collection}/x", json={}, headers={"if-match": '"a"'}
            )
            problem(answer, "not-found", 404)


async def test_counters_leave_the_etag_alone(client, services) -> None:
    made = await client.post("/v1/integrations", json=BODIES["/v1/integrations"])
    fields = {"course_count": 5, "watermark": 1, "failures": 2}
    await services.redis.hset(keys.integration(made.json()["id"]), mapping=fields)
    shown = await client.get(made.headers["location"])
    assert (shown.json()["course_count"], shown.headers["etag"]) == (5, made.headers["etag"])
    made = await client.post("/v1/subscriptions", json=BODIES["/v1/subscriptions"])
    await services.redis.xadd(keys.outbox(made.json()["id"]), {"k": "a", "r": "f"})
    shown = await client.get(made.headers["location"])
    assert (shown.json()["pending"], shown.headers["etag"]) == (1, made.headers["etag"])


@pytest.mark.parametrize("name", ["subscriptions", "integrations", "credentials"])
async def test_an_edit_in_between_is_noticed_by_the_script(
    client, services, monkeypatch, problem, name
) -> None:
    """What is compared is what the script finds unchanged."""
    made = await client.post(f"/v1/{name}", json=BODIES[f"/v1/{name}"])
    tag = {"if-match": made.headers["etag"]}
    key = getattr(keys, name.removesuffix("s"))(made.json()["id"])
    for method in ("PATCH", "DELETE"):
        edited = []

        async def race(redis, call, edited=edited):
            if not edited:
                record = msgspec.json.decode(await services.redis.hget(key, "record"))
                edited.append({**record, "updated_at": record["updated_at"] + 1})
                await services.redis.hset(key, "record", msgspec.json.encode(edited[0]))
            return await run(redis, call)

        with monkeypatch.context() as raced:
            raced.setattr(f"service.storage.registry.{name}.run", race)
            answer = await client.request(
                method, f"/v1/{name}/{made.json()['id']}", json={}, headers=tag
            )
        problem(answer, "precondition-failed", 412)
        tag = {"if-match": (await client.get(made.headers["location"])).headers["etag"]}
