"""`coursewire backup` and `coursewire restore`, over servers of their own and amid traffic."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict

import msgspec
import pytest
from redis import Redis

from service.bootstrap import open_services
from service.clients.upstream import PageQuery
from service.commands.backup.archive import MAGIC, BackupError
from service.commands.backup.run import backup, restore
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.errors import SettingsError, StartError
from service.domain.polling.integration import Baseline
from service.settings import Settings
from service.storage.backup.snapshot import SnapshotRefusedError
from service.storage.redis import keys
from service.storage.redis.server_info import check_server
from tests.integration.conftest import UPSTREAM_ID, Harness, QuietDispatcher, Registered
from tests.integration.storage.test_backup import contents, fill, servers
from workers.context import JobContext

pytestmark = pytest.mark.slow

assert servers  # a fixture
KEY = bytes(32)


def settings_of(redis: Redis, **fields) -> Settings:
    port = redis.connection_pool.connection_kwargs["port"]
    given = {"redis_url": f"redis://127.0.0.1:{port}/0", "encryption_keys": (KEY,)}
    return Settings(**given | fields)


def lasting(redis: Redis) -> dict[bytes, bytes]:
    """What a backup holds, and where each stream goes on."""
    found = contents(redis)
    for key in found:
        if redis.type(key) == b"stream":
            found[key] += redis.xinfo_stream(key)["last-generated-id"]
    return {
        key: value
        for key, value in found.items()
        if key.startswith(b"cw:") and not key.startswith(b"cw:counters:")
    }


@pytest.fixture
def old(servers, tmp_path) -> Redis:
    """The server of an installation at the end of an eventful life."""
    fill(tmp_path / "old")
    return servers.start(tmp_path / "old", **{"appendonly": "no", "repl-diskless-sync-delay": "0"})


@pytest.fixture
def fresh(servers, tmp_path) -> Redis:
    (tmp_path / "new").mkdir()
    return servers.start(tmp_path / "new")


def test_a_backup_restores_every_key_on_another_server(old, fresh, tmp_path):
    old.set("somebody:else", "not ours")
    old.xadd(keys.EVENTS, {"n": "1"}, id="9999999999999-0")
    old.xdel(keys.EVENTS, "9999999999999-0")
    old.set("cw:reply:new", "kept for a day", ex=1_000)
    old.set("cw:reply:old", "gone by then", px=1)
    before, path = lasting(old), tmp_path / "the backup"
    assert len(before) > 50
    said = backup(settings_of(old), path)
    assert str(path) in said
    assert "need the encryption keys" in said
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir() if "the backup" in one.name] == ["the backup"]
    assert lasting(old) == before

    said = restore(settings_of(fresh), path, replace=False)
    after = lasting(fresh)
    assert after == before
    assert 900 < fresh.ttl("cw:reply:new") <= 1_060  # the time that the restore takes is added
    assert not fresh.exists("somebody:else", "cw:reply:old", keys.RESTORING)
    assert "ENCRYPTION_KEYS lacks" in said  # those of the release


def test_secrets_stay_encrypted(old, tmp_path):
    from service.commands.backup.archive import Archive

    path = tmp_path / "b"
    backup(settings_of(old), path)
    parts = {part.key: dict(part.items) for part in Archive(path).parts() if part.kind == "hash"}
    found = [parts[key][b"api_key"] for key in parts if key.startswith(b"cw:credential:")]
    stored = [old.hget(key, "api_key") for key in old.scan_iter("cw:credential:*")]
    assert sorted(found) == sorted(stored)
    assert found


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda content: content[:-1], "damaged"),
        (lambda content: content[: len(content) // 2], "damaged"),
        (lambda content: content[:200] + b"\0" + content[201:], "damaged"),
        (lambda content: content[: len(MAGIC)], "damaged"),
        (lambda _: b"REDIS0011", "not a backup"),
        (lambda _: b"", "not a backup"),
    ],
)
def test_a_broken_file_is_refused_before_anything_is_written(old, fresh, tmp_path, spoil, said):
    path = tmp_path / "b"
    backup(settings_of(old), path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(BackupError, match=said):
        restore(settings_of(fresh), path, replace=True)
    assert fresh.dbsize() == 0


def test_an_installation_is_replaced_only_on_request(old, fresh, tmp_path):
    path = tmp_path / "b"
    backup(settings_of(old), path)
    fresh.zadd(keys.SUBSCRIPTIONS, {"sub_other": 1})
    fresh.hset("cw:subscription:sub_other", "record", "{}")
    with pytest.raises(BackupError, match=r"holds an installation already; --replace"):
        restore(settings_of(fresh), path, replace=False)
    assert fresh.zrange(keys.SUBSCRIPTIONS, 0, -1) == [b"sub_other"]
    restore(settings_of(fresh), path, replace=True)
    assert lasting(fresh) == lasting(old)


def test_nothing_starts_on_half_a_backup_or_is_restored_under_running_parts(old, fresh, tmp_path):
    path = tmp_path / "b"
    backup(settings_of(old), path)
    url = settings_of(fresh).require_redis_url()
    fresh.set(keys.RESTORING, "")
    with pytest.raises(StartError, match=r"a backup is being restored"):
        asyncio.run(check_server(url))
    restore(settings_of(fresh), path, replace=True)
    asyncio.run(check_server(url))

    async def at_work() -> None:
        async with open_services(settings_of(fresh), part="worker") as services:
            async with asyncio.timeout(30):
                while not await services.processes.alive():  # noqa: ASYNC110 - it says so itself
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(restore, settings_of(fresh), path, replace=True)

    with pytest.raises(BackupError, match=r"^worker .* are running: stop every part first"):
        asyncio.run(at_work())


def test_a_user_who_may_not_replicate_is_told_what_is_missing(old, tmp_path):
    from service.storage.redis.rights import acl_rules

    old.execute_command("ACL SETUSER", "small", "reset", "on", ">secret", *acl_rules())
    url = settings_of(old).require_redis_url().replace("://", "://small:secret@")
    with pytest.raises(SnapshotRefusedError, match=r"\+sync \+replconf"):
        backup(settings_of(old, redis_url=url), tmp_path / "b")
    old.execute_command("ACL SETUSER", "small", "+sync", "+replconf")
    old.config_set("repl-diskless-sync", "no")  # then the snapshot comes by its length
    backup(settings_of(old, redis_url=url), tmp_path / "b")


def test_without_the_keys_nothing_is_restored_into_a_data_directory(old, tmp_path):
    path, data = tmp_path / "b", tmp_path / "data"
    backup(settings_of(old), path)
    with pytest.raises(SettingsError, match="give the keys that the backup was made with"):
        restore(Settings(data_dir=data), path, replace=False)
    assert not data.exists()
    with pytest.raises(SettingsError, match="set one of them to the service to back up"):
        backup(Settings(data_dir=data), tmp_path / "c")
    restore(Settings(data_dir=data, encryption_keys=(KEY,)), path, replace=False)
    backup(Settings(data_dir=data, encryption_keys=(KEY,)), tmp_path / "c")
    # Of the same keys, though in another order.
    from service.commands.backup.archive import Archive

    held = [sorted({part.key for part in Archive(one).parts()}) for one in (path, tmp_path / "c")]
    assert held[0] == held[1]


# --- amid traffic -------------------------------------------------------------------------------


class Upstream:
    """The sandbox, changed now and then, and every version that its courses had."""

    def __init__(self, sandbox, services) -> None:
        self._sandbox = sandbox
        self._services = services
        self.versions: dict[str, list[str | None]] = defaultdict(list)

    async def change(self) -> None:
        await self._sandbox.change(
            {"op": "edit", "count": 15}, {"op": "create", "count": 2}, {"op": "delete", "count": 2}
        )
        await self.look()

    async def look(self) -> None:
        credential = UpstreamCredential(self._sandbox.base_url, "sandbox-key")
        cursor: str | None = None
        while True:
            page = await self._services.upstream.fetch_page(
                credential, UPSTREAM_ID, PageQuery(include_deleted=True, cursor=cursor)
            )
            for record in map(msgspec.json.decode, page.results):
                gone = record["remote_deleted_at"] is not None
                version = None if gone else json.dumps(record, sort_keys=True)
                if self.versions[record["id"]][-1:] != [version]:
                    self.versions[record["id"]].append(version)
            if (cursor := page.next) is None:
                return


async def test_what_a_restore_rolls_back_is_found_again_and_nothing_is_invented(
    register, subscribe, sandbox, hook, services, valkey_admin_url, tmp_path
):
    upstream = Upstream(sandbox, services)
    integration = await register(baseline=Baseline.EMIT)
    subscriber = await subscribe()
    await upstream.look()
    await integration.turn()
    await subscriber.turn()
    settings = msgspec.structs.replace(services.settings, redis_url=valkey_admin_url)
    path = tmp_path / "backup"

    making = asyncio.create_task(asyncio.to_thread(backup, settings, path))
    rounds = 0
    while not making.done() or rounds < 3:
        await upstream.change()
        await integration.poll("delta")
        await subscriber.turn()
        rounds += 1
    await making
    for _ in range(2):
        await upstream.change()
        await integration.poll("delta")
    await subscriber.turn()
    before = len(hook.received)

    await asyncio.to_thread(restore, settings, path, replace=True)
    await upstream.change()
    async with open_services(services.settings) as again:
        context = JobContext(again, QuietDispatcher(), asyncio.Event())
        again.redis.admin = services.redis.admin
        stored, _ = await again.integrations.get(integration.id)
        polled = Registered(context, stored)
        poll = await polled.poll("full")
        while (
            poll.state != "completed"
        ):  # the backup may contain a delta under way, which ends first
            await polled.turn()
            poll = await again.integrations.get_poll(polled.id, poll.id)
        restored = Harness(context, await again.subscriptions.get(subscriber.id))
        await restored.turn()
        assert (await restored.depth()).pending == 0
    assert len(hook.received) > before

    bodies: dict[str, bytes] = {}
    last: dict[str, dict] = {}
    for identifier, event, body in hook.received:
        assert bodies.setdefault(identifier, body) == body
        if not event["type"].startswith("course."):
            continue
        data = event["data"]
        course = data.get("course") and json.dumps(data["course"], sort_keys=True)
        assert course in upstream.versions[data["course_id"]], f"invented: {event}"
        if data["sequence"] >= last.get(data["course_id"], {}).get("sequence", 0):
            last[data["course_id"]] = {"sequence": data["sequence"], "course": course}
    told = {course_id: one["course"] for course_id, one in last.items()}
    assert told == {course_id: versions[-1] for course_id, versions in upstream.versions.items()}
