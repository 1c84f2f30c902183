"""The sandbox as a Litestar application: the endpoint under `/v1`, its controls beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from litestar import Litestar, asgi
from litestar.datastructures import State
from litestar.di import Provide

from service.sandbox.catalogue import Catalogue
from service.sandbox.churn import Churn
from service.sandbox.clock import Clock
from service.sandbox.config import SandboxConfig
from service.sandbox.control import (
    ChurnControl,
    ClockControl,
    FaultControl,
    IntegrationControl,
    RateLimitControl,
    Sandbox,
    ServedControl,
)
from service.sandbox.endpoint import Endpoint, Incoming, Served
from service.sandbox.travel import Answer, pieces

if TYPE_CHECKING:
    from litestar.types import Receive, Scope, Send

COURSES_PATH: Final = "/v1/lms/courses"

logger = logging.getLogger("coursewire.sandbox")


def wall_clock() -> int:
    """The ms since 1970."""
    return time.time_ns() // 1_000_000


def make_sandbox(config: SandboxConfig, clock: Callable[[], int] = wall_clock) -> Sandbox:
    """The parts that an application serves; `clock` returns the ms since 1970."""
    endpoint = Endpoint(
        api_key=config.api_key,
        rate_limit_per_minute=config.rate_limit_per_minute,
        seed=config.seed,
    )
    for upstream_id in config.integrations:
        endpoint.catalogues[upstream_id] = Catalogue(
            upstream_id, courses=config.courses, seed=config.seed
        )
    dated = Clock(clock)
    churn = Churn(endpoint.catalogues, dated, per_second=config.churn_per_second, seed=config.seed)
    access_log = None if config.access_log is None else Path(config.access_log)
    return Sandbox(endpoint, churn, dated, access_log)


def create_sandbox(config: SandboxConfig, *, clock: Callable[[], int] = wall_clock) -> Litestar:
    """The application that `config` describes. It serves what `state.sandbox` is at its start."""
    return Litestar(
        [
            _list_courses,
            IntegrationControl,
            ServedControl,
            FaultControl,
            ChurnControl,
            ClockControl,
            RateLimitControl,
        ],
        state=State({"sandbox": make_sandbox(config, clock)}, deep_copy=False),
        dependencies={"sandbox": Provide(_sandbox_of, sync_to_thread=False)},
        lifespan=[_churning],
        openapi_config=None,
        logging_config=None,
    )


def _sandbox_of(state: State) -> Sandbox:
    sandbox: Sandbox = state.sandbox
    return sandbox


@contextlib.asynccontextmanager
async def _churning(app: Litestar) -> AsyncIterator[None]:
    task = asyncio.create_task(_sandbox_of(app.state).churn.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@asgi(COURSES_PATH, copy_scope=True)
async def _list_courses(scope: Scope, receive: Receive, send: Send) -> None:
    sandbox = _sandbox_of(scope["litestar_app"].state)
    clock = sandbox.clock
    answer, served = sandbox.endpoint.answer(_incoming(scope), clock.now(), clock.skew)
    _log(served, sandbox.access_log)
    await _send(answer, receive, send)


def _incoming(scope: Scope) -> Incoming:
    return Incoming(
        method=str(scope.get("method", "GET")),
        query_string=scope["query_string"].decode("latin-1"),
        headers={
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        },
    )


def _log(served: Served, access_log: Path | None) -> None:
    asked = [
        f"{name}={value}"
        for name, value in served.parameters.items()
        if name not in {"cursor", "ids", "remote_ids"}
    ]
    logger.info(
        "GET %s -> %d code=%s integration=%s page=%s ids=%s %s records=%d more=%s faults=%s",
        COURSES_PATH,
        served.status,
        served.code,
        served.upstream_id,
        "later" if "cursor" in served.parameters else "first",
        served.ids,
        " ".join(asked),
        served.records,
        served.more,
        ",".join(served.faults) or None,
    )
    if access_log is not None:
        with access_log.open("ab") as file:
            file.write(msgspec.json.encode(served) + b"\n")


async def _send(answer: Answer, receive: Receive, send: Send) -> None:
    if not await _stays(receive, answer.delay_seconds):
        return
    headers = [
        (name.encode("latin-1"), text.encode("latin-1")) for name, text in answer.headers.items()
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    left = answer.length
    for piece, pause in pieces(answer):
        left -= len(piece)
        # The server closes the connection if an application returns before it has sent all
        # announced bytes.
        more = left > 0 or answer.drop_after is not None
        await send({"type": "http.response.body", "body": piece, "more_body": more})
        if left == 0 or not await _stays(receive, pause):
            return


async def _stays(receive: Receive, seconds: float) -> bool:
    """Waits some seconds; returns False as soon as the client has disconnected."""
    if seconds <= 0:
        return True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
            return False
    return True
