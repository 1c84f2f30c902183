from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from service.local.embedded_valkey import free_port

pytestmark = pytest.mark.slow

KEYS = base64.urlsafe_b64encode(bytes(32)).decode()
PARTS = {
    "api": ["service.cli", "api"],
    "worker": ["workers.worker"],
    "scheduler": ["workers.scheduler"],
    "up": ["service.cli", "up"],
}


@pytest.fixture
def evicting(valkey_url, valkey_admin_url):
    """The server, evicting what it likes when its memory is full."""
    with Redis.from_url(valkey_admin_url) as redis:
        redis.flushall()
        redis.config_set("maxmemory-policy", "allkeys-lru")
        yield valkey_url
        redis.config_set("maxmemory-policy", "noeviction")


@pytest.fixture
def unprivileged(valkey_admin_url):
    """The server, for a user that may do anything but what is dangerous: no INFO, for one."""
    with Redis.from_url(valkey_admin_url) as redis:
        redis.execute_command(
            "ACL SETUSER", "some", "reset", "on", ">hush", "~*", "&*", "+@all", "-@dangerous"
        )
        yield valkey_admin_url.replace("://", "://some:hush@")
        redis.acl_deluser("some")


def environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    inherited = {name: text for name, text in os.environ.items() if "COURSEWIRE" not in name}
    given = {
        "DATA_DIR": str(tmp_path / "data"),
        "ADMIN_TOKEN": "t" * 32,
        "ENCRYPTION_KEYS": KEYS,
        "PORT": str(free_port("127.0.0.1")),
        **settings,
    }
    return inherited | {f"COURSEWIRE_{name}": text for name, text in given.items()}


def run(arguments: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refusal(arguments: list[str], env: dict[str, str]) -> str:
    """The one line with which a part or a command ends."""
    ended = run(arguments, env)
    assert ended.returncode in (1, 2)
    assert "Traceback" not in ended.stderr + ended.stdout
    assert "hush" not in ended.stderr + ended.stdout
    last = (ended.stderr.strip() or ended.stdout.strip()).splitlines()[-1]
    assert last.startswith("coursewire: ")
    return last


@pytest.mark.parametrize("part", PARTS)
def test_no_part_starts_on_a_server_that_evicts(part, evicting, tmp_path):
    last = refusal(PARTS[part], environment(tmp_path, REDIS_URL=evicting))
    assert "evicts by allkeys-lru" in last
    assert "maxmemory-policy noeviction" in last


@pytest.mark.parametrize("part", PARTS)
def test_no_part_starts_without_the_rights_that_it_needs(part, unprivileged, tmp_path):
    last = refusal(PARTS[part], environment(tmp_path, REDIS_URL=unprivileged))
    assert "does not grant the user 'some' the command INFO; run ACL SETUSER some +info" in last


def test_doctor_says_the_same(unprivileged, tmp_path):
    found = run(["service.cli", "doctor"], environment(tmp_path, REDIS_URL=unprivileged))
    assert found.returncode == 2
    said = found.stdout.splitlines()[-1]
    assert said.split()[:2] == ["fail", "redis"]
    assert "the command INFO; run ACL SETUSER some +info" in said


COMMANDS = PARTS | {
    name: ["service.cli", *name.split()]
    for name in ("doctor", "rotate-keys", "status", "pause", "api-key list")
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_part_and_command_names_all_that_is_wrong_with_its_settings(command, tmp_path):
    url = "redis://:hush@127.0.0.1:1/0?decode_responses=true"
    ended = run(
        COMMANDS[command],
        environment(tmp_path, REDIS_URL=url, METRICS_TOKEN_FILE="/no/token")
        | {"SSL_CERT_FILE": "/no/ca.pem"},
    )
    assert ended.returncode == 2
    first, *said = ended.stderr.splitlines()
    assert first == "coursewire: 3 settings cannot be used:"
    assert [line.split()[:3] for line in said] == [
        ["COURSEWIRE_REDIS_URL", "has", "the"],
        ["COURSEWIRE_METRICS_TOKEN_FILE", "names", "/no/token,"],
        ["SSL_CERT_FILE", "names", "'/no/ca.pem',"],
    ]
    assert "hush" not in ended.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_part_and_command_reads_secrets_from_files(command, evicting, tmp_path):
    """They come as far as the server, or to asking an API that is not there."""
    env = environment(tmp_path)
    for name, text in (
        ("REDIS_URL", evicting),
        ("ADMIN_TOKEN", "t" * 32),
        ("ENCRYPTION_KEYS", KEYS),
    ):
        file = tmp_path / name.lower()
        file.write_text(f"{text}\n")
        env.pop(f"COURSEWIRE_{name}", None)
        env[f"COURSEWIRE_{name}_FILE"] = str(file)
    ended = run(COMMANDS[command], env)
    if command == "rotate-keys":
        assert ended.returncode == 0, ended.stderr
    elif command == "doctor":
        assert "evicts by allkeys-lru" in ended.stdout
    else:
        told = "evicts by allkeys-lru" if command in PARTS else "does not answer"
        assert told in (ended.stderr.strip() or ended.stdout.strip()).splitlines()[-1]


@pytest.mark.parametrize("part", PARTS)
def test_no_part_starts_with_authorities_that_cannot_be_read(part, valkey_url, tmp_path):
    broken = tmp_path / "authorities.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    last = refusal(PARTS[part], environment(tmp_path, REDIS_URL=valkey_url, CA_FILE=str(broken)))
    assert f"COURSEWIRE_CA_FILE names {str(broken)!r}, which has a broken certificate" in last
    assert "replace it" in last
