from __future__ import annotations

import io
import json
from contextlib import AsyncExitStack

import msgspec
import pytest
from redis.asyncio import Redis

from service.clock import now_ms
from service.commands.doctor import run as doctor
from service.commands.doctor.findings import Finding
from service.domain.errors import StartError
from service.settings import Settings
from service.storage.observability.system_status import Overview
from service.storage.redis import keys
from service.storage.security.key_holders import Process
from tests.integration.clients.forward_proxy import ForwardProxy
from tests.integration.conftest import new_credential, until_alive
from workers.dispatch import queues

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(services) -> Settings:
    return msgspec.structs.replace(services.settings, admin_token="t" * 32)


@pytest.fixture
async def busy(redis: Redis):
    """A server that persists, with a scheduler and a worker that are at work."""
    before = await redis.config_get("appendonly")
    await redis.config_set("appendonly", "yes")
    await redis.zadd(keys.SCHEDULERS, {"one": now_ms()})
    await redis.sadd(keys.RQ_WORKERS, "rq:worker:w1")
    fields = {"state": "idle", "queues": ",".join(keys.QUEUES), "hostname": "host", "pid": "7"}
    await redis.hset("rq:worker:w1", mapping=fields)
    yield
    await redis.config_set("appendonly", before["appendonly"])


async def examined(settings: Settings, **options) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for one in await doctor.examine(settings, **options):
        found.setdefault(one.check, []).append(one)
    return found


def test_the_queues_are_those_of_the_workers():
    assert keys.QUEUES == (queues.POLL, queues.DELIVER, queues.MAINTAIN)


async def test_a_healthy_system_has_nothing_but_good_findings(settings, busy, subscribe, services):
    await subscribe()
    await new_credential(services, "https://api.example/v1")
    found = await examined(settings)
    levels = {check: {one.level for one in findings} for check, findings in found.items()}
    assert levels.pop("memory") == {"ok"}
    assert set().union(*levels.values()) == {"ok"}, found
    assert {"settings", "redis", "eviction", "persistence", "clock", "secrets"} <= set(levels)


async def test_settings_that_are_missing_end_the_examination(settings):
    found = await examined(msgspec.structs.replace(settings, encryption_keys=()))
    assert list(found) == ["settings"]
    assert "COURSEWIRE_ENCRYPTION_KEYS is not set" in found["settings"][0].said


async def test_a_server_that_does_not_answer_is_told_once(settings):
    found = await examined(msgspec.structs.replace(settings, redis_url="redis://127.0.0.1:1/0"))
    assert [one.level for one in found["redis"]] == ["fail"]
    assert "COURSEWIRE_REDIS_URL" in found["redis"][0].said
    assert set(found) == {"settings", "redis"}


async def test_missing_parts_are_failures_that_name_the_command(settings):
    found = await examined(settings)
    assert "coursewire scheduler" in found["scheduler"][0].said
    assert "coursewire worker" in found["workers"][0].said
    assert found["scheduler"][0].level == found["workers"][0].level == "fail"


async def test_a_secret_that_no_key_opens_is_a_failure_that_names_its_owner(
    settings, busy, subscribe, services
):
    harness = await subscribe()
    credential = await new_credential(services, "https://api.example/v1")
    other = msgspec.structs.replace(settings, encryption_keys=(b"x" * 32,))
    (finding,) = (await examined(other))["secrets"]
    assert finding.level == "fail"
    assert harness.id in finding.said
    assert credential in finding.said
    both = msgspec.structs.replace(settings, encryption_keys=(b"x" * 32, bytes(32)))
    (finding,) = (await examined(both))["secrets"]
    assert finding.level == "warn"
    assert "3 with key " in finding.said
    assert "coursewire rotate-keys" in finding.said


async def test_processes_that_hold_other_keys_are_told(settings, busy, services):
    await new_credential(services, "https://api.example/v1")
    names = services.encryptor.key_names
    async with AsyncExitStack() as stack:
        for name, held in (
            ("api a", names),
            ("api b", ("0" * 8, *names)),
            ("worker c", ("1" * 8,)),
        ):
            await stack.enter_async_context(services.processes.announced(Process(name, held)))
        await until_alive(services, 3)
        lacking, differing = (await examined(settings))["secrets"]
    assert (lacking.level, lacking.said.partition(" lack ")[0]) == ("fail", "worker c")
    assert (differing.level, differing.said.partition(" encrypt ")[0]) == (
        "warn",
        "api b, worker c",
    )
    assert (await examined(settings))["secrets"][0].level == "ok"


async def test_the_proxy_is_tried_with_its_credentials(settings, busy, unused_tcp_port):
    (finding,) = (await examined(settings))["egress"]
    assert (finding.level, finding.said) == ("ok", "no proxy, requests go out directly")
    proxy = ForwardProxy(login="user:the-secret")
    await proxy.listen()
    for url, level, said in (
        (proxy.url, "ok", f"http://127.0.0.1:{proxy.port} can be reached"),
        (proxy.url.replace("secret", "wrong-one"), "fail", "407"),
        (f"http://user:the-secret@127.0.0.1:{unused_tcp_port}", "fail", "cannot be reached"),
    ):
        proxied = msgspec.structs.replace(settings, egress_proxy=url)
        (finding,) = (await examined(proxied))["egress"]
        assert finding.level == level, finding
        assert said in finding.said
        assert "the-" not in finding.said
        assert "\n" not in finding.said
        assert level == "ok" or "COURSEWIRE_EGRESS_PROXY" in finding.said
    await proxy.stop()


