"""Checks whether a Redis or Valkey server keeps its data."""

from __future__ import annotations

from typing import Literal

import msgspec

NO_EVICTION = "noeviction"

# The oldest servers with all commands in use; ZADD with LT and ZMSCORE decide.
MINIMUM_VERSION = (6, 2)

Persistence = Literal["aof", "snapshots", "none", "unknown"]


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server's report about itself. Memory is in bytes; `memory_limit` is 0 without a limit.
    `snapshots` is whether it is configured to write any, None if unknown. `eviction_policy` is
    empty if unknown. `good_replicas` are those that keep up, None if it requires none.
    """

    name: str
    version: str
    run_id: str
    uptime_seconds: int
    memory_used: int
    memory_limit: int
    eviction_policy: str
    aof_enabled: bool
    aof_ok: bool
    snapshot_ok: bool
    snapshots: bool | None = None
    loading: bool = False
    replica: bool = False
    good_replicas: int | None = None

    @property
    def persistence(self) -> Persistence:
        """The data that would survive a crash of the server."""
        if self.aof_enabled:
            return "aof"
        if self.snapshots is None:
            return "unknown"
        return "snapshots" if self.snapshots else "none"

    @property
    def persistence_ok(self) -> bool:
        """Whether the last write to disk succeeded; false for a server without persistence."""
        match self.persistence:
            case "aof":
                return self.aof_ok
            case "none":
                return False
            case _:
                return self.snapshot_ok

    @property
    def memory_share(self) -> float | None:
        """The used part of its memory limit, None without a limit."""
        return self.memory_used / self.memory_limit if self.memory_limit else None


def eviction_fault(server: Server) -> str | None:
    """Why the server cannot be used as configured, with the remedy; None if it can.

    `allkeys-*` would drop registrations and fingerprints. `volatile-*` would drop keys with a
    lifetime: leases, which let only one worker at a time poll or send, and the courses that a
    running full poll has read.
    """
    policy = server.eviction_policy
    if policy in ("", NO_EVICTION):
        return None
    what = (
        "the leases by which one worker at a time polls and sends"
        if policy.startswith("volatile-")
        else "registrations, fingerprints and events"
    )
    return (
        f"Redis evicts by {policy} and would drop {what} when its memory is full; set "
        f"maxmemory-policy to {NO_EVICTION}: CONFIG SET maxmemory-policy {NO_EVICTION}, and the "
        "same in its configuration file"
    )


def persistence_fault(server: Server) -> str | None:
    """The data that a crash of the server would lose, with the remedy; None for a second at
    most."""
    advice = "enable appendonly, with appendfsync everysec"
    match server.persistence:
        case "none":
            return (
                "Redis persists nothing: a restart loses every registration, secret and event "
                f"not yet delivered; {advice}"
            )
        case "snapshots":
            return (
                "Redis writes only snapshots: a crash loses everything after the last one, "
                f"registrations included; {advice}"
            )
        case "aof" if not server.aof_ok:
            return (
                "Redis cannot write its append-only file: a crash loses later writes; check "
                "for a full disk, and read the server's log"
            )
        case _ if not server.snapshot_ok:
            return (
                "Redis cannot write its snapshot, and may refuse every write until it can; "
                "check for a full disk, and read the server's log"
            )
    return None


def replication_fault(server: Server) -> str | None:
    """Why the server refuses writes because of replication, with the remedy; None if it does not.

    `min-replicas-to-write` makes a server refuse writes that no replica would have.
    """
    if server.replica:
        return (
            "Redis is a read-only replica and does not accept writes; give the address of "
            "the primary, or of its sentinels"
        )
    if server.good_replicas == 0:
        return (
            "Redis does not accept writes, because fewer replicas keep up than "
            "min-replicas-to-write requires; check its replicas"
        )
    return None


def version_fault(server: Server) -> str | None:
    """Why the server is too old, with the remedy; None if it is not, or reports no version."""
    parts = server.version.split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts[:2]):
        return None
    if (int(parts[0]), int(parts[1])) >= MINIMUM_VERSION:
        return None
    least = ".".join(str(part) for part in MINIMUM_VERSION)
    return f"{server.name} {server.version} is too old; use Redis {least} or newer, or Valkey"
