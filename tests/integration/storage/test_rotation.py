from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import itertools
import json

import msgspec
import pytest

from service.bootstrap import open_services
from service.commands import rotate_keys as rotation
from service.domain.errors import (
    DecryptionError,
    NotFoundError,
    SettingsError,
    StorageUnavailableError,
)
from service.domain.signatures.signing import Signature
from service.storage.redis import keys
from service.storage.registry.subscriptions import new_secret
from service.storage.security.encrypted_values import AT_ONCE, HEADERS, KINDS, REPLIES, SECRETS
from service.storage.security.encryption import Encryptor
from service.storage.security.idempotency import Reply
from service.storage.security.key_holders import Process
from tests.authority import Authority
from tests.integration.conftest import new_credential, until_alive

OLD, NEW = bytes(32), b"n" * 32
OLD_NAME, NEW_NAME = Encryptor([OLD]).first, Encryptor([NEW]).first
ANSWER = Reply(status=201, headers=[], body=b"what was answered")


@pytest.fixture
async def with_both(services):
    """The service as it runs when a new key has been put first."""
    settings = msgspec.structs.replace(services.settings, encryption_keys=(NEW, OLD))
    async with open_services(settings) as both:
        yield both


@pytest.fixture
async def with_old_first(services):
    """The service as it runs when every part knows the new key and the old one still encrypts."""
    settings = msgspec.structs.replace(services.settings, encryption_keys=(OLD, NEW))
    async with open_services(settings) as both:
        yield both


@pytest.fixture
async def with_new(services):
    """The service without the old key."""
    settings = msgspec.structs.replace(services.settings, encryption_keys=(NEW,))
    async with open_services(settings) as new:
        yield new


@pytest.fixture
def subscribe(subscribe, tmp_path):
    """Subscriptions with something of every kind that is encrypted."""
    certificate = Authority(tmp_path).issue().client_certificate
    return functools.partial(subscribe, certificate=certificate)


async def stored_reply(services, name="idem"):
    running = await services.replies.begin("actor", name, b"request")
    await services.replies.keep(running, ANSWER)
    return running


async def everything(services):
    return [one for kind in KINDS async for page in services.encrypted.pages(kind) for one in page]


def silent(_line):
    pass


async def rotate(services, report):
    return await rotation.rotate(
        services.encrypted, services.encryptor, services.processes, services.audit, report
    )


async def test_a_credential_is_found_by_its_values_before_and_after(services, with_both, with_new):
    credential_id = await new_credential(services, "https://api.example/v1", "upstream-key")
    found = await services.credentials.get(credential_id)
    sought = msgspec.structs.replace(found, id="cred_another")
    assert await with_both.credentials.prepare(sought, "upstream-key") == (credential_id, None)
    unknown, made = await with_new.credentials.prepare(sought, "upstream-key")
    assert (unknown, made.id) == ("cred_another", "cred_another")
    await rotate(with_both, silent)
    for parts in (with_both, with_new):  # the old key alone no longer finds it
        assert await parts.credentials.prepare(sought, "upstream-key") == (credential_id, None)


async def test_afterwards_the_old_key_is_needed_for_nothing(
    services, subscribe, hook, with_both, with_new
):
    harness = await subscribe()
    credential = await new_credential(services, "https://api.example/v1", "upstream-key")
    await stored_reply(services)
    with pytest.raises(DecryptionError):
        await with_new.credentials.decrypt(credential)
    lines = []
    rotated = await rotate(with_both, lines.append)
    assert rotated.reencrypted == rotated.looked_at == dict.fromkeys(KINDS, 1)
    assert rotated.complete
    assert [line.partition(":")[0] for line in lines] == list(KINDS)
    (said,) = rotation.verdict(rotated)
    assert f"{OLD_NAME} may be removed" in said
    assert (await with_new.credentials.decrypt(credential)).api_key == "upstream-key"
    assert [one.secret for one in await with_new.subscriptions.secrets(harness.id)] == [hook.secret]
    assert await with_new.subscriptions.headers(harness.id) == {"x-tenant": "42"}
    assert await with_new.replies.begin("actor", "idem", b"request") == ANSWER
    (entry,), _ = await services.audit.page(10, None)
    assert (entry.record.action, entry.record.actor) == ("encryption_keys.rotated", "rotate-keys")


