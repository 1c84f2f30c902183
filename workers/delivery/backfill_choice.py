"""Chooses the integration that a backfill goes through next."""

from __future__ import annotations

import msgspec

from service.clock import now_ms
from service.domain.events.event import EventHead, Selection
from service.domain.polling.integration import Integration, PollingState
from service.domain.polling.progress import PAGE_SIZE
from service.domain.replay import backfill as backfills
from service.domain.replay.backfill import BackfillProgress, Leg
from service.storage.redis.paging import IndexPosition
from service.storage.registry.integrations import IntegrationStore

FIRST_PAGE_SIZE = PAGE_SIZE
LISTED_AT_ONCE = 100  # integrations examined in one step


async def choose_integration(
    integrations: IntegrationStore,
    progress: BackfillProgress,
    created_at: int,
    selection: Selection,
) -> BackfillProgress | None:
    """The progress after the next step of the search, with a leg if it found an integration; None
    if the backfill must wait for a baseline. `created_at` is when the backfill was requested."""
    if progress.listed:
        return await _choose_postponed(integrations, progress, created_at, selection)
    after = None if progress.after is None else IndexPosition(*progress.after)
    found, further = await integrations.page(LISTED_AT_ONCE, after)
    for integration, state in found:
        if integration.created_at > created_at:
            further = None  # its baseline is later than this request
            break
        if not wants(selection, integration):
            continue
        progress = take_up(progress, integration, state)
        if progress.leg is not None:
            position = (integration.created_at, integration.id)
            return msgspec.structs.replace(progress, after=position)
    if further is None:
        return msgspec.structs.replace(progress, listed=True)
    return msgspec.structs.replace(progress, after=(further.created_at, further.id))


async def _choose_postponed(
    integrations: IntegrationStore,
    progress: BackfillProgress,
    created_at: int,
    selection: Selection,
) -> BackfillProgress | None:
    """Starts an integration whose baseline has become complete."""
    before = progress
    stored = await integrations.get_many(progress.postponed)
    for integration_id, found in zip(progress.postponed, stored, strict=True):
        rest = tuple(one for one in progress.postponed if one != integration_id)
        without = msgspec.structs.replace(progress, postponed=rest)
        if found is None:
            progress = backfills.skip(without, integration_id, "it was deleted")
        elif not wants(selection, found[0]):
            progress = backfills.skip(without, integration_id, "it no longer matches")
        elif now_ms() - created_at > backfills.BASELINE_PATIENCE_MS:
            reason = "its baseline was not complete in time"
            progress = backfills.skip(without, integration_id, reason)
        else:
            taken = take_up(without, *found)
            if taken.leg is not None:
                return taken
            progress = taken
    return None if progress.postponed == before.postponed else progress


def wants(selection: Selection, integration: Integration) -> bool:
    """Whether the subscription receives that integration's backfilled courses."""
    labels = msgspec.json.encode({"labels": integration.labels})
    return selection.takes(EventHead("", backfills.EVENT_TYPE, integration.id, "", labels))


def take_up(
    progress: BackfillProgress, integration: Integration, state: PollingState
) -> BackfillProgress:
    """The progress with a leg through an integration, or with the integration skipped or
    postponed."""
    if reason := backfills.why_not(integration, state):
        return backfills.skip(progress, integration.id, reason)
    if not state.baselined:
        return msgspec.structs.replace(progress, postponed=(*progress.postponed, integration.id))
    leg = Leg(
        integration_id=integration.id,
        epoch=state.epoch,
        got_on_at=now_ms(),
        page_size=FIRST_PAGE_SIZE,
    )
    return msgspec.structs.replace(progress, leg=leg)
