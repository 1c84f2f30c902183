"""The address that the API listens on: the image's health check, `up` and the commands reach it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.domain.errors import StartError
from service.domain.hosts import in_header, in_url, reachable
from service.local.embedded_valkey import free_port
from service.local.supervisor.api_address import check_port
from service.local.supervisor.supervisor import Supervisor
from service.settings import Settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
TOKEN = "t" * 32

HOSTS = ["127.0.0.1", "0.0.0.0", "::", "::1", "localhost"]


def healthcheck() -> list[str]:
    """The command of the image, by this interpreter."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    found = re.search(r"^HEALTHCHECK .*\\\n  CMD (\[.*\])$", dockerfile, re.MULTILINE)
    assert found
    python, *rest = json.loads(found[1])
    assert python == "python"
    return [sys.executable, *rest]


def environment(**settings: str) -> dict[str, str]:
    inherited = {
        name: text for name, text in os.environ.items() if not name.startswith("COURSEWIRE_")
    }
    return inherited | {f"COURSEWIRE_{name}": text for name, text in settings.items()}


def healthy(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        healthcheck(), env=env, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )


@contextmanager
def api(env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", "service.cli", "api"], env=env, cwd=ROOT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.parametrize("host", HOSTS)
def test_health_check_and_commands_follow_the_address_that_is_set(host, redis, valkey_url):
    env = environment(
        REDIS_URL=valkey_url,
        ADMIN_TOKEN=TOKEN,
        ENCRYPTION_KEYS=base64.urlsafe_b64encode(bytes(32)).decode(),
        HOST=host,
        PORT=str(free_port(host)),
    )
    # Requests of the health check never go through a proxy, whatever is set for others.
    env |= {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
    before = healthy(env)
    assert before.returncode == 1
    assert "/healthz does not answer" in before.stderr
    assert before.stderr.count("\n") == 1
    with api(env) as process:
        deadline = time.monotonic() + 60
        while (last := healthy(env)).returncode:
            assert process.poll() is None
            assert time.monotonic() < deadline, last.stderr
        asked = subprocess.run(
            [sys.executable, "-m", "service.cli", "status", "--json"],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert json.loads(asked.stdout)["redis"]["up"]


def test_the_health_check_names_settings_that_make_no_sense():
    for env, named in (
        (environment(PORT="0"), "COURSEWIRE_PORT is 0"),
        (environment(PORT="http"), "COURSEWIRE_PORT 'http' is not a whole number"),
        (environment(HOST="[::1]"), "without brackets"),
    ):
        found = healthy(env)
        assert found.returncode == 1
        assert found.stderr.count("\n") == 1
        assert named in found.stderr


@pytest.mark.parametrize(
    ("host", "reached", "url", "header"),
    [
        ("0.0.0.0", "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("::", "::1", "[::1]", "[::1]"),
        ("::1", "::1", "[::1]", "[::1]"),
        ("fe80::1%eth0", "fe80::1%eth0", "[fe80::1%25eth0]", "[fe80::1]"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.3", "10.1.2.3"),
        ("api.internal", "api.internal", "api.internal", "api.internal"),
    ],
)
def test_every_kind_of_host_is_written_as_it_has_to_be(tmp_path, host, reached, url, header):
    assert reachable(host) == reached
    assert in_url(reached) == url
    assert in_header(reached) == header
    settings = Settings(host=host, port=8000, data_dir=tmp_path)
    assert Supervisor(settings, sink=lambda _name, _line: None).api_url == f"http://{url}:8000"


@pytest.mark.parametrize("host", HOSTS)
def test_a_free_port_can_be_listened_on(host):
    check_port(host, free_port(host))


@pytest.mark.parametrize("host", ["::", "::1"])
def test_a_port_that_is_taken_is_taken_on_that_kind_of_address_alone(host):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        check_port(host, taken.getsockname()[1])
    with (
        socket.create_server((host, 0), family=socket.AF_INET6) as taken,
        pytest.raises(StartError, match="is in use"),
    ):
        check_port(host, taken.getsockname()[1])


def test_a_host_that_does_not_resolve_is_one_line():
    for find in (free_port, lambda host: check_port(host, 8000)):
        with pytest.raises(StartError, match=r"COURSEWIRE_HOST .nosuch\.invalid. does not resolve"):
            find("nosuch.invalid")
