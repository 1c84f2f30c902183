from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import msgspec
import pytest

from service.domain.delivery.subscription import Subscription
from service.domain.errors import (
    ConflictError,
    CredentialInUseError,
    DecryptionError,
    IntegrationExistsError,
    NotFoundError,
)
from service.domain.polling.integration import Credential, Integration, Problem
from service.domain.polling.progress import begin
from service.domain.signatures.signing import SigningSecret
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from service.storage.redis.scripts import run
from service.storage.registry.credentials import CredentialStore
from service.storage.registry.filters import RecordFilter
from service.storage.registry.integrations import IntegrationStore
from service.storage.registry.matcher_cache import Matchers
from service.storage.registry.subscriptions import SubscriptionStore, new_secret
from service.storage.security.encryption import Encryptor
from tests.fake_redis import FakeRedis

EU = "https://eu.example/v1"
US = "https://us.example/v1"
replace = msgspec.structs.replace


def a_credential(name: str, created_at: int = 1, base_url: str = EU) -> Credential:
    return Credential(
        id=f"cred_{name}", name=name, base_url=base_url, created_at=created_at, updated_at=1
    )


def an_integration(name: str, created_at: int = 1, **fields) -> Integration:
    return Integration(
        **{
            "id": f"int_{name}",
            "name": name,
            "upstream_id": f"workday:{name}",
            "credential_id": "cred_a",
            "created_at": created_at,
            "updated_at": 1,
            **fields,
        }
    )


def a_subscription(name: str, created_at: int = 1, **fields) -> Subscription:
    return Subscription(
        id=f"sub_{name}",
        url="https://receiver.example/",
        created_at=created_at,
        updated_at=1,
        **fields,
    )


@pytest.fixture
async def redis() -> AsyncIterator[FakeRedis]:
    async with FakeRedis() as client:
        yield client


@pytest.fixture
def encryptor() -> Encryptor:
    return Encryptor([b"k" * 32])


def announcing(redis, encryptor) -> tuple[Matchers, Counters]:
    """What a store needs in order to announce what it changes."""
    counters = Counters(redis)
    return Matchers(SubscriptionStore(redis, encryptor, counters)), counters


@pytest.fixture
async def credentials(redis, encryptor) -> CredentialStore:
    store = CredentialStore(redis, encryptor, *announcing(redis, encryptor))
    await store.create(a_credential("a"), "key-a")
    return store


@pytest.fixture
def integrations(redis, encryptor, credentials) -> IntegrationStore:
    return IntegrationStore(redis, *announcing(redis, encryptor))


@pytest.fixture
def subscriptions(redis, encryptor) -> SubscriptionStore:
    return SubscriptionStore(redis, encryptor, Counters(redis))


async def polled(redis, integration_id: str, epoch: str) -> None:
    """Leaves an integration as a completed baseline of three courses would."""
    await redis.hset(
        keys.integration(integration_id),
        mapping={
            "baselined": "1",
            "watermark": "1795424001123",
            "last_full_at": "1795424001123",
            "course_count": "3",
            "quarantined": "1",
            "poll": msgspec.json.encode(begin("poll_1", "full", epoch, None, 5)),
        },
    )
    await redis.hset(keys.catalogue(integration_id, epoch), "c1", "fingerprint")
    await redis.hset(keys.quarantine(integration_id, epoch), "c2", "reason")
    await redis.hincrby(keys.TOTALS, "courses", 3)
    await redis.hincrby(keys.TOTALS, "quarantined", 1)
    await redis.zrem(keys.due("polls"), integration_id)


# --- credentials ----------------------------------------------------------------------------


async def test_a_credential_opens_with_its_key(credentials) -> None:
    opened = await credentials.decrypt("cred_a")
    assert (opened.base_url, opened.api_key) == (EU, "key-a")
    assert "key-a" not in repr(opened)


async def test_the_key_of_a_credential_is_stored_sealed_and_bound_to_it(redis, credentials) -> None:
    await credentials.create(a_credential("b"), "key-b")
    stored = await redis.hgetall(keys.credential("cred_a"))
    assert not any(b"key-a" in value for value in stored.values())
    await redis.hset(keys.credential("cred_b"), "api_key", stored[b"api_key"])
    with pytest.raises(DecryptionError):
        await credentials.decrypt("cred_b")