async def test_a_second_rotation_changes_nothing(services, subscribe, with_both):
    await subscribe()
    await stored_reply(services)
    await rotate(with_both, silent)
    before = await everything(services)
    again = await rotate(with_both, silent)
    assert sum(again.reencrypted.values()) == 0
    assert again.complete
    assert await everything(services) == before
    assert len((await services.audit.page(10, None))[0]) == 1


async def test_what_is_edited_is_left_as_it_was_but_for_its_seal(services, subscribe, with_both):
    harness = await subscribe()
    running = await stored_reply(services)
    await services.redis.expire(running.key, 1000)
    before = await services.redis.hgetall(keys.subscription(harness.id))
    version = await services.redis.get(keys.SUBSCRIPTIONS_VERSION)
    await rotate(with_both, silent)
    after = await services.redis.hgetall(keys.subscription(harness.id))
    assert {name for name in before if before[name] != after[name]} == {
        b"secrets",
        b"headers",
        b"client_certificate",
    }
    assert after.keys() == before.keys()
    assert await services.redis.get(keys.SUBSCRIPTIONS_VERSION) == version
    assert 900 < await services.redis.admin.ttl(running.key) <= 1000


async def test_a_rotation_that_was_broken_off_goes_on(services, with_both, with_new, monkeypatch):
    made = [await new_credential(services, "https://a.example/v1", f"k{n}") for n in range(5)]
    reencrypt, left = with_both.encrypted.reencrypt, iter(range(2))

    async def break_off(encrypted):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return await reencrypt(encrypted)

    monkeypatch.setattr(with_both.encrypted, "reencrypt", break_off)
    with pytest.raises(KeyboardInterrupt):
        await rotate(with_both, silent)
    names = [one.key_name for one in await everything(services)]
    assert sorted(names) == sorted([NEW_NAME] * 2 + [OLD_NAME] * 3)
    monkeypatch.setattr(with_both.encrypted, "reencrypt", reencrypt)
    rotated = await rotate(with_both, silent)
    assert sum(rotated.reencrypted.values()) == 3
    opened = [(await with_new.credentials.decrypt(one)).api_key for one in made]
    assert opened == [f"k{n}" for n in range(5)]


