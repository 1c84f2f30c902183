"""A running service, looked at and stopped with the command alone."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.e2e.conftest import until
from tests.e2e.test_up import COURSEWIRE, Up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def coursewire(env: dict[str, str], *arguments: str) -> tuple[int, str]:
    """The exit status of a command, and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *COURSEWIRE,
        *arguments,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_a_backup_of_a_running_service_is_restored_into_another_directory(tmp_path: Path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    ups = [Up(tmp_path / name, free_port()) for name in ("old", "new")]
    file = str(tmp_path / "backup")
    try:
        async with await ups[0].ready() as api:
            body = {"name": "a", "base_url": "https://a.example", "api_key": "the-key"}
            made = (await api.post("/v1/credentials", json=body)).json()
            code, output = await coursewire(ups[0].environment, "backup", file)
            assert code == 0, output
            await api.patch(f"/v1/credentials/{made['id']}", json={"name": "b"})
        code, output = await coursewire(ups[0].environment, "restore", file, "--replace")
        assert (code, output.count("\n")) == (1, 1)
        assert "is in use by process" in output
        assert ups[0].stop() == 0

        data = tmp_path / "new/data"
        data.mkdir()
        for name in ("admin-token", "encryption-keys"):
            shutil.copy(tmp_path / "old/data" / name, data)
        code, output = await coursewire(ups[1].environment, "restore", file)
        assert code == 0, output
        async with await ups[1].ready() as api:
            assert (await api.get(f"/v1/credentials/{made['id']}")).json()["name"] == "a"
            code, output = await coursewire(ups[1].environment, "doctor")
            assert code == 0, output
        assert ups[1].stop() == 0
    finally:
        for up in ups:
            if up.running:
                up.kill()


async def test_the_command_tells_how_a_service_is_and_pauses_it(tmp_path: Path):
    up = Up(tmp_path, free_port())

    try:
        async with await up.ready() as api:

            async def well() -> bool:
                return (await api.get("/v1/status")).json()["status"] == "ok"

            await until(well, seconds=30, what=f"a status of ok\n{up.log()}")
        code, output = await coursewire(up.environment, "doctor")
        assert code == 0, output
        assert (await coursewire(up.environment, "status"))[0] == 0
        assert (await coursewire(up.environment, "pause", "delivery"))[0] == 0
        code, output = await coursewire(up.environment, "status", "--json")
        assert code == 1
        assert json.loads(output)["paused"]["delivery"]
        code, output = await coursewire(up.environment, "doctor", "--json")
        assert code == 1
        warned = [one for one in json.loads(output) if one["level"] != "ok"]
        assert [one["check"] for one in warned] == ["pauses"]
        assert (await coursewire(up.environment, "resume"))[0] == 0
        assert (await coursewire(up.environment, "status"))[0] == 0
        assert up.stop() == 0
        assert (await coursewire(up.environment, "status"))[0] == 2
    finally:
        if up.running:
            up.kill()
