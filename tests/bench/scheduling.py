"""How late polls are when thousands of integrations are due every minute; what idling costs.

One worker process and one scheduler. An integration's lag is from when its poll was due, by the
schedule, to its first request at the upstream.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from service.bootstrap import Services, open_services
from service.clock import now_ms
from service.domain.polling.integration import Credential, Integration
from service.ids import new_id
from service.settings import Settings
from service.storage.redis import keys
from tests.bench import report
from tests.bench.command import Options, benchmark, option
from tests.bench.processes import Child, child
from tests.bench.rig import embedded_server
from tests.bench.source import environment

LAG_AIM_MS, IDLE_COMMANDS_AIM, IDLE_CPU_AIM = 5_000.0, 5.0, 0.01
_CREDENTIALS = 100  # which the integrations share
_AT_ONCE = 50  # registrations
_LOOK_SECONDS = 2.0  # between looks at the schedule
_SETTLE_SECONDS = 5.0  # before idling is measured
_BASELINE_SECONDS = 600.0  # that all first polls may take


class Spent(msgspec.Struct, frozen=True):
    """What a phase took: processor seconds a second of each part, Redis commands a second."""

    cores: dict[str, float]
    commands: float  # inside scripts as well
    sent: float | None = None  # by clients, where they were listened to


class Meter:
    """Adds up what the parts of a service spend."""

    def __init__(self, redis: Redis, parts: dict[str, Child]) -> None:
        self._redis = redis
        self._parts = parts

    async def read(self) -> tuple[float, dict[str, float], float]:
        """The time, and what was spent until then."""
        stats, cpu = await self._redis.info("stats"), await self._redis.info("cpu")
        cores = {name: part.cpu_seconds() for name, part in self._parts.items()}
        cores["redis"] = float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
        return time.monotonic(), cores, float(stats["total_commands_processed"])

    async def during(self, seconds: float, *, listen: bool = False) -> Spent:
        """What is spent in the seconds to come; to `listen` to the commands costs some of it."""
        begun, cores, commands = await self.read()
        sent = await self._sent(seconds) if listen else await asyncio.sleep(seconds)
        ended, later, more = await self.read()
        took = ended - begun
        return Spent(
            {name: round((later[name] - cores[name]) / took, 4) for name in cores},
            # Without the two by which the first reading ended and the second began.
            round((more - commands - 2) / took, 2),
            None if sent is None else round(sent / seconds, 2),
        )

    async def _sent(self, seconds: float) -> int:
        """How many commands clients send, a script being one."""
        heard = 0
        async with self._redis.monitor() as monitor:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    async for command in monitor.listen():
                        heard += command["client_type"] != "lua"
        return heard


@benchmark
@option("--integrations", default=10_000)
@option("--interval", default=60, help="seconds")
@option("--seconds", default=60.0, help="that the load is watched")
@option("--idle-seconds", default=30.0)
async def run(options: Options) -> None:
    """Measures and reports."""
    async with AsyncExitStack() as stack:
        embedded = await stack.enter_async_context(embedded_server())
        settings = Settings.from_env(
            {
                **environment(embedded.require_redis_url()),
                "COURSEWIRE_ADMIN_TOKEN": "x" * 32,
                "COURSEWIRE_PORT": str(embedded.port),
            }
        )
        services = await stack.enter_async_context(open_services(settings))
        parts = {
            name: await stack.enter_async_context(
                child(*command, environment=settings.to_environ())
            )
            for name, command in (
                ("worker", ("workers.worker",)),
                ("scheduler", ("workers.scheduler",)),
                ("api", ("service.cli", "api")),
            )
        }
        meter = Meter(services.redis, parts)
        await asyncio.sleep(_SETTLE_SECONDS)
        idle = await meter.during(options.idle_seconds, listen=True)
        upstream = await stack.enter_async_context(child("tests.bench.upstream"))
        load = await _load(options, services, meter, upstream)
        server = await report.server_version(services.redis)
    results = {
        "idle": {**msgspec.to_builtins(idle), "cores_in_all": round(sum(idle.cores.values()), 4)},
        **load,
        "aims": {
            "lag_p99_ms": LAG_AIM_MS,
            "idle_commands": IDLE_COMMANDS_AIM,
            "idle_cores": IDLE_CPU_AIM,
        },
    }
    _show(results)
    report.tell("scheduling", server, results)


async def _load(
    options: Options, services: Services, meter: Meter, upstream: Child
) -> dict[str, Any]:
    base_url = f"http://127.0.0.1:{await upstream.hear()}/v1"
    begun = time.monotonic()
    registered = await register(services, base_url, options.integrations, options.interval)
    await baselines_done(services, len(registered))
    baselines = time.monotonic() - begun
    await asyncio.sleep(options.interval)  # until whatever the beginning was has passed
    since = time.time()
    watching = asyncio.create_task(_watch(services, options.seconds))
    spent = await meter.during(options.seconds)
    due = await watching
    # What was due by now has been asked for, unless it is later than any lag that is looked for.
    await asyncio.sleep(2 * LAG_AIM_MS / 1000)
    asked: dict[str, list[float]] = await upstream.ask({"since": since})
    until = since + options.seconds
    lags, never = [], 0
    for integration_id, due_at in due:
        if not since <= due_at <= until:
            continue
        later = [one for one in asked.get(registered[integration_id], ()) if one >= due_at - 0.001]
        if later:
            lags.append((min(later) - due_at) * 1000)
        else:
            never += 1
    lags.sort()
    polls = sum(1 for times in asked.values() for one in times if one <= until)
    return {
        "integrations": len(registered),
        "interval_seconds": options.interval,
        "baselines_seconds": round(baselines, 1),
        "polls_per_second": round(polls / options.seconds, 1),
        "watched": len(lags) + never,
        "never_polled": never,
        "lag_p50_ms": quantile(lags, 0.5),
        "lag_p99_ms": quantile(lags, 0.99),
        "lag_max_ms": quantile(lags, 1.0),
        "load": msgspec.to_builtins(spent),
    }


async def register(services: Services, base_url: str, count: int, interval: int) -> dict[str, str]:
    """Registers integrations with this delta interval, in seconds; returns their upstream ids."""
    now = now_ms()
    credentials = [
        Credential(
            id=new_id("cred"), name=str(number), base_url=base_url, created_at=now, updated_at=now
        )
        for number in range(min(_CREDENTIALS, count))
    ]
    for credential in credentials:
        await services.credentials.create(credential, f"key-{credential.name}")
    registered = {}
    integrations = [
        Integration(
            id=new_id("int"),
            name=str(number),
            upstream_id=f"workday:{number}",
            credential_id=credentials[number % len(credentials)].id,
            created_at=now + number,
            updated_at=now + number,
            delta_interval_seconds=interval,
        )
        for number in range(count)
    ]
    for start in range(0, len(integrations), _AT_ONCE):
        chosen = integrations[start : start + _AT_ONCE]
        await asyncio.gather(*map(services.integrations.create, chosen))
        registered.update({one.id: one.upstream_id for one in chosen})
    return registered


async def baselines_done(
    services: Services, count: int, patience: float = _BASELINE_SECONDS
) -> None:
    """Waits until every first poll has completed."""
    until = time.monotonic() + patience
    while (done := int(await services.redis.zcard(keys.completed("full")))) < count:
        if time.monotonic() > until:
            raise AssertionError(f"only {done} of {count} first polls have completed")
        await asyncio.sleep(0.5)


async def _watch(services: Services, seconds: float) -> set[tuple[str, float]]:
    """Which integrations were due when, in epoch seconds, as far as it was seen."""
    seen: set[tuple[str, float]] = set()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = cast(
            "list[tuple[bytes, float]]",
            await services.redis.zrange(keys.due("polls"), 0, -1, withscores=True),
        )
        seen.update((member.decode(), score / 1000) for member, score in found)
        await asyncio.sleep(_LOOK_SECONDS)
    return seen


def quantile(ordered: list[float], share: float) -> float | None:
    """The value below which this share lies, to 0.1."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1)


