from __future__ import annotations

import re

import pytest
from litestar import get
from litestar.routes import HTTPRoute

from service.api.access import route_guards as guards
from service.api.access.audit_trail import ACTION

A, S, R, M = "admin", "subscriber", "read", "metrics"
NOBODY_ELSE = {A}
READERS = {A, R}
EVERYBODY = None

# Every route of the application, and the scopes that may ever use it. One that is missing here
# fails the first test: whoever adds a route decides for whom it is.
ROUTES = {
    ("GET", "/"): EVERYBODY,
    ("GET", "/healthz"): EVERYBODY,
    ("GET", "/readyz"): EVERYBODY,
    ("GET", "/schema"): EVERYBODY,
    ("GET", "/schema/openapi.json"): EVERYBODY,
    ("GET", "/schema/assets/{file_path}"): EVERYBODY,
    ("HEAD", "/schema/assets/{file_path}"): EVERYBODY,
    ("GET", "/console"): EVERYBODY,
    ("GET", "/console/{page}"): EVERYBODY,
    ("GET", "/metrics"): {A, R, M},
    ("POST", "/v1/credentials"): NOBODY_ELSE,
    ("GET", "/v1/credentials"): READERS,
    ("GET", "/v1/credentials/{credential_id}"): READERS,
    ("PATCH", "/v1/credentials/{credential_id}"): NOBODY_ELSE,
    ("DELETE", "/v1/credentials/{credential_id}"): NOBODY_ELSE,
    ("POST", "/v1/integrations"): NOBODY_ELSE,
    ("GET", "/v1/integrations"): READERS,
    ("POST", "/v1/integrations/check"): NOBODY_ELSE,
    ("GET", "/v1/integrations/{integration_id}"): READERS,
    ("PATCH", "/v1/integrations/{integration_id}"): NOBODY_ELSE,
    ("DELETE", "/v1/integrations/{integration_id}"): NOBODY_ELSE,
    ("POST", "/v1/integrations/{integration_id}/check"): NOBODY_ELSE,
    ("POST", "/v1/integrations/{integration_id}/polls"): NOBODY_ELSE,
    ("GET", "/v1/integrations/{integration_id}/polls"): READERS,
    ("GET", "/v1/integrations/{integration_id}/polls/{poll_id}"): READERS,
    ("GET", "/v1/integrations/{integration_id}/courses"): READERS,
    ("GET", "/v1/integrations/{integration_id}/courses/{course_id}"): READERS,
    ("GET", "/v1/integrations/{integration_id}/review"): READERS,
    ("POST", "/v1/integrations/{integration_id}/review"): NOBODY_ELSE,
    ("POST", "/v1/subscriptions"): {A, S},
    ("GET", "/v1/subscriptions"): {A, S, R},
    ("GET", "/v1/subscriptions/{subscription_id}"): {A, S, R},
    ("PATCH", "/v1/subscriptions/{subscription_id}"): {A, S},
    ("DELETE", "/v1/subscriptions/{subscription_id}"): {A, S},
    ("GET", "/v1/subscriptions/{subscription_id}/secret"): {A, S},
    ("POST", "/v1/subscriptions/{subscription_id}/secret/rotate"): {A, S},
    ("POST", "/v1/subscriptions/{subscription_id}/resume"): {A, S},
    ("POST", "/v1/subscriptions/{subscription_id}/retry"): {A, S},
    ("POST", "/v1/subscriptions/{subscription_id}/skip"): {A, S},
    ("POST", "/v1/subscriptions/{subscription_id}/test"): {A, S},
    ("GET", "/v1/subscriptions/{subscription_id}/statistics"): {A, S, R},
    ("GET", "/v1/subscriptions/{subscription_id}/replays"): {A, S, R},
    ("POST", "/v1/subscriptions/{subscription_id}/replays"): {A, S},
    ("GET", "/v1/subscriptions/{subscription_id}/replays/{replay_id}"): {A, S, R},
    ("DELETE", "/v1/subscriptions/{subscription_id}/replays/{replay_id}"): {A, S},
    ("POST", "/v1/events/{event_id}/redeliver"): {A, S},
    ("GET", "/v1/deliveries"): {A, S, R},
    ("GET", "/v1/events"): {A, S, R},
    ("GET", "/v1/events/{event_id}"): {A, S, R},
    ("GET", "/v1/events/stream"): {A, S, R},
    ("POST", "/v1/pause"): NOBODY_ELSE,
    ("POST", "/v1/resume"): NOBODY_ELSE,
    ("GET", "/v1/status"): READERS,
    ("GET", "/v1/history"): READERS,
    ("POST", "/v1/api-keys"): NOBODY_ELSE,
    ("GET", "/v1/api-keys"): READERS,
    ("GET", "/v1/api-keys/{key_id}"): READERS,
    ("PATCH", "/v1/api-keys/{key_id}"): NOBODY_ELSE,
    ("DELETE", "/v1/api-keys/{key_id}"): NOBODY_ELSE,
    ("POST", "/v1/api-keys/{key_id}/token/rotate"): NOBODY_ELSE,
    ("GET", "/v1/audit"): NOBODY_ELSE,
    ("GET", "/v1/me"): {A, S, R, M},
    ("GET", "/v1/me/integrations"): {A, S, R},
}
PROTECTED = {route: scopes for route, scopes in ROUTES.items() if scopes is not EVERYBODY}


