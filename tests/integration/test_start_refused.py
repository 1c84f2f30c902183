from __future__ import annotations

import base64
import os
import subprocess
import sys

import pytest
from redis import Redis

from service.embedded import free_port

PARTS = {
    "api": ["service.cli", "api"],
    "worker": ["workers.worker"],
    "scheduler": ["workers.scheduler"],
    "up": ["service.cli", "up"],
}


@pytest.fixture
def evicting(valkey_url):
    """The server, evicting what it likes when its memory is full."""
    with Redis.from_url(valkey_url) as redis:
        redis.config_set("maxmemory-policy", "allkeys-lru")
        yield valkey_url
        redis.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize("part", PARTS)
def test_no_part_starts_with_authorities_that_cannot_be_read(part, valkey_url, tmp_path):
    broken = tmp_path / "authorities.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    last = refusal(part, valkey_url, tmp_path, COURSEWIRE_CA_FILE=str(broken))
    assert f"COURSEWIRE_CA_FILE names {str(broken)!r}, which has a broken certificate" in last
    assert "replace it" in last


@pytest.mark.parametrize("part", PARTS)
def test_no_part_starts_on_a_server_that_evicts(part, evicting, tmp_path):
    last = refusal(part, evicting, tmp_path)
    assert "evicts by allkeys-lru" in last
    assert "maxmemory-policy noeviction" in last


def refusal(part, redis_url, tmp_path, **settings):
    """The one line that a part which does not start ends with."""
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("COURSEWIRE_")},
        "COURSEWIRE_REDIS_URL": redis_url,
        "COURSEWIRE_DATA_DIR": str(tmp_path / "data"),
        "COURSEWIRE_ADMIN_TOKEN": "t" * 32,
        "COURSEWIRE_ENCRYPTION_KEYS": base64.urlsafe_b64encode(bytes(32)).decode(),
        "COURSEWIRE_PORT": str(free_port("127.0.0.1")),
        **settings,
    }
    ended = subprocess.run(
        [sys.executable, "-m", *PARTS[part]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode in (1, 2)
    assert "Traceback" not in ended.stderr + ended.stdout
    return (ended.stderr.strip() or ended.stdout.strip()).splitlines()[-1]