async def test_an_unknown_credential_is_not_found(credentials) -> None:
    for attempt in (
        credentials.get("cred_x"),
        credentials.decrypt("cred_x"),
        credentials.delete("cred_x"),
        credentials.update("cred_x", lambda credential: credential),
    ):
        with pytest.raises(NotFoundError, match="cred_x"):
            await attempt


async def test_a_credential_in_use_is_not_deleted(credentials, integrations) -> None:
    await integrations.create(an_integration("one"))
    with pytest.raises(CredentialInUseError, match="1 integration still uses"):
        await credentials.delete("cred_a")
    await integrations.delete("int_one")
    await credentials.delete("cred_a")
    assert await credentials.page(10) == ([], None)


async def test_a_new_key_replaces_the_old_and_brings_polls_forward(
    redis, credentials, integrations
) -> None:
    await integrations.create(an_integration("one"))
    _, before = await integrations.get("int_one")
    await redis.zadd(keys.due("polls"), {"int_one": 9e15})
    await credentials.update("cred_a", lambda credential: credential, api_key="key-2")
    assert (await credentials.decrypt("cred_a")).api_key == "key-2"
    assert await redis.zscore(keys.due("polls"), "int_one") < 9e15
    assert (await integrations.get("int_one"))[1] == before


async def test_another_base_url_begins_a_new_epoch_of_the_integrations_that_use_it(
    redis, credentials, integrations
) -> None:
    await credentials.create(a_credential("b"), "key-b")
    await integrations.create(an_integration("mine"))
    await integrations.create(an_integration("other", credential_id="cred_b"))
    epochs = {name: (await integrations.get(name))[1].epoch for name in ("int_mine", "int_other")}
    await polled(redis, "int_mine", epochs["int_mine"])
    await credentials.update("cred_a", lambda credential: replace(credential, base_url=US))
    _, polling = await integrations.get("int_mine")
    assert polling.epoch != epochs["int_mine"]
    assert (polling.baselined, polling.watermark, polling.course_count) == (False, None, 0)
    assert (await integrations.get("int_other"))[1].epoch == epochs["int_other"]
    assert await redis.hgetall(keys.UPSTREAMS) == {
        f"{US} workday:mine".encode(): b"int_mine",
        f"{EU} workday:other".encode(): b"int_other",
    }


async def test_a_base_url_on_which_integrations_would_meet_is_refused(
    credentials, integrations
) -> None:
    await credentials.create(a_credential("b", base_url=US), "key-b")
    await integrations.create(an_integration("one", upstream_id="workday:x"))
    await integrations.create(
        an_integration("two", upstream_id="workday:x", credential_id="cred_b")
    )
    with pytest.raises(IntegrationExistsError) as refusal:
        await credentials.update("cred_b", lambda credential: replace(credential, base_url=EU))
    assert refusal.value.existing_id == "int_one"
    assert (await credentials.get("cred_b")).base_url == US


# --- integrations ---------------------------------------------------------------------------


async def test_a_new_integration_is_listed_and_due_at_once(redis, integrations) -> None:
    await integrations.create(an_integration("one"))
    integration, polling = await integrations.get("int_one")
    assert integration == an_integration("one")
    assert not polling.baselined
    assert polling.epoch.startswith("ep_")
    seconds, _ = await redis.time()
    assert await redis.zscore(keys.due("polls"), "int_one") <= (seconds + 1) * 1000
    assert await integrations.page(10) == ([(integration, polling)], None)


async def test_a_paused_integration_is_not_in_the_schedule(redis, integrations) -> None:
    await integrations.create(an_integration("one", paused=True))
    assert await redis.zscore(keys.due("polls"), "int_one") is None
    await integrations.update("int_one", lambda one: replace(one, paused=False))
    assert await redis.zscore(keys.due("polls"), "int_one") is not None
    await integrations.update("int_one", lambda one: replace(one, paused=True))
    assert await redis.zscore(keys.due("polls"), "int_one") is None


