"""`coursewire up` twice on one data directory: the second goes on where the first ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import free_port
from tests.e2e.conftest import SANDBOX_KEY, UPSTREAM_ID, Process, Subscriber, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

COURSEWIRE = [sys.executable, "-m", "service.cli"]


class Up(Process):
    """`coursewire up` on a data directory of its own."""

    def __init__(self, directory: Path, port: int) -> None:
        env = {name: value for name, value in os.environ.items() if "COURSEWIRE" not in name}
        env |= {
            "COURSEWIRE_DATA_DIR": str(directory / "data"),
            "COURSEWIRE_PORT": str(port),
            "COURSEWIRE_ALLOWED_TARGETS": "127.0.0.0/8",
        }
        super().__init__("up", [*COURSEWIRE, "up"], env, directory)
        self._token_file = directory / "data" / "admin-token"
        self._url = f"http://127.0.0.1:{port}"

    async def ready(self) -> httpx.AsyncClient:
        """Starts it and waits for the line to paste."""
        said = len(self.log())
        self.start(own_group=True)
        await until(
            lambda: "curl" in self.log()[said:], seconds=60, what=f"the line to paste\n{self.log()}"
        )
        token = self._token_file.read_text().strip()
        return httpx.AsyncClient(
            base_url=self._url, headers={"Authorization": f"Bearer {token}"}, timeout=20
        )


def descendants(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True
    ).stdout
    children: dict[int, list[int]] = {}
    for child, parent in (map(int, line.split()) for line in listed.splitlines()):
        children.setdefault(parent, []).append(child)
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]


async def test_a_signal_to_every_process_at_once_stops_them_in_their_order(tmp_path: Path):
    """As systemd does it by default, and here it does so twenty times."""
    up = Up(tmp_path, free_port())
    try:
        await (await up.ready()).aclose()
        others = descendants(up.pid)
        for _ in range(20):
            for pid in (up.pid, *others):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        assert up.stop() == 0  # which is one signal more
    finally:
        if up.running:
            up.kill()
    lines = [json.loads(line) for line in up.log().splitlines()]
    assert [one for one in lines if one["event"] in ("process killed", "process ended")] == []
    assert [one["recorded"] for one in lines if one["event"] == "worker stopped"] == [True]
    assert lines[-1]["event"] == "stopped"
    assert "Received SIGINT" in (tmp_path / "data/valkey/valkey.log").read_text()


async def test_a_second_up_repeats_and_loses_no_event(tmp_path: Path, subscriber: Subscriber):
    port = free_port()
    sandbox = Process(
        "sandbox",
        [
            *COURSEWIRE,
            *("sandbox", "--port", str(port), "--api-key", SANDBOX_KEY, "--quiet"),
            *("--integration", UPSTREAM_ID, "--courses", "300"),
        ],
        dict(os.environ),
        tmp_path,
    )
    sandbox.start()
    up = Up(tmp_path, free_port())
    try:
        async with await up.ready() as api:
            created = await api.post("/v1/subscriptions", json={"url": subscriber.url})
            subscriber.secret = created.json()["secret"]
            registered = await api.post(
                "/v1/integrations",
                json={
                    "name": "up",
                    "upstream_id": UPSTREAM_ID,
                    "base_url": f"http://127.0.0.1:{port}/v1",
                    "api_key": SANDBOX_KEY,
                    "baseline": "emit",
                },
            )
            assert registered.status_code == 201, registered.text
            await until(lambda: len(subscriber.received) >= 300, seconds=60, what="the baseline")
        assert up.stop() == 0
        lines = [json.loads(line) for line in up.log().splitlines()]
        (ready,) = (one for one in lines if one["event"] == "ready")
        assert ready["console"] == f"{ready['api']}/console"

        async with httpx.AsyncClient() as control:
            answer = await control.post(
                f"http://127.0.0.1:{port}/control/integrations/{UPSTREAM_ID}/changes",
                json=[{"op": "edit", "count": 20}],
            )
            changes = answer.json()
        async with await up.ready() as api:
            path = f"/v1/integrations/{registered.json()['id']}/polls"
            poll = (await api.post(path, json={"kind": "full"})).json()

            async def completed() -> bool:
                found = await api.get(f"{path}/{poll['id']}")
                return found.json()["state"] == "completed"

            await until(completed, seconds=60, what=f"the full poll\n{up.log()}")
            await until(lambda: len(subscriber.received) >= 320, seconds=60, what="the edits")

            async def drained() -> bool:
                found = await api.get(f"/v1/subscriptions/{created.json()['id']}")
                return found.json()["pending"] == 0

            await until(drained, seconds=30, what="an empty outbox")
        assert up.stop() == 0
    finally:
        sandbox.kill()
        if up.running:
            up.kill()
    assert len(subscriber.received) == 320
    assert subscriber.duplicates == 0
    assert {event["data"]["course_id"] for event in subscriber.received[300:]} == {
        change["course_id"] for change in changes
    }
    subscriber.check_order()
