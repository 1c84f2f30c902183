"""Probes: whether this process lives, and whether it can serve."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from litestar import get

from service.api.openapi import problems, reads
from service.api.requests import GivenServices
from service.api.schemas import Health
from service.domain.errors import StorageUnavailableError

READY_SECONDS = 2.0  # within which Redis must answer


@get(
    "/healthz",
    summary="Whether this process lives",
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
    tags=["System"],
    security=[{}],
    operation_class=reads(),
    responses=problems(HTTPStatus.SERVICE_UNAVAILABLE),
)
async def readyz(services: GivenServices) -> Health:
    """Redis answers."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            await services.redis.ping()
    except TimeoutError:
        raise StorageUnavailableError from None
    return Health("ok")
