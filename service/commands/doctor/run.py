"""`coursewire doctor`: runs all checks in order, and prints their results."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, TextIO

import msgspec
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from rich.console import Console
from rich.text import Text

from service.bootstrap import Services, open_services
from service.commands.doctor import outbound, redis_server, stored_secrets, work
from service.commands.doctor.findings import Finding, Found, Level
from service.domain.errors import CoursewireError, RedisRefusedError
from service.local.data_directory import completed_by_up
from service.settings import PREFIX, Settings
from service.storage.observability.system_status import Overview

SAMPLE: Final = 1_000  # stored secrets and addresses of each kind that are checked
_LEVELS: Final[dict[Level, int]] = {"ok": 0, "warn": 1, "fail": 2}
_COLOURS: Final[dict[Level, str]] = {"ok": "green", "warn": "yellow", "fail": "red"}

Examination = Callable[[], Awaitable[Found]]


async def examine(settings: Settings, *, everything: bool = False) -> list[Finding]:
    """All findings. With `everything`, each stored secret and address is checked, not only a
    sample. If Redis cannot be used, the checks that need it are left out.
    """
    findings = [check_settings(settings)]
    if settings.redis_url is None or not settings.encryption_keys:
        return findings
    async with open_services(settings) as services:
        for name, examination in _examinations(services, None if everything else SAMPLE).items():
            try:
                found = await examination()
            except RedisRefusedError as error:
                findings.append(Finding(name, "fail", str(error)))
                break
            except (RedisError, OSError) as error:
                findings.append(Finding(name, "fail", _unusable(error)))
                break
            findings += [Finding(name, level, said) for level, said in found]
    return findings


def _examinations(services: Services, most: int | None) -> Mapping[str, Examination]:
    """The checks in their order. `most` bounds the stored values of a kind to check."""
    overview = Overview(services.redis)
    return {
        "redis": partial(redis_server.version, overview, services.rights),
        "eviction": partial(redis_server.eviction, overview),
        "persistence": partial(redis_server.persistence, overview),
        "memory": partial(redis_server.memory, overview),
        "clock": partial(redis_server.clock, overview),
        "scheduler": partial(work.scheduler, overview),
        "workers": partial(work.workers, overview),
        "queues": partial(work.queues, overview),
        "pauses": partial(work.pauses, services.control),
        "leases": partial(work.leases, overview, services.control),
        "addresses": partial(
            outbound.addresses,
            services.settings,
            services.processes,
            services.credentials,
            services.subscriptions,
            most,
        ),
        "secrets": partial(
            stored_secrets.secrets,
            services.encrypted,
            services.encryptor,
            services.processes,
            most,
        ),
        "egress": partial(outbound.egress, services.settings, services.guard),
    }


def check_settings(settings: Settings) -> Finding:
    """Whether all required settings are set."""
    try:
        settings.require("REDIS_URL", "ADMIN_TOKEN", "ENCRYPTION_KEYS")
    except CoursewireError as error:
        return Finding("settings", "fail", str(error))
    return Finding("settings", "ok", "complete")


def _unusable(error: Exception) -> str:
    """Why a check failed to run, with the remedy."""
    said = str(error).rstrip(".") or type(error).__name__
    where = f"{PREFIX}REDIS_URL"
    match error:
        case AuthenticationError() | NoPermissionError():
            advice = f"correct user and password in {where}, or the server's ACL"
        case _:
            advice = (
                f"check that it runs at the address in {where}, and read its log. All parts "
                "continue automatically when it answers"
            )
    return f"Redis cannot be used: {said}; {advice}"


def diagnose(settings: Settings, out: TextIO, *, everything: bool, as_json: bool) -> int:
    """Runs the checks, prints the findings and returns the exit code: 0 ok, 1 warnings, 2 failures.

    Raises StartError or SettingsError where the settings cannot be completed.
    """
    findings = asyncio.run(examine(completed_by_up(settings), everything=everything))
    if as_json:
        out.write(json.dumps([msgspec.to_builtins(one) for one in findings], indent=2) + "\n")
    else:
        console = Console(file=out, highlight=False, soft_wrap=True)
        for one in findings:
            line = Text(f"{one.level:5}", style=_COLOURS[one.level])
            console.print(line.append(f"{one.check:12} {one.said}", style="default"))
    return max(_LEVELS[one.level] for one in findings)
