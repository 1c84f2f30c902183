"""Probes: whether this process lives, and whether it can serve; and where to read on."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from litestar import get
from litestar.datastructures import State

from service.api.http.requests import GivenServices
from service.api.schema.operations import problems, reads, version
from service.api.schema.schemas import Health, Root
from service.domain.errors import StoppingError, StorageUnavailableError

READY_SECONDS = 3.0  # within which Redis must answer, some five times in a row


@get("/", include_in_schema=False)
async def root(state: State) -> Root:
    """For who comes without knowing a path."""
    prefix = state.settings.root_path
    return Root(
        name="Coursewire",
        version=version(),
        documentation=f"{prefix}/schema",
        api=f"{prefix}/v1",
    )


@get(
    "/healthz",
    summary="Whether this process lives",
    response_description="It lives",
    tags=["System"],
    security=[{}],
    operation_class=reads(),
)
async def healthz() -> Health:
    """Asks nothing of anybody else."""
    return Health("ok")


@get(
    "/readyz",
    summary="Whether this process can serve",
    response_description="It can serve",
    tags=["System"],
    security=[{}],
    operation_class=reads(),
    responses=problems(HTTPStatus.SERVICE_UNAVAILABLE),
)
async def readyz(services: GivenServices, state: State) -> Health:
    """Redis answers and grants what the service needs, and the process was not told to stop; if
    not, the problem says why."""
    if state.stopping:
        raise StoppingError("this process is about to stop; send new requests to another one")
    try:
        async with asyncio.timeout(READY_SECONDS):
            await services.rights.check()
            await services.redis.ping()
    except TimeoutError:
        raise StorageUnavailableError from None
    return Health("ok")