async def test_the_same_upstream_twice_is_refused_with_the_existing_id(
    credentials, integrations
) -> None:
    await credentials.create(a_credential("b"), "another key, same base URL")
    await integrations.create(an_integration("one", upstream_id="workday:x"))
    with pytest.raises(IntegrationExistsError) as refusal:
        await integrations.create(
            an_integration("two", upstream_id="workday:x", credential_id="cred_b")
        )
    assert refusal.value.existing_id == "int_one"
    with pytest.raises(NotFoundError):
        await integrations.get("int_two")


async def test_an_integration_needs_its_credential(integrations) -> None:
    with pytest.raises(NotFoundError, match="cred_missing"):
        await integrations.create(an_integration("one", credential_id="cred_missing"))


async def test_an_edit_resets_no_state(redis, integrations) -> None:
    await integrations.create(an_integration("one"))
    epoch = (await integrations.get("int_one"))[1].epoch
    await polled(redis, "int_one", epoch)
    before = (await integrations.get("int_one"))[1]
    await integrations.update(
        "int_one", lambda one: replace(one, name="renamed", full_interval_seconds=600)
    )
    after, polling = await integrations.get("int_one")
    assert after.name == "renamed"
    assert polling == before
    assert await redis.hget(keys.catalogue("int_one", epoch), "c1") == b"fingerprint"


async def test_renaming_leaves_the_schedule_alone(redis, integrations) -> None:
    await integrations.create(an_integration("one"))
    await redis.zadd(keys.due("polls"), {"int_one": 9e15})
    await integrations.update("int_one", lambda one: replace(one, name="renamed"))
    assert await redis.zscore(keys.due("polls"), "int_one") == 9e15


async def test_a_shorter_interval_brings_the_next_poll_forward(redis, integrations) -> None:
    await integrations.create(an_integration("one"))
    await redis.zadd(keys.due("polls"), {"int_one": 9e15})
    await integrations.update("int_one", lambda one: replace(one, delta_interval_seconds=10))
    assert await redis.zscore(keys.due("polls"), "int_one") < 9e15


async def test_another_upstream_id_begins_a_new_epoch(redis, integrations) -> None:
    await integrations.create(an_integration("one"))
    epoch = (await integrations.get("int_one"))[1].epoch
    await polled(redis, "int_one", epoch)
    await integrations.update("int_one", lambda one: replace(one, upstream_id="workday:new"))
    _, polling = await integrations.get("int_one")
    assert polling.epoch != epoch
    assert (polling.baselined, polling.watermark, polling.last_full_at) == (False, None, None)
    assert (polling.course_count, polling.quarantined) == (0, 0)
    assert await redis.hget(keys.integration("int_one"), "poll") is None
    assert not await redis.exists(
        keys.catalogue("int_one", epoch), keys.quarantine("int_one", epoch)
    )
    totals = {
        name.decode(): int(count) for name, count in (await redis.hgetall(keys.TOTALS)).items()
    }
    assert totals == {"courses": 0, "quarantined": 0, "state:pending": 1}
    assert await redis.zscore(keys.due("polls"), "int_one") is not None
    assert await redis.hgetall(keys.UPSTREAMS) == {f"{EU} workday:new".encode(): b"int_one"}


async def test_an_edit_onto_a_registered_upstream_is_refused(integrations) -> None:
    await integrations.create(an_integration("one"))
    await integrations.create(an_integration("two"))
    with pytest.raises(IntegrationExistsError) as refusal:
        await integrations.update("int_two", lambda two: replace(two, upstream_id="workday:one"))
    assert refusal.value.existing_id == "int_one"


async def test_a_credential_with_the_same_base_url_keeps_the_epoch(
    credentials, integrations
) -> None:
    await credentials.create(a_credential("b"), "key-b")
    await integrations.create(an_integration("one"))
    epoch = (await integrations.get("int_one"))[1].epoch
    await integrations.update("int_one", lambda one: replace(one, credential_id="cred_b"))
    assert (await integrations.get("int_one"))[1].epoch == epoch
    await credentials.delete("cred_a")
    with pytest.raises(CredentialInUseError):
        await credentials.delete("cred_b")


