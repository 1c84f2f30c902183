"""Runs the parts of a batch concurrently, and isolates their failures."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    OutOfMemoryError,
    TimeoutError,  # noqa: A004 - redis's own name
)
from structlog.stdlib import BoundLogger


async def run_isolated(log: BoundLogger, parts: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Awaits every part, named by its id.

    If Redis is unreachable or full, that is logged and the schedule repeats the part; any other
    error is raised once all parts have ended, so that the job shows it.
    """
    results = await asyncio.gather(*parts.values(), return_exceptions=True)
    unexpected: list[BaseException] = []
    for owned_id, result in zip(parts, results, strict=True):
        if result is None:
            continue
        if isinstance(result, ConnectionError | TimeoutError | OutOfMemoryError):
            log.warning("Redis is unavailable", id=owned_id, error=str(result))
            continue
        if isinstance(result, Exception):
            log.error("turn failed", id=owned_id, exc_info=result)
        unexpected.append(result)
    if unexpected:
        raise unexpected[0]