def filled_in(path: str) -> str:
    """Each parameter as something that is not there; a stream as one that is refused."""
    path = re.sub(r"\{\w+\}", "x", path)
    return f"{path}?nonsense=1" if path == "/v1/events/stream" else path


def test_every_route_is_in_the_table(app) -> None:
    built, _ = app
    found = {
        (method, re.sub(r":\w+\}", "}", route.path))
        for route in built.routes
        if isinstance(route, HTTPRoute)
        for method in route.methods
        if method != "OPTIONS"  # says which methods there are, to everybody
    }
    assert found == set(ROUTES)


async def test_every_operation_is_documented_but_for_the_documentation(anonymous) -> None:
    document = (await anonymous.get("/schema/openapi.json")).json()
    documented = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    undocumented = {
        route for route in ROUTES if route[1] == "/" or re.match("/schema|/console", route[1])
    }
    assert documented == set(ROUTES) - undocumented


async def test_the_documentation_says_which_scopes_open_what(anonymous) -> None:
    document = (await anonymous.get("/schema/openapi.json")).json()
    scheme = document["components"]["securitySchemes"]["bearer"]
    assert all(f"`{scope}`" in scheme["description"] for scope in (A, S, R, M))
    for (method, path), scopes in PROTECTED.items():
        operation = document["paths"][path][method.lower()]
        named = [one["bearer"] for one in operation["security"]]
        assert sorted(named) == sorted([scope] for scope in scopes)
        assert {"401", "403", "429"} <= set(operation["responses"])
        headers = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "header"}
        assert ("Idempotency-Key" in headers) == (method == "POST"), path
        if method == "POST":
            assert {"409", "422"} <= set(operation["responses"])


@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_nothing_opens_without_a_token(anonymous, problem, method, path) -> None:
    answer = await anonymous.request(method, filled_in(path))
    assert "admin-token" in problem(answer, "unauthorized", 401)["detail"]
    assert answer.headers["www-authenticate"] == 'Bearer realm="coursewire"'


@pytest.mark.parametrize("scope", [A, S, R, M])
async def test_each_scope_opens_what_is_for_it_and_nothing_else(
    anonymous, open_key, problem, scope
) -> None:
    headers = (await open_key(scope))["headers"]
    del anonymous.headers["authorization"]
    for (method, path), scopes in PROTECTED.items():
        answer = await anonymous.request(method, filled_in(path), headers=headers)
        if scope in scopes:
            assert answer.status_code not in (401, 403, 500), (method, path, answer.text)
        else:
            document = problem(answer, "forbidden", 403)
            assert scope in document["detail"]


def test_every_change_has_a_name_in_the_audit_trail(app) -> None:
    built, _ = app
    handlers = [
        handler
        for route in built.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if handler.http_methods.isdisjoint({"GET", "HEAD", "OPTIONS"})
    ]
    assert handlers
    assert [str(handler) for handler in handlers if ACTION not in handler.opt] == []


def test_a_route_that_names_no_scopes_is_refused_at_start() -> None:
    @get("/open")
    async def unguarded() -> None: ...

    @get("/open", guards=[guards.READERS, guards.ADMINS])
    async def guarded_twice() -> None: ...

    for handler in (unguarded, guarded_twice):
        with pytest.raises(TypeError, match="one guard"):
            guards.guard_of(handler)


async def test_no_route_tells_a_subscriber_of_another_ones_subscription(
    anonymous, client, open_key, problem
) -> None:
    made = await client.post("/v1/subscriptions", json={"url": "https://r.example"})
    subscription_id = made.json()["id"]
    headers = (await open_key())["headers"]
    of_one = [
        (method, path)
        for (method, path), scopes in PROTECTED.items()
        if S in scopes and path.startswith("/v1/subscriptions/")
    ]
    assert of_one
    for method, path in of_one:
        # By this name the guard knows it, whatever the handler is.
        assert path.startswith("/v1/subscriptions/{subscription_id}")
        asked = filled_in(path.replace("{subscription_id}", subscription_id))
        document = problem(
            await anonymous.request(method, asked, headers=headers, json={}), "not-found", 404
        )
        assert document["detail"] == f"there is no subscription {subscription_id}"


@pytest.mark.parametrize(("path", "scopes"), ROUTES.items())
async def test_what_is_for_everybody_needs_no_token(anonymous, path, scopes) -> None:
    if scopes is EVERYBODY:
        answer = await anonymous.request(path[0], filled_in(path[1]))
        assert answer.status_code == (404 if "{file_path}" in path[1] else 200)


async def test_a_token_in_any_other_place_opens_nothing(anonymous, open_key, problem) -> None:
    token = (await open_key("admin"))["token"]
    del anonymous.headers["authorization"]
    for headers, query in (
        ({"authorization": token}, ""),
        ({"authorization": f"Basic {token}"}, ""),
        ({"x-api-key": token}, ""),
        ({}, f"?token={token}&access_token={token}"),
    ):
        problem(await anonymous.get(f"/v1/status{query}", headers=headers), "unauthorized", 401)