async def test_edits_of_different_fields_at_once_are_both_kept(integrations, monkeypatch) -> None:
    await integrations.create(an_integration("one"))
    edits = 0

    def rename_while_relabelled(one: Integration) -> Integration:
        nonlocal edits
        edits += 1
        return replace(one, name=f"edit {edits}")

    async def relabel(one: Integration) -> Integration:
        return await integrations.update(one.id, lambda one: replace(one, labels={"a": "b"}))

    async def interrupted(redis, call):
        if edits == 1:
            monkeypatch.undo()
            await relabel(an_integration("one"))
        return await run(redis, call)

    monkeypatch.setattr("service.storage.registry.integrations.run", interrupted)
    await integrations.update("int_one", rename_while_relabelled)
    integration, _ = await integrations.get("int_one")
    assert (integration.name, integration.labels) == ("edit 2", {"a": "b"})


async def test_deleting_an_integration_leaves_nothing_of_it(redis, integrations) -> None:
    before = set(await redis.keys())
    await integrations.create(an_integration("one"))
    epoch = (await integrations.get("int_one"))[1].epoch
    await polled(redis, "int_one", epoch)
    await integrations.request_poll("int_one", "full", 5)
    await redis.zadd(keys.claimed("polls"), {"int_one": 5})
    await redis.set(keys.lease("polls", "int_one"), "token")
    await integrations.delete("int_one")
    assert set(await redis.keys()) - before == {keys.TOTALS.encode()}
    assert set((await redis.hgetall(keys.TOTALS)).values()) == {b"0"}
    for attempt in (integrations.get("int_one"), integrations.delete("int_one")):
        with pytest.raises(NotFoundError):
            await attempt


async def test_the_stored_problem_is_read(redis, integrations) -> None:
    await integrations.create(an_integration("one"))
    problem = Problem(code="auth", message="refused", since=5, attention=True)
    await redis.hset(keys.integration("int_one"), "problem", msgspec.json.encode(problem))
    assert (await integrations.get("int_one"))[1].problem == problem


async def test_integrations_are_read_together(integrations) -> None:
    await integrations.create(an_integration("one"))
    found = await integrations.get_many(["int_none", "int_one"])
    assert found[0] is None
    assert found[1][0].id == "int_one"
    assert await integrations.get_many([]) == []


# --- polls asked for ------------------------------------------------------------------------


async def test_a_poll_asked_for_is_queued_and_due_now(redis, integrations) -> None:
    await integrations.create(an_integration("one"))
    await redis.zadd(keys.due("polls"), {"int_one": 9e15})
    poll = await integrations.request_poll("int_one", "delta", 5)
    assert (poll.kind, poll.state, poll.requested_at) == ("delta", "queued", 5)
    assert await integrations.get_poll("int_one", poll.id) == poll
    assert await integrations.list_polls("int_one") == [poll]
    _, polling = await integrations.get("int_one")
    assert (polling.requested, polling.requested_id) == ("delta", poll.id)
    assert await redis.zscore(keys.due("polls"), "int_one") < 9e15


async def test_a_poll_asked_for_does_not_disturb_a_claim(redis, integrations) -> None:
    await integrations.create(an_integration("one"))
    await redis.zrem(keys.due("polls"), "int_one")
    await redis.zadd(keys.claimed("polls"), {"int_one": 9e15})
    await integrations.request_poll("int_one", "delta", 5)
    assert await redis.zscore(keys.due("polls"), "int_one") is None


async def test_a_queued_poll_is_joined_by_the_same_and_by_a_weaker_kind(integrations) -> None:
    await integrations.create(an_integration("one"))
    full_poll = await integrations.request_poll("int_one", "full", 5)
    assert await integrations.request_poll("int_one", "delta", 6) == full_poll
    assert await integrations.request_poll("int_one", "full", 7) == full_poll
    assert await integrations.list_polls("int_one") == [full_poll]


async def test_a_queued_delta_becomes_the_full_poll_asked_for(integrations) -> None:
    await integrations.create(an_integration("one"))
    delta = await integrations.request_poll("int_one", "delta", 5)
    full_poll = await integrations.request_poll("int_one", "full", 6)
    assert (full_poll.id, full_poll.kind) == (delta.id, "full")
    assert (await integrations.get("int_one"))[1].requested == "full"


