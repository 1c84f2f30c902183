"""Checks the Redis server: version, eviction, persistence, memory and clock."""

from __future__ import annotations

import time
from typing import Final

from service.clock import now_ms
from service.commands.doctor.findings import Found, Level
from service.storage.observability.system_status import Overview
from service.storage.redis.rights import Rights
from service.storage.redis.server_fitness import (
    eviction_fault,
    persistence_fault,
    replication_fault,
    version_fault,
)

_CLOCK_WARN_MS: Final = 2_000
_CLOCK_FAIL_MS: Final = 60_000  # receivers refuse timestamps that are a few minutes off
_MEMORY_WARN: Final = 0.7  # of the limit; polls wait above 0.8
_MEMORY_FAIL: Final = 0.9


async def version(overview: Overview, rights: Rights) -> Found:
    """Whether the server is new enough, is a primary, and accepts the service's commands."""
    await rights.check()
    server = await overview.server()
    fault = version_fault(server) or replication_fault(server)
    return [("fail", fault) if fault else ("ok", f"{server.name} {server.version}")]


async def eviction(overview: Overview) -> Found:
    """Whether the server keeps every key."""
    server = await overview.server()
    fault = eviction_fault(server)
    return [("fail", fault) if fault else ("ok", server.eviction_policy or "unknown")]


async def persistence(overview: Overview) -> Found:
    """Whether the server loses at most a second in a crash."""
    server = await overview.server()
    fault = persistence_fault(server)
    if fault is not None:
        return [("warn", fault)]
    if server.persistence == "unknown":
        return [
            (
                "warn",
                (
                    "no append-only file, and Redis does not report snapshots; make sure that the "
                    "provider persists every second"
                ),
            )
        ]
    return [("ok", "append-only file, last write succeeded")]


async def memory(overview: Overview) -> Found:
    """Whether memory is left."""
    server = await overview.server()
    used = f"{server.memory_used / 1e6:.0f} MB in use"
    share = server.memory_share
    if share is None:
        return [
            (
                "ok",
                (
                    f"{used}, no limit; on a machine shared with others set maxmemory, so that "
                    "polls wait before memory is short"
                ),
            )
        ]
    said = f"{used}, {share:.0%} of the limit"
    advice = "; raise maxmemory, or shorten EVENT_RETENTION_SECONDS"
    if share > _MEMORY_FAIL:
        return [("fail", said + advice)]
    return [("warn", said + advice) if share > _MEMORY_WARN else ("ok", said)]


async def clock(overview: Overview) -> Found:
    """Whether the clocks of this machine and of Redis agree."""
    began = time.monotonic()
    theirs = await overview.now_ms()
    trip_ms = (time.monotonic() - began) * 1000
    apart = int(now_ms() - trip_ms / 2 - theirs)
    said = f"this machine's clock is {abs(apart)} ms {'ahead of' if apart > 0 else 'behind'} "
    said += "that of Redis"
    if abs(apart) <= max(_CLOCK_WARN_MS, trip_ms):
        return [("ok", said)]
    level: Level = "fail" if abs(apart) > _CLOCK_FAIL_MS else "warn"
    return [(level, f"{said}; run NTP on both, receivers check the time of signatures")]
