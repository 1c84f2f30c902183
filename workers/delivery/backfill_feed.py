"""Feeds backfills, one upstream page at a time, to the outbox that requested them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from service.clients.upstream import Page, PageQuery, UpstreamClient
from service.clock import now_ms
from service.domain.courses.deletion_mark import judging_time
from service.domain.courses.received import identify_records
from service.domain.delivery.outbox_window import order_key
from service.domain.delivery.subscription import Subscription
from service.domain.errors import (
    DecryptionError,
    FingerprintVersionError,
    NotFoundError,
    UpstreamAuthError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamInputError,
    UpstreamPageError,
    UpstreamPagingError,
    UpstreamUnavailableError,
)
from service.domain.events.event import Selection
from service.domain.polling.id_requests import can_be_asked, fitting
from service.domain.polling.integration import Integration, backoff_ms, next_try_ms
from service.domain.polling.intervals import MAX_BACKOFF_SECONDS
from service.domain.polling.progress import MIN_PAGE_SIZE, PAGE_SIZE
from service.domain.replay import backfill as backfills
from service.domain.replay.backfill import BackfillProgress, Confirmed, Leg
from service.domain.replay.replay import Replay, ReplayProgress
from service.logs import get_logger
from service.storage.events.announcing import RENDERINGS
from service.storage.polling.budgets import Budgets
from service.storage.polling.catalogue import Catalogue
from service.storage.redis.counters import field
from service.storage.redis.memory import MEMORY_SHARE, MEMORY_WAIT_MS, Memory
from service.storage.registry.credentials import CredentialStore
from service.storage.registry.integrations import IntegrationStore
from service.storage.replay.replays import Backfilled, Part, Replays
from service.storage.scheduling.pause import Control
from workers.delivery.backfill_choice import choose_integration, take_up, wants
from workers.polling.commit import sendable
from workers.polling.page_fetch import Fetcher
from workers.polling.turn_budget import TurnOverError

MOST_AHEAD = 1_000  # replayed entries above which no page is requested ...
MOST_BYTES_AHEAD = 33_554_432  # ... or bytes of waiting events, whatever they wait for
LARGE_PAGE_BYTES = 4_194_304  # above which pages are requested in half the size
AHEAD_WAIT_MS = 300_000  # until the next turn if so many events wait; retries come earlier
PAUSED_WAIT_MS = 15_000  # while polling is paused, or a baseline is not complete
PAGES_BEFORE_LARGER = 10  # pages between two attempts at larger ones
MAX_PAGES = 100_000  # of one integration: more is an upstream that pages without end

_log = get_logger("replay")


class BackfillStores(msgspec.Struct, frozen=True, kw_only=True):
    """The stores and the upstream that backfills use."""

    replays: Replays
    integrations: IntegrationStore
    credentials: CredentialStore
    catalogue: Catalogue
    budgets: Budgets
    upstream: UpstreamClient
    control: Control
    memory: Memory


class Step(msgspec.Struct, frozen=True):
    """The part to feed, None if there is none yet, and the wait before the next step."""

    part: Part | None
    wait_ms: int = 0


class Backfiller:
    """Makes the steps of one outbox's backfills during one turn.

    Each part is fed together with its progress, so a step that is never fed, or is made twice, does
    no harm.
    """

    def __init__(self, stores: BackfillStores, subscription: Subscription) -> None:
        self._stores = stores
        self._subscription = subscription
        self._increments: Counter[str] = Counter()

    async def step(self, replay: Replay, stands: ReplayProgress, selection: Selection) -> Step:
        """The next step of a backfill from its progress."""
        progress = backfills.read_progress(stands.position)
        if (wait_ms := await self._must_wait(replay, progress)) > 0:
            return Step(None, wait_ms)
        if progress.leg is None:
            chosen = await choose_integration(
                self._stores.integrations, progress, stands.created_at, selection
            )
            return Step(None, PAUSED_WAIT_MS) if chosen is None else self._moved(chosen)
        return await self._go_on(progress, progress.leg, selection)

    async def _must_wait(self, replay: Replay, progress: BackfillProgress) -> int:
        """For how many ms no request may be sent to the upstream."""
        stores = self._stores
        if (wait_ms := progress.wait_until - now_ms()) > 0:
            return wait_ms
        if await stores.control.is_paused("polling"):
            return PAUSED_WAIT_MS
        if await stores.memory.used_share() > MEMORY_SHARE:
            return MEMORY_WAIT_MS
        entries, size = await stores.replays.ahead(replay.subscription_id)
        return AHEAD_WAIT_MS if entries >= MOST_AHEAD or size >= MOST_BYTES_AHEAD else 0

    # --- one integration --------------------------------------------------------------------

    async def _go_on(self, progress: BackfillProgress, leg: Leg, selection: Selection) -> Step:
        integration_id = leg.integration_id
        (stored,) = await self._stores.integrations.get_many([integration_id])
        if stored is None:
            return self._skipped(progress, leg, "it was deleted")
        integration, state = stored
        if reason := backfills.why_not(integration, state):
            return self._skipped(progress, leg, reason)
        if not wants(selection, integration):
            return self._skipped(progress, leg, "it no longer matches")
        if state.epoch != leg.epoch:
            # The pages of its cursor no longer exist, and neither do its courses.
            anew = msgspec.structs.replace(progress, leg=None, slot=0, wait_until=0)
            return self._moved(take_up(anew, integration, state))
        try:
            page = await self._fetch(integration, leg, progress.slot)
            _check_page(leg, page)
            return await self._take(progress, leg, integration, page)
        except TurnOverError as over:
            waiting = msgspec.structs.replace(
                progress, slot=over.slot, wait_until=now_ms() + over.wait_ms
            )
            return self._moved(waiting, wait_ms=over.wait_ms)
        except FingerprintVersionError as error:
            return self._skipped(progress, leg, str(error))
        except UpstreamError as error:
            return self._failed(progress, leg, error)

    async def _fetch(self, integration: Integration, leg: Leg, slot: int) -> Page:
        try:
            credential = await self._stores.credentials.decrypt(integration.credential_id)
        except (NotFoundError, DecryptionError) as error:
            raise UpstreamAuthError(
                f"the API key of {integration.credential_id} cannot be read: {error}"
            ) from error
        # Like a full poll, so that deltas keep their part of the budget.
        async with Fetcher(
            self._stores.upstream,
            self._stores.budgets,
            integration,
            credential,
            "full",
            slot,
            self._increments.update,
        ) as fetcher:
            if leg.at == "deferred":
                return await fetcher.page(PageQuery(ids=tuple(fitting(leg.deferred))))
            return await fetcher.page(PageQuery(page_size=leg.page_size, cursor=leg.cursor))

    async def _take(
        self, progress: BackfillProgress, leg: Leg, integration: Integration, page: Page
    ) -> Step:
        """The part to feed from a page."""
        judged_at = judging_time(now_ms(), page.date_ms)
        records_seen, _ = identify_records(page.results, judged_at)
        # Read after the page: a later commit makes its courses differ.
        stored = await self._stores.catalogue.read(
            integration.id, leg.epoch, [one.course_id for one in records_seen]
        )
        confirmed, differing = backfills.confirm(records_seen, stored, integration.ignored)
        if leg.at == "pages":
            after, left_out = _after_page(leg, page, differing)
        else:
            rest = leg.deferred[len(fitting(leg.deferred)) :]
            after, left_out = msgspec.structs.replace(leg, deferred=rest), len(differing)
        after = msgspec.structs.replace(after, failures=0, got_on_at=now_ms())
        wait_ms = 0
        if after.at != leg.at:
            wait_ms = backfills.recheck_ms(integration)
        through = after.at == "deferred" and not after.deferred
        moved = msgspec.structs.replace(
            progress,
            slot=0,
            wait_until=0 if through or not wait_ms else now_ms() + wait_ms,
            leg=None if through else after,
            served=progress.served + through,
            left_out=progress.left_out + left_out,
        )
        self._increments[field("backfilled_total", result="queued")] += len(confirmed)
        self._increments[field("backfilled_total", result="left_out")] += left_out
        return self._moved(
            moved,
            scanned=len(page.results) if leg.at == "pages" else 0,
            entries=[self._event(integration, one) for one in confirmed],
            left_out=left_out,
            wait_ms=0 if through else wait_ms,
        )

    def _event(self, integration: Integration, course: Confirmed) -> Backfilled:
        return Backfilled(
            order_key=order_key(integration.id, course.course_id),
            rendering=RENDERINGS[self._subscription.rendering],
            type=backfills.EVENT_TYPE,
            integration_id=integration.id,
            course_id=course.course_id,
            sequence=backfills.sequence(course.known),
            facts=msgspec.json.encode(backfills.facts(integration, course)),
            body=sendable(bytes(course.record)),
        )

    # --- the end of a step ---------------------------------------------------------------------

    def _skipped(self, progress: BackfillProgress, leg: Leg, reason: str) -> Step:
        _log.warning(
            "backfill skipped an integration", integration=leg.integration_id, reason=reason
        )
        return self._moved(backfills.skip(progress, leg.integration_id, reason))

    def _failed(self, progress: BackfillProgress, leg: Leg, error: UpstreamError) -> Step:
        """Retries failures that may be temporary; the integration's own polls report the others."""
        changed: Mapping[str, Any] = {}
        if isinstance(error, UpstreamInputError):
            if leg.cursor is None or leg.restarts:
                return self._skipped(progress, leg, str(error))
            changed = {
                "cursor": None,
                "landmark": None,
                "pages": 0,
                "restarts": leg.restarts + 1,
            }
        elif not isinstance(
            error, UpstreamUnavailableError | UpstreamBusyError | UpstreamPageError
        ):
            return self._skipped(progress, leg, str(error))
        elif not isinstance(error, UpstreamBusyError):
            changed = {"page_size": max(MIN_PAGE_SIZE, leg.page_size // 2)}
        failures = leg.failures + 1
        wait_ms = backoff_ms(failures, random.random())
        if not isinstance(error, UpstreamInputError):
            asked_ms = int(min(error.retry_after or 0, MAX_BACKOFF_SECONDS) * 1000)
            left_ms = leg.got_on_at + backfills.PATIENCE_MS - now_ms()
            next_ms = next_try_ms(wait_ms, asked_ms, left_ms)
            if next_ms is None:
                return self._skipped(progress, leg, str(error))
            wait_ms = next_ms
        _log.info(
            "backfill waits for the upstream", integration=leg.integration_id, error=str(error)
        )
        again = msgspec.structs.replace(leg, failures=failures, **changed)
        waiting = msgspec.structs.replace(
            progress, leg=again, slot=0, wait_until=now_ms() + wait_ms
        )
        return self._moved(waiting, wait_ms=wait_ms)

    def _moved(
        self,
        progress: BackfillProgress,
        *,
        scanned: int = 0,
        entries: Sequence[Backfilled] = (),
        left_out: int = 0,
        wait_ms: int = 0,
    ) -> Step:
        progress = msgspec.structs.replace(progress, step=progress.step + 1)
        increments, self._increments = self._increments, Counter()
        part = Part(
            position=backfills.write_progress(progress),
            scanned=scanned,
            entries=entries,
            last=progress.over,
            left_out=left_out,
            note=progress.note(),
            error=progress.note() if progress.failed else "",
            increments=+increments,
        )
        return Step(part, wait_ms)


def _check_page(leg: Leg, page: Page) -> None:
    if leg.at == "deferred":
        return
    if leg.pages >= MAX_PAGES:
        raise UpstreamPagingError(f"the upstream's pages never end: {MAX_PAGES} pages")
    if page.next is not None and page.next in (leg.cursor, leg.landmark):
        raise UpstreamPagingError("the upstream repeats pages: a cursor was returned twice")
    if len(page.results) > max(PAGE_SIZE, leg.page_size):
        raise UpstreamPageError(
            f"the upstream sent {len(page.results)} records where {leg.page_size} were asked for"
        )


def _after_page(leg: Leg, page: Page, differing: Sequence[str]) -> tuple[Leg, int]:
    """The progress after a page, and the number of deferred courses beyond the limit."""
    asked = [one for one in differing if can_be_asked(one)]
    deferred, left_out = backfills.defer(leg, asked)
    left_out += len(differing) - len(asked)
    pages = leg.pages + 1
    size = leg.page_size
    if page.size > LARGE_PAGE_BYTES:
        size = max(MIN_PAGE_SIZE, size // 2)
    elif pages % PAGES_BEFORE_LARGER == 0:
        size = min(PAGE_SIZE, 2 * size)
    return (
        msgspec.structs.replace(
            leg,
            cursor=page.next,
            # Brent's algorithm, as for polls.
            landmark=page.next if pages & (pages - 1) == 0 else leg.landmark,
            pages=pages,
            page_size=size,
            deferred=deferred,
            at="pages" if page.next is not None else "deferred",
        ),
        left_out,
    )