def _show(results: dict[str, Any]) -> None:
    report.show(
        f"scheduling: {results['integrations']} integrations, each due every "
        f"{results['interval_seconds']} s, one worker process (aim: p99 {LAG_AIM_MS:.0f} ms)",
        ("", "p50", "p99", "most", "polls/s", "watched", "never polled"),
        [
            (
                "lag behind due time, ms",
                *(
                    str(results[name])
                    for name in (
                        *("lag_p50_ms", "lag_p99_ms", "lag_max_ms"),
                        *("polls_per_second", "watched", "never_polled"),
                    )
                ),
            )
        ],
    )
    idle, load = results["idle"], results["load"]
    names = list(load["cores"])
    report.show(
        f"what it takes (aims while idle: {IDLE_COMMANDS_AIM:g} commands/s, "
        f"{IDLE_CPU_AIM:.0%} of a core in all)",
        ("% of a core", *names, "in all", "commands/s sent", "with those in scripts"),
        [
            (
                title,
                *(f"{100 * spent['cores'][name]:.1f}" for name in names),
                f"{100 * sum(spent['cores'].values()):.1f}",
                "" if spent["sent"] is None else f"{spent['sent']}",
                f"{spent['commands']}",
            )
            for title, spent in (("idle", idle), ("under that load", load))
        ],
    )