@pytest.mark.parametrize(
    ("under_way", "asked_for", "joined"),
    [
        ("delta", "delta", True),
        ("full", "full", True),
        ("full", "delta", True),
        ("delta", "full", False),
    ],
)
async def test_a_poll_under_way_is_joined_if_it_sees_what_was_asked_for(
    redis, integrations, under_way, asked_for, joined
) -> None:
    await integrations.create(an_integration("one"))
    progress = begin("poll_now", under_way, "ep_1", 0, 5)
    await redis.hset(keys.integration("int_one"), "poll", msgspec.json.encode(progress))
    poll = await integrations.request_poll("int_one", asked_for, 6)
    assert (poll.id == "poll_now") is joined
    assert (await integrations.get("int_one"))[1].requested_id == (None if joined else poll.id)
    assert await redis.hget(keys.integration("int_one"), "again") == (b"1" if joined else None)
    again = await integrations.request_poll("int_one", asked_for, 7)
    assert again.id == poll.id


async def test_no_poll_is_queued_for_a_paused_or_unknown_integration(integrations) -> None:
    await integrations.create(an_integration("one", paused=True))
    with pytest.raises(ConflictError, match="paused"):
        await integrations.request_poll("int_one", "delta", 5)
    with pytest.raises(NotFoundError):
        await integrations.request_poll("int_none", "delta", 5)
    with pytest.raises(NotFoundError):
        await integrations.list_polls("int_none")
    with pytest.raises(NotFoundError):
        await integrations.get_poll("int_one", "poll_none")


# --- subscriptions --------------------------------------------------------------------------


async def test_secrets_and_headers_are_stored_sealed(redis, subscriptions) -> None:
    secret = new_secret()
    await subscriptions.create(a_subscription("a"), [secret], {"x-token": "hush"})
    assert await subscriptions.secrets("sub_a") == [SigningSecret(secret)]
    assert await subscriptions.headers("sub_a") == {"x-token": "hush"}
    stored = b"".join((await redis.hgetall(keys.subscription("sub_a"))).values())
    assert secret.encode() not in stored
    assert b"hush" not in stored


async def test_every_edit_of_a_subscription_moves_the_version_on(subscriptions) -> None:
    versions = [(await subscriptions.all_for_matching())[0]]
    await subscriptions.create(a_subscription("a"), [], {})
    versions.append((await subscriptions.all_for_matching())[0])
    await subscriptions.update("sub_a", lambda one: replace(one, paused=True))
    versions.append((await subscriptions.all_for_matching())[0])
    await subscriptions.delete("sub_a")
    versions.append((await subscriptions.all_for_matching())[0])
    assert versions[0] == 0
    assert versions == sorted(set(versions))


async def test_a_version_that_was_lost_is_not_given_out_again(redis, subscriptions) -> None:
    await subscriptions.create(a_subscription("a"), [], {})
    lost, *_ = await subscriptions.all_for_matching()
    await redis.delete(keys.SUBSCRIPTIONS_VERSION)
    await subscriptions.create(a_subscription("b"), [], {})
    again, *_ = await subscriptions.all_for_matching()
    assert again >= lost > 10**12


async def test_all_subscriptions_are_read_for_matching(subscriptions) -> None:
    await subscriptions.create(a_subscription("b", created_at=2), [], {})
    await subscriptions.create(a_subscription("a", created_at=1), [], {})
    _, found, _ = await subscriptions.all_for_matching()
    assert [one.id for one in found] == ["sub_a", "sub_b"]


async def test_a_subscription_is_created_once(subscriptions) -> None:
    await subscriptions.create(a_subscription("a"), ["s"], {})
    with pytest.raises(ConflictError):
        await subscriptions.create(a_subscription("a"), ["t"], {})


async def test_headers_change_only_when_given(subscriptions) -> None:
    await subscriptions.create(a_subscription("a"), ["s"], {"x": "1"})
    await subscriptions.update("sub_a", lambda one: replace(one, url="https://other.example/"))
    assert await subscriptions.headers("sub_a") == {"x": "1"}
    await subscriptions.update("sub_a", lambda one: one, headers={"y": "2"})
    assert await subscriptions.headers("sub_a") == {"y": "2"}
    assert (await subscriptions.get("sub_a")).url == "https://other.example/"
    assert await subscriptions.secrets("sub_a") == [SigningSecret("s")]


