"""Each command over the real API, in the order in which somebody would need them."""

from __future__ import annotations

import pytest

from service.commands.resources.declarations import RESOURCES
from tests.integration.conftest import UPSTREAM_ID, Registered


class Counting:
    """Runs commands and remembers which."""

    def __init__(self, cli) -> None:
        self._cli = cli
        self.ran: set[tuple[str, str]] = set()

    async def __call__(self, group: str, verb: str, *arguments: str, code: int = 0):
        self.ran.add((group, verb))
        return await self._cli.json(group, verb, *arguments, code=code)


async def connected(run, sandbox) -> dict:
    values = ("--base-url", sandbox.base_url, "--upstream-id", UPSTREAM_ID)
    checked = await run("integrations", "check-values", *values, "--api-key", "sandbox-key")
    assert checked["ok"] is True
    made = await run("credentials", "create", "--name", "s", *values[:2], "--api-key", "wrong")
    fixed = await run("credentials", "edit", made["id"], "--api-key", "sandbox-key")
    assert (await run("credentials", "show", made["id"]))["updated_at"] == fixed["updated_at"]
    assert len((await run("credentials", "list"))["items"]) == 1
    integration = await run(
        *("integrations", "create", "--name", "Acme", "--external-id", "tenant-42"),
        *("--credential-id", made["id"], "--upstream-id", UPSTREAM_ID, "--label", "region=eu"),
    )
    assert (await run("integrations", "check", integration["id"]))["ok"] is True
    return integration


async def polled(run, turned: Registered) -> None:
    asked = await run("integrations", "poll", turned.id, "--kind", "full")
    await turned.turn()
    assert (await run("integrations", "show-poll", turned.id, asked["id"]))["state"] == "completed"
    assert (await run("integrations", "polls", turned.id))["items"][0]["id"] == asked["id"]


@pytest.mark.parametrize("sandbox", [60], indirect=True)
async def test_every_command_does_what_it_says(cli, context, sandbox, hook):
    run = Counting(cli)
    integration = await connected(run, sandbox)
    turned = Registered(context, await get(context, integration["id"]))
    await polled(run, turned)
    await integrations_are_kept(run, integration["id"])

    subscription = await subscribed(run, hook)
    await sandbox.change({"op": "edit", "count": 3}, {"op": "delete", "count": 1})
    await turned.poll("delta")
    await delivered(run, context, subscription["id"])
    await reviewed(run, sandbox, turned)
    await keys_are_kept(run, integration["id"])

    for group, key in (("subscriptions", subscription["id"]), ("integrations", turned.id)):
        await run(group, "delete", key, "--yes")
        assert (await run(group, "list"))["items"] == []
    await run("credentials", "delete", integration["credential_id"], "--yes")
    assert "polls_total" in str(await run("history", "show", "--series", "polls_total"))
    assert (await run("audit", "list"))["items"][0]["action"] == "credential.deleted"
    assert run.ran == {(group, verb) for group, one in RESOURCES.items() for verb in one.verbs}


async def test_the_status_counts_subscriptions_by_state(cli):
    for paused in ("--paused", "--no-paused", "--no-paused"):
        await cli.json("subscriptions", "create", "--url", "http://127.0.0.1:9000/", paused)
    assert "subscriptions 1 paused, 2 active\n" in (await cli("status")).output


async def get(context, integration_id: str):
    return (await context.services.integrations.get(integration_id))[0]


async def integrations_are_kept(run, key: str) -> None:
    await run("integrations", "edit", key, "--guard", "deleted_count=5", "--clear", "external_id")
    shown = await run("integrations", "show", key)
    assert (shown["guards"]["deleted_count"], shown["external_id"]) == (5, None)
    assert (await run("integrations", "pause", key))["state"] == "paused"
    assert (await run("integrations", "list", "--state", "paused"))["items"][0]["id"] == key
    assert (await run("integrations", "resume", key, "--if-match", "*"))["state"] == "active"
    courses = await run("integrations", "courses", key, "--limit", "2")
    course = courses["items"][0]["course_id"]
    assert (await run("integrations", "show-course", key, course))["state"] == "live"


async def subscribed(run, hook) -> dict:
    made = await run("subscriptions", "create", "--url", f"{hook.url}/nowhere")
    key = made["id"]
    assert (await run("subscriptions", "secret", key))["secret"] == made["secret"]
    rotated = await run("subscriptions", "rotate-secret", key, "--overlap-seconds", "0")
    assert rotated["secret"] != made["secret"]
    hook.secret = rotated["secret"]
    assert (await run("subscriptions", "test", key, code=1))["status"] == 404
    await run("subscriptions", "edit", key, "--url", hook.url, "--description", "index")
    assert (await run("subscriptions", "test", key))["outcome"] == "delivered"
    assert (await run("subscriptions", "list", "--name", "index"))["items"][0]["id"] == key
    assert (await run("subscriptions", "pause", key))["state"] == "paused"
    assert (await run("subscriptions", "resume", key))["state"] == "active"
    assert (await run("subscriptions", "retry", key))["retried"] == 0
    assert (await run("subscriptions", "show", key))["url"] == hook.url
    assert (await run("subscriptions", "statistics", key))["attempts"] == 0  # tests do not count
    return made


async def delivered(run, context, key: str) -> None:
    events = (await run("events", "list", "--limit", "4"))["items"]
    event = events[0]["data"]["event_id"]
    assert (await run("events", "show", event, "--payload", "thin"))["type"] == events[0]["type"]
    pending = await run("deliveries", "list", "--subscription-id", key, "--state", "pending")
    assert len(pending["items"]) == 4
    shown = await run("deliveries", "show", event, "--subscription-id", "index")
    assert [one["event_id"] for one in shown["items"]] == [event]
    assert await run("subscriptions", "retry", key) == {"retried": 0, "pending": 4}
    assert (await run("subscriptions", "skip", key, "--yes"))["skipped"] == 4
    again = await run("events", "redeliver", event, "--subscription-id", key)
    assert (await run("replays", "show", key, again["id"]))["event_id"] == event
    replay = await run("replays", "create", key, "--which", "missing")
    assert len((await run("replays", "list", key))["items"]) == 2
    await run("replays", "cancel", key, replay["id"])
    assert (await run("replays", "show", key, replay["id"]))["state"] == "cancelled"


async def reviewed(run, sandbox, turned: Registered) -> None:
    for verb in ("publish", "accept-silently"):
        await sandbox.change({"op": "delete", "count": 20})
        await turned.poll("full")
        (held,) = (await run("reviews", "list"))["items"]
        review = await run("reviews", "show", turned.id)
        assert (held["id"], review["deleted"]) == (turned.id, 20)
        await run("reviews", verb, turned.id, "--yes", "--if-match", review["etag"])
        await turned.turn()
        assert (await run("reviews", "show", turned.id))["state"] == "none"
    assert (await run("reviews", "list"))["items"] == []


async def keys_are_kept(run, integration_id: str) -> None:
    made = await run(
        *("api-key", "create", "--name", "a", "--scope", "subscriber"),
        *("--integration-id", integration_id),
    )
    await run("api-key", "edit", made["id"], "--name", "b", "--clear", "expires_at")
    assert (await run("api-key", "show", made["id"]))["name"] == "b"
    assert (await run("api-key", "rotate", made["id"]))["token"] != made["token"]
    assert len((await run("api-key", "list"))["items"]) == 1
    await run("api-key", "revoke", made["id"], "--yes")
    assert (await run("api-key", "list"))["items"] == []
    assert (await run("me", "show"))["scope"] == "admin"
    assert (await run("me", "integrations"))["items"][0]["id"] == integration_id
