"""A real API process on a real Valkey, from which nothing leaves this machine."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from tests.conftest import free_port

TOKEN = "admin-token-of-this-contract"


class Api:
    """The process, and where it answers."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.process = process
        self._log = log

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def await_ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"not ready within {seconds} s\n{self.log()}")


@pytest.fixture
def api(
    valkey_url: str, valkey_admin_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Api]:
    """`indirect` gives further settings."""
    with Redis.from_url(valkey_admin_url) as redis:
        redis.flushall()
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if "COURSEWIRE" not in name}
    environ |= {
        "COURSEWIRE_REDIS_URL": valkey_url,
        "COURSEWIRE_ADMIN_TOKEN": TOKEN,
        "COURSEWIRE_ENCRYPTION_KEYS": base64.urlsafe_b64encode(bytes(32)).decode(),
        "COURSEWIRE_PORT": str(port),
        "COURSEWIRE_ALLOWED_TARGETS": "127.0.0.0/8",
        "COURSEWIRE_LOG_FORMAT": "json",
        **getattr(request, "param", {}),
    }
    path = tmp_path / "api.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.walled"],
            env=environ,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    found = Api(port, process, path)
    try:
        found.await_ready()
        yield found
    finally:
        process.terminate()
        process.wait(40)
