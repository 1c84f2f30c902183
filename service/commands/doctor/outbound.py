"""Checks the targets of requests: the stored addresses and the forward proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from service.bootstrap import open_outbound
from service.clients.address_guard import AddressGuard
from service.clients.exchange import ExchangeError
from service.commands.doctor.findings import Found, Level
from service.domain.egress.routes import read_egress_proxy
from service.domain.errors import TargetRefusedError
from service.settings import PREFIX, Settings
from service.storage.registry.credentials import CredentialStore
from service.storage.registry.subscriptions import SubscriptionStore
from service.storage.security.key_holders import Processes

_WIDE_OPEN: Final = frozenset({"0.0.0.0/0", "::/0"})
_SENDING: Final = ("api ", "worker ")  # the first part of the names of processes that send requests


async def addresses(
    settings: Settings,
    processes: Processes,
    credentials: CredentialStore,
    subscriptions: SubscriptionStore,
    most: int | None,
) -> Found:
    """Whether the address guards of the processes that send requests allow every stored address.

    If none of these processes runs, the settings of this command decide.
    """
    allowed = {
        one.name: one.allowed_targets
        for one in await processes.alive()
        if one.name.startswith(_SENDING)
    }
    note = "" if allowed else "; no API or worker runs, so this command's settings were judged"
    by_targets: dict[tuple[str, ...], list[str]] = {}
    for name, targets in (allowed or {"this command": settings.allowed_targets}).items():
        by_targets.setdefault(targets, []).append(name)
    found: list[tuple[Level, str]] = [
        (
            "warn",
            (
                f"{target} in ALLOWED_TARGETS of {', '.join(names)} switches the address guard "
                "off: every subscriber can reach every host that this service can reach; "
                f"allow only the targets that are needed{note}"
            ),
        )
        for targets, names in by_targets.items()
        for target in targets
        if target in _WIDE_OPEN
    ]
    guards = {", ".join(names): AddressGuard(targets) for targets, names in by_targets.items()}
    looked_at = 0
    async for owner, url in _targets(credentials, subscriptions, most):
        looked_at += 1
        for names, guard in guards.items():
            try:
                guard.check_url(url)
            except TargetRefusedError as refusal:
                found.append(("warn", f"{names} cannot reach {owner}: {refusal}{note}"))
    return found or [("ok", f"{looked_at} addresses looked at, all allowed{note}")]


async def egress(settings: Settings, guard: AddressGuard) -> Found:
    """Whether the forward proxy can be used."""
    if settings.egress_proxy is None:
        return [("ok", "no proxy, requests go out directly")]
    async with open_outbound(settings, guard) as client:
        try:
            await client.check_proxy()
        except ExchangeError as fault:
            advice = f"correct {PREFIX}EGRESS_PROXY, or repair the proxy"
            return [("fail", f"{fault}; {advice}. Until then nothing is sent or polled")]
    address = read_egress_proxy(settings.egress_proxy).address
    return [("ok", f"{address} can be reached and accepts our requests")]


async def _targets(
    credentials: CredentialStore, subscriptions: SubscriptionStore, most: int | None
) -> AsyncIterator[tuple[str, str]]:
    """The newest `most` of each kind, or all: the address's owner, and the address."""
    async for credential in credentials.newest(most):
        yield credential.id, credential.base_url
    async for subscription in subscriptions.newest(most):
        yield subscription.id, subscription.url
