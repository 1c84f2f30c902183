"""A running service, looked at and stopped with the command alone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.e2e.conftest import until
from tests.e2e.test_up import COURSEWIRE, Up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def test_the_command_tells_how_a_service_is_and_pauses_it(tmp_path: Path):
    up = Up(tmp_path, free_port())

    async def coursewire(*arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *COURSEWIRE, *arguments, env=up._env, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    try:
        async with await up.ready() as api:

            async def well() -> bool:
                return (await api.get("/v1/status")).json()["status"] == "ok"

            await until(well, seconds=30, what=f"a status of ok\n{up.log()}")
        code, output = await coursewire("doctor")
        assert code == 0, output
        assert (await coursewire("status"))[0] == 0
        assert (await coursewire("pause", "delivery"))[0] == 0
        code, output = await coursewire("status", "--json")
        assert code == 1
        assert json.loads(output)["paused"]["delivery"]
        code, output = await coursewire("doctor", "--json")
        assert code == 1
        warned = [one for one in json.loads(output) if one["level"] != "ok"]
        assert [one["check"] for one in warned] == ["pauses"]
        assert (await coursewire("resume"))[0] == 0
        assert (await coursewire("status"))[0] == 0
        assert up.stop() == 0
        assert (await coursewire("status"))[0] == 2
    finally:
        if up.running:
            up.kill()
