"""One run of the demo, from the start of the processes to their end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Final

import httpx

from service.commands.demo.participants import (
    API_KEY,
    DELTA_SECONDS,
    FULL_SECONDS,
    UPSTREAM_ID,
    DemoFailedError,
    Service,
    Upstream,
)
from service.commands.demo.story import Story
from service.commands.demo.terminal import Terminal
from service.commands.listen.push import Push
from service.commands.listen.receiver import Listener, new_secret
from service.local.embedded_valkey import free_port
from service.local.supervisor.programs import Program
from service.local.supervisor.supervisor import Supervisor
from service.local.supervisor.up import console_url, curl_line

HOST: Final = "127.0.0.1"
COURSES: Final = 50

_CHANGE_EVERY: Final = 1.5
"""Seconds between changes if no number of events is set."""
_FASTEST: Final = 0.1
_SLOWEST: Final = 0.7
"""Minimum and maximum seconds between changes if a number of events is set."""
_LOOK_EVERY: Final = 0.1
"""Seconds between checks of a state that can only be requested."""
_REQUEST_SECONDS: Final = 10.0
_SANDBOX_STOP_ORDER: Final = 3  # after the workers that call it


def _sandbox(port: int) -> Program:
    """The stand-in upstream as one more child."""
    return Program(
        name="sandbox",
        argv=(
            *(sys.executable, "-m", "service.cli", "sandbox"),
            *("--host", HOST, "--port", str(port), "--api-key", API_KEY),
            *("--integration", UPSTREAM_ID, "--courses", str(COURSES)),
        ),
        stop_order=_SANDBOX_STOP_ORDER,
    )


async def _answering(upstream: Upstream) -> None:
    while True:
        with suppress(httpx.TransportError):
            await upstream.log(0)
            return
        await asyncio.sleep(_LOOK_EVERY)


class Performance:
    """One run, from the start of the processes to their end."""

    def __init__(
        self, supervisor: Supervisor, terminal: Terminal, log: Path, seconds: float
    ) -> None:
        self._supervisor = supervisor
        self._terminal = terminal
        self._log = log
        self._seconds = seconds
        self._waiting_for = "the service did not start"

    async def run(self, events: int | None) -> None:
        """Start everything, print changes and events, stop everything."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        deadline = begun + self._seconds
        inbox: asyncio.Queue[Push] = asyncio.Queue()
        secret = new_secret()
        self._terminal.say("Starting Valkey, API, worker, scheduler and a sandbox upstream ...")
        async with (
            Listener(secret, inbox.put_nowait) as listener,
            self._stopping(),
            httpx.AsyncClient(trust_env=False, timeout=_REQUEST_SECONDS) as client,
        ):
            try:
                async with asyncio.timeout_at(deadline):
                    upstream, service = await self._start(client, listener.url, secret)
                story = Story(self._terminal, upstream, service, inbox)
                async with asyncio.timeout_at(None if events is None else deadline):
                    await self._narrate(story, events, begun)
            except TimeoutError:
                raise DemoFailedError(f"within {self._seconds:g} s {self._waiting_for}") from None
            except httpx.HTTPError as error:
                raise DemoFailedError(
                    f"a request of the demo's own failed: {type(error).__name__} {error}"
                ) from error

    @asynccontextmanager
    async def _stopping(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._supervisor.stop()

    async def _start(
        self, client: httpx.AsyncClient, receiver: str, secret: str
    ) -> tuple[Upstream, Service]:
        await self._supervisor.start()
        port = free_port(HOST)
        self._supervisor.add(_sandbox(port))
        upstream = Upstream(client, f"http://{HOST}:{port}")
        await self._supervisor.ready()
        self._waiting_for = "the sandbox did not answer"
        await _answering(upstream)
        token = self._supervisor.settings.admin_token or ""
        service = Service(client, self._supervisor.api_url, token)
        self._introduce(upstream, receiver)
        await service.register(f"{upstream.url}/v1", receiver, secret)
        await self._baseline(service)
        return upstream, service

    def _introduce(self, upstream: Upstream, receiver: str) -> None:
        api = self._supervisor.api_url
        settings = self._supervisor.settings
        self._terminal.say()
        self._terminal.places(
            {
                **(
                    {"console": f"{console_url(self._supervisor)}#token={settings.admin_token}"}
                    if settings.console
                    else {}
                ),
                "API": f"{api}/v1",
                "docs": f"{api}/schema",
                "metrics": f"{api}/metrics",
                "token": str(self._supervisor.token_file),
                "sandbox": f"{upstream.url}/control/integrations",
                "receiver": receiver,
                "log": str(self._log),
                "try": curl_line(self._supervisor),
            }
        )

    async def _baseline(self, service: Service) -> None:
        while True:
            integration = await service.integration()
            error = integration["error"]
            self._waiting_for = (
                f"the baseline was not complete: the integration is {integration['state']}"
                f"{'' if error is None else ', ' + error['message']}"
            )
            if integration["state"] == "active":
                return
            if integration["state"] == "error":
                raise DemoFailedError(self._waiting_for)
            await asyncio.sleep(_LOOK_EVERY)

    async def _narrate(self, story: Story, events: int | None, begun: float) -> None:
        courses = await story.begin()
        self._terminal.say(
            f"{courses} courses are recorded, and now some of them change. A delta poll every "
            f"{DELTA_SECONDS} s\ndetects edits. A full poll every {FULL_SECONDS} s also detects "
            "changes of providers and\nskills, and missing courses. Ctrl-C ends the demo.\n"
        )
        every = _CHANGE_EVERY
        if events is not None:
            # Faster than necessary: some changes merge, and the start and the last full poll take
            # time.
            every = min(_SLOWEST, max(_FASTEST, self._seconds / events / 4))
        loop = asyncio.get_running_loop()
        due = loop.time()
        first: float | None = None
        try:
            while events is None or story.verified < events:
                self._waiting_for = f"{story.verified} of {events} events came"
                if loop.time() >= due:
                    due = loop.time() + every
                    await story.change()
                await story.look()
                if first is None and story.verified:
                    first = loop.time() - begun
            self._waiting_for = "pending events did not arrive"
            await story.settle()
        except asyncio.CancelledError:
            # After a signal, or at the end of the time: pending events are not waited for.
            self._summarise(story, first, "none at odds with")
            raise
        self._summarise(story, first, "in full agreement with")

    def _summarise(self, story: Story, first: float | None, relation: str) -> None:
        self._terminal.say(
            f"\n{story.verified} events verified, {relation} the {story.changes} changes in the "
            "sandbox's log."
        )
        if first is not None and story.latencies:
            self._terminal.say(
                f"The first came {first:.1f} s after the start; from change to verified push "
                f"took {median(story.latencies):.1f} s\nin the median, "
                f"{max(story.latencies):.1f} s at most."
            )
