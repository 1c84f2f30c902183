"""Examines where requests go: the stored addresses and the forward proxy."""

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

_WIDE_OPEN: Final = frozenset({"0.0.0.0/0", "::/0"})


async def addresses(
    settings: Settings,
    guard: AddressGuard,
    credentials: CredentialStore,
    subscriptions: SubscriptionStore,
    most: int | None,
) -> Found:
    """Whether the address guard allows every address that is stored."""
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
    async for owner, url in _targets(credentials, subscriptions, most):
        looked_at += 1
        try:
            guard.check_url(url)
        except TargetRefusedError as refusal:
            found.append(("warn", f"{owner} cannot be reached: {refusal}"))
    return found or [("ok", f"{looked_at} addresses looked at, all allowed")]


async def egress(settings: Settings, guard: AddressGuard) -> Found:
    """Whether the forward proxy can be used."""
    if settings.egress_proxy is None:
        return [("ok", "no proxy, requests go out directly")]
    async with open_outbound(settings, guard) as client:
        try:
            await client.check_proxy()
        except ExchangeError as fault:
            advice = f"correct {PREFIX}EGRESS_PROXY, or see to the proxy"
            return [("fail", f"{fault}; {advice}. Until then nothing is sent or polled")]
    address = read_egress_proxy(settings.egress_proxy).address
    return [("ok", f"{address} can be reached and accepts our requests")]


async def _targets(
    credentials: CredentialStore, subscriptions: SubscriptionStore, most: int | None
) -> AsyncIterator[tuple[str, str]]:
    """The newest `most` of each kind, or all: who owns the address, and the address."""
    async for credential in credentials.newest(most):
        yield credential.id, credential.base_url
    async for subscription in subscriptions.newest(most):
        yield subscription.id, subscription.url