async def test_a_rotation_stores_subscription_and_secrets_together(redis, subscriptions) -> None:
    await subscriptions.create(a_subscription("a"), ["old"], {"x": "1"})

    def rotate(one, secrets):
        return replace(one, public_key="whpk_new"), [SigningSecret("new"), *secrets]

    after, secrets = await subscriptions.rotate("sub_a", rotate)
    assert after == await subscriptions.get("sub_a")
    assert secrets == await subscriptions.secrets("sub_a")
    assert secrets == [SigningSecret("new"), SigningSecret("old")]
    assert await subscriptions.headers("sub_a") == {"x": "1"}
    assert b"new" not in await redis.hget(keys.subscription("sub_a"), "secrets")


async def test_two_rotations_at_once_both_count(subscriptions) -> None:
    await subscriptions.create(a_subscription("a"), ["0"], {})

    def rotate(one, secrets):
        number = len(secrets)
        return replace(one, updated_at=number), [SigningSecret(str(number)), *secrets]

    await asyncio.gather(*(subscriptions.rotate("sub_a", rotate) for _ in range(5)))
    found = await subscriptions.secrets("sub_a")
    assert [one.secret for one in found] == ["5", "4", "3", "2", "1", "0"]


async def test_a_rotation_that_is_refused_stores_nothing(subscriptions) -> None:
    await subscriptions.create(a_subscription("a"), ["s"], {})

    def refuse(_one, _secrets):
        raise ConflictError("no")

    with pytest.raises(ConflictError):
        await subscriptions.rotate("sub_a", refuse)
    assert await subscriptions.secrets("sub_a") == [SigningSecret("s")]


async def test_secrets_do_not_open_for_another_subscription(redis, subscriptions) -> None:
    for name in "ab":
        await subscriptions.create(a_subscription(name), [name], {})
    moved = await redis.hget(keys.subscription("sub_a"), "secrets")
    await redis.hset(keys.subscription("sub_b"), "secrets", moved)
    with pytest.raises(DecryptionError):
        await subscriptions.secrets("sub_b")


async def test_pausing_takes_an_outbox_out_of_the_schedule_and_resuming_puts_it_back(
    redis, subscriptions
) -> None:
    await subscriptions.create(a_subscription("a"), [], {})
    assert await redis.zscore(keys.due("outboxes"), "sub_a") is None
    await redis.xadd(keys.outbox("sub_a"), {"k": "c", "r": "f"})
    await redis.zadd(keys.due("outboxes"), {"sub_a": 5})
    await subscriptions.update("sub_a", lambda one: replace(one, paused=True))
    assert await redis.zscore(keys.due("outboxes"), "sub_a") is None
    await subscriptions.update("sub_a", lambda one: replace(one, paused=False))
    assert await redis.zscore(keys.due("outboxes"), "sub_a") is not None


async def test_deleting_a_subscription_leaves_nothing_of_it(redis, subscriptions) -> None:
    await subscriptions.create(a_subscription("a"), ["s"], {})
    for _ in range(3):
        await redis.xadd(keys.outbox("sub_a"), {"k": "c", "r": "f"})
    await redis.zadd(keys.outbox_dead("sub_a"), {"1-1": 1})
    await redis.hset(keys.outbox_dead_facts("sub_a"), "1-1", "1 1 f c r")
    await redis.xadd(keys.attempts("sub_a"), {"o": "S1"})
    await redis.zadd(keys.attempts_order("sub_a"), {"S1": 0})
    await redis.zadd(keys.outbox_retries("sub_a"), {"c": 5})
    await redis.zadd(keys.outbox_retrying("sub_a"), {"1": 0})
    await redis.zadd(keys.replayed_order("sub_a"), {"1": 0})
    await redis.zadd(keys.replayed_retrying("sub_a"), {"1": 0})
    await redis.hset(keys.outbox_failing("sub_a"), "c", "1-1 1 1 f")
    await redis.hset(keys.outbox_state("sub_a"), mapping={"parked": "5", "state": "parked"})
    await redis.zadd(keys.due("outboxes"), {"sub_a": 5})
    await redis.zadd(keys.claimed("outboxes"), {"sub_a": 5})
    await redis.set(keys.lease("outboxes", "sub_a"), "token")
    await redis.hset(
        keys.TOTALS, mapping={"pending": 10, "dead": 4, "outbox:parked": 2, "outbox:active": 0}
    )
    await subscriptions.delete("sub_a")
    assert set(await redis.keys()) == {
        keys.TOTALS.encode(),
        keys.SUBSCRIPTIONS_VERSION.encode(),
    }
    assert await redis.hgetall(keys.TOTALS) == {
        b"pending": b"7",
        b"dead": b"3",
        b"outbox:parked": b"1",
        b"outbox:active": b"0",
    }
    with pytest.raises(NotFoundError):
        await subscriptions.delete("sub_a")


