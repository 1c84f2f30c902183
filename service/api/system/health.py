"""Probes: whether this process runs, and whether it can serve; and links."""

from __future__ import annotations

import asyncio
from typing import Annotated, ClassVar

import msgspec
from litestar import get
from litestar.datastructures import State

from service.api.fields.kinds import means
from service.api.fields.views import View
from service.api.http.problem_types import (
    OVERLOADED,
    STOPPING,
    STORAGE_UNAVAILABLE,
    TOO_MANY_LISTENERS,
)
from service.api.http.problems import PROBLEMS
from service.api.http.requests import GivenServices
from service.api.http.version import version
from service.domain.errors import StoppingError, StorageUnavailableError

READY_SECONDS = 3.0  # within which Redis must answer, after up to five tries


class Health(View, frozen=True, kw_only=True):
    """The response of a healthy process."""

    example: ClassVar = {"status": "ok"}
    status: Annotated[str, means("ok")]


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """Links to the documentation."""

    name: str
    version: str
    documentation: str
    api: str


@get("/", include_in_schema=False)
async def root(state: State) -> Root:
    """For clients that do not know a path."""
    prefix = state.settings.root_path
    return Root(
        name="Coursewire", version=version(), documentation=f"{prefix}/schema", api=f"{prefix}/v1"
    )


@get(
    "/healthz",
    operation_id="healthz",
    summary="Check that this process is running",
    response_description="The process is running",
    tags=["System"],
    security=[{}],
)
async def healthz() -> Health:
    """Checks this process only."""
    return Health(status="ok")


@get(
    "/readyz",
    operation_id="readyz",
    summary="Check that this process can serve requests",
    response_description="The process can serve requests",
    tags=["System"],
    security=[{}],
    opt={PROBLEMS: (TOO_MANY_LISTENERS, OVERLOADED, STOPPING, STORAGE_UNAVAILABLE)},
)
async def readyz(services: GivenServices, state: State) -> Health:
    """Succeeds if Redis answers and grants all needed rights, and the process is not stopping.
    Otherwise the problem contains the reason."""
    if state.stopping:
        raise StoppingError("this process is stopping; send new requests to another one")
    try:
        async with asyncio.timeout(READY_SECONDS):
            await services.rights.check()
            await services.redis.ping()
    except TimeoutError:
        raise StorageUnavailableError from None
    return Health(status="ok")
