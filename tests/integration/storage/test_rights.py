"""What the service needs of Redis is tried at the start, by `doctor` and by /readyz, on real
servers with real users; and the tests run under a user that may do that and nothing else."""

from __future__ import annotations

import base64
import re
import shlex
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from litestar.testing import AsyncTestClient
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from structlog.testing import capture_logs

from service.app import create_app
from service.commands.doctor import run as doctor
from service.domain.errors import RedisRefusedError
from service.local.embedded_valkey import binary_path
from service.local.supervisor.outside_redis import redis_fault
from service.settings import Settings
from service.storage.redis import rights
from service.storage.redis.client import open_async, open_sync
from service.storage.redis.rights import COMMANDS, WELCOME, Rights, acl_rules
from service.storage.redis.server_info import check_server
from tests.conftest import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
KEY = base64.urlsafe_b64encode(bytes(32)).decode()
PASSWORD = "hush"
ALL = ("~*", "&*", "+@all")

Grant = Callable[..., str]


@pytest.fixture
def admin(valkey_admin_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_admin_url) as admin:
        admin.flushall()
        yield admin


@pytest.fixture
def grant(admin: Redis, valkey_admin_url: str) -> Iterator[Grant]:
    """Makes a user with these rules, or gives them to the one that was made, and returns the
    address of the server for that user."""

    def grant(*rules: str) -> str:
        admin.execute_command("ACL SETUSER", "other", "reset", "on", f">{PASSWORD}", *rules)
        return valkey_admin_url.replace("://", f"://other:{PASSWORD}@")

    yield grant
    admin.acl_deluser("other")