async def test_a_sample_is_opened_unless_everything_is_asked_for(
    settings, busy, services, monkeypatch
):
    monkeypatch.setattr(doctor, "SAMPLE", 2)
    for _ in range(3):
        await new_credential(services, "https://api.example/v1")
    assert (await examined(settings))["secrets"][0].said.startswith("all 2 ")
    found = await examined(settings, everything=True)
    assert found["secrets"][0].said.startswith("all 3 ")


async def test_stuck_claims_and_endless_leases_are_failures(settings, busy, redis):
    await redis.zadd(keys.claimed("polls"), {"int_a": now_ms() - 120_000})
    await redis.zadd(keys.claimed("outboxes"), {"sub_a": now_ms() + 9_000})
    await redis.set(keys.lease("outboxes", "sub_a"), "token")
    said = [one.said for one in (await examined(settings))["leases"]]
    assert len(said) == 2
    assert "1 claims on integrations have expired" in said[0]
    assert keys.lease("outboxes", "sub_a") in said[1]


async def test_a_pause_is_warned_of_and_excuses_lapsed_claims(settings, busy, redis, services):
    await redis.zadd(keys.claimed("polls"), {"int_a": now_ms() - 120_000})
    await services.control.pause("polling")
    found = await examined(settings)
    assert [one.level for one in found["pauses"]] == ["warn"]
    assert "coursewire resume polling" in found["pauses"][0].said
    assert [one.level for one in found["leases"]] == ["ok"]


async def test_addresses_are_judged_by_what_the_running_processes_allow(settings, busy, services):
    credential = await new_credential(services, "http://10.1.2.3/v1")
    here = msgspec.structs.replace(settings, allowed_targets=("0.0.0.0/0",))
    wide, narrow = ("10.0.0.0/8",), ("192.0.2.0/24",)
    async with AsyncExitStack() as stack:
        for name, allowed in (("api a", wide), ("worker b", wide), ("scheduler c", narrow)):
            process = Process(name, services.encryptor.key_names, allowed)
            await stack.enter_async_context(services.processes.announced(process))
        await until_alive(services, 3)
        (finding,) = (await examined(here))["addresses"]
        assert (finding.level, finding.said) == ("ok", "1 addresses looked at, all allowed")
        process = Process("worker d", services.encryptor.key_names, narrow)
        await stack.enter_async_context(services.processes.announced(process))
        await until_alive(services, 4)
        (finding,) = (await examined(here))["addresses"]
    assert finding.level == "warn"
    assert finding.said.startswith(f"worker d cannot reach {credential}: ")
    (finding,) = (await examined(here))["addresses"]
    assert finding.level == "warn"
    assert "no API or worker runs, so this command's settings were judged" in finding.said


async def test_addresses_that_are_refused_and_a_guard_switched_off_are_warned_of(
    settings, busy, services
):
    credential = await new_credential(services, "http://10.1.2.3/v1")
    (finding,) = (await examined(settings))["addresses"]
    assert finding.level == "warn"
    assert credential in finding.said
    wide = msgspec.structs.replace(settings, allowed_targets=("0.0.0.0/0",))
    (finding,) = (await examined(wide))["addresses"]
    assert "switches the address guard off" in finding.said


@pytest.mark.parametrize(("apart", "level"), [(1_000, "ok"), (-10_000, "warn"), (120_000, "fail")])
async def test_a_clock_that_differs_is_told(settings, busy, monkeypatch, apart, level):
    theirs = Overview.now_ms

    async def shifted(self):
        return await theirs(self) + apart

    monkeypatch.setattr(Overview, "now_ms", shifted)
    (finding,) = (await examined(settings))["clock"]
    assert finding.level == level


@pytest.mark.parametrize(("limit", "level"), [("1gb", "ok"), ("1mb", "fail")])
async def test_memory_is_judged_by_its_limit(settings, busy, redis, limit, level):
    await redis.config_set("maxmemory", limit)
    try:
        (finding,) = (await examined(settings))["memory"]
    finally:
        await redis.config_set("maxmemory", 0)
    assert finding.level == level


@pytest.mark.parametrize(
    ("setting", "value", "check", "level"),
    [
        ("maxmemory-policy", "allkeys-lru", "eviction", "fail"),
        ("appendonly", "no", "persistence", "warn"),
    ],
)
async def test_a_server_that_may_lose_data_is_told(
    settings, busy, redis, setting, value, check, level
):
    before = await redis.config_get(setting)
    await redis.config_set(setting, value)
    try:
        (finding,) = (await examined(settings))[check]
    finally:
        await redis.config_set(setting, before[setting])
    assert finding.level == level


def test_the_exit_code_is_that_of_the_worst_finding(settings, tmp_path):
    given = Settings(data_dir=tmp_path)
    out = io.StringIO()
    assert doctor.diagnose(given, out, everything=False, as_json=True) == 2
    assert json.loads(out.getvalue())[0]["level"] == "fail"
    out = io.StringIO()
    assert doctor.diagnose(given, out, everything=False, as_json=False) == 2
    assert out.getvalue().startswith("fail")


async def test_what_up_keeps_completes_the_settings(tmp_path):
    from service.local.data_directory import completed_by_up

    (tmp_path / "admin-token").write_text("a" * 20 + "\n")
    (tmp_path / "redis-url").write_text("redis://127.0.0.1:1/0\n")
    completed = completed_by_up(Settings(data_dir=tmp_path))
    assert (completed.admin_token, completed.redis_url) == ("a" * 20, "redis://127.0.0.1:1/0")
    given = completed_by_up(Settings(data_dir=tmp_path, admin_token="b" * 20))
    assert given.admin_token == "b" * 20
    (tmp_path / "encryption-keys").mkdir()
    with pytest.raises(StartError, match="cannot be read"):
        completed_by_up(Settings(data_dir=tmp_path))
