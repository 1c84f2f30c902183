"""The configuration of a sandbox, with its defaults."""

from __future__ import annotations

import msgspec


class SandboxConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a sandbox starts.

    Each of `integrations` (upstream ids) gets `courses` courses from `seed`. `port` 0 takes
    any free port. `access_log` names a file that gets one JSON line per request served;
    `quiet` leaves the address alone on standard output: no lines per request, no directions.
    """

    host: str = "127.0.0.1"
    port: int = 8990
    api_key: str = "sandbox-key"
    integrations: tuple[str, ...] = ("sandbox:demo",)
    courses: int = 50
    seed: int = 1
    churn_per_second: float = 0.0
    rate_limit_per_minute: int = 60_000
    access_log: str | None = None
    quiet: bool = False