@contextmanager
def server(directory: Path, *options: str) -> Iterator[str]:
    """A server of its own with these options; its address."""
    port = free_port()
    binary = str(binary_path())
    process = subprocess.Popen(
        [
            binary,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(directory),
            "--save",
            "",
            *options,
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        with Redis(port=port, retry=Retry(ConstantBackoff(0.05), 200)) as client:
            client.client_id()
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


async def fault(url: str) -> str | None:
    redis = open_async(url)
    try:
        found = await Rights(redis).fault()
    finally:
        await redis.aclose()
    assert found is None or ("\n" not in found and PASSWORD not in found)
    return found


async def everywhere(url: str) -> str:
    """What is said of the server by the check of each start, by `doctor` and by `up`, which must
    be the same."""
    found = await fault(url)
    assert found is not None
    with pytest.raises(RedisRefusedError) as caught:
        await check_server(url)
    assert str(caught.value) == found
    assert await redis_fault(url) == found or "refuses us" in str(await redis_fault(url))
    settings = Settings(redis_url=url, admin_token="t" * 32, encryption_keys=(bytes(32),))
    findings = await doctor.examine(settings)
    assert [one.check for one in findings] == ["settings", "redis"]
    assert (findings[1].level, findings[1].said) == ("fail", found)
    return found


async def test_the_smallest_user_has_all_that_is_needed(grant, admin):
    admin.acl_log_reset()
    assert await fault(grant(*acl_rules())) is None
    assert await fault(grant(*ALL)) is None
    assert admin.acl_log() == []
    assert admin.dbsize() == 0  # nothing was written


async def test_every_command_is_tried(grant):
    for command in COMMANDS:
        found = await fault(grant(*ALL, f"-{command}"))
        assert found is not None, command
        assert command.replace("|", " ").upper() in found
        assert f"run ACL SETUSER other +{command}, and write the same into its ACL file" in found


async def test_what_is_only_welcome_is_not_insisted_on(grant):
    assert await fault(grant(*ALL, *(f"-{command}" for command in WELCOME))) is None


LACKING = {
    "dangerous": ((*ALL, "-@dangerous"), "the command INFO; run ACL SETUSER other +info, "),
    "scripting": (
        (*ALL, "-@scripting"),
        "the commands EVAL, EVALSHA; run ACL SETUSER other +eval +evalsha, ",
    ),
    "writing": ((*ALL, "-@write"), " SET, "),
    "blocking": ((*ALL, "-@blocking"), "BLMOVE"),
    "transactions": ((*ALL, "-@transaction"), "MULTI"),
    "connection": ((*ALL, "-@connection"), "CLIENT SETNAME; run ACL SETUSER other +client|setname"),
    "rq": (("+@all", "~cw:*"), "the keys rq:*; run ACL SETUSER other ~rq:*, "),
    "ours": (("+@all", "~rq:*"), "the keys cw:*; run ACL SETUSER other ~cw:*, "),
    "queues": (("+@all", "~cw:*", "~rq:queue:*"), "the keys "),
    "due": (("+@all", "~rq:*", "~cw:probe", "~cw:events"), "the keys "),
    "reading": (("+@all", "%R~cw:*", "~rq:*"), "the keys cw:*; run ACL SETUSER other ~cw:*, "),
    "no keys": (("+@all",), "the keys cw:* and rq:*; run ACL SETUSER other ~cw:* ~rq:*, "),
    "nothing": ((), "CLIENT SETNAME"),
}


@pytest.mark.parametrize(("rules", "named"), LACKING.values(), ids=LACKING)
async def test_a_user_that_lacks_something_is_refused_by_name_with_the_remedy(grant, rules, named):
    found = await everywhere(grant(*rules))
    assert found.startswith("Redis does not grant the user 'other' ")
    assert named in found


async def test_a_user_that_may_not_log_in_is_refused(grant, admin):
    url = grant(*ALL)
    assert "the user or the password" in await everywhere(url.replace("hush", "hus"))
    admin.execute_command("ACL SETUSER", "other", "off")
    assert "the user or the password" in await everywhere(url)


async def test_a_database_that_is_not_there_or_not_granted_is_refused(grant):
    url = grant(*ALL).removesuffix("0")
    assert "no database of the number in COURSEWIRE_REDIS_URL" in await everywhere(f"{url}99")
    assert await fault(f"{url}3") is None
    url = grant(*ALL, "-select").removesuffix("0")
    assert "the command SELECT" in await everywhere(f"{url}3")
    url = grant("~*", "+@all", "resetdbs", "db=3").removesuffix("0")
    assert await fault(f"{url}3") is None
    assert "the database in COURSEWIRE_REDIS_URL" in await everywhere(f"{url}0")


@pytest.mark.parametrize("slots", [False, True])
async def test_a_server_in_cluster_mode_is_refused(tmp_path, slots):
    with server(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as url:
        if slots:
            with Redis.from_url(url, retry=Retry(ConstantBackoff(0.05), 200)) as redis:
                redis.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
                while redis.cluster("INFO")["cluster_state"] != "ok":
                    pass
        assert "cluster mode, which is not supported" in await everywhere(url)


@pytest.mark.parametrize("command", ["INFO", "EVAL", "MULTI", "BLMOVE", "XADD"])
async def test_a_command_that_was_renamed_is_named(tmp_path, command):
    with server(tmp_path, "--rename-command", command, "") as url:
        assert f"Redis does not know {command}" in await everywhere(url)


async def test_a_server_whose_scripts_lack_a_library_is_refused(grant, monkeypatch):
    script = "local cmsgpack = nil return cmsgpack.unpack(ARGV[1])"
    sent = [(name, (script, "0") if name == "eval" else given) for name, given in rights.SENT]
    monkeypatch.setattr(rights, "SENT", tuple(sent))
    found = await everywhere(grant(*acl_rules()))
    assert found.startswith("Redis runs scripts without the library cmsgpack (")


async def test_a_replica_is_waited_for_and_said(tmp_path):
    with server(tmp_path, "--replicaof", "127.0.0.1", "1") as url:
        assert await fault(url) is None
        with capture_logs() as logs:
            await check_server(url)
        assert logs[0]["event"] == "Redis does not accept writes"
        assert "read-only replica" in str(await redis_fault(url))


@pytest.mark.parametrize(
    ("option", "trouble", "well", "reason"),
    [
        ("min-replicas-to-write", 1, 0, "fewer replicas keep up"),
        ("maxmemory", 1, 0, "of its memory limit"),
    ],
)
async def test_readiness_and_status_do_not_take_trouble_for_a_refusal(
    client, admin, option, trouble, well, reason
):
    admin.config_set(option, trouble)
    try:
        assert (await client.get("/readyz")).status_code == 200
        status = (await client.get("/v1/status")).json()
        assert status["status"] == "degraded"
        assert any(reason in one for one in status["reasons"])
    finally:
        admin.config_set(option, well)


async def test_a_full_server_is_not_mistaken_for_one_that_refuses(grant, admin):
    url = grant(*acl_rules())
    admin.config_set("maxmemory", 1)
    try:
        assert await fault(url) is None
    finally:
        admin.config_set("maxmemory", 0)


# --- while the service runs --------------------------------------------------------------------


@pytest.fixture
async def client(grant, monkeypatch) -> AsyncIterator[AsyncTestClient]:
    monkeypatch.setattr(rights, "RECHECK_SECONDS", 0.0)
    monkeypatch.setattr(rights, "RECHECK_REFUSED_SECONDS", 0.0)
    settings = Settings.from_env(
        {
            "COURSEWIRE_REDIS_URL": grant(*acl_rules()),
            "COURSEWIRE_ADMIN_TOKEN": "t" * 32,
            "COURSEWIRE_ENCRYPTION_KEYS": KEY,
        }
    )
    async with AsyncTestClient(create_app(settings)) as client:
        client.headers["authorization"] = f"Bearer {'t' * 32}"
        yield client


CHANGES = {
    "-evalsha": "+evalsha",
    "-info": "+info",
    "-@write": " SET, ",
    "resetkeys": "~cw:* ~rq:*",
    "-blmove": "+blmove",
}


@pytest.mark.parametrize(("change", "named"), CHANGES.items(), ids=CHANGES)
async def test_readiness_and_status_follow_the_acl(client, grant, change, named):
    assert (await client.get("/readyz")).status_code == 200
    grant(*acl_rules(), change)
    for _ in range(2):
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert named in answer.json()["detail"]
    status = (await client.get("/v1/status")).json()
    assert status["status"] == "down"
    assert named in status["reasons"][0]
    assert (await client.get("/healthz")).status_code == 200
    grant(*acl_rules())
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.get("/v1/status")).json()["status"] != "down"


async def test_a_request_that_is_refused_is_a_problem_of_the_storage(client, grant):
    grant(*acl_rules(), "-zrange", "-zrevrange", "-evalsha", "-eval")
    answer = await client.post("/v1/subscriptions", json={"url": "https://r.example"})
    assert answer.status_code == 503
    assert "coursewire doctor" in answer.json()["detail"]


async def test_a_user_that_is_gone_is_said_so(client, admin, grant):
    assert (await client.get("/readyz")).status_code == 200
    admin.acl_deluser("other")
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert "the user or the password" in answer.json()["detail"]
    grant(*acl_rules())
    assert (await client.get("/readyz")).status_code == 200


async def test_the_server_is_asked_now_and_then_and_not_by_every_probe(valkey_url, admin):
    def tried() -> int:
        return admin.info("commandstats")["cmdstat_multi"]["calls"]

    redis: AsyncRedis = open_async(valkey_url)
    try:
        known, before = Rights(redis), tried()
        for _ in range(20):
            await known.check()
        assert tried() - before == 2
    finally:
        await redis.aclose()


def test_every_command_of_a_script_is_declared():
    texts = [path.read_text() for path in (ROOT / "service/storage").rglob("*.lua")]
    called = {name.lower() for text in texts for name in re.findall(r"call\(\s*'(\w+)'", text)}
    assert len(called) > 30
    assert called <= set(COMMANDS)


# --- what is declared ---------------------------------------------------------------------------


def test_the_documented_user_is_the_one_that_the_tests_run_under():
    documented = (ROOT / "docs/operations/redis.md").read_text()
    begin = documented.index("redis-cli ACL SETUSER coursewire ")
    words = shlex.split(documented[begin : documented.index("```", begin)].replace("\\\n", ""))
    assert words[:6] == ["redis-cli", "ACL", "SETUSER", "coursewire", "on", ">PASSWORD"]
    assert tuple(words[6:]) == acl_rules()


def test_the_tests_run_under_it(admin, valkey_url):
    with closing(open_sync(valkey_url)) as redis:
        own = str(redis.client_id())
        (name,) = {one["user"] for one in admin.client_list() if one["id"] == own}
    granted = admin.acl_getuser(name)
    assert set(granted["commands"]) == {rule for rule in acl_rules() if rule.startswith("+")}
    assert granted["keys"] == [rule for rule in acl_rules() if rule.startswith("~")]
