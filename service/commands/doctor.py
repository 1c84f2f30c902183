"""`coursewire doctor`: examines the settings, Redis, the parts at work and the stored secrets."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, Literal, TextIO, cast

import msgspec
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from rich.console import Console
from rich.text import Text

from service.bootstrap import Services, open_outbound, open_services
from service.clients.exchange import ExchangeError
from service.clock import now_ms
from service.domain.egress.routes import read_egress_proxy
from service.domain.errors import CoursewireError, RedisRefusedError, TargetRefusedError
from service.domain.events.event import rfc3339
from service.local.data_directory import completed_by_up
from service.settings import PREFIX, Settings
from service.storage.observability.system_status import Overview
from service.storage.redis import keys
from service.storage.redis.paging import all_ids
from service.storage.redis.server_fitness import (
    eviction_fault,
    persistence_fault,
    replication_fault,
    version_fault,
)
from service.storage.scheduling.leases import Kind
from service.storage.scheduling.pause import ACTIVITIES
from service.storage.security.encrypted_values import KINDS
from service.storage.security.key_holders import Process

Level = Literal["ok", "warn", "fail"]

SAMPLE: Final = 1_000  # encrypted values of each kind that are opened
_PAGE: Final = 200
_SCHEDULER_SILENCE_MS: Final = 10_000
_STUCK_MS: Final = 60_000  # past a claim's end, after which nobody seems to take it back
_CLOCK_WARN_MS: Final = 2_000
_CLOCK_FAIL_MS: Final = 60_000  # receivers refuse timestamps that are some minutes off
_MEMORY_WARN: Final = 0.7  # of the limit; polls wait above 0.8
_MEMORY_FAIL: Final = 0.9
_WIDE_OPEN: Final = frozenset({"0.0.0.0/0", "::/0"})
_LEVELS: Final[dict[Level, int]] = {"ok": 0, "warn": 1, "fail": 2}
_COLOURS: Final[dict[Level, str]] = {"ok": "green", "warn": "yellow", "fail": "red"}


class Finding(msgspec.Struct, frozen=True):
    """What one check found; `said` tells what to do where it is not well."""

    check: str
    level: Level
    said: str


async def examine(settings: Settings, *, everything: bool = False) -> list[Finding]:
    """All findings. With `everything`, each stored secret is opened, not only a sample.

    Where Redis cannot be used, what depends on it is left out.
    """
    findings = [check_settings(settings)]
    if settings.redis_url is None or not settings.encryption_keys:
        return findings
    async with open_services(settings) as services:
        doctor = Doctor(services, everything=everything)
        for name, check in doctor.checks.items():
            try:
                found = await check()
            except RedisRefusedError as error:
                findings.append(Finding(name, "fail", str(error)))
                break
            except (RedisError, OSError) as error:
                findings.append(Finding(name, "fail", _unusable(error)))
                break
            findings += [Finding(name, level, said) for level, said in found]
    return findings


def check_settings(settings: Settings) -> Finding:
    """Whether all is set that any part needs."""
    try:
        settings.require("REDIS_URL", "ADMIN_TOKEN", "ENCRYPTION_KEYS")
    except CoursewireError as error:
        return Finding("settings", "fail", str(error))
    return Finding("settings", "ok", "complete")


def _unusable(error: Exception) -> str:
    """Why a check could not be made, with what to do."""
    said = str(error).rstrip(".") or type(error).__name__
    where = f"{PREFIX}REDIS_URL"
    match error:
        case AuthenticationError() | NoPermissionError():
            advice = f"correct user and password in {where}, or the server's ACL"
        case _:
            advice = (
                f"does it run where {where} says, and what does its log say? All parts go on by "
                "themselves once it answers"
            )
    return f"Redis cannot be used: {said}; {advice}"


Found = Sequence[tuple[Level, str]]
Check = Callable[[], Awaitable[Found]]


class Doctor:
    """The checks of one service, in the order in which they are made."""

    def __init__(self, services: Services, *, everything: bool = False) -> None:
        self._services = services
        self._overview = Overview(services.redis)
        self._most = None if everything else SAMPLE
        self.checks: Mapping[str, Check] = {
            "redis": self._version,
            "eviction": self._eviction,
            "persistence": self._persistence,
            "memory": self._memory,
            "clock": self._clock,
            "scheduler": self._scheduler,
            "workers": self._workers,
            "queues": self._queues,
            "pauses": self._pauses,
            "leases": self._leases,
            "addresses": self._addresses,
            "secrets": self._secrets,
            "egress": self._egress,
        }

    async def _version(self) -> Found:
        await self._services.rights.check()
        server = await self._overview.server()
        fault = version_fault(server) or replication_fault(server)
        return [("fail", fault) if fault else ("ok", f"{server.name} {server.version}")]

    async def _eviction(self) -> Found:
        server = await self._overview.server()
        fault = eviction_fault(server)
        return [("fail", fault) if fault else ("ok", server.eviction_policy or "not told")]

    async def _persistence(self) -> Found:
        server = await self._overview.server()
        fault = persistence_fault(server)
        if fault is not None:
            return [("warn", fault)]
        if server.persistence == "unknown":
            return [
                (
                    "warn",
                    (
                        "no append-only file, and Redis does not tell whether it writes snapshots; "
                        "make sure that the provider persists every second"
                    ),
                )
            ]
        return [("ok", "append-only file, written well")]

    async def _memory(self) -> Found:
        server = await self._overview.server()
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

    async def _clock(self) -> Found:
        began = time.monotonic()
        theirs = await self._overview.now_ms()
        trip_ms = (time.monotonic() - began) * 1000
        apart = int(now_ms() - trip_ms / 2 - theirs)
        said = f"this machine's clock is {abs(apart)} ms {'ahead of' if apart > 0 else 'behind'} "
        said += "that of Redis"
        if abs(apart) <= max(_CLOCK_WARN_MS, trip_ms):
            return [("ok", said)]
        level: Level = "fail" if abs(apart) > _CLOCK_FAIL_MS else "warn"
        return [(level, f"{said}; run NTP on both, receivers check the time of signatures")]

    async def _scheduler(self) -> Found:
        schedulers, now = await self._overview.schedulers(), await self._overview.now_ms()
        last = max((turn for _, turn in schedulers), default=None)
        advice = "; start `coursewire scheduler`"
        if last is None:
            return [("fail", f"no scheduler has run in a week{advice}")]
        if now - last > _SCHEDULER_SILENCE_MS:
            return [("fail", f"no scheduler has looked for work since {rfc3339(last)}{advice}")]
        return [("ok", ", ".join(name for name, _ in schedulers))]

    async def _workers(self) -> Found:
        workers = await self._overview.workers()
        served = {queue for worker in workers for queue in worker.queues}
        missing = [queue for queue in keys.QUEUES if queue not in served]
        if missing:
            return [("fail", f"nobody serves {', '.join(missing)}; start `coursewire worker`")]
        suspended = [worker.name for worker in workers if worker.state == "suspended"]
        if suspended:
            return [("warn", f"suspended: {', '.join(suspended)}; `rq resume` starts them again")]
        processes = {(worker.host, worker.pid) for worker in workers}
        return [("ok", f"{len(processes)} process{'es' if len(processes) > 1 else ''}")]

    async def _queues(self) -> Found:
        found: list[tuple[Level, str]] = [
            (
                "warn",
                (
                    f"{queue.failed} jobs of {queue.name} failed in the last day; the worker's log "
                    "says why, the work itself came back by the schedule"
                ),
            )
            for queue in await self._overview.queues()
            if queue.failed
        ]
        return found or [("ok", "no failed jobs")]

    async def _pauses(self) -> Found:
        found: list[tuple[Level, str]] = [
            (
                "warn",
                (
                    f"{activity} has been paused since {rfc3339(since)}; `coursewire resume "
                    f"{activity}` starts it again"
                ),
            )
            for activity, since in (await self._services.control.paused()).items()
        ]
        return found or [("ok", "nothing is paused")]

    async def _leases(self) -> Found:
        now = await self._overview.now_ms()
        paused = await self._services.control.paused()
        found: list[tuple[Level, str]] = []
        names: dict[Kind, str] = {"polls": "integrations", "outboxes": "outboxes"}
        for kind, name in names.items():
            redis = self._services.redis
            stuck = await redis.zcount(keys.claimed(kind), "-inf", now - _STUCK_MS)
            if stuck and ACTIVITIES[kind] not in paused:
                found.append(
                    (
                        "fail",
                        (
                            f"{stuck} claims on {name} have lapsed and nobody takes them back; a "
                            "scheduler does, unless its queue is full: see scheduler and workers"
                        ),
                    )
                )
            lasting = await self._leases_without_end(kind)
            if lasting:
                found.append(
                    (
                        "fail",
                        (
                            f"leases without an end hold up {', '.join(lasting[:5])}; "
                            f"`redis-cli DEL {keys.lease(kind, lasting[0])}`, and so for each"
                        ),
                    )
                )
        return found or [("ok", "none is stuck")]

    async def _leases_without_end(self, kind: Kind) -> list[str]:
        redis = self._services.redis
        claimed = await all_ids(redis, keys.claimed(kind))
        if not claimed:
            return []
        async with redis.pipeline(transaction=False) as pipeline:
            for owned_id in claimed:
                pipeline.pttl(keys.lease(kind, owned_id))
            left = await pipeline.execute()
        return [owned_id for owned_id, ms in zip(claimed, left, strict=True) if ms == -1]

    async def _addresses(self) -> Found:
        settings, guard = self._services.settings, self._services.guard
        found: list[tuple[Level, str]] = [
            (
                "warn",
                (
                    f"{target} in ALLOWED_TARGETS switches the address guard off: whoever may "
                    "subscribe can reach every host that this service can; name only what is needed"
                ),
            )
            for target in settings.allowed_targets
            if target in _WIDE_OPEN
        ]
        looked_at = 0
        async for owner, url in self._targets():
            looked_at += 1
            try:
                guard.check_url(url)
            except TargetRefusedError as refusal:
                found.append(("warn", f"{owner} cannot be reached: {refusal}"))
        return found or [("ok", f"{looked_at} addresses looked at, all allowed")]

    async def _egress(self) -> Found:
        settings = self._services.settings
        if settings.egress_proxy is None:
            return [("ok", "no proxy, requests go out directly")]
        async with open_outbound(settings, self._services.guard) as client:
            try:
                await client.check_proxy()
            except ExchangeError as fault:
                advice = f"correct {PREFIX}EGRESS_PROXY, or see to the proxy"
                return [("fail", f"{fault}; {advice}. Until then nothing is sent or polled")]
        address = read_egress_proxy(settings.egress_proxy).address
        return [("ok", f"{address} can be reached and accepts our requests")]

    async def _secrets(self) -> Found:
        encrypted_with, spoiled = await self._encrypted()
        encryptor = self._services.encryptor
        found: list[tuple[Level, str]] = []
        if spoiled:
            shown = ", ".join(spoiled[:5]) + (" and others" if len(spoiled) > 5 else "")
            found.append(
                (
                    "fail",
                    (
                        f"what is kept for {len(spoiled)} does not open, of {shown}; give back the "
                        "key that encrypted it in ENCRYPTION_KEYS, behind the first, or store "
                        "it again"
                    ),
                )
            )
        old = [
            f"{encrypted_with[name]} with key {name}"
            for name in encryptor.key_names[1:]
            if encrypted_with[name]
        ]
        if old:
            found.append(
                (
                    "warn",
                    (
                        f"encrypted with an older key: {', '.join(old)}; `coursewire rotate-keys` "
                        "encrypts them with the first, while everything runs"
                    ),
                )
            )
        found += self._differing(await self._services.processes.alive(), set(encrypted_with))
        if found:
            return found
        opened = encrypted_with.total()
        said = (
            f"all {opened} looked at open, and are encrypted with the first key, {encryptor.first}"
        )
        return [("ok", said)]

    async def _encrypted(self) -> tuple[Counter[str], list[str]]:
        """How many encrypted values each key opens, by its name, and whose no key opens: of all, or
        of the oldest of each kind, which are those that an old key is likeliest to have
        encrypted."""
        encrypted_with, spoiled = Counter[str](), list[str]()
        for kind in KINDS:
            looked_at = 0
            async for page in self._services.encrypted.pages(kind):
                for one in page if self._most is None else page[: self._most - looked_at]:
                    if (name := one.key_name) is not None and self._services.encrypted.can_decrypt(
                        one
                    ):
                        encrypted_with[name] += 1
                    elif one.location.id not in spoiled:
                        spoiled.append(one.location.id)
                looked_at += len(page)
                if self._most is not None and looked_at >= self._most:
                    break
        return encrypted_with, spoiled

    def _differing(self, processes: Sequence[Process], in_use: set[str]) -> Found:
        """What is wrong with the keys that running processes hold."""
        found: list[tuple[Level, str]] = []
        lacking = [one.name for one in processes if not in_use <= set(one.key_names)]
        if lacking:
            found.append(
                (
                    "fail",
                    (
                        f"{', '.join(lacking)} lack a key that secrets are encrypted with; restart "
                        "them with the same ENCRYPTION_KEYS as here"
                    ),
                )
            )
        first = self._services.encryptor.first
        others = [one.name for one in processes if one.key_names[0] != first]
        if others:
            found.append(
                (
                    "warn",
                    (
                        f"{', '.join(others)} encrypt with another key than {first}, the first one "
                        "here; restart them with the same ENCRYPTION_KEYS"
                    ),
                )
            )
        return found

    async def _targets(self) -> AsyncIterator[tuple[str, str]]:
        async for credential_id in self._ids(keys.CREDENTIALS):
            for credential in await self._services.credentials.get_many([credential_id]):
                if credential is not None:
                    yield credential.id, credential.base_url
        async for subscription_id in self._ids(keys.SUBSCRIPTIONS):
            for subscription in await self._services.subscriptions.get_many([subscription_id]):
                if subscription is not None:
                    yield subscription.id, subscription.url

    async def _ids(self, index: str) -> AsyncIterator[str]:
        """The ids in an index: all of them, or the newest ones."""
        start = 0
        while self._most is None or start < self._most:
            most = _PAGE if self._most is None else min(_PAGE, self._most - start)
            page = cast(
                "list[bytes]",
                await self._services.redis.zrange(index, start, start + most - 1, desc=True),
            )
            for one in page:
                yield one.decode()
            if len(page) < most:
                return
            start += most


def diagnose(settings: Settings, out: TextIO, *, everything: bool, as_json: bool) -> int:
    """Examines, prints the findings and returns the exit code: 0 all well, 1 warnings, 2 not.

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
