"""The `coursewire api-key` command against a real API process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import httpx
import pytest

from tests.integration.delivery.test_pull import TOKEN, start_api

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(valkey_url):
    process, url = start_api(valkey_url)
    yield url
    process.terminate()
    process.wait()


@pytest.fixture
def api_key(url, redis, tmp_path):
    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "service.cli", "api-key", *arguments],
            env={
                **os.environ,
                "COURSEWIRE_ADMIN_TOKEN": TOKEN,
                "COURSEWIRE_DATA_DIR": str(tmp_path),
                "COURSEWIRE_PORT": url.rpartition(":")[2],
                **environ,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def status(url: str, token: str) -> int:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.get(f"{url}/v1/subscriptions", headers=headers).status_code


def test_a_key_is_created_listed_and_revoked(api_key, url):
    made = api_key("create", "--name", "tenant a", "--scope", "subscriber", "--label", "tenant=a")
    assert made.returncode == 0, made.stderr
    assert "not shown again" in made.stderr
    key_id, token = (json.loads(made.stdout)[name] for name in ("id", "token"))
    assert status(url, token) == 200
    listed = api_key("list").stdout
    assert all(part in listed for part in (key_id, "subscriber", '"tenant": "a"', "tenant a"))
    assert token not in listed
    rotated = api_key("rotate", key_id, "--get", "token").stdout.strip()
    assert (status(url, token), status(url, rotated)) == (401, 200)
    assert api_key("revoke", key_id).returncode == 2  # nobody can be asked
    assert status(url, rotated) == 200
    assert api_key("revoke", key_id, "--yes").returncode == 0
    assert status(url, rotated) == 401
    assert json.loads(api_key("list").stdout)["items"] == []


def test_the_token_that_up_made_is_found(api_key, tmp_path):
    unset = {"COURSEWIRE_ADMIN_TOKEN": ""}
    failed = api_key("list", **unset)
    assert failed.returncode == 2  # as wherever a setting is at fault
    assert "COURSEWIRE_ADMIN_TOKEN" in failed.stderr
    (tmp_path / "admin-token").write_text(f"{TOKEN}\n")
    assert api_key("list", **unset).returncode == 0


def test_what_is_wrong_is_said_with_the_request_and_no_traceback(api_key):
    for arguments, *said in (
        (
            ("create", "--name", "a", "--scope", "subscriber"),
            "coursewire: Invalid fields",
            "  integration_ids is required: ",
            "  request id: req_",
        ),
        (
            ("revoke", "key_x", "--yes"),
            "coursewire: Not found: there is no API key key_x",
            "  request id: req_",
        ),
        (
            ("--url", "http://127.0.0.1:9", "list"),
            "coursewire: http://127.0.0.1:9 does not answer",
        ),
    ):
        failed = api_key(*arguments)
        assert (failed.returncode, failed.stdout) == (1, "")
        lines = failed.stderr.splitlines()
        assert all(line.startswith(part) for line, part in zip(lines, said, strict=True)), lines


def test_help_needs_no_service_and_no_token(api_key):
    shown = api_key("create", "--help", COURSEWIRE_ADMIN_TOKEN="")
    assert (shown.returncode, shown.stderr) == (0, "")
