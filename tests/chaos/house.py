"""The house with two workers, whose processes may be frozen, cut off their memory, or misled."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.chaos.history import State, content_of
from tests.chaos.mangling import ForeignIds
from tests.e2e.conftest import House, until

ROOT = Path(__file__).parents[2]
WORKERS = ("worker-1", "worker-2")
SAMPLED = 0.2  # seconds between looks at how long the append-only file is


class ChaosHouse(House):
    """Every process of the service, two workers among them, and several integrations."""

    def __init__(self, directory: Path, integrations: list[str], courses: int) -> None:
        super().__init__(directory, courses)
        worker = self.processes.pop("worker")
        sandbox = self.processes["sandbox"]
        at = sandbox.argv.index("--integration")
        named = [part for one in integrations for part in ("--integration", one)]
        sandbox.argv[at : at + 2] = named
        # Rewriting the file would take away what is cut off it.
        self.processes["valkey"].argv += ["--auto-aof-rewrite-percentage", "0"]
        for name in WORKERS:
            self.processes[name] = worker.like(name, PYTHONPATH=str(ROOT))
        # One takes over what it held when it was killed, the leases of the other run out.
        named_worker = self.processes[WORKERS[0]]
        self.processes[WORKERS[0]] = named_worker.like(WORKERS[0], COURSEWIRE_INSTANCE=WORKERS[0])
        self.integrations = integrations
        self.ids: dict[str, str] = {}  # of integrations, by their ids at the upstream
        self.foreign = ForeignIds()  # of courses, as the upstream before the sandbox shows them
        self._sizes: deque[tuple[float, int]] = deque(maxlen=100)

    async def close(self) -> None:
        for process in self.processes.values():
            if process.running:
                process.kill()
        await self.api.aclose()
        await self.sandbox.aclose()

    # --- processes ---------------------------------------------------------------------------

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, number: signal.Signals) -> None:
        process = self.processes[name]
        if process.running:
            process.send(number)

    def mislead(self, name: str, offset: float) -> None:
        """Has a process that is not running start with a clock that is so many seconds off."""
        self.processes[name].argv = (
            [sys.executable, "-m", "tests.chaos.skewed", str(offset), "worker"]
            if offset
            else [sys.executable, "-m", "service.cli", "worker"]
        )

    async def watch_file(self) -> None:
        """Notes how long the append-only file was when, until cancelled."""
        while True:
            self._sizes.append((time.monotonic(), self.append_only_size()))
            await asyncio.sleep(SAMPLED)

    def forget(self, seconds: float) -> None:
        """Takes from the file what was written in the last seconds. The server is not running."""
        then = time.monotonic() - seconds
        sizes = [size for at, size in self._sizes if at <= then]
        if sizes:  # the server may have shortened it since, as what was cut within a command
            self.cut_append_only_file(min(sizes[-1], self.append_only_size()))
        self._sizes.clear()

    # --- the upstream ------------------------------------------------------------------------

    async def all_states(self, upstream_id: str) -> list[State]:
        """How all courses of an integration are now."""
        at = time.monotonic()
        path = f"/control/integrations/{upstream_id}/courses"
        listed = (await self.sandbox.get(path)).json()
        return await self._states(upstream_id, [one["id"] for one in listed], at)

    async def altered(self, upstream_id: str, *changes: dict[str, Any]) -> list[State]:
        """Has courses changed, if these changes can be made, and returns how they are then."""
        at = time.monotonic()
        path = f"/control/integrations/{upstream_id}/changes"
        for change in changes:
            if "course_id" in change:
                change["course_id"] = self.foreign.real(change["course_id"])
        answer = await self.sandbox.post(path, json=list(changes))
        made = answer.json() if answer.status_code == 200 else answer.json()["extra"]["applied"]
        ids = dict.fromkeys(change["course_id"] for change in made)
        return await self._states(upstream_id, ids, at)

    async def _states(self, upstream_id: str, ids: Iterable[str], at: float) -> list[State]:
        limit = asyncio.Semaphore(8)

        async def read(course_id: str) -> State:
            async with limit:
                content = await self._content(upstream_id, course_id)
            return State(upstream_id, self.foreign.of(course_id), at, content)

        return await asyncio.gather(*map(read, ids))

    async def _content(self, upstream_id: str, course_id: str) -> str | None:
        path = f"/control/integrations/{upstream_id}/courses/{course_id}"
        answer = await self.sandbox.get(path)
        if answer.status_code != 200:
            return None
        return content_of(json.loads(self.foreign.give(answer.content)))

    async def polled(self, upstream_id: str, kind: str, seconds: float) -> None:
        """Waits until a poll that is asked for now has completed."""
        path = f"/v1/integrations/{self.ids[upstream_id]}/polls"

        async def asked() -> Any:
            poll = await self.attempt("POST", path, json={"kind": kind})
            if poll is None:
                return None

            async def ended() -> Any:
                found = await self.attempt("GET", f"{path}/{poll['id']}")
                return found if found and found["state"] in ("completed", "failed") else None

            found = await until(ended, seconds=seconds, what=f"the end of {poll}\n{self.logs()}")
            return found["state"] == "completed"

        await until(asked, seconds=seconds, what=f"a complete {kind} of {upstream_id}")