async def test_all_pages_are_gone_through(services, with_both):
    async with services.redis.pipeline(transaction=False) as pipeline:
        for number in range(2 * AT_ONCE + 1):
            name = f"cred_{number}"
            encrypted = Encryptor([OLD]).encrypt(b"k", f"credential:{name}:api_key")
            pipeline.hset(keys.credential(name), mapping={"record": "{}", "api_key": encrypted})
            pipeline.zadd(keys.CREDENTIALS, {name: number // 3})
        await pipeline.execute()
    rotated = await rotate(with_both, silent)
    assert sum(rotated.reencrypted.values()) == 2 * AT_ONCE + 1
    assert {one.key_name for one in await everything(services)} == {NEW_NAME}


async def test_edits_made_meanwhile_are_never_undone(
    services, subscribe, with_old_first, with_both, with_new
):
    """Others rotate secrets, and change headers and keys, under the old key and under the new."""
    harnesses = [await subscribe() for _ in range(3)]
    credentials = [await new_credential(services, "https://api.example/v1") for _ in range(3)]
    stop = asyncio.Event()
    last: dict[str, str] = {}

    async def edit(writer, harness, credential):
        for number in itertools.count():
            secret = new_secret(Signature.HMAC)
            value = f"{number}"

            def change(subscription, secrets, secret=secret, number=number):
                newest = msgspec.structs.replace(secrets[0], secret=secret)
                edited = msgspec.structs.replace(subscription, updated_at=number + 2)
                return edited, [newest]

            await writer.subscriptions.rotate(harness.id, change)
            (kept,) = await writer.subscriptions.secrets(harness.id)
            assert kept.secret == secret
            last[f"{harness.id} secret"] = secret
            await writer.subscriptions.update(
                harness.id, lambda one: one, headers={"x-value": value}
            )
            assert await writer.subscriptions.headers(harness.id) == {"x-value": value}
            last[f"{harness.id} header"] = value
            await writer.credentials.update(credential, lambda one: one, value)
            assert (await writer.credentials.decrypt(credential)).api_key == value
            last[credential] = value
            if stop.is_set():
                return

    writers = itertools.cycle((with_old_first, with_both))
    tasks = [
        asyncio.create_task(edit(writer, harness, credential))
        for writer, harness, credential in zip(writers, harnesses, credentials, strict=False)
    ]
    for _ in range(30):
        await rotate(with_both, silent)
    stop.set()
    await asyncio.gather(*tasks)
    rotated = await rotate(with_both, silent)
    assert rotated.complete
    for harness, credential in zip(harnesses, credentials, strict=True):
        (secret,) = await with_new.subscriptions.secrets(harness.id)
        assert secret.secret == last[f"{harness.id} secret"]
        headers = await with_new.subscriptions.headers(harness.id)
        assert headers == {"x-value": last[f"{harness.id} header"]}
        assert (await with_new.credentials.decrypt(credential)).api_key == last[credential]


async def test_who_replaces_or_deletes_a_secret_under_our_hands_wins(services, with_both, with_new):
    credential = await new_credential(services, "https://api.example/v1", "first")
    (read,) = await everything(services)
    await services.credentials.update(credential, lambda one: one, "second")
    assert await with_both.encrypted.reencrypt(read)
    assert (await with_new.credentials.decrypt(credential)).api_key == "second"
    await services.credentials.delete(credential)
    assert not await with_both.encrypted.reencrypt(read)
    with pytest.raises(NotFoundError):
        await services.credentials.get(credential)
    assert not await services.redis.exists(keys.credential(credential))


async def test_what_no_key_opens_is_named_and_left_alone(services, subscribe, with_both):
    harness = await subscribe()
    await stored_reply(services)
    name = keys.subscription(harness.id)
    foreign = Encryptor([b"f" * 32]).encrypt(b"{}", f"subscription:{harness.id}:headers")
    await services.redis.hset(name, "headers", foreign)
    (reply,) = await services.redis.admin.keys("cw:reply:*")
    await services.redis.set(reply, b"s" + b"rubbish", ex=100)
    rotated = await rotate(with_both, silent)
    assert rotated.spoiled == {HEADERS: [harness.id], REPLIES: [reply.decode()]}
    assert rotated.reencrypted[SECRETS] == 1
    assert not rotated.complete
    said = rotation.verdict(rotated)
    assert any(harness.id in line and "store" in line for line in said)
    assert await services.redis.hget(name, "headers") == foreign


async def test_a_process_without_the_new_key_stops_it_before_anything_is_touched(
    services, with_both
):
    await new_credential(services, "https://api.example/v1")
    async with services.processes.announced(Process("worker h-1", (OLD_NAME,))):
        await until_alive(services, 1)
        with pytest.raises(rotation.KeyMissingError, match="worker h-1 could not decrypt"):
            await rotate(with_both, silent)
        assert {one.key_name for one in await everything(services)} == {OLD_NAME}
    assert (await rotate(with_both, silent)).complete


async def test_as_long_as_a_process_seals_with_the_old_key_no_key_may_be_removed(
    services, with_both
):
    async with services.processes.announced(Process("api h-1", (OLD_NAME, NEW_NAME))):
        await until_alive(services, 1)
        rotated = await rotate(with_both, silent)
    assert rotated.others_encrypting == ["api h-1"]
    assert not rotated.complete
    (said,) = rotation.verdict(rotated)
    assert "no key may be removed" in said
    assert not rotation.as_document(rotated)["other_keys_may_be_removed"]


async def test_a_process_is_known_while_it_lives(services, monkeypatch):
    from service.storage.security import key_holders as processes

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(services.processes.announced(Process("api a", ("k",))))
        await until_alive(services, 1)
        (alive,) = await services.processes.alive()
        assert (alive.name, alive.key_names) == ("api a", ("k",))
        assert 0 < await services.redis.pttl(keys.PROCESSES) <= processes.GONE_MS
    assert await services.processes.alive() == []
    monkeypatch.setattr(processes, "GONE_MS", 100)  # less than until it says so again
    async with services.processes.announced(alive):
        await until_alive(services, 1)
        async with asyncio.timeout(10):
            while await services.processes.alive():  # noqa: ASYNC110 - its time passes by itself
                await asyncio.sleep(0.01)


async def test_a_rotation_goes_on_at_the_memory_limit(services, subscribe, with_both, redis):
    await subscribe()
    await stored_reply(services)
    await redis.config_set("maxmemory", "1")
    try:
        for kind in KINDS[:4]:
            async for page in with_both.encrypted.pages(kind):
                for encrypted in page:
                    assert await with_both.encrypted.reencrypt(encrypted)
    finally:
        await redis.config_set("maxmemory", 0)


async def test_a_sealed_value_opens_in_no_place_but_its_own(services, subscribe):
    for _ in range(2):
        await subscribe()
        await new_credential(services, "https://api.example/v1")
    await stored_reply(services, "one")
    await stored_reply(services, "two")
    found = await everything(services)
    assert len(found) == 2 * len(KINDS)
    for one, other in itertools.permutations(found, 2):
        moved = msgspec.structs.replace(
            other, stored=other.stored[: other.location.head] + one.value
        )
        assert not services.encrypted.can_decrypt(moved), (one.location, other.location)
    for one in found:
        assert services.encrypted.can_decrypt(one)


async def test_a_secret_that_was_moved_is_used_for_nothing(services, subscribe, hook):
    """As by somebody who can write to Redis: one's own record with another's ciphertext."""
    one, other = await subscribe(), await subscribe()
    redis = services.redis.admin
    stolen = await redis.hget(keys.subscription(other.id), "headers")
    for field in ("headers", "secrets"):
        await redis.hset(keys.subscription(one.id), field, stolen)
    with pytest.raises(DecryptionError):
        await services.subscriptions.headers(one.id)
    with pytest.raises(DecryptionError):
        await services.subscriptions.secrets(one.id)
    await one.emit("c1")
    with contextlib.suppress(DecryptionError):  # which fails the job
        await one.turn()
    assert hook.received == []


def command(settings, *, as_json=False):
    out = io.StringIO()
    return rotation.run(settings, out, as_json=as_json), out.getvalue()


async def test_the_command_says_what_it_did(services, subscribe, capsys):
    await subscribe()
    settings = msgspec.structs.replace(services.settings, encryption_keys=(NEW, OLD))
    code, said = await asyncio.to_thread(command, settings)
    assert code == 0
    assert f"{OLD_NAME} may be removed from COURSEWIRE_ENCRYPTION_KEYS" in said
    assert "signing secrets: 1 looked at, 1 re-encrypted" in capsys.readouterr().err
    code, said = await asyncio.to_thread(command, settings, as_json=True)
    document = json.loads(said)
    assert document["complete"]
    assert document["other_keys_may_be_removed"]
    assert document["reencrypted"] == dict.fromkeys(KINDS, 0)
    only = msgspec.structs.replace(settings, encryption_keys=(OLD,))
    code, said = await asyncio.to_thread(command, only, as_json=True)
    assert code == 1
    assert json.loads(said)["spoiled"]["signing secrets"]["count"] == 1


def test_the_command_needs_redis_and_keys(tmp_path, valkey_url):
    from service.settings import Settings

    with pytest.raises(SettingsError):
        command(Settings(data_dir=tmp_path, redis_url=valkey_url))
    away = Settings(data_dir=tmp_path, redis_url="redis://127.0.0.1:1/0", encryption_keys=(NEW,))
    with pytest.raises(StorageUnavailableError, match="run this again"):
        command(away)