async def test_an_unknown_subscription_is_not_found(subscriptions) -> None:
    for attempt in (
        subscriptions.get("sub_x"),
        subscriptions.secrets("sub_x"),
        subscriptions.headers("sub_x"),
        subscriptions.update("sub_x", lambda one: one),
        subscriptions.rotate("sub_x", lambda one, secrets: (one, secrets)),
    ):
        with pytest.raises(NotFoundError, match="sub_x"):
            await attempt


# --- listing --------------------------------------------------------------------------------


async def test_pages_follow_the_order_of_creation_and_end(subscriptions) -> None:
    names = ["d", "a", "c", "b", "e"]
    for created_at, name in enumerate(names):
        await subscriptions.create(a_subscription(name, created_at), [], {})
    seen, after = [], None
    for _ in range(3):
        page, after = await subscriptions.page(2, after)
        seen += [one.id.removeprefix("sub_") for one in page]
    assert seen == names
    assert after is None


async def test_pages_hold_registrations_of_the_same_millisecond_once_each(subscriptions) -> None:
    for name in "hgfedcba":
        await subscriptions.create(a_subscription(name, 7), [], {})
    seen, after = [], None
    while True:
        page, after = await subscriptions.page(3, after)
        seen += [one.id for one in page]
        if after is None:
            break
    assert seen == [f"sub_{name}" for name in "abcdefgh"]


async def test_a_page_stays_right_when_its_place_is_deleted(subscriptions) -> None:
    for created_at, name in enumerate("abcd"):
        await subscriptions.create(a_subscription(name, created_at), [], {})
    _, after = await subscriptions.page(2)
    await subscriptions.delete("sub_a")
    await subscriptions.delete("sub_b")
    page, _ = await subscriptions.page(2, after)
    assert [one.id for one in page] == ["sub_c", "sub_d"]


@pytest.mark.parametrize(
    ("described", "name", "is_read"),
    [
        ("Learning at ACME", "acme", True),
        ("Learning at ACME", "Acme L", False),
        ('the "old" one', '"old"', True),
        ("back\\slash", "K\\S", True),
        ("Müller", "MÜLLER", True),
        ("Müller", "schmidt", False),
        ("a straße", "strasse", True),
        ("a\ttab", "a\tt", True),
    ],
)
async def test_a_search_reads_no_record_that_cannot_match(
    subscriptions, described, name, is_read
) -> None:
    one = a_subscription("a", description=described)
    await subscriptions.create(one, [], {})
    found, after = await subscriptions.search(RecordFilter.of(None, name), 10)
    assert [each.id for each in found] == ([one.id] if is_read else [])
    assert after is None


async def test_a_search_reads_every_record_with_a_character_that_is_compared_as_ascii(
    subscriptions,
) -> None:
    alike = [
        one
        for one in map(chr, range(128, sys.maxunicode + 1))
        if any(part.isascii() for part in one.casefold())
    ]
    for number, one in enumerate(alike):
        await subscriptions.create(a_subscription(f"{number:02}", number, description=one), [], {})
    found, _ = await subscriptions.search(RecordFilter.of(None, "zzz"), 100)
    assert [one.description for one in found] == alike


async def test_a_search_reads_the_wanted_states(subscriptions, redis) -> None:
    for created_at, name in enumerate("abc"):
        await subscriptions.create(a_subscription(name, created_at), [], {})
    await subscriptions.update("sub_b", lambda one: msgspec.structs.replace(one, paused=True))
    await redis.hset(keys.outbox_state("sub_c"), "parked", 1)
    for states, expected in (
        (["paused"], ["sub_b"]),
        (["active", "parked"], ["sub_a", "sub_c"]),
        ([], ["sub_a", "sub_b", "sub_c"]),
    ):
        found, _ = await subscriptions.search(RecordFilter.of(states, None), 10)
        assert [one.id for one in found] == expected
