"""The command line over the real API, in this process, on a real Valkey."""

from __future__ import annotations

import asyncio
import base64
import json

import httpx
import pytest
from click.testing import CliRunner, Result
from litestar.testing import TestClient
from structlog.testing import capture_logs

from service.app import create_app
from service.cli import coursewire
from service.settings import Settings

TOKEN = "admin-token-of-this-test"


class Cli:
    """Runs commands."""

    def __init__(self, transport) -> None:
        self._transport = transport

    def sync(self, *arguments: str, given: str = "") -> Result:
        return CliRunner().invoke(coursewire, arguments, input=given, obj=self._transport)

    async def __call__(self, *arguments: str, given: str = "") -> Result:
        """The outcome of a command that runs beside this loop."""
        return await asyncio.to_thread(self.sync, *arguments, given=given)

    async def json(self, *arguments: str, code: int = 0):
        """What a command prints that ends with `code`."""
        result = await self(*arguments)
        assert result.exit_code == code, (arguments, result.output, result.exception)
        return json.loads(result.stdout) if result.stdout else None


@pytest.fixture(scope="session")
def app(valkey_url):
    """The application, built once; each test opens services of its own in it."""
    settings = Settings.from_env(
        {
            "COURSEWIRE_REDIS_URL": valkey_url,
            "COURSEWIRE_ADMIN_TOKEN": TOKEN,
            "COURSEWIRE_ENCRYPTION_KEYS": base64.urlsafe_b64encode(bytes(32)).decode(),
            "COURSEWIRE_ALLOWED_TARGETS": "127.0.0.0/8",
        }
    )
    return create_app(settings)


@pytest.fixture
def cli(redis, app, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSEWIRE_ADMIN_TOKEN", TOKEN)
    monkeypatch.setenv("COURSEWIRE_DATA_DIR", str(tmp_path))
    # Its log is not what the commands print.
    with capture_logs(), TestClient(app) as client:
        transport = client._transport  # noqa: SLF001 - Litestar's, which a client of ours takes over
        yield Cli(httpx.MockTransport(transport.handle_request))
