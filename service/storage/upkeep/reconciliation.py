"""Puts work that is missing from the schedule because of an accident back into it."""

from __future__ import annotations

from service.domain.delivery.subscription import SubscriptionState, state_of
from service.storage.delivery.outboxes import Outboxes
from service.storage.registry.integrations import IntegrationStore
from service.storage.registry.subscriptions import SubscriptionStore
from service.storage.scheduling.leases import Kind
from service.storage.scheduling.schedule import Schedule

_PAGE = 500


class Reconciliation:
    """The last safety net: each polled integration, and each outbox that is sent and not empty,
    must always be due or claimed."""

    def __init__(
        self,
        integrations: IntegrationStore,
        subscriptions: SubscriptionStore,
        outboxes: Outboxes,
        schedule: Schedule,
    ) -> None:
        self._integrations = integrations
        self._subscriptions = subscriptions
        self._outboxes = outboxes
        self._schedule = schedule

    async def reconcile(self) -> int:
        """Makes work that is missing from the schedule due; returns the number."""
        return await self._integrations_missing() + await self._outboxes_missing()

    async def _integrations_missing(self) -> int:
        woken, after = 0, None
        while True:
            page, after = await self._integrations.page(_PAGE, after)
            polled = [integration.id for integration, _ in page if not integration.paused]
            woken += await self._wake_missing("polls", polled)
            if after is None:
                return woken

    async def _outboxes_missing(self) -> int:
        woken, after = 0, None
        while True:
            page, after = await self._subscriptions.page(_PAGE, after)
            sent_to = [one.id for one in page if state_of(one) is SubscriptionState.ACTIVE]
            depths = await self._outboxes.depth_many(sent_to)
            holding = [
                owned_id
                for owned_id, depth in zip(sent_to, depths, strict=True)
                if depth.pending or depth.replaying
            ]
            woken += await self._wake_missing("outboxes", holding)
            if after is None:
                return woken

    async def _wake_missing(self, kind: Kind, ids: list[str]) -> int:
        due = await self._schedule.next_at(kind, ids)
        missing = [owned_id for owned_id, at in zip(ids, due, strict=True) if at is None]
        for owned_id in missing:
            await self._schedule.wake(kind, owned_id)
        return len(missing)
